//! Snapshots and deltas as EROFS metadata images.
//!
//! An image holds names, metadata and small contents; other contents are redirected by the
//! overlay to `/xx/rest` of a data-only layer. Format 2 of the writer is used: format 1 puts
//! whiteouts and an opaque mark into the root, which would hide the snapshots below when several
//! are stacked. Format 2 writes no nanoseconds and no UUID, so both are filled in afterwards.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use composefs::erofs::format::FormatVersion;
use composefs::erofs::reader::{DirectoryBlock, ErofsReaderError, Image, InodeOps};
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::{FsVerityHashValue, Sha256HashValue};
use composefs::generic_tree;
use composefs::tree::{self, LeafContent, RegularFile, Stat};
use homeport_content::{
    Delta, DeltaId, Digest, Directory, Entry, FileContent, Leaf, LeafId, LeafKind, Metadata, SnapshotId, Tree,
};
use zerocopy::FromBytes;

use crate::error::{FsError, io_error};
use crate::kernel::Context;
use crate::whiteout;

type Hash = Sha256HashValue;

/// The superblock begins at 1024; its UUID is 48 bytes further on.
const UUID_OFFSET: usize = 1072;
/// Inode numbers count slots of this many bytes from the start of the image.
const INODE_SLOT: u64 = 32;
/// Where the nanoseconds are within an extended inode.
const NANOSECONDS_OFFSET: u64 = 40;

/// Writes an image to `path`, which then has all of it or is not there.
pub(crate) fn write_image(path: &Path, scratch: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = tempfile::NamedTempFile::new_in(scratch).map_err(io_error("make a file in", scratch))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io_error("write", file.path()))?;
    match file.persist(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(io_error("rename a new file to", path)(error.error)),
    }
}

/// Mounts an image from its file, attached nowhere.
pub(crate) fn mount_image(path: &Path) -> Result<OwnedFd, FsError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let target = path.display().to_string();
    let context = Context::open("erofs", &target)?;
    context.flag("ro")?;
    // By descriptor, because options are limited to 255 bytes.
    context.string("source", &format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    context.mount(true)
}

/// The bytes of the image of a tree.
pub(crate) fn image_of(id: &SnapshotId, tree: &Tree) -> Result<Box<[u8]>, FsError> {
    // The writer does not check what EROFS cannot express; valid trees hold nothing of the kind.
    tree.validate().map_err(|error| FsError::Image { snapshot: *id, reason: error.to_string() })?;
    image_of_valid(id, tree)
}

/// The bytes of the image of a delta. What it removes is a whiteout there, so it hides what is below.
pub(crate) fn image_of_delta(id: &DeltaId, delta: &Delta) -> Result<Box<[u8]>, FsError> {
    delta.validate().map_err(|error| FsError::Image { snapshot: *id, reason: error.to_string() })?;
    image_of_valid(id, &whiteout::tree_of(delta))
}

fn image_of_valid(id: &Digest, tree: &Tree) -> Result<Box<[u8]>, FsError> {
    let refused = |reason: String| FsError::Image { snapshot: *id, reason };
    let mut file_system = tree::FileSystem::<Hash>::new(stat(&tree.root.metadata));
    // Only leaves that have a name: the writer refuses others.
    let mut numbers = vec![None; tree.leaves.len()];
    let root = convert(tree, &tree.root, &mut file_system, &mut numbers).map_err(refused)?;
    file_system.root = root;
    let valid = ValidatedFileSystem::new(file_system).map_err(|error| refused(error.to_string()))?;
    // The writer asserts its own invariants; a tree that breaks one must not end the process.
    let written = std::panic::catch_unwind(|| mkfs_erofs_versioned(&valid, FormatVersion::V2));
    let mut image = written.map_err(|_| refused("the writer gave up".into()))?;
    fill_in_nanoseconds(&mut image, tree).map_err(|error| refused(error.to_string()))?;
    match image.get_mut(UUID_OFFSET..UUID_OFFSET + 16) {
        // Derived from the content, so that a rebuilt image is the same image to the overlay.
        Some(uuid) => uuid.copy_from_slice(&id.as_bytes()[..16]),
        None => return Err(refused("the image is too short".into())),
    }
    Ok(image)
}

fn stat(metadata: &Metadata) -> Stat {
    Stat {
        st_mode: metadata.mode,
        st_uid: metadata.uid,
        st_gid: metadata.gid,
        st_mtim_sec: metadata.mtime.seconds,
        st_mtim_nsec: metadata.mtime.nanos,
        xattrs: metadata
            .xattrs
            .iter()
            .map(|(name, value)| (OsStr::from_bytes(name).into(), value.clone()))
            .collect(),
    }
}

