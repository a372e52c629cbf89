//! What functions are: handles for clients, definitions for containers, demands for the scheduler.

use homeport_proto::client as pb;
use homeport_proto::record as rec;

use crate::registry::Registry;
use crate::scheduler::{GpuDemand, PoolSpec};

/// Seconds for an input when the client names none.
const DEFAULT_TIMEOUT: u32 = 300;
/// Seconds that an idle container stays when the client names none.
const DEFAULT_IDLE: u32 = 60;
/// Thousandths of a core that placement reserves when the client names none.
const DEFAULT_MILLI_CPU: u32 = 125;
/// MiB of memory that placement reserves when the client names none.
const DEFAULT_MEMORY_MB: u32 = 128;

/// The definition that a container of the function runs, with the options of its binding.
pub fn definition(registry: &Registry, function: &rec::Function) -> Option<pb::Function> {
    let Some(binding) = &function.binding else {
        return function.definition.clone().or_else(|| first_ranked(function.data.as_ref()?));
    };
    let base = registry.function(&binding.function_id)?;
    let mut definition = definition(registry, &base)?;
    if let Some(options) = &binding.options {
        apply(&mut definition, options);
    }
    Some(definition)
}

fn first_ranked(data: &pb::FunctionData) -> Option<pb::Function> {
    data.ranked_functions.iter().min_by_key(|ranked| ranked.rank).and_then(|ranked| ranked.function.clone())
}

fn apply(definition: &mut pb::Function, options: &pb::FunctionOptions) {
    let autoscaler = definition.autoscaler_settings.get_or_insert_default();
    if let Some(resources) = &options.resources {
        definition.resources = Some(resources.clone());
    }
    if let Some(policy) = &options.retry_policy {
        definition.retry_policy = Some(*policy);
    }
    if let Some(limit) = options.concurrency_limit {
        definition.concurrency_limit = limit;
        autoscaler.max_containers = Some(limit);
    }
    if let Some(idle) = options.task_idle_timeout_secs {
        definition.task_idle_timeout_secs = idle;
        autoscaler.scaledown_window = Some(idle);
    }
    if let Some(warm) = options.warm_pool_size {
        definition.warm_pool_size = warm;
        autoscaler.min_containers = Some(warm);
    }
    if let Some(timeout) = options.timeout_secs {
        definition.timeout_secs = timeout;
    }
    if let Some(most) = options.max_concurrent_inputs.or(options.target_concurrent_inputs) {
        definition.max_concurrent_inputs = most;
        definition.target_concurrent_inputs = options.target_concurrent_inputs.unwrap_or(most);
    }
    if options.replace_secret_ids || !options.secret_ids.is_empty() {
        definition.secret_ids.clone_from(&options.secret_ids);
    }
    if options.replace_volume_mounts || !options.volume_mounts.is_empty() {
        definition.volume_mounts.clone_from(&options.volume_mounts);
    }
}

/// What a client holds of a function.
pub fn handle(registry: &Registry, function: &rec::Function) -> pb::FunctionHandleMetadata {
    if let Some(binding) = &function.binding
        && let Some(base) = registry.function(&binding.function_id)
    {
        return handle(registry, &base);
    }
    let mut metadata = pb::FunctionHandleMetadata {
        definition_id: format!("de-{}-{}", function.id.trim_start_matches("fu-"), function.generation),
        app_id: function.app_id.clone(),
        ..Default::default()
    };
    if let Some(definition) = definition(registry, function) {
        metadata.function_name = definition.function_name;
        metadata.function_type = definition.function_type;
        metadata.is_method = definition.is_method;
        metadata.use_function_id = definition.use_function_id;
        metadata.use_method_name = definition.use_method_name;
        metadata.class_parameter_info = definition.class_parameter_info;
        metadata.function_schema = definition.function_schema;
        metadata.supported_input_formats = definition.supported_input_formats;
        metadata.supported_output_formats = definition.supported_output_formats;
        metadata.method_handle_metadata = methods(&definition.method_definitions, &function.app_id);
    } else if let Some(precreate) = &function.precreate {
        metadata.function_name.clone_from(&precreate.function_name);
        metadata.function_type = precreate.function_type;
        metadata.is_method = !precreate.use_method_name.is_empty();
        metadata.use_function_id.clone_from(&precreate.use_function_id);
        metadata.use_method_name.clone_from(&precreate.use_method_name);
        metadata.function_schema.clone_from(&precreate.function_schema);
        metadata.supported_input_formats.clone_from(&precreate.supported_input_formats);
        metadata.supported_output_formats.clone_from(&precreate.supported_output_formats);
        metadata.method_handle_metadata = methods(&precreate.method_definitions, &function.app_id);
    }
    metadata
}

