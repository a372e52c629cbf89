//! Tasks, from the order to the end.

use std::collections::HashMap;

use homeport_proto::worker::order::Order as OrderKind;
use homeport_proto::worker::task_ended::End;
use homeport_proto::worker::{File, Signal};

use crate::machine::{Machine, memory, signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_runs_with_its_files_and_environment_and_reaches_control_as_itself() {
    let (machine, link) = Machine::start().await;
    assert_eq!(link.hello.worker_id, "w-1");
    assert!(link.hello.milli_cpu >= 1000 && link.hello.memory_bytes > 1 << 28, "{:?}", link.hello);

    let script =
        "cat /__modal/args.bin; echo; echo $NAME; cat $SSL_CERT_FILE; echo; echo index=$PIP_INDEX_URL; pwd
        wget -q -O - --header 'x-homeport-task: other' http://127.0.0.1:10101/blobs/b-1
        wget -q -O - http://127.0.0.1:10101/metrics 2>&1 | tail -1
        (echo x > /__modal/args.bin) 2>/dev/null || echo read-only; echo oops >&2; exit 3";
    let mut order = machine.task("ta-1", script);
    order.files = vec![File { path: "/__modal/args.bin".into(), data: b"arguments".as_slice().into() }];
    order.env = HashMap::from([("NAME".to_owned(), "value".to_owned())]);
    order.workdir = "/root".into();
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;

    assert_eq!(story.task().end, Some(End::ExitCode(3)), "{story:?}");
    assert_eq!(story.stderr, "oops\n");
    let lines: Vec<&str> = story.stdout.lines().collect();
    assert_eq!(lines[..5], ["arguments", "value", "certificates", "index=", "/root"], "{story:?}");
    assert_eq!(lines[5], "b-1 ta-1 - worker-word");
    assert!(lines[6].contains("403"), "{story:?}");
    assert_eq!(lines[7], "read-only");
    let mut stages = story.stages.clone();
    stages.sort();
    assert_eq!(stages, ["mount", "network", "runtime"]);
    assert_eq!(story.task().snapshot, "");
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_holds_exactly_what_the_process_wrote() {
    let (machine, link) = Machine::start().await;
    let mut layer = homeport_content::Tree::new(homeport_content::Metadata::with_mode(0o755));
    let leaf = homeport_content::Leaf {
        metadata: homeport_content::Metadata::with_mode(0o644),
        kind: homeport_content::LeafKind::File(homeport_content::FileContent::Inline(
            b"client".as_slice().into(),
        )),
    };
    layer.insert_leaf(b"pkg/client.py", leaf).unwrap();
    let layer = machine.store.put_tree(&layer).unwrap();

    let script =
        "cat /pkg/client.py; mkdir /data; echo new > /data/new; echo app >> /etc/group; rm /etc/passwd
        echo cache > /pkg/cache; echo hidden > /__modal/hidden; mkdir -p /run/secrets; echo s > /run/secrets/s
        echo host >> /etc/hosts; chown 1000:1000 /data/new";
    let mut order = machine.task("ta-1", script);
    order.layers.insert(0, layer.to_string());
    order.files = vec![File { path: "/__modal/args.bin".into(), data: b"arguments".as_slice().into() }];
    order.commit_on_success = true;
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;

    let ended = story.task();
    assert_eq!((&ended.end, ended.commit_error.as_str()), (&Some(End::ExitCode(0)), ""), "{story:?}");
    assert_eq!(story.stdout, "client");
    let added = machine.added(&ended.snapshot);
    let mut paths: Vec<&str> = added.keys().map(|path| path.trim_matches('/')).collect();
    paths.sort();
    assert_eq!(
        paths.iter().filter(|path| !path.starts_with("run")).collect::<Vec<_>>(),
        [&"data", &"data/new"],
        "{paths:?}"
    );
    assert!(!paths.contains(&"run/secrets/s"), "{paths:?}");
    let tree = machine.tree(&ended.snapshot);
    assert_eq!(machine.read(&tree, b"etc/group"), "root:x:0:\napp:x:1000:\napp\n");
    assert_eq!(machine.read(&tree, b"data/new"), "new\n");
    assert!(tree.get(b"etc/passwd").is_none());
    let new = tree.get(b"data/new").unwrap().metadata().clone();
    assert_eq!((new.uid, new.gid), (1000, 1000));
    assert_eq!(tree.get(b"data").unwrap().metadata().uid, 0);
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_process_commits_nothing() {
    let (machine, link) = Machine::start().await;
    let mut order = machine.task("ta-1", "echo x > /new; exit 1");
    order.commit_on_success = true;
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;
    assert_eq!((story.task().end.clone(), story.task().snapshot.as_str()), (Some(End::ExitCode(1)), ""));
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupt_is_graceful_and_kill_is_not() {
    let (machine, link) = Machine::start().await;
    let script = "trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.02; done";
    link.order(OrderKind::StartTask(machine.task("ta-1", script))).await;
    link.until_said("ta-1", "ready").await;
    let traces = machine.traces();
    for kind in ["mount", "directory", "namespace"] {
        assert!(traces.iter().any(|trace| trace.starts_with(kind)), "{traces:?}");
    }
    link.order(signal("ta-1", Signal::Interrupt)).await;
    let story = link.until_ended("ta-1").await;
    assert_eq!((story.stdout.as_str(), &story.task().end), ("bye\n", &Some(End::ExitCode(7))));

    let script = "trap '' INT TERM; (trap '' INT TERM; sleep 1000) & echo ready; wait";
    link.order(OrderKind::StartTask(machine.task("ta-2", script))).await;
    link.until_said("ta-2", "ready").await;
    link.order(signal("ta-2", Signal::Kill)).await;
    assert_eq!(link.until_ended("ta-2").await.task().end, Some(End::Signal(9)));

    // It is no error that it has ended already, or never was.
    link.order(signal("ta-2", Signal::Kill)).await;
    link.order(signal("ta-never", Signal::Interrupt)).await;
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_before_the_start_prevents_it() {
    let (machine, link) = Machine::start().await;
    link.order(OrderKind::StartTask(machine.task("ta-1", "echo ran; sleep 1000"))).await;
    link.order(signal("ta-1", Signal::Kill)).await;
    let story = link.until_ended("ta-1").await;
    assert_eq!(story.task().end, Some(End::Signal(9)));
    assert_eq!(
        (story.stdout.as_str(), story.stages.contains(&"runtime".to_owned())),
        ("", false),
        "{story:?}"
    );
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_order_for_a_running_task_is_ignored() {
    let (machine, link) = Machine::start().await;
    let order = machine.task("ta-1", "echo once; read x < /tmp/never; sleep 0.3");
    link.order(OrderKind::StartTask(order.clone())).await;
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;
    assert_eq!(story.stdout, "once\n");
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_can_not_be_carried_out_say_why() {
    let (machine, link) = Machine::start().await;
    let mut unknown = machine.task("ta-1", "true");
    unknown.layers = vec!["00".repeat(32)];
    let mut listen = machine.task("ta-2", "true");
    listen.listen = "nowhere".into();
    let mut file = machine.task("ta-3", "true");
    file.files = vec![File { path: "/etc/passwd".into(), data: Default::default() }];
    let mut device = machine.task("ta-4", "true");
    device.devices = vec!["example.com/gpu=0".into()];
    let mut empty = machine.task("ta-5", "true");
    empty.argv.clear();
    for (order, named) in [
        (unknown, "0000"),
        (listen, "nowhere"),
        (file, "/etc/passwd"),
        (device, "example.com/gpu=0"),
        (empty, "no command"),
    ] {
        let id = order.task_id.clone();
        link.order(OrderKind::StartTask(order)).await;
        let story = link.until_ended(&id).await;
        let Some(End::StartError(message)) = &story.task().end else { panic!("{story:?}") };
        assert!(message.contains(named), "{message}");
    }
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_limit_ends_the_process_and_is_told() {
    let (machine, link) = Machine::start().await;
    let mut order = machine.task("ta-1", "exec tail /dev/zero");
    order.limits = Some(memory(64 << 20));
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;
    assert!(story.task().out_of_memory, "{story:?}");
    assert_eq!(story.task().end, Some(End::Signal(9)));
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_output_arrives_complete_and_in_order() {
    let (machine, link) = Machine::start().await;
    let order = machine.task("ta-1", "seq 1 100000; seq 1 1000 >&2; printf end");
    link.order(OrderKind::StartTask(order)).await;
    let story = link.until_ended("ta-1").await;
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(story.stdout == expected + "end");
    assert!(story.stderr == (1..=1000).map(|n| format!("{n}\n")).collect::<String>());
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_at_once_stay_apart() {
    let (machine, link) = Machine::start().await;
    let ids: Vec<String> = (0..8).map(|n| format!("ta-{n}")).collect();
    for id in &ids {
        let script =
            "echo $ID > /tmp/mine; sleep 0.1; cat /tmp/mine; wget -q -O - http://127.0.0.1:10101/blobs/b";
        let mut order = machine.task(id, script);
        order.env = HashMap::from([("ID".to_owned(), id.clone())]);
        link.order(OrderKind::StartTask(order)).await;
    }
    let stories = link.until_all_ended(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for id in &ids {
        let story = &stories[id];
        assert_eq!(story.task().end, Some(End::ExitCode(0)), "{story:?}");
        assert_eq!(story.stdout, format!("{id}\nb {id} - worker-word\n"));
    }
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_stream_ends_what_runs_and_the_worker_comes_back() {
    let (machine, link) = Machine::start().await;
    link.order(OrderKind::StartTask(machine.task("ta-1", "echo ready; sleep 1000"))).await;
    link.until_said("ta-1", "ready").await;
    drop(link);
    let link = machine.control.attached().await;
    machine.assert_bare();
    link.order(OrderKind::StartTask(machine.task("ta-2", "echo again"))).await;
    assert_eq!(link.until_ended("ta-2").await.stdout, "again\n");
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_kills_what_runs_and_still_reports_it() {
    let (machine, link) = Machine::start().await;
    link.order(OrderKind::StartTask(machine.task("ta-1", "echo ready; sleep 1000"))).await;
    link.until_said("ta-1", "ready").await;
    machine.begin_stop();
    assert_eq!(link.until_ended("ta-1").await.task().end, Some(End::Signal(9)));
    machine.stop(link).await;
}
