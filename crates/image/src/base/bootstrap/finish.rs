//! Makes a bootstrapped root behave like the official image of its name.

use homeport_content::{EntryRef, FileContent, Leaf, LeafKind, Metadata, Tree};
use homeport_store::Store;

use super::BootstrapError;
use super::apt_config::{Setting, names_loopback};
use super::apt_sources::Sources;
use super::mmdebstrap::Recipe;
use super::wanted::{Distribution, Release};
use crate::config::{DEFAULT_PATH, ImageConfig};

/// What `dpkg` unpacks and how, while the root is made and afterwards in the image: no manuals, no
/// translations, no static libraries of Python, and no mark that keeps `pip` out of the system's Python, where it belongs in an image.
pub(super) const DPKG_OPTIONS: [&str; 10] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED",
    "path-exclude=/usr/lib/python3*/config-*/*.a",
];

/// Packages fetched by `apt-get` don't stay in the image, nor do indexes that only save time.
const APT_CLEAN: &str = r#"DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
APT::Install-Suggests "false";
"#;

/// Nothing starts services in a container.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// The root with what the official image has besides, and its configuration.
pub(super) fn finish(
    store: &Store,
    mut tree: Tree,
    recipe: &Recipe,
) -> Result<(Tree, ImageConfig), BootstrapError> {
    let mut config = ImageConfig { cmd: vec!["bash".to_owned()], ..ImageConfig::default() };
    config.set_env("PATH", DEFAULT_PATH);
    if recipe.with_python {
        let version = python_version(store, &tree, recipe.release)?;
        config.set_env("LANG", "C.UTF-8");
        config.set_env("PYTHON_VERSION", &version);
        config.cmd = vec!["python3".to_owned()];
        config.python = Some(version);
        name_python(&mut tree, recipe.release)?;
    }
    let files = [
        ("etc/dpkg/dpkg.cfg.d/container", DPKG_OPTIONS.join("\n") + "\n", 0o644),
        ("etc/apt/apt.conf.d/container-clean", APT_CLEAN.to_owned(), 0o644),
        ("usr/sbin/policy-rc.d", POLICY.to_owned(), 0o755),
        sources_file(&recipe.sources, recipe.release),
    ];
    for (path, text, mode) in files {
        put_file(store, &mut tree, path, text.as_bytes(), mode)?;
    }
    let proxies = proxy_lines(&recipe.settings);
    if !proxies.is_empty() {
        put_file(store, &mut tree, "etc/apt/apt.conf.d/proxy", proxies.as_bytes(), 0o644)?;
    }
    if let Some(keyring) = &recipe.sources.keyring {
        let path = keyring.to_string_lossy();
        if tree.get(path.as_bytes()).is_none() {
            let key = std::fs::read(keyring)
                .map_err(|source| BootstrapError::Unreadable { path: keyring.clone(), source })?;
            put_file(store, &mut tree, &path, &key, 0o644)?;
        }
    }
    Ok((tree, config))
}

/// The names that the official Python image has on its path, and none of the mark against `pip`.
fn name_python(tree: &mut Tree, release: &Release) -> Result<(), BootstrapError> {
    let marker = format!("usr/lib/python{}/EXTERNALLY-MANAGED", release.python);
    tree.remove(marker.as_bytes()).map_err(incomplete)?;
    let versioned = format!("python{}", release.python);
    for name in ["python", "python3", &versioned] {
        let link = Leaf {
            metadata: Metadata::with_mode(0o777),
            kind: LeafKind::Symlink(b"/usr/bin/python3".as_slice().into()),
        };
        tree.insert_leaf(format!("usr/local/bin/{name}").as_bytes(), link).map_err(incomplete)?;
    }
    for program in ["usr/bin/python3", "usr/local/bin/pip", "usr/local/bin/pip3"] {
        if tree.get(program.as_bytes()).is_none() {
            return Err(BootstrapError::Incomplete(format!("it has no /{program}")));
        }
    }
    Ok(())
}