fn methods(
    definitions: &std::collections::HashMap<String, pb::MethodDefinition>,
    app_id: &str,
) -> std::collections::HashMap<String, pb::FunctionHandleMetadata> {
    definitions
        .iter()
        .map(|(name, method)| {
            let metadata = pb::FunctionHandleMetadata {
                function_name: method.function_name.clone(),
                function_type: method.function_type,
                is_method: true,
                use_method_name: name.clone(),
                function_schema: method.function_schema.clone(),
                supported_input_formats: method.supported_input_formats.clone(),
                supported_output_formats: method.supported_output_formats.clone(),
                app_id: app_id.to_owned(),
                ..Default::default()
            };
            (name.clone(), metadata)
        })
        .collect()
}

/// The data of a function as the newest clients read it back.
pub fn data(registry: &Registry, function: &rec::Function) -> Option<pb::FunctionData> {
    if let Some(data) = &function.data {
        return Some(data.clone());
    }
    let definition = definition(registry, function)?;
    Some(pb::FunctionData {
        module_name: definition.module_name.clone(),
        function_name: definition.function_name.clone(),
        function_type: definition.function_type,
        timeout_secs: definition.timeout_secs,
        is_class: definition.is_class,
        class_parameter_info: definition.class_parameter_info.clone(),
        is_method: definition.is_method,
        method_definitions: definition.method_definitions.clone(),
        method_definitions_set: definition.method_definitions_set,
        autoscaler_settings: definition.autoscaler_settings,
        function_schema: definition.function_schema.clone(),
        supported_input_formats: definition.supported_input_formats.clone(),
        supported_output_formats: definition.supported_output_formats.clone(),
        ranked_functions: vec![pb::function_data::RankedFunction { rank: 0, function: Some(definition) }],
        ..Default::default()
    })
}

/// Where inputs of a function go: its own pool, or the one of the class that serves the method.
pub struct Route {
    /// The function whose containers take the input.
    pub pool_id: String,
    /// The method to name in the input, where the client leaves that to the server.
    pub method: Option<String>,
}

/// The route of inputs of `function`.
pub fn route(registry: &Registry, function: &rec::Function) -> Route {
    match definition(registry, function) {
        Some(definition) if !definition.use_function_id.is_empty() => {
            Route { pool_id: definition.use_function_id, method: Some(definition.use_method_name) }
        }
        _ => Route { pool_id: function.id.clone(), method: None },
    }
}

/// How the scheduler shall serve the function.
pub fn pool_spec(registry: &Registry, function: &rec::Function) -> Option<PoolSpec> {
    let definition = definition(registry, function)?;
    let resources = definition.resources.clone().unwrap_or_default();
    let autoscaler = definition.autoscaler_settings.unwrap_or_default();
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let max = autoscaler.max_containers.unwrap_or(definition.concurrency_limit);
    let memory_mb = or(resources.memory_mb, DEFAULT_MEMORY_MB);
    let timeout = or(definition.timeout_secs, DEFAULT_TIMEOUT);
    Some(PoolSpec {
        function_id: function.id.clone(),
        app_id: function.app_id.clone(),
        name: definition.function_name.trim_end_matches(".*").to_owned(),
        concurrency: definition.max_concurrent_inputs.max(definition.target_concurrent_inputs).max(1),
        max_containers: (max > 0).then_some(max),
        min_containers: autoscaler.min_containers.unwrap_or(definition.warm_pool_size),
        idle: or(autoscaler.scaledown_window.unwrap_or(definition.task_idle_timeout_secs), DEFAULT_IDLE)
            .into(),
        timeout: timeout.into(),
        startup_timeout: or(definition.startup_timeout_secs, timeout.max(DEFAULT_TIMEOUT)).into(),
        milli_cpu: or(resources.milli_cpu, DEFAULT_MILLI_CPU),
        memory_bytes: u64::from(memory_mb) << 20,
        memory_limit: u64::from(resources.memory_mb_max) << 20,
        gpus: gpus(registry, function),
        is_build: definition.is_builder_function,
    })
}

/// The GPUs that would do, in the order of preference.
fn gpus(registry: &Registry, function: &rec::Function) -> Vec<GpuDemand> {
    if let Some(binding) = &function.binding
        && binding.options.as_ref().is_none_or(|options| options.resources.is_none())
        && let Some(base) = registry.function(&binding.function_id)
    {
        return gpus(registry, &base);
    }
    if function.binding.is_none()
        && let Some(data) = &function.data
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

fn gpu(resources: &pb::Resources) -> Option<GpuDemand> {
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
