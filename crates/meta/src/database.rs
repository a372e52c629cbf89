//! Opening the database and naming what fails in it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Name of the SQLite file inside a data directory.
const FILE_NAME: &str = "meta.db";
/// Locked while a process opens the database.
const OPENING_FILE_NAME: &str = "meta.lock";

/// Connections kept to the database. SQLite has one writer at a time anyway; the others are for readers.
const CONNECTIONS: u32 = 8;

/// How long a statement waits for another process's write, or for a free connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of every SQLite connection. `synchronous=FULL` makes a committed transaction survive power
/// loss; WAL lets readers go on while something is written, also from other processes.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL; \
     PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory of the database could not be made.
    #[error("cannot create the data directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path cannot be written in a database URL.
    #[error("the data directory {} is not valid UTF-8; choose another path", path.display())]
    Path {
        /// The directory.
        path: PathBuf,
    },
    /// The file that lets one process at a time open the database could not be locked.
    #[error("cannot lock {}", path.display())]
    Turn {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No connection could be made.
    #[error("cannot open the database {url}")]
    Connect {
        /// The URL, without a password.
        url: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The tables could not be brought up to date. An older Homeport on a newer database ends here.
    #[error("cannot bring the tables of {url} up to date; was it written by a newer version?")]
    Migrate {
        /// The URL, without a password.
        url: String,
        /// What the database said.
        source: MigrateError,
    },
}

/// A statement that failed.
#[derive(Debug, thiserror::Error)]
#[error("the database could not {operation}{}", if self.is_full() { NO_SPACE } else { "" })]
pub struct QueryError {
    /// What was wanted, for example `read app ap-1`.
    operation: String,
    /// What the database said.
    source: sqlx::Error,
}

const NO_SPACE: &str = ": no space is left on its disk; free some and try again";

impl QueryError {
    /// Whether it failed because there is no space left for the database.
    pub fn is_full(&self) -> bool {
        let error = self.source.as_database_error();
        // SQLite's word for it, and PostgreSQL's class of codes.
        error.and_then(|error| error.code()).is_some_and(|code| code == "13" || code.starts_with("53100"))
    }
}

/// Result of a function that runs statements.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

/// Names the operation in whose course a statement failed.
pub(crate) trait Context<T> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, sqlx::Error> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| QueryError { operation: operation(), source })
    }
}

/// The database. Cheap to clone: clones share their connections.
#[derive(Clone, Debug)]
pub struct Meta {
    pub(crate) pool: AnyPool,
    /// The file to which SQLite appends what is committed.
    journal: Option<PathBuf>,
}

/// A state of the database: two that are equal have nothing written between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeMark {
    modified: SystemTime,
    length: u64,
}

impl Meta {
    /// Opens the database of a data directory, creating both where they don't exist.
    ///
    /// Several processes may have it open: a command line works beside a running server.
    pub async fn open(data_dir: &Path) -> Result<Meta, OpenError> {
        std::fs::create_dir_all(data_dir)
            .map_err(|source| OpenError::Directory { path: data_dir.to_path_buf(), source })?;
        let file = data_dir.join(FILE_NAME);
        let path = file.to_str().ok_or_else(|| OpenError::Path { path: data_dir.to_path_buf() })?;
        let turn = opening_turn(data_dir).await?;
        let meta = Meta::connect(&format!("sqlite://{}?mode=rwc", escape(path))).await;
        drop(turn);
        Ok(Meta { journal: Some(data_dir.join(format!("{FILE_NAME}-wal"))), ..meta? })
    }

    /// The state of the database, whoever wrote to it last; none where that can't be seen at no cost.
    pub fn change_mark(&self) -> Option<ChangeMark> {
        let metadata = std::fs::metadata(self.journal.as_ref()?).ok()?;
        Some(ChangeMark { modified: metadata.modified().ok()?, length: metadata.len() })
    }

    /// Opens the database that a URL names and brings its tables up to date.
    pub async fn connect(url: &str) -> Result<Meta, OpenError> {
        sqlx::any::install_default_drivers();
        let shown = without_password(url);
        let connect_error = |source| OpenError::Connect { url: shown.clone(), source };
        let options = AnyConnectOptions::from_str(url).map_err(connect_error)?.disable_statement_logging();
        // A pool retries until its patience ends; what is wrong with the database should be said at once.
        let mut first = AnyConnection::connect_with(&options).await.map_err(connect_error)?;
        configure(&mut first).await.map_err(connect_error)?;
        first.close().await.map_err(connect_error)?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(|connection, _| Box::pin(configure(connection)))
            .connect_with(options)
            .await
            .map_err(connect_error)?;
        MIGRATIONS.run(&pool).await.map_err(|source| OpenError::Migrate { url: shown, source })?;
        Ok(Meta { pool, journal: None })
    }

    /// Closes the connections after the statements under way have ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Waits until no other process is opening the database of a directory, and keeps others out until the file
/// is dropped: SQLite itself would let two of them make the tables.
async fn opening_turn(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join(OPENING_FILE_NAME);
    let locked = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        }
    });
    match locked.await {
        Ok(locked) => locked.map_err(|source| OpenError::Turn { path, source }),
        Err(error) => Err(OpenError::Turn { path, source: std::io::Error::other(error) }),
    }
}

async fn configure(connection: &mut AnyConnection) -> std::result::Result<(), sqlx::Error> {
    if connection.backend_name() == "SQLite" {
        connection.execute(SQLITE_SETTINGS).await?;
    }
    Ok(())
}

/// Percent-encodes what has a meaning of its own in a URL.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The URL as messages may show it.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.split_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn opening_twice_in_a_path_with_odd_characters_works() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a b?c#d%41 é");
        let first = Meta::open(&odd).await.unwrap();
        let second = Meta::open(&odd).await.unwrap();
        crate::files::put(&first, &crate::files::File { sha256: "s".into(), digest: "d".into(), size: 3 })
            .await
            .unwrap();
        assert_eq!(crate::files::get(&second, "s").await.unwrap().unwrap().size, 3);
        assert!(odd.join(FILE_NAME).exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fresh_directory_can_be_opened_by_many_at_the_same_time() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let mut opening = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let path = dir.path().to_path_buf();
                opening.spawn(async move { Meta::open(&path).await });
            }
            for opened in opening.join_all().await {
                opened.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn connections_are_durable_and_check_references() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        for (pragma, expected) in [("synchronous", 2i64), ("foreign_keys", 1), ("busy_timeout", 20_000)] {
            let (value,): (i64,) =
                sqlx::query_as(&format!("PRAGMA {pragma}")).fetch_one(&meta.pool).await.unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
        let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&meta.pool).await.unwrap();
        assert_eq!(mode, "wal");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), vec![b'x'; 4096]).unwrap();
        let error = Meta::open(dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("meta.db"), "{error}");
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://u:secret@db/homeport"), "postgres://…@db/homeport");
    }
}
