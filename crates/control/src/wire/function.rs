//! Functions: announced, defined, bound to parameters, looked up.

use std::sync::Arc;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use super::refused::{absent, absent_option};
use crate::auth::Caller;
use crate::control::Control;
use crate::functions::{self, Route};
use crate::ids;
use crate::validation;

/// The longest parameters of a class. They are part of the record of each set of parameters.
const MOST_PARAMETER_BYTES: usize = 1 << 20;

impl Control {
    pub(super) async fn function_precreate(
        &self,
        caller: &Caller,
        request: pb::FunctionPrecreateRequest,
    ) -> Result<pb::FunctionPrecreateResponse, Status> {
        let function_id = match request.existing_function_id.as_str() {
            "" => self.new_id(caller, "fu", request.function_name.as_bytes()),
            existing => existing.to_owned(),
        };
        // The definition in force stays until a new one is created.
        let mut function =
            self.registry.function(&function_id).map(|known| (*known).clone()).unwrap_or_else(|| {
                rec::Function {
                    id: function_id.clone(),
                    app_id: request.app_id.clone(),
                    client_version: caller.client_version.clone(),
                    ..Default::default()
                }
            });
        function.precreate = Some(request);
        let function = self.registry.put_function(function).await?;
        let handle_metadata = Some(functions::handle(&self.registry, &function));
        Ok(pb::FunctionPrecreateResponse { function_id, handle_metadata })
    }

    pub(super) async fn function_create(
        &self,
        caller: &Caller,
        request: pb::FunctionCreateRequest,
    ) -> Result<pb::FunctionCreateResponse, Status> {
        if self.registry.app(&request.app_id).is_none() {
            return Err(missing("app", &request.app_id));
        }
        let named = request.function.as_ref().map(|function| function.function_name.clone());
        let name = named.or_else(|| request.function_data.as_ref().map(|data| data.function_name.clone()));
        let function_id = match request.existing_function_id.as_str() {
            "" => self.new_id(caller, "fu", name.unwrap_or_default().as_bytes()),
            existing => existing.to_owned(),
        };
        if request.schedule.is_some() {
            return Err(Status::failed_precondition("this Homeport has no schedules yet"));
        }
        let known = self.registry.function(&function_id);
        let function = rec::Function {
            id: function_id.clone(),
            app_id: request.app_id,
            client_version: caller.client_version.clone(),
            precreate: known.as_ref().and_then(|known| known.precreate.clone()),
            definition: request.function,
            data: request.function_data,
            binding: None,
            generation: known.map_or(0, |known| known.generation) + 1,
            ..Default::default()
        };
        let definition = functions::definition(&self.registry, &function)
            .ok_or_else(|| Status::invalid_argument("the request defines no function"))?;
        self.refuse_what_is_missing(&definition)?;
        self.say_what_is_missing(&function.app_id, &definition);
        Box::pin(self.define(&function)).await?;
        Ok(pb::FunctionCreateResponse {
            function_id,
            function: Some(definition),
            handle_metadata: Some(functions::handle(&self.registry, &function)),
            function_data: functions::data(&self.registry, &function),
            ..Default::default()
        })
    }

    /// A function that could never start is refused when it is made, not when it is called.
    fn refuse_what_is_missing(&self, definition: &pb::Function) -> Result<(), Status> {
        validation::function(definition)?;
        let name = &definition.function_name;
        let refuse =
            |what: &str| Err(Status::failed_precondition(format!("{name}: this Homeport has no {what} yet")));
        if let Some(what) = absent(definition) {
            return refuse(what);
        }
        self.check_volume_mounts(&definition.volume_mounts)?;
        self.secrets.check(&definition.secret_ids)?;
        for mount in &definition.shared_volume_mounts {
            self.network_file_system(&mount.shared_volume_id)?;
        }
        for mount_id in &definition.mount_ids {
            if self.registry.mount(mount_id).is_none() {
                return Err(missing("mount", mount_id));
            }
        }
        Ok(())
    }

    /// What a function asks for and does not get, although it runs: said in the app's log, never
    /// left for the user to find out.
    fn say_what_is_missing(&self, app_id: &str, definition: &pb::Function) {
        let disk = definition.resources.as_ref().is_some_and(|resources| resources.ephemeral_disk_mb > 0);
        let lacks = [
            (definition.checkpointing_enabled, "no memory snapshot is taken: each container starts anew"),
            (disk, "ephemeral_disk reserves nothing: a container may use what is free on the machine's disk"),
        ];
        for (_, what) in lacks.iter().filter(|(asked, _)| *asked) {
            let name = definition.function_name.trim_end_matches(".*");
            self.logs.say(app_id, &format!("{name}: {what}."), self.clock.now());
        }
    }

    pub(super) async fn function_get(
        &self,
        _: &Caller,
        request: pb::FunctionGetRequest,
    ) -> Result<pb::FunctionGetResponse, Status> {
        let app = self.deployed_app(&request.app_name, &request.environment_name)?;
        let function = app.function_ids.get(&request.object_tag).and_then(|id| self.registry.function(id));
        let function = function.ok_or_else(|| {
            Status::not_found(format!(
                "the app `{}` has no function `{}`",
                request.app_name, request.object_tag
            ))
        })?;
        Ok(pb::FunctionGetResponse {
            function_id: function.id.clone(),
            handle_metadata: Some(functions::handle(&self.registry, &function)),
            function: functions::data(&self.registry, &function),
            ..Default::default()
        })
    }

