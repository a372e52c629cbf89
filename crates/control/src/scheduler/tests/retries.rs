//! Attempts that fail, and what comes after them.

use super::*;

fn retrying(most: u32) -> PoolSpec {
    let retry = RetryPolicy { most, first_delay: 2.0, factor: 2.0, longest_delay: 60.0 };
    PoolSpec { retry, max_containers: Some(1), ..spec("f") }
}

/// The container's next input, if there is one now, with the number of its attempts before.
fn next(s: &mut Scheduler, task: &str, now: f64) -> Option<(String, u32)> {
    match s.take_inputs(task, 1, None, now) {
        Take::Inputs(mut items) => items.pop().map(|item| (item.input_id, item.retry_count)),
        _ => None,
    }
}

#[test]
fn a_failed_input_is_tried_again_after_growing_delays_and_then_fails() {
    let mut s = scheduler(Policy::default(), vec![retrying(2)]);
    put(&mut s, "f", "fc", 1, 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    for (attempt, at) in [(0, 1.0), (1, 3.5), (2, 8.0)] {
        s.tick(at);
        let (input, count) = next(&mut s, &task, at).unwrap();
        assert_eq!(count, attempt);
        assert_eq!(s.is_final(&task, &input, failed(&input).result.as_ref()), attempt == 2);
        s.put_outputs(&task, vec![failed(&input)], at);
        assert_eq!(results(&s, "fc").len(), usize::from(attempt == 2));
        s.tick(at + 1.9);
        assert_eq!(next(&mut s, &task, at + 1.9), None, "it waits before its next attempt");
    }
    assert_eq!(results(&s, "fc")[0].status(), GenericStatus::Failure);
    // A client that retries nothing itself takes outputs of other attempts than its first for old ones.
    assert_eq!(s.call("fc").unwrap().page(0, 1, None).outputs[0].retry_count, 0);
}

#[test]
fn a_later_attempt_may_succeed() {
    let mut s = scheduler(Policy::default(), vec![retrying(1)]);
    put(&mut s, "f", "fc", 1, 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 1.0);
    s.put_outputs(&task, vec![failed(&input)], 1.0);
    s.tick(3.1);
    let input = take_one(&mut s, &task, 3.1);
    s.put_outputs(&task, vec![success(&input)], 3.2);
    let statuses: Vec<_> = results(&s, "fc").iter().map(pb::GenericResult::status).collect();
    assert_eq!(statuses, [GenericStatus::Success]);
}

#[test]
fn a_death_a_lack_of_memory_and_a_timeout_count_as_attempts() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { timeout: 10.0, ..retrying(3) }]);
    put(&mut s, "f", "fc", 1, 0.0);
    let mut now = 0.0;
    for death in ["exit", "memory", "timeout"] {
        let task = launches(&mut s).pop().unwrap().task_id;
        now += 1.0;
        take_one(&mut s, &task, now);
        if death == "timeout" {
            now += 11.0;
            s.tick(now);
        }
        let out_of_memory = death == "memory";
        s.task_ended(&task, Ending { out_of_memory, ..exited(137) }, now);
        assert!(results(&s, "fc").is_empty(), "{death}");
        now += 20.0;
        s.tick(now);
    }
    let task = launches(&mut s).pop().unwrap().task_id;
    assert_eq!(next(&mut s, &task, now), Some(("fc/0".to_owned(), 3)));
    s.task_ended(&task, exited(3), now);
    assert!(results(&s, "fc")[0].exception.contains("code 3"));
}

#[test]
fn a_container_that_is_lost_or_stopped_costs_no_attempt_and_its_input_comes_first_again() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { max_containers: Some(1), ..spec("f") }]);
    put(&mut s, "f", "fc", 2, 0.0);
    let lost = Ending { outcome: Outcome::Lost("its machine is gone".into()), ..Default::default() };
    for turn in 1..=8 {
        let task = launches(&mut s).pop().unwrap().task_id;
        assert!(s.begin_order(&task));
        assert_eq!(take_one(&mut s, &task, 1.0), "fc/0", "turn {turn}");
        if turn % 2 == 0 {
            s.drain(&task, 2.0);
            s.task_ended(&task, exited(0), 3.0);
        } else {
            s.task_ended(&task, lost.clone(), 3.0);
        }
        s.tick(3.0);
    }
    let task = launches(&mut s).pop().unwrap().task_id;
    take_one(&mut s, &task, 4.0);
    s.task_ended(&task, lost, 5.0);
    let results = results(&s, "fc");
    assert_eq!(results.len(), 1, "not for ever");
    assert_eq!(results[0].status(), GenericStatus::InternalFailure);
    assert!(results[0].exception.contains("its machine is gone"), "{results:?}");
}

