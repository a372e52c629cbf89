//! What keeps the collector away from content that is in use: few operations on files, in one order.
//!
//! The collector removes what no root leads to, but a root is written only after all behind it. So
//! content without a root is garbage only if it is *old*, and age is kept honest like this:
//!
//! - An operation announces a hold before it looks for content, and lets go of it when its root
//!   is written.
//! - Who finds content that he needs *keeps* it: under the lock of its shard, its time becomes now.
//!   So does who publishes content, before it gets its name.
//! - A collection fixes its cutoff first: now, or the start of the oldest hold if that is earlier.
//!   Then it reads the roots. What was held when it began is younger than the cutoff; what was
//!   let go of before has its root.
//! - It removes what is older than the cutoff and not marked, each under the lock of its shard.
//! - Content can also be taken over from an existing root, by the names in it. Such a root is
//!   *pinned*: it counts for every collection that began before the pin was let go of.
//!
//! Everything here works through [`Ground`], so that a test can run it under every interleaving.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_content::Digest;

use crate::StoreError;
use crate::clock::Time;
use crate::hold::Root;

/// Times that are later than now by more than this are of another boot, with another clock.
const SLACK: Time = 2_000_000_000;

/// How a shard is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// For keeping and publishing, beside others who do.
    Shared,
    /// For removing.
    Alone,
}

/// The operations of the file system that safety hangs on.
pub(crate) trait Ground {
    /// Where content is.
    type Place;
    /// Content that has no place yet.
    type Staged: ?Sized;
    /// A part of the places.
    type Shard: ?Sized;
    /// Ends a lock.
    type Guard;

    /// The time, which never goes back, for all who use this ground.
    fn now(&self) -> Time;
    /// Locks the shard of a place; `None` if there is no such shard.
    fn lock(&self, place: &Self::Place, access: Access) -> Result<Option<Self::Guard>, StoreError>;
    /// Makes the shard of a place.
    fn make_shard(&self, place: &Self::Place) -> Result<(), StoreError>;
    /// The time of what is there, and what it takes on disk.
    fn look(&self, place: &Self::Place) -> Result<Option<(Time, u64)>, StoreError>;
    /// Sets the time of what is there; `false` if nothing is.
    fn touch(&self, place: &Self::Place, time: Time) -> Result<bool, StoreError>;
    /// Gives staged content, with this time, its place. What was there is replaced.
    fn publish(&self, staged: &Self::Staged, place: &Self::Place, time: Time) -> Result<(), StoreError>;
    /// Removes what is there.
    fn remove(&self, place: &Self::Place) -> Result<(), StoreError>;
    /// Everything in a shard.
    fn list(&self, shard: &Self::Shard) -> Result<Vec<(Digest, Self::Place)>, StoreError>;
    /// Lets other processes see a hold.
    fn announce(&self, start: Time);
    /// The hold is over.
    fn retract(&self, start: Time);
    /// The start of the oldest hold of another process, if there is one before `time`.
    fn oldest_elsewhere(&self, time: Time) -> Option<Time>;
}

/// Keeping, publishing, holding and collecting on one ground.
#[derive(Debug)]
pub(crate) struct Protocol<G> {
    pub(crate) ground: G,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Starts of live holds, with their number.
    holds: BTreeMap<Time, usize>,
    pins: BTreeMap<u64, Vec<Root>>,
    next_pin: u64,
    /// Number of collections under way.
    collections: usize,
    /// Pins that were let go of while there were any.
    released: Vec<Root>,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) removed: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) kept: u64,
    pub(crate) kept_bytes: u64,
}

impl<G: Ground> Protocol<G> {
    pub(crate) fn new(ground: G) -> Self {
        Self { ground, state: Mutex::default() }
    }

    /// Whether content is there. If it is, it is fresh now: no collection takes it before the
    /// holds of now are over.
    pub(crate) fn keep(&self, place: &G::Place) -> Result<bool, StoreError> {
        let Some(_guard) = self.ground.lock(place, Access::Shared)? else {
            return Ok(false);
        };
        self.ground.touch(place, self.ground.now())
    }

    /// Gives finished content its place. Who comes second replaces equal bytes by equal bytes.
    pub(crate) fn publish(&self, staged: &G::Staged, place: &G::Place) -> Result<(), StoreError> {
        let _guard = match self.ground.lock(place, Access::Shared)? {
            Some(guard) => Some(guard),
            None => {
                self.ground.make_shard(place)?;
                self.ground.lock(place, Access::Shared)?
            }
        };
        self.ground.publish(staged, place, self.ground.now())
    }

