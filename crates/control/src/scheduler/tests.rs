//! Histories of calls and containers under a clock of the test's own.

use std::collections::{HashMap, HashSet};

use homeport_proto::client as pb;
use pb::generic_result::GenericStatus;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn spec(name: &str) -> PoolSpec {
    PoolSpec {
        function_id: name.to_owned(),
        app_id: "ap-1".to_owned(),
        name: name.to_owned(),
        concurrency: 1,
        max_containers: None,
        min_containers: 0,
        idle: 60.0,
        timeout: 300.0,
        startup_timeout: 300.0,
        milli_cpu: 125,
        memory_bytes: GIB / 8,
        memory_limit: 0,
        gpus: Vec::new(),
        is_build: false,
    }
}

fn node(gpus: &[&str]) -> Node {
    Node {
        id: "worker".to_owned(),
        milli_cpu: 2000,
        memory_bytes: 4 * GIB,
        gpus: gpus
            .iter()
            .enumerate()
            .map(|(n, model)| Gpu { device: format!("gpu={n}"), model: (*model).to_owned() })
            .collect(),
    }
}

fn scheduler(policy: Policy, specs: Vec<PoolSpec>) -> Scheduler {
    let mut scheduler = Scheduler::new(policy);
    scheduler.attach_worker(node(&[]), 0.0);
    for spec in specs {
        scheduler.set_pool(spec, 0.0);
    }
    scheduler
}

fn put(scheduler: &mut Scheduler, pool: &str, call: &str, count: i32, now: f64) {
    scheduler.open_call(call, pool, "ap-1", CallKind::Map, false, now);
    let inputs = (0..count)
        .map(|idx| NewInput { id: format!("{call}/{idx}"), idx, payload: pb::FunctionInput::default() })
        .collect();
    assert!(scheduler.put_inputs(call, pool, inputs, now));
}

fn launches(scheduler: &mut Scheduler) -> Vec<Launch> {
    let launch = |effect| match effect {
        Effect::Launch(launch) => Some(launch),
        _ => None,
    };
    scheduler.take_effects().into_iter().filter_map(launch).collect()
}

fn success(input_id: &str) -> pb::FunctionPutOutputsItem {
    pb::FunctionPutOutputsItem {
        input_id: input_id.to_owned(),
        result: Some(pb::GenericResult { status: GenericStatus::Success.into(), ..Default::default() }),
        ..Default::default()
    }
}

fn results(scheduler: &Scheduler, call: &str) -> Vec<pb::GenericResult> {
    let page = scheduler.call(call).unwrap().page(0, usize::MAX, None);
    page.outputs.into_iter().filter_map(|output| output.result).collect()
}

fn take_one(scheduler: &mut Scheduler, task: &str, now: f64) -> String {
    match scheduler.take_inputs(task, 1, None, now) {
        Take::Inputs(mut items) => items.pop().unwrap().input_id,
        other => panic!("expected an input, got {other:?}"),
    }
}

fn exited(code: i32) -> Ending {
    Ending { outcome: Outcome::Exit(code), ..Default::default() }
}

#[test]
fn a_call_starts_one_container_and_gets_its_output() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 2.0);
    s.put_outputs(&task, vec![success(&input)], 3.0);
    let page = s.call("fc").unwrap().page(0, 10, None);
    assert_eq!((page.outputs.len(), page.next, page.unfinished), (1, 1, 0));
    assert!(launches(&mut s).is_empty());
}

#[test]
fn starts_at_the_same_time_are_bounded_by_the_cores() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1000, 1.0);
    let first = launches(&mut s);
    assert_eq!(first.len(), 4);
    // Each one that is up makes room for another start.
    take_one(&mut s, &first[0].task_id, 2.0);
    assert_eq!(launches(&mut s).len(), 1);
}

