//! Removal of what was made to mount layers, and can be made again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use homeport_content::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use crate::SnapshotFs;
use crate::error::{FsError, io_error};
use crate::lower::Lower;

/// For how long a removal waits for mounts that are being made, before it is left for another time.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// The mountable form of a snapshot or delta that is on disk.
#[derive(Debug, Clone, Copy)]
pub struct CachedImage {
    /// The snapshot or delta.
    pub id: Digest,
    /// How long ago it was last mounted or made.
    pub idle: Duration,
}

/// What was removed, or would have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Mountable forms.
    pub images: u64,
    /// What they took on disk.
    pub bytes: u64,
    /// What the others take.
    pub kept_bytes: u64,
}

impl SnapshotFs {
    /// Removes the mountable forms that `keep` does not want, except those that are mounted. What
    /// is mounted later is made anew. With `dry_run` they are only counted.
    pub fn forget_images(
        &self,
        keep: &dyn Fn(&CachedImage) -> bool,
        dry_run: bool,
    ) -> Result<Forgotten, FsError> {
        let mut forgotten = Forgotten::default();
        for (image, path) in self.cached_images()? {
            let bytes = allocated(&path);
            if keep(&image) || self.is_mounted(&image.id) || (!dry_run && !self.forget(&image.id, &path)?) {
                forgotten.kept_bytes += bytes;
            } else {
                forgotten.images += 1;
                forgotten.bytes += bytes;
            }
        }
        if !dry_run {
            forgotten.bytes += self.forget_variants()?;
        }
        Ok(forgotten)
    }

    /// Says that a layer is mounted now.
    pub(crate) fn used_now(path: &Path) {
        // The time of modification of a tree's root can be seen in mounts.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let as_it_was = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: now, last_modification: as_it_was };
        if let Err(error) = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            tracing::debug!(%error, path = %path.display(), "a layer looks older than it is");
        }
    }

    fn cached_images(&self) -> Result<Vec<(CachedImage, PathBuf)>, FsError> {
        let mut found = Vec::new();
        for part in ["erofs", "linked/trees"] {
            let dir = self.dir.join(part);
            for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
                let entry = entry.map_err(io_error("list", &dir))?;
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
                let (Some(id), Ok(metadata)) = (id, entry.metadata()) else {
                    continue;
                };
                // Of its inode: it was made then, or said to be used.
                let used = UNIX_EPOCH + Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
                let idle = SystemTime::now().duration_since(used).unwrap_or_default();
                found.push((CachedImage { id, idle }, entry.path()));
            }
        }
        Ok(found)
    }

    fn is_mounted(&self, id: &Digest) -> bool {
        let mounts = self.layer_mounts();
        let lowers = [Lower::Snapshot(*id), Lower::Delta(*id)];
        lowers.iter().any(|lower| mounts.get(lower).is_some_and(|mount| mount.strong_count() > 0))
    }

    /// Removes one, unless it is mounted meanwhile, or mounts are being made all the time.
    fn forget(&self, id: &Digest, path: &Path) -> Result<bool, FsError> {
        let aside = self.dir.join("linked/scratch").join(format!("gone-{id}"));
        let until = Instant::now() + PATIENCE;
        loop {
            // Never waited for with a claim on the lock: those who mount would wait as well.
            let alone = match self.mounting.try_write() {
                Ok(alone) => alone,
                Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(std::sync::TryLockError::WouldBlock) => return Ok(false),
            };
            if self.is_mounted(id) {
                return Ok(false);
            }
            fs::rename(path, &aside).map_err(io_error("put aside", path))?;
            drop(alone);
            let removed = if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
            removed.map_err(io_error("remove", &aside))?;
            return Ok(true);
        }
    }

    /// Removes the files that no tree of links has a name for any more. Who takes one up at the same
    /// time has a name of his own for it, or makes it again.
    fn forget_variants(&self) -> Result<u64, FsError> {
        let variants = self.dir.join("linked/variants");
        let _none_is_made = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for shard in fs::read_dir(&variants).map_err(io_error("list", &variants))? {
            let shard = shard.map_err(io_error("list", &variants))?.path();
            for entry in fs::read_dir(&shard).map_err(io_error("list", &shard))? {
                let path = entry.map_err(io_error("list", &shard))?.path();
                let found = path.symlink_metadata().map_err(io_error("look at", &path))?;
                if found.nlink() == 1 {
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                    bytes += found.blocks() * 512;
                }
            }
        }
        Ok(bytes)
    }
}

/// What a file, or a directory without the files that have other names as well, takes on disk.
fn allocated(path: &Path) -> u64 {
    fn below(path: &Path) -> io::Result<u64> {
        let found = path.symlink_metadata()?;
        if !found.is_dir() {
            return Ok(if found.nlink() > 1 { 0 } else { found.blocks() * 512 });
        }
        let mut sum = found.blocks() * 512;
        for entry in fs::read_dir(path)? {
            sum += below(&entry?.path())?;
        }
        Ok(sum)
    }
    below(path).unwrap_or(0)
}