/// Upstream version of the Python package that was installed, for example `3.11.2`.
fn python_version(store: &Store, tree: &Tree, release: &Release) -> Result<String, BootstrapError> {
    const STATUS: &str = "var/lib/dpkg/status";
    let Some(EntryRef::Leaf(_, Leaf { kind: LeafKind::File(content), .. })) = tree.get(STATUS.as_bytes())
    else {
        return Err(BootstrapError::Incomplete(format!("it has no /{STATUS}")));
    };
    let status = store.read_content(content)?;
    let package = format!("python{}", release.python);
    installed_version(&String::from_utf8_lossy(&status), &package)
        .ok_or_else(|| BootstrapError::Incomplete(format!("{package} is not installed in it")))
}

fn installed_version(status: &str, package: &str) -> Option<String> {
    let stanza = status
        .split("\n\n")
        .find(|stanza| stanza.lines().any(|line| line.strip_prefix("Package: ") == Some(package)))?;
    let version = stanza.lines().find_map(|line| line.strip_prefix("Version: "))?;
    let upstream = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    upstream.split(['-', '~', '+']).next().map(str::to_owned)
}

/// Package sources, in the file where the official image of the release has them.
fn sources_file(sources: &Sources, release: &Release) -> (&'static str, String, u32) {
    if !release.has_deb822_sources {
        return ("etc/apt/sources.list", sources.lines().join("\n") + "\n", 0o644);
    }
    let stanza = |uri: &str, suites: &str| {
        let mut text = format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n");
        if let Some(keyring) = &sources.keyring {
            text.push_str(&format!("Signed-By: {}\n", keyring.display()));
        }
        text
    };
    let mut text = stanza(&sources.main_uri, &sources.main_suites.join(" "));
    if let Some((uri, suite)) = &sources.security {
        text.push('\n');
        text.push_str(&stanza(uri, suite));
    }
    let path = match release.distribution {
        Distribution::Debian => "etc/apt/sources.list.d/debian.sources",
        Distribution::Ubuntu => "etc/apt/sources.list.d/ubuntu.sources",
    };
    (path, text, 0o644)
}

fn proxy_lines(settings: &[Setting]) -> String {
    settings
        .iter()
        .filter(|setting| setting.is_for_containers())
        .map(|setting| setting.line() + "\n")
        .collect()
}

/// What of the archive's configuration can't work inside containers, in sentences.
pub(super) fn warnings(sources: &Sources, settings: &[Setting]) -> Vec<String> {
    let mut warnings = Vec::new();
    if names_loopback(&sources.main_uri) {
        warnings.push(format!(
            "the package archive {} is on this machine's loopback address, which containers can't reach: apt-get won't work in the image",
            sources.main_uri
        ));
    }
    let local =
        settings.iter().find(|setting| setting.name.ends_with("::Proxy") && names_loopback(&setting.value));
    if let Some(setting) = local {
        warnings.push(format!(
            "apt's proxy {} is on this machine's loopback address, which containers can't reach: the image does without it",
            setting.value
        ));
    }
    warnings
}

fn put_file(
    store: &Store,
    tree: &mut Tree,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> Result<(), BootstrapError> {
    let content: FileContent = store.file_content(bytes)?;
    let leaf = Leaf { metadata: Metadata::with_mode(mode), kind: LeafKind::File(content) };
    let place = tree
        .resolve(path.as_bytes())
        .ok_or_else(|| BootstrapError::Incomplete(format!("/{path} can't be reached in it")))?;
    tree.insert_leaf(&place, leaf).map_err(incomplete)?;
    Ok(())
}

fn incomplete(error: homeport_content::PathError) -> BootstrapError {
    BootstrapError::Incomplete(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_version_is_read_from_the_status_of_dpkg() {
        let status = "Package: libpython3.11\nVersion: 9\n\nPackage: python3.11\nStatus: install ok installed\n\
            Version: 3.11.2-6+deb12u6\n\nPackage: python3.12\nVersion: 1:3.12.3~rc1-1ubuntu0.5\n";
        assert_eq!(installed_version(status, "python3.11").as_deref(), Some("3.11.2"));
        assert_eq!(installed_version(status, "python3.12").as_deref(), Some("3.12.3"));
        assert_eq!(installed_version(status, "python3.13"), None);
    }
}
