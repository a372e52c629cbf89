//! How containers start and end.

use std::collections::HashMap;

use super::*;

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
    s.renew("f", 1.0);
    s.set_pool(PoolSpec { min_containers: 1, idle: 5.0, ..spec("f") }, 1.0);
    let new = launches(&mut s).pop().unwrap().task_id;
    assert!(matches!(s.take_inputs(&old, 1, None, 2.0), Take::Stop));
    assert!(matches!(s.take_inputs(&new, 1, None, 2.0), Take::Wait { .. }));
    assert!(launches(&mut s).is_empty());
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
        "homeport_containers{state=\"starting\"} 1",
        "homeport_inputs_finished_total{status=\"success\"} 1",
        "homeport_inputs_finished_total{status=\"failure\"} 1",
        "homeport_inputs{state=\"running\"} 0",
        "homeport_containers{state=\"serving\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn containers_of_an_old_definition_finish_what_they_hold_beside_the_new_ones() {
    let limited = || PoolSpec { max_containers: Some(1), ..spec("f") };
    let mut s = scheduler(Policy::default(), vec![limited()]);
    put(&mut s, "f", "old", 1, 1.0);
    let old = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &old, 2.0);
    s.renew("f", 3.0);
    s.set_pool(limited(), 3.0);
    put(&mut s, "f", "new", 1, 4.0);
    let new = launches(&mut s).pop().expect("the limit counts containers of one definition").task_id;
    assert_eq!(take_one(&mut s, &new, 5.0), "new/0");
    s.tick(60.0);
    assert!(s.take_effects().is_empty(), "nobody hurries the old one");
    s.put_outputs(&old, vec![success(&input)], 61.0);
    assert_eq!(results(&s, "old").len(), 1);
    assert!(matches!(s.take_inputs(&old, 1, None, 61.0), Take::Stop));
}
