//! The server's records of how containers started.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::StartOptions;
use crate::BenchError;

/// The route that gives them.
const ROUTE: &str = "/v1/starts";
const PATIENCE: Duration = Duration::from_secs(20);

/// One start. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct StartRecord {
    pub(super) task_id: String,
    pub(super) function_id: String,
    pub(super) decided: f64,
    pub(super) worker_micros: BTreeMap<String, u64>,
    pub(super) process: Option<f64>,
    pub(super) hello: Option<f64>,
    pub(super) ready: Option<f64>,
    pub(super) output: Option<f64>,
}

/// Asks the server for its records.
pub(super) fn fetch(options: &StartOptions) -> Result<Vec<StartRecord>, BenchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::Thread)?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, get(options))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    });
    let refused =
        |reason| BenchError::Server { url: format!("{}{ROUTE}", options.client.server_url), reason };
    let body = answer.map_err(refused)?;
    serde_json::from_slice(&body).map_err(|error| refused(format!("unknown answer: {error}")))
}

async fn get(options: &StartOptions) -> Result<Bytes, String> {
    let request = hyper::Request::get(format!("{}{ROUTE}", options.client.server_url))
        .header("x-modal-token-id", &options.client.token_id)
        .header("x-modal-token-secret", &options.client.token_secret)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    Ok(body)
}
