//! Volumes: what containers change is taken, reported and kept until control has it.

use std::time::Duration;

use homeport_content::{Delta, Leaf, LeafKind, Metadata, Tree};
use homeport_proto::worker::order::Order as OrderKind;
use homeport_proto::worker::report::Report;
use homeport_proto::worker::volume_shown::Outcome;
use homeport_proto::worker::{
    ShowVolume, Signal, Stack, StartTask, TakeReason, TakeVolume, VolumeKept, VolumeMount, VolumePlace,
    VolumeTaken,
};

use crate::control::Link;
use crate::machine::{Machine, signal};

/// A tree of small files.
fn tree(machine: &Machine, files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(Metadata::with_mode(0o755));
    for (path, text) in files {
        let content = machine.store.file_content(text.as_bytes()).unwrap();
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        tree.insert_leaf(path.as_bytes(), leaf).unwrap();
    }
    tree
}

fn stack(machine: &Machine, files: &[(&str, &str)]) -> Stack {
    let base = machine.store.put_tree(&tree(machine, files)).unwrap().to_string();
    Stack { base, deltas: Vec::new() }
}

/// A task with a Volume at `/vol`, at version 5.
fn task(machine: &Machine, script: &str, stack: &Stack) -> StartTask {
    let place = VolumePlace { path: "/vol".into(), ..VolumePlace::default() };
    let volume = VolumeMount {
        volume_id: "vo-1".into(),
        name: "weights".into(),
        stack: Some(stack.clone()),
        version: 5,
        places: vec![place],
        ..VolumeMount::default()
    };
    StartTask { volumes: vec![volume], ..machine.task("ta-1", script) }
}

fn take(op: &str) -> OrderKind {
    OrderKind::TakeVolume(TakeVolume { op_id: op.into(), task_id: "ta-1".into(), volume_id: "vo-1".into() })
}

async fn keep(link: &Link, sequence: u64) {
    let kept = VolumeKept { task_id: "ta-1".into(), volume_id: "vo-1".into(), sequence };
    link.order(OrderKind::VolumeKept(kept)).await;
}

/// The next report of something taken. No task may end before it.
async fn taken(link: &Link) -> VolumeTaken {
    let reports = link.until(|report| matches!(report, Report::VolumeTaken(_) | Report::TaskEnded(_))).await;
    match reports.into_iter().last() {
        Some(Report::VolumeTaken(taken)) => taken,
        other => panic!("{other:?}"),
    }
}

