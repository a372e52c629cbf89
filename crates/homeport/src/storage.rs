//! `homeport storage`: a file system of its own for the data directory.
//!
//! It lies in one preallocated file and is mounted over the data directory. The mount is made where every other
//! program of the machine sees it, not in the server's own mount namespace: `homeport token`, `doctor` or a
//! backup must see the same data, also while no server runs. So it stays when the server ends, like a disk,
//! until `homeport storage detach` or the end of the machine; `homeport up` makes it again where it is missing.
//!
//! The whole directory is on it rather than its larger parts, because contents, writable layers and uploads can
//! share blocks only within one file system, and because rows of the database must not be newer or older than
//! the contents that they name.

mod init;
mod loop_device;
mod mounting;
mod record;

use std::fs::File;
use std::path::{Path, PathBuf};

use homeport_meta::{DataDirLock, LockError};
use rustix::fs::{FlockOperation, flock, statvfs};
use serde::Serialize;

use crate::failure::Hint;
use crate::models::size;
pub(crate) use init::init;
use mounting::{Unplaced, unplace};
use record::StorageRecord;

/// Why a command on the storage failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("{0} needs root")]
    NotRoot(&'static str),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the data directory {} has content already", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the data directory {} has a file system of its own already, in {}", path.display(), file.display())]
    There { path: PathBuf, file: PathBuf },
    #[error("the data directory {} has no file system of its own", path.display())]
    None { path: PathBuf },
    #[error("{} is there already", path.display())]
    FileExists { path: PathBuf },
    #[error("{} is too small for a file system: it takes at least {}", size(*given), size(init::LEAST_SIZE))]
    TooSmall { given: u64 },
    #[error("{} is too small for what is in {}, which takes {}", size(*given), path.display(), size(*needed))]
    TooSmallToMove { path: PathBuf, given: u64, needed: u64 },
    #[error("{} has writes of containers that no version of a Volume has yet", path.display())]
    Unsaved { path: PathBuf },
    #[error("there is no room for a file of {} at {}, where {} are free", size(*wanted), path.display(), size(*free))]
    NoRoom { path: PathBuf, wanted: u64, free: u64 },
    #[error("the file system of {} can't set space aside for a file", path.display())]
    NotPreallocated { path: PathBuf },
    #[error("mkfs.xfs is not installed")]
    NoMkfs,
    #[error("mkfs.xfs failed: {said}")]
    Mkfs { said: String },
    #[error("cannot move the content of {}: {said}", path.display())]
    Move { path: PathBuf, said: String },
    #[error("the file {} of the data directory's file system is not there", file.display())]
    FileMissing { file: PathBuf },
    #[error("{} is not the file system of this data directory, but of another", file.display())]
    Foreign { file: PathBuf },
    #[error("cannot mount the file system in {}", file.display())]
    Mount { file: PathBuf, source: std::io::Error },
    #[error("cannot take the file system off {}", path.display())]
    Unmount { path: PathBuf, source: std::io::Error },
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot write the status as JSON")]
    Json(#[from] serde_json::Error),
}

impl Hint for StorageError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            StorageError::NotRoot(_) => "run it with sudo".to_owned(),
            StorageError::NotEmpty { .. } => "--move moves it into the new file system".to_owned(),
            StorageError::None { .. } => "`homeport storage init --size 200GB` makes one".to_owned(),
            StorageError::FileExists { .. } => {
                "remove it if nothing needs it, or name another file with --path".to_owned()
            }
            StorageError::TooSmallToMove { .. } | StorageError::TooSmall { .. } => {
                "give a larger --size".to_owned()
            }
            StorageError::Unsaved { .. } => {
                "start the server once, which saves them, stop it, and try again".to_owned()
            }
            StorageError::NoRoom { .. } => {
                "give a smaller --size, or name a file on another disk with --path".to_owned()
            }
            StorageError::NotPreallocated { .. } => {
                "name a file on another disk with --path, or let the file grow as it is written, with --sparse"
                    .to_owned()
            }
            StorageError::NoMkfs => "apt-get install xfsprogs".to_owned(),
            StorageError::FileMissing { .. } => {
                "mount the disk that it is on, or bring it back from a copy".to_owned()
            }
            StorageError::Mount { source, .. } => match source.raw_os_error() {
                Some(libc::ENODEV) => "load the kernel module: modprobe xfs".to_owned(),
                Some(libc::ENOENT | libc::ENXIO) => "load the kernel module: modprobe loop".to_owned(),
                Some(libc::EPERM | libc::EACCES) => {
                    "this needs the right to use loop devices and to mount".to_owned()
                }
                _ => return None,
            },
            StorageError::Unmount { path, source } if source.raw_os_error() == Some(libc::EBUSY) => {
                format!("a program uses it; `fuser -vm {}` says which", path.display())
            }
            _ => return None,
        };
        Some(text)
    }
}

