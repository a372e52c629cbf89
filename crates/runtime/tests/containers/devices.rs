//! Devices by the Container Device Interface, with a real device node.

use std::fs;

use homeport_runtime::UserNamespaces;

use crate::instance::Instance;

/// A node that containers don't get by default and that does nothing when opened. Often only root may open it, which must
/// then be the container's root too.
const NODE: &str = "/dev/fuse";

fn device_reaches_the_container(user_namespaces: UserNamespaces) {
    let cdi = tempfile::tempdir().unwrap();
    let library = cdi.path().join("library.so");
    fs::write(&library, "library").unwrap();
    let hooked = cdi.path().join("hooked");
    let text = format!(
        "cdiVersion: 0.6.0
kind: example.com/thing
containerEdits:
  env: [\"THING=present\"]
  hooks:
  - hookName: createRuntime
    path: /bin/sh
    args: [\"sh\", \"-c\", \"cat > {hooked}\"]
devices:
- name: \"0\"
  containerEdits:
    deviceNodes:
    - path: /dev/thing0
      hostPath: {NODE}
      permissions: rw
    mounts:
    - hostPath: {library}
      containerPath: /usr/lib/library.so
      options: [ro, nosuid, nodev, bind]
",
        hooked = hooked.display(),
        library = library.display(),
    );
    fs::write(cdi.path().join("thing.yaml"), text).unwrap();
    let instance = Instance::with(|options| {
        options.cdi_dirs = vec![cdi.path().to_owned()];
        options.user_namespaces = user_namespaces;
    });
    let script = "echo $THING; cat /usr/lib/library.so; echo; stat -c %F /dev/thing0; : <> /dev/thing0 && echo opened; (: > /usr/lib/library.so) 2>/dev/null || echo read-only";
    let outcome = instance.run_with(script, |spec| spec.devices = vec!["example.com/thing=all".into()]);
    assert_eq!(
        outcome.stdout, "present\nlibrary\ncharacter special file\nopened\nread-only\n",
        "{outcome:?}"
    );
    assert!(fs::read_to_string(&hooked).unwrap().contains("\"bundle\""));
    // Without the device, the same node can't be had: neither is it there nor may one be made and opened.
    let outcome =
        instance.run("mknod /tmp/thing c 10 229 && (: < /tmp/thing) && echo opened; ls /dev/thing0");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
}

#[test]
fn a_device_reaches_a_container_with_its_node_variables_mounts_and_hooks() {
    device_reaches_the_container(UserNamespaces::Auto);
}

#[test]
fn a_device_reaches_a_container_without_a_user_namespace() {
    device_reaches_the_container(UserNamespaces::Never);
}
