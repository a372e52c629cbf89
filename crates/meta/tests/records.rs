//! Every table through a real database file: what is written is read back, replaced, listed and deleted.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use homeport_meta::{
    Meta, apps, calls, deployments, environments, idempotency, images, inputs, models, objects, outputs,
    secrets, steps, unknown_methods,
};

async fn open() -> (tempfile::TempDir, Meta) {
    let dir = tempfile::tempdir().unwrap();
    let meta = Meta::open(dir.path()).await.unwrap();
    (dir, meta)
}

fn app(id: &str, name: &str, state: &str, created_at: i64) -> apps::App {
    apps::App {
        id: id.into(),
        name: name.into(),
        environment: "main".into(),
        state: state.into(),
        created_at,
        record: vec![0, 255, 1],
    }
}

#[tokio::test]
async fn apps_are_found_by_name_and_state_newest_first() {
    let (_dir, meta) = open().await;
    for a in
        [app("ap-1", "x", "stopped", 1), app("ap-2", "x", "deployed", 2), app("ap-3", "x", "deployed", 3)]
    {
        apps::put(&meta, &a).await.unwrap();
    }
    assert_eq!(
        apps::find(&meta, "main", "x", "deployed").await.unwrap().unwrap(),
        app("ap-3", "x", "deployed", 3)
    );
    assert_eq!(apps::find(&meta, "other", "x", "deployed").await.unwrap(), None);

    apps::put(&meta, &app("ap-3", "x", "stopped", 3)).await.unwrap();
    assert_eq!(apps::find(&meta, "main", "x", "deployed").await.unwrap().unwrap().id, "ap-2");
    assert_eq!(apps::list_by_environment(&meta, "main").await.unwrap().len(), 3);
    assert_eq!(apps::list_by_state(&meta, "stopped").await.unwrap().len(), 2);
    assert!(apps::delete(&meta, "ap-1").await.unwrap());
    assert_eq!(apps::get(&meta, "ap-1").await.unwrap(), None);
}

#[tokio::test]
async fn objects_belong_to_their_app_and_kind() {
    let (_dir, meta) = open().await;
    let object = |id: &str, kind: &str, name: &str| objects::Object {
        id: id.into(),
        kind: kind.into(),
        app_id: "ap-1".into(),
        name: name.into(),
        record: b"r".to_vec(),
    };
    objects::put_all(&meta, &[object("fu-1", "function", "f"), object("cs-1", "class", "f")]).await.unwrap();
    assert_eq!(objects::find(&meta, "ap-1", "class", "f").await.unwrap().unwrap().id, "cs-1");
    assert_eq!(objects::find(&meta, "ap-1", "class", "g").await.unwrap(), None);
    assert_eq!(objects::list_by_app(&meta, "ap-1").await.unwrap().len(), 2);
    assert_eq!(objects::list_by_kind(&meta, "function").await.unwrap().len(), 1);
    assert_eq!(objects::delete_by_app(&meta, "ap-1").await.unwrap(), 2);
    assert_eq!(objects::get(&meta, "fu-1").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_with_one_cache_key_get_one_image_even_at_the_same_time() {
    let (_dir, meta) = open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let meta = meta.clone();
        tasks.spawn(async move {
            let image = images::Image {
                id: format!("im-{number}"),
                cache_key: "key".into(),
                state: "building".into(),
                record: vec![],
            };
            images::get_or_insert(&meta, &image).await.unwrap().id
        });
    }
    let mut ids = tasks.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);

    let clash =
        images::Image { id: "im-x".into(), cache_key: "key".into(), state: "s".into(), record: vec![] };
    let error = images::put(&meta, &clash).await.unwrap_err();
    assert!(error.to_string().contains("im-x"), "{error}");
    assert_eq!(images::find(&meta, "key").await.unwrap().unwrap().id, ids[0]);
}

fn call(id: &str) -> calls::Call {
    calls::Call {
        id: id.into(),
        function_id: "fu-1".into(),
        state: "open".into(),
        created_at: 5,
        finished_at: 0,
        record: vec![],
    }
}

fn input(id: &str, idx: i64) -> inputs::Input {
    inputs::Input { id: id.into(), call_id: "fc-1".into(), idx, failures: 0, record: vec![7] }
}

