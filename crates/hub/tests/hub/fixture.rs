//! A hub in a temporary directory, and a model to import.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use homeport_hub::{
    DirectoryCatalog, HubOptions, HubState, ImportError, ImportOutcome, ImportRequest, import_model, router,
};
use homeport_store::Store;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Bytes of the weights: more than two pieces of a response, and no multiple of one.
pub(crate) const WEIGHTS_BYTES: usize = 5 * 1024 * 1024 / 2 + 12_345;

pub(crate) struct Hub {
    pub(crate) dir: TempDir,
    pub(crate) state: HubState,
}

impl Hub {
    pub(crate) fn new() -> Hub {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let catalog = Arc::new(DirectoryCatalog::open(&dir.path().join("models")).unwrap());
        let options = HubOptions::default();
        Hub { dir, state: HubState { store, catalog, options } }
    }

    pub(crate) async fn import(&self, from: &Path, repo: &str, branch: &str) -> ImportOutcome {
        self.try_import(from, repo, branch, 1_700_000_000).await.unwrap()
    }

    pub(crate) async fn try_import(
        &self,
        from: &Path,
        repo: &str,
        branch: &str,
        now: i64,
    ) -> Result<ImportOutcome, ImportError> {
        let request = ImportRequest {
            directory: from.to_owned(),
            repo: repo.parse().unwrap(),
            branch: branch.parse().unwrap(),
            now,
        };
        import_model(self.state.store.clone(), &*self.state.catalog, request, |_| {}).await
    }

    /// Serves on a free loopback port until the task is aborted.
    pub(crate) async fn serve(&self, wrap: impl FnOnce(axum::Router) -> axum::Router) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = wrap(router(self.state.clone()));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { address, task }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes a small model: texts, an empty file, a name that needs escaping, a directory, and
/// weights in the safetensors format whose bytes depend on `seed`.
pub(crate) fn write_model(directory: &Path, seed: u8) {
    let files: &[(&str, &[u8])] = &[
        ("README.md", b"# A model\n"),
        ("empty.txt", b""),
        ("a b%20c+ü.txt", b"escaped\n"),
        ("1_Pooling/config.json", b"{\"pooling_mode_mean_tokens\": true}\n"),
        ("1_Pooling/deep/notes.txt", b"notes\n"),
    ];
    for (path, content) in files {
        put(directory, path, content);
    }
    put(directory, "config.json", format!("{{\"seed\": {seed}}}\n").as_bytes());
    // Above the inline limit of trees, yet no large file to the hub.
    put(directory, "tokenizer.json", &pattern(600_000, seed));
    put(directory, "model.safetensors", &safetensors(seed));
}

/// Writes one file of incompressible bytes.
pub(crate) fn write_weights(path: &Path, bytes: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, pattern(bytes, 0)).unwrap();
}

fn put(directory: &Path, path: &str, content: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn safetensors(seed: u8) -> Vec<u8> {
    let header = format!(
        "{{\"weight\":{{\"dtype\":\"U8\",\"shape\":[{WEIGHTS_BYTES}],\"data_offsets\":[0,{WEIGHTS_BYTES}]}}}}"
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&pattern(WEIGHTS_BYTES, seed));
    file
}

/// Bytes without a short period, so that a piece at the wrong place shows.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32.wrapping_add(u32::from(seed));
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
