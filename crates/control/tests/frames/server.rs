//! The client's API of a real control plane, without a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use futures::StreamExt as _;
use homeport_control::{Control, ControlOptions, Policy, Retention};
use homeport_gateway::{BlobOptions, BlobStore};
use homeport_hub::DirectoryCatalog;
use homeport_meta::{Meta, tokens};
use homeport_store::Store;
use http::{Request, StatusCode};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Users with three versions of the client, two containers, and somebody without a token.
pub(crate) const CALLERS: usize = 6;
const VERSIONS: [&str; 3] = ["0.63.99", "0.77.0", "1.6.4"];
const CREDENTIAL: &str = "of-the-worker";
/// The longest answer that is read.
const ANSWER: usize = 1 << 20;

pub(crate) struct Server {
    router: Router,
    token: tokens::Credentials,
    panics: Arc<AtomicUsize>,
    stop: CancellationToken,
    asked: usize,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let store = Arc::new(Store::open(&path("store")).unwrap());
        let models = Arc::new(DirectoryCatalog::open(&path("models")).unwrap());
        let blobs = BlobOptions::new(path("blobs"));
        let blobs = Arc::new(BlobStore::open(blobs, Arc::new(SystemTime::now)).unwrap());
        let meta = Meta::open(dir.path()).await.unwrap();
        let token = tokens::create(&meta, "fuzz", 0).await.unwrap();
        let options = ControlOptions {
            policy: Policy::default(),
            heartbeat_timeout: 45.0,
            worker_credential: CREDENTIAL.to_owned(),
            base_url: "http://127.0.0.1:1".to_owned(),
            retention: Retention::default(),
            gc_grace: Duration::from_secs(3600),
            models,
            network_files_dir: path("network"),
            secrets_key: path("secrets.key"),
        };
        let control = Control::open(options, meta, store, blobs).await.unwrap();
        // All of it runs on this thread, other tests do not.
        let panics = Arc::new(AtomicUsize::new(0));
        let (counted, here, before) =
            (Arc::clone(&panics), std::thread::current().id(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().id() == here {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
        let stop = CancellationToken::new();
        tokio::spawn(control.clone().run(stop.clone()));
        Server { router: control.routes(), token, panics, stop, asked: 0, _dir: dir }
    }

    /// The first message of the answer, if there is one in time.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        caller: usize,
        message: &[u8],
        patience: Duration,
    ) -> Option<Vec<u8>> {
        self.asked += 1;
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let request = Request::post(format!("http://127.0.0.1:1/modal.client.ModalClient/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-idempotency-key", (self.asked / 3).to_string())
            .header("x-modal-client-version", VERSIONS[caller % VERSIONS.len()]);
        let request = match caller {
            0..3 => request
                .header("x-modal-token-id", &self.token.id)
                .header("x-modal-token-secret", &self.token.secret),
            3 | 4 => request
                .header("x-homeport-worker", CREDENTIAL)
                .header("x-homeport-task", ["ta-1", "ta-2"][caller - 3]),
            _ => request,
        };
        let request = request.body(Body::from(frame)).unwrap();
        let asking = async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{method}");
            let mut body = answer.into_body().into_data_stream();
            let mut bytes = Vec::new();
            while let Some(Ok(piece)) = body.next().await {
                bytes.extend(piece);
                let length = bytes.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()));
                if length.is_some_and(|length| bytes.len() >= 5 + length as usize) || bytes.len() > ANSWER {
                    break;
                }
            }
            bytes.get(5..).map(<[u8]>::to_vec)
        };
        tokio::time::timeout(patience, asking).await.ok().flatten()
    }

    pub(crate) fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    /// An ordinary request is answered as ever.
    pub(crate) async fn still_serves(mut self) {
        let patience = Duration::from_secs(20);
        assert!(self.ask("EnvironmentGetOrCreate", 2, &[], patience).await.is_some());
        self.stop.cancel();
    }
}