#[test]
fn an_input_put_twice_runs_once() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    put(&mut s, "f", "fc", 1, 1.5);
    assert_eq!(s.call("fc").unwrap().input_count(), 1);
    assert_eq!(launches(&mut s).len(), 1);
}

#[test]
fn the_death_of_a_container_reaches_the_callers_it_held() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { concurrency: 2, ..spec("f") }]);
    put(&mut s, "f", "fc", 2, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    take_one(&mut s, &task, 2.0);
    take_one(&mut s, &task, 2.0);
    s.task_ended(
        &task,
        Ending { outcome: Outcome::Signal(9), out_of_memory: true, ..Default::default() },
        3.0,
    );
    let results = results(&s, "fc");
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result.exception.contains("ran out of memory")), "{results:?}");
}

#[test]
fn a_container_that_never_serves_fails_what_waits_for_it() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { max_containers: Some(1), ..spec("f") }]);
    put(&mut s, "f", "fc", 3, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let ending = Ending { outcome: Outcome::NotStarted("no such image".into()), ..Default::default() };
    s.task_ended(&task, ending, 2.0);
    assert!(results(&s, "fc").iter().all(|result| result.exception.contains("no such image")));
    assert_eq!(s.call("fc").unwrap().page(0, 10, None).unfinished, 0);
    assert!(launches(&mut s).is_empty(), "a start that fails is not repeated for ever");
}

#[test]
fn a_reported_failure_of_the_start_is_what_callers_get() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let result = pb::GenericResult {
        status: GenericStatus::Failure.into(),
        exception: "ImportError".into(),
        ..Default::default()
    };
    s.report_result(&task, result);
    s.task_ended(&task, exited(0), 2.0);
    assert_eq!(results(&s, "fc")[0].exception, "ImportError");
}

#[test]
fn an_input_beyond_its_timeout_ends_with_its_container() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { timeout: 5.0, ..spec("f") }]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    take_one(&mut s, &task, 2.0);
    s.tick(6.9);
    assert!(s.take_effects().is_empty());
    s.tick(7.1);
    assert_eq!(results(&s, "fc")[0].status(), GenericStatus::Timeout);
    let killed = Effect::Signal { worker_id: "worker".into(), task_id: task, signal: StopSignal::Kill };
    assert_eq!(s.take_effects(), vec![killed]);
}

#[test]
fn an_idle_container_is_told_to_go_unless_it_is_kept_warm() {
    let kept = PoolSpec { min_containers: 1, ..spec("kept") };
    let mut s = scheduler(Policy::default(), vec![spec("f"), kept]);
    put(&mut s, "f", "fc", 1, 1.0);
    let tasks: HashMap<String, String> =
        launches(&mut s).into_iter().map(|launch| (launch.function_id, launch.task_id)).collect();
    let input = take_one(&mut s, &tasks["f"], 2.0);
    s.put_outputs(&tasks["f"], vec![success(&input)], 3.0);
    assert!(matches!(s.take_inputs(&tasks["kept"], 1, None, 3.0), Take::Wait { .. }));
    assert!(matches!(s.take_inputs(&tasks["f"], 1, None, 62.0), Take::Wait { .. }));
    assert!(matches!(s.take_inputs(&tasks["f"], 1, None, 63.5), Take::Stop));
    assert!(matches!(s.take_inputs(&tasks["kept"], 1, None, 1000.0), Take::Wait { .. }));
}

