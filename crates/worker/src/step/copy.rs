//! Copying from one snapshot into another: names only, and no file is touched but the archives of `ADD`.

use std::sync::Arc;

use homeport_content::{Leaf, SnapshotId};
use homeport_image::archive;
use homeport_image::copy::{CopyError, CopyRequest, OwnerError, Unpack, copy, owner};
use homeport_proto::worker::step_ended::End;
use homeport_proto::worker::{CopyFiles, StepResult};
use homeport_store::{Store, StoreError};

use super::failure;
use crate::error::blocking;
use crate::node::Node;

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("`{0}` is not a snapshot id")]
    Snapshot(String),
    #[error("a snapshot could not be read or written")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

pub(super) async fn carry_out(node: &Arc<Node>, order: CopyFiles) -> End {
    let store = Arc::clone(&node.store);
    match blocking(move || carry_out_blocking(&store, &order)).await {
        Ok(Ok(snapshot)) => {
            End::Result(StepResult { snapshot: snapshot.to_string(), config_json: String::new() })
        }
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&error),
    }
}

fn carry_out_blocking(store: &Store, order: &CopyFiles) -> Result<SnapshotId, StepError> {
    let tree = |id: &String| {
        let id: SnapshotId = id.parse().map_err(|_| StepError::Snapshot(id.clone()))?;
        Ok::<_, StepError>(store.tree(&id)?)
    };
    let base = tree(&order.base)?;
    let owner = match order.owner.as_str() {
        "" => None,
        wanted => Some(owner(store, &base, wanted)?),
    };
    let unpack = |leaf: &Leaf| archive::unpack(store, leaf);
    let copied = copy(CopyRequest {
        base: &base,
        context: &*tree(&order.context)?,
        origin: &order.origin,
        sources: &order.sources,
        destination: &order.destination,
        workdir: &order.workdir,
        owner,
        mode: order.mode,
        unpack: order.unpack.then_some(&unpack as Unpack<'_>),
    })?;
    Ok(store.put_tree(&copied)?)
}
