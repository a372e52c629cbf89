//! Calls, their inputs and outputs.

use std::collections::HashMap;

use super::*;

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
fn an_input_put_twice_runs_once() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    put(&mut s, "f", "fc", 1, 1.5);
    assert_eq!(s.call("fc").unwrap().input_count(), 1);
    assert_eq!(launches(&mut s).len(), 1);
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
    s.tick(70.0);
    assert!(s.call("released").is_some(), "its answer may have been lost on its way");
    s.tick(100.0);
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
    assert!(!s.has_room("fc", &inputs(10_000, 10_001)), "an output that nobody read takes its place");
    s.acknowledge_outputs("fc", 1, 3.0);
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
    assert_eq!(s.next_chunks("fc-f", 0).unwrap().unwrap().len(), 1);
    assert!(s.next_chunks("fc-g", 0).unwrap().unwrap().is_empty());
}

#[test]
fn a_restart_keeps_outputs_runs_what_is_open_and_fails_what_lost_its_function() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    let inputs = |call: &str| -> Vec<SavedInput> {
        let input =
            |idx| NewInput { id: format!("{call}/{idx}"), idx, payload: pb::FunctionInput::default() };
        (0..2).map(|idx| SavedInput { input: input(idx), failures: 0 }).collect()
    };
    let output = pb::FunctionGetOutputsItem {
        idx: 0,
        result: Some(pb::GenericResult { status: GenericStatus::Success.into(), ..Default::default() }),
        ..Default::default()
    };
    for (call, pool) in [("fc-1", "f"), ("fc-2", "gone")] {
        s.open_call(new_call(call, pool, CallKind::Map, true), 1.0);
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
        s.open_call(new_call(call, "f", CallKind::Single, durable), 1.0);
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