#[test]
fn stopping_an_app_ends_idle_busy_and_starting_containers_and_then_says_so() {
    let mut s = scheduler(Policy::default(), vec![spec("busy"), spec("idle"), spec("starting")]);
    for name in ["busy", "idle", "starting"] {
        put(&mut s, name, name, 1, 1.0);
    }
    let tasks: HashMap<String, String> =
        launches(&mut s).into_iter().map(|launch| (launch.function_id, launch.task_id)).collect();
    assert!(s.begin_order(&tasks["starting"]));
    for name in ["busy", "idle"] {
        assert!(s.begin_order(&tasks[name]));
    }
    take_one(&mut s, &tasks["busy"], 2.0);
    let input = take_one(&mut s, &tasks["idle"], 2.0);
    s.put_outputs(&tasks["idle"], vec![success(&input)], 2.0);
    s.stop_app("ap-1", 3.0);
    let signals: HashMap<String, StopSignal> = s
        .take_effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Signal { task_id, signal, .. } => Some((task_id, signal)),
            _ => None,
        })
        .collect();
    assert_eq!(signals.get(&tasks["busy"]), Some(&StopSignal::Interrupt));
    assert_eq!(signals.get(&tasks["starting"]), Some(&StopSignal::Kill));
    assert!(!signals.contains_key(&tasks["idle"]));
    assert!(matches!(s.take_inputs(&tasks["idle"], 1, None, 3.1), Take::Stop));
    s.tick(20.0);
    let kills = s.take_effects();
    assert_eq!(kills.len(), 3, "after the grace time all that is left is killed: {kills:?}");
    for task in tasks.values() {
        s.task_ended(task, exited(0), 21.0);
    }
    assert!(s.take_effects().contains(&Effect::AppQuiet { app_id: "ap-1".into() }));
}

#[test]
fn a_stopped_app_does_not_wait_for_a_container_that_was_not_ordered() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    s.stop_app("ap-1", 2.0);
    assert_eq!(s.take_effects(), vec![Effect::AppQuiet { app_id: "ap-1".into() }]);
    assert!(!s.begin_order(&task), "the order that was being prepared must not leave");
}

#[test]
fn inputs_that_come_after_the_stop_of_their_app_fail() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "before", 1, 1.0);
    s.stop_app("ap-1", 2.0);
    put(&mut s, "f", "after", 2, 3.0);
    for call in ["before", "after"] {
        assert_eq!(s.call(call).unwrap().page(0, 10, None).unfinished, 0);
        assert!(results(&s, call).iter().all(|result| result.exception.contains("stopped")));
    }
}

#[test]
fn a_question_for_inputs_that_is_repeated_gets_the_same_input() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { max_containers: Some(1), ..spec("f") }]);
    put(&mut s, "f", "fc", 2, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let ask = |s: &mut Scheduler, key: &str, now| match s.take_inputs(&task, 1, Some(key), now) {
        Take::Inputs(mut items) => items.pop().unwrap().input_id,
        other => panic!("expected an input, got {other:?}"),
    };
    let first = ask(&mut s, "key-1", 2.0);
    assert_eq!(ask(&mut s, "key-1", 2.1), first, "the answer was lost on its way");
    s.put_outputs(&task, vec![success(&first)], 3.0);
    assert_ne!(ask(&mut s, "key-2", 3.1), first);
}

#[test]
fn a_container_that_stays_without_work_is_not_woken_all_the_time() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { min_containers: 1, ..spec("f") }]);
    let task = launches(&mut s).pop().unwrap().task_id;
    assert!(matches!(s.take_inputs(&task, 1, None, 1.0), Take::Wait { .. }));
    match s.take_inputs(&task, 1, None, 1000.0) {
        Take::Wait { until, .. } => assert!(until >= 1001.0, "{until}"),
        other => panic!("a container that is kept warm stays, got {other:?}"),
    }
}

#[test]
fn an_idle_container_has_time_for_its_exit_hooks() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    assert!(s.begin_order(&task));
    let input = take_one(&mut s, &task, 2.0);
    s.put_outputs(&task, vec![success(&input)], 3.0);
    assert!(matches!(s.take_inputs(&task, 1, None, 64.0), Take::Stop));
    s.tick(90.0);
    assert!(s.take_effects().is_empty());
    s.tick(95.0);
    assert_eq!(s.take_effects().len(), 1, "one that hangs is killed");
}

