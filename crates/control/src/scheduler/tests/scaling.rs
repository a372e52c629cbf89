//! How many containers there are.

use std::collections::HashMap;

use super::*;

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
fn a_container_that_stays_without_work_is_not_woken_all_the_time() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { min_containers: 1, ..spec("f") }]);
    let task = launches(&mut s).pop().unwrap().task_id;
    assert!(matches!(s.take_inputs(&task, 1, None, 1.0), Take::Wait { .. }));
    match s.take_inputs(&task, 1, None, 1000.0) {
        Take::Wait { until, .. } => assert!(until >= 1001.0, "{until}"),
        other => panic!("a container that is kept warm stays, got {other:?}"),
    }
}

fn starting(s: &mut Scheduler) -> Vec<String> {
    launches(s).into_iter().map(|launch| launch.task_id).collect()
}

fn live(s: &Scheduler, pool: &str) -> usize {
    s.live_tasks().filter(|task| task.pool_id == pool && !task.draining).count()
}

#[test]
fn containers_that_the_queue_no_longer_needs_are_given_up() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 4, 1.0);
    let tasks = starting(&mut s);
    assert_eq!(tasks.len(), 4);
    for task in &tasks {
        assert!(s.begin_order(task));
    }
    s.record_stage(&tasks[1], "runtime", 1, 1.5);
    for _ in 0..4 {
        let input = take_one(&mut s, &tasks[0], 2.0);
        s.put_outputs(&tasks[0], vec![success(&input)], 2.1);
    }
    s.tick(2.2);
    assert!(s.take_effects().is_empty(), "the next inputs may come at once");
    s.tick(3.3);
    let killed: Vec<String> = s
        .take_effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Signal { task_id, signal: StopSignal::Kill, .. } => Some(task_id),
            _ => None,
        })
        .collect();
    assert_eq!(killed.len(), 2, "the one that serves stays, and the one whose process runs");
    assert!(killed.iter().all(|id| *id == tasks[2] || *id == tasks[3]));
}

#[test]
fn a_cancelled_call_takes_its_container_back() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 1, 1.0);
    assert_eq!(starting(&mut s).len(), 1);
    s.cancel_call("fc", false, 1.1);
    for now in [1.2, 2.0, 2.4] {
        s.tick(now);
    }
    assert_eq!(live(&s, "f"), 0);
}

#[test]
fn a_buffer_is_kept_as_long_as_there_are_inputs() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { buffer_containers: 2, ..spec("f") }]);
    s.tick(0.5);
    assert!(starting(&mut s).is_empty(), "nothing to do, no buffer");
    put(&mut s, "f", "fc", 1, 1.0);
    let tasks = starting(&mut s);
    assert_eq!(tasks.len(), 3);
    let input = take_one(&mut s, &tasks[0], 2.0);
    for task in &tasks[1..] {
        assert!(matches!(s.take_inputs(task, 1, None, 2.0), Take::Wait { .. }));
        assert!(matches!(s.take_inputs(task, 1, None, 100.0), Take::Wait { .. }), "the buffer stays");
    }
    s.put_outputs(&tasks[0], vec![success(&input)], 101.0);
    assert!(matches!(s.take_inputs(&tasks[1], 1, None, 102.0), Take::Stop));
}

#[test]
fn a_lowered_limit_lets_idle_containers_go_first_and_holds_from_then_on() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    put(&mut s, "f", "fc", 3, 1.0);
    let tasks = starting(&mut s);
    let busy = take_one(&mut s, &tasks[0], 2.0);
    for task in &tasks[1..] {
        let input = take_one(&mut s, task, 2.0);
        s.put_outputs(task, vec![success(&input)], 2.5);
    }
    s.set_pool(PoolSpec { max_containers: Some(1), ..spec("f") }, 3.0);
    assert!(!s.task(&tasks[0]).unwrap().draining);
    put(&mut s, "f", "more", 5, 3.5);
    assert!(starting(&mut s).is_empty(), "those that leave count as long as they are there");
    for task in &tasks[1..] {
        assert!(matches!(s.take_inputs(task, 1, None, 4.0), Take::Stop));
        s.task_ended(task, exited(0), 5.0);
    }
    assert!(starting(&mut s).is_empty());
    s.put_outputs(&tasks[0], vec![success(&busy)], 6.0);
    assert_eq!(take_one(&mut s, &tasks[0], 6.0), "more/0");
}

