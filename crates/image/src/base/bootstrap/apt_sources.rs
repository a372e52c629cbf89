//! The Debian or Ubuntu archive that this machine's apt uses.
//!
//! An archive is told from third parties by its suites (`bookworm`, `bookworm-security`), the component
//! `main`, the end of its path and its keyring. Only what is reached by HTTP counts: a medium or a
//! directory of this machine would be missing in containers.

use std::fs;
use std::path::{Path, PathBuf};

use super::BootstrapError;
use super::wanted::{Distribution, is_codename};

/// The archive of a distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Whose archive it is.
    pub distribution: Distribution,
    main: Place,
    security: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    uri: String,
    /// Keyring file; apt's trusted keys if `None`.
    keyring: Option<PathBuf>,
}

/// Where one release is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) main_uri: String,
    pub(super) main_suites: [String; 2],
    /// URI and suite.
    pub(super) security: Option<(String, String)>,
    pub(super) keyring: Option<PathBuf>,
}

impl Sources {
    /// One-line entries.
    pub(super) fn lines(&self) -> Vec<String> {
        let options = match &self.keyring {
            Some(keyring) => format!(" [signed-by={}]", keyring.display()),
            None => String::new(),
        };
        let main = self.main_suites.iter().map(|suite| (&self.main_uri, suite));
        main.chain(self.security.iter().map(|(uri, suite)| (uri, suite)))
            .map(|(uri, suite)| format!("deb{options} {uri} {suite} main"))
            .collect()
    }
}

/// One source as apt knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listed {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Archive {
    /// The archive named in the apt configuration below `apt_dir`.
    pub fn of_machine(apt_dir: &Path) -> Result<Self, BootstrapError> {
        let mut listed = Vec::new();
        for path in source_files(apt_dir)? {
            let text = fs::read_to_string(&path)
                .map_err(|source| BootstrapError::Unreadable { path: path.clone(), source })?;
            listed.extend(match path.extension() {
                Some(extension) if extension == "sources" => deb822(&text),
                _ => one_line(&text),
            });
        }
        Self::among(&listed).ok_or_else(|| BootstrapError::NoArchive(apt_dir.to_owned()))
    }

    fn among(listed: &[Listed]) -> Option<Self> {
        [Distribution::Debian, Distribution::Ubuntu].into_iter().find_map(|distribution| {
            let place = |security: bool| {
                listed
                    .iter()
                    .filter(|source| source.components.iter().any(|component| component == "main"))
                    .filter(|source| {
                        source.suites.iter().any(|suite| is_suite(distribution, suite, security))
                    })
                    .find_map(|source| source.place(distribution))
            };
            Some(Self { distribution, main: place(false)?, security: place(true) })
        })
    }

    /// Where `codename` is to be had.
    pub(super) fn lines(&self, codename: &str) -> Sources {
        Sources {
            main_uri: self.main.uri.clone(),
            main_suites: [codename.to_owned(), format!("{codename}-updates")],
            security: self.security.as_ref().map(|place| (place.uri.clone(), format!("{codename}-security"))),
            keyring: self.main.keyring.clone(),
        }
    }
}

fn is_suite(distribution: Distribution, suite: &str, security: bool) -> bool {
    let aliases = ["stable", "oldstable", "testing", "sid", "unstable"];
    let is_known = |name: &str| {
        is_codename(distribution, name)
            || (distribution == Distribution::Debian
                && (aliases.contains(&name) || name == "buster" || name == "forky"))
            || (distribution == Distribution::Ubuntu
                && ["focal", "plucky", "questing", "resolute"].contains(&name))
    };
    if security {
        suite.strip_suffix("-security").or_else(|| suite.strip_suffix("/updates")).is_some_and(is_known)
    } else {
        is_known(suite)
    }
}

impl Listed {
    /// Its first usable URI, if it is the distribution's own archive.
    fn place(&self, distribution: Distribution) -> Option<Place> {
        let keyring = match self.signed_by.as_deref() {
            Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
            // A key within the file or a fingerprint: apt's own keyring has to do.
            _ => default_keyring(distribution),
        };
        let is_own_key = keyring.as_ref().and_then(|path| path.file_name()).is_none_or(|name| {
            let name = name.to_string_lossy();
            name.contains("debian-archive") || name.contains("ubuntu-archive")
        });
        let uri = self.uris.iter().flat_map(|uri| expanded(uri)).find(|uri| {
            let ends = match distribution {
                Distribution::Debian => ["/debian", "/debian-security"],
                Distribution::Ubuntu => ["/ubuntu", "/ubuntu-ports"],
            };
            let path = uri.trim_end_matches('/');
            let is_http = path.starts_with("http://") || path.starts_with("https://");
            is_http && ends.iter().any(|end| path.ends_with(end))
        })?;
        is_own_key.then_some(Place { uri: uri.trim_end_matches('/').to_owned(), keyring })
    }
}

fn default_keyring(distribution: Distribution) -> Option<PathBuf> {
    let path = Path::new(match distribution {
        Distribution::Debian => "/usr/share/keyrings/debian-archive-keyring.gpg",
        Distribution::Ubuntu => "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    });
    path.exists().then(|| path.to_owned())
}

/// A list of mirrors in a file, as cloud images have it, stands for the URIs in it.
fn expanded(uri: &str) -> Vec<String> {
    let Some(path) = uri.strip_prefix("mirror+file:") else {
        return vec![uri.to_owned()];
    };
    let path = format!("/{}", path.trim_start_matches('/'));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| !word.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// `sources.list` and the files beside it, in apt's order.
fn source_files(apt_dir: &Path) -> Result<Vec<PathBuf>, BootstrapError> {
    let mut files = Vec::new();
    let main = apt_dir.join("sources.list");
    if main.is_file() {
        files.push(main);
    }
    let parts = apt_dir.join("sources.list.d");
    let unreadable = |source| BootstrapError::Unreadable { path: parts.clone(), source };
    let listed = match fs::read_dir(&parts) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        listed => listed.map_err(unreadable)?,
    };
    let mut more = Vec::new();
    for entry in listed {
        let path = entry.map_err(unreadable)?.path();
        let is_list = path.extension().is_some_and(|extension| extension == "list" || extension == "sources");
        if is_list && path.is_file() {
            more.push(path);
        }
    }
    more.sort();
    files.extend(more);
    Ok(files)
}

/// `deb [options] URI SUITE COMPONENT…` lines.
fn one_line(text: &str) -> Vec<Listed> {
    text.lines().filter_map(one_line_source).collect()
}

fn one_line_source(line: &str) -> Option<Listed> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    let signed_by = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("signed-by"))
        .map(|(_, value)| value.to_owned());
    Some(Listed { uris: vec![uri], suites: vec![suite], components: words.collect(), signed_by })
}

/// Stanzas of `Field: value` lines, divided by empty lines.
fn deb822(text: &str) -> Vec<Listed> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = stanzas.last_mut();
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if let (true, Some((_, value))) =
            (line.starts_with([' ', '\t']), fields.and_then(|fields| fields.last_mut()))
        {
            value.push('\n');
            value.push_str(line.trim());
        } else if let (Some((name, value)), Some(fields)) = (line.split_once(':'), stanzas.last_mut()) {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas.iter().filter_map(|fields| deb822_source(fields)).collect()
}

fn deb822_source(fields: &[(String, String)]) -> Option<Listed> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words = |name: &str| {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let is_disabled = field("enabled")
        .is_some_and(|value| ["no", "false", "0"].contains(&value.to_ascii_lowercase().as_str()));
    if is_disabled || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Listed {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
