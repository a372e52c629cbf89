//! Names of layers, as they are on the wire and as they are here.

use homeport_content::{DeltaId, SnapshotId};
use homeport_proto::worker as wp;

/// Control named something that is no layer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not the name of a layer")]
pub(crate) struct BadLayer(String);

/// A stack from the wire.
pub(super) fn from_wire(stack: &wp::Stack) -> Result<homeport_content::Stack, BadLayer> {
    let bad = |text: &str| BadLayer(text.to_owned());
    let base: SnapshotId = stack.base.parse().map_err(|_| bad(&stack.base))?;
    let deltas: Result<Vec<DeltaId>, BadLayer> =
        stack.deltas.iter().map(|delta| delta.parse().map_err(|_| bad(delta))).collect();
    Ok(homeport_content::Stack { base, deltas: deltas? })
}

/// A stack for the wire.
pub(super) fn to_wire(stack: &homeport_content::Stack) -> wp::Stack {
    wp::Stack { base: stack.base.to_string(), deltas: stack.deltas.iter().map(ToString::to_string).collect() }
}
