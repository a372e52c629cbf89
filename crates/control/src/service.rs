//! The control plane as routes of an HTTP server.

use axum::Router;
use axum::middleware;
use homeport_proto::client::modal_client_server::ModalClientServer;
use homeport_proto::worker::worker_link_server::WorkerLinkServer;
use tonic::service::Routes;

use crate::auth;
use crate::control::Control;

/// The largest message that is read; clients send build globals and serialized functions whole.
const MAX_MESSAGE: usize = 256 << 20;

impl Control {
    /// The routes of the client's API and of the workers' API, behind authentication.
    pub fn routes(&self) -> Router {
        let client = ModalClientServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let link = WorkerLinkServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Routes::new(client)
            .add_service(link)
            .into_axum_router()
            .layer(middleware::from_fn_with_state(self.clone(), auth::authenticate))
    }
}
