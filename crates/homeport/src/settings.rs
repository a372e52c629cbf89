//! What was asked for: flags, then `HOMEPORT_…` variables, then the settings file, then defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::{Global, GpuFallback, LogFormat, UpFlags};
use crate::failure::Hint;

/// Looked for where no file is named.
const USUAL_FILES: [&str; 2] = ["homeport.toml", "/etc/homeport/homeport.toml"];
const DEFAULT_LISTEN: &str = "127.0.0.1:8750";
/// The netlink library warns of every attribute that a newer kernel has.
const DEFAULT_LOG: &str = "info,netlink_packet_route=error";

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the settings file {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the settings file {} is not TOML", path.display())]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("the settings file {} has a wrong value for `{key}`: {reason}", path.display())]
    Value { path: PathBuf, key: String, reason: String },
    #[error("the settings file {} has the key `{key}`, which doesn't exist", path.display())]
    UnknownKey { path: PathBuf, key: String },
    #[error("no data directory is given, and HOME is not set to derive one from")]
    NoDataDir,
    #[error("cannot find out the current directory, from which `{}` is meant", path.display())]
    CurrentDir { path: PathBuf, source: std::io::Error },
    #[error("`{value}` is not a log filter: {reason}")]
    LogFilter { value: String, reason: String },
    #[error("`commit_interval` is shorter than {} ms", LEAST_COMMIT_INTERVAL.as_millis())]
    CommitInterval,
}

impl Hint for SettingsError {
    fn hint(&self) -> Option<String> {
        match self {
            SettingsError::UnknownKey { .. } => Some(format!("the keys are {}", KEYS.join(", "))),
            SettingsError::NoDataDir => Some("give it with --data-dir".to_owned()),
            _ => None,
        }
    }
}

const KEYS: [&str; 10] = [
    "data_dir",
    "listen",
    "gpu_fallback",
    "log_format",
    "log",
    "commit_interval",
    "keep_versions",
    "keep_days",
    "gc_grace",
    "keep_results",
];

/// Below this a server would do little else.
const LEAST_COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// How often changes of Volumes are committed without being asked for.
const DEFAULT_COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// Versions of a Volume that are kept where it says nothing of its own.
const DEFAULT_KEEP_VERSIONS: u32 = 100;
const DEFAULT_KEEP_DAYS: u32 = 30;
/// Content that nothing refers to stays for so long.
const DEFAULT_GC_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Results of calls that nobody waits for are kept for so long.
const DEFAULT_KEEP_RESULTS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The settings file, each key absent or good.
#[derive(Debug, Default, PartialEq)]
struct FileSettings {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    gpu_fallback: Option<GpuFallback>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    commit_interval: Option<Span>,
    keep_versions: Option<u32>,
    keep_days: Option<u32>,
    gc_grace: Option<Span>,
    keep_results: Option<Span>,
}

/// A length of time as people write it, such as `5s` or `1day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map(Span).map_err(serde::de::Error::custom)
    }
}

/// What every command needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Absolute; may not exist yet.
    pub(crate) data_dir: PathBuf,
    file: FileSettings,
}

/// What the server needs to know.
#[derive(Debug, Clone)]
pub(crate) struct UpSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) gpu_fallback: Option<GpuFallback>,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
    /// How often changes of Volumes are committed without being asked for.
    pub(crate) commit_interval: Duration,
    /// Versions that are kept of a Volume that says nothing of its own.
    pub(crate) keep_versions: u32,
    /// Days for which they are kept.
    pub(crate) keep_days: u32,
    /// How old content that nothing refers to is when it goes.
    pub(crate) gc_grace: Duration,
    /// How long the results of calls that nobody waits for are kept.
    pub(crate) keep_results: Duration,
}

