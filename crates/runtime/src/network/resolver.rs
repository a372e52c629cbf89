//! What containers know of names: the machine's name servers that a container can reach.

use std::net::IpAddr;
use std::path::Path;

/// Where a machine's name servers are written, the better one first: systemd-resolved lists its real servers apart,
/// and `/etc/resolv.conf` then names only a server on the machine's loopback.
const SYSTEMD_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The content of `/etc/resolv.conf` for containers: the machine's own, without servers on its loopback, which no
/// container reaches. Has no `nameserver` line when the machine has no other server.
pub fn host_resolv_conf() -> String {
    let own = read(RESOLV_CONF);
    let for_containers = keep_reachable(&own);
    if servers(&for_containers).is_empty() && Path::new(SYSTEMD_RESOLVED).exists() {
        return keep_reachable(&read(SYSTEMD_RESOLVED));
    }
    for_containers
}

/// Whether containers can resolve names.
pub(crate) fn has_name_servers() -> bool {
    !host_name_servers().is_empty()
}

pub(super) fn host_name_servers() -> Vec<IpAddr> {
    servers(&host_resolv_conf())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn keep_reachable(resolv_conf: &str) -> String {
    let mut kept = String::new();
    for line in resolv_conf.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with("nameserver") && !server(line).is_some_and(reachable) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf.lines().filter_map(server).collect()
}

fn server(line: &str) -> Option<IpAddr> {
    line.strip_prefix("nameserver")?.trim().parse().ok()
}

/// Containers have no IPv6 way out.
fn reachable(address: IpAddr) -> bool {
    address.is_ipv4() && !address.is_loopback() && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_unreachable_servers_are_left_out_and_options_kept() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver\t192.0.2.7\nnameserver fd00::1\nsearch example.com\noptions edns0\n";
        let kept = keep_reachable(text);
        assert_eq!(kept, "nameserver\t192.0.2.7\nsearch example.com\noptions edns0\n");
        assert_eq!(servers(&kept), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }
}
