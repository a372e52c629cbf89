//! What a container reaches, and what reaches it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use homeport_runtime::{Sandbox, host_resolv_conf};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::instance::Instance;

/// Says `hello` and the peer's address to everybody who connects.
fn greet(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = writeln!(stream, "hello {peer}");
        }
    });
}

fn run_in(instance: &Instance, sandbox: &Sandbox, script: &str) -> String {
    let spec = instance.script(sandbox, script);
    instance.start(sandbox, &spec).unwrap().finish().stdout
}

#[test]
fn a_listener_inside_is_reached_from_inside_alone() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let listener = sandbox.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    greet(listener);
    let said = run_in(&instance, &sandbox, &format!("nc -w 5 127.0.0.1 {port} < /dev/null"));
    assert_eq!(said, "hello 127.0.0.1\n");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    let taken = sandbox.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap_err();
    assert!(taken.to_string().contains(&port.to_string()), "{taken}");
}

#[test]
fn the_machine_and_other_containers_are_out_of_reach() {
    let instance = Instance::new();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    greet(listener);
    let (first, second) = (instance.sandbox(), instance.sandbox());
    let neighbour = first.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7000))).unwrap();
    greet(neighbour);
    let script = format!(
        "gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); echo \"[$gateway]\"
         nc -w 1 127.0.0.1 {port} < /dev/null
         nc -w 1 $gateway {port} < /dev/null
         nc -w 1 {neighbour} 7000 < /dev/null
         ping -c 1 -W 1 $gateway > /dev/null && echo pinged
         ping -c 1 -W 1 {neighbour} > /dev/null && echo pinged
         ip -6 address show scope global; echo end",
        neighbour = first.address(),
    );
    let [a, b, c, _] = second.address().octets();
    let said = run_in(&instance, &second, &script);
    assert_eq!(said, format!("[{a}.{b}.{}.1]\nend\n", c & 0xf0));
    // The neighbour does answer, to its own side.
    let said = run_in(&instance, &first, &format!("nc -w 5 {} 7000 < /dev/null", first.address()));
    assert_eq!(said, format!("hello {}\n", first.address()));
}

#[test]
fn names_are_resolved_by_the_machines_servers_and_the_own_name_is_known() {
    let outcome = Instance::new().run_with("cat /etc/resolv.conf; cat /etc/hostname; nslookup -h 2>/dev/null; ping -c 1 -W 1 galley | head -1; echo 1 >> /etc/hosts && echo writable", |spec| {
        spec.hostname = "galley".into();
    });
    assert!(outcome.stdout.starts_with(&format!("{}galley\n", host_resolv_conf())), "{outcome:?}");
    assert!(outcome.stdout.contains("PING galley (10.231."), "{outcome:?}");
    assert!(outcome.stdout.ends_with("writable\n"), "{outcome:?}");
}

/// A network namespace beside this machine's, linked to it, that stands for the world.
struct Outside {
    namespace: String,
    link: String,
    host: Ipv4Addr,
    address: Ipv4Addr,
}

impl Outside {
    fn new() -> Outside {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() % 10_000 * 10 + NEXT.fetch_add(1, Ordering::Relaxed);
        let outside = Outside {
            namespace: format!("outside{id}"),
            link: format!("out{id}"),
            host: Ipv4Addr::new(198, 18, 77, 1),
            address: Ipv4Addr::new(198, 18, 77, 2),
        };
        let Outside { namespace, link, host, address } = &outside;
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {link} type veth peer name world netns {namespace}"));
        ip(&format!("address add {host}/30 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {namespace} address add {address}/30 dev world"));
        ip(&format!("-n {namespace} link set world up"));
        ip(&format!("-n {namespace} route add 10.231.0.0/16 via {host}"));
        outside
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.link]).status();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// A container reaches the outside, seen there with the machine's address, and is not reached from there.
fn traffic_goes_out_alone() {
    let instance = Instance::new();
    let outside = Outside::new();
    let sandbox = instance.sandbox();
    let world = outside.within(|| TcpListener::bind((outside.address, 8000)).unwrap());
    greet(world);
    let said = run_in(&instance, &sandbox, &format!("nc -w 5 {} 8000 < /dev/null", outside.address));
    assert_eq!(said, format!("hello {}\n", outside.host));
    greet(sandbox.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9000))).unwrap());
    let target = SocketAddr::from((sandbox.address(), 9000));
    let reached = outside.within(|| {
        let mut text = String::new();
        TcpStream::connect_timeout(&target, Duration::from_millis(700))
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map(|_| text)
    });
    assert!(reached.is_err(), "the outside opened a connection: {reached:?}");
}

#[test]
fn the_outside_is_reached_through_masquerading_and_reaches_nothing_itself() {
    traffic_goes_out_alone();
}

#[test]
fn a_firewall_that_drops_forwarded_packets_gets_an_exception_and_loses_it_again() {
    if Command::new("iptables").arg("--version").output().is_err() {
        println!("NOT TESTED: iptables is missing, install the package iptables");
        return;
    }
    // The machine's own firewall stays as it is: threads and programs that this thread starts are in its network.
    thread::spawn(|| {
        // SAFETY: only this thread's network changes; its descriptors are not shared out.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        let firewall = |arguments: &str| {
            let output = Command::new("iptables").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "iptables {arguments}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        ip("link set lo up");
        firewall("-P FORWARD DROP");
        traffic_goes_out_alone();
        assert_eq!(firewall("-S FORWARD"), "-P FORWARD DROP\n");
    })
    .join()
    .unwrap();
}
