//! The life of apps.

use homeport_proto::client as pb;
use homeport_proto::record as rec;

use crate::control::Control;
use crate::functions;
use crate::registry::RegistryError;
use crate::scheduler::TaskPhase;

/// How long the records of an ended app stay for clients that still ask.
const AFTERLIFE: std::time::Duration = std::time::Duration::from_secs(60);

impl Control {
    /// Moves an app to another state.
    pub(crate) async fn set_app_state(&self, app_id: &str, state: pb::AppState) -> Result<(), RegistryError> {
        let Some(app) = self.registry.app(app_id) else { return Ok(()) };
        let mut app = (*app).clone();
        app.set_state(state);
        self.registry.put_app(app).await?;
        if matches!(state, pb::AppState::Ephemeral | pb::AppState::Detached) {
            self.beat(app_id);
        } else {
            self.forget_heartbeat(app_id);
        }
        Ok(())
    }

    /// Ends an app: no more inputs, then no more containers, then the end of its log.
    pub(crate) async fn stop_app(&self, app_id: &str) -> Result<(), RegistryError> {
        let Some(app) = self.registry.app(app_id) else { return Ok(()) };
        if matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped) {
            return Ok(());
        }
        self.set_app_state(app_id, pb::AppState::Stopping).await?;
        self.with_scheduler(|scheduler, now| scheduler.stop_app(app_id, now));
        Ok(())
    }

    /// The last container has gone.
    pub(crate) async fn finish_app(&self, app_id: &str) {
        let Some(app) = self.registry.app(app_id) else { return };
        if app.state() == pb::AppState::Stopped {
            return;
        }
        let mut app = (*app).clone();
        app.set_state(pb::AppState::Stopped);
        app.stopped_at = self.clock.now();
        if let Err(error) = self.registry.put_app(app).await {
            tracing::error!(app = app_id, %error, "the end of the app could not be recorded");
        }
        self.logs.close(app_id);
        let (control, app_id) = (self.clone(), app_id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(AFTERLIFE).await;
            control.with_scheduler(|scheduler, _| scheduler.forget_app(&app_id));
            control.logs.forget(&app_id);
            if let Err(error) = control.registry.clear_app(&app_id).await {
                tracing::error!(app = app_id, %error, "the records of the app could not be removed");
            }
            if let Err(error) = control.secrets.delete_of_app(&app_id).await {
                tracing::error!(app = app_id, %error, "the secrets of the app could not be removed");
            }
            if let Err(error) = control.volumes.delete_of_app(&app_id).await {
                tracing::error!(app = app_id, %error, "the Volumes of the app could not be removed");
            }
        });
    }

    /// Ends ephemeral apps whose client fell silent, and detached ones without a client that have
    /// nothing left to do.
    ///
    /// What that takes goes on beside the caller: the passing of time must not wait for the database.
    pub(crate) fn end_abandoned_apps(&self) {
        for app_id in self.silent_apps() {
            self.forget_heartbeat(&app_id);
            match self.registry.app(&app_id).map(|app| app.state()) {
                Some(pb::AppState::Ephemeral | pb::AppState::Initializing) => {
                    self.logs.say(&app_id, "The client is gone: the app ends.", self.clock.now());
                    self.stop_app_soon(app_id);
                }
                Some(pb::AppState::Detached) => {
                    let control = self.clone();
                    tokio::spawn(async move {
                        let moved = control.set_app_state(&app_id, pb::AppState::DetachedDisconnected).await;
                        if let Err(error) = moved {
                            tracing::error!(app = app_id, %error, "the app's state could not be recorded");
                        }
                    });
                }
                _ => {}
            }
        }
        for app in self.registry.apps() {
            if app.state() != pb::AppState::DetachedDisconnected {
                continue;
            }
            let busy = self.with_scheduler(|scheduler, _| scheduler.app_has_work(&app.id));
            if !busy {
                self.stop_app_soon(app.id.clone());
            }
        }
    }

    fn stop_app_soon(&self, app_id: String) {
        let control = self.clone();
        tokio::spawn(async move {
            if let Err(error) = control.stop_app(&app_id).await {
                tracing::error!(app = app_id, %error, "the app could not be stopped");
            }
        });
    }

    /// Everything of an app that its containers may refer to.
    pub(crate) fn layout(&self, app: &rec::App) -> pb::AppLayout {
        let mut layout = pb::AppLayout {
            function_ids: app.function_ids.clone(),
            class_ids: app.class_ids.clone(),
            ..Default::default()
        };
        let functions: Vec<_> = self
            .registry
            .functions_of(&app.id)
            .into_iter()
            .filter(|function| function.binding.is_none())
            .collect();
        for function in &functions {
            layout.objects.push(self.function_object(function));
        }
        for class in self.registry.classes_of(&app.id) {
            layout.objects.push(self.class_object(&class));
        }
        for function in &functions {
            let Some(definition) = functions::definition(&self.registry, function) else { continue };
            let dependencies = definition.object_dependencies.iter().map(|dependency| &dependency.object_id);
            let volumes = definition.volume_mounts.iter().map(|mount| &mount.volume_id);
            for id in dependencies.chain(volumes) {
                if !layout.objects.iter().any(|object| object.object_id == *id) {
                    layout.objects.push(self.any_object(id));
                }
            }
        }
        layout
    }

    fn any_object(&self, id: &str) -> pb::Object {
        if let Some(function) = self.registry.function(id) {
            return self.function_object(&function);
        }
        if let Some(class) = self.registry.class(id) {
            return self.class_object(&class);
        }
        let volume = self.volumes.find(id).ok();
        let of_volume = volume
            .map(|volume| pb::object::HandleMetadataOneof::VolumeMetadata(crate::volumes::metadata(&volume)));
        let of_mount = || {
            let mount = self.registry.mount(id)?;
            Some(pb::object::HandleMetadataOneof::MountHandleMetadata(crate::wire::mount_metadata(&mount)))
        };
        let metadata = of_volume.or_else(of_mount);
        pb::Object { object_id: id.to_owned(), handle_metadata_oneof: metadata }
    }

    fn function_object(&self, function: &rec::Function) -> pb::Object {
        let metadata = functions::handle(&self.registry, function);
        pb::Object {
            object_id: function.id.clone(),
            handle_metadata_oneof: Some(pb::object::HandleMetadataOneof::FunctionHandleMetadata(metadata)),
        }
    }

    fn class_object(&self, class: &rec::Class) -> pb::Object {
        pb::Object {
            object_id: class.id.clone(),
            handle_metadata_oneof: Some(pb::object::HandleMetadataOneof::ClassHandleMetadata(
                self.class_handle(class),
            )),
        }
    }

    /// What a client holds of a class.
    pub(crate) fn class_handle(&self, class: &rec::Class) -> pb::ClassHandleMetadata {
        let function = self.registry.function(&class.function_id);
        pb::ClassHandleMetadata {
            methods: class.methods.clone(),
            class_function_id: class.function_id.clone(),
            class_function_metadata: function.map(|function| functions::handle(&self.registry, &function)),
        }
    }

    /// Containers of an app that serve.
    pub(crate) fn running_tasks(&self, app_id: &str) -> i32 {
        self.with_scheduler(|scheduler, _| {
            scheduler
                .live_tasks()
                .filter(|task| task.app_id == app_id && task.phase == TaskPhase::Serving)
                .count()
                .try_into()
                .unwrap_or(i32::MAX)
        })
    }

    /// Tells the scheduler how to serve a function that can be served.
    pub(crate) fn refresh_pool(&self, function: &rec::Function) {
        let Some(app) = self.registry.app(&function.app_id) else { return };
        if matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped) {
            return;
        }
        let Some(mut spec) = functions::pool_spec(&self.registry, function) else { return };
        // Placeholders of methods have no containers of their own.
        let is_placeholder = functions::definition(&self.registry, function)
            .is_some_and(|definition| !definition.use_function_id.is_empty());
        if !self.is_in_force(&app, function) {
            spec.min_containers = 0;
        }
        if !is_placeholder {
            self.with_scheduler(|scheduler, now| scheduler.set_pool(spec, now));
        }
    }

    /// The same for all functions of an app, after its publication.
    pub(crate) fn refresh_pools(&self, app_id: &str) {
        for function in self.registry.functions_of(app_id) {
            self.refresh_pool(&function);
        }
    }

    /// Whether the app is published with this function. Containers are kept warm for such ones only:
    /// before, the app isn't whole, and what a later deployment left out would be kept for ever.
    fn is_in_force(&self, app: &rec::App, function: &rec::Function) -> bool {
        let base = match &function.binding {
            None => function.id.as_str(),
            Some(binding) => match self.registry.function(&binding.function_id) {
                Some(base) if base.generation == function.generation => binding.function_id.as_str(),
                _ => return false,
            },
        };
        app.function_ids.values().any(|id| id == base)
    }
}