    pub(super) async fn function_bind_params(
        &self,
        _: &Caller,
        request: pb::FunctionBindParamsRequest,
    ) -> Result<pb::FunctionBindParamsResponse, Status> {
        let asked = self.function(&request.function_id).await?;
        check_binding(&request)?;
        if let Some(options) = &request.function_options {
            self.check_volume_mounts(&options.volume_mounts)?;
            self.secrets.check(&options.secret_ids)?;
            if let Some(what) = absent_option(options) {
                return Err(Status::failed_precondition(format!("this Homeport has no {what} yet")));
            }
        }
        // A bound placeholder of a method leads to the bound class.
        let target = functions::route(&self.registry, &asked).pool_id;
        let bound = self.bind(&target, &request).await?;
        let mut function = bound;
        if target != asked.id {
            let mut definition = functions::definition(&self.registry, &asked)
                .ok_or_else(|| missing("function", &request.function_id))?;
            definition.use_function_id.clone_from(&function.id);
            let placeholder = rec::Function {
                id: ids::derived("fu", &[asked.id.as_bytes(), function.id.as_bytes()]),
                app_id: asked.app_id.clone(),
                client_version: asked.client_version.clone(),
                definition: Some(definition),
                generation: asked.generation,
                ..Default::default()
            };
            function = self.registry.put_bound(placeholder).await?;
        }
        Ok(pb::FunctionBindParamsResponse {
            bound_function_id: function.id.clone(),
            handle_metadata: Some(functions::handle(&self.registry, &function)),
        })
    }

    /// The function `id` with parameters. The same parameters give the same function, also after the
    /// next deployment, so that all callers share its containers.
    async fn bind(
        &self,
        id: &str,
        request: &pb::FunctionBindParamsRequest,
    ) -> Result<Arc<rec::Function>, Status> {
        let base = self.function(id).await?;
        let options =
            request.function_options.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
        let bound_id = ids::derived("fu", &[id.as_bytes(), &request.serialized_params, options.as_slice()]);
        let known = self.registry.find_function(&bound_id).await?;
        let function = match known.filter(|known| known.generation == base.generation) {
            Some(known) => known,
            None => {
                let function = rec::Function {
                    id: bound_id,
                    app_id: base.app_id.clone(),
                    client_version: base.client_version.clone(),
                    binding: Some(rec::Binding {
                        function_id: id.to_owned(),
                        serialized_params: request.serialized_params.clone(),
                        options: request.function_options.clone(),
                    }),
                    generation: base.generation,
                    ..Default::default()
                };
                let function = self.registry.put_bound(function).await?;
                self.refresh_pool(&function);
                function
            }
        };
        self.serving(&function).await?;
        Ok(function)
    }

    /// The function `id`, for a client that names it.
    pub(super) async fn function(&self, id: &str) -> Result<Arc<rec::Function>, Status> {
        self.registry.find_function(id).await?.ok_or_else(|| missing("function", id))
    }

    /// Where inputs of the function go: to a pool that is there, and stays until they have come.
    pub(super) async fn serving(&self, function: &rec::Function) -> Result<Route, Status> {
        let route = functions::route(&self.registry, function);
        let keep = || self.with_scheduler(|scheduler, now| scheduler.keep_pool(&route.pool_id, now));
        if !keep() {
            // It was forgotten while nobody used it.
            self.refresh_pool(&*self.function(&route.pool_id).await?);
            if !keep() {
                return Err(self.why_unserved(function));
            }
        }
        Ok(route)
    }

    fn why_unserved(&self, function: &rec::Function) -> Status {
        match self.registry.app(&function.app_id).map(|app| app.state()) {
            Some(pb::AppState::Stopping | pb::AppState::Stopped) | None => {
                Status::failed_precondition(format!("the app {} is stopped", function.app_id))
            }
            Some(_) => missing("the definition of function", &function.id),
        }
    }

    pub(super) async fn function_get_serialized(
        &self,
        caller: &Caller,
        request: pb::FunctionGetSerializedRequest,
    ) -> Result<pb::FunctionGetSerializedResponse, Status> {
        let function = self.function(&request.function_id).await?;
        self.own_app(caller, &function.app_id)?;
        let definition = functions::definition(&self.registry, &function)
            .ok_or_else(|| missing("the definition of function", &request.function_id))?;
        Ok(pb::FunctionGetSerializedResponse {
            function_serialized: definition.function_serialized,
            class_serialized: definition.class_serialized,
        })
    }
}

/// What a binding asks for and can't get.
fn check_binding(request: &pb::FunctionBindParamsRequest) -> Result<(), Status> {
    let size = request.serialized_params.len();
    if size > MOST_PARAMETER_BYTES {
        return Err(Status::invalid_argument(format!(
            "the parameters of function {} take {size} bytes, at most {MOST_PARAMETER_BYTES} are allowed: give \
             large values to the methods",
            request.function_id
        )));
    }
    if request.function_options.as_ref().is_some_and(|options| options.replace_cloud_bucket_mounts) {
        return Err(Status::failed_precondition(
            "this Homeport has no cloud bucket mounts yet: use a Volume",
        ));
    }
    Ok(())
}
