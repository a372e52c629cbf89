//! Deltas: written as trees are, and read as the layers of a version.

use std::sync::Arc;

use homeport_content::{Delta, DeltaId, Digest, Layered, Stack};

use crate::hold::Root;
use crate::names::Encoded;
use crate::{Store, StoreError};

/// Encoded bytes of the deltas kept decoded.
pub(crate) const CACHE_BYTES: usize = 32 << 20;

impl Store {
    /// Stores a delta. Everything that was published before is durable before the delta has its name, and the delta is
    /// durable on return. Whether its objects are here is not looked at.
    pub fn put_delta(&self, delta: &Delta) -> Result<DeltaId, StoreError> {
        delta.validate()?;
        let bytes = delta.encode();
        let id = Digest::of(&bytes);
        self.put_encoded(&Encoded { root: Root::Delta(id), bytes: &bytes, leaves: &delta.leaves })?;
        Ok(id)
    }

    /// Whether the delta is here.
    pub fn contains_delta(&self, id: &DeltaId) -> bool {
        self.place("deltas", id).symlink_metadata().is_ok()
    }

    /// The delta with this id. What is read from disk is checked against the id.
    pub fn delta(&self, id: &DeltaId) -> Result<Arc<Delta>, StoreError> {
        if let Some(delta) = self.deltas.get(id) {
            return Ok(delta);
        }
        let bytes = self.read_checked(&Root::Delta(*id))?;
        let decoded = Delta::decode(&bytes);
        let delta = decoded.map_err(|source| StoreError::UndecodableDelta { id: *id, source })?;
        let delta = Arc::new(delta);
        self.deltas.insert(*id, Arc::clone(&delta), bytes.len());
        Ok(delta)
    }

    /// The layers of a version. Those that two versions share are shared in memory while they are cached.
    pub fn layered(&self, stack: &Stack) -> Result<Layered, StoreError> {
        let base = self.tree(&stack.base)?;
        let deltas = stack.deltas.iter().map(|id| self.delta(id)).collect::<Result<_, _>>()?;
        Ok(Layered { base, deltas })
    }
}
