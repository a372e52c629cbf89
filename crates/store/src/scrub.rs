//! The scrubber: reads the whole store now and then, slowly, to find damage before it is asked for.
//!
//! It goes through the store in the order of names and writes down how far it came, so that a
//! restart costs nothing. What is damaged is put aside at once, and mended where a good copy is.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homeport_content::Digest;

use crate::clock::{Time, nanos};
use crate::error::io_error;
use crate::examine::{Examined, examine};
use crate::fault::{Fault, Finding, Mended};
use crate::hold::{Kind, Root};
use crate::protocol::Ground;
use crate::sources::Sources;
use crate::{Store, StoreError};

/// The longest sleep: then it looks whether it shall stop.
const NAP: Duration = Duration::from_millis(100);
/// How often the place is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);
const KINDS: [Kind; 3] = [("trees", Root::Tree), ("deltas", Root::Delta), ("objects", Root::Object)];

/// How a store is scrubbed.
#[derive(Debug, Clone)]
pub struct ScrubPolicy {
    /// All of it is read once in this time.
    pub period: Duration,
    /// Bytes in a second at least, while it reads.
    pub min_rate: u64,
    /// Bytes in a second at most, whatever the period says.
    pub max_rate: u64,
    /// Where good copies may be.
    pub sources: Vec<PathBuf>,
}

impl Default for ScrubPolicy {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(30 * 24 * 60 * 60),
            min_rate: 2 << 20,
            max_rate: 64 << 20,
            sources: Vec::new(),
        }
    }
}

/// How far the scrubber is, or how it went last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// When the round began, in nanoseconds since 1970.
    pub began: Time,
    /// Files that were read in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Faults that were found in it.
    pub faults: u64,
    /// Whether it is over.
    pub done: bool,
    /// The kind and name that were read last.
    place: Option<(usize, Digest)>,
}

impl Store {
    /// How the scrubber of this store is getting on.
    pub fn scrub_state(&self) -> ScrubState {
        fs::read_to_string(self.scrub_path())
            .ok()
            .and_then(|text| ScrubState::parse(&text))
            .unwrap_or_default()
    }

    /// Time until the next round, or the rest of one, is due.
    pub fn scrub_due(&self, policy: &ScrubPolicy) -> Duration {
        let state = self.scrub_state();
        let next = if state.done { state.began.saturating_add(nanos(policy.period)) } else { 0 };
        Duration::from_nanos(next.saturating_sub(self.protocol.ground.now()))
    }

    /// Reads the store, or what was left of it when it was stopped. To be called on a thread that
    /// has nothing else to do: it gets the lowest priority. Returns when all is read or `stop` is set.
    pub fn scrub(
        &self,
        policy: &ScrubPolicy,
        stop: &AtomicBool,
        on_finding: &dyn Fn(&Finding),
    ) -> Result<ScrubState, StoreError> {
        yield_to_others();
        let mut state = self.scrub_state();
        if state.done || state.began == 0 {
            state = ScrubState { began: self.protocol.ground.now(), ..ScrubState::default() };
        }
        let pacer = Pacer::new(self.rate(policy)?, stop);
        let mut noted = Instant::now();
        for (number, (kind, root)) in KINDS.into_iter().enumerate() {
            for shard in self.shards(kind)? {
                for digest in self.digests(&shard)? {
                    if state.place.is_some_and(|place| (number, digest) <= place) {
                        continue;
                    }
                    let Some(read) = self.scrub_one(&root(digest), policy, &pacer, on_finding)? else {
                        self.note(&state);
                        return Ok(state);
                    };
                    state.files += 1;
                    state.bytes += read.bytes;
                    state.faults += u64::from(read.is_damaged);
                    state.place = Some((number, digest));
                    if noted.elapsed() > NOTE_INTERVAL {
                        self.note(&state);
                        noted = Instant::now();
                    }
                }
            }
        }
        state.done = true;
        self.note(&state);
        Ok(state)
    }