#[tokio::test]
async fn a_call_is_over_when_each_input_has_its_output_and_results_go_before_the_call() {
    let (_dir, meta) = open().await;
    calls::put_with_inputs(&meta, &call("fc-1"), &[input("in-1", 0)]).await.unwrap();
    inputs::add(&meta, "fc-1", "open", &[input("in-2", 1)]).await.unwrap();
    let output = |entry, record| outputs::Output { call_id: "fc-1".into(), entry, record };
    outputs::put_all(&meta, &[output(0, vec![1])]).await.unwrap();
    assert!(!calls::finish(&meta, "fc-1", "open", "done", 1000).await.unwrap());
    outputs::put_all(&meta, &[output(0, vec![2]), output(1, vec![])]).await.unwrap();
    let first = outputs::list_by_call(&meta, "fc-1", -1).await.unwrap().remove(0);
    assert_eq!(first.record, vec![1], "the first output counts");
    assert!(calls::finish(&meta, "fc-1", "open", "done", 1000).await.unwrap());

    assert_eq!(calls::expire(&meta, "done", "expired", 1000).await.unwrap(), 0);
    assert_eq!(calls::expire(&meta, "done", "expired", 1001).await.unwrap(), 1);
    assert_eq!(calls::get(&meta, "fc-1").await.unwrap().unwrap().state, "expired");
    assert_eq!(outputs::list_by_call(&meta, "fc-1", -1).await.unwrap(), []);
    assert_eq!(inputs::list_by_call(&meta, "fc-1").await.unwrap(), []);
    assert_eq!(calls::delete_before(&meta, "expired", 1001).await.unwrap(), 1);
    assert_eq!(calls::get(&meta, "fc-1").await.unwrap(), None);
}

#[tokio::test]
async fn an_input_that_comes_later_opens_its_call_again_and_keeps_its_failures() {
    let (_dir, meta) = open().await;
    calls::put(&meta, &call("fc-1")).await.unwrap();
    assert!(calls::finish(&meta, "fc-1", "open", "done", 1000).await.unwrap());
    inputs::add(&meta, "fc-1", "open", &[input("in-1", 0)]).await.unwrap();
    assert_eq!(calls::get(&meta, "fc-1").await.unwrap().unwrap().state, "open");
    inputs::set_failures(&meta, "in-1", 3).await.unwrap();
    // The client repeats its request.
    inputs::add(&meta, "fc-1", "open", &[input("in-1", 0)]).await.unwrap();
    assert_eq!(inputs::get(&meta, "in-1").await.unwrap().unwrap().failures, 3);
}

#[tokio::test]
async fn a_call_takes_its_inputs_and_outputs_with_it() {
    let (_dir, meta) = open().await;
    let call = call("fc-1");
    calls::put_with_inputs(&meta, &call, &[input("in-2", 1), input("in-1", 0)]).await.unwrap();
    let output = |entry| outputs::Output { call_id: "fc-1".into(), entry, record: vec![] };
    outputs::put_all(&meta, &[output(1), output(2), output(3)]).await.unwrap();
    let ids: Vec<_> = inputs::list_by_call(&meta, "fc-1").await.unwrap().into_iter().map(|i| i.id).collect();
    assert_eq!(ids, ["in-1", "in-2"]);
    assert_eq!(outputs::list_by_call(&meta, "fc-1", 1).await.unwrap().len(), 2);
    assert_eq!(calls::list_by_state(&meta, "open").await.unwrap(), [call]);

    calls::delete(&meta, "fc-1").await.unwrap();
    assert_eq!(inputs::get(&meta, "in-1").await.unwrap(), None);
    assert_eq!(outputs::list_by_call(&meta, "fc-1", 0).await.unwrap(), []);
}

#[tokio::test]
async fn an_input_without_its_call_is_refused() {
    let (_dir, meta) = open().await;
    let orphan = inputs::Input { call_id: "fc-none".into(), ..input("in-1", 0) };
    inputs::add(&meta, "fc-none", "open", &[orphan]).await.unwrap_err();
}

#[tokio::test]
async fn the_first_answer_under_a_key_counts() {
    let (_dir, meta) = open().await;
    assert_eq!(idempotency::get_or_insert(&meta, "k", b"one", 10).await.unwrap(), b"one");
    assert_eq!(idempotency::get_or_insert(&meta, "k", b"two", 20).await.unwrap(), b"one");
    assert_eq!(idempotency::sweep(&meta, 10).await.unwrap(), 0);
    assert_eq!(idempotency::sweep(&meta, 11).await.unwrap(), 1);
    assert_eq!(idempotency::get(&meta, "k").await.unwrap(), None);
}

#[tokio::test]
async fn a_model_is_found_by_name_and_by_commit() {
    let (_dir, meta) = open().await;
    let model = |revision: &str, created_at| models::Model {
        repository: "org/m".into(),
        revision: revision.into(),
        created_at,
        record: vec![],
    };
    models::put(&meta, &model("aa", 1), "main").await.unwrap();
    models::put(&meta, &model("bb", 2), "main").await.unwrap();
    assert_eq!(models::find(&meta, "org/m", "main").await.unwrap().unwrap().revision, "bb");
    assert_eq!(models::find(&meta, "org/m", "aa").await.unwrap().unwrap().revision, "aa");
    assert_eq!(models::find(&meta, "org/m", "v1").await.unwrap(), None);
    assert_eq!(models::references(&meta, "org/m").await.unwrap().len(), 1);
    assert_eq!(models::delete(&meta, "org/m").await.unwrap(), 2);
    assert_eq!(models::references(&meta, "org/m").await.unwrap(), []);
    assert_eq!(models::list(&meta).await.unwrap(), []);
}

