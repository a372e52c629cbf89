//! Names and settings of Volumes, which can be changed.

use std::sync::Arc;

use homeport_meta::volumes;
use homeport_proto::record as rec;

use super::VolumeError;
use super::catalog::{Volumes, row};

/// Settings to be changed; none stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Versions that are kept; 0 for the server's own number.
    pub keep_versions: Option<u32>,
    /// Days for which versions are kept; 0 for the server's own number.
    pub keep_days: Option<u32>,
    /// Whether a reload fails with any open file.
    pub strict_reload: Option<bool>,
    /// Bytes that it may hold; 0 for no limit.
    pub quota_bytes: Option<u64>,
    /// Patterns of files that are copied into the writable layer when it is mounted.
    pub early_copies: Option<Vec<String>>,
}

impl Volumes {
    /// Gives a Volume another name.
    pub async fn rename(&self, id: &str, name: &str) -> Result<(), VolumeError> {
        let _naming = self.naming.lock().await;
        let record = self.find(id)?;
        if record.name == name {
            return Ok(());
        }
        self.check_name(name, &record.environment, false)?;
        self.rewrite(id, |record| name.clone_into(&mut record.name)).await.map(drop)
    }

    /// Changes the settings of a Volume.
    pub async fn configure(&self, id: &str, settings: Settings) -> Result<Arc<rec::Volume>, VolumeError> {
        let _naming = self.naming.lock().await;
        self.rewrite(id, |record| {
            record.keep_versions = settings.keep_versions.unwrap_or(record.keep_versions);
            record.keep_days = settings.keep_days.unwrap_or(record.keep_days);
            record.strict_reload = settings.strict_reload.unwrap_or(record.strict_reload);
            record.quota_bytes = settings.quota_bytes.unwrap_or(record.quota_bytes);
            if let Some(patterns) = settings.early_copies {
                record.early_copies = patterns;
            }
        })
        .await
    }

    async fn rewrite(
        &self,
        id: &str,
        change: impl FnOnce(&mut rec::Volume),
    ) -> Result<Arc<rec::Volume>, VolumeError> {
        let entry = self.entry(id)?;
        let mut record = (*entry.now().record).clone();
        change(&mut record);
        volumes::put(&self.meta, &row(&record)).await?;
        let record = Arc::new(record);
        entry.change(|state| state.record = Arc::clone(&record));
        Ok(record)
    }
}
