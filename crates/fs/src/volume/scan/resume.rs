//! Going on with taking an upper directory after a failure or a crash.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use homeport_content::{Change, Delta, Digest, FileContent, LeafKind};
use rustix::fs::{Mode, OFlags, fstat, openat};

use super::contents::{Contents, NewFile};
use crate::error::{FsError, io_error};

/// Stages all objects of a delta that are not in the store, from the upper directory that the delta was made of.
///
/// A scan with [`Manner::Adopt`](super::Manner::Adopt) cannot be done a second time once publishing has begun: files that
/// became objects have lost their metadata. The delta that it gave, kept on disk, has that; what is missing in the store
/// is still in the directory, or in the `index` of its work directory.
pub(crate) fn resume(
    delta: &Delta,
    upper: &Path,
    index: Option<&Path>,
    contents: &Contents<'_>,
) -> Result<(), FsError> {
    let mut missing: HashMap<Digest, Option<PathBuf>> = HashMap::new();
    for (path, change) in delta.walk() {
        let Change::Leaf(id) = change else { continue };
        let Some(LeafKind::File(FileContent::Object { digest, .. })) = delta.leaf(*id).map(|leaf| &leaf.kind)
        else {
            continue;
        };
        if missing.get(digest).is_some_and(Option::is_none) || contents.batch.contains(digest)? {
            continue;
        }
        let place = upper.join(OsStr::from_bytes(&path));
        let staged = match open(upper, &path) {
            Ok(file) => contents.restage(file, &place, Some(digest))?,
            Err(_) => false,
        };
        missing.insert(*digest, (!staged).then_some(place));
    }
    missing.retain(|_, place| place.is_some());
    if missing.is_empty() {
        return Ok(());
    }
    // A file of which all names in the directory were removed is in the index alone.
    for entry in index.and_then(|index| std::fs::read_dir(index).ok()).into_iter().flatten().flatten() {
        let file = File::open(entry.path()).map_err(io_error("open", &entry.path()))?;
        if file.metadata().is_ok_and(|found| found.is_file()) {
            contents.restage(file, &entry.path(), None)?;
        }
    }
    for (digest, place) in missing {
        if !contents.batch.contains(&digest)? {
            return Err(FsError::LayerEntry {
                layer: upper.to_owned(),
                path: place.unwrap_or_default().display().to_string(),
                reason: format!("its content, object {digest}, is neither in the store nor here any more"),
            });
        }
    }
    Ok(())
}

/// Opens a file below a directory, step by step: the path can be longer than the kernel takes.
fn open(upper: &Path, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut at: OwnedFd = File::open(upper)?.into();
    for part in path.split(|byte| *byte == b'/') {
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok(at.into())
}

impl Contents<'_> {
    /// Stages a file if it has the digest that is wanted, or any if none is.
    fn restage(&self, file: File, place: &Path, wanted: Option<&Digest>) -> Result<bool, FsError> {
        let stat = fstat(&file).map_err(io_error("look at", place))?;
        let new = NewFile { file, stat, base: None, shown: place.to_owned() };
        let digest = self.digest_of(&new)?;
        if wanted.is_some_and(|wanted| *wanted != digest) {
            return Ok(false);
        }
        self.stage(&new, digest)?;
        Ok(true)
    }
}
