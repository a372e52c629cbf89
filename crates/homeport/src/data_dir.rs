//! The data directory: what is where in it, and how commands find the server that runs on it.
//!
//! ```text
//! storage.json     which file the directory's own file system is in, where it has one; storage.xfs, mostly
//! homeport.lock    held by the running server
//! server.json      where it serves; there only while it does
//! meta.db          names and facts; meta.lock is held while it is opened
//! env-token.json   the token that `homeport env` prints, readable by its owner alone
//! secrets.key      the key that seals secrets in meta.db, readable by its owner alone: a backup needs both
//! store/           contents and trees
//! blobs/           payloads on their way
//! models/          what the hub has
//! network-files/   files of network file systems, as they are
//! bases/           what is remembered about base images
//! fs/ runtime/ worker/   mounts and containers of the running server
//! ```

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Hint;

/// Paths in a data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// A command has no server or no data to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("there is no Homeport in {}", path.display())]
    Empty { path: PathBuf },
    #[error("the data of {} is in the file {}, which is not mounted", path.display(), file.display())]
    Detached { path: PathBuf, file: PathBuf },
    #[error("no server runs on the data directory {}", path.display())]
    NotRunning { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
}

impl Hint for DataDirError {
    fn hint(&self) -> Option<String> {
        match self {
            DataDirError::Empty { path } | DataDirError::NotRunning { path } => Some(format!(
                "start a server with `homeport up --data-dir {0}`, or say where one is with --data-dir",
                path.display()
            )),
            DataDirError::Detached { path, .. } => Some(format!(
                "`homeport storage attach --data-dir {}` mounts it, as `homeport up` does",
                path.display()
            )),
            DataDirError::Unreadable { source, .. } | DataDirError::Unwritable { source, .. } => {
                (source.kind() == std::io::ErrorKind::PermissionDenied)
                    .then(|| "run this as the user that runs the server".to_owned())
            }
        }
    }
}

/// What a running server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    pub(crate) pid: u32,
    /// When the process started, in the kernel's ticks since boot: a later process with the same id has
    /// another.
    pub(crate) process_started: u64,
    pub(crate) listen: SocketAddr,
    /// Seconds since 1970, UTC.
    pub(crate) ready_at: u64,
}

impl DataDir {
    pub(crate) fn new(root: &Path) -> DataDir {
        DataDir { root: root.to_path_buf() }
    }

    /// A data directory that a server has worked on.
    pub(crate) fn existing(root: &Path) -> Result<DataDir, DataDirError> {
        let data_dir = DataDir::new(root);
        if !data_dir.root.join("meta.db").exists() {
            if let Some(file) = crate::storage::out_of_sight(root) {
                return Err(DataDirError::Detached { path: root.to_path_buf(), file });
            }
            return Err(DataDirError::Empty { path: root.to_path_buf() });
        }
        Ok(data_dir)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Mountable snapshots and writable layers.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("fs")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.root.join("runtime")
    }

    /// Directories of network file systems.
    pub(crate) fn network_files(&self) -> PathBuf {
        self.root.join("network-files")
    }

    /// The key that seals secrets.
    pub(crate) fn secrets_key(&self) -> PathBuf {
        self.root.join("secrets.key")
    }

    pub(crate) fn worker(&self) -> PathBuf {
        self.root.join("worker")
    }

    /// What is remembered about base images.
    pub(crate) fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// A short name for kernel objects of this directory's server, the same at each start.
    pub(crate) fn instance_name(&self) -> String {
        let path = std::fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let digest = homeport_content::Digest::of(path.as_os_str().as_encoded_bytes());
        digest.to_string().chars().take(8).collect()
    }

    pub(crate) fn env_token(&self) -> PathBuf {
        self.root.join("env-token.json")
    }

    fn server_record(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Says where this process serves.
    pub(crate) fn write_server_record(&self, listen: SocketAddr) -> Result<(), DataDirError> {
        let pid = std::process::id();
        let path = self.server_record();
        let failed = |source| DataDirError::Unwritable { path: path.clone(), source };
        let record = ServerRecord {
            pid,
            process_started: process_start(pid).unwrap_or_default(),
            listen,
            ready_at: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|error| failed(error.into()))?;
        replace_file(&path, &text, 0o644).map_err(failed)
    }

    /// Takes back what [`DataDir::write_server_record`] said.
    pub(crate) fn remove_server_record(&self) {
        let path = self.server_record();
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the record of this server");
        }
    }

    /// The server that runs on this directory. A record that a crash left behind doesn't count.
    pub(crate) fn running_server(&self) -> Result<ServerRecord, DataDirError> {
        let path = self.server_record();
        let not_running = || DataDirError::NotRunning { path: self.root.clone() };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_running()),
            Err(source) => return Err(DataDirError::Unreadable { path, source }),
        };
        let record: ServerRecord = serde_json::from_slice(&text).map_err(|_| not_running())?;
        if process_start(record.pid) != Some(record.process_started) {
            return Err(not_running());
        }
        Ok(record)
    }
}

impl ServerRecord {
    /// Where this machine's clients reach the server.
    pub(crate) fn url(&self) -> String {
        url_of(self.listen)
    }
}

/// The URL of an address for clients on this machine. Clients can't read IPv6 literals in a URL.
pub(crate) fn url_of(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => address.to_string(),
        IpAddr::V6(address) if address.is_loopback() => "localhost".to_owned(),
        IpAddr::V6(address) if !address.is_unspecified() => format!("[{address}]"),
        _ => "127.0.0.1".to_owned(),
    };
    format!("http://{host}:{}", listen.port())
}

/// Replaces a file at once, so that nobody reads half of it and it never has other permissions.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(mode)).tempfile_in(directory)?;
    // The umask doesn't matter for what others must be able to read.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// When a process started, in ticks since boot; none if there is no such process.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may contain anything; counted from its end this is field 22.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_only_while_its_process_runs() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(dir.path());
        assert!(matches!(data_dir.running_server(), Err(DataDirError::NotRunning { .. })));

        let listen: SocketAddr = "0.0.0.0:7".parse().unwrap();
        data_dir.write_server_record(listen).unwrap();
        let record = data_dir.running_server().unwrap();
        assert_eq!((record.pid, record.url().as_str()), (std::process::id(), "http://127.0.0.1:7"));

        let later = ServerRecord { process_started: record.process_started + 1, ..record };
        std::fs::write(data_dir.server_record(), serde_json::to_vec(&later).unwrap()).unwrap();
        assert!(matches!(data_dir.running_server(), Err(DataDirError::NotRunning { .. })));
        data_dir.remove_server_record();
        assert!(!data_dir.server_record().exists());
    }

    #[test]
    fn urls_are_such_as_clients_can_read() {
        let url = |listen: &str| url_of(listen.parse().unwrap());
        assert_eq!(url("127.0.0.1:8750"), "http://127.0.0.1:8750");
        assert_eq!(url("10.1.2.3:1"), "http://10.1.2.3:1");
        assert_eq!(url("0.0.0.0:1"), "http://127.0.0.1:1");
        assert_eq!(url("[::1]:1"), "http://localhost:1");
    }
}
