//! Counting again what the newest versions of Volumes have.

use std::sync::Arc;

use homeport_meta::volume_versions;

use super::catalog::Volumes;
use super::entry::Entry;
use super::publish::display_name;
use super::version::Version;
use super::{VolumeError, blocking};

/// A Volume that says something else than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recount {
    /// For people.
    pub(crate) name: String,
    /// Files and bytes that its newest version says.
    pub(crate) said: (u64, u64),
    /// Files and bytes that it has.
    pub(crate) found: (u64, u64),
    /// Whether it says so now.
    pub(crate) corrected: bool,
}

impl Volumes {
    /// Counts the newest version of each Volume; with `repair`, those that say something else are corrected.
    /// What cannot be read is passed over.
    pub(crate) async fn recount(self: &Arc<Self>, repair: bool) -> Result<Vec<Recount>, VolumeError> {
        let mut wrong = Vec::new();
        for entry in self.entries() {
            wrong.extend(self.recount_one(&entry, repair).await?);
        }
        Ok(wrong)
    }

    async fn recount_one(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        repair: bool,
    ) -> Result<Option<Recount>, VolumeError> {
        let _turn = entry.turn.lock().await;
        let Ok((head, loaded)) = self.load_head(entry).await else { return Ok(None) };
        let layered = Arc::clone(&loaded.layered);
        let found = blocking(move || layered.totals()).await?;
        let said = (head.record.files, head.record.bytes);
        if found == said || head.number() == 0 {
            return Ok(None);
        }
        let volume = entry.now().record;
        let corrected = repair && self.entry(&volume.id).is_ok();
        if corrected {
            let mut record = head.record.clone();
            (record.files, record.bytes) = found;
            let version = Version::new(record, head.stack.clone());
            volume_versions::replace(&self.meta, &[version.row(&volume.id)]).await?;
            entry.change(|state| state.head = Arc::new(version));
        }
        Ok(Some(Recount { name: display_name(&volume), said, found, corrected }))
    }
}