/// What there is in place of the data directory's own disk.
#[derive(Debug, Serialize)]
struct Status {
    file: PathBuf,
    size_bytes: u64,
    attached: bool,
    /// Absent while it is not attached.
    free_bytes: Option<u64>,
}

/// Mounts the data directory's file system, if it has one that is not mounted. Says whether it did.
pub(crate) fn attach(data_dir: &Path) -> Result<bool, StorageError> {
    let Ok(data_dir) = std::fs::canonicalize(data_dir) else {
        return Ok(false);
    };
    let _guard = exclusive(&data_dir)?;
    let Some(record) = read(&data_dir)?.filter(|record| !record.inside) else {
        return Ok(false);
    };
    let record = init::remove_moved(record, &data_dir)?;
    let file = record.path(&data_dir);
    if !file.exists() {
        return Err(StorageError::FileMissing { file });
    }
    let failed = |source| StorageError::Mount { file: file.clone(), source };
    let mounted = Unplaced::mount(&file).map_err(failed)?;
    let inside = read(&mounted.root())?;
    if inside.is_none_or(|inside| inside.id != record.id) {
        return Err(StorageError::Foreign { file });
    }
    mounted.place(&data_dir).map_err(failed)?;
    Ok(true)
}

/// `homeport storage attach`.
pub(crate) fn attach_and_say(data_dir: &Path) -> Result<String, StorageError> {
    need_root("mounting")?;
    if attach(data_dir)? {
        return Ok(format!("attached {}\n", data_dir.display()));
    }
    match read(data_dir)? {
        Some(_) => Ok(format!("{} is attached already\n", data_dir.display())),
        None => Err(StorageError::None { path: data_dir.to_path_buf() }),
    }
}

/// Takes the file system off the data directory. Refused while anything uses it.
pub(crate) fn detach(data_dir: &Path) -> Result<String, StorageError> {
    need_root("unmounting")?;
    let Some(record) = read(data_dir)? else {
        return Err(StorageError::None { path: data_dir.to_path_buf() });
    };
    if !record.inside {
        return Ok(format!("{} is not attached\n", data_dir.display()));
    }
    let path = std::fs::canonicalize(data_dir).map_err(|source| StorageError::Io {
        doing: "find",
        path: data_dir.to_path_buf(),
        source,
    })?;
    drop(DataDirLock::acquire(&path)?);
    unplace(&path).map_err(|source| StorageError::Unmount { path: path.clone(), source })?;
    Ok(format!("detached {}; its data is in {}\n", path.display(), record.path(&path).display()))
}

/// What there is, for people or as JSON.
pub(crate) fn status(data_dir: &Path, json: bool) -> Result<String, StorageError> {
    let Some(record) = read(data_dir)? else {
        return Err(StorageError::None { path: data_dir.to_path_buf() });
    };
    let free = record.inside.then(|| statvfs(data_dir)).and_then(Result::ok);
    let status = Status {
        file: record.path(data_dir),
        size_bytes: record.size,
        attached: record.inside,
        free_bytes: free.map(|space| space.f_bavail * space.f_frsize),
    };
    if json {
        return Ok(serde_json::to_string_pretty(&status)? + "\n");
    }
    let state = match status.free_bytes {
        Some(free) => format!("attached, {} free", size(free)),
        None => "not attached".to_owned(),
    };
    Ok(format!("{}: {}, {state}\n", status.file.display(), size(status.size_bytes)))
}

/// The file system that a data directory has and that is not mounted: its data is out of sight.
pub(crate) fn out_of_sight(data_dir: &Path) -> Option<PathBuf> {
    let record = StorageRecord::read(data_dir).ok()??;
    (!record.inside).then(|| record.path(data_dir))
}

/// Whether the data directory lies on a file system of its own.
pub(crate) fn is_attached(data_dir: &Path) -> bool {
    StorageRecord::read(data_dir).ok().flatten().is_some_and(|record| record.inside)
}

fn read(directory: &Path) -> Result<Option<StorageRecord>, StorageError> {
    StorageRecord::read(directory).map_err(|source| StorageError::Io {
        doing: "read",
        path: directory.join(record::RECORD),
        source,
    })
}

fn need_root(doing: &'static str) -> Result<(), StorageError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(StorageError::NotRoot(doing)) }
}

/// Keeps others from attaching at the same moment. What is in sight is looked at only afterwards.
fn exclusive(data_dir: &Path) -> Result<File, StorageError> {
    let failed = |source| StorageError::Io { doing: "lock", path: data_dir.to_path_buf(), source };
    let directory = File::open(data_dir).map_err(failed)?;
    flock(&directory, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    Ok(directory)
}
