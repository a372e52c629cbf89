//! A registry server on loopback, and images made for it.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// bcrypt of `open sesame`.
const PASSWORD_HASH: &str = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";

/// Debian's `docker-registry` on a free port; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(with_login: bool) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.path().join("data").display()
        );
        if with_login {
            let passwords = dir.path().join("htpasswd");
            fs::write(&passwords, format!("user:{PASSWORD_HASH}\n")).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", passwords.display());
        }
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry can't be started; install it: apt-get install docker-registry");
        let server = Server { child, port, dir };
        let started = Instant::now();
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "docker-registry doesn't listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts the image of an OCI layout into the registry.
    pub(crate) fn push(&self, layout: &Path, name: &str, login: Option<&str>) {
        let mut command = Command::new("skopeo");
        command.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ]);
        if let Some(login) = login {
            command.args(["--dest-creds", login]);
        }
        let output = command
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/{name}", self.host()))
            .output()
            .expect("skopeo can't be started; install it: apt-get install skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The file in which the registry keeps a blob.
    pub(crate) fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a layer is packed.
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// An OCI layout on disk.
pub(crate) struct Layout {
    dir: tempfile::TempDir,
}

/// An image in a layout: its manifest's descriptor, and the digests of its blobs.
pub(crate) struct Image {
    pub(crate) descriptor: Value,
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
}

impl Layout {
    pub(crate) fn new() -> Layout {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.path().join("blobs/sha256").join(&hex), bytes).unwrap();
        format!("sha256:{hex}")
    }

    /// Adds an image of these layers.
    pub(crate) fn image(&self, architecture: &str, env: &[&str], layers: &[(Vec<u8>, Packing)]) -> Image {
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        let mut digests = Vec::new();
        for (tar, packing) in layers {
            let (bytes, suffix) = match packing {
                Packing::Plain => (tar.clone(), ""),
                Packing::Gzip => (gzip(tar), "+gzip"),
                Packing::Zstd => (zstd::encode_all(tar.as_slice(), 3).unwrap(), "+zstd"),
            };
            diff_ids.push(self.blob(tar));
            let digest = self.blob(&bytes);
            descriptors.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": digest, "size": bytes.len(),
            }));
            digests.push(digest);
        }
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": env, "WorkingDir": "/srv", "Cmd": ["python3"], "User": "7:8"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
        })
        .to_string();
        let config_digest = self.blob(config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest, "size": config.len(),
            },
            "layers": descriptors,
        })
        .to_string();
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.blob(manifest.as_bytes()), "size": manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        });
        Image { descriptor, config: config_digest, layers: digests }
    }

    /// Makes one image the layout's content.
    pub(crate) fn publish(&self, image: &Image) {
        self.write_index(std::slice::from_ref(&image.descriptor));
    }

    /// Makes a manifest list of several platforms the layout's content.
    pub(crate) fn publish_list(&self, images: &[&Image]) {
        let manifests: Vec<Value> = images.iter().map(|image| image.descriptor.clone()).collect();
        let list = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        })
        .to_string();
        self.write_index(&[json!({
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": self.blob(list.as_bytes()), "size": list.len(),
        })]);
    }

    fn write_index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Two members, as parallel compressors write them.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut packed = Vec::new();
    for part in [first, second] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(part).unwrap();
        packed.extend(encoder.finish().unwrap());
    }
    packed
}

/// What a layer is made of.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size as u64);
        header
    }

    pub(crate) fn directory(mut self, path: &str, mode: u32) -> Layer {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, io::empty()).unwrap();
        self
    }

    pub(crate) fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Layer {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len());
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    /// Records for the next entry.
    pub(crate) fn records(mut self, records: &[(&str, &[u8])]) -> Layer {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Layer {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub(crate) fn hard_link(mut self, path: &str, target: &str) -> Layer {
        let mut header = Self::header(tar::EntryType::Link, 0o644, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