    /// Begins a hold.
    pub(crate) fn hold(&self) -> Time {
        let start = {
            let mut state = self.state();
            let start = self.ground.now();
            *state.holds.entry(start).or_default() += 1;
            start
        };
        // Nothing was looked for yet, so it is early enough for others to see it from here on.
        self.ground.announce(start);
        start
    }

    /// Ends a hold.
    pub(crate) fn let_go(&self, start: Time) {
        let last = {
            let mut state = self.state();
            let left = state.holds.get_mut(&start).map(|count| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                state.holds.remove(&start);
            }
            left == Some(0)
        };
        if last {
            self.ground.retract(start);
        }
    }

    /// Pins roots, all of which must exist until this returns.
    pub(crate) fn pin(&self, roots: Vec<Root>) -> u64 {
        let mut state = self.state();
        let number = state.next_pin;
        state.next_pin += 1;
        state.pins.insert(number, roots);
        number
    }

    pub(crate) fn unpin(&self, number: u64) {
        let mut state = self.state();
        let roots = state.pins.remove(&number).unwrap_or_default();
        if state.collections > 0 {
            state.released.extend(roots);
        }
    }

    /// Begins a collection, before its roots are read. What is older than the time returned, and
    /// has no root, is garbage.
    pub(crate) fn begin_collection(&self, grace: Time) -> Time {
        let cutoff = {
            let mut state = self.state();
            state.collections += 1;
            let latest = self.ground.now().saturating_sub(grace);
            state.holds.keys().next().map_or(latest, |oldest| latest.min(*oldest))
        };
        self.ground.oldest_elsewhere(cutoff).map_or(cutoff, |oldest| cutoff.min(oldest))
    }

    /// The roots that were pinned at some time since the collection began.
    pub(crate) fn pinned(&self) -> Vec<Root> {
        let state = self.state();
        state.pins.values().flatten().chain(&state.released).copied().collect()
    }

    pub(crate) fn end_collection(&self) {
        let mut state = self.state();
        state.collections -= 1;
        if state.collections == 0 {
            state.released.clear();
        }
    }

    /// Removes from a shard what is neither marked nor young. With `dry_run` it is only counted.
    pub(crate) fn sweep(
        &self,
        shard: &G::Shard,
        cutoff: Time,
        marked: &dyn Fn(&Digest) -> bool,
        dry_run: bool,
    ) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        for (digest, place) in self.ground.list(shard)? {
            let is_marked = marked(&digest);
            let _guard = if is_marked || dry_run { None } else { self.ground.lock(&place, Access::Alone)? };
            let Some((time, bytes)) = self.ground.look(&place)? else {
                continue;
            };
            if is_marked || self.is_young(time, cutoff) {
                tally.kept += 1;
                tally.kept_bytes += bytes;
                continue;
            }
            if !dry_run {
                self.ground.remove(&place)?;
            }
            tally.removed += 1;
            tally.removed_bytes += bytes;
        }
        Ok(tally)
    }

    fn is_young(&self, time: Time, cutoff: Time) -> bool {
        time >= cutoff && time <= self.ground.now().saturating_add(SLACK)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hold, until it is dropped.
#[derive(Debug)]
pub(crate) struct HoldOn<G: Ground> {
    protocol: Arc<Protocol<G>>,
    start: Time,
}

impl<G: Ground> HoldOn<G> {
    pub(crate) fn new(protocol: &Arc<Protocol<G>>) -> Self {
        Self { protocol: Arc::clone(protocol), start: protocol.hold() }
    }

    pub(crate) fn start(&self) -> Time {
        self.start
    }
}

impl<G: Ground> Drop for HoldOn<G> {
    fn drop(&mut self) {
        self.protocol.let_go(self.start);
    }
}

/// A pin, until it is dropped.
#[derive(Debug)]
pub(crate) struct PinOn<G: Ground> {
    protocol: Arc<Protocol<G>>,
    number: u64,
}

impl<G: Ground> PinOn<G> {
    pub(crate) fn new(protocol: &Arc<Protocol<G>>, roots: Vec<Root>) -> Self {
        Self { protocol: Arc::clone(protocol), number: protocol.pin(roots) }
    }
}

impl<G: Ground> Drop for PinOn<G> {
    fn drop(&mut self) {
        self.protocol.unpin(self.number);
    }
}