impl Settings {
    /// Reads the settings file and puts the flags and variables over it.
    pub(crate) fn load(global: &Global) -> Result<Settings, SettingsError> {
        let file = match &global.config {
            Some(path) => FileSettings::read(path)?,
            None => match USUAL_FILES.iter().map(Path::new).find(|path| path.exists()) {
                Some(path) => FileSettings::read(path)?,
                None => FileSettings::default(),
            },
        };
        let data_dir = match global.data_dir.clone().or_else(|| file.data_dir.clone()) {
            Some(path) => path,
            None => default_data_dir()?,
        };
        let data_dir = std::path::absolute(&data_dir)
            .map_err(|source| SettingsError::CurrentDir { path: data_dir, source })?;
        Ok(Settings { data_dir, file })
    }

    /// The server's settings.
    pub(crate) fn for_up(self, flags: UpFlags) -> Result<UpSettings, SettingsError> {
        let log = flags.log.or(self.file.log).unwrap_or_else(|| DEFAULT_LOG.to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log) {
            return Err(SettingsError::LogFilter { value: log, reason: error.to_string() });
        }
        let span = |flag: Option<Duration>, file: Option<Span>, default| {
            flag.or(file.map(|Span(value)| value)).unwrap_or(default)
        };
        let commit_interval = span(flags.commit_interval, self.file.commit_interval, DEFAULT_COMMIT_INTERVAL);
        if commit_interval < LEAST_COMMIT_INTERVAL {
            return Err(SettingsError::CommitInterval);
        }
        Ok(UpSettings {
            commit_interval,
            keep_versions: flags
                .keep_versions
                .or(self.file.keep_versions)
                .unwrap_or(DEFAULT_KEEP_VERSIONS)
                .max(1),
            keep_days: flags.keep_days.or(self.file.keep_days).unwrap_or(DEFAULT_KEEP_DAYS).max(1),
            gc_grace: span(flags.gc_grace, self.file.gc_grace, DEFAULT_GC_GRACE),
            keep_results: span(flags.keep_results, self.file.keep_results, DEFAULT_KEEP_RESULTS),
            data_dir: self.data_dir,
            listen: flags.listen.or(self.file.listen).unwrap_or_else(default_listen),
            gpu_fallback: flags.gpu_fallback.or(self.file.gpu_fallback),
            log_format: flags.log_format.or(self.file.log_format).unwrap_or_default(),
            log,
        })
    }
}

impl FileSettings {
    fn read(path: &Path) -> Result<FileSettings, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_path_buf(), source })?;
        let mut settings = FileSettings::parse(path, &text)?;
        // A path in the file is meant from where the file is, wherever the command is run.
        if let Some(data_dir) = &mut settings.data_dir {
            *data_dir = path.parent().unwrap_or(Path::new(".")).join(&*data_dir);
        }
        Ok(settings)
    }

    fn parse(path: &Path, text: &str) -> Result<FileSettings, SettingsError> {
        let mut table: toml::Table = toml::from_str(text)
            .map_err(|source| SettingsError::Syntax { path: path.to_path_buf(), source })?;
        let settings = FileSettings {
            data_dir: take(path, &mut table, "data_dir")?,
            listen: take(path, &mut table, "listen")?,
            gpu_fallback: take(path, &mut table, "gpu_fallback")?,
            log_format: take(path, &mut table, "log_format")?,
            log: take(path, &mut table, "log")?,
            commit_interval: take(path, &mut table, "commit_interval")?,
            keep_versions: take(path, &mut table, "keep_versions")?,
            keep_days: take(path, &mut table, "keep_days")?,
            gc_grace: take(path, &mut table, "gc_grace")?,
            keep_results: take(path, &mut table, "keep_results")?,
        };
        match table.keys().next() {
            Some(key) => Err(SettingsError::UnknownKey { path: path.to_path_buf(), key: key.clone() }),
            None => Ok(settings),
        }
    }
}

fn take<T: DeserializeOwned>(
    path: &Path,
    table: &mut toml::Table,
    key: &str,
) -> Result<Option<T>, SettingsError> {
    let Some(value) = table.remove(key) else {
        return Ok(None);
    };
    T::deserialize(value).map(Some).map_err(|error| SettingsError::Value {
        path: path.to_path_buf(),
        key: key.to_owned(),
        reason: error.message().to_owned(),
    })
}

