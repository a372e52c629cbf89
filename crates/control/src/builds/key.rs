//! What decides the content of a layer.

use homeport_proto::client as pb;
use sha2::{Digest as _, Sha256};

use super::BuildError;
use crate::control::Control;
use crate::ids;

/// Raised when the same request shall no longer find what was built before.
const VERSION: u64 = 1;

/// A layer as a request describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) id: String,
    pub(super) key: String,
    /// The id that it has without force; empty if it is built without, or shall not be found by others.
    pub(super) in_place_of: String,
}

/// The layer that `request` describes.
pub(super) fn layer(control: &Control, request: &pb::ImageGetOrCreateRequest) -> Result<Layer, BuildError> {
    let image =
        request.image.as_ref().ok_or_else(|| BuildError::Request("the request holds no image".into()))?;
    let mut key = Key::new();
    key.part("builder", request.builder_version.as_bytes());
    for base in &image.base_images {
        key.part("base tag", base.docker_tag.as_bytes());
        key.part("base", base.image_id.as_bytes());
    }
    for command in &image.dockerfile_commands {
        key.part("command", command.as_bytes());
    }
    for file in &image.context_files {
        key.part("file", file.filename.as_bytes());
        key.part("content", &file.data);
    }
    if !image.context_mount_id.is_empty() {
        let mount = control.registry.mount(&image.context_mount_id).ok_or_else(|| {
            BuildError::Request(format!("the context mount {} does not exist", image.context_mount_id))
        })?;
        key.part("context", mount.snapshot.as_bytes());
    }
    let mut arguments: Vec<_> = image.build_args.iter().collect();
    arguments.sort();
    for (name, value) in arguments {
        key.part("argument", name.as_bytes());
        key.part("value", value.as_bytes());
    }
    if let Some(function) = &image.build_function {
        key.part("function", function.definition.as_bytes());
        key.part("globals", &function.globals);
        if let Some(pb::function_input::ArgsOneof::Args(arguments)) =
            function.input.as_ref().and_then(|input| input.args_oneof.as_ref())
        {
            key.part("input", arguments);
        }
    }
    if let Some(gpu) = &image.gpu_config {
        key.part("gpu", format!("{} {} {}", gpu.r#type, gpu.gpu_type, gpu.count).as_bytes());
    }
    // Secrets count by what they are for, never by what they say: a new value changes nothing that was built.
    if let Some(registry) = &image.image_registry_config {
        key.part("registry", b"");
        if !registry.secret_id.is_empty() {
            key.part("login", registry.registry_auth_type().as_str_name().as_bytes());
        }
    }
    for name in control.names_of_secrets(&image.secret_ids)? {
        key.part("secret", name.as_bytes());
    }
    // What is in a Volume is not part of an image; which one is seen where decides what a step does.
    for mount in &image.volume_mounts {
        key.part("volume", mount.volume_id.as_bytes());
        key.part("at", mount.mount_path.as_bytes());
        key.part("sub path", mount.sub_path.as_deref().unwrap_or_default().as_bytes());
        key.part("read only", &[mount.read_only.into()]);
    }
    let hex = hex::encode(key.0.finalize());
    let id = ids::derived("im", &[hex.as_bytes()]);
    if !(request.force_build || request.ignore_cache) {
        return Ok(Layer { id, key: hex, in_place_of: String::new() });
    }
    let mut nonce = [0; 16];
    control.entropy.fill(&mut nonce);
    let hex = format!("{hex}-{}", hex::encode(nonce));
    let in_place_of = if request.ignore_cache { String::new() } else { id };
    Ok(Layer { id: ids::derived("im", &[hex.as_bytes()]), key: hex, in_place_of })
}

struct Key(Sha256);

impl Key {
    fn new() -> Self {
        let mut key = Self(Sha256::new());
        key.part("homeport layer", &VERSION.to_le_bytes());
        key
    }

    fn part(&mut self, name: &str, value: &[u8]) {
        for bytes in [name.as_bytes(), value] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }
}
