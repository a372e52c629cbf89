//! Directories of a build command that begin empty and are not kept: caches.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use homeport_runtime::Bind;

use crate::error::SiteError;
use crate::site::make_searchable;

/// Makes a directory below `directory` for each of `targets`, which belongs to the host id `owner`.
pub(super) fn make(directory: &Path, owner: u32, targets: &[String]) -> Result<Vec<Bind>, SiteError> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SiteError::Directory { path, source }
    };
    make_searchable(directory).map_err(failed(directory))?;
    let mut binds: Vec<Bind> = Vec::with_capacity(targets.len());
    for (number, target) in targets.iter().enumerate() {
        let target = plain(target)?;
        if binds.iter().any(|bind| bind.target == target) {
            continue;
        }
        let source = directory.join(number.to_string());
        fs::create_dir(&source)
            .and_then(|()| fs::set_permissions(&source, Permissions::from_mode(0o755)))
            .and_then(|()| chown(&source, Some(owner), Some(owner)))
            .map_err(failed(&source))?;
        binds.push(Bind { source, target, read_only: false });
    }
    Ok(binds)
}

fn plain(target: &str) -> Result<PathBuf, SiteError> {
    let mut parts = Path::new(target).components();
    let absolute = parts.next() == Some(Component::RootDir);
    let mut below = parts.peekable();
    let named = below.peek().is_some() && below.all(|part| matches!(part, Component::Normal(_)));
    match absolute && named && !target.contains('\0') {
        true => Ok(PathBuf::from(target)),
        false => Err(SiteError::ScratchPath(target.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_targets() {
        for bad in ["", "/", "cache", "/a/../b", "/a\0"] {
            assert!(plain(bad).is_err(), "{bad:?}");
        }
        assert_eq!(plain("/root/.cache").unwrap(), Path::new("/root/.cache"));
    }
}
