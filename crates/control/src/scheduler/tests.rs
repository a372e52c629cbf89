//! Histories of calls and containers under a clock of the test's own.

mod batches;
mod calls;
mod containers;
mod fleet;
mod placement;
mod properties;
mod retries;
mod scaling;

use homeport_proto::client as pb;
use pb::generic_result::GenericStatus;

use super::*;

const GIB: u64 = 1 << 30;

fn spec(name: &str) -> PoolSpec {
    PoolSpec {
        function_id: name.to_owned(),
        app_id: "ap-1".to_owned(),
        name: name.to_owned(),
        concurrency: 1,
        most_concurrency: 1,
        batch_size: 1,
        single_use: false,
        max_containers: None,
        min_containers: 0,
        buffer_containers: 0,
        retry: RetryPolicy::default(),
        idle: 60.0,
        timeout: 300.0,
        startup_timeout: 300.0,
        milli_cpu: 125,
        memory_bytes: GIB / 8,
        memory_limit: 0,
        gpus: Vec::new(),
        is_build: false,
        is_bound: false,
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

fn new_call(id: &str, function: &str, kind: CallKind, durable: bool) -> NewCall {
    NewCall {
        id: id.to_owned(),
        function_id: function.to_owned(),
        app_id: "ap-1".to_owned(),
        parent_input_id: String::new(),
        kind,
        durable,
    }
}

fn put(scheduler: &mut Scheduler, pool: &str, call: &str, count: i32, now: f64) {
    scheduler.open_call(new_call(call, pool, CallKind::Map, false), now);
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

fn failed(input_id: &str) -> pb::FunctionPutOutputsItem {
    let result = pb::GenericResult { status: GenericStatus::Failure.into(), ..Default::default() };
    pb::FunctionPutOutputsItem { result: Some(result), ..success(input_id) }
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
