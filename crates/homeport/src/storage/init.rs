//! Making the file system, with what is in the data directory already.
//!
//! Until the record is written the data directory is as it was; from then on its content is what is in the file.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use homeport_meta::DataDirLock;
use rand::Rng as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::loop_device::sector_size;
use super::mounting::Unplaced;
use super::record::{StorageRecord, USUAL_FILE};
use super::{StorageError, exclusive, need_root, read};
use crate::cli::InitFlags;
use crate::models::size;

/// Below this a base image and a Volume would not fit beside each other.
pub(super) const LEAST_SIZE: u64 = 1 << 30;
/// What a server leaves in its directory without meaning anything by it.
const NO_CONTENT: [&str; 3] = ["homeport.lock", "meta.lock", "lost+found"];

/// Makes a file system in a file and mounts it over the data directory.
pub(crate) fn init(data_dir: &Path, flags: &InitFlags) -> Result<String, StorageError> {
    need_root("making a file system")?;
    if flags.size.0 < LEAST_SIZE {
        return Err(StorageError::TooSmall { given: flags.size.0 });
    }
    let data_dir = made(data_dir)?;
    let _server = DataDirLock::acquire(&data_dir)?;
    let _attaching = exclusive(&data_dir)?;
    if let Some(record) = read(&data_dir)? {
        return Err(StorageError::There { file: record.path(&data_dir), path: data_dir });
    }
    let file = named_file(&data_dir, flags)?;
    let draft = draft_of(&file);
    let content = content(&data_dir, &draft)?;
    if !content.is_empty() {
        may_move(&data_dir, &content, flags)?;
    }

    if draft.exists() {
        // Of an attempt that was cut off.
        std::fs::remove_file(&draft).map_err(io_error("remove", &draft))?;
    }
    if file.exists() {
        return Err(StorageError::FileExists { path: file });
    }
    let record = StorageRecord {
        id: rand::rng().sample_iter(rand::distr::Alphanumeric).take(22).map(char::from).collect(),
        file: file.strip_prefix(&data_dir).map_or_else(|_| file.clone(), Path::to_path_buf),
        size: flags.size.0,
        inside: false,
        moved: content,
    };
    let mounted = match make(&draft, &data_dir, &record, flags) {
        Ok(mounted) => mounted,
        Err(error) => {
            let _ = std::fs::remove_file(&draft);
            return Err(error);
        }
    };
    std::fs::rename(&draft, &file).map_err(io_error("name", &file))?;
    if let Some(parent) = file.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("write", parent))?;
    }
    record.write(&data_dir).map_err(io_error("write a record in", &data_dir))?;
    let moved = !record.moved.is_empty();
    remove_moved(record, &data_dir)?;
    mounted.place(&data_dir).map_err(|source| StorageError::Mount { file: file.clone(), source })?;
    let done = if moved { "moved into" } else { "is now on" };
    Ok(format!(
        "{} {done} a file system of {} in {}\n",
        data_dir.display(),
        size(flags.size.0),
        file.display()
    ))
}

/// Removes what an attempt to move left in the directory below. All of it is in the file system.
pub(super) fn remove_moved(
    mut record: StorageRecord,
    data_dir: &Path,
) -> Result<StorageRecord, StorageError> {
    if record.moved.is_empty() {
        return Ok(record);
    }
    for name in std::mem::take(&mut record.moved) {
        let path = data_dir.join(name);
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(io_error("remove", &path))?;
    }
    record.write(data_dir).map_err(io_error("write a record in", data_dir))?;
    Ok(record)
}

fn made(data_dir: &Path) -> Result<PathBuf, StorageError> {
    let failed = io_error("make the directory", data_dir);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(data_dir)
        .and_then(|()| std::fs::canonicalize(data_dir))
        .map_err(failed)
}

fn named_file(data_dir: &Path, flags: &InitFlags) -> Result<PathBuf, StorageError> {
    let Some(file) = &flags.path else {
        return Ok(data_dir.join(USUAL_FILE));
    };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(StorageError::Io { doing: "make the file", path: file.clone(), source });
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // A link to a directory may point elsewhere one day.
    let parent = std::fs::canonicalize(parent).map_err(io_error("find the directory", parent))?;
    Ok(parent.join(name))
}

/// The file under a name of its own until it is whole.
fn draft_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".new");
    PathBuf::from(name)
}

/// The names in the data directory that mean something.
fn content(data_dir: &Path, draft: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(data_dir).map_err(io_error("list", data_dir))? {
        let entry = entry.map_err(io_error("list", data_dir))?;
        let name = entry.file_name();
        if !NO_CONTENT.iter().any(|nothing| name == *nothing) && entry.path() != draft {
            names.push(PathBuf::from(name));
        }
    }
    names.sort();
    Ok(names)
}

fn may_move(data_dir: &Path, content: &[PathBuf], flags: &InitFlags) -> Result<(), StorageError> {
    let file = data_dir.join(USUAL_FILE);
    if content.iter().any(|name| data_dir.join(name) == file) {
        return Err(StorageError::FileExists { path: file });
    }
    if !flags.move_content {
        return Err(StorageError::NotEmpty { path: data_dir.to_path_buf() });
    }
    let layers = data_dir.join("fs/volumes");
    if std::fs::read_dir(&layers).is_ok_and(|mut left| left.next().is_some()) {
        return Err(StorageError::Unsaved { path: layers });
    }
    let needed = space_of(content.iter().map(|name| data_dir.join(name)).collect())
        .map_err(io_error("measure", data_dir))?;
    // The file system's own tables and the room that work needs.
    let needed = needed + needed / 10 + (LEAST_SIZE / 4);
    if needed > flags.size.0 {
        return Err(StorageError::TooSmallToMove {
            path: data_dir.to_path_buf(),
            given: flags.size.0,
            needed,
        });
    }
    Ok(())
}

