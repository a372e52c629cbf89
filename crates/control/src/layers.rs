//! Layers with the client's own package, one for each version and kind of Python.
//!
//! A container runs the version of the client that deployed its function. The layer is made once,
//! by the Python of the image that first needs it, with its bytecode compiled, and kept for good:
//! afterwards it needs no network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use homeport_content::{EntryRef, FileContent, Leaf, LeafKind, SnapshotId};
use homeport_meta::steps;
use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use homeport_store::{Pin, Root};
use tokio::sync::OnceCell;

use crate::control::Control;
use crate::dialect;
use crate::ids;

/// Raised when the content of client layers changes.
const LAYOUT: u32 = 1;

/// The layers that are being made or were asked for.
#[derive(Debug, Default)]
pub struct ClientLayers {
    cells: Mutex<HashMap<String, Arc<OnceCell<Kept>>>>,
}

/// A layer that stays in the store for as long as it is remembered.
#[derive(Debug)]
struct Kept {
    snapshot: String,
    _pin: Option<Pin>,
}

impl ClientLayers {
    fn cell(&self, key: &str) -> Arc<OnceCell<Kept>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(key.to_owned()).or_default())
    }
}

impl Control {
    /// The layer with client `version` for containers of `image`, made if it isn't there.
    pub(crate) async fn client_layer(
        &self,
        version: &str,
        image: &rec::Image,
        log_id: &str,
    ) -> Result<String, String> {
        let python = self.python_of(image).await?;
        let builder = if dialect::image_holds_dependencies(&image.builder_version) {
            "-".to_owned()
        } else {
            image.builder_version.clone()
        };
        let key = format!("client layer {LAYOUT} {version} {python} {builder}");
        let argv = ["python", "/__modal/client_layer.py", version, &builder].map(str::to_owned).to_vec();
        self.cached_command(
            &key,
            image,
            argv,
            "client_layer.py",
            include_str!("layers/client_layer.py"),
            "/pkg",
            || {
                self.logs.say(
                    log_id,
                    &format!("Installing the client {version} for {python}, once…"),
                    self.clock.now(),
                );
            },
        )
        .await
        .map_err(|error| format!("the client package {version} could not be installed: {error}"))
    }

    /// What the image's Python says of itself.
    async fn python_of(&self, image: &rec::Image) -> Result<String, String> {
        let key = format!("python probe {}", image.snapshot);
        let argv = ["python", "/__modal/python_probe.py"].map(str::to_owned).to_vec();
        let script = include_str!("layers/python_probe.py");
        let snapshot = self
            .cached_command(&key, image, argv, "python_probe.py", script, "/homeport-probe", || ())
            .await
            .map_err(|error| format!("the image has no working `python`: {error}"))?;
        let id: SnapshotId = snapshot.parse().map_err(|_| format!("{snapshot} is not a snapshot id"))?;
        let tree = self.store.tree(&id).map_err(|error| error.to_string())?;
        match tree.get(b"homeport-probe/python") {
            Some(EntryRef::Leaf(_, Leaf { kind: LeafKind::File(FileContent::Inline(bytes)), .. })) => {
                Ok(String::from_utf8_lossy(bytes).trim().to_owned())
            }
            _ => Err("the probe of the image's python wrote nothing".to_owned()),
        }
    }

    fn kept(&self, snapshot: String) -> Kept {
        let pin = snapshot.parse().ok().map(|id| self.store.pin([Root::Tree(id)]));
        Kept { snapshot, _pin: pin }
    }

    /// The snapshot of what a script leaves in `keep`, found by `key` or made in a container of `image`.
    #[allow(clippy::too_many_arguments)]
    async fn cached_command(
        &self,
        key: &str,
        image: &rec::Image,
        argv: Vec<String>,
        file: &str,
        script: &str,
        keep: &str,
        before: impl FnOnce(),
    ) -> Result<String, String> {
        let cell = self.client_layers.cell(key);
        let make = || async {
            let meta = self.registry.meta();
            let _hold = self.store.hold();
            if let Some(step) = self.find_step(key).await.map_err(|error| error.to_string())? {
                return Ok(self.kept(step.snapshot));
            }
            before();
            let config: homeport_image::ImageConfig =
                serde_json::from_str(&image.config_json).map_err(|error| error.to_string())?;
            let command = wp::RunCommand {
                layers: vec![image.snapshot.clone()],
                argv,
                env: config.env.into_iter().collect(),
                workdir: "/".to_owned(),
                keep_only: vec![keep.to_owned()],
                files: vec![wp::File {
                    path: format!("/__modal/{file}"),
                    data: script.as_bytes().to_vec().into(),
                }],
                ..Default::default()
            };
            let step_id = ids::fresh(&*self.entropy, "bs");
            let step = wp::run_step::Step::RunCommand(command);
            let log = format!("layer {key}");
            let outcome = self.links.run_step(&step_id, step, Some(log.clone())).await;
            let output: String =
                self.logs.page(&log, 0).entries.iter().map(|entry| entry.text.as_str()).collect();
            self.logs.forget(&log);
            let result = outcome.map_err(|error| format!("{error}\n{output}").trim().to_owned())?;
            let step =
                steps::Step { cache_key: key.to_owned(), snapshot: result.snapshot, config: Vec::new() };
            steps::put(meta, &step).await.map_err(|error| error.to_string())?;
            Ok(self.kept(step.snapshot))
        };
        cell.get_or_try_init(make).await.map(|kept| kept.snapshot.clone())
    }
}
