//! Decoded trees and deltas, kept while there is room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_content::Digest;

/// Decoded values by digest, the least recently used of which make way.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    /// Encoded bytes of what is kept; decoded it takes some four times as much.
    limit: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    entries: HashMap<Digest, Cached<T>>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached<T> {
    value: Arc<T>,
    bytes: usize,
    used: u64,
}

impl<T> Cache<T> {
    pub(crate) fn new(limit: usize) -> Cache<T> {
        let state = State { entries: HashMap::new(), bytes: 0, clock: 0 };
        Cache { limit, state: Mutex::new(state) }
    }

    pub(crate) fn get(&self, id: &Digest) -> Option<Arc<T>> {
        let mut state = self.state();
        state.clock += 1;
        let used = state.clock;
        let cached = state.entries.get_mut(id)?;
        cached.used = used;
        Some(Arc::clone(&cached.value))
    }

    pub(crate) fn insert(&self, id: Digest, value: Arc<T>, bytes: usize) {
        let mut state = self.state();
        state.clock += 1;
        let used = state.clock;
        state.bytes += bytes;
        if let Some(old) = state.entries.insert(id, Cached { value, bytes, used }) {
            state.bytes -= old.bytes;
        }
        while state.bytes > self.limit && state.entries.len() > 1 {
            let oldest = state.entries.iter().min_by_key(|(_, cached)| cached.used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if let Some(removed) = state.entries.remove(&oldest) {
                state.bytes -= removed.bytes;
            }
        }
    }

    pub(crate) fn forget(&self, gone: &dyn Fn(&Digest) -> bool) {
        let mut state = self.state();
        let removed = state.entries.extract_if(|id, _| gone(id));
        let bytes = removed.map(|(_, cached)| cached.bytes).sum::<usize>();
        state.bytes -= bytes;
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lets_go_of_the_least_recently_used() {
        let cache = Cache::new(400);
        let id = |number: u8| Digest::of(&[number]);
        for number in 0..4 {
            cache.insert(id(number), Arc::new(number), 100);
        }
        assert!(cache.get(&id(0)).is_some());
        cache.insert(id(4), Arc::new(4), 100);
        assert!(cache.get(&id(0)).is_some());
        assert!(cache.get(&id(1)).is_none());
        assert_eq!(cache.state().bytes, 400);
        cache.forget(&|gone| *gone == id(0));
        assert!(cache.get(&id(0)).is_none());
        assert_eq!(cache.state().bytes, 300);
    }
}
