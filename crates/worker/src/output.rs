//! What a process writes, on its way to the reports.
//!
//! One pump for each stream, which keeps its order. Whole lines go out at once, or gathered over a few milliseconds
//! when there are many; an unfinished line waits a little for its end, and a report never ends within a UTF-8
//! character unless the stream does. A pump that has to wait for the reports doesn't read: then the pipe fills and the
//! process waits, so no output is lost and none piles up.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use homeport_proto::worker::report::Report as Kind;
use homeport_proto::worker::{StepOutput, Stream, TaskOutput};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout_at};

use crate::reports::Reports;

/// Largest piece of output in one report.
const LARGEST: usize = 64 << 10;
/// Lines that come within this time of each other share a report.
const GATHER: Duration = Duration::from_millis(10);
/// How long an unfinished line waits for its end.
const UNFINISHED: Duration = Duration::from_millis(50);

/// The order whose output it is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Task(String),
    Step(String),
}

impl Source {
    fn report(&self, stream: Stream, data: Bytes) -> Kind {
        let (stream, at) = (stream.into(), now());
        match self {
            Self::Task(id) => Kind::TaskOutput(TaskOutput { task_id: id.clone(), stream, data, at }),
            Self::Step(id) => Kind::StepOutput(StepOutput { step_id: id.clone(), stream, data, at }),
        }
    }
}

/// Reports a text of the worker's own as output of a step.
pub(crate) async fn say(reports: &Reports, source: &Source, text: String) {
    reports.send(source.report(Stream::Stdout, Bytes::from(text))).await;
}

/// Reports all of `stdout` and `stderr`; returns when both have ended and everything is queued.
///
/// # Errors
///
/// When a pipe can't be read; the other stream is still reported to its end.
pub(crate) async fn pump(
    reports: &Reports,
    source: &Source,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> std::io::Result<()> {
    let stdout = pipe::Receiver::from_owned_fd(stdout)?;
    let stderr = pipe::Receiver::from_owned_fd(stderr)?;
    let (out, err) = tokio::join!(
        pump_one(reports, source, Stream::Stdout, stdout),
        pump_one(reports, source, Stream::Stderr, stderr),
    );
    out.and(err)
}

async fn pump_one(
    reports: &Reports,
    source: &Source,
    stream: Stream,
    mut input: impl AsyncRead + Unpin,
) -> std::io::Result<()> {
    let mut held: Vec<u8> = Vec::with_capacity(LARGEST);
    let mut last_report: Option<Instant> = None;
    let mut oldest = Instant::now();
    loop {
        // When what is held has to go out, whether or not more comes.
        let due = if held.contains(&b'\n') {
            last_report.map_or(oldest, |last| last + GATHER)
        } else {
            oldest + UNFINISHED
        };
        let was_empty = held.is_empty();
        let room = (LARGEST - held.len()) as u64;
        let mut rest = (&mut input).take(room);
        let read = rest.read_buf(&mut held);
        let read = if was_empty { Some(read.await) } else { timeout_at(due, read).await.ok() };
        if was_empty {
            oldest = Instant::now();
        }
        let ready = match read {
            Some(Ok(0) | Err(_)) => held.len(),
            Some(Ok(_)) if held.len() < LARGEST => continue,
            Some(Ok(_)) | None => ready_part(&held),
        };
        if ready > 0 {
            // A copy, so that a short line in the queue doesn't keep a large buffer alive.
            let data = Bytes::copy_from_slice(&held[..ready]);
            held.drain(..ready);
            reports.send(source.report(stream, data)).await;
        }
        match read {
            Some(Ok(0)) => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => {}
        }
        last_report = Some(Instant::now());
        oldest = Instant::now();
    }
}

/// How much of `held` may go out now: all whole lines, else everything but an unfinished character. Never nothing.
fn ready_part(held: &[u8]) -> usize {
    if let Some(end) = held.iter().rposition(|byte| *byte == b'\n') {
        return end + 1;
    }
    let tail = unfinished_character(held);
    if tail == held.len() { held.len() } else { held.len() - tail }
}

/// Length of the UTF-8 character that `bytes` breaks off in, or 0.
fn unfinished_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use homeport_proto::worker::Report;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::reports;

    fn data(report: Report) -> (Stream, Bytes) {
        match report.report {
            Some(Kind::TaskOutput(output)) => (output.stream(), output.data),
            other => panic!("{other:?}"),
        }
    }

    fn spawn(capacity: usize) -> (tokio::io::DuplexStream, reports::Outbox, tokio::task::JoinHandle<()>) {
        let (writer, reader) = tokio::io::duplex(capacity);
        let (reports, outbox) = reports::channel();
        let pump = tokio::spawn(async move {
            pump_one(&reports, &Source::Task("ta".into()), Stream::Stdout, reader).await.unwrap();
        });
        (writer, outbox, pump)
    }

    #[tokio::test]
    async fn line_goes_out_at_once_and_an_unfinished_one_after_its_time() {
        let (mut writer, mut outbox, pump) = spawn(1024);
        let start = Instant::now();
        writer.write_all(b"one\ntw").await.unwrap();
        assert_eq!(data(outbox.recv().await.unwrap()).1, "one\n");
        assert_eq!(data(outbox.recv().await.unwrap()).1, "tw");
        assert!(start.elapsed() >= UNFINISHED);
        writer.write_all(b"o\nend").await.unwrap();
        drop(writer);
        pump.await.unwrap();
        let mut rest = Vec::new();
        while let Some(report) = outbox.recv().await {
            rest.extend_from_slice(&data(report).1);
        }
        assert_eq!(rest, b"o\nend");
    }

    #[tokio::test]
    async fn many_lines_arrive_complete_and_in_few_reports() {
        let (mut writer, mut outbox, _pump) = spawn(64 << 10);
        let text: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let expected = text.clone();
        tokio::spawn(async move {
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                writer.write_all(line).await.unwrap();
            }
        });
        let (mut got, mut count) = (Vec::new(), 0);
        while let Some(report) = outbox.recv().await {
            got.extend_from_slice(&data(report).1);
            count += 1;
        }
        assert!(got == expected);
        assert!(count < 5_000, "{count}");
    }

    #[tokio::test]
    async fn waiting_reports_stop_the_reader() {
        let (mut writer, mut outbox, _pump) = spawn(1024);
        let write = tokio::spawn(async move {
            let block = vec![b'\n'; 1 << 20];
            for _ in 0..1024 {
                writer.write_all(&block).await.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!write.is_finished());
        let mut total = 0;
        for _ in 0..10 {
            total += data(outbox.recv().await.unwrap()).1.len();
        }
        assert!(total > 0);
        write.abort();
    }

    #[test]
    fn report_does_not_end_within_a_character() {
        assert_eq!(ready_part("aé".as_bytes()), 3);
        assert_eq!(ready_part(&"aé".as_bytes()[..2]), 1);
        assert_eq!(ready_part(&"a🚢".as_bytes()[..4]), 1);
        assert_eq!(ready_part(&"🚢".as_bytes()[..3]), 3);
        assert_eq!(ready_part(b"a\nb\xC3"), 2);
        assert_eq!(ready_part(b"\xFF\xFF"), 2);
    }
}
