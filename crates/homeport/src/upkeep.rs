//! What the upkeep of the store has to know of the server's other parts.

use std::sync::Arc;
use std::time::Duration;

use homeport_control::{BoxedError, ForgottenLayers, LayerCache, Upkeep};
use homeport_fs::{CachedImage, SnapshotFs};
use homeport_image::Bases;

use crate::data_dir::DataDir;

/// The upkeep of a data directory.
pub(crate) fn upkeep(data_dir: &DataDir, fs: Arc<SnapshotFs>, bases: Arc<Bases>) -> Upkeep {
    Upkeep { layers: Arc::new(Layers(fs)), bases, copies: vec![data_dir.snapshots().join("linked/variants")] }
}

struct Layers(Arc<SnapshotFs>);

impl LayerCache for Layers {
    fn forget(
        &self,
        keep: &dyn Fn(&homeport_content::Digest, Duration) -> bool,
        dry_run: bool,
    ) -> Result<ForgottenLayers, BoxedError> {
        let keep = |image: &CachedImage| keep(&image.id, image.idle);
        let forgotten = self.0.forget_images(&keep, dry_run)?;
        Ok(ForgottenLayers {
            count: forgotten.images,
            bytes: forgotten.bytes,
            kept_bytes: forgotten.kept_bytes,
        })
    }
}
