//! What can't be started is refused with a word on why, and leaves nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use homeport_runtime::{Bind, ContainerSpec, Sandbox};

use crate::instance::Instance;

fn refused(instance: &Instance, sandbox: &Sandbox, change: impl FnOnce(&mut ContainerSpec)) -> String {
    let mut spec = instance.script(sandbox, "true");
    change(&mut spec);
    match instance.start(sandbox, &spec) {
        Ok(running) => panic!("it started: {:?}", running.finish()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_specification_that_makes_no_sense_is_refused_before_anything_is_made() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let message = refused(&instance, &sandbox, |spec| spec.user = "ghost".into());
    assert!(message.contains("the user `ghost` isn't in the image's /etc/passwd"), "{message}");
    let message = refused(&instance, &sandbox, |spec| spec.id = "../x".into());
    assert!(message.contains("its id"), "{message}");
    let message = refused(&instance, &sandbox, |spec| spec.argv.clear());
    assert!(message.contains("no command"), "{message}");
    let message = refused(&instance, &sandbox, |spec| drop(spec.env.insert("A=B".into(), String::new())));
    assert!(message.contains("`A=B`"), "{message}");
    let message = refused(&instance, &sandbox, |spec| spec.env = [("A".into(), "x\0y".into())].into());
    assert!(message.contains("zero byte"), "{message}");
    let message = refused(&instance, &sandbox, |spec| {
        spec.binds = vec![Bind { source: "/no/such/file".into(), target: "/x".into(), read_only: true }];
    });
    assert!(message.contains("/no/such/file"), "{message}");
    let message = refused(&instance, &sandbox, |spec| spec.devices = vec!["example.com/thing=0".into()]);
    assert!(message.contains("no device `example.com/thing=0`"), "{message}");
    let bundles = fs::read_dir(instance.directory.path().join("runtime/bundles")).unwrap();
    assert_eq!(bundles.count(), 0);
}

#[test]
fn a_root_that_the_containers_ids_cannot_reach_is_named() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    if sandbox.id_map().is_none() {
        println!("not tested: this machine has no user namespaces");
        return;
    }
    fs::set_permissions(instance.directory.path(), Permissions::from_mode(0o700)).unwrap();
    let message = refused(&instance, &sandbox, |_| {});
    let directory = instance.directory.path().display().to_string();
    assert!(message.contains(&directory) && message.contains("chmod o+x"), "{message}");
}

#[test]
fn a_failure_of_the_oci_runtime_carries_its_own_words() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    // A file stands where the mount needs a directory.
    let message = refused(&instance, &sandbox, |spec| {
        let proc = spec.rootfs.join("proc");
        fs::write(&proc, "").unwrap();
    });
    assert!(message.contains("`runc run` failed") && message.contains("proc"), "{message}");
    let bundles = fs::read_dir(instance.directory.path().join("runtime/bundles")).unwrap();
    assert_eq!(bundles.count(), 0);
    // The sandbox is as good as before.
    let running = instance.start(&sandbox, &instance.script(&sandbox, "echo fine")).unwrap();
    assert_eq!(running.finish().stdout, "fine\n");
}

#[test]
fn an_id_in_use_is_refused_and_its_container_goes_on() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let first = instance.script(&sandbox, "read line; echo done");
    let running = instance.start(&sandbox, &first).unwrap();
    let other = instance.sandbox();
    let message = refused(&instance, &other, |spec| spec.id.clone_from(&first.id));
    assert!(message.contains("already exists"), "{message}");
    assert_eq!(running.finish().stdout, "done\n");
}
