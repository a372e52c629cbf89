//! Steps of builds.

use std::collections::HashMap;

use homeport_content::{FileContent, Leaf, LeafKind, Metadata, Tree};
use homeport_proto::worker::order::Order as OrderKind;
use homeport_proto::worker::run_step::Step;
use homeport_proto::worker::step_ended::End;
use homeport_proto::worker::{CancelStep, CopyFiles, File, PullBase, StepFailure};

use crate::control::Story;
use crate::machine::{Machine, memory, step};

fn failure(story: &Story) -> &StepFailure {
    match story.step.as_ref().unwrap() {
        End::Failure(failure) => failure,
        End::Result(result) => panic!("{result:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_is_run_as_its_user_and_what_it_wrote_is_the_result() {
    let (machine, link) = Machine::start().await;
    let script = "id -un; echo index=$PIP_INDEX_URL; echo $NAME $HF_ENDPOINT; echo hello > /tmp/made
        wget -q -O - http://127.0.0.1:10101/blobs/b-1; echo warning >&2";
    let mut command = machine.command(script);
    command.user = "app".into();
    command.env = HashMap::from([("NAME".to_owned(), "value".to_owned())]);
    link.order(step("st-1", Step::RunCommand(command))).await;
    let story = link.until_ended("st-1").await;

    let snapshot = story.snapshot();
    let expected =
        "app\nindex=http://index.example/simple\nvalue http://127.0.0.1:10101\nb-1 - st-1 worker-word\n";
    assert_eq!((story.stdout.as_str(), story.stderr.as_str()), (expected, "warning\n"));
    let added = machine.added(&snapshot);
    assert_eq!(added.len(), 1, "{added:?}");
    let tree = machine.tree(&snapshot);
    assert_eq!(machine.read(&tree, b"tmp/made"), "hello\n");
    assert_eq!(tree.get(b"tmp/made").unwrap().metadata().uid, 1000);
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_command_tells_its_code_and_leaves_nothing() {
    let (machine, link) = Machine::start().await;
    let command = machine.command("echo before; echo x > /new; exit 9");
    link.order(step("st-1", Step::RunCommand(command))).await;
    let story = link.until_ended("st-1").await;
    assert_eq!(failure(&story).exit_code, Some(9));
    assert!(failure(&story).message.ends_with("exited with code 9"), "{story:?}");
    assert_eq!(story.stdout, "before\n");

    let mut hungry = machine.command("exec tail /dev/zero");
    hungry.limits = Some(memory(64 << 20));
    link.order(step("st-2", Step::RunCommand(hungry))).await;
    let story = link.until_ended("st-2").await;
    assert!(failure(&story).message.contains("out of memory"), "{story:?}");
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_directories_stand_alone_in_the_result() {
    let (machine, link) = Machine::start().await;
    let script = ". /__modal/script; mkdir -p /pkg/a /__modal/deps /other; echo 2 > /__modal/deps/c; echo 3 > /other/d";
    for (id, keep, expected) in [
        ("st-1", "/pkg", ["pkg", "pkg/a", "pkg/a/b"].as_slice()),
        ("st-2", "/__modal/deps", &["__modal", "__modal/deps", "__modal/deps/c"]),
    ] {
        let mut command = machine.command(script);
        let script = b"mkdir -p /pkg/a; echo 1 > /pkg/a/b".as_slice();
        command.files = vec![File { path: "/__modal/script".into(), data: script.into() }];
        command.keep_only = vec![keep.into()];
        link.order(step(id, Step::RunCommand(command))).await;
        let tree = machine.tree(&link.until_ended(id).await.snapshot());
        let paths: Vec<String> = tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        let paths: Vec<&str> =
            paths.iter().map(|path| path.trim_matches('/')).filter(|path| !path.is_empty()).collect();
        assert_eq!(paths, expected);
    }

    let mut command = machine.command("true");
    command.keep_only = vec!["/missing".into()];
    link.order(step("st-3", Step::RunCommand(command))).await;
    let story = link.until_ended("st-3").await;
    assert!(failure(&story).message.contains("/missing"), "{story:?}");
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_steps_end_whether_they_run_or_wait() {
    let (machine, link) = Machine::start().await;
    // More than can run at the same time.
    let count = std::thread::available_parallelism().unwrap().get() + 2;
    let ids: Vec<String> = (0..count).map(|n| format!("st-{n}")).collect();
    for id in &ids {
        link.order(step(id, Step::RunCommand(machine.command("sleep 1000")))).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for id in &ids {
        link.order(OrderKind::CancelStep(CancelStep { step_id: id.clone() })).await;
    }
    let stories = link.until_all_ended(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for story in stories.values() {
        assert!(failure(story).message.contains("cancelled"), "{story:?}");
    }
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_between_snapshots() {
    let (machine, link) = Machine::start().await;
    let mut context = Tree::new(Metadata::with_mode(0o755));
    let leaf = |text: &str| Leaf {
        metadata: Metadata::with_mode(0o644),
        kind: LeafKind::File(FileContent::Inline(text.as_bytes().into())),
    };
    context.insert_leaf(b"app/main.py", leaf("print()")).unwrap();
    let context = machine.store.put_tree(&context).unwrap();
    let copy = CopyFiles {
        base: machine.image.to_string(),
        context: context.to_string(),
        sources: vec!["app".into()],
        destination: "code/".into(),
        workdir: "/root".into(),
        origin: "the build context".into(),
        ..CopyFiles::default()
    };
    link.order(step("st-1", Step::CopyFiles(copy.clone()))).await;
    let snapshot = link.until_ended("st-1").await.snapshot();
    assert_eq!(machine.read(&machine.tree(&snapshot), b"root/code/main.py"), "print()");

    let missing = CopyFiles { sources: vec!["nothing".into()], ..copy.clone() };
    link.order(step("st-2", Step::CopyFiles(missing))).await;
    let story = link.until_ended("st-2").await;
    assert!(failure(&story).message.contains("`nothing` is not in the build context"), "{story:?}");

    let owned = CopyFiles { owner: "app".into(), mode: Some(0o600), ..copy.clone() };
    link.order(step("st-3", Step::CopyFiles(owned))).await;
    let tree = machine.tree(&link.until_ended("st-3").await.snapshot());
    let metadata = tree.get(b"root/code/main.py").unwrap().metadata();
    assert_eq!((metadata.uid, metadata.gid, metadata.mode), (1000, 1000, 0o600));

    let unknown = CopyFiles { owner: "nobody-at-all".into(), ..copy };
    link.order(step("st-4", Step::CopyFiles(unknown))).await;
    let story = link.until_ended("st-4").await;
    assert!(failure(&story).message.contains("`nobody-at-all`"), "{story:?}");
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_are_unpacked_where_that_is_asked_for() {
    let (machine, link) = Machine::start().await;
    let packing =
        machine.command("mkdir /t && cd /t && echo hello > inner && tar -czf a.tgz inner && rm inner");
    link.order(step("st-1", Step::RunCommand(packing))).await;
    let packed = link.until_ended("st-1").await.snapshot();
    let add = CopyFiles {
        base: machine.image.to_string(),
        context: packed.to_string(),
        sources: vec!["t/a.tgz".into()],
        destination: "/added/".into(),
        workdir: "/".into(),
        unpack: true,
        ..CopyFiles::default()
    };
    link.order(step("st-2", Step::CopyFiles(add.clone()))).await;
    let tree = machine.tree(&link.until_ended("st-2").await.snapshot());
    assert_eq!(machine.read(&tree, b"added/inner"), "hello\n");

    link.order(step("st-3", Step::CopyFiles(CopyFiles { unpack: false, ..add }))).await;
    let tree = machine.tree(&link.until_ended("st-3").await.snapshot());
    assert!(tree.get(b"added/a.tgz").is_some() && tree.get(b"added/inner").is_none());
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch_directories_begin_empty_and_are_not_kept() {
    let (machine, link) = Machine::start().await;
    let script = "ls -A /root/.cache /tmp; echo x > /root/.cache/x; echo y > /tmp/y; echo z > /kept";
    let mut command = machine.command(script);
    command.scratch = vec!["/root/.cache".into(), "/tmp".into()];
    link.order(step("st-1", Step::RunCommand(command))).await;
    let story = link.until_ended("st-1").await;
    let tree = machine.tree(&story.snapshot());
    assert_eq!(story.stdout, "/root/.cache:\n\n/tmp:\n");
    assert!(tree.get(b"kept").is_some());
    assert!(tree.get(b"root/.cache/x").is_none() && tree.get(b"tmp/y").is_none());

    let mut command = machine.command("true");
    command.scratch = vec!["relative".into()];
    link.order(step("st-2", Step::RunCommand(command))).await;
    assert!(failure(&link.until_ended("st-2").await).message.contains("`relative`"));
    machine.assert_bare();
    machine.stop(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base_that_can_not_be_had_fails_with_a_reason() {
    let (machine, link) = Machine::start().await;
    // Nobody listens there, and no archive has an image of this name.
    let pull = PullBase { reference: "127.0.0.1:9/none/such:1".into(), ..PullBase::default() };
    link.order(step("st-1", Step::PullBase(pull))).await;
    let story = link.until_ended("st-1").await;
    assert!(failure(&story).message.contains("127.0.0.1:9"), "{story:?}");
    machine.stop(link).await;
}
