//! The machine's own settings that outgoing traffic of containers needs: forwarding, and a firewall that lets it pass.
//!
//! Both belong to the machine, so each is changed only where it must be, and set back at the end. When another instance
//! still runs on the machine, forwarding stays on.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NetworkError, link_names};
use crate::names::Names;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Turns forwarding on. The earlier value is written to the state directory first, so that it survives a crash.
pub(super) fn enable(state_dir: &Path) -> Result<(), NetworkError> {
    let before = std::fs::read_to_string(IP_FORWARD).map_err(sysctl)?;
    if before.trim() != "0" {
        return Ok(());
    }
    std::fs::write(marker(state_dir), before.trim()).map_err(sysctl)?;
    std::fs::write(IP_FORWARD, "1").map_err(sysctl)
}

/// Turns forwarding off again, if [`enable`] had turned it on and no instance is left that needs it.
pub(super) fn restore(state_dir: &Path) -> Result<(), NetworkError> {
    let marker = marker(state_dir);
    match std::fs::read_to_string(&marker) {
        Ok(before) if before == "0" => {
            let others = link_names()?
                .iter()
                .any(|link| Names::is_bridge_of_any_instance(link));
            if !others {
                std::fs::write(IP_FORWARD, "0").map_err(sysctl)?;
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(sysctl(error)),
    }
    std::fs::remove_file(&marker).map_err(sysctl)
}

fn marker(state_dir: &Path) -> PathBuf {
    state_dir.join("ip_forward")
}

fn sysctl(source: io::Error) -> NetworkError {
    NetworkError::Sysctl {
        path: IP_FORWARD.to_owned(),
        source,
    }
}

/// Where an iptables firewall drops what is forwarded (Docker sets that up, for one), lets the bridge's traffic pass:
/// a packet that one table accepts is still dropped by another's policy, so the instance's own table can't do it.
pub(super) fn admit(names: &Names) -> Result<(), NetworkError> {
    let Some(policy) = iptables(&["-S", "FORWARD"]) else {
        return Ok(());
    };
    if !policy.status.success() || !String::from_utf8_lossy(&policy.stdout).contains("-P FORWARD DROP") {
        return Ok(());
    }
    for rule in exceptions(names) {
        let arguments: Vec<&str> = ["-w", "-I", "FORWARD"]
            .into_iter()
            .chain(rule.iter().map(String::as_str))
            .collect();
        let Some(added) = iptables(&arguments) else {
            return Ok(());
        };
        if !added.status.success() {
            return Err(NetworkError::Firewall {
                arguments: arguments.join(" "),
                message: String::from_utf8_lossy(&added.stderr).trim().to_owned(),
            });
        }
    }
    Ok(())
}

/// Takes back what [`admit`] added.
pub(super) fn dismiss(names: &Names) -> Result<(), NetworkError> {
    for rule in exceptions(names) {
        // A crash may have left the same rule several times; the first refusal says that none is left.
        loop {
            let arguments: Vec<&str> = ["-w", "-D", "FORWARD"]
                .into_iter()
                .chain(rule.iter().map(String::as_str))
                .collect();
            match iptables(&arguments) {
                Some(removed) if removed.status.success() => {}
                _ => break,
            }
        }
    }
    Ok(())
}

fn exceptions(names: &Names) -> [Vec<String>; 2] {
    let bridge = names.bridge();
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [
        words(format!("-i {bridge} -j ACCEPT")),
        words(format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")),
    ]
}

/// `None` where there is no iptables, and so no firewall that it could have set up.
fn iptables(arguments: &[&str]) -> Option<std::process::Output> {
    Command::new("iptables")
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .ok()
}
