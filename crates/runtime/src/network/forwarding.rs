//! The machine's own settings that outgoing traffic of containers needs: forwarding, and a firewall that lets it pass.
//!
//! Both belong to the machine, so each is changed only where it must be, and set back at the end. Several instances may run
//! on the machine: the last one to end turns forwarding off.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::NetworkError;
use super::netlink::link_aliases;
use crate::names::Names;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The alias of the bridge of an instance that knows that forwarding was off before.
pub(super) const FORWARDING_WAS_OFF: &str = "homeport: forwarding was off";

/// Whether forwarding was off before the first instance of this machine turned it on. If so, that is written to the state
/// directory, so that it survives a crash.
pub(super) fn was_off(state_dir: &Path) -> Result<bool, NetworkError> {
    // In this order: an instance that ends turns forwarding off before its bridge goes.
    let by_another = another_instance_turned_it_on()?;
    let off = std::fs::read_to_string(IP_FORWARD).map_err(sysctl)?.trim() == "0";
    if by_another || off {
        std::fs::write(marker(state_dir), "0").map_err(sysctl)?;
    }
    Ok(by_another || off)
}

/// Turns forwarding on. To be called when the bridge is there, so that no other instance turns it off afterwards.
pub(super) fn turn_on() -> Result<(), NetworkError> {
    std::fs::write(IP_FORWARD, "1").map_err(sysctl)
}

/// Turns forwarding off again, if it was off at first and no other instance needs it. To be called while the own bridge, if
/// any, is still there.
pub(super) fn restore(names: &Names, state_dir: &Path) -> Result<(), NetworkError> {
    let marker = marker(state_dir);
    if !marker.exists() {
        return Ok(());
    }
    let others = link_aliases()?
        .iter()
        .any(|(link, _)| Names::is_bridge_of_any_instance(link) && !names.owns_link(link));
    // The others know as well, and the last one turns it off.
    if !others {
        std::fs::write(IP_FORWARD, "0").map_err(sysctl)?;
    }
    std::fs::remove_file(&marker).map_err(sysctl)
}

/// Each instance that turned forwarding on, or found it turned on by another, says so at its bridge.
fn another_instance_turned_it_on() -> Result<bool, NetworkError> {
    Ok(link_aliases()?.iter().any(|(link, alias)| {
        Names::is_bridge_of_any_instance(link) && alias.as_deref() == Some(FORWARDING_WAS_OFF)
    }))
}

fn marker(state_dir: &Path) -> PathBuf {
    state_dir.join("ip_forward")
}

fn sysctl(source: io::Error) -> NetworkError {
    NetworkError::Sysctl { path: IP_FORWARD.to_owned(), source }
}

/// Where an iptables firewall drops what is forwarded (Docker sets that up, for one), lets the bridge's traffic pass:
/// a packet that one table accepts is still dropped by another's policy, so the instance's own table can't do it.
/// What is added is written down first, so that it can be taken back after a crash.
pub(super) fn admit(names: &Names, nft: &Path, state_dir: &Path) -> Result<(), NetworkError> {
    let Some(program) = dropping_firewall(nft) else {
        return Ok(());
    };
    std::fs::write(exceptions_file(state_dir), program).map_err(sysctl)?;
    for rule in exceptions(names) {
        let arguments = format!("-w -I FORWARD {rule}");
        let added = iptables(program, &arguments);
        let message = match added {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(NetworkError::Firewall { arguments, message });
    }
    Ok(())
}

/// Takes back what [`admit`] added.
pub(super) fn dismiss(names: &Names, state_dir: &Path) -> Result<(), NetworkError> {
    let file = exceptions_file(state_dir);
    let program = match std::fs::read_to_string(&file) {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(sysctl(error)),
    };
    for rule in exceptions(names) {
        // A crash may have left the same rule several times; the first refusal says that none is left.
        while iptables(&program, &format!("-w -D FORWARD {rule}")).is_ok_and(|output| output.status.success())
        {
        }
    }
    std::fs::remove_file(&file).map_err(sysctl)
}

/// The program for the firewall that drops forwarded packets by default. Neither program is asked where it has no table:
/// asking alone would make one.
fn dropping_firewall(nft: &Path) -> Option<&'static str> {
    let chain = Command::new(nft)
        .args(["list", "chain", "ip", "filter", "FORWARD"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    if chain.status.success() && String::from_utf8_lossy(&chain.stdout).contains("policy drop") {
        return Some("iptables");
    }
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if !legacy.lines().any(|table| table == "filter") {
        return None;
    }
    let policy = iptables("iptables-legacy", "-S FORWARD").ok()?;
    String::from_utf8_lossy(&policy.stdout).contains("-P FORWARD DROP").then_some("iptables-legacy")
}

fn exceptions(names: &Names) -> [String; 2] {
    let bridge = names.bridge();
    [
        format!("-i {bridge} -j ACCEPT"),
        format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ]
}

fn exceptions_file(state_dir: &Path) -> PathBuf {
    state_dir.join("firewall")
}

fn iptables(program: &str, arguments: &str) -> io::Result<Output> {
    Command::new(program).args(arguments.split(' ')).stdin(Stdio::null()).output()
}
