//! Metrics in the Prometheus text format.

use std::sync::{Arc, Mutex, PoisonError};

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The server's metrics. Cheap to clone: clones share the registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { registry: Arc::new(Mutex::new(Registry::with_prefix("homeport"))) }
    }
}

impl Metrics {
    /// Lets a part of the server add its counters; their names get the prefix `homeport_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn response(&self) -> Response {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => {
                let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, format)], text).into_response()
            }
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics").into_response(),
        }
    }
}
