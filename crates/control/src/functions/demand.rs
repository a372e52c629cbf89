//! How the scheduler shall serve a function.

use homeport_proto::client as pb;
use homeport_proto::record as rec;

use super::definition;
use crate::registry::Registry;
use crate::scheduler::{GpuDemand, PoolSpec, RetryPolicy};

/// Seconds for an input when the client names none.
const DEFAULT_TIMEOUT: u32 = 300;
/// Seconds that an idle container stays when the client names none.
const DEFAULT_IDLE: u32 = 60;
/// Thousandths of a core that placement reserves when the client names none.
const DEFAULT_MILLI_CPU: u32 = 125;
/// MiB of memory that placement reserves when the client names none.
const DEFAULT_MEMORY_MB: u32 = 128;

/// How the scheduler shall serve the function.
pub fn pool_spec(registry: &Registry, function: &rec::Function) -> Option<PoolSpec> {
    let definition = definition(registry, function)?;
    let resources = definition.resources.clone().unwrap_or_default();
    let autoscaler = autoscaler(registry, function, &definition);
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let timeout = or(definition.timeout_secs, DEFAULT_TIMEOUT);
    let most_concurrency = definition.max_concurrent_inputs.max(definition.target_concurrent_inputs).max(1);
    Some(PoolSpec {
        function_id: function.id.clone(),
        app_id: function.app_id.clone(),
        name: definition.function_name.trim_end_matches(".*").to_owned(),
        concurrency: or(definition.target_concurrent_inputs, most_concurrency),
        most_concurrency,
        batch_size: definition.batch_max_size.max(1),
        single_use: definition.single_use_containers || definition.max_inputs == 1,
        max_containers: autoscaler.max_containers.filter(|most| *most > 0),
        min_containers: autoscaler.min_containers.unwrap_or_default(),
        buffer_containers: autoscaler.buffer_containers.unwrap_or_default(),
        idle: or(autoscaler.scaledown_window.unwrap_or_default(), DEFAULT_IDLE).into(),
        timeout: timeout.into(),
        startup_timeout: or(definition.startup_timeout_secs, timeout.max(DEFAULT_TIMEOUT)).into(),
        retry: definition.retry_policy.as_ref().map(RetryPolicy::from).unwrap_or_default(),
        milli_cpu: or(resources.milli_cpu, DEFAULT_MILLI_CPU),
        memory_bytes: u64::from(or(resources.memory_mb, DEFAULT_MEMORY_MB)) << 20,
        memory_limit: u64::from(resources.memory_mb_max) << 20,
        gpus: gpus(registry, function),
        is_build: definition.is_builder_function,
        is_bound: function.binding.is_some(),
    })
}

/// The autoscaler's settings in force: those of the definition, and over them what was set at run
/// time since that definition came.
pub fn autoscaler(
    registry: &Registry,
    function: &rec::Function,
    definition: &pb::Function,
) -> pb::AutoscalerSettings {
    let named = |value: u32| (value > 0).then_some(value);
    let own = definition.autoscaler_settings.unwrap_or_default();
    let base = pb::AutoscalerSettings {
        min_containers: own.min_containers.or(named(definition.warm_pool_size)),
        max_containers: own.max_containers.or(named(definition.concurrency_limit)),
        scaledown_window: own.scaledown_window.or(named(definition.task_idle_timeout_secs)),
        ..own
    };
    let is_current = function.binding.as_ref().is_none_or(|binding| {
        registry.function(&binding.function_id).is_some_and(|base| base.generation == function.generation)
    });
    function.autoscaler.as_ref().filter(|_| is_current).map_or(base, |set| merged(base, set))
}

/// The settings with what `set` names in their place.
pub fn merged(base: pb::AutoscalerSettings, set: &pb::AutoscalerSettings) -> pb::AutoscalerSettings {
    pb::AutoscalerSettings {
        min_containers: set.min_containers.or(base.min_containers),
        max_containers: set.max_containers.or(base.max_containers),
        buffer_containers: set.buffer_containers.or(base.buffer_containers),
        scaledown_window: set.scaledown_window.or(base.scaledown_window),
        ..base
    }
}

/// The GPUs that would do, in the order of preference.
fn gpus(registry: &Registry, function: &rec::Function) -> Vec<GpuDemand> {
    if let Some(binding) = &function.binding {
        let asked = binding.options.as_ref().and_then(|options| gpu(options.resources.as_ref()?));
        return match (asked, registry.function(&binding.function_id)) {
            (Some(asked), _) => vec![asked],
            (None, Some(base)) => gpus(registry, &base),
            (None, None) => Vec::new(),
        };
    }
    if let Some(data) = &function.data
        && data.ranked_functions.len() > 1
    {
        let mut ranked: Vec<_> = data.ranked_functions.iter().collect();
        ranked.sort_by_key(|ranked| ranked.rank);
        return ranked
            .iter()
            .filter_map(|ranked| gpu(ranked.function.as_ref()?.resources.as_ref()?))
            .collect();
    }
    definition(registry, function)
        .and_then(|definition| definition.resources)
        .and_then(|resources| gpu(&resources))
        .into_iter()
        .collect()
}

/// The GPU that is asked for; none if none is.
pub(super) fn gpu(resources: &pb::Resources) -> Option<GpuDemand> {
    let config = resources.gpu_config.as_ref()?;
    let model = if config.gpu_type.is_empty() {
        match config.r#type() {
            pb::GpuType::Unspecified => return None,
            pb::GpuType::Any => None,
            pb::GpuType::A10080gb => Some("A100-80GB".to_owned()),
            named => Some(named.as_str_name().trim_start_matches("GPU_TYPE_").replace('_', "-")),
        }
    } else {
        let word = config.gpu_type.to_ascii_uppercase();
        (word != "ANY").then_some(word)
    };
    Some(GpuDemand { model, count: config.count.max(1) })
}
