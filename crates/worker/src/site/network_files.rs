//! Network file systems of a container.

use std::path::{Component, Path, PathBuf};

use homeport_fs::{IdMap, SharedDirectory};
use homeport_proto::worker::NetworkFiles;
use homeport_runtime::Bind;

use crate::error::SiteError;

/// Mounts the directories for one container below `place`; returns the mounts and what to bind where.
pub(super) fn mount(
    root: &Path,
    place: &Path,
    wanted: &[NetworkFiles],
    id_map: Option<&IdMap>,
) -> Result<(Vec<SharedDirectory>, Vec<Bind>), SiteError> {
    let mut mounts = Vec::new();
    let mut binds = Vec::new();
    for (number, files) in wanted.iter().enumerate() {
        let name = Path::new(&files.directory);
        if !matches!(name.components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
            return Err(SiteError::Id(files.directory.clone()));
        }
        let target = place.join(format!("network-files-{number}"));
        std::fs::create_dir(&target)
            .map_err(|source| SiteError::Directory { path: target.clone(), source })?;
        mounts.push(SharedDirectory::mount(&root.join(name), &target, id_map)?);
        binds.push(Bind { source: target, target: PathBuf::from(&files.path), read_only: false });
    }
    Ok((mounts, binds))
}
