//! Live logs of apps and image builds: bounded, numbered, readable from any entry on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::Seconds;

/// Bytes kept for one log. Older entries go first.
const KEEP_BYTES: usize = 32 << 20;
/// Bytes that an entry takes beside its text: programs write a few letters at a time.
const ENTRY_BYTES: usize = 256;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output of a container.
    Stdout,
    /// Standard error of a container.
    Stderr,
    /// The server itself.
    Server,
}

/// One piece of a log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number; grows by one within a log.
    pub number: u64,
    /// The text, with its line ends.
    pub text: String,
    /// Where it came from.
    pub source: Source,
    /// When.
    pub at: Seconds,
    /// The container; empty for the server's own words.
    pub task_id: String,
    /// Its function; empty for the server's own words.
    pub function_id: String,
}

#[derive(Debug)]
struct Log {
    entries: VecDeque<Entry>,
    next: u64,
    bytes: usize,
    done: bool,
    change: watch::Sender<u64>,
    /// Bytes of an unfinished character for each container and stream.
    partial: HashMap<(String, bool), Vec<u8>>,
}

impl Log {
    fn new(first: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            next: first,
            bytes: 0,
            done: false,
            change: watch::Sender::new(0),
            partial: HashMap::new(),
        }
    }
}

/// A page of a log.
#[derive(Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Nothing will come after them.
    pub done: bool,
    /// Moves when more is there.
    pub change: watch::Receiver<u64>,
}

/// All logs by the id of their app or image.
#[derive(Debug)]
pub struct Logs {
    logs: Mutex<HashMap<String, Log>>,
    first: u64,
}

/// Entries of one page.
const PAGE: usize = 512;

impl Logs {
    /// No logs. Their entries will be numbered from `first` on, which must be above all numbers of
    /// earlier runs: a reader that comes with one of those misses nothing.
    pub fn new(first: u64) -> Self {
        Self { logs: Mutex::default(), first: first.max(1) }
    }

    /// Appends words of the server, as a line.
    pub fn say(&self, id: &str, text: &str, at: Seconds) {
        let entry = Entry {
            number: 0,
            text: format!("{text}\n"),
            source: Source::Server,
            at,
            task_id: String::new(),
            function_id: String::new(),
        };
        self.lock().entry(id.to_owned()).or_insert_with(|| Log::new(self.first)).push(entry);
    }

    /// Appends output of a container. A character that is cut at the end of `data` waits for its rest.
    pub fn append(
        &self,
        id: &str,
        task_id: &str,
        function_id: &str,
        source: Source,
        data: &[u8],
        at: Seconds,
    ) {
        let mut logs = self.lock();
        let log = logs.entry(id.to_owned()).or_insert_with(|| Log::new(self.first));
        let key = (task_id.to_owned(), source == Source::Stderr);
        let mut bytes = log.partial.remove(&key).unwrap_or_default();
        bytes.extend_from_slice(data);
        let cut = incomplete_tail(&bytes);
        let rest = bytes.split_off(bytes.len() - cut);
        if !rest.is_empty() {
            log.partial.insert(key, rest);
        }
        if bytes.is_empty() {
            return;
        }
        log.push(Entry {
            number: 0,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            source,
            at,
            task_id: task_id.to_owned(),
            function_id: function_id.to_owned(),
        });
    }

    /// Nothing more will come.
    pub fn close(&self, id: &str) {
        let mut logs = self.lock();
        let log = logs.entry(id.to_owned()).or_insert_with(|| Log::new(self.first));
        log.done = true;
        log.change.send_modify(|count| *count += 1);
    }

    /// Opens the log again, for a build that starts over.
    pub fn reset(&self, id: &str) {
        let mut logs = self.lock();
        let next = logs.get(id).map_or(self.first, |log| log.next);
        logs.insert(id.to_owned(), Log::new(next));
    }

    /// Whether there is a log of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// The entries after number `after`.
    pub fn page(&self, id: &str, after: u64) -> Page {
        let mut logs = self.lock();
        let log = logs.entry(id.to_owned()).or_insert_with(|| Log::new(self.first));
        let change = log.change.subscribe();
        let first = log.entries.front().map_or(log.next, |entry| entry.number);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = log.entries.iter().skip(skip).take(PAGE).cloned().collect();
        let last = entries.last().map_or(after, |entry| entry.number);
        let read_out = log.entries.back().is_none_or(|newest| last >= newest.number);
        Page { done: log.done && read_out, entries, change }
    }

