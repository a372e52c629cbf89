//! Containers that are stopped for a moment, and what can be known of a running one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use homeport_runtime::Bind;

use crate::instance::{Instance, Running, own};

/// A container whose processes write a byte after the other to `shared/count`.
fn counting(instance: &Instance, sandbox: &homeport_runtime::Sandbox) -> (Running, std::path::PathBuf) {
    let shared = instance.directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("count"), "").unwrap();
    own(&shared, sandbox.id_map().map_or(0, |map| map.host_base));
    let script =
        "(while true; do printf x >> /shared/count; done) & while true; do printf y >> /shared/count; done";
    let mut spec = instance.script(sandbox, script);
    spec.binds.push(Bind { source: shared.clone(), target: "/shared".into(), read_only: false });
    let running = instance.start(sandbox, &spec).unwrap();
    (running, shared.join("count"))
}

fn wait_until_longer(file: &std::path::Path, than: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while file.metadata().unwrap().len() <= than {
        assert!(Instant::now() < deadline, "{} did not grow", file.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_stopped_container_does_nothing_until_the_last_who_stopped_it_lets_it_go() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let (running, count) = counting(&instance, &sandbox);
    wait_until_longer(&count, 0);
    let freezer = running.container.freezer().clone();
    for _ in 0..20 {
        freezer.freeze().unwrap();
        running.container.freezer().freeze().unwrap();
        freezer.thaw().unwrap();
        let length = count.metadata().unwrap().len();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(count.metadata().unwrap().len(), length);
        freezer.thaw().unwrap();
        wait_until_longer(&count, length);
    }
    running.container.remove().unwrap();
    assert!(freezer.freeze().is_err());
}

#[test]
fn a_stopped_container_can_be_removed_and_does_nothing_more() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let (running, count) = counting(&instance, &sandbox);
    wait_until_longer(&count, 0);
    running.container.freezer().freeze().unwrap();
    let length = count.metadata().unwrap().len();
    running.container.freezer().thaw().unwrap();
    running.container.freezer().freeze().unwrap();
    let stopped = count.metadata().unwrap().len();
    assert!(stopped >= length);
    // As after the end of this process: nobody thaws it.
    instance.runtime.recover().unwrap();
    assert_eq!(count.metadata().unwrap().len(), stopped);
    assert!(running.container.wait_blocking().is_ok());
    running.container.remove().unwrap();
}

#[test]
fn the_processes_and_the_mounts_of_a_container_are_known_while_it_runs() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let (running, count) = counting(&instance, &sandbox);
    wait_until_longer(&count, 0);
    let processes = running.container.processes();
    // Init, and two shells.
    assert!(processes.len() >= 3, "{processes:?}");
    let namespace = running.container.mount_namespace().unwrap().unwrap();
    let inode = fs::File::from(namespace).metadata().unwrap().ino();
    for process in &processes {
        let name = fs::read_link(format!("/proc/{process}/ns/mnt")).unwrap();
        assert_eq!(name.to_str(), Some(format!("mnt:[{inode}]").as_str()));
    }
    running.container.remove().unwrap();
    assert!(running.container.mount_namespace().unwrap().is_none());
    assert!(running.container.processes().is_empty());
}
