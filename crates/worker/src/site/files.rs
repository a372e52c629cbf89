//! Files that control provides to a container.
//!
//! Each is written to the host and bound by itself, because layers put things below `/__modal` too, which a bind of the
//! whole directory would hide. They belong to the container's root; nobody else on the machine can reach them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use homeport_proto::worker::File;
use homeport_runtime::Bind;

use crate::error::SiteError;

const PLACE: &str = "/__modal";

/// Writes `files` below `directory`, which is made, for the host id `owner`.
pub(super) fn write(directory: &Path, owner: u32, files: &[File]) -> Result<Vec<Bind>, SiteError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SiteError::Directory { path, source }
    };
    fs::create_dir(directory).map_err(failed(directory))?;
    own(directory, owner, 0o700).map_err(failed(directory))?;
    let mut binds: Vec<Bind> = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let target = target(&file.path)?;
        if binds.iter().any(|bind| bind.target == target) {
            return Err(SiteError::FilePath(file.path.clone()));
        }
        let source = directory.join(number.to_string());
        fs::write(&source, &file.data).map_err(failed(&source))?;
        own(&source, owner, 0o444).map_err(failed(&source))?;
        binds.push(Bind { source, target, read_only: true });
    }
    Ok(binds)
}

fn own(path: &Path, owner: u32, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    chown(path, Some(owner), Some(owner))
}

/// The path in the container, which must be a plain one below [`PLACE`].
fn target(path: &str) -> Result<PathBuf, SiteError> {
    let refused = || SiteError::FilePath(path.to_owned());
    let below = Path::new(path).strip_prefix(PLACE).map_err(|_| refused())?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if below.as_os_str().is_empty() || !plain || path.contains('\0') {
        return Err(refused());
    }
    Ok(Path::new(PLACE).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_the_place_are_taken() {
        assert_eq!(target("/__modal/args.bin").unwrap(), Path::new("/__modal/args.bin"));
        assert_eq!(target("/__modal/a/b").unwrap(), Path::new("/__modal/a/b"));
        for path in
            ["/__modal", "/__modal/", "/__modal/../etc/passwd", "/etc/passwd", "__modal/a", "/__modalx/a"]
        {
            assert!(target(path).is_err(), "{path}");
        }
    }

    #[test]
    fn files_are_unreachable_for_others_and_readable_within() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("files");
        let file = File { path: "/__modal/args.bin".into(), data: b"secret".as_slice().into() };
        let binds = write(&directory, 0, std::slice::from_ref(&file)).unwrap();
        assert_eq!(fs::read(&binds[0].source).unwrap(), b"secret");
        assert!(binds[0].read_only);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&binds[0].source).unwrap().permissions().mode() & 0o777, 0o444);

        fs::remove_dir_all(&directory).unwrap();
        assert!(write(&directory, 0, &[file.clone(), file]).is_err());
    }
}
