//! From the decision to start a container to the order that a worker carries out.

use std::collections::HashMap;

use base64::Engine as _;
use homeport_image::ImageConfig;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use prost::Message as _;

use crate::control::Control;
use crate::dialect::{Arguments, Dialect};
use crate::functions;
use crate::scheduler::{Ending, Launch, Outcome};
use crate::secrets::Variables;

/// Where a container finds the control plane: in its own network namespace, served by its worker.
const LISTEN: &str = "127.0.0.1:10101";
const SERVER_URL: &str = "http://127.0.0.1:10101";
const ARGUMENTS_PATH: &str = "/__modal/arguments.bin";
/// Where users' code lies.
const CODE_DIRECTORY: &str = "/root";
const CLIENT_DIRECTORY: &str = "/pkg";
/// Old clients act as a container only if both a task id and a secret are set. The connection is
/// the identity, so the secret is none.
const NO_SECRET: &str = "ts-the-connection-is-the-identity";
/// The share of a machine's memory that a container without a limit may use, in percent.
const MEMORY_SHARE: u64 = 90;

impl Control {
    /// Starts a container, or ends the task with the reason why it can't.
    pub(crate) async fn launch(&self, launch: Launch) {
        let (task_id, worker_id) = (launch.task_id.clone(), launch.worker_id.clone());
        let reason = match self.order(&launch).await {
            Ok(order) => {
                // The order took its time: the task may have been ended meanwhile.
                let begun = self.with_scheduler(|scheduler, now| {
                    scheduler.record_ordered(&task_id, now);
                    scheduler.begin_order(&task_id)
                });
                if !begun {
                    self.volumes.unmount(&task_id);
                    return;
                }
                if self.links.send(&worker_id, wp::order::Order::StartTask(order)) {
                    return;
                }
                format!("worker {worker_id} takes no orders")
            }
            Err(reason) => reason,
        };
        self.volumes.unmount(&task_id);
        let ending = Ending { outcome: Outcome::NotStarted(reason), ..Default::default() };
        self.with_scheduler(|scheduler, now| scheduler.task_ended(&task_id, ending, now));
    }