#[test]
fn a_start_that_always_fails_is_repeated_less_and_less_often() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { min_containers: 1, ..spec("f") }]);
    let (mut now, mut starts) = (0.0, 0);
    while now < 60.0 {
        for launch in launches(&mut s) {
            starts += 1;
            let ending =
                Ending { outcome: Outcome::NotStarted("no such image".into()), ..Default::default() };
            s.task_ended(&launch.task_id, ending, now);
        }
        now += 0.2;
        s.tick(now);
    }
    assert!((4..12).contains(&starts), "{starts} starts in a minute");
    // A new definition may be better.
    s.set_pool(PoolSpec { min_containers: 1, ..spec("f") }, now);
    assert_eq!(launches(&mut s).len(), 1);
}

#[test]
fn a_new_definition_replaces_containers_and_spares_its_own() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { min_containers: 1, ..spec("f") }]);
    let old = launches(&mut s).pop().unwrap().task_id;
    s.renew("f");
    s.set_pool(PoolSpec { min_containers: 1, idle: 5.0, ..spec("f") }, 1.0);
    let new = launches(&mut s).pop().unwrap().task_id;
    assert!(matches!(s.take_inputs(&old, 1, None, 2.0), Take::Stop));
    assert!(matches!(s.take_inputs(&new, 1, None, 2.0), Take::Wait { .. }));
    assert!(launches(&mut s).is_empty());
}

#[test]
fn a_call_that_its_caller_released_is_forgotten_soon() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    for call in ["kept", "released"] {
        put(&mut s, "f", call, 1, 1.0);
    }
    for task in launches(&mut s) {
        let input = take_one(&mut s, &task.task_id, 2.0);
        s.put_outputs(&task.task_id, vec![success(&input)], 3.0);
    }
    s.release_call("released", 4.0);
    s.tick(500.0);
    assert!(s.call("released").is_some(), "its answer may have been lost on its way");
    s.tick(700.0);
    assert!(s.call("released").is_none() && s.call("kept").is_some());
}

#[test]
fn a_call_takes_no_more_inputs_than_it_can_carry_and_none_of_them_twice() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    let inputs = |from: i32, to: i32| -> Vec<NewInput> {
        let input = |idx| NewInput { id: format!("fc/{idx}"), idx, payload: pb::FunctionInput::default() };
        (from..to).map(input).collect()
    };
    put(&mut s, "f", "fc", 10_000, 1.0);
    assert!(!s.has_room("fc", &inputs(10_000, 10_001)));
    assert!(s.has_room("fc", &inputs(0, 49)), "a repeated request is not refused for its first attempt");
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 2.0);
    s.put_outputs(&task, vec![success(&input)], 3.0);
    assert!(s.has_room("fc", &inputs(10_000, 10_001)));
}

#[test]
fn chunks_reach_a_call_only_from_the_container_that_serves_it() {
    let mut s = scheduler(Policy::default(), vec![spec("f"), spec("g")]);
    put(&mut s, "f", "fc-f", 1, 1.0);
    put(&mut s, "g", "fc-g", 1, 1.0);
    let tasks: HashMap<String, String> =
        launches(&mut s).into_iter().map(|launch| (launch.function_id, launch.task_id)).collect();
    take_one(&mut s, &tasks["f"], 2.0);
    let chunk = |index| vec![pb::DataChunk { index, ..Default::default() }];
    s.append_chunks(&tasks["f"], "fc-f", chunk(1));
    s.append_chunks(&tasks["f"], "fc-g", chunk(1));
    assert_eq!(s.call("fc-f").unwrap().chunks_after(0).len(), 1);
    assert!(s.call("fc-g").unwrap().chunks_after(0).is_empty());
}

