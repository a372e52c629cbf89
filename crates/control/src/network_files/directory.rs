//! The files of one network file system, as the command line sees them.
//!
//! Containers write here whatever they like, symbolic links to anywhere included. So every path is
//! looked up by the kernel with this directory as the root, and nothing but files and directories
//! is ever opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fchmod, fstat, fsync, mkdirat, openat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::glob;

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is nothing of this name.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// Only a file or a directory can be used here.
    #[error("`{path}` is {found}, not {wanted}")]
    Kind {
        /// The path.
        path: String,
        /// What it is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// The path has no name, or leads out.
    #[error("`{0}` is not a path of a file in a network file system")]
    Path(String),
    /// A pattern that means nothing.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A directory that is not empty, without `recursive`.
    #[error("`{0}` is a directory; remove it with its content by `-r`")]
    Directory(String),
    /// Everything else.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// From the root, without a leading slash.
    pub(crate) path: String,
    pub(crate) kind: FileType,
    /// Seconds since the epoch.
    pub(crate) mtime: u64,
    pub(crate) size: u64,
}

/// An open network file system.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| failed("open", &path.display().to_string())(errno))?;
        Ok(Self { root })
    }

    /// What a path or pattern names: the entries of a directory, one file, or all that match.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Found>, FileError> {
        if glob::is_pattern(path) {
            let matcher = glob::matcher(path)?;
            let mut all = Vec::new();
            match self.lookup(glob::fixed_part(path), OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(start) => self.collect(&start, &plain(glob::fixed_part(path))?, true, &mut all)?,
                Err(FileError::NotFound(_) | FileError::Kind { .. }) => {}
                Err(error) => return Err(error),
            }
            all.retain(|found| matcher.is_match(&found.path));
            return Ok(all);
        }
        let name = plain(path)?;
        let found = self.lookup(path, OFlags::PATH)?;
        let stat = fstat(&found).map_err(failed("look at", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(vec![entry(name, &stat)]);
        }
        let mut entries = Vec::new();
        self.collect(&self.lookup(path, OFlags::RDONLY | OFlags::DIRECTORY)?, &name, false, &mut entries)?;
        Ok(entries)
    }

    /// Opens a file for reading.
    pub(crate) fn read(&self, path: &str) -> Result<(File, u64), FileError> {
        // Without waiting, so that a named pipe doesn't hold this up.
        let file = self.lookup(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = fstat(&file).map_err(failed("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file.into(), u64::try_from(stat.st_size).unwrap_or(0))),
            kind => Err(FileError::Kind { path: path.to_owned(), found: word(kind), wanted: "a file" }),
        }
    }

    /// Puts a file at `path`, at once and on disk, with the directories that lead there.
    pub(crate) fn write(&self, path: &str, mut content: impl Read) -> Result<(), FileError> {
        let name = plain(path)?;
        let (parents, name) = name.rsplit_once('/').unwrap_or(("", &name));
        if name.is_empty() {
            return Err(FileError::Path(path.to_owned()));
        }
        let parent = self.make_directories(parents)?;
        let temporary = format!(".{:016x}.upload", rand::random::<u64>());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&parent, &temporary, flags, Mode::from_raw_mode(0o644))
            .map_err(failed("make a file beside", path))?;
        let mut file = File::from(file);
        let written = io::copy(&mut content, &mut file)
            .and_then(|_| Ok(fchmod(&file, Mode::from_raw_mode(0o644))?))
            .and_then(|()| Ok(fsync(&file)?))
            .and_then(|()| Ok(renameat(&parent, &temporary, &parent, name)?))
            .and_then(|()| Ok(fsync(&parent)?));
        written.map_err(|source| {
            // It may be gone already; nothing more can be done about it here.
            let _ = unlinkat(&parent, &temporary, AtFlags::empty());
            FileError::Io { what: "write", path: path.to_owned(), source }
        })
    }

    /// Removes a file, or with `recursive` a directory with all that is in it.
    pub(crate) fn remove(&self, path: &str, recursive: bool) -> Result<(), FileError> {
        let name = plain(path)?;
        let (parents, name) = name.rsplit_once('/').unwrap_or(("", &name));
        if name.is_empty() {
            return Err(FileError::Path(path.to_owned()));
        }
        let parent = self.lookup(parents, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return unlinkat(&parent, name, AtFlags::empty()).map_err(failed("remove", path));
        }
        if !recursive {
            return match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => Err(FileError::Directory(path.to_owned())),
                result => result.map_err(failed("remove", path)),
            };
        }
        remove_all(&parent, name).map_err(failed("remove", path))
    }

    fn lookup(&self, path: &str, flags: OFlags) -> Result<OwnedFd, FileError> {
        let name = plain(path)?;
        let name = if name.is_empty() { "." } else { &name };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(
            |errno| match errno {
                Errno::NOTDIR => FileError::Kind {
                    path: path.to_owned(),
                    found: "a file, or below one",
                    wanted: "a directory",
                },
                _ => failed("open", path)(errno),
            },
        )
    }

    fn make_directories(&self, path: &str) -> Result<OwnedFd, FileError> {
        let mut made = String::new();
        let mut parent = self.lookup("", OFlags::RDONLY | OFlags::DIRECTORY)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make the directory", path)(errno)),
            }
            made = if made.is_empty() { part.to_owned() } else { format!("{made}/{part}") };
            parent = self.lookup(&made, OFlags::RDONLY | OFlags::DIRECTORY)?;
        }
        Ok(parent)
    }

    fn collect(
        &self,
        directory: &impl AsFd,
        path: &str,
        deep: bool,
        into: &mut Vec<Found>,
    ) -> Result<(), FileError> {
        for (name, stat) in children(directory).map_err(failed("list", path))? {
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            let found = entry(below.clone(), &stat);
            let descend = deep && found.kind == FileType::Directory;
            into.push(found);
            if descend {
                match self.lookup(&below, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                    Ok(directory) => self.collect(&directory, &below, true, into)?,
                    // Removed meanwhile.
                    Err(FileError::NotFound(_) | FileError::Kind { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The entries of a directory, in the order of their names, which are shown as well as UTF-8 can.
fn children(directory: &impl AsFd) -> Result<Vec<(String, Stat)>, Errno> {
    let mut all = Vec::new();
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => all.push((name.to_string_lossy().into_owned(), stat)),
            // Removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

fn remove_all(parent: &impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    for found in Dir::read_from(&directory)? {
        let found = found?;
        let child = found.file_name();
        if matches!(child.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_all(&directory, child)?,
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// The path from the root, without slashes around it. One that climbs is refused, not followed.
fn plain(path: &str) -> Result<String, FileError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || path.contains('\0') {
        return Err(FileError::Path(path.to_owned()));
    }
    Ok(parts.join("/"))
}

fn entry(path: String, stat: &Stat) -> Found {
    Found {
        path,
        kind: FileType::from_raw_mode(stat.st_mode),
        mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        size: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

fn failed(what: &'static str, path: &str) -> impl Fn(Errno) -> FileError {
    move |errno| match errno {
        Errno::NOENT => FileError::NotFound(path.to_owned()),
        _ => FileError::Io { what, path: path.to_owned(), source: errno.into() },
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "a special file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        (dir, directory)
    }

    fn paths(directory: &Directory, path: &str) -> Vec<String> {
        directory.list(path).unwrap().into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn files_are_written_listed_read_and_removed() {
        let (_dir, directory) = place();
        directory.write("/a/b/one.txt", &b"one"[..]).unwrap();
        directory.write("a/two.txt", &b"22"[..]).unwrap();
        assert_eq!(paths(&directory, "/"), ["a"]);
        assert_eq!(paths(&directory, "a"), ["a/b", "a/two.txt"]);
        assert_eq!(paths(&directory, "a/two.txt"), ["a/two.txt"]);
        assert_eq!(paths(&directory, "a/*"), ["a/b", "a/two.txt"]);
        assert_eq!(paths(&directory, "**"), ["a", "a/b", "a/b/one.txt", "a/two.txt"]);
        let (mut file, size) = directory.read("a/b/one.txt").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("one", 3));
        assert!(matches!(directory.remove("a", false), Err(FileError::Directory(_))));
        directory.remove("a/two.txt", false).unwrap();
        directory.remove("a", true).unwrap();
        assert_eq!(paths(&directory, "/"), [""; 0]);
    }

    #[test]
    fn links_and_paths_lead_nowhere_outside() {
        let (dir, directory) = place();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", dir.path().join("climbing")).unwrap();
        for name in ["absolute", "climbing"] {
            assert!(matches!(directory.read(name), Err(FileError::NotFound(_))), "{name}");
        }
        assert!(matches!(directory.read("../x"), Err(FileError::Path(_))));
        assert!(matches!(directory.write("a/../../x", &b""[..]), Err(FileError::Path(_))));
        std::os::unix::fs::symlink("/", dir.path().join("self")).unwrap();
        directory.write("self/inside", &b"x"[..]).unwrap();
        assert!(dir.path().join("inside").exists());
        directory.remove("self", true).unwrap();
        assert!(dir.path().join("inside").exists(), "a link is removed, not what it leads to");
    }

    #[test]
    fn only_files_are_read() {
        let (dir, directory) = place();
        rustix::fs::mkfifoat(CWD, dir.path().join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        for name in ["pipe", "directory"] {
            assert!(matches!(directory.read(name), Err(FileError::Kind { .. })), "{name}");
        }
        assert!(matches!(directory.read("missing"), Err(FileError::NotFound(_))));
        assert!(matches!(directory.list("missing"), Err(FileError::NotFound(_))));
    }
}
