//! The real client library, in every supported version, against a hub on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::fixture::{Hub, write_model, write_weights};

/// The library keeps what it got in pieces of 10 MiB: a break before the first keeps nothing.
const FLAKY_BYTES: usize = 24 << 20;
const CUT_AFTER: usize = 15 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_version_0_23_is_served() {
    drive_library("hf-0.23").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_its_last_version_0_is_served() {
    drive_library("hf-0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_its_last_version_1_is_served() {
    drive_library("hf-1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_version_2_is_served() {
    drive_library("hf-2").await;
}

/// Runs `tests/clients.py` in a virtual environment against a hub with three models.
async fn drive_library(venv: &str) {
    let python = workspace().join(".venvs").join(venv).join("bin/python");
    assert!(python.exists(), "`{}` is missing: run scripts/venvs/hub.sh first", python.display());
    let real_model = workspace().join(".cache/models/all-MiniLM-L6-v2");
    assert!(
        real_model.join("config.json").exists(),
        "`{}` is missing: run scripts/models/minilm.sh first",
        real_model.display()
    );
    let (hub, work) = (Hub::new(), tempfile::tempdir().unwrap());
    let (old, new) = (work.path().join("old"), work.path().join("new"));
    write_model(&old, 1);
    write_model(&new, 2);
    let old_commit = hub.import(&old, "org/tiny", "main").await.commit;
    let new_commit = hub.import(&new, "org/tiny", "main").await.commit;
    hub.import(&old, "org/tiny", "feature/x").await;
    hub.import(&new, "tiny", "main").await;
    let flaky = work.path().join("flaky");
    write_weights(&flaky.join("weights.bin"), FLAKY_BYTES);
    hub.import(&flaky, "org/flaky", "main").await;
    hub.import(&real_model, "sentence-transformers/all-MiniLM-L6-v2", "main").await;
    let expected = json!({
        "old": old, "old_commit": old_commit,
        "new": new, "new_commit": new_commit,
        "real": real_model, "flaky": flaky,
    });

    let server = hub.serve(with_faults_and_log).await;
    let endpoint = format!("http://{}", server.address);
    let output = tokio::process::Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients.py"))
        .arg(expected.to_string())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", work.path())
        .env("HF_HOME", work.path().join("hf"))
        .env("HF_ENDPOINT", &endpoint)
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .current_dir(work.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let limit = std::time::Duration::from_secs(180);
    let output = tokio::time::timeout(limit, output).await.expect("the client hangs").unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    println!("{out}{err}");
    assert!(output.status.success(), "{venv}: {}\n{out}{err}", output.status);
    assert!(out.trim_end().ends_with("all checks passed"), "{venv}: {out}");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What the server was asked, and whether the one broken download is still to come.
#[derive(Clone, Default)]
struct Wire {
    log: Arc<Mutex<Vec<Value>>>,
    broken: Arc<Mutex<bool>>,
}

/// Records every request, gives the record at `/recorded`, and breaks one download.
fn with_faults_and_log(hub: Router) -> Router {
    let wire = Wire::default();
    let log = wire.log.clone();
    hub.layer(middleware::from_fn_with_state(wire, pass))
        .route("/recorded", get(move || async move { Json(std::mem::take(&mut *log.lock().unwrap())) }))
}

async fn pass(State(wire): State<Wire>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let range = request.headers().get("range").map(|value| value.to_str().unwrap().to_owned());
    wire.log.lock().unwrap().push(json!({ "method": method, "path": path, "range": range }));
    let response = next.run(request).await;
    let is_flaky = path.starts_with("/org/flaky/resolve/") && method == "GET";
    if !is_flaky || std::mem::replace(&mut *wire.broken.lock().unwrap(), true) {
        return response;
    }
    response.map(|body| {
        let mut left = CUT_AFTER;
        Body::from_stream(body.into_data_stream().map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            if left == 0 {
                return Err(std::io::Error::other("the connection breaks here"));
            }
            let piece = piece.slice(..piece.len().min(left));
            left -= piece.len();
            Ok(piece)
        }))
    })
}