#[test]
fn a_container_for_one_input_is_followed_by_another_at_once() {
    let mut s = scheduler(Policy::default(), vec![PoolSpec { single_use: true, ..spec("f") }]);
    put(&mut s, "f", "fc", 1, 1.0);
    let first = starting(&mut s).pop().unwrap();
    assert!(s.begin_order(&first));
    let input = take_one(&mut s, &first, 2.0);
    put(&mut s, "f", "next", 1, 2.5);
    let second = starting(&mut s).pop().expect("the first one takes no second input");
    s.put_outputs(&first, vec![success(&input)], 3.0);
    assert!(matches!(s.take_inputs(&first, 1, None, 3.0), Take::Stop));
    assert_eq!(take_one(&mut s, &second, 3.5), "next/0");
    s.tick(40.0);
    let killed = Effect::Signal { worker_id: "worker".into(), task_id: first, signal: StopSignal::Kill };
    assert!(s.take_effects().contains(&killed), "one that hangs at its end is killed");
}

#[test]
fn containers_are_reckoned_by_the_target_and_take_up_to_the_most() {
    let pool = PoolSpec { concurrency: 2, most_concurrency: 5, max_containers: Some(1), ..spec("f") };
    let mut s = scheduler(Policy::default(), vec![pool]);
    put(&mut s, "f", "fc", 20, 1.0);
    let task = starting(&mut s).pop().unwrap();
    assert_eq!(s.concurrency("f", 2, 5), 5, "inputs wait, and there is no other container");
    for _ in 0..20 {
        let input = take_one(&mut s, &task, 2.0);
        s.put_outputs(&task, vec![success(&input)], 2.0);
    }
    assert_eq!(s.concurrency("f", 2, 5), 2);
    s.set_pool(PoolSpec { concurrency: 2, most_concurrency: 5, ..spec("f") }, 3.0);
    put(&mut s, "f", "more", 8, 3.0);
    assert_eq!(starting(&mut s).len() + 1, 4, "eight inputs, two for each");
}

#[test]
fn pools_of_bound_functions_are_forgotten_when_nobody_uses_them() {
    let bound = |name: &str| PoolSpec { is_bound: true, ..spec(name) };
    let mut s =
        scheduler(Policy::default(), vec![spec("plain"), bound("unused"), bound("used"), bound("kept")]);
    s.set_pool(PoolSpec { min_containers: 1, ..bound("kept") }, 0.0);
    for now in 1..100 {
        let now = f64::from(now);
        assert!(s.keep_pool("used", now));
        s.tick(now);
    }
    let retired: Vec<Effect> =
        s.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Retired { .. })).collect();
    assert_eq!(retired, vec![Effect::Retired { function_id: "unused".into() }]);
    assert!(!s.keep_pool("unused", 100.0));
    assert!(["plain", "used", "kept"].iter().all(|id| s.pool(id).is_some()));
}

#[test]
fn ten_thousand_pools_without_work_cost_a_step_nothing() {
    let mut s = scheduler(Policy::default(), vec![spec("f")]);
    for n in 0..10_000 {
        s.set_pool(PoolSpec { is_bound: true, ..spec(&format!("bound-{n}")) }, 0.0);
    }
    s.tick(1.0);
    assert!(s.demanding.is_empty());
    put(&mut s, "f", "fc", 1, 2.0);
    assert_eq!(s.demanding.len(), 1, "a step looks at what may want containers only");
    s.tick(200.0);
    assert_eq!(s.pools.len(), 1);
}
