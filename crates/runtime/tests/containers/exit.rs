//! Every way in which a container ends reaches the caller.

use std::path::Path;
use std::time::{Duration, Instant};

use homeport_runtime::{Exit, ExitStatus, Limits};

use crate::instance::Instance;

/// Waits until the script has made this file.
fn wait_for(file: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} was not made", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn output_and_exit_code_of_a_command_are_its_own() {
    let outcome = Instance::new().run("echo out; echo err >&2; exit 3");
    assert_eq!(outcome.exit.status, ExitStatus::Code(3), "{outcome:?}");
    assert!(!outcome.exit.out_of_memory);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_command_that_kills_itself_is_reported_with_its_signal() {
    let instance = Instance::new();
    for signal in [6, 9, 11] {
        let outcome = instance.run(&format!("kill -{signal} $$"));
        let expected = Exit { status: ExitStatus::Signal(signal), out_of_memory: false };
        assert_eq!(outcome.exit, expected, "{outcome:?}");
    }
}

#[test]
fn a_command_that_is_not_there_ends_with_127() {
    let outcome = Instance::new().run_with("", |spec| spec.argv = vec!["/no/such/program".into()]);
    assert_eq!(outcome.exit.status, ExitStatus::Code(127), "{outcome:?}");
    assert!(outcome.stderr.contains("/no/such/program"), "{outcome:?}");
}

#[test]
fn a_signal_reaches_the_command_and_a_kill_ends_its_children_too() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let script = instance
        .script(&sandbox, "trap 'echo bye; exit 5' INT; : > /tmp/ready; while :; do sleep 0.01; done");
    let running = instance.start(&sandbox, &script).unwrap();
    wait_for(&script.rootfs.join("tmp/ready"));
    running.container.signal(2).unwrap();
    let outcome = running.finish();
    assert_eq!(outcome.exit.status, ExitStatus::Code(5), "{outcome:?}");
    assert_eq!(outcome.stdout, "bye\n");

    let sandbox = instance.sandbox();
    let script = instance
        .script(&sandbox, "trap '' TERM INT HUP; (trap '' TERM INT HUP; sleep 1000) & : > /tmp/ready; wait");
    let running = instance.start(&sandbox, &script).unwrap();
    wait_for(&script.rootfs.join("tmp/ready"));
    running.container.signal(9).unwrap();
    // The output ends only when the last process that holds it is gone.
    assert_eq!(running.finish().exit.status, ExitStatus::Signal(9));
}

#[test]
fn memory_over_the_limit_is_told_from_other_kills() {
    let instance = Instance::new();
    let limited = |spec: &mut homeport_runtime::ContainerSpec| {
        spec.limits = Limits { memory_bytes: 48 << 20, ..Limits::default() };
    };
    let outcome = instance.run_with("exec dd if=/dev/zero of=/dev/null bs=400M count=1", limited);
    let expected = Exit { status: ExitStatus::Signal(9), out_of_memory: true };
    assert_eq!(outcome.exit, expected, "{outcome:?}");
    let outcome = instance.run_with("exec dd if=/dev/zero of=/dev/null bs=4M count=1", limited);
    let expected = Exit { status: ExitStatus::Code(0), out_of_memory: false };
    assert_eq!(outcome.exit, expected, "{outcome:?}");
}

#[test]
fn processes_over_the_limit_are_refused() {
    let script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let outcome = Instance::new().run_with(script, |spec| spec.limits.pids = 20);
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");
    assert!(!outcome.stdout.contains("all"), "{outcome:?}");
}

#[test]
fn the_share_of_processor_time_is_limited() {
    let script = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let outcome = Instance::new().run_with(script, |spec| spec.limits.milli_cpu = 250);
    assert_eq!(outcome.stdout.split_whitespace().next(), Some("25000"), "{outcome:?}");
}

#[test]
fn several_can_wait_at_a_time_and_again_after_the_end() {
    let instance = Instance::new();
    let sandbox = instance.sandbox();
    let running = instance.start(&sandbox, &instance.script(&sandbox, "sleep 0.2; exit 4")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let container = &running.container;
    runtime.block_on(async {
        let early = tokio::time::timeout(Duration::from_millis(1), container.wait()).await;
        assert!(early.is_err(), "it can't have ended: {early:?}");
        let (first, second) = tokio::join!(container.wait(), container.wait());
        assert_eq!(first.unwrap().status, ExitStatus::Code(4));
        assert_eq!(second.unwrap().status, ExitStatus::Code(4));
        container.remove().unwrap();
        assert_eq!(container.wait().await.unwrap().status, ExitStatus::Code(4));
    });
    running.finish();
}
