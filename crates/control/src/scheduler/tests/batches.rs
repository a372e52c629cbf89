//! Inputs that are handed out in batches.

use super::*;

fn batched(size: u32) -> PoolSpec {
    PoolSpec { batch_size: size, ..spec("f") }
}

fn put_method(s: &mut Scheduler, call: &str, method: &str, count: i32, now: f64) {
    s.open_call(new_call(call, "f", CallKind::Map, false), now);
    let input = |idx| NewInput {
        id: format!("{call}/{idx}"),
        idx,
        payload: pb::FunctionInput { method_name: Some(method.to_owned()), ..Default::default() },
    };
    assert!(s.put_inputs(call, "f", (0..count).map(input).collect(), now));
}

fn taken(take: Take) -> Vec<String> {
    match take {
        Take::Inputs(items) => items.into_iter().map(|item| item.input_id).collect(),
        other => panic!("expected inputs, got {other:?}"),
    }
}

#[test]
fn a_full_batch_is_handed_out_at_once() {
    let mut s = scheduler(Policy::default(), vec![batched(3)]);
    put(&mut s, "f", "fc", 7, 1.0);
    let tasks = launches(&mut s);
    assert_eq!(tasks.len(), 3, "seven inputs, three for each");
    let task = &tasks[0].task_id;
    assert_eq!(taken(s.take_batch(task, 3, 10.0, None, 1.1)), ["fc/0", "fc/1", "fc/2"]);
    assert_eq!(taken(s.take_batch(&tasks[1].task_id, 3, 10.0, None, 1.1)).len(), 3);
}

#[test]
fn a_batch_waits_from_the_arrival_of_its_first_input() {
    let mut s = scheduler(Policy::default(), vec![batched(3)]);
    put(&mut s, "f", "fc", 1, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    match s.take_batch(&task, 3, 2.0, None, 1.5) {
        Take::Wait { until, .. } => assert!((until - 3.0).abs() < 1e-9, "{until}"),
        other => panic!("expected a wait, got {other:?}"),
    }
    put(&mut s, "f", "second", 1, 2.0);
    assert!(matches!(s.take_batch(&task, 3, 2.0, None, 2.0), Take::Wait { .. }));
    assert_eq!(taken(s.take_batch(&task, 3, 2.0, None, 3.0)), ["fc/0", "second/0"]);
}

#[test]
fn a_batch_has_inputs_of_one_method() {
    let mut s = scheduler(Policy::default(), vec![batched(4)]);
    put_method(&mut s, "one", "embed", 2, 1.0);
    put_method(&mut s, "two", "rank", 2, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    assert_eq!(taken(s.take_batch(&task, 4, 60.0, None, 1.0)), ["one/0", "one/1"], "more can't come");
    assert!(matches!(s.take_batch(&task, 4, 60.0, None, 2.0), Take::Wait { .. }));
}

#[test]
fn a_repeated_question_gets_the_same_batch() {
    let mut s = scheduler(Policy::default(), vec![batched(2)]);
    put(&mut s, "f", "fc", 4, 1.0);
    let task = launches(&mut s).pop().unwrap().task_id;
    let mut first = taken(s.take_batch(&task, 2, 5.0, Some("key"), 1.0));
    let mut again = taken(s.take_batch(&task, 2, 5.0, Some("key"), 1.2));
    first.sort();
    again.sort();
    assert_eq!(first, again);
}