/// The names that a report's delta changed at the root, and the text of those that are files.
fn changes(machine: &Machine, taken: &VolumeTaken) -> Vec<(String, String)> {
    assert_eq!(taken.error, "", "{taken:?}");
    let delta = machine.store.delta(&taken.delta.parse().unwrap()).unwrap();
    let text = |delta: &Delta, id| match &delta.leaves[usize::try_from(id).unwrap()].kind {
        LeafKind::File(content) => String::from_utf8(machine.store.read_content(content).unwrap()).unwrap(),
        other => format!("{other:?}"),
    };
    let entries = delta.root.entries.iter();
    entries
        .map(|(name, change)| {
            let text = match change {
                homeport_content::Change::Leaf(id) => text(&delta, id.0),
                other => format!("{other:?}"),
            };
            (String::from_utf8(name.to_vec()).unwrap(), text)
        })
        .collect()
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_taken_another_version_is_shown_and_the_rest_comes_at_the_end() {
    let (machine, link) = Machine::start().await;
    let first = stack(&machine, &[("old", "old\n")]);
    let script = "cat /vol/old; echo new > /vol/new; echo wrote
        while [ ! -e /vol/next ]; do sleep 0.02; done; cat /vol/next /vol/new; echo last > /vol/last";
    link.order(OrderKind::StartTask(task(&machine, script, &first))).await;
    let story = link.until_said("ta-1", "wrote").await;
    assert_eq!(story.stdout, "old\nwrote\n");

    link.order(take("op-1")).await;
    let one = taken(&link).await;
    assert_eq!((one.op_id.as_str(), one.sequence, one.reason()), ("op-1", 1, TakeReason::Asked));
    assert_eq!((one.seen_version, one.seen.as_ref()), (5, Some(&first)));
    assert!(one.clean, "nobody uses the Volume: {one:?}");
    assert_eq!(changes(&machine, &one), [pair("new", "new\n")]);
    keep(&link, 1).await;

    link.order(take("op-2")).await;
    let nothing = taken(&link).await;
    assert_eq!((nothing.op_id.as_str(), nothing.delta.as_str(), nothing.error.as_str()), ("op-2", "", ""));

    let next = machine.store.put_delta(&Delta::from_tree(&tree(&machine, &[("next", "next\n")]))).unwrap();
    let second = Stack { deltas: vec![one.delta.clone(), next.to_string()], ..first.clone() };
    link.order(OrderKind::ShowVolume(ShowVolume {
        op_id: "op-3".into(),
        task_id: "ta-1".into(),
        volume_id: "vo-1".into(),
        stack: Some(second.clone()),
        version: 7,
        strict: false,
    }))
    .await;
    let mut reports = link.until(|report| matches!(report, Report::VolumeShown(_))).await;
    let Some(Report::VolumeShown(shown)) = reports.last() else { panic!("{reports:?}") };
    assert_eq!((shown.op_id.as_str(), &shown.outcome), ("op-3", &Some(Outcome::Version(7))));

    // What the container says of it may come before.
    reports.extend(link.until(|report| matches!(report, Report::VolumeTaken(_))).await);
    let said: Vec<u8> = reports
        .iter()
        .filter_map(|report| match report {
            Report::TaskOutput(output) => Some(output.data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(String::from_utf8(said).unwrap(), "next\nnew\n", "{reports:?}");
    let Some(Report::VolumeTaken(last)) = reports.last() else { panic!("{reports:?}") };
    assert_eq!((last.sequence, last.reason(), last.seen_version), (2, TakeReason::Ended, 7));
    assert_eq!(last.seen.as_ref(), Some(&second));
    assert_eq!(changes(&machine, last), [pair("last", "last\n")]);
    keep(&link, 2).await;
    link.until_ended("ta-1").await;
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_taken_in_the_background_and_when_the_container_is_killed() {
    let (machine, link) = Machine::start().await;
    let first = stack(&machine, &[]);
    let mut order = task(&machine, "echo 1 > /vol/1; while [ ! -e /go ]; do sleep 0.02; done", &first);
    order.volumes[0].background_commits = true;
    link.order(OrderKind::StartTask(order)).await;
    let one = taken(&link).await;
    assert_eq!((one.op_id.as_str(), one.sequence, one.reason()), ("", 1, TakeReason::Background));
    assert_eq!(changes(&machine, &one), [pair("1", "1\n")]);
    keep(&link, 1).await;
    // Long enough for several more, if there were anything to take.
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.order(signal("ta-1", Signal::Kill)).await;
    let story = link.until_ended("ta-1").await;
    assert!(story.task.is_some());
    machine.assert_bare();

    let script = "echo 2 > /vol/2; echo wrote; sleep 100";
    let order = StartTask { task_id: "ta-1".into(), ..task(&machine, script, &first) };
    link.order(OrderKind::StartTask(order)).await;
    link.until_said("ta-1", "wrote").await;
    link.order(signal("ta-1", Signal::Kill)).await;
    let last = taken(&link).await;
    assert_eq!((last.reason(), last.sequence), (TakeReason::Ended, 1));
    assert_eq!(changes(&machine, &last), [pair("2", "2\n")]);
    keep(&link, 1).await;
    link.until_ended("ta-1").await;
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_outlives_the_stream_and_the_worker() {
    let (mut machine, link) = Machine::start().await;
    let first = stack(&machine, &[]);
    let script = "echo 1 > /vol/1; echo wrote; sleep 1; echo 2 > /vol/2; echo again; sleep 100";
    link.order(OrderKind::StartTask(task(&machine, script, &first))).await;
    link.until_said("ta-1", "wrote").await;
    link.order(take("op-1")).await;
    let one = taken(&link).await;
    assert_eq!((one.sequence, changes(&machine, &one)), (1, vec![pair("1", "1\n")]));
    link.until_said("ta-1", "again").await;

    drop(link);
    let link = machine.control.attached().await;
    let (again, last) = (taken(&link).await, taken(&link).await);
    assert_eq!((again.sequence, &again.delta, &again.op_id[..]), (1, &one.delta, ""));
    assert_eq!((last.sequence, last.reason()), (2, TakeReason::Ended));
    assert_eq!(changes(&machine, &last), [pair("2", "2\n")]);
    keep(&link, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let link = machine.start_anew(link).await;
    let recovered = loop {
        let next = taken(&link).await;
        // One that was acknowledged may be said once more: control knows it by its sequence.
        if next.sequence != 1 {
            break next;
        }
        assert_eq!(next.delta, one.delta);
    };
    assert_eq!((recovered.sequence, &recovered.delta), (2, &last.delta));
    keep(&link, 1).await;
    keep(&link, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    machine.assert_bare();
    machine.stop(link).await;
}
