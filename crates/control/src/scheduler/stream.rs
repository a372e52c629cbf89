//! What a generator yields, on its way to its caller: in order, and bounded.
//!
//! A reader acknowledges what it has only when it opens the stream anew, so what was handed out
//! stays for a while in case the connection breaks. What waits for the reader is bounded by making
//! the container wait, and with it the generator.

use std::collections::VecDeque;

use homeport_proto::client as pb;
use prost::Message as _;

use super::Scheduler;

/// Bytes that may wait for the reader before the container waits.
const MOST_WAITING: usize = 16 << 20;
/// Bytes that stay after they were handed out: more than a client lets arrive without reading it.
const MOST_HANDED_OUT: usize = 72 << 20;
/// Bytes in one page.
const PAGE_BYTES: usize = 4 << 20;

/// The chunks of a call.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    held: VecDeque<pb::DataChunk>,
    /// The number of the newest chunk; they count from 1.
    newest: u64,
    /// The number of the last chunk that was handed out.
    handed_out: u64,
    waiting_bytes: usize,
    handed_out_bytes: usize,
}

/// A reader asks for chunks that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Chunks {
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting_bytes > 0
    }

    fn is_full(&self) -> bool {
        self.waiting_bytes >= MOST_WAITING
    }

    /// Adds what is new. A repeated request, or another attempt of the generator, brings chunks
    /// again that are already there.
    fn append(&mut self, chunks: Vec<pb::DataChunk>) {
        for chunk in chunks {
            if chunk.index > self.newest {
                self.newest = chunk.index;
                self.waiting_bytes += chunk.encoded_len();
                self.held.push_back(chunk);
            }
        }
    }

    /// The reader opens a stream and has everything up to `last`.
    fn acknowledge(&mut self, last: u64) {
        self.hand_out(last);
        for _ in 0..self.position_after(last) {
            self.drop_oldest();
        }
    }

    /// Everything up to `last` is on its way to the reader.
    fn hand_out(&mut self, last: u64) {
        let last = last.min(self.newest);
        let (from, to) = (self.position_after(self.handed_out), self.position_after(last));
        for chunk in self.held.range(from..to.max(from)) {
            self.waiting_bytes -= chunk.encoded_len();
            self.handed_out_bytes += chunk.encoded_len();
        }
        self.handed_out = self.handed_out.max(last);
        while self.handed_out_bytes > MOST_HANDED_OUT {
            self.drop_oldest();
        }
    }

    /// Where the chunks after the one numbered `index` begin.
    fn position_after(&self, index: u64) -> usize {
        self.held.partition_point(|chunk| chunk.index <= index)
    }

    /// Only for a chunk that was handed out.
    fn drop_oldest(&mut self) {
        if let Some(chunk) = self.held.pop_front() {
            self.handed_out_bytes -= chunk.encoded_len();
        }
    }

    /// A page of chunks after the one numbered `last`.
    fn after(&self, last: u64) -> Result<Vec<pb::DataChunk>, Gone> {
        let oldest = self.held.front().map_or(self.newest + 1, |chunk| chunk.index);
        if last.saturating_add(1) < oldest {
            return Err(Gone);
        }
        let mut bytes = 0;
        let page = self.held.range(self.position_after(last)..).take_while(|chunk| {
            let fits = bytes < PAGE_BYTES;
            bytes += chunk.encoded_len();
            fits
        });
        Ok(page.cloned().collect())
    }
}

/// What became of chunks that a container brought.
#[derive(Debug)]
pub enum Appended {
    /// They are on their way, or nobody wants them any more.
    Taken,
    /// The reader is slow: they come back, to be brought again after a change.
    Later(Vec<pb::DataChunk>, tokio::sync::watch::Receiver<u64>),
}

impl Scheduler {
    /// A container brings chunks of a generator. Those of a call that it doesn't serve are ignored:
    /// its input was cancelled or ran out of time.
    pub fn append_chunks(&mut self, task_id: &str, call_id: &str, chunks: Vec<pb::DataChunk>) -> Appended {
        let serves = self.tasks.get(task_id).is_some_and(|task| {
            task.inputs.iter().any(|id| self.inputs.get(id).is_some_and(|input| input.call_id == call_id))
        });
        let Some(call) = self.calls.get_mut(call_id).filter(|_| serves) else { return Appended::Taken };
        if call.chunks.is_full() {
            return Appended::Later(chunks, call.pulse.subscribe());
        }
        call.chunks.append(chunks);
        call.pulse.beat();
        Appended::Taken
    }

    /// A reader opens the stream of a call and has everything up to `last`.
    pub fn acknowledge_chunks(&mut self, call_id: &str, last: u64) {
        if let Some(call) = self.calls.get_mut(call_id) {
            call.chunks.acknowledge(last);
            call.pulse.beat();
        }
    }

    /// The next chunks for a reader to which everything up to `last` was sent. None if there is no
    /// such call.
    pub fn next_chunks(&mut self, call_id: &str, last: u64) -> Option<Result<Vec<pb::DataChunk>, Gone>> {
        let call = self.calls.get_mut(call_id)?;
        let was_full = call.chunks.is_full();
        call.chunks.hand_out(last);
        if was_full && !call.chunks.is_full() {
            call.pulse.beat();
        }
        Some(call.chunks.after(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: u64, bytes: usize) -> pb::DataChunk {
        let data = pb::data_chunk::DataOneof::Data(vec![0; bytes].into());
        pb::DataChunk { index, data_oneof: Some(data), ..Default::default() }
    }

    fn numbers(chunks: &Chunks, last: u64) -> Vec<u64> {
        chunks.after(last).unwrap().iter().map(|chunk| chunk.index).collect()
    }

    #[test]
    fn chunks_that_come_again_are_there_once() {
        let mut chunks = Chunks::default();
        chunks.append(vec![chunk(1, 10), chunk(2, 10)]);
        chunks.append(vec![chunk(1, 10), chunk(2, 10), chunk(3, 10)]);
        assert_eq!(numbers(&chunks, 0), [1, 2, 3]);
        assert_eq!(numbers(&chunks, 2), [3]);
    }

    #[test]
    fn a_slow_reader_makes_the_container_wait_and_memory_stays_bounded() {
        let mut chunks = Chunks::default();
        let (mut next, mut read) = (1, 0);
        let mut most = 0;
        while read < 400 {
            while !chunks.is_full() {
                chunks.append(vec![chunk(next, 1 << 20)]);
                next += 1;
            }
            let page = numbers(&chunks, read);
            read = *page.last().unwrap();
            chunks.hand_out(read);
            most = most.max(chunks.held.iter().map(prost::Message::encoded_len).sum());
        }
        assert!(most < MOST_WAITING + MOST_HANDED_OUT + (8 << 20), "{most}");
        assert!(
            numbers(&chunks, read - 60).first() == Some(&(read - 59)),
            "a reader may lose its connection"
        );
        assert_eq!(chunks.after(1), Err(Gone));
    }

    #[test]
    fn what_a_reader_acknowledges_is_dropped() {
        let mut chunks = Chunks::default();
        chunks.append((1..=5).map(|index| chunk(index, 100)).collect());
        chunks.acknowledge(3);
        assert_eq!(chunks.held.len(), 2);
        assert_eq!(numbers(&chunks, 3), [4, 5]);
        chunks.acknowledge(5);
        assert!(!chunks.has_waiting() && chunks.held.is_empty());
        assert_eq!(numbers(&chunks, 5), [0; 0]);
    }
}
