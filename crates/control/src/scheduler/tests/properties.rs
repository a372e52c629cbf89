//! Random histories.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// What can happen to a scheduler from outside.
#[derive(Debug, Clone)]
enum Event {
    Put { pool: usize, count: i32 },
    Take { task: usize },
    Finish { task: usize },
    Fail { task: usize },
    Lose { task: usize },
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
        (0..8usize).prop_map(|task| Event::Fail { task }),
        (0..8usize).prop_map(|task| Event::Lose { task }),
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
            retry: if *name == "c" { RetryPolicy { most: 2, first_delay: 3.0, ..Default::default() } } else { Default::default() },
            concurrency: if *name == "b" { 2 } else { 1 },
            ..spec(name)
        });
        let mut s = scheduler(Policy::default(), specs.collect());
        let (mut now, mut calls) = (1.0, Vec::new());
        let mut held: HashMap<String, Vec<String>> = HashMap::new();
        let mut taken: HashSet<(String, u32)> = HashSet::new();
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
                        let attempt = (item.input_id.clone(), item.retry_count);
                        prop_assert!(taken.insert(attempt), "an attempt of {} was given out twice", item.input_id);
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
                Event::Fail { task } => if let Some(task) = tasks.get(task)
                    && let Some(input) = held.get_mut(task).and_then(Vec::pop)
                {
                    s.put_outputs(task, vec![failed(&input)], now);
                }
                Event::Lose { task } => if let Some(task) = tasks.get(task) {
                    held.remove(task);
                    let outcome = Outcome::Lost("the line broke".into());
                    s.task_ended(task, Ending { outcome, ..Default::default() }, now);
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
