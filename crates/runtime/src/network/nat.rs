//! The instance's nft table: masquerading, and what containers may not reach.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use super::NetworkError;
use super::address::Subnet;
use crate::names::Names;

/// Loads the table, in the place of one of the same name.
pub(super) fn load_table(
    nft: &Path,
    names: &Names,
    subnet: Subnet,
    name_servers: &[IpAddr],
) -> Result<(), NetworkError> {
    run_nft(nft, names, "load", &rules(names, subnet, name_servers))
}

/// Removes the table, if it is there.
pub(super) fn remove_table(nft: &Path, names: &Names) -> Result<(), NetworkError> {
    // Declaring it first makes the removal of a table that isn't there no error.
    let table = names.table();
    let rules = format!("table inet {table}\ndelete table inet {table}\n");
    run_nft(nft, names, "delete", &rules)
}

fn rules(names: &Names, subnet: Subnet, name_servers: &[IpAddr]) -> String {
    let (table, bridge) = (names.table(), names.bridge());
    let servers: Vec<Ipv4Addr> = name_servers
        .iter()
        .filter_map(|server| match server {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
        .collect();
    let mut allow_names = String::new();
    for server in servers {
        // A name server of the machine's resolv.conf may be the machine itself, by one of its own addresses.
        let _ = write!(
            allow_names,
            "\n        iifname \"{bridge}\" ip daddr {server} udp dport 53 accept\
             \n        iifname \"{bridge}\" ip daddr {server} tcp dport 53 accept"
        );
    }
    format!(
        "table inet {table}
delete table inet {table}
table inet {table} {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname \"{bridge}\" ct state established,related accept{allow_names}
        iifname \"{bridge}\" drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname \"{bridge}\" oifname \"{bridge}\" drop
        iifname \"{bridge}\" meta nfproto ipv6 drop
        iifname \"{bridge}\" ip saddr != {subnet} drop
        oifname \"{bridge}\" ct state established,related accept
        oifname \"{bridge}\" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != \"{bridge}\" masquerade
    }}
}}
"
    )
}

fn run_nft(nft: &Path, names: &Names, action: &'static str, rules: &str) -> Result<(), NetworkError> {
    let missing = |source| NetworkError::NftMissing { program: nft.display().to_string(), source };
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    // When it ends before reading everything, its own message says why.
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(rules.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    Err(NetworkError::Nft {
        action,
        table: names.table(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