/// What files take on disk, each counted once.
fn space_of(mut open: Vec<PathBuf>) -> io::Result<u64> {
    let mut bytes = 0;
    let mut seen = HashSet::new();
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    Ok(bytes)
}

/// Makes the file, the file system and what is in it.
fn make(
    draft: &Path,
    data_dir: &Path,
    record: &StorageRecord,
    flags: &InitFlags,
) -> Result<Unplaced, StorageError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)
        .map_err(io_error("make the file", draft))?;
    reserve(&file, draft, flags)?;
    make_file_system(draft, sector_size(&file))?;
    file.sync_all().map_err(io_error("write", draft))?;
    let mounted =
        Unplaced::mount(draft).map_err(|source| StorageError::Mount { file: draft.to_path_buf(), source })?;
    let root = mounted.root();
    let same_mode = std::fs::metadata(data_dir)
        .and_then(|directory| std::fs::set_permissions(&root, directory.permissions()));
    same_mode.map_err(io_error("set the permissions of", draft))?;
    if !record.moved.is_empty() {
        copy(data_dir, &record.moved, &root)?;
    }
    StorageRecord { inside: true, moved: Vec::new(), ..record.clone() }
        .write(&root)
        .map_err(io_error("write a record in", draft))?;
    mounted.sync().map_err(io_error("write", draft))?;
    Ok(mounted)
}

fn reserve(file: &File, path: &Path, flags: &InitFlags) -> Result<(), StorageError> {
    let wanted = flags.size.0;
    if flags.sparse {
        return file.set_len(wanted).map_err(io_error("size", path));
    }
    let no_room = |free| StorageError::NoRoom { path: path.to_path_buf(), wanted, free };
    let free = rustix::fs::fstatvfs(file).map_or(u64::MAX, |space| space.f_bavail * space.f_frsize);
    // Trying would fill the disk for a moment, and others write to it too.
    if wanted > free {
        return Err(no_room(free));
    }
    match fallocate(file, FallocateFlags::empty(), 0, wanted) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => Err(StorageError::NotPreallocated { path: path.to_path_buf() }),
        Err(rustix::io::Errno::NOSPC) => Err(no_room(free)),
        Err(errno) => Err(io_error("set space aside for", path)(errno.into())),
    }
}

fn make_file_system(path: &Path, sector: u32) -> Result<(), StorageError> {
    let program = ["/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"].into_iter().find(|path| Path::new(path).exists());
    let made = Command::new(program.unwrap_or("mkfs.xfs"))
        // The file's space is not given back: it was set aside on purpose.
        .args(["-q", "-K", "-m", "reflink=1", "-L", "homeport", "-s", &format!("size={sector}")])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(StorageError::Mkfs { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StorageError::NoMkfs),
        Err(error) => Err(StorageError::Mkfs { said: error.to_string() }),
    }
}

/// Copies names of the data directory with all that belongs to them: links, owners, times, attributes, devices.
fn copy(data_dir: &Path, names: &[PathBuf], root: &Path) -> Result<(), StorageError> {
    let failed = |said: String| StorageError::Move { path: data_dir.to_path_buf(), said };
    let mut said = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
    let errors = said.try_clone().map_err(|error| failed(error.to_string()))?;
    let mut copying = Command::new("cp")
        .args(["--archive", "--sparse=auto", "--target-directory"])
        .arg(root)
        .arg("--")
        .args(names)
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|error| failed(format!("cp: {error}")))?;
    let ended = loop {
        match copying.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) => break status,
            None => show_copied(root),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if ended.success() {
        return Ok(());
    }
    let mut text = String::new();
    let read = io::Seek::rewind(&mut said).and_then(|()| io::Read::read_to_string(&mut said, &mut text));
    Err(failed(match read {
        Ok(_) => text.lines().next().unwrap_or("cp failed").to_owned(),
        Err(error) => error.to_string(),
    }))
}

fn show_copied(root: &Path) {
    if !io::stderr().is_terminal() {
        return;
    }
    if let Ok(space) = statvfs(root) {
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        // A progress line that can't be shown is no reason to stop.
        let _ = write!(io::stderr(), "\rmoving: {:>12}", size(used));
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |source| StorageError::Io { doing, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_counts_a_file_with_two_names_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        let one = space_of(vec![dir.path().to_path_buf()]).unwrap();
        assert!(one >= 1 << 20, "{one}");
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(space_of(vec![dir.path().to_path_buf()]).unwrap(), one);
    }

    #[test]
    fn an_interrupted_move_is_finished_and_keeps_what_was_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        std::fs::write(dir.path().join("store/x"), "old").unwrap();
        std::fs::write(dir.path().join("other"), "stays").unwrap();
        let record = StorageRecord {
            id: "x".into(),
            file: USUAL_FILE.into(),
            size: 1,
            inside: false,
            moved: vec!["store".into(), "gone".into()],
        };
        let after = remove_moved(record, dir.path()).unwrap();
        assert!(after.moved.is_empty() && !dir.path().join("store").exists());
        assert!(dir.path().join("other").exists());
        assert_eq!(StorageRecord::read(dir.path()).unwrap(), Some(after));
    }
}
