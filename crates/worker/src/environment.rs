//! What a container inherits from the machine: trusted certificates and, for builds, package indexes.
//!
//! A machine behind an intercepting proxy, or with an index of its own, has this in its certificate bundle and in its
//! environment. Without them `pip install` in a build, or any HTTPS request of a function, would fail inside the
//! container though it works outside.
//!
//! - **Certificates** (builds and tasks): the machine's bundle appears read-only at [`BUNDLE_TARGET`], and the variables
//!   in [`BUNDLE_VARIABLES`] point to it. It isn't bound over `/etc/ssl/certs`, because a package upgrade in a build
//!   renames files there.
//! - **Indexes and proxies** (builds only): the variables in [`BUILD_VARIABLES`], unless the value names a loopback
//!   address, which means something else inside the container.
//!
//! A variable that the order sets itself is never changed.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where a container sees the machine's certificate bundle.
pub(crate) const BUNDLE_TARGET: &str = "/__modal/ca-certificates.crt";

/// Variables by which programs find a certificate bundle.
pub(crate) const BUNDLE_VARIABLES: &[&str] = &[
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// Variables of this process that a build command inherits.
pub(crate) const BUILD_VARIABLES: &[&str] = &[
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

const BUNDLES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Certificates and settings of the machine, read once.
#[derive(Debug, Clone, Default)]
pub struct HostEnvironment {
    bundle: Option<PathBuf>,
    build: BTreeMap<String, String>,
}

impl HostEnvironment {
    /// Reads the environment of this process.
    pub fn of_this_process() -> Self {
        Self::read(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Takes what containers inherit out of `variables`. The bundle is the first that exists of `SSL_CERT_FILE` and the
    /// places where distributions keep it.
    pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables: HashMap<String, String> = variables.into_iter().collect();
        let bundle = variables
            .get("SSL_CERT_FILE")
            .map(PathBuf::from)
            .into_iter()
            .chain(BUNDLES.iter().map(PathBuf::from))
            .find(|path| path.is_file());
        let build = BUILD_VARIABLES
            .iter()
            .filter_map(|name| Some((name.to_string(), variables.get(*name)?.clone())))
            .filter(|(name, value)| name.eq_ignore_ascii_case("no_proxy") || !names_loopback(value))
            .collect();
        Self { bundle, build }
    }

    /// Takes a copy of the certificate bundle to `path`, and gives containers that one: the original may lie where their
    /// user ids reach nothing, or be replaced while they run.
    pub(crate) fn keep_bundle_at(&mut self, path: &Path) -> std::io::Result<()> {
        if let Some(bundle) = &mut self.bundle {
            std::fs::copy(&*bundle, path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))?;
            *bundle = path.to_owned();
        }
        Ok(())
    }

    /// The certificate bundle.
    pub(crate) fn bundle(&self) -> Option<&Path> {
        self.bundle.as_deref()
    }

    /// Completes the environment of a task.
    pub(crate) fn complete_task(&self, env: &mut HashMap<String, String>) {
        if self.bundle.is_none() {
            return;
        }
        for name in BUNDLE_VARIABLES {
            env.entry((*name).to_owned()).or_insert_with(|| BUNDLE_TARGET.to_owned());
        }
    }

    /// Completes the environment of a build command.
    pub(crate) fn complete_build(&self, env: &mut HashMap<String, String>) {
        self.complete_task(env);
        for (name, value) in &self.build {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Whether one of the addresses in `value` (URLs or host names, separated by blanks) is this machine's loopback.
fn names_loopback(value: &str) -> bool {
    value.split_whitespace().any(|address| {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> HostEnvironment {
        HostEnvironment::read(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())))
    }

    #[test]
    fn bundle_named_by_the_environment_is_preferred_and_orders_win_over_it() {
        let bundle = tempfile::NamedTempFile::new().unwrap();
        let host = read(&[("SSL_CERT_FILE", bundle.path().to_str().unwrap())]);
        assert_eq!(host.bundle(), Some(bundle.path()));

        let mut env = HashMap::from([("PIP_CERT".to_owned(), "/mine".to_owned())]);
        host.complete_task(&mut env);
        assert_eq!(env["PIP_CERT"], "/mine");
        assert_eq!(env["SSL_CERT_FILE"], BUNDLE_TARGET);
        assert_eq!(env.len(), BUNDLE_VARIABLES.len());
    }

    #[test]
    fn index_settings_reach_builds_only() {
        let host = read(&[("PIP_INDEX_URL", "http://index.example/simple"), ("HOME", "/root")]);
        let mut build = HashMap::new();
        host.complete_build(&mut build);
        assert_eq!(build["PIP_INDEX_URL"], "http://index.example/simple");
        assert!(!build.contains_key("HOME"));
        let mut task = HashMap::new();
        host.complete_task(&mut task);
        assert!(!task.contains_key("PIP_INDEX_URL"));
    }

    #[test]
    fn loopback_addresses_are_kept_out() {
        for value in [
            "http://127.0.0.1:3128",
            "http://user:word@localhost:3128/",
            "http://[::1]:80",
            "127.0.0.1:3128",
            "http://index.example http://127.0.0.2/simple",
        ] {
            assert!(names_loopback(value), "{value}");
        }
        assert!(!names_loopback("http://10.0.0.1:3128/127.0.0.1"));

        let host = read(&[("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "localhost")]);
        assert_eq!(host.build.keys().collect::<Vec<_>>(), ["NO_PROXY"]);
    }
}
