//! What functions are: handles for clients, definitions for containers, demands for the scheduler.

mod demand;
mod options;

use homeport_proto::client as pb;
use homeport_proto::record as rec;

pub use demand::{autoscaler, merged, pool_spec};

use crate::registry::Registry;

/// The definition that a container of the function runs, with the options of its binding.
pub fn definition(registry: &Registry, function: &rec::Function) -> Option<pb::Function> {
    let Some(binding) = &function.binding else {
        return function.definition.clone().or_else(|| first_ranked(function.data.as_ref()?));
    };
    let base = registry.function(&binding.function_id)?;
    let mut definition = definition(registry, &base)?;
    if let Some(asked) = &binding.options {
        options::apply(&mut definition, asked);
    }
    Some(definition)
}

/// The version of the client that the function's containers run: the one that made its definition.
pub fn client_version(registry: &Registry, function: &rec::Function) -> String {
    let base = function.binding.as_ref().and_then(|binding| registry.function(&binding.function_id));
    base.map_or_else(|| function.client_version.clone(), |base| base.client_version.clone())
}

fn first_ranked(data: &pb::FunctionData) -> Option<pb::Function> {
    data.ranked_functions.iter().min_by_key(|ranked| ranked.rank).and_then(|ranked| ranked.function.clone())
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