#[test]
fn metrics_tell_what_started_ended_and_finished() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    let mut registry = prometheus_client::registry::Registry::with_prefix("homeport");
    s.register_metrics(&mut registry);
    put(&mut s, "f", "fc", 2, 1.0);
    let tasks = launches(&mut s);
    let input = take_one(&mut s, &tasks[0].task_id, 3.0);
    s.put_outputs(&tasks[0].task_id, vec![success(&input)], 4.0);
    take_one(&mut s, &tasks[0].task_id, 4.0);
    s.task_ended(&tasks[0].task_id, exited(3), 5.0);
    s.tick(6.0);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "homeport_containers_started_total 2",
        "homeport_containers_ended_total{outcome=\"exit_code\"} 1",
        "homeport_containers_live 1",
        "homeport_inputs_finished_total{status=\"success\"} 1",
        "homeport_inputs_finished_total{status=\"failure\"} 1",
        "homeport_inputs_running 0",
        "homeport_container_start_seconds_sum 2.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_gpu_that_no_machine_has_is_waited_for_and_said_once() {
    let gpus = vec![GpuDemand { model: Some("H100".into()), count: 1 }];
    let mut s = scheduler(Policy::default(), vec![PoolSpec { gpus, ..spec("f") }]);
    put(&mut s, "f", "fc", 1, 1.0);
    s.tick(2.0);
    s.tick(3.0);
    let effects = s.take_effects();
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert!(matches!(&effects[0], Effect::Notice { text, .. } if text.contains("H100")));
    // A machine that has one ends the wait.
    s.attach_worker(node(&["H100"]), 4.0);
    assert_eq!(launches(&mut s)[0].devices, vec!["gpu=0".to_owned()]);
}

#[test]
fn with_the_fallback_a_function_runs_without_its_gpu() {
    let gpus = vec![GpuDemand { model: None, count: 1 }];
    let policy = Policy { gpu_fallback_cpu: true, ..Default::default() };
    let mut s = scheduler(policy, vec![PoolSpec { gpus: gpus.clone(), ..spec("f") }]);
    put(&mut s, "f", "fc", 1, 1.0);
    assert_eq!(launches(&mut s)[0].without_gpu, gpus.into_iter().next());
}

#[test]
fn a_gpu_is_given_to_one_container_at_a_time() {
    let gpus = vec![GpuDemand { model: None, count: 1 }];
    let mut s = Scheduler::new(Policy::default());
    s.attach_worker(node(&["T4"]), 0.0);
    s.set_pool(PoolSpec { gpus, ..spec("f") }, 0.0);
    put(&mut s, "f", "fc", 2, 1.0);
    let first = launches(&mut s);
    assert_eq!(first.len(), 1);
    take_one(&mut s, &first[0].task_id, 2.0);
    s.task_ended(&first[0].task_id, exited(1), 3.0);
    assert_eq!(launches(&mut s).len(), 1);
}

#[test]
fn a_restart_keeps_outputs_runs_what_is_open_and_fails_what_lost_its_function() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    let inputs = |call: &str| -> Vec<NewInput> {
        let input =
            |idx| NewInput { id: format!("{call}/{idx}"), idx, payload: pb::FunctionInput::default() };
        (0..2).map(input).collect()
    };
    let output = pb::FunctionGetOutputsItem {
        idx: 0,
        result: Some(pb::GenericResult { status: GenericStatus::Success.into(), ..Default::default() }),
        ..Default::default()
    };
    for (call, pool) in [("fc-1", "f"), ("fc-2", "gone")] {
        s.open_call(call, pool, "ap-1", CallKind::Map, true, 1.0);
        s.restore_inputs(call, pool, inputs(call), vec![output.clone()], 1.0);
    }
    let page = s.call("fc-1").unwrap().page(0, 10, None);
    assert_eq!((page.outputs.len(), page.unfinished), (1, 1));
    let task = launches(&mut s).pop().unwrap().task_id;
    assert_eq!(take_one(&mut s, &task, 2.0), "fc-1/1");
    assert_eq!(s.call("fc-2").unwrap().page(0, 10, None).unfinished, 0);
    assert_eq!(results(&s, "fc-2")[1].status(), GenericStatus::Failure);
}

