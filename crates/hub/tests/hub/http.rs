//! Single requests: headers, ranges, errors, and what no client may reach.

use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use homeport_hub::{ReadAccess, router};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::fixture::{Hub, write_model};

struct Model {
    hub: Hub,
    from: TempDir,
    commit: String,
}

async fn model() -> Model {
    let (hub, from) = (Hub::new(), tempfile::tempdir().unwrap());
    write_model(from.path(), 1);
    let commit = hub.import(from.path(), "org/tiny", "main").await.commit.to_string();
    Model { hub, from, commit }
}

async fn ask(app: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

const WEIGHTS: &str = "/org/tiny/resolve/main/model.safetensors";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_carries_the_headers_that_the_library_reads() {
    let model = model().await;
    let app = router(model.hub.state.clone());
    let weights = fs::read(model.from.path().join("model.safetensors")).unwrap();
    let head = ask(&app, "HEAD", WEIGHTS, &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "x-repo-commit"), model.commit);
    assert_eq!(header(&head, "content-length"), weights.len().to_string());
    assert_eq!(header(&head, "x-linked-size"), weights.len().to_string());
    assert_eq!(header(&head, "etag"), header(&head, "x-linked-etag"));
    assert_eq!(header(&head, "etag").len(), 66);
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    assert!(!head.headers().keys().any(|name| name.as_str().starts_with("x-xet")));
    let get = ask(&app, "GET", WEIGHTS, &[]).await;
    assert_eq!(header(&get, "etag"), header(&head, "etag"));
    assert_eq!(bytes(get).await, weights);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_give_the_very_bytes_of_files_and_of_inline_files() {
    let model = model().await;
    let app = router(model.hub.state.clone());
    for name in ["model.safetensors", "README.md"] {
        let whole = fs::read(model.from.path().join(name)).unwrap();
        let path = format!("/org/tiny/resolve/{}/{name}", model.commit);
        let (size, middle) = (whole.len(), whole.len() / 2);
        let cases = [
            (format!("bytes={middle}-"), middle..size),
            (format!("bytes=1-{middle}"), 1..middle + 1),
            ("bytes=-3".to_owned(), size - 3..size),
        ];
        for (range, expected) in cases {
            let part = ask(&app, "GET", &path, &[("range", &range)]).await;
            assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
            let content_range = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
            assert_eq!(header(&part, "content-range"), content_range);
            assert_eq!(header(&part, "content-length"), expected.len().to_string());
            assert_eq!(bytes(part).await, whole[expected], "{name} {range}");
        }
        let behind = ask(&app, "GET", &path, &[("range", &format!("bytes={size}-"))]).await;
        assert_eq!(behind.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(header(&behind, "content-range"), format!("bytes */{size}"));
        let etag = header(&behind, "etag").to_owned();
        assert_eq!(etag, "");
        let head = ask(&app, "HEAD", &path, &[("range", "bytes=0-1")]).await;
        assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, &*size.to_string()));
        let tag = header(&head, "etag");
        let same = ask(&app, "GET", &path, &[("if-none-match", tag)]).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        let other = [("range", "bytes=1-"), ("if-range", "\"other\"")];
        let whole_again = ask(&app, "GET", &path, &other).await;
        assert_eq!((whole_again.status(), bytes(whole_again).await), (StatusCode::OK, whole));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_out_of_the_model_are_unknown_entries() {
    let model = model().await;
    let app = router(model.hub.state.clone());
    for path in [
        "..%2f..%2f..%2fetc%2fpasswd",
        "../../../../etc/passwd",
        "1_Pooling/../config.json",
        "%2e%2e/config.json",
        "//etc/passwd",
        "1_Pooling",
        ".",
        "config.json%00",
        "config.json/",
        "config.json/x",
    ] {
        for method in ["GET", "HEAD"] {
            let path = format!("/org/tiny/resolve/main/{path}");
            let response = ask(&app, method, &path, &[]).await;
            // A slash at the end is dropped, as the library's own paths may have one.
            if path.ends_with("config.json/") {
                assert_eq!(response.status(), StatusCode::OK);
                continue;
            }
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert_eq!(header(&response, "x-error-code"), "EntryNotFound", "{path}");
            assert_eq!(header(&response, "x-repo-commit"), model.commit);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_says_what_is_missing() {
    let model = model().await;
    let app = router(model.hub.state.clone());
    for (path, status, code) in [
        ("/api/models/org/none", 404, "RepoNotFound"),
        ("/api/models/none", 404, "RepoNotFound"),
        ("/api/models/org/a--b", 404, "RepoNotFound"),
        ("/org/none/resolve/main/x", 404, "RepoNotFound"),
        ("/api/datasets/org/tiny", 404, "RepoNotFound"),
        ("/datasets/org/tiny/resolve/main/x", 404, "RepoNotFound"),
        ("/api/models/org/tiny/revision/v9", 404, "RevisionNotFound"),
        ("/api/models/org/tiny/revision/refs%2Fpr%2F1", 404, "RevisionNotFound"),
        ("/api/models/org/tiny/tree/main/none", 404, "EntryNotFound"),
        ("/api/models/org/tiny/tree/main/config.json", 404, "EntryNotFound"),
        ("/api/whoami-v2", 501, ""),
        ("/api/models/org/tiny/xet-read-token/main", 501, ""),
        ("/api/models/org/tiny/resolve/%FF/x", 501, ""),
        ("/org/tiny/resolve/%FF/x", 400, ""),
    ] {
        let response = ask(&app, "GET", path, &[]).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(header(&response, "x-error-code"), code, "{path}");
        assert!(!header(&response, "x-error-message").is_empty() || status == 400, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_an_error_and_never_wrong_bytes() {
    let model = model().await;
    let app = router(model.hub.state.clone());
    for shard in fs::read_dir(model.hub.state.store.objects_dir()).unwrap() {
        for object in fs::read_dir(shard.unwrap().path()).unwrap() {
            fs::write(object.unwrap().path(), b"short").unwrap();
        }
    }
    let response = ask(&app, "GET", WEIGHTS, &[]).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(header(&response, "x-error-message").contains("5 bytes instead of"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_is_required_others_are_refused() {
    let mut model = model().await;
    let accepts = Arc::new(|token: &str| token == "good");
    model.hub.state.options.read_access = ReadAccess::Bearer(accepts);
    let app = router(model.hub.state.clone());
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer bad")], 401),
        (vec![("authorization", "Bearer good")], 200),
    ] {
        for path in [WEIGHTS, "/api/models/org/tiny"] {
            assert_eq!(ask(&app, "GET", path, &headers).await.status().as_u16(), status);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_other_paths_stay_its_own() {
    let model = model().await;
    let own = || axum::routing::any(async || "own");
    let app = Router::new()
        .route("/modal.client.ModalClient/{*method}", own())
        .route("/blobs/{id}/parts/{number}", own())
        .route("/healthz", own())
        .merge(router(model.hub.state.clone()))
        .fallback(async || "fallback");
    for (path, answer) in [
        ("/modal.client.ModalClient/resolve/main/x", "own"),
        ("/blobs/1/parts/2", "own"),
        ("/healthz", "own"),
        ("/other.Service/Method", "fallback"),
        ("/", "fallback"),
        ("/org/tiny/resolve/main/README.md", "# A model\n"),
    ] {
        let response = ask(&app, "GET", path, &[]).await;
        assert_eq!(bytes(response).await, answer.as_bytes(), "{path}");
    }
}
