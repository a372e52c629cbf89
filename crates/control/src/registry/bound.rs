//! Functions that are others with parameters or options.
//!
//! There can be very many of them, and few are in use. Their rows stay as long as their app, so that
//! whoever holds an id finds the function; in memory are those that are used.

use std::sync::Arc;

use homeport_meta::{Meta, objects};
use homeport_proto::record as rec;
use prost::Message as _;

use super::{FUNCTION, Registry, RegistryError, decode, insert, write};

/// The kind of their rows.
const BOUND: &str = "bound function";

/// Bound functions of which containers are kept: their users need not come first.
pub(super) async fn kept_warm(meta: &Meta) -> Result<Vec<rec::Function>, RegistryError> {
    let mut kept = Vec::new();
    for row in objects::list_by_kind(meta, BOUND).await? {
        let function = decode::<rec::Function>(&row.id, &row.record)?;
        if function.autoscaler.is_some_and(|set| set.min_containers() > 0) {
            kept.push(function);
        }
    }
    Ok(kept)
}

impl Registry {
    /// The function `id`, read from the database if nobody used it for a while.
    pub async fn find_function(&self, id: &str) -> Result<Option<Arc<rec::Function>>, RegistryError> {
        if let Some(function) = self.function(id) {
            return Ok(Some(function));
        }
        let row = objects::get(&self.meta, id).await?.filter(|row| row.kind == BOUND || row.kind == FUNCTION);
        let Some(row) = row else { return Ok(None) };
        let record = decode::<rec::Function>(&row.id, &row.record)?;
        // A newer one may have been written meanwhile.
        let mut functions = write(&self.functions);
        Ok(Some(Arc::clone(functions.entry(row.id).or_insert_with(|| Arc::new(record)))))
    }

    /// Writes a bound function.
    pub async fn put_bound(&self, function: rec::Function) -> Result<Arc<rec::Function>, RegistryError> {
        self.put_object(BOUND, &function.id, &function.app_id, function.encode_to_vec()).await?;
        Ok(insert(&self.functions, function.id.clone(), function))
    }

    /// Nobody uses this bound function now: its row is enough.
    pub fn set_aside(&self, id: &str) {
        let mut functions = write(&self.functions);
        if functions.get(id).is_some_and(|function| function.binding.is_some()) {
            functions.remove(id);
        }
    }
}
