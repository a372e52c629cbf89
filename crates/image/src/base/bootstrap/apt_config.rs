//! Settings of the machine's apt that decide how archives are reached.

use tokio::process::Command;

use super::BootstrapError;

/// A setting of apt with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
}

impl Setting {
    /// As it stands in a configuration file.
    pub(super) fn line(&self) -> String {
        format!("{} \"{}\";", self.name, self.value.replace('"', "\\\""))
    }

    /// Whether it makes sense in a container too: a proxy that isn't on this machine's loopback address.
    pub(super) fn is_for_containers(&self) -> bool {
        let is_proxy = self.name.to_ascii_lowercase().contains("::proxy");
        is_proxy && !is_script(&self.name) && !names_loopback(&self.value)
    }
}

/// What the machine's apt is set to.
pub(super) async fn settings() -> Result<Vec<Setting>, BootstrapError> {
    let output = Command::new("apt-config")
        .arg("dump")
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| BootstrapError::NoProgram { program: "apt-config", package: "apt", source })?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(dump: &str) -> Vec<Setting> {
    dump.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            let value = value.strip_prefix('"')?.strip_suffix("\";")?;
            let counts = !value.is_empty() && is_about_reaching_archives(name);
            counts.then(|| Setting { name: name.to_owned(), value: value.to_owned() })
        })
        .collect()
}

fn is_about_reaching_archives(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let exact =
        ["acquire::retries", "acquire::forceipv4", "acquire::forceipv6", "acquire::check-valid-until"];
    name.starts_with("acquire::http::")
        || name.starts_with("acquire::https::")
        || exact.contains(&name.as_str())
}

fn is_script(name: &str) -> bool {
    name.to_ascii_lowercase().contains("auto")
}

/// Whether a URL's host is this machine's loopback, which containers don't share.
pub(super) fn names_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.starts_with("127.") || host.starts_with("[::1]") || host.split(':').next() == Some("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_transport_are_taken_and_no_others() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://u:p@proxy:3128\";\nAcquire::https \"\";\n\
            Acquire::https::CAInfo \"/etc/ssl/corp.pem\";\nAcquire::IndexTargets::deb::Packages \"x\";\nAcquire::Retries \"5\";\n";
        let settings = parse(dump);
        let lines: Vec<_> = settings.iter().map(Setting::line).collect();
        assert_eq!(
            lines,
            [
                "Acquire::http::Proxy \"http://u:p@proxy:3128\";",
                "Acquire::https::CAInfo \"/etc/ssl/corp.pem\";",
                "Acquire::Retries \"5\";"
            ]
        );
        let kept: Vec<_> = settings.iter().map(Setting::is_for_containers).collect();
        assert_eq!(kept, [true, false, false]);
    }

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for (url, expected) in [
            ("http://127.0.0.1:3142", true),
            ("http://localhost/debian", true),
            ("http://user@[::1]:8080/", true),
            ("http://localhost.example.org", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(names_loopback(url), expected, "{url}");
        }
    }
}
