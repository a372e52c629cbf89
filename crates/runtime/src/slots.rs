//! Numbers that tell containers of one instance apart: each gets a slot, and with it an address and a range of host ids.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Most containers that one instance can have at a time.
pub(crate) const SLOTS: u32 = 768;

/// Hands out slots. A slot that became free is used again as late as possible, so that neither a connection that the
/// machine still tracks nor a file that was left behind meets a new container with the same address or ids.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: BTreeSet<u32>,
    next: u32,
}

/// A slot that is in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    slots: Arc<Slots>,
}

impl Slots {
    /// Takes a free slot; `None` when all are in use.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number =
            (0..SLOTS).map(|step| (state.next + step) % SLOTS).find(|number| !state.used.contains(number))?;
        state.used.insert(number);
        state.next = (number + 1) % SLOTS;
        Some(Slot { number, slots: Arc::clone(self) })
    }
}

impl Slot {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_reused_only_after_all_others() {
        let slots = Arc::new(Slots::default());
        let first = slots.take().unwrap();
        assert_eq!(first.number(), 0);
        drop(first);
        let all: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.len(), SLOTS as usize);
        assert_eq!(all.last().map(Slot::number), Some(0));
        drop(all);
        assert!(slots.take().is_some());
    }
}
