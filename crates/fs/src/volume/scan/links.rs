//! Hard links that reach below the upper directory.
//!
//! With `index=on` the kernel keeps one copy of a file with several names, and shows it under all of them, though the upper
//! directory has only the names that were used. The directory `index` has a link to each such copy; its name is the
//! kernel's handle of the file that was copied up.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use homeport_content::{
    Change, ChangedDirectory, Delta, Digest, Directory, Entry, EntryRef, Layered, LeafId, Metadata, Seen,
    Stack,
};
use rustix::fs::{AtFlags, FileType, statat};

use super::known::Known;
use crate::error::{FsError, io_error};

/// A leaf of one of the layers: the base is 0, the oldest delta 1.
pub(super) type Origin = (usize, LeafId);

/// Where the kernel keeps track of copied files with several names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Index<'a> {
    /// The directory `index` in the work directory. It need not exist.
    pub(crate) dir: &'a Path,
    /// The layers that the upper directory was mounted over.
    pub(crate) stack: &'a Stack,
    /// Their mounts, in the order of the stack: the base first.
    pub(crate) layers: &'a [BorrowedFd<'a>],
}

/// Files in the index.
#[derive(Debug, Default)]
pub(super) struct Indexed {
    /// What each was copied from, by inode number.
    pub(super) origins: HashMap<u64, Origin>,
    /// Name in the index and inode number, by what it was copied from.
    pub(super) files: HashMap<Origin, (Vec<u8>, u64)>,
}

impl Indexed {
    /// Reads the index. `names` are those in its directory, open as `dir`.
    pub(super) fn read(
        index: &Index<'_>,
        dir: BorrowedFd<'_>,
        names: Vec<Box<[u8]>>,
        seen: &Layered,
        known: &Known,
    ) -> Result<Indexed, FsError> {
        let mut indexed = Indexed::default();
        let mut search = None;
        for name in names {
            let stat =
                statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(io_error("look at", index.dir))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            // Leftovers, and the kernel's one whiteout.
            let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            if name.starts_with(b"#") || whiteout || kind == FileType::Directory {
                continue;
            }
            let origin = match known.origin(&name) {
                Some(origin) => Some(origin),
                None => search.get_or_insert_with(|| Handles::of(index, seen)).find(&name)?,
            };
            let Some(origin) = origin else {
                return Err(FsError::LayerEntry {
                    layer: index.dir.to_owned(),
                    path: String::from_utf8_lossy(&name).into_owned(),
                    reason: "it is a file with several names, of which the others cannot be told".to_owned(),
                });
            };
            known.remember_origin(&name, origin);
            indexed.origins.insert(stat.st_ino, origin);
            indexed.files.insert(origin, (name.into_vec(), stat.st_ino));
        }
        Ok(indexed)
    }
}

/// The kernel's handles of files with several names, read layer by layer as they are asked for.
struct Handles<'a> {
    index: Index<'a>,
    seen: &'a Layered,
    by_layer: HashMap<usize, HashMap<Vec<u8>, LeafId>>,
}

impl<'a> Handles<'a> {
    fn of(index: &Index<'a>, seen: &'a Layered) -> Handles<'a> {
        Handles { index: *index, seen, by_layer: HashMap::new() }
    }

    fn find(&mut self, name: &[u8]) -> Result<Option<Origin>, FsError> {
        let Some((uuid, handle)) = parse(name) else { return Ok(None) };
        let is_it = |id: &Digest| id.as_bytes()[..16] == uuid;
        let stack = std::iter::once(&self.index.stack.base).chain(&self.index.stack.deltas);
        // A delta that is there twice counts where it is uppermost.
        let Some(layer) = stack.enumerate().filter_map(|(layer, id)| is_it(id).then_some(layer)).last()
        else {
            return Ok(None);
        };
        if !self.by_layer.contains_key(&layer) {
            let handles = self.read(layer)?;
            self.by_layer.insert(layer, handles);
        }
        Ok(self.by_layer.get(&layer).and_then(|handles| handles.get(&handle)).map(|id| (layer, *id)))
    }

    fn read(&self, layer: usize) -> Result<HashMap<Vec<u8>, LeafId>, FsError> {
        let mut handles = HashMap::new();
        let Some(mount) = self.index.layers.get(layer) else { return Ok(handles) };
        let counts = count_names(self.seen, layer);
        let mut done = HashSet::new();
        for (path, id) in names(self.seen, layer) {
            if counts.get(id.0 as usize).is_some_and(|count| *count > 1) && done.insert(id) {
                handles.insert(handle(*mount, &path, self.index.dir)?, id);
            }
        }
        Ok(handles)
    }
}

