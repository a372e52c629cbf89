//! Copying from a build context into an image: names only, no file is touched.

use std::sync::Arc;

use homeport_content::SnapshotId;
use homeport_image::copy::{CopyError, CopyRequest, copy};
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
    let copied = copy(CopyRequest {
        base: &*tree(&order.base)?,
        context: &*tree(&order.context)?,
        sources: &order.sources,
        destination: &order.destination,
        workdir: &order.workdir,
    })?;
    Ok(store.put_tree(&copied)?)
}