#[tokio::test]
async fn steps_and_unknown_methods_are_kept() {
    let (_dir, meta) = open().await;
    let step = |snapshot: &str| steps::Step {
        cache_key: "k".into(),
        snapshot: snapshot.into(),
        config: b"{}".to_vec(),
    };
    steps::put(&meta, &step("one")).await.unwrap();
    steps::put(&meta, &step("two")).await.unwrap();
    assert_eq!(steps::get(&meta, "k").await.unwrap().unwrap(), step("two"));
    assert!(steps::delete(&meta, "k").await.unwrap());

    assert!(unknown_methods::note(&meta, "1.6.4", "Nope", 1).await.unwrap());
    assert!(!unknown_methods::note(&meta, "1.6.4", "Nope", 2).await.unwrap());
    assert_eq!(unknown_methods::list(&meta).await.unwrap()[0].first_seen_at, 1);
}

#[tokio::test]
async fn a_write_by_another_process_is_seen_in_the_change_mark() {
    let (dir, meta) = open().await;
    apps::put(&meta, &app("ap-1", "x", "deployed", 1)).await.unwrap();
    let before = meta.change_mark();
    assert!(before.is_some());
    apps::get(&meta, "ap-1").await.unwrap();
    assert_eq!(meta.change_mark(), before, "reading changes nothing");

    let other = Meta::open(dir.path()).await.unwrap();
    apps::put(&other, &app("ap-2", "y", "deployed", 2)).await.unwrap();
    assert_ne!(meta.change_mark(), before);
}

#[tokio::test]
async fn a_secret_is_replaced_and_its_use_is_noted_only_while_it_is_there() {
    let (_dir, meta) = open().await;
    let secret = |record: &[u8]| secrets::Secret {
        id: "st-1".into(),
        environment: "main".into(),
        name: "one".into(),
        app_id: String::new(),
        created_at: 5,
        used_at: 0,
        record: record.to_vec(),
    };
    secrets::put(&meta, &secret(b"a")).await.unwrap();
    secrets::put(&meta, &secret(b"b")).await.unwrap();
    secrets::touch(&meta, "st-1", 9).await.unwrap();
    secrets::touch(&meta, "st-1", 7).await.unwrap();
    assert_eq!(secrets::list(&meta).await.unwrap(), [secrets::Secret { used_at: 9, ..secret(b"b") }]);
    assert!(secrets::delete(&meta, "st-1").await.unwrap());
    secrets::touch(&meta, "st-1", 11).await.unwrap();
    assert!(secrets::list(&meta).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_environment_is_made_once() {
    let (_dir, meta) = open().await;
    let dev = environments::Environment { name: "dev".into(), created_at: 5 };
    assert!(environments::insert(&meta, &dev).await.unwrap());
    assert!(!environments::insert(&meta, &dev).await.unwrap());
    assert_eq!(environments::list(&meta).await.unwrap(), [dev]);
    assert!(environments::delete(&meta, "dev").await.unwrap());
    assert!(!environments::delete(&meta, "dev").await.unwrap());
}

#[tokio::test]
async fn a_publication_writes_the_app_its_objects_and_its_history_together() {
    let (_dir, meta) = open().await;
    let app = app("ap-1", "x", "deployed", 1);
    let object = objects::Object {
        id: "fu-1".into(),
        kind: "function".into(),
        app_id: "ap-1".into(),
        name: String::new(),
        record: b"new".to_vec(),
    };
    let version = |number: i64, record: &[u8]| deployments::Deployment {
        app_id: "ap-1".into(),
        version: number,
        deployed_at: 10 * number,
        record: record.to_vec(),
    };
    let (first, second) = (version(1, b"whole"), version(2, b"whole"));
    let publish = |deployments| deployments::Publication {
        app: &app,
        objects: std::slice::from_ref(&object),
        deployments,
    };
    let alone = [first];
    deployments::publish(&meta, &publish(&alone)).await.unwrap();
    let shortened = [version(1, b"short"), second.clone()];
    deployments::publish(&meta, &publish(&shortened)).await.unwrap();
    assert_eq!(deployments::list(&meta).await.unwrap(), shortened);
    assert_eq!(objects::get(&meta, "fu-1").await.unwrap().unwrap(), object);
    assert_eq!(apps::get(&meta, "ap-1").await.unwrap().unwrap(), app);
    assert_eq!(deployments::delete_by_app(&meta, "ap-1").await.unwrap(), 2);
}
