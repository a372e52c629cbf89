//! What happened to a disk, and what it looks like after a crash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rand::Rng;

/// What a disk writes at once: of a larger write any part can be missing after a crash.
const SECTOR: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes were written; they may still be lost.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// All that was written before is safe.
    Flush,
    /// Somebody was promised something.
    Promise(u64),
}

/// The history of a disk, which is empty at first.
#[derive(Debug, Clone)]
pub struct Journal {
    bytes: u64,
    events: Vec<Event>,
}

impl Journal {
    pub(crate) fn new(bytes: u64) -> Journal {
        Journal { bytes, events: Vec::new() }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Size of the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What happened, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Moments worth a crash, as numbers of events that happened before: around every flush, and in
    /// the middle of the writes between two.
    pub fn crash_points(&self) -> Vec<usize> {
        let mut points = Vec::new();
        let mut last = 0;
        for (at, event) in self.events.iter().enumerate() {
            if matches!(event, Event::Flush) {
                points.extend([last + (at - last) / 2, at, at + 1]);
                last = at + 1;
            }
        }
        points.push(self.events.len());
        points.dedup();
        points
    }

    /// The promises made before a moment.
    pub fn promises(&self, point: usize) -> Vec<u64> {
        let promise = |event: &Event| match event {
            Event::Promise(number) => Some(*number),
            _ => None,
        };
        self.events[..point].iter().filter_map(promise).collect()
    }

    /// Advances an image from one moment to a later one, as if nothing was lost.
    pub fn advance(&self, image: &File, from: usize, to: usize) -> io::Result<()> {
        for event in &self.events[from..to] {
            if let Event::Write { offset, data } = event {
                image.write_all_at(data, *offset)?;
            }
        }
        Ok(())
    }

    /// The moment up to which nothing can be lost by a crash at `point`.
    pub fn safe_point(&self, point: usize) -> usize {
        let flushes = self.events[..point].iter().rposition(|event| matches!(event, Event::Flush));
        flushes.map_or(0, |at| at + 1)
    }

    /// Crashes at `point`: applies to `image`, which is at [`Journal::safe_point`], whatever `chance`
    /// lets survive of the later writes.
    pub fn crash(&self, image: &File, point: usize, chance: &mut impl Rng) -> io::Result<()> {
        // Sometimes everything survives, sometimes nothing: both are real.
        let odds = [0.0, 0.1, 0.5, 0.9, 1.0][chance.random_range(0..5)];
        for event in &self.events[self.safe_point(point)..point] {
            let Event::Write { offset, data } = event else { continue };
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                if chance.random_bool(odds) {
                    image.write_all_at(sector, offset + (number * SECTOR) as u64)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn what_was_flushed_survives_and_the_rest_may_not() {
        let mut journal = Journal::new(1 << 20);
        let write = |offset: u64, byte: u8| Event::Write { offset, data: vec![byte; SECTOR].into() };
        for event in
            [write(0, 1), Event::Flush, Event::Promise(7), write(4096, 2), write(8192, 3), Event::Flush]
        {
            journal.push(event);
        }
        assert_eq!(journal.promises(2), [0; 0]);
        assert_eq!(journal.promises(5), [7]);
        assert_eq!(journal.safe_point(1), 0);
        assert_eq!(journal.safe_point(5), 2);
        let mut outcomes = std::collections::HashSet::new();
        for seed in 0..200 {
            let image = tempfile::tempfile().unwrap();
            image.set_len(journal.bytes()).unwrap();
            journal.advance(&image, 0, journal.safe_point(5)).unwrap();
            journal.crash(&image, 5, &mut rand::rngs::StdRng::seed_from_u64(seed)).unwrap();
            let mut found = [0; 3 * SECTOR];
            image.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found[0], 1, "flushed");
            outcomes.insert((found[SECTOR], found[2 * SECTOR]));
        }
        assert_eq!(outcomes.len(), 4, "each of two writes survives or not");
    }
}