#[test]
fn inputs_beside_one_that_takes_too_long_start_again_elsewhere() {
    let slow = PoolSpec { concurrency: 2, most_concurrency: 2, timeout: 10.0, ..spec("f") };
    let mut s = scheduler(Policy::default(), vec![slow]);
    put(&mut s, "f", "fc", 2, 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    take_one(&mut s, &task, 1.0);
    take_one(&mut s, &task, 8.0);
    s.tick(12.0);
    s.task_ended(&task, Ending { outcome: Outcome::Signal(9), ..Default::default() }, 12.1);
    assert_eq!(results(&s, "fc").len(), 1);
    s.tick(12.2);
    let other = launches(&mut s).pop().unwrap().task_id;
    assert_eq!(take_one(&mut s, &other, 13.0), "fc/1");
}

#[test]
fn an_input_that_waits_for_its_retry_can_be_cancelled_and_ends_with_its_app() {
    let mut s = scheduler(Policy::default(), vec![retrying(5)]);
    put(&mut s, "f", "cancelled", 1, 0.0);
    put(&mut s, "f", "stopped", 1, 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    for _ in 0..2 {
        let input = take_one(&mut s, &task, 1.0);
        s.put_outputs(&task, vec![failed(&input)], 1.0);
    }
    s.cancel_call("cancelled", false, 1.5);
    assert_eq!(results(&s, "cancelled")[0].status(), GenericStatus::Terminated);
    s.stop_app("ap-1", 1.6);
    assert!(results(&s, "stopped")[0].exception.contains("stopped"));
    s.tick(100.0);
    assert_eq!(next(&mut s, &task, 100.0), None);
}

#[test]
fn a_repeated_delivery_of_a_failure_costs_one_attempt() {
    let mut s = scheduler(Policy::default(), vec![retrying(1)]);
    put(&mut s, "f", "fc", 1, 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 1.0);
    assert!(!s.has_brought(&task, Some("key")));
    s.note_brought(&task, Some("key"));
    s.put_outputs(&task, vec![failed(&input)], 1.0);
    s.tick(4.0);
    take_one(&mut s, &task, 4.0);
    assert!(s.has_brought(&task, Some("key")), "the second attempt must not fail by the first one's output");
    assert!(!s.has_brought(&task, None));
}

#[test]
fn a_container_that_keeps_a_cancelled_input_is_ended() {
    let mut s = scheduler(Policy::default(), vec![spec("f"), spec("g")]);
    for pool in ["f", "g"] {
        put(&mut s, pool, pool, 1, 0.0);
    }
    let tasks = launches(&mut s);
    for task in &tasks {
        assert!(s.begin_order(&task.task_id));
        take_one(&mut s, &task.task_id, 1.0);
        s.cancel_call(&task.function_id, false, 2.0);
        assert_eq!(s.take_cancelled(&task.task_id).len(), 1);
    }
    // The one lets go of its input and asks for another, the other does not.
    assert!(matches!(s.take_inputs(&tasks[0].task_id, 1, None, 3.0), Take::Wait { .. }));
    s.tick(11.0);
    assert!(s.take_effects().is_empty());
    s.tick(12.5);
    let kill = Effect::Signal {
        worker_id: "worker".into(),
        task_id: tasks[1].task_id.clone(),
        signal: StopSignal::Kill,
    };
    assert_eq!(s.take_effects(), vec![kill]);
}

#[test]
fn attempts_before_a_restart_count() {
    let mut s = scheduler(Policy::default(), vec![retrying(2)]);
    s.open_call(new_call("fc", "f", CallKind::Single, true), 0.0);
    let input = NewInput { id: "fc/0".into(), idx: 0, payload: pb::FunctionInput::default() };
    s.restore_inputs("fc", "f", vec![SavedInput { input, failures: 1 }], Vec::new(), 0.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &task, 1.0);
    s.put_outputs(&task, vec![failed(&input)], 1.0);
    let noted = Effect::SaveFailures { input_id: "fc/0".into(), failures: 2 };
    assert!(s.take_effects().contains(&noted));
    s.tick(10.0);
    let input = take_one(&mut s, &task, 10.0);
    s.put_outputs(&task, vec![failed(&input)], 10.0);
    assert_eq!(results(&s, "fc").len(), 1);
}

#[test]
fn what_the_reader_of_a_long_map_has_needs_no_memory() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { max_containers: Some(1), ..spec("f") }]);
    s.open_call(new_call("fc", "f", CallKind::Map, false), 0.0);
    let mut task = String::new();
    for idx in 0..3000 {
        let input = NewInput { id: format!("fc/{idx}"), idx, payload: pb::FunctionInput::default() };
        s.put_inputs("fc", "f", vec![input.clone()], 1.0);
        task = launches(&mut s).pop().map_or(task, |launch| launch.task_id);
        let taken = take_one(&mut s, &task, 1.0);
        s.put_outputs(&task, vec![success(&taken)], 1.0);
        let cursor = s.call("fc").unwrap().page(0, usize::MAX, None).next;
        s.acknowledge_outputs("fc", cursor, 1.0);
        // The same request again: its input is known although it is forgotten.
        s.put_inputs("fc", "f", vec![input], 1.0);
    }
    let call = s.call("fc").unwrap();
    assert_eq!((call.input_count(), call.page(0, 10, None).outputs.len(), call.unfinished), (3000, 0, 0));
    assert!(s.inputs.len() <= 1001, "{}", s.inputs.len());
    assert!(s.pool("f").unwrap().queue.is_empty());
}

#[test]
fn the_graph_of_a_call_holds_its_callers_and_what_it_called() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "outer", 1, 0.0);
    for (call, parent) in [("inner", "outer/0"), ("other", "")] {
        let new = NewCall { parent_input_id: parent.into(), ..new_call(call, "f", CallKind::Map, false) };
        s.open_call(new, 0.0);
        let input = NewInput { id: format!("{call}/0"), idx: 0, payload: pb::FunctionInput::default() };
        s.put_inputs(call, "f", vec![input], 0.0);
    }
    for asked in ["outer", "inner"] {
        let graph = s.call_graph(asked).unwrap();
        let ids: Vec<_> = graph.calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!((ids, graph.truncated), (vec!["outer", "inner"], false));
    }
    assert!(s.call_graph("none").is_none());
}