/// Identifier of the file system and handle in it, from a name in the index: hexadecimal digits of a version, a magic
/// number, the length of all, flags, the type of the handle, 16 bytes that identify the file system, and the handle.
fn parse(name: &[u8]) -> Option<([u8; 16], Vec<u8>)> {
    const HEADER: usize = 5;
    let text = std::str::from_utf8(name).ok()?;
    let digits = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
    let bytes = digits.collect::<Option<Vec<u8>>>()?;
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (uuid, handle) = rest.split_first_chunk::<16>()?;
    let right = header[..2] == [0, 0xfb] && usize::from(header[2]) == bytes.len();
    right.then(|| (*uuid, handle.to_vec()))
}

/// The kernel's handle of a file in a layer.
fn handle(mount: BorrowedFd<'_>, path: &[u8], shown: &Path) -> Result<Vec<u8>, FsError> {
    const ROOM: usize = 128;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; ROOM],
    }
    let mut found = Handle { bytes: ROOM as u32, kind: 0, handle: [0; ROOM] };
    let mut mount_id = 0;
    let invalid = |_| io_error("name", shown)(std::io::Error::from_raw_os_error(libc::EINVAL));
    let path = CString::new(path).map_err(invalid)?;
    // SAFETY: the path is a C string, and the handle has the room that it says.
    let result = unsafe {
        libc::name_to_handle_at(
            mount.as_raw_fd(),
            path.as_ptr(),
            (&raw mut found).cast(),
            &raw mut mount_id,
            0,
        )
    };
    if result != 0 {
        return Err(io_error("identify a file of a layer below", shown)(std::io::Error::last_os_error()));
    }
    Ok(found.handle[..(found.bytes as usize).min(ROOM)].to_vec())
}

/// All names of leaves in one layer alone.
fn names<'a>(seen: &'a Layered, layer: usize) -> Box<dyn Iterator<Item = (Vec<u8>, LeafId)> + 'a> {
    match layer.checked_sub(1) {
        None => Box::new(seen.base.walk().filter_map(|(path, entry)| match entry {
            EntryRef::Leaf(id, _) => Some((path, id)),
            EntryRef::Directory(_) => None,
        })),
        Some(delta) => {
            let changes = seen.deltas.get(delta).into_iter().flat_map(|delta| delta.walk());
            Box::new(changes.filter_map(|(path, change)| match change {
                Change::Leaf(id) => Some((path, *id)),
                Change::Directory(_) | Change::Removed => None,
            }))
        }
    }
}

/// The number of names of each leaf in one layer alone.
fn count_names(seen: &Layered, layer: usize) -> Vec<u32> {
    fn count(counts: &mut Vec<u32>, id: LeafId) {
        let index = id.0 as usize;
        if counts.len() <= index {
            counts.resize(index + 1, 0);
        }
        counts[index] += 1;
    }
    fn in_tree(directory: &Directory, counts: &mut Vec<u32>) {
        for entry in directory.entries.values() {
            match entry {
                Entry::Directory(below) => in_tree(below, counts),
                Entry::Leaf(id) => count(counts, *id),
            }
        }
    }
    fn in_delta(directory: &ChangedDirectory, counts: &mut Vec<u32>) {
        for change in directory.entries.values() {
            match change {
                Change::Directory(below) => in_delta(below, counts),
                Change::Leaf(id) => count(counts, *id),
                Change::Removed => {}
            }
        }
    }
    let mut counts = Vec::new();
    match layer.checked_sub(1) {
        None => in_tree(&seen.base.root, &mut counts),
        Some(delta) => {
            seen.deltas.get(delta).into_iter().for_each(|delta| in_delta(&delta.root, &mut counts))
        }
    }
    counts
}

