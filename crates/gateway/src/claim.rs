//! Who may write which part of a file that several requests aim at.
//!
//! A client repeats a part whose connection broke. While the old upload of it may still be writing, the newest one
//! owns the part's bytes; a complete file belongs to nobody.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::receive::ReceiveError;

/// Who may write to an upload's data.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// Nobody may any more.
    pub(crate) complete: bool,
    /// For each part, how many uploads of it began: only the last may write.
    begun: HashMap<u64, u64>,
}

impl Owners {
    /// The right to write a part, taken from whoever had it. `shared` is where this is.
    pub(crate) fn claim(&mut self, shared: &Arc<RwLock<Owners>>, number: u64) -> PartClaim {
        let begun = self.begun.entry(number).or_default();
        *begun += 1;
        PartClaim { owners: Arc::clone(shared), number, generation: *begun }
    }
}

/// The right to write a part's bytes, until a newer upload of the part begins or the whole is complete.
#[derive(Debug)]
pub(crate) struct PartClaim {
    owners: Arc<RwLock<Owners>>,
    number: u64,
    generation: u64,
}

impl PartClaim {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Keeps the claim from being lost while something is written.
    pub(crate) fn hold(&self) -> Result<RwLockReadGuard<'_, Owners>, ReceiveError> {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        if owners.complete || owners.begun.get(&self.number) != Some(&self.generation) {
            return Err(ReceiveError::Superseded);
        }
        Ok(owners)
    }
}
