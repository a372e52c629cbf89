//! Where containers go, and who gives room.

use super::*;

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
    let signals = |effect: &Effect| matches!(effect, Effect::Signal { .. });
    assert!(!s.take_effects().iter().any(signals), "it has time for its exit hooks");
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

fn machine(id: &str, milli_cpu: u32) -> Node {
    Node { id: id.to_owned(), milli_cpu, memory_bytes: 64 * GIB, gpus: Vec::new() }
}

/// Every container takes an input as soon as it may, and finishes what it has after `seconds`.
fn work(s: &mut Scheduler, now: f64, seconds: f64, held: &mut Vec<(String, String, f64)>) {
    for (task, input, since) in std::mem::take(held) {
        if now - since >= seconds {
            s.put_outputs(&task, vec![success(&input)], now);
        } else {
            held.push((task, input, since));
        }
    }
    let mut free: Vec<String> = s.live_tasks().map(|task| task.id.clone()).collect();
    free.retain(|task| !held.iter().any(|(holder, ..)| holder == task));
    for task in free {
        match s.take_inputs(&task, 1, None, now) {
            Take::Inputs(items) => {
                held.extend(items.into_iter().map(|item| (task.clone(), item.input_id, now)));
            }
            Take::Stop => s.task_ended(&task, exited(0), now),
            Take::Wait { .. } => {}
        }
    }
}

#[test]
fn a_function_that_never_pauses_does_not_keep_others_out() {
    // One wants the whole machine, of which the other one's containers leave an eighth of a core at
    // a time, and the last one only after its turn.
    for (milli_cpu, patience) in [(125, 30.0), (1800, 30.0), (2000, 90.0)] {
        let waiting = PoolSpec { milli_cpu, ..spec("waiting") };
        let mut s = scheduler(Policy::default(), vec![spec("greedy"), waiting]);
        put(&mut s, "greedy", "fc", 10_000, 0.0);
        let (mut now, mut held) = (0.0, Vec::new());
        while now < 30.0 {
            now += 0.5;
            s.tick(now);
            work(&mut s, now, 2.0, &mut held);
        }
        put(&mut s, "waiting", "late", 1, now);
        let deadline = now + patience;
        while now < deadline && s.call("late").unwrap().page(0, 1, None).outputs.is_empty() {
            now += 0.5;
            s.tick(now);
            work(&mut s, now, 2.0, &mut held);
        }
        assert_eq!(results(&s, "late").len(), 1, "{milli_cpu} thousandths of a core were not given in time");
        let text: Vec<String> = s
            .take_effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Notice { text, .. } => Some(text),
                _ => None,
            })
            .collect();
        assert_eq!(text, ["waiting waits: what it needs of the machines is with other containers."]);
    }
}

#[test]
fn two_functions_with_room_for_one_take_turns() {
    let whole = |name: &str| PoolSpec { milli_cpu: 2000, ..spec(name) };
    let mut s = scheduler(Policy::default(), vec![whole("one"), whole("two")]);
    put(&mut s, "one", "fc-one", 5000, 0.0);
    put(&mut s, "two", "fc-two", 5000, 0.0);
    let (mut now, mut held) = (0.0, Vec::new());
    while now < 600.0 {
        now += 0.5;
        s.tick(now);
        work(&mut s, now, 1.0, &mut held);
    }
    let done = |call: &str| results(&s, call).len();
    assert!(done("fc-one") > 100 && done("fc-two") > 100, "{} and {}", done("fc-one"), done("fc-two"));
}

#[test]
fn containers_that_are_kept_are_not_asked_to_leave() {
    let kept = PoolSpec { min_containers: 1, milli_cpu: 2000, ..spec("kept") };
    let mut s = scheduler(Policy::default(), vec![kept, spec("waiting")]);
    let task = launches(&mut s).pop().unwrap().task_id;
    assert!(matches!(s.take_inputs(&task, 1, None, 1.0), Take::Wait { .. }));
    put(&mut s, "waiting", "fc", 1, 2.0);
    for now in 3..100 {
        s.tick(f64::from(now));
    }
    assert!(matches!(s.take_inputs(&task, 1, None, 100.0), Take::Wait { .. }));
    let notices = s.take_effects();
    assert_eq!(notices.len(), 1, "said once: {notices:?}");
}

#[test]
fn nobody_leaves_where_it_would_not_be_enough() {
    let mut s = Scheduler::new(Policy::default());
    s.attach_worker(machine("worker", 2000), 0.0);
    for pool in [spec("idle"), PoolSpec { milli_cpu: 1500, ..spec("busy") }] {
        s.set_pool(pool, 0.0);
    }
    put(&mut s, "busy", "fc-busy", 1, 1.0);
    let busy = launches(&mut s).pop().unwrap().task_id;
    take_one(&mut s, &busy, 1.0);
    put(&mut s, "idle", "fc-idle", 1, 1.0);
    let idle = launches(&mut s).pop().unwrap().task_id;
    let input = take_one(&mut s, &idle, 1.5);
    s.put_outputs(&idle, vec![success(&input)], 2.0);
    s.set_pool(PoolSpec { milli_cpu: 1000, ..spec("large") }, 3.0);
    put(&mut s, "large", "fc-large", 1, 3.0);
    s.tick(4.0);
    assert!(!s.task(&idle).unwrap().draining);
}

#[test]
fn a_machine_that_goes_takes_its_room_along() {
    let mut s = Scheduler::new(Policy::default());
    s.attach_worker(machine("a", 1000), 0.0);
    s.attach_worker(machine("b", 1000), 0.0);
    s.set_pool(PoolSpec { milli_cpu: 1000, ..spec("f") }, 0.0);
    put(&mut s, "f", "fc", 3, 1.0);
    let places: Vec<String> = launches(&mut s).into_iter().map(|launch| launch.worker_id).collect();
    assert_eq!(places, ["a", "b"]);
    s.detach_worker("a", 2.0);
    assert!(launches(&mut s).iter().all(|launch| launch.worker_id == "b"));
    s.attach_worker(machine("a", 1000), 3.0);
    assert_eq!(launches(&mut s).first().map(|launch| launch.worker_id.clone()).as_deref(), Some("a"));
}
