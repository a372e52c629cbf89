//! Options that a binding puts over a function's definition.

use homeport_proto::client as pb;

use super::demand::gpu;

/// Puts the options over the definition. What they don't name stays as it is.
pub(super) fn apply(definition: &mut pb::Function, options: &pb::FunctionOptions) {
    let autoscaler = definition.autoscaler_settings.get_or_insert_default();
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
    if let Some(buffer) = options.buffer_containers {
        autoscaler.buffer_containers = Some(buffer);
    }
    if let Some(asked) = &options.resources {
        merge(definition.resources.get_or_insert_default(), asked);
    }
    if let Some(policy) = &options.retry_policy {
        definition.retry_policy = Some(*policy);
    }
    if let Some(timeout) = options.timeout_secs {
        definition.timeout_secs = timeout;
    }
    if let Some(most) = options.max_concurrent_inputs.or(options.target_concurrent_inputs) {
        definition.max_concurrent_inputs = most;
        definition.target_concurrent_inputs = options.target_concurrent_inputs.unwrap_or(most);
    }
    if let Some(size) = options.batch_max_size {
        definition.batch_max_size = size;
    }
    if let Some(linger) = options.batch_linger_ms {
        definition.batch_linger_ms = linger;
    }
    if options.replace_secret_ids || !options.secret_ids.is_empty() {
        definition.secret_ids.clone_from(&options.secret_ids);
    }
    if options.replace_volume_mounts || !options.volume_mounts.is_empty() {
        definition.volume_mounts.clone_from(&options.volume_mounts);
    }
}

/// Clients send all resources as soon as one is named: those that are zero were not.
fn merge(own: &mut pb::Resources, asked: &pb::Resources) {
    if asked.milli_cpu > 0 {
        own.milli_cpu = asked.milli_cpu;
        own.milli_cpu_max = asked.milli_cpu_max;
    }
    if asked.memory_mb > 0 {
        own.memory_mb = asked.memory_mb;
        own.memory_mb_max = asked.memory_mb_max;
    }
    if asked.ephemeral_disk_mb > 0 {
        own.ephemeral_disk_mb = asked.ephemeral_disk_mb;
    }
    if gpu(asked).is_some() {
        own.gpu_config.clone_from(&asked.gpu_config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_replace_what_they_name_and_nothing_else() {
        let mut definition = pb::Function {
            resources: Some(pb::Resources {
                milli_cpu: 1000,
                memory_mb: 512,
                memory_mb_max: 1024,
                gpu_config: Some(pb::GpuConfig { gpu_type: "T4".into(), count: 1, ..Default::default() }),
                ..Default::default()
            }),
            timeout_secs: 60,
            max_concurrent_inputs: 8,
            target_concurrent_inputs: 4,
            ..Default::default()
        };
        let options = pb::FunctionOptions {
            resources: Some(pb::Resources { milli_cpu: 2000, ..Default::default() }),
            max_concurrent_inputs: Some(16),
            buffer_containers: Some(2),
            batch_max_size: Some(3),
            ..Default::default()
        };
        apply(&mut definition, &options);
        let resources = definition.resources.unwrap();
        assert_eq!((resources.milli_cpu, resources.memory_mb, resources.memory_mb_max), (2000, 512, 1024));
        assert_eq!(resources.gpu_config.unwrap().gpu_type, "T4");
        assert_eq!(definition.timeout_secs, 60);
        assert_eq!((definition.max_concurrent_inputs, definition.target_concurrent_inputs), (16, 16));
        assert_eq!(definition.autoscaler_settings.unwrap().buffer_containers, Some(2));
        assert_eq!((definition.batch_max_size, definition.batch_linger_ms), (3, 0));
    }
}
