//! Snapshots as plain directory trees, for kernels that cannot mount EROFS images from files or
//! have no data-only layers.
//!
//! One file system inode has one mode, owner, time and set of attributes, so a tree is made of
//! hard links to *variants*: copies of an object (sharing blocks where the file system can) for
//! each metadata that it appears with. Names of files that happen to be equal in everything
//! share a variant, within and across snapshots; link counts and inode numbers therefore say
//! more sharing than the snapshot has. Contents, metadata and commits are the same as with EROFS.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use homeport_content::{Digest, Directory, Entry, FileContent, InvalidTree, Leaf, LeafKind, Metadata, Tree};
use homeport_store::Store;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, ioctl_ficlone, lsetxattr, mknodat,
    utimensat,
};

use crate::error::{FsError, io_error};

/// Stands in the directory while there are variants that a loss of power may leave empty.
const UNSYNCED: &str = "unsynced";

/// Prepares the directory; throws away what was not synced when the last process ended.
pub(crate) fn open(dir: &Path) -> Result<(), FsError> {
    let mark = dir.join(UNSYNCED);
    if mark.exists() {
        for part in ["trees", "variants"] {
            let path = dir.join(part);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        fs::remove_file(&mark).map_err(io_error("remove", &mark))?;
    }
    for part in ["trees", "variants", "scratch", "empty"] {
        let path = dir.join(part);
        fs::create_dir_all(&path).map_err(io_error("make the directory", &path))?;
    }
    Ok(())
}

/// Writes the tree of a snapshot below `dir` and names it `place`, which then has all of it or is
/// not there. One caller at a time.
pub(crate) fn write_tree(place: &Path, dir: &Path, store: &Store, tree: &Tree) -> Result<(), FsError> {
    let scratch = tempfile::Builder::new()
        .prefix("tree-")
        .tempdir_in(dir.join("scratch"))
        .map_err(io_error("make a directory in", dir))?;
    let root = scratch.path().join("root");
    let builder = Builder { dir, store, tree, scratch: scratch.path() };
    let mark = dir.join(UNSYNCED);
    File::create(&mark)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(io_error("write", &mark))?;
    builder.directory(&root, &tree.root)?;
    // The name promises a whole tree, also after a loss of power.
    store.sync()?;
    fs::remove_file(&mark).map_err(io_error("remove", &mark))?;
    match fs::rename(&root, place) {
        Ok(()) => Ok(()),
        // Another process was quicker.
        Err(_) if place.exists() => Ok(()),
        Err(error) => Err(io_error("rename a new tree to", place)(error)),
    }
}

struct Builder<'a> {
    dir: &'a Path,
    store: &'a Store,
    tree: &'a Tree,
    scratch: &'a Path,
}

impl Builder<'_> {
    fn directory(&self, path: &Path, directory: &Directory) -> Result<(), FsError> {
        fs::create_dir(path).map_err(io_error("make the directory", path))?;
        for (name, entry) in &directory.entries {
            let child = path.join(as_os(name));
            match entry {
                Entry::Directory(directory) => self.directory(&child, directory)?,
                Entry::Leaf(id) => match self.tree.leaf(*id) {
                    Some(leaf) => self.leaf(&child, leaf)?,
                    None => return Err(missing_leaf(&child)),
                },
            }
        }
        // Last, because making the children sets the time.
        set_metadata(path, &directory.metadata, false)
    }

    fn leaf(&self, path: &Path, leaf: &Leaf) -> Result<(), FsError> {
        let node = |kind: FileType, number: u64| {
            mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), number).map_err(io_error("make", path))
        };
        match &leaf.kind {
            LeafKind::File(content) => return self.file(path, content, &leaf.metadata),
            LeafKind::Symlink(target) => {
                symlink(as_os(target), path).map_err(io_error("make the symbolic link", path))?;
            }
            LeafKind::Fifo => node(FileType::Fifo, 0)?,
            LeafKind::CharDevice(number) => node(FileType::CharacterDevice, *number)?,
            LeafKind::BlockDevice(number) => node(FileType::BlockDevice, *number)?,
        }
        set_metadata(path, &leaf.metadata, matches!(leaf.kind, LeafKind::Symlink(_)))
    }

    fn file(&self, path: &Path, content: &FileContent, metadata: &Metadata) -> Result<(), FsError> {
        let variant = self.variant_path(content, metadata);
        match fs::hard_link(&variant, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The variant has all the names it can have: a fresh one takes its place.
            Err(error) if error.raw_os_error() == Some(libc::EMLINK) => {}
            Err(error) => return Err(io_error("link to", path)(error)),
        }
        let written = self.scratch.join("variant");
        let mut file = File::create(&written).map_err(io_error("create", &written))?;
        match content {
            FileContent::Inline(bytes) => {
                file.write_all(bytes).map_err(io_error("write", &written))?;
            }
            FileContent::Object { digest, .. } => {
                let mut object = self.store.open_object(digest)?;
                if ioctl_ficlone(&file, &object).is_err() {
                    io::copy(&mut object, &mut file).map_err(io_error("write", &written))?;
                }
            }
        }
        set_metadata(&written, metadata, false)?;
        fs::hard_link(&written, path).map_err(io_error("link to", path))?;
        if let Some(shard) = variant.parent() {
            fs::create_dir_all(shard).map_err(io_error("make the directory", shard))?;
        }
        // Without a sync of its own: that of the tree counts, and until then there is the mark.
        fs::rename(&written, &variant).map_err(io_error("rename a new file to", &variant))
    }

    fn variant_path(&self, content: &FileContent, metadata: &Metadata) -> PathBuf {
        let digest = match content {
            FileContent::Inline(bytes) => Digest::of(bytes),
            FileContent::Object { digest, .. } => *digest,
        };
        let hex = digest.to_hex();
        let (shard, rest) = hex.split_at(2);
        // A tree that is nothing but this metadata names it.
        let metadata = Tree::new(metadata.clone()).id().to_hex();
        let name = format!("{rest}-{}", metadata.get(..32).unwrap_or_default());
        self.dir.join("variants").join(shard).join(name)
    }
}

fn as_os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn missing_leaf(path: &Path) -> FsError {
    FsError::Store(
        InvalidTree { path: path.display().to_string(), reason: "names a leaf that the tree does not have" }
            .into(),
    )
}

fn set_metadata(path: &Path, metadata: &Metadata, is_symlink: bool) -> Result<(), FsError> {
    let (uid, gid) = (Some(metadata.uid), Some(metadata.gid));
    if is_symlink {
        lchown(path, uid, gid).map_err(io_error("chown", path))?;
    } else {
        chown(path, uid, gid).map_err(io_error("chown", path))?;
        // After the owner, whose change clears the set-id bits.
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode))
            .map_err(io_error("chmod", path))?;
    }
    for (name, value) in &metadata.xattrs {
        let name = crate::commit::escaped(name);
        lsetxattr(path, &*name, value, XattrFlags::empty()).map_err(io_error("set an attribute of", path))?;
    }
    let time = Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: metadata.mtime.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io_error("set the time of", path))
}
