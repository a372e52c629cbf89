//! What a container sees and may do.

use std::fs;
use std::os::unix::fs::MetadataExt;

use homeport_runtime::{Bind, ExitStatus, UserNamespaces};

use crate::instance::Instance;

/// chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
/// audit_write, setfcap.
const CAPABILITIES: &str = "00000000a80425fb";

const LOOK_AROUND: &str = "
cat /proc/1/comm
ls -d /proc/[0-9]* | wc -l
grep -E '^(CapEff|CapPrm|CapBnd|CapInh|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status | tr '\\t\\n' '  '
echo
mount -t tmpfs none /tmp 2>/dev/null && echo MOUNTED
unshare -n true 2>/dev/null && echo UNSHARED
unshare -U true 2>/dev/null && echo UNSHARED
chroot / true || echo no chroot
(echo 1 > /proc/sys/kernel/printk) 2>/dev/null && echo WROTE TO PROC
(echo 1 > /sys/kernel/profiling) 2>/dev/null && echo WROTE TO SYS
for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
    (echo 1 > $group/cgroup.procs) 2>/dev/null && echo WROTE TO $group
    mkdir $group/inner 2>/dev/null && [ -e $group/inner/cgroup.procs ] && echo MADE A GROUP IN $group
done
(mknod /tmp/disk b 254 0 && : < /tmp/disk) 2>/dev/null && echo OPENED
dmesg > /dev/null 2>&1 && echo READ THE LOG
hostname evil 2>/dev/null && echo RENAMED
cat /proc/kcore /proc/keys 2>/dev/null | head -c 1 | wc -c
";

fn look_around(instance: &Instance) {
    let outcome = instance.run(LOOK_AROUND);
    let lines: Vec<&str> = outcome.stdout.lines().map(str::trim).collect();
    let [comm, processes, status, kernel_memory] = lines[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!(comm, "init");
    // Init, the shell, `ls` and `wc`.
    assert!((3..=4).contains(&processes.parse::<u32>().unwrap()), "{outcome:?}");
    for expected in [
        format!("CapEff: {CAPABILITIES}"),
        format!("CapPrm: {CAPABILITIES}"),
        format!("CapBnd: {CAPABILITIES}"),
        "CapInh: 0000000000000000".into(),
        "NoNewPrivs: 1".into(),
        "Seccomp: 2".into(),
        "SigIgn: 0000000000000000".into(),
        "SigBlk: 0000000000000000".into(),
    ] {
        assert!(status.contains(&expected), "{expected} is not in {status}");
    }
    assert_eq!(kernel_memory, "0", "{outcome:?}");
}

#[test]
fn a_container_sees_itself_alone_and_gets_no_more_rights() {
    let instance = Instance::new();
    look_around(&instance);
    let outcome = instance.run("cat /proc/self/uid_map");
    let host_base: u32 = outcome.stdout.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(host_base >= 0x4000_0000, "{outcome:?}");
}

#[test]
fn without_user_namespaces_the_rest_of_the_isolation_is_the_same() {
    let instance = Instance::with(|options| options.user_namespaces = UserNamespaces::Never);
    assert!(instance.sandbox().id_map().is_none());
    look_around(&instance);
    let outcome = instance.run("ip -o address show eth0 | wc -l; echo hi > /tmp/x; stat -c %u /tmp/x");
    assert!(outcome.stdout.ends_with("0\n") && outcome.exit.status == ExitStatus::Code(0), "{outcome:?}");
}

#[test]
fn two_containers_have_different_ids_on_the_host() {
    let instance = Instance::new();
    let (first, second) = (instance.sandbox(), instance.sandbox());
    let bases = [&first, &second].map(|sandbox| sandbox.id_map().unwrap().host_base);
    assert!(bases[0].abs_diff(bases[1]) >= 65_536, "{bases:?}");
}

#[test]
fn files_belong_to_the_mapped_user_and_the_process_has_what_was_asked_for() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let host_base = sandbox.id_map().unwrap().host_base;
    let mut spec = instance
        .script(&sandbox, "id; pwd; echo $HOME $GREETING; hostname; echo mine > /tmp/mine; ulimit -c");
    spec.user = "app".into();
    spec.workdir = "/work/new".into();
    spec.hostname = "galley".into();
    spec.env = [("GREETING".into(), "hello".into())].into();
    let outcome = instance.start(&sandbox, &spec).unwrap().finish();
    assert_eq!(
        outcome.stdout, "uid=1000(app) gid=1000(app) groups=44(video)\n/work/new\n/tmp hello\ngalley\n0\n",
        "{outcome:?}"
    );
    let made = spec.rootfs.join("tmp/mine");
    assert_eq!(fs::read_to_string(&made).unwrap(), "mine\n");
    assert_eq!(made.metadata().unwrap().uid(), host_base + 1000);
}

#[test]
fn a_bind_is_writable_only_where_that_was_asked_for() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let shared = instance.directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("given"), "content").unwrap();
    crate::instance::own(&shared, sandbox.id_map().unwrap().host_base);
    let script = "cat /__modal/fixed/given; (echo x > /__modal/fixed/new) 2>/dev/null || echo refused; echo y > /open/new";
    let mut spec = instance.script(&sandbox, script);
    for (target, read_only) in [("/__modal/fixed", true), ("/open", false)] {
        spec.binds.push(Bind { source: shared.clone(), target: target.into(), read_only });
    }
    let outcome = instance.start(&sandbox, &spec).unwrap().finish();
    assert_eq!(outcome.stdout, "contentrefused\n", "{outcome:?}");
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "y\n");
}

#[test]
fn orphans_are_reaped_and_devices_are_the_usual_ones() {
    let script = "(sleep 0.01 &) ; sleep 0.1; ps -o stat | grep -c Z; ls /dev; echo x > /dev/shm/x; echo x > /dev/null; head -c 4 /dev/urandom | wc -c";
    let outcome = Instance::new().run(script);
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words.first(), Some(&"0"), "a zombie is left: {outcome:?}");
    assert_eq!(words.last(), Some(&"4"), "{outcome:?}");
    for device in
        ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin"]
    {
        assert!(words.contains(&device), "{device} is missing: {outcome:?}");
    }
    assert_eq!(outcome.stderr, "");
}