fn convert(
    tree: &Tree,
    directory: &Directory,
    into: &mut tree::FileSystem<Hash>,
    numbers: &mut [Option<generic_tree::LeafId>],
) -> Result<tree::Directory<Hash>, String> {
    let mut converted = tree::Directory::new(stat(&directory.metadata));
    for (name, entry) in &directory.entries {
        let named = |reason: String| format!("{reason} (`{}`)", String::from_utf8_lossy(name));
        let inode = match entry {
            Entry::Directory(directory) => {
                let directory = convert(tree, directory, into, numbers).map_err(named)?;
                tree::Inode::Directory(Box::new(directory))
            }
            Entry::Leaf(LeafId(number)) => {
                let slot = numbers.get_mut(*number as usize);
                let (Some(slot), Some(leaf)) = (slot, tree.leaf(LeafId(*number))) else {
                    return Err(named("a leaf is missing".into()));
                };
                let id = match slot {
                    Some(id) => *id,
                    None => {
                        let content = content(leaf).map_err(named)?;
                        *slot.insert(into.push_leaf(stat(&leaf.metadata), content))
                    }
                };
                tree::Inode::leaf(id)
            }
        };
        converted.insert(OsStr::from_bytes(name), inode);
    }
    Ok(converted)
}

fn content(leaf: &Leaf) -> Result<LeafContent<Hash>, String> {
    Ok(match &leaf.kind {
        LeafKind::File(FileContent::Inline(bytes)) => {
            LeafContent::Regular(RegularFile::Inline(bytes.clone()))
        }
        LeafKind::File(FileContent::Object { digest, size }) => {
            // The writer takes any 32 bytes for a hash, and only makes a path of them.
            let hash = Hash::from_hex(digest.to_hex()).map_err(|error| error.to_string())?;
            LeafContent::Regular(RegularFile::ExternalNoVerity(hash, *size))
        }
        LeafKind::Symlink(target) => LeafContent::Symlink(OsStr::from_bytes(target).into()),
        LeafKind::Fifo => LeafContent::Fifo,
        LeafKind::CharDevice(number) => LeafContent::CharacterDevice(*number),
        LeafKind::BlockDevice(number) => LeafContent::BlockDevice(*number),
    })
}

/// Walks tree and image side by side and writes the nanoseconds that the writer left out.
fn fill_in_nanoseconds(image: &mut [u8], tree: &Tree) -> Result<(), ErofsReaderError> {
    let mut writes = Vec::new();
    {
        let parsed = Image::open_max_size(image, usize::MAX)?;
        let root = u64::from(parsed.sb.root_nid.get());
        collect_nanoseconds(&parsed, root, tree, &tree.root, &mut writes)?;
    }
    for (offset, nanos) in writes {
        let place = usize::try_from(offset)
            .ok()
            .and_then(|offset| image.get_mut(offset..offset + 4))
            .ok_or(ErofsReaderError::OutOfBounds)?;
        place.copy_from_slice(&u32::to_le_bytes(nanos));
    }
    Ok(())
}

fn collect_nanoseconds(
    image: &Image<'_>,
    nid: u64,
    tree: &Tree,
    directory: &Directory,
    writes: &mut Vec<(u64, u32)>,
) -> Result<(), ErofsReaderError> {
    let mut note = |nid: u64, metadata: &Metadata| {
        if metadata.mtime.nanos != 0 {
            writes.push((nid * INODE_SLOT + NANOSECONDS_OFFSET, metadata.mtime.nanos));
        }
    };
    note(nid, &directory.metadata);
    let inode = image.inode(nid)?;
    let mut children = Vec::with_capacity(directory.entries.len());
    let mut visit = |block: &DirectoryBlock| -> Result<(), ErofsReaderError> {
        for found in block.entries()? {
            let found = found?;
            match directory.entries.get(found.name) {
                Some(Entry::Directory(child)) => children.push((found.nid(), child)),
                Some(Entry::Leaf(id)) => {
                    if let Some(leaf) = tree.leaf(*id) {
                        note(found.nid(), &leaf.metadata);
                    }
                }
                // `.` and `..`
                None => {}
            }
        }
        Ok(())
    };
    for block in image.inode_blocks(&inode)? {
        visit(image.directory_block(block)?)?;
    }
    if let Some(inline) = inode.inline().filter(|inline| !inline.is_empty()) {
        let block = DirectoryBlock::ref_from_bytes(inline);
        visit(block.map_err(|_| ErofsReaderError::OutOfBounds)?)?;
    }
    for (nid, child) in children {
        collect_nanoseconds(image, nid, tree, child, writes)?;
    }
    Ok(())
}
