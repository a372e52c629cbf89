//! The control plane as routes of an HTTP server.

use axum::Router;
use axum::middleware;
use homeport_proto::admin::admin_server::AdminServer;
use homeport_proto::client::modal_client_server::ModalClientServer;
use homeport_proto::worker::worker_link_server::WorkerLinkServer;
use tonic::service::Routes;

use crate::admin::AdminService;
use crate::auth;
use crate::control::Control;
use crate::page;
use crate::scheduler::ContainerStart;

/// The largest message that is read; clients send build globals and serialized functions whole.
const MAX_MESSAGE: usize = 256 << 20;

impl Control {
    /// How the recent starts of containers went, newest first.
    pub fn recent_starts(&self) -> Vec<ContainerStart> {
        let mut starts = self.with_scheduler(|scheduler, _| scheduler.starts());
        starts.reverse();
        starts
    }

    /// Adds what the control plane counts to the metrics of the server.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.with_scheduler(|scheduler, _| scheduler.register_metrics(registry));
        self.builds.register_metrics(registry);
        self.storage.metrics.register(registry);
    }

    /// The routes of the client's API and of the workers' API, behind authentication.
    pub fn routes(&self) -> Router {
        let client = ModalClientServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let link = WorkerLinkServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let admin = AdminServer::new(AdminService(self.clone())).max_encoding_message_size(MAX_MESSAGE);
        let control = self.clone();
        let starts = move || async move { axum::Json(control.recent_starts()) };
        Routes::new(client)
            .add_service(link)
            .add_service(admin)
            .into_axum_router()
            .route("/v1/starts", axum::routing::get(starts))
            .layer(middleware::from_fn_with_state(self.clone(), auth::authenticate))
            .merge(Router::new().route("/apps/{id}", axum::routing::get(page::app)).with_state(self.clone()))
    }
}