fn default_listen() -> SocketAddr {
    // The constant is checked by a test.
    DEFAULT_LISTEN.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 8750)))
}

/// Whether commands find this data directory without being told.
pub(crate) fn is_usual_data_dir(data_dir: &Path) -> bool {
    let variable = std::env::var_os("HOMEPORT_DATA_DIR").map(PathBuf::from);
    variable.or_else(|| default_data_dir().ok()).is_some_and(|usual| usual == data_dir)
}

fn default_data_dir() -> Result<PathBuf, SettingsError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("homeport"))
        .ok_or(SettingsError::NoDataDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileSettings, SettingsError> {
        FileSettings::parse(Path::new("homeport.toml"), text)
    }

    fn flags() -> UpFlags {
        UpFlags {
            listen: None,
            gpu_fallback: None,
            log_format: None,
            log: None,
            commit_interval: None,
            keep_versions: None,
            keep_days: None,
            gc_grace: None,
            keep_results: None,
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let load = |text, flags| {
            let settings = Settings { data_dir: "/d".into(), file: parse(text).unwrap() };
            settings.for_up(flags).unwrap()
        };
        assert_eq!(load("", flags()).listen.to_string(), DEFAULT_LISTEN);
        let file = "listen = '127.0.0.1:1'\ngpu_fallback = 'cpu'\nlog_format = 'json'\nlog = 'debug'";
        let from_file = load(file, flags());
        assert_eq!(from_file.listen.port(), 1);
        assert_eq!(from_file.gpu_fallback, Some(GpuFallback::Cpu));
        assert_eq!((from_file.log_format, from_file.log.as_str()), (LogFormat::Json, "debug"));
        let flag = UpFlags { listen: Some("127.0.0.1:2".parse().unwrap()), ..flags() };
        assert_eq!(load(file, flag).listen.port(), 2);
    }

    #[test]
    fn a_wrong_value_or_key_is_named() {
        for (text, key) in [("listen = 3", "listen"), ("gpu_fallback = 'tpu'", "gpu_fallback")] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
        let error = parse("listn = 'x'").unwrap_err();
        assert!(error.to_string().contains("`listn`"), "{error}");
        assert!(error.hint().unwrap().contains("listen"));
        assert!(matches!(parse("listen"), Err(SettingsError::Syntax { .. })));
    }

    #[test]
    fn times_are_written_with_their_unit() {
        let load = |text| {
            let settings = Settings { data_dir: "/d".into(), file: parse(text).unwrap() };
            settings.for_up(flags())
        };
        let given = load("commit_interval = '500ms'\ngc_grace = '7days'\nkeep_versions = 3").unwrap();
        assert_eq!(given.commit_interval, Duration::from_millis(500));
        assert_eq!(given.gc_grace, Duration::from_secs(7 * 24 * 3600));
        assert_eq!((given.keep_versions, given.keep_days), (3, DEFAULT_KEEP_DAYS));
        assert!(matches!(load("commit_interval = '1ms'"), Err(SettingsError::CommitInterval)));
        let wrong = parse("gc_grace = 5").unwrap_err().to_string();
        assert!(wrong.contains("`gc_grace`"), "{wrong}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        let settings = Settings { data_dir: "/d".into(), file: FileSettings::default() };
        let wrong = UpFlags { log: Some("homeport=loud=er".into()), ..flags() };
        assert!(matches!(settings.for_up(wrong), Err(SettingsError::LogFilter { .. })));
    }

    #[test]
    fn a_data_dir_in_a_file_is_meant_from_where_the_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("homeport.toml");
        std::fs::write(&file, "data_dir = 'state'").unwrap();
        let global = Global { data_dir: None, config: Some(file) };
        assert_eq!(Settings::load(&global).unwrap().data_dir, dir.path().join("state"));
    }
}