    async fn order(&self, launch: &Launch) -> Result<wp::StartTask, String> {
        let function = self
            .registry
            .find_function(&launch.function_id)
            .await
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("function {} does not exist any more", launch.function_id))?;
        let definition = functions::definition(&self.registry, &function).ok_or("it was never defined")?;
        let app =
            self.registry.app(&function.app_id).ok_or_else(|| format!("app {} is gone", function.app_id))?;
        let image = self
            .registry
            .image(&definition.image_id)
            .ok_or_else(|| format!("its image {} is not built", definition.image_id))?;
        let log_id = self.builds.image_of(&function.id).unwrap_or_else(|| app.id.clone());
        if let Some(gpu) = &launch.without_gpu {
            let name = definition.function_name.trim_end_matches(".*");
            let text = format!("{name} asks for a GPU ({gpu}) and runs on the CPU: no machine here has one.");
            self.logs.say(&log_id, &text, self.clock.now());
        }
        let layers = self.task_layers(&function, &definition, &image, &log_id).await?;
        let config: ImageConfig = serde_json::from_str(&image.config_json)
            .map_err(|error| format!("the configuration of image {} is damaged: {error}", image.id))?;
        let dialect = Dialect::of(&functions::client_version(&self.registry, &function));
        let arguments = self.arguments(launch, &function, &definition, &app, &dialect).encode_to_vec();
        // An image's own entrypoint comes first: it prepares what it wants to and runs its arguments.
        let mut argv = config.entrypoint.clone();
        argv.extend(["python", "-m", "modal._container_entrypoint"].map(str::to_owned));
        if dialect.arguments == Arguments::CommandLine {
            argv.push(base64::engine::general_purpose::STANDARD.encode(&arguments));
        }
        let resources = definition.resources.clone().unwrap_or_default();
        let secrets = self.secrets.environment(&definition.secret_ids).map_err(|error| error.to_string())?;
        Ok(wp::StartTask {
            task_id: launch.task_id.clone(),
            layers,
            argv,
            env: environment(&config, launch, &definition, &app, secrets),
            workdir: if config.workdir == "/" { CODE_DIRECTORY.to_owned() } else { config.workdir.clone() },
            files: vec![wp::File { path: ARGUMENTS_PATH.to_owned(), data: arguments.into() }],
            limits: Some(wp::Limits {
                milli_cpu: resources.milli_cpu_max,
                memory_bytes: self.memory_limit(&launch.worker_id, &resources),
                pids: 0,
            }),
            devices: launch.devices.clone(),
            commit_on_success: definition.is_builder_function,
            listen: LISTEN.to_owned(),
            volumes: self.volumes_of(launch, &definition, &app.id, &log_id)?,
            network_files: self.network_files_of(&definition)?,
        })
    }

    /// The user's files over the client's package over the image.
    async fn task_layers(
        &self,
        function: &rec::Function,
        definition: &pb::Function,
        image: &rec::Image,
        log_id: &str,
    ) -> Result<Vec<String>, String> {
        let mut layers = Vec::new();
        for mount_id in definition.mount_ids.iter().rev() {
            let mount =
                self.registry.mount(mount_id).ok_or_else(|| format!("mount {mount_id} does not exist"))?;
            if mount.client_version.is_empty() && !layers.contains(&mount.snapshot) {
                layers.push(mount.snapshot.clone());
            }
        }
        let client_version = functions::client_version(&self.registry, function);
        layers.push(self.client_layer(&client_version, image, log_id).await?);
        layers.push(image.snapshot.clone());
        Ok(layers)
    }

    fn network_files_of(&self, definition: &pb::Function) -> Result<Vec<wp::NetworkFiles>, String> {
        let mounts = definition.shared_volume_mounts.iter();
        let mounted = mounts.map(|mount| {
            let record = self
                .network_file_system(&mount.shared_volume_id)
                .map_err(|status| status.message().to_owned())?;
            Ok(wp::NetworkFiles { path: mount.mount_path.clone(), directory: record.id.clone() })
        });
        mounted.collect()
    }

    fn memory_limit(&self, worker_id: &str, resources: &pb::Resources) -> u64 {
        match resources.memory_mb_max {
            0 => self.with_scheduler(|scheduler, _| scheduler.node_memory(worker_id)) / 100 * MEMORY_SHARE,
            limit => u64::from(limit) << 20,
        }
    }

    fn arguments(
        &self,
        launch: &Launch,
        function: &rec::Function,
        definition: &pb::Function,
        app: &rec::App,
        dialect: &Dialect,
    ) -> pb::ContainerArguments {
        let mut definition = definition.clone();
        // Without checkpoints the entrypoint runs as in any other container.
        definition.is_checkpointing_function = false;
        let mut arguments = pb::ContainerArguments {
            task_id: launch.task_id.clone(),
            function_id: function.id.clone(),
            app_id: app.id.clone(),
            serialized_params: function
                .binding
                .as_ref()
                .map(|binding| binding.serialized_params.clone())
                .unwrap_or_default(),
            runtime: "runc".to_owned(),
            environment_name: app.environment.clone(),
            ..Default::default()
        };
        if dialect.arguments == Arguments::CommandLine {
            // A command line is short; the process fetches its code and its layout by calls.
            definition.function_serialized.clear();
            definition.class_serialized.clear();
        } else {
            arguments.app_layout = Some(self.layout(app));
        }
        arguments.function_def = Some(definition);
        arguments
    }
}

fn environment(
    config: &ImageConfig,
    launch: &Launch,
    definition: &pb::Function,
    app: &rec::App,
    secrets: Variables,
) -> HashMap<String, String> {
    let mut env: HashMap<String, String> = [
        ("HOME", CODE_DIRECTORY),
        ("LANG", "C.UTF-8"),
        ("HF_ENDPOINT", SERVER_URL),
        ("PYTHONUNBUFFERED", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    env.extend(config.env.iter().cloned());
    env.extend(secrets);
    let mut python_path = format!("{CODE_DIRECTORY}:{CLIENT_DIRECTORY}");
    if let Some(own) = env.get("PYTHONPATH") {
        python_path = format!("{python_path}:{own}");
    }
    env.extend(
        [
            ("PYTHONPATH", python_path.as_str()),
            ("MODAL_SERVER_URL", SERVER_URL),
            ("MODAL_IS_REMOTE", "1"),
            ("MODAL_TASK_ID", launch.task_id.as_str()),
            ("MODAL_TASK_SECRET", NO_SECRET),
            ("MODAL_IMAGE_ID", definition.image_id.as_str()),
            ("MODAL_ENVIRONMENT", app.environment.as_str()),
            ("MODAL_CONTAINER_ARGUMENTS_PATH", ARGUMENTS_PATH),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    env
}