#[test]
fn a_shutdown_leaves_durable_inputs_to_the_next_start() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    for (call, durable) in [("kept", true), ("lost", false)] {
        s.open_call(call, "f", "ap-1", CallKind::Single, durable, 1.0);
        let input = NewInput { id: call.to_owned(), idx: 0, payload: pb::FunctionInput::default() };
        s.put_inputs(call, "f", vec![input], 1.0);
    }
    for launch in launches(&mut s) {
        take_one(&mut s, &launch.task_id, 2.0);
    }
    s.begin_shutdown();
    let tasks: Vec<String> = s.live_tasks().map(|task| task.id.clone()).collect();
    for task in tasks {
        s.task_ended(&task, Ending { outcome: Outcome::Signal(9), ..Default::default() }, 3.0);
    }
    assert_eq!(s.call("kept").unwrap().page(0, 1, None).unfinished, 1);
    assert_eq!(s.call("lost").unwrap().page(0, 1, None).unfinished, 0);
    assert!(launches(&mut s).is_empty());
}

#[test]
fn an_idle_container_makes_room_for_a_function_that_waits() {
    let mut s = scheduler(Policy::default(), vec![spec("old"), spec("new")]);
    put(&mut s, "old", "fc-old", 16, 1.0);
    let mut tasks = Vec::new();
    for turn in 0..16 {
        tasks.extend(launches(&mut s).into_iter().map(|launch| launch.task_id));
        take_one(&mut s, &tasks[turn], 2.0 + turn as f64);
    }
    assert_eq!(tasks.len(), 16, "the machine is full");
    put(&mut s, "new", "fc-new", 1, 20.0);
    s.tick(20.0);
    assert!(tasks.iter().all(|task| !s.task(task).unwrap().draining), "busy containers stay");
    for (n, task) in tasks.iter().enumerate() {
        s.put_outputs(task, vec![success(&format!("fc-old/{n}"))], 21.0 + n as f64);
    }
    let leaving: Vec<&String> = tasks.iter().filter(|task| s.task(task).unwrap().draining).collect();
    assert_eq!(leaving, vec![&tasks[0]], "the one that has been idle for longest goes, and no other");
    assert!(matches!(s.take_inputs(&tasks[0], 1, None, 40.0), Take::Stop));
    s.tick(40.5);
    assert!(s.take_effects().is_empty(), "it has time for its exit hooks");
    s.task_ended(&tasks[0], exited(0), 41.0);
    assert_eq!(launches(&mut s)[0].function_id, "new");
}

#[test]
fn room_is_made_for_a_function_that_runs_without_its_gpu_too() {
    let gpus = vec![GpuDemand { model: None, count: 1 }];
    let policy = Policy { gpu_fallback_cpu: true, ..Default::default() };
    let big = PoolSpec { milli_cpu: 2000, ..spec("idle") };
    let mut s = scheduler(policy, vec![big, PoolSpec { gpus, ..spec("gpu") }]);
    put(&mut s, "idle", "fc-idle", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 2.0);
    s.put_outputs(&task, vec![success(&input)], 3.0);
    put(&mut s, "gpu", "fc-gpu", 1, 4.0);
    assert!(matches!(s.take_inputs(&task, 1, None, 4.1), Take::Stop));
}

