//! How many containers a function has: asked for, changed while it runs, and seen.

use homeport_proto::client as pb;
use tonic::Status;

use crate::auth::Caller;
use crate::control::Control;
use crate::functions;

/// The longest time that an idle container can be asked to stay, in seconds.
const LONGEST_WINDOW: u32 = 24 * 3600;

impl Control {
    pub(super) async fn function_update_scheduling_params(
        &self,
        _: &Caller,
        request: pb::FunctionUpdateSchedulingParamsRequest,
    ) -> Result<pb::FunctionUpdateSchedulingParamsResponse, Status> {
        // Older clients name the containers to keep, and nothing else.
        let set = request.settings.unwrap_or_else(|| pb::AutoscalerSettings {
            min_containers: Some(request.warm_pool_size_override),
            ..Default::default()
        });
        let named = self.function(&request.function_id).await?;
        let function = self.function(&functions::route(&self.registry, &named).pool_id).await?;
        let definition = functions::definition(&self.registry, &function)
            .ok_or_else(|| super::missing("the definition of function", &function.id))?;
        let current = functions::autoscaler(&self.registry, &function, &definition);
        let settings = functions::merged(current, &set);
        check(definition.function_name.trim_end_matches(".*"), &settings)?;
        let mut function = (*function).clone();
        function.autoscaler = Some(settings);
        let function = if let Some(binding) = &function.binding {
            // What was set holds for the definition that is in force now.
            let base = self.function(&binding.function_id).await?;
            function.generation = base.generation;
            self.registry.put_bound(function).await?
        } else {
            self.registry.put_function(function).await?
        };
        self.refresh_pool(&function);
        Ok(pb::FunctionUpdateSchedulingParamsResponse { current_settings: Some(settings) })
    }

    pub(super) async fn function_get_current_stats(
        &self,
        _: &Caller,
        request: pb::FunctionGetCurrentStatsRequest,
    ) -> Result<pb::FunctionStats, Status> {
        let function = self.function(&request.function_id).await?;
        let pool_id = functions::route(&self.registry, &function).pool_id;
        // One without a pool has nothing to do.
        let stats = self.with_scheduler(|scheduler, _| scheduler.stats(&pool_id)).unwrap_or_default();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(pb::FunctionStats {
            backlog: count(stats.queued),
            num_active_tasks: 0,
            num_total_tasks: count(stats.containers),
            num_running_inputs: count(stats.running),
            input_headroom: count(stats.headroom),
        })
    }

    pub(super) async fn function_get_dynamic_concurrency(
        &self,
        caller: &Caller,
        request: pb::FunctionGetDynamicConcurrencyRequest,
    ) -> Result<pb::FunctionGetDynamicConcurrencyResponse, Status> {
        let task_id = caller.task_id()?;
        let concurrency = self.with_scheduler(|scheduler, _| {
            let pool_id = scheduler.task(task_id).map(|task| task.pool_id.clone()).unwrap_or_default();
            scheduler.concurrency(&pool_id, request.target_concurrency, request.max_concurrency)
        });
        Ok(pb::FunctionGetDynamicConcurrencyResponse { concurrency })
    }
}

/// Settings that contradict themselves are refused.
fn check(name: &str, settings: &pb::AutoscalerSettings) -> Result<(), Status> {
    let least = settings.min_containers.unwrap_or_default();
    if let Some(most) = settings.max_containers.filter(|most| *most > 0 && *most < least) {
        return Err(Status::invalid_argument(format!(
            "{name}: max_containers ({most}) is less than min_containers ({least}); set both"
        )));
    }
    if let Some(window) = settings.scaledown_window.filter(|window| *window > LONGEST_WINDOW) {
        return Err(Status::invalid_argument(format!(
            "{name}: a scaledown_window of {window} s is too long; at most {LONGEST_WINDOW} s"
        )));
    }
    Ok(())
}
