//! Classes.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use crate::auth::Caller;
use crate::control::Control;
use crate::functions;

impl Control {
    pub(super) async fn class_create(
        &self,
        caller: &Caller,
        request: pb::ClassCreateRequest,
    ) -> Result<pb::ClassCreateResponse, Status> {
        let class_id = match request.existing_class_id.as_str() {
            "" => self.new_id(caller, "cs", request.app_id.as_bytes()),
            existing => existing.to_owned(),
        };
        let function_id = self.service_function(&class_id, &request);
        let class = rec::Class {
            id: class_id.clone(),
            app_id: request.app_id,
            function_id,
            methods: request.methods,
            ..Default::default()
        };
        let class = self.define_class(class).await?;
        Ok(pb::ClassCreateResponse { class_id, handle_metadata: Some(self.class_handle(&class)) })
    }

    /// The function that serves a new class. Old clients name it in the class's methods; newer ones
    /// name nothing, and mean a class function of the app that has no class yet. Publication by tag
    /// settles it for good.
    fn service_function(&self, class_id: &str, request: &pb::ClassCreateRequest) -> String {
        let named = request.methods.iter().find_map(|method| {
            let placeholder = self.registry.function(&method.function_id)?;
            let route = functions::route(&self.registry, &placeholder);
            (route.pool_id != method.function_id).then_some(route.pool_id)
        });
        if let Some(id) = named {
            return id;
        }
        let taken: Vec<String> = self
            .registry
            .classes_of(&request.app_id)
            .iter()
            .filter(|class| class.id != class_id)
            .map(|class| class.function_id.clone())
            .collect();
        let is_free_service = |function: &rec::Function| {
            !taken.contains(&function.id)
                && function.binding.is_none()
                && functions::definition(&self.registry, function)
                    .is_some_and(|definition| definition.is_class && !definition.is_builder_function)
        };
        let functions = self.registry.functions_of(&request.app_id);
        functions
            .iter()
            .find(|function| is_free_service(function))
            .map(|function| function.id.clone())
            .unwrap_or_default()
    }

    pub(super) async fn class_get(
        &self,
        _: &Caller,
        request: pb::ClassGetRequest,
    ) -> Result<pb::ClassGetResponse, Status> {
        let app = self.deployed_app(&request.app_name, &request.environment_name)?;
        let class = app.class_ids.get(&request.object_tag).and_then(|id| self.registry.class(id));
        let class = class.ok_or_else(|| {
            Status::not_found(format!("the app `{}` has no class `{}`", request.app_name, request.object_tag))
        })?;
        Ok(pb::ClassGetResponse {
            class_id: class.id.clone(),
            handle_metadata: Some(self.class_handle(&class)),
            ..Default::default()
        })
    }
}