    /// The last entries between two times, at most `limit`.
    pub fn between(&self, id: &str, since: Seconds, until: Seconds, limit: usize) -> Vec<Entry> {
        let logs = self.lock();
        let Some(log) = logs.get(id) else { return Vec::new() };
        let found: Vec<&Entry> =
            log.entries.iter().filter(|entry| entry.at >= since && entry.at <= until).collect();
        found.iter().skip(found.len().saturating_sub(limit)).map(|entry| (*entry).clone()).collect()
    }

    /// Drops a log.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Log>> {
        // Every change leaves the logs whole, so a panic elsewhere doesn't spoil them.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, mut entry: Entry) {
        entry.number = self.next;
        self.next += 1;
        self.bytes += entry.text.len() + ENTRY_BYTES;
        self.entries.push_back(entry);
        while self.bytes > KEEP_BYTES
            && let Some(old) = self.entries.pop_front()
        {
            self.bytes -= old.text.len() + ENTRY_BYTES;
        }
        self.change.send_modify(|count| *count += 1);
    }
}

/// How many bytes at the end begin a character without completing it.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: &Page) -> String {
        page.entries.iter().map(|entry| entry.text.as_str()).collect()
    }

    #[test]
    fn a_character_cut_between_two_pieces_arrives_whole() {
        let logs = Logs::new(1);
        let bytes = "aé€😀z".as_bytes();
        for byte in bytes {
            logs.append("ap-1", "ta-1", "fu-1", Source::Stdout, &[*byte], 1.0);
        }
        assert_eq!(text(&logs.page("ap-1", 0)), "aé€😀z");
    }

    #[test]
    fn reading_from_an_entry_on_misses_and_repeats_nothing() {
        let logs = Logs::new(1);
        for n in 0..1200 {
            logs.append("ap-1", "ta-1", "fu-1", Source::Stdout, format!("{n}\n").as_bytes(), 1.0);
        }
        logs.close("ap-1");
        let (mut after, mut all) = (0, String::new());
        loop {
            let page = logs.page("ap-1", after);
            all += &text(&page);
            after = page.entries.last().map_or(after, |entry| entry.number);
            if page.done {
                break;
            }
        }
        assert_eq!(all, (0..1200).map(|n| format!("{n}\n")).collect::<String>());
    }

    #[test]
    fn a_reader_that_comes_from_an_earlier_run_misses_nothing() {
        let logs = Logs::new(1000);
        logs.append("ap-1", "ta-1", "fu-1", Source::Stdout, b"after the restart", 1.0);
        logs.close("ap-1");
        let page = logs.page("ap-1", 500);
        assert_eq!((text(&page).as_str(), page.done), ("after the restart", true));
        logs.reset("ap-1");
        logs.append("ap-1", "ta-2", "fu-1", Source::Stdout, b"once more", 2.0);
        assert_eq!(text(&logs.page("ap-1", page.entries[0].number)), "once more");
    }

    #[test]
    fn many_short_entries_are_bounded_too() {
        let logs = Logs::new(1);
        for _ in 0..200_000 {
            logs.append("ap-1", "ta-1", "fu-1", Source::Stdout, b"x", 1.0);
        }
        assert!(logs.between("ap-1", 0.0, 2.0, usize::MAX).len() <= KEEP_BYTES / ENTRY_BYTES);
    }

    #[test]
    fn an_empty_log_that_is_closed_is_done() {
        let logs = Logs::new(1000);
        assert!(!logs.page("ap-1", 0).done);
        logs.close("ap-1");
        assert!(logs.page("ap-1", 0).done);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hold_back_what_follows() {
        let logs = Logs::new(1);
        logs.append("ap-1", "ta-1", "fu-1", Source::Stdout, &[0xFF, b'a', 0x80], 1.0);
        assert_eq!(text(&logs.page("ap-1", 0)), "\u{FFFD}a\u{FFFD}");
    }
}