/// Which leaves have several names in their layer; counted when first asked for.
pub(super) struct Several<'a> {
    seen: &'a Layered,
    counts: HashMap<usize, Vec<u32>>,
}

impl<'a> Several<'a> {
    pub(super) fn new(seen: &'a Layered) -> Several<'a> {
        Several { seen, counts: HashMap::new() }
    }

    pub(super) fn has(&mut self, (layer, id): Origin) -> bool {
        let counts = self.counts.entry(layer).or_insert_with(|| count_names(self.seen, layer));
        counts.get(id.0 as usize).is_some_and(|count| *count > 1)
    }
}

/// The names that these leaves have in the whole.
pub(super) fn visible_names(seen: &Layered, wanted: &HashSet<Origin>) -> Vec<(Vec<u8>, Origin)> {
    let layers: HashSet<usize> = wanted.iter().map(|(layer, _)| *layer).collect();
    let mut found = Vec::new();
    for layer in layers {
        for (path, id) in names(seen, layer).filter(|(_, id)| wanted.contains(&(layer, *id))) {
            let shows =
                |seen: Seen<'_>| matches!(seen, Seen::Leaf { layer: l, id: i, .. } if (l, i) == (layer, id));
            if seen.get(&path).is_some_and(shows) {
                found.push((path, (layer, id)));
            }
        }
    }
    found
}

/// Gives files that are in the delta now the other names that they have below, where the delta says nothing else.
pub(super) fn bring_along(delta: &mut Delta, seen: &Layered, leaves: &HashMap<Origin, LeafId>) {
    let wanted = leaves.keys().copied().collect();
    for (path, origin) in visible_names(seen, &wanted) {
        let (Some(id), false) = (leaves.get(&origin), is_said(delta, &path)) else { continue };
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let Some(name) = parts.pop() else { continue };
        let parent = directory_at(&mut delta.root, &parts, seen);
        parent.entries.insert(name.into(), Change::Leaf(*id));
    }
}

/// The directory of a delta at a path of which the delta says nothing else than that it is one.
fn directory_at<'a>(
    root: &'a mut ChangedDirectory,
    parts: &[&[u8]],
    seen: &Layered,
) -> &'a mut ChangedDirectory {
    let mut directory = root;
    for (depth, part) in parts.iter().enumerate() {
        let unchanged = || {
            let metadata = seen.get(&parts[..=depth].join(&b'/')).map(|seen| seen.metadata().clone());
            Box::new(ChangedDirectory::new(metadata.unwrap_or_else(|| Metadata::with_mode(0o755))))
        };
        let change =
            directory.entries.entry((*part).into()).or_insert_with(|| Change::Directory(unchanged()));
        if !matches!(change, Change::Directory(_)) {
            *change = Change::Directory(unchanged());
        }
        let Change::Directory(next) = change else { unreachable!("it was made one") };
        directory = next;
    }
    directory
}

/// Whether the delta decides what is at a path.
fn is_said(delta: &Delta, path: &[u8]) -> bool {
    let mut directory = &delta.root;
    for part in path.split(|byte| *byte == b'/') {
        match directory.entries.get(part) {
            None => return false,
            Some(Change::Directory(next)) => directory = next,
            Some(Change::Leaf(_) | Change::Removed) => return true,
        }
    }
    true
}
