//! Where base images come from: a registry that can be reached, else a bootstrap from Debian packages.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::report::Check;

/// The registry of images that are named without one.
const REGISTRY: (&str, u16) = ("registry-1.docker.io", 443);
const PATIENCE: Duration = Duration::from_secs(4);
const NAME: &str = "base-image source";

pub(super) fn base_images(bootstrap: bool) -> Check {
    let (host, port) = proxy().unwrap_or_else(|| (REGISTRY.0.to_owned(), REGISTRY.1));
    let through =
        if host == REGISTRY.0 { String::new() } else { format!(" through the proxy {host}:{port}") };
    match (reachable(host, port), bootstrap && has_apt_sources()) {
        (true, _) => Check::ok(NAME, format!("the registry {} answers{through}", REGISTRY.0)),
        (false, true) => Check::warn(
            NAME,
            format!("the registry {} doesn't answer{through}; Debian can be bootstrapped", REGISTRY.0),
            "images from registries; debian_slim has only the Python version that Debian has",
            "open the network to the registry, or set HTTPS_PROXY",
        ),
        (false, false) => Check::missing(
            NAME,
            format!("the registry {} doesn't answer{through}, and nothing to bootstrap with", REGISTRY.0),
            "any image",
            "open the network to the registry, or: apt-get install mmdebstrap",
        ),
    }
}

/// Whether something accepts connections there. Name resolution has no time limit of its own, so all of it
/// happens on a thread that is not waited for beyond the patience.
fn reachable(host: String, port: u16) -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let connected = (host.as_str(), port).to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
        });
        // Nobody may be waiting any more.
        let _ = sender.send(connected);
    });
    receiver.recv_timeout(PATIENCE).unwrap_or(false)
}

/// Host and port of the proxy for HTTPS, if there is one.
fn proxy() -> Option<(String, u16)> {
    let value = ["HTTPS_PROXY", "https_proxy"].iter().find_map(|name| std::env::var(name).ok())?;
    parse_proxy(&value)
}

fn parse_proxy(value: &str) -> Option<(String, u16)> {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 80),
    };
    (!host.is_empty()).then(|| (host.trim_matches(['[', ']']).to_owned(), port))
}

fn has_apt_sources() -> bool {
    let has_entries =
        |directory: &Path| std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    Path::new("/etc/apt/sources.list").exists() || has_entries(Path::new("/etc/apt/sources.list.d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_in_their_usual_forms() {
        let parsed = |value| parse_proxy(value).unwrap();
        assert_eq!(parsed("http://proxy:3128"), ("proxy".into(), 3128));
        assert_eq!(parsed("http://u:p@proxy:3128/"), ("proxy".into(), 3128));
        assert_eq!(parsed("proxy"), ("proxy".into(), 80));
        assert_eq!(parse_proxy(""), None);
    }

    #[test]
    fn a_port_that_nobody_serves_is_not_reachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(reachable("127.0.0.1".into(), port));
        drop(listener);
        assert!(!reachable("127.0.0.1".into(), port));
    }
}
