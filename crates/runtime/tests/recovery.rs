//! What a killed process left behind is gone after recovery, and nothing else is.

#![allow(clippy::unwrap_used)]

#[path = "containers/instance.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod instance;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use homeport_runtime::{ContainerSpec, Runtime, RuntimeOptions};
use instance::Instance;

/// Set for the process that is killed: the directory of its instance.
const CRASH_DIRECTORY: &str = "HOMEPORT_TEST_CRASH_DIRECTORY";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Everything on the machine that carries the instance's tag, and mounts of its directory.
fn traces(tag: &str, directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/class/net").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.contains(tag) {
            found.push(format!("link {name}"));
        }
    }
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
    for table in String::from_utf8(tables).unwrap().lines() {
        if table.contains(tag) {
            found.push(table.to_owned());
        }
    }
    let groups = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{tag}*")])
        .output()
        .unwrap();
    found.extend(String::from_utf8(groups.stdout).unwrap().lines().map(|group| format!("cgroup {group}")));
    let directory = directory.to_str().unwrap();
    for mount in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        if mount.contains(directory) {
            found.push(format!("mount {mount}"));
        }
    }
    found
}

/// The tag in the names of the instance that a sandbox belongs to: its bridge has the first address of the subnet.
fn tag_of_bridge(address: &str) -> String {
    let links = Command::new("ip").args(["-o", "-4", "address"]).output().unwrap().stdout;
    let links = String::from_utf8(links).unwrap();
    let line = links.lines().find(|line| line.contains(&format!(" {address}/"))).unwrap();
    let bridge = line.split_whitespace().nth(1).unwrap();
    bridge.strip_prefix("hp").unwrap().strip_suffix("br").unwrap().to_owned()
}

fn gateway(sandbox: &homeport_runtime::Sandbox) -> String {
    let [a, b, c, _] = sandbox.address().octets();
    format!("{a}.{b}.{}.1", c & 0xf0)
}

fn other_instances_run() -> bool {
    fs::read_dir("/sys/class/net").unwrap().any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.starts_with("hp") && name.ends_with("br")
    })
}

fn crash_options(directory: &Path) -> RuntimeOptions {
    RuntimeOptions::new(directory.join("runtime"), format!("crash-{}", directory.display()))
}

#[test]
fn recovery_after_a_killed_process_and_a_clean_end_leave_nothing() {
    let forwarding = fs::read_to_string(IP_FORWARD).unwrap();
    let alone = !other_instances_run();
    recovery_after_a_killed_process();
    clean_end();
    if alone && !other_instances_run() {
        assert_eq!(fs::read_to_string(IP_FORWARD).unwrap(), forwarding);
    } else {
        println!("forwarding was not compared: another instance runs on this machine");
    }
}

fn recovery_after_a_killed_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_that_is_killed", "--ignored", "--nocapture"])
        .env(CRASH_DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .find_map(|line| line.unwrap().split_once("running behind ").map(|(_, gateway)| gateway.to_owned()))
        .unwrap();
    let tag = tag_of_bridge(&ready);
    assert!(matches!(
        Runtime::open(crash_options(directory.path())),
        Err(homeport_runtime::OpenError::InUse(_))
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    let left = traces(&tag, directory.path()).join("\n");
    for kind in ["link", "table", "cgroup"] {
        assert!(left.contains(kind), "the crash left no {kind} to recover from:\n{left}");
    }

    let runtime = Runtime::open(crash_options(directory.path())).unwrap();
    let recovered = runtime.recover().unwrap();
    // The container's link goes with its last process, so it may be gone before the bridge is.
    assert!(recovered.containers == 1 && recovered.links >= 1, "{recovered:?}");
    assert!(recovered.processes >= 2, "init and its command: {recovered:?}");
    assert_eq!(traces(&tag, directory.path()), Vec::<String>::new());
    assert_eq!(runtime.recover().unwrap(), homeport_runtime::Recovered::default());
}

fn clean_end() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let tag = tag_of_bridge(&gateway(&sandbox));
    let running = instance.start(&sandbox, &instance.script(&sandbox, "exec sleep 1000")).unwrap();
    assert!(!traces(&tag, instance.directory.path()).is_empty());
    instance.runtime.shutdown().unwrap();
    assert_eq!(traces(&tag, instance.directory.path()), Vec::<String>::new());
    // Its exit is known although the container was ended from outside.
    running.container.wait_blocking().unwrap();
    drop(running);
    drop(sandbox);
    // The runtime can be used again, and a container that is only dropped leaves nothing either.
    let sandbox = instance.sandbox();
    let running = instance.start(&sandbox, &instance.script(&sandbox, "exit 0")).unwrap();
    running.finish();
    drop(sandbox);
    let idle = traces(&tag, instance.directory.path());
    let sandbox = instance.sandbox();
    let running = instance.start(&sandbox, &instance.script(&sandbox, "exec sleep 1000")).unwrap();
    assert_ne!(traces(&tag, instance.directory.path()), idle);
    drop(running);
    drop(sandbox);
    assert_eq!(traces(&tag, instance.directory.path()), idle);
    let directory = instance.directory.path().to_owned();
    drop(instance);
    assert_eq!(traces(&tag, &directory), Vec::<String>::new());
}

#[test]
#[ignore = "run by the recovery test, which kills it"]
fn process_that_is_killed() {
    let directory = std::env::var_os(CRASH_DIRECTORY).unwrap();
    let directory = Path::new(&directory);
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let runtime = Runtime::open(crash_options(directory)).unwrap();
    let sandbox = runtime.sandbox("crash").unwrap();
    let rootfs = directory.join("rootfs");
    instance::make_rootfs(&rootfs, &sandbox);
    let null = || fs::File::create("/dev/null").unwrap().into();
    let stdio = homeport_runtime::Stdio { stdin: None, stdout: null(), stderr: null() };
    let spec = ContainerSpec {
        id: "crash".into(),
        rootfs,
        argv: ["/bin/sh", "-c", "sleep 1000; true"].map(str::to_owned).to_vec(),
        ..ContainerSpec::default()
    };
    let container = runtime.start(&sandbox, &spec, stdio).unwrap();
    println!("running behind {}", gateway(&sandbox));
    std::io::stdout().flush().unwrap();
    container.wait_blocking().unwrap();
}
