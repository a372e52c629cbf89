//! Layers that a function of the user fills: `run_function` and build methods.
//!
//! The function runs as any other, in a container of the parent image, with one input. When it
//! has returned and the process has ended well, the root of that container is the layer.

use homeport_proto::client as pb;

use homeport_proto::worker::Signal;

use super::{BuildError, Filled, lock};
use crate::clock::Seconds;
use crate::control::Control;
use crate::ids;
use crate::scheduler::{CallKind, Ending, NewCall, NewInput, Outcome};

/// How long a container has to end when its function has returned.
const EXIT_SECONDS: Seconds = 30.0;

impl Control {
    /// Runs the function of a layer and takes what its container wrote.
    pub(super) async fn run_build_function(
        &self,
        image_id: &str,
        request: &pb::ImageGetOrCreateRequest,
        image: &pb::Image,
    ) -> Result<Filled, BuildError> {
        let function_id = request.build_function_id.clone();
        let function = self
            .registry
            .function(&function_id)
            .ok_or_else(|| BuildError::Request(format!("the build function {function_id} does not exist")))?;
        let below = image.base_images.first().map(|base| base.docker_tag.as_str());
        let parent = self.parent(
            image,
            below.ok_or_else(|| BuildError::Request("a build function needs an image below it".into()))?,
        )?;
        lock(&self.builds.functions).insert(function_id.clone(), image_id.to_owned());
        self.refresh_pool(&function);
        let call_id = ids::fresh(&*self.entropy, "fc");
        let mut payload =
            image.build_function.clone().and_then(|function| function.input).unwrap_or_default();
        payload.final_input = true;
        let input = NewInput { id: ids::fresh(&*self.entropy, "in"), idx: 0, payload };
        let call = NewCall {
            id: call_id.clone(),
            function_id: function_id.clone(),
            app_id: function.app_id.clone(),
            parent_input_id: String::new(),
            kind: CallKind::Single,
            durable: false,
        };
        self.with_scheduler(|scheduler, now| {
            scheduler.open_call(call, now);
            scheduler.put_inputs(&call_id, &function_id, vec![input], now);
        });
        let (output, ending) = self.build_outcome(&call_id, &function_id).await;
        lock(&self.builds.functions).remove(&function_id);
        let snapshot = judge(output, ending)?;
        Ok(Filled {
            snapshot,
            config_json: parent.config_json.clone(),
            builder_version: parent.builder_version.clone(),
        })
    }

    /// Waits until the call has its output and the container has gone.
    async fn build_outcome(
        &self,
        call_id: &str,
        pool_id: &str,
    ) -> (Option<pb::GenericResult>, Option<Ending>) {
        let mut returned: Option<Seconds> = None;
        loop {
            let (output, ending, mut change, alone) = self.with_scheduler(|scheduler, _| {
                let call = scheduler.call(call_id);
                let output = call.and_then(|call| call.page(0, 1, None).outputs.pop());
                let ending = scheduler.pool(pool_id).and_then(|pool| pool.last_ending.clone());
                // Stopped before a container was decided: none will ever end.
                let alone = !scheduler.live_tasks().any(|task| task.pool_id == pool_id);
                (output, ending, call.map(crate::scheduler::Call::watch), alone)
            });
            match (&output, &ending, &mut change) {
                (Some(_), _, _) if alone => return (output.and_then(|output| output.result), ending),
                (Some(_), Some(_), _) | (_, _, None) => {
                    return (output.and_then(|output| output.result), ending);
                }
                (output, _, Some(change)) => {
                    let now = self.clock.now();
                    let since = output.is_some().then(|| now - *returned.get_or_insert(now));
                    // An error means that the call is gone, which the next round finds.
                    let Some(since) = since else {
                        let _ = change.changed().await;
                        continue;
                    };
                    if since >= EXIT_SECONDS {
                        self.kill_containers_of(pool_id);
                    }
                    let rest = std::time::Duration::from_secs_f64((EXIT_SECONDS - since).max(1.0));
                    let _ = tokio::time::timeout(rest, change.changed()).await;
                }
            }
        }
    }

    fn kill_containers_of(&self, pool_id: &str) {
        let alive: Vec<(String, String)> = self.with_scheduler(|scheduler, _| {
            let tasks = scheduler.live_tasks().filter(|task| task.pool_id == pool_id);
            tasks.map(|task| (task.worker_id.clone(), task.id.clone())).collect()
        });
        for (worker_id, task_id) in alive {
            self.links.signal(&worker_id, &task_id, Signal::Kill);
        }
    }
}

fn judge(output: Option<pb::GenericResult>, ending: Option<Ending>) -> Result<String, BuildError> {
    let stopped = || BuildError::Function("the build was stopped before its function returned".into());
    let output = output.ok_or_else(stopped)?;
    if output.status() != pb::generic_result::GenericStatus::Success {
        let text = if output.traceback.is_empty() { output.exception } else { output.traceback };
        return Err(BuildError::Function(format!("the build function failed:\n{text}")));
    }
    let ending = ending.ok_or_else(stopped)?;
    match (ending.outcome, ending.snapshot, ending.commit_error) {
        (Outcome::Exit(0), Some(snapshot), _) => Ok(snapshot),
        (Outcome::Exit(0), None, error) => Err(BuildError::Function(format!(
            "what the build function wrote could not be kept: {}",
            error.unwrap_or_else(|| "the worker sent no snapshot".into())
        ))),
        (Outcome::Signal(9), _, _) => Err(BuildError::Function(format!(
            "the build function returned, but its container did not end within {EXIT_SECONDS} s and was killed: \
             end the threads and processes that it started"
        ))),
        (outcome, _, _) => {
            Err(BuildError::Function(format!("the build's container ended badly: {outcome:?}")))
        }
    }
}