    /// Reads one; `None` if it was stopped in the middle.
    fn scrub_one(
        &self,
        root: &Root,
        policy: &ScrubPolicy,
        pacer: &Pacer<'_>,
        on_finding: &dyn Fn(&Finding),
    ) -> Result<Option<Read>, StoreError> {
        let path = self.place_of(root);
        let once = || examine(&path, &|bytes| pacer.pace(bytes));
        let examined = match once() {
            // An error in memory is not taken for one on the disk.
            Ok(examined) if examined.digest != *root.digest() => once(),
            examined => examined,
        };
        let (fault, inode, bytes) = match examined {
            Ok(Examined { digest, size, .. }) if digest == *root.digest() => {
                return Ok(Some(Read { bytes: size, is_damaged: false }));
            }
            Ok(Examined { digest, size, inode, .. }) => {
                (Fault::Altered { what: *root, found: digest }, Some(inode), size)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            // A collection took it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Read { bytes: 0, is_damaged: false }));
            }
            Err(error) => {
                let found = path.symlink_metadata().ok();
                let size = found.as_ref().map_or(0, |found| found.len());
                let inode = found.map(|found| found.ino());
                (Fault::Unreadable { what: *root, reason: error.to_string() }, inode, size)
            }
        };
        let mended = match inode {
            Some(inode) => self.mend(root, inode, policy, bytes)?,
            None => None,
        };
        on_finding(&Finding { fault, mended });
        Ok(Some(Read { bytes, is_damaged: true }))
    }

    fn mend(
        &self,
        root: &Root,
        inode: u64,
        policy: &ScrubPolicy,
        size: u64,
    ) -> Result<Option<Mended>, StoreError> {
        let Some(aside) = self.quarantine(root, inode)? else {
            return Ok(None);
        };
        let copied = Sources::of(&policy.sources).mend(self, root, Some(size))?;
        Ok(Some(copied.map_or(Mended::PutAside(aside), Mended::Copied)))
    }

    /// Bytes in a second with which a round takes half of its period: there are other things to do.
    fn rate(&self, policy: &ScrubPolicy) -> Result<u64, StoreError> {
        let mut total = 0;
        for (kind, _) in KINDS {
            self.each(kind, |_, path| {
                total += path.symlink_metadata().map_or(0, |found| found.len());
                Ok(())
            })?;
        }
        let wanted = total / (policy.period.as_secs() / 2).max(1);
        Ok(wanted.clamp(policy.min_rate, policy.max_rate.max(policy.min_rate)))
    }

    /// Without a note, which a full disk may prevent, more is read again after a restart.
    fn note(&self, state: &ScrubState) {
        let write = || -> Result<(), StoreError> {
            let scratch = self.scratch_dir()?;
            let (written, path) = (scratch.path().join("scrub"), self.scrub_path());
            fs::write(&written, state.text()).map_err(io_error("write", &written))?;
            fs::rename(&written, &path).map_err(io_error("rename a new file to", &path))
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the place of the scrubber could not be written down");
        }
    }

    fn scrub_path(&self) -> PathBuf {
        self.dir.join("scrub")
    }
}

struct Read {
    bytes: u64,
    is_damaged: bool,
}

impl ScrubState {
    fn text(&self) -> String {
        let ScrubState { began, files, bytes, faults, done, place } = self;
        let place = place.map_or("-".to_owned(), |(kind, digest)| format!("{kind}:{digest}"));
        format!("{began} {files} {bytes} {faults} {done} {place}\n")
    }

    fn parse(text: &str) -> Option<ScrubState> {
        let mut words = text.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (began, files, bytes, faults) = (number()?, number()?, number()?, number()?);
        let done = words.next()?.parse().ok()?;
        let place = match words.next()? {
            "-" => None,
            place => {
                let (kind, digest) = place.split_once(':')?;
                Some((kind.parse().ok()?, digest.parse().ok()?))
            }
        };
        Some(ScrubState { began, files, bytes, faults, done, place })
    }
}

/// Keeps a rate over the long run.
struct Pacer<'a> {
    rate: u64,
    start: Instant,
    bytes: Cell<u64>,
    stop: &'a AtomicBool,
}

impl<'a> Pacer<'a> {
    fn new(rate: u64, stop: &'a AtomicBool) -> Self {
        Self { rate, start: Instant::now(), bytes: Cell::new(0), stop }
    }

    /// Sleeps for as long as the bytes read so far are too many; an error when it shall stop.
    fn pace(&self, bytes: u64) -> io::Result<()> {
        self.bytes.set(self.bytes.get() + bytes);
        let due = Duration::from_secs_f64(self.bytes.get() as f64 / self.rate as f64);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let early = due.saturating_sub(self.start.elapsed());
            if early.is_zero() {
                return Ok(());
            }
            std::thread::sleep(early.min(NAP));
        }
    }
}

/// Lets everything else on this machine go before this thread, on the disk and on the processor.
fn yield_to_others() {
    const THIS_THREAD: libc::c_int = 0;
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE_CLASS: libc::c_int = 3 << 13;
    // SAFETY: these calls change priorities of the calling thread only, and touch no memory.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, IDLE_CLASS),
            libc::c_long::from(libc::setpriority(libc::PRIO_PROCESS, 0, 19)),
        ]
    };
    if results.contains(&-1) {
        tracing::debug!("the scrubber runs with the priority of others");
    }
}