/// What can happen to a scheduler from outside.
#[derive(Debug, Clone)]
enum Event {
    Put { pool: usize, count: i32 },
    Take { task: usize },
    Finish { task: usize },
    Die { task: usize, code: i32 },
    Cancel { call: usize },
    Pass { seconds: f64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3usize, 1..6i32).prop_map(|(pool, count)| Event::Put { pool, count }),
        (0..8usize).prop_map(|task| Event::Take { task }),
        (0..8usize).prop_map(|task| Event::Take { task }),
        (0..8usize).prop_map(|task| Event::Finish { task }),
        (0..8usize, 0..3i32).prop_map(|(task, code)| Event::Die { task, code }),
        (0..8usize).prop_map(|call| Event::Cancel { call }),
        (0.1..40.0f64).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens, limits hold, no input is with two containers, and once containers do
    /// their work every input has exactly one output.
    #[test]
    fn every_input_gets_exactly_one_output(events in proptest::collection::vec(event(), 1..80)) {
        let names = ["a", "b", "c"];
        let limits = [Some(1), Some(2), None];
        let specs = names.iter().zip(limits).map(|(name, limit)| PoolSpec {
            max_containers: limit,
            timeout: 30.0,
            concurrency: if *name == "b" { 2 } else { 1 },
            ..spec(name)
        });
        let mut s = scheduler(Policy::default(), specs.collect());
        let (mut now, mut calls) = (1.0, Vec::new());
        let mut held: HashMap<String, Vec<String>> = HashMap::new();
        let mut taken: HashSet<String> = HashSet::new();
        let live = |s: &Scheduler| {
            let mut ids: Vec<String> = s.live_tasks().map(|task| task.id.clone()).collect();
            ids.sort();
            ids
        };
        for event in events {
            let tasks = live(&s);
            match event {
                Event::Put { pool, count } => {
                    let call = format!("fc-{}", calls.len());
                    put(&mut s, names[pool], &call, count, now);
                    calls.push(call);
                }
                Event::Take { task } => if let Some(task) = tasks.get(task)
                    && let Take::Inputs(items) = s.take_inputs(task, 1, None, now)
                {
                    for item in items {
                        prop_assert!(taken.insert(item.input_id.clone()), "{} was given out twice", item.input_id);
                        held.entry(task.clone()).or_default().push(item.input_id);
                    }
                }
                Event::Finish { task } => if let Some(task) = tasks.get(task)
                    && let Some(input) = held.get_mut(task).and_then(Vec::pop)
                {
                    s.put_outputs(task, vec![success(&input)], now);
                    // A repeated delivery changes nothing.
                    s.put_outputs(task, vec![success(&input)], now);
                }
                Event::Die { task, code } => if let Some(task) = tasks.get(task) {
                    held.remove(task);
                    s.task_ended(task, exited(code), now);
                }
                Event::Cancel { call } => if let Some(call) = calls.get(call) {
                    s.cancel_call(call, false, now);
                }
                Event::Pass { seconds } => {
                    now += seconds;
                    s.tick(now);
                }
            }
            for (name, limit) in names.iter().zip(limits) {
                let count = s.live_tasks().filter(|task| task.pool_id == *name && !task.draining).count();
                prop_assert!(limit.is_none_or(|limit| count <= limit as usize));
            }
            let cpu: u32 = s.live_tasks().map(|task| task.milli_cpu).sum();
            prop_assert!(cpu <= 2000);
        }
        // From here on every container does its work; those that are told to go, go.
        for _ in 0..400 {
            now += 1.0;
            s.tick(now);
            for task in live(&s) {
                for input in held.remove(&task).unwrap_or_default() {
                    s.put_outputs(&task, vec![success(&input)], now);
                }
                match s.take_inputs(&task, 1, None, now) {
                    Take::Inputs(items) => {
                        let outputs = items.iter().map(|item| success(&item.input_id)).collect();
                        s.put_outputs(&task, outputs, now);
                    }
                    Take::Stop => s.task_ended(&task, exited(0), now),
                    Take::Wait { .. } => {}
                }
            }
        }
        for call in &calls {
            let call = s.call(call).unwrap();
            let mut seen: Vec<i32> = call.page(0, usize::MAX, None).outputs.iter().map(|output| output.idx).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..call.input_count() as i32).collect::<Vec<_>>());
        }
    }
}
