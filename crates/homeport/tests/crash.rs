//! Power loss: whatever was acknowledged is whole after a crash at any moment. Needs root.
//!
//! A real server works on a disk that writes down every write and every flush. Afterwards the power
//! goes at many moments, and what the disk would then hold is looked at: each version of a Volume
//! whose commit was answered before that moment must be there with every byte, and nothing that the
//! database names may be missing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use homeport_content::{Digest, FileContent, LeafKind, Stack};
use homeport_crashdisk::{CrashDisk, Journal, LoopDevice, Mounted};
use homeport_meta::{Meta, volume_versions};
use homeport_proto::client as pb;
use homeport_proto::client::modal_client_client::ModalClientClient;
use homeport_proto::record as rec;
use homeport_store::Store;
use prost::Message as _;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

const BYTES: u64 = 256 << 20;
const DATA: &str = "data";
/// Moments at which the power goes, unless `HOMEPORT_CRASHES` says how many; evenly over the history.
const CRASHES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a data directory.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(data_dir: &Path) -> Server {
        let mut process = homeport(&["up", "--listen", "127.0.0.1:0"], data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Server { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that ends by itself takes its network with it.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < PATIENCE && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn homeport(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homeport"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOMEPORT_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--data-dir").arg(data_dir).current_dir("/").stdin(Stdio::null());
    command
}

type Client = ModalClientClient<InterceptedService<Channel, Token>>;

#[derive(Clone)]
struct Token {
    id: MetadataValue<tonic::metadata::Ascii>,
    secret: MetadataValue<tonic::metadata::Ascii>,
}

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("x-modal-token-id", self.id.clone());
        headers.insert("x-modal-token-secret", self.secret.clone());
        headers.insert("x-modal-client-version", MetadataValue::from_static("1.6.4"));
        Ok(request)
    }
}

async fn connect(server: &Server, data_dir: &Path) -> Client {
    let printed = homeport(&["env"], data_dir).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}"));
        line.split_once('=').unwrap().1.trim_matches(['"', '\'']).parse().unwrap()
    };
    let token = Token { id: value("MODAL_TOKEN_ID"), secret: value("MODAL_TOKEN_SECRET") };
    let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    ModalClientClient::with_interceptor(channel, token)
}

/// Makes versions of two Volumes; each is written down as promised once the server has answered.
async fn commit_versions(client: &mut Client, disk: &CrashDisk, versions: u64) {
    let mut chance = rand::rngs::StdRng::seed_from_u64(7);
    let mut volumes = Vec::new();
    for name in ["first", "second"] {
        let request = pb::VolumeGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: pb::ObjectCreationType::CreateIfMissing.into(),
            ..Default::default()
        };
        volumes.push(client.volume_get_or_create(request).await.unwrap().into_inner().volume_id);
    }
    let mut present: Vec<(String, String)> = Vec::new();
    for number in 0..versions {
        let volume_id = volumes.choose(&mut chance).unwrap().clone();
        if number % 7 == 6
            && let Some(at) = present.iter().position(|(volume, _)| *volume == volume_id)
        {
            let (volume_id, path) = present.swap_remove(at);
            let request = pb::VolumeRemoveFileRequest { volume_id, path, recursive: false };
            client.volume_remove_file(request).await.unwrap();
            disk.note(number);
            continue;
        }
        let mut files = Vec::new();
        for file in 0..chance.random_range(1..12) {
            let mut data = vec![0; chance.random_range(0..60_000)];
            chance.fill(&mut data[..]);
            let sha256_hex = hex(&Sha256::digest(&data));
            let put = pb::MountPutFileRequest {
                sha256_hex: sha256_hex.clone(),
                data_oneof: Some(pb::mount_put_file_request::DataOneof::Data(data.into())),
            };
            assert!(client.mount_put_file(put).await.unwrap().into_inner().exists);
            let filename = format!("dir{}/file{}", file % 3, chance.random_range(0..30));
            present.push((volume_id.clone(), filename.clone()));
            files.push(pb::MountFile { filename, sha256_hex, mode: Some(0o644), ..Default::default() });
        }
        let names: HashSet<String> = files.iter().map(|file| file.filename.clone()).collect();
        files.retain({
            let mut left = names;
            move |file| left.remove(&file.filename)
        });
        let request = pb::VolumePutFilesRequest {
            volume_id,
            files,
            disallow_overwrite_existing_files: false,
            ..Default::default()
        };
        client.volume_put_files(request).await.unwrap();
        disk.note(number);
        present.sort();
        present.dedup();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn history(kind: &str, versions: u64) -> Journal {
    let disk = CrashDisk::create(BYTES).unwrap();
    let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(disk.device()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let place = tempfile::tempdir().unwrap();
    let mounted = Mounted::mount(disk.device(), kind, place.path()).unwrap();
    let data_dir = mounted.path().join(DATA);
    let server = Server::start(&data_dir);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = connect(&server, &data_dir).await;
        commit_versions(&mut client, &disk, versions).await;
    });
    // What the end of the server writes is no part of the history.
    let journal = disk.journal();
    drop(runtime);
    drop(server);
    journal
}

/// Number of versions in a data directory after a crash, each of them checked byte by byte.
async fn check(data_dir: &Path) -> u64 {
    if !data_dir.join("meta.db").exists() {
        return 0;
    }
    let meta = Meta::open(data_dir).await.unwrap();
    let store = Store::open(&data_dir.join("store")).unwrap();
    let rows = volume_versions::list_all(&meta).await.unwrap();
    let mut sound = HashSet::new();
    for row in &rows {
        let version = rec::VolumeVersion::decode(row.record.as_slice()).unwrap();
        let named = version.stack.unwrap();
        let digest = |text: &String| text.parse::<Digest>().unwrap();
        let stack = Stack { base: digest(&named.base), deltas: named.deltas.iter().map(digest).collect() };
        if !version.delta.is_empty() {
            store.delta(&digest(&version.delta)).unwrap();
        }
        for leaf in &store.layered(&stack).unwrap().flatten().leaves {
            if let LeafKind::File(FileContent::Object { digest, size }) = &leaf.kind
                && sound.insert(*digest)
            {
                assert_eq!(store.verify_object(digest).unwrap(), *size);
            }
        }
    }
    meta.close().await;
    rows.len() as u64
}

fn crash_everywhere(kind: &str, versions: u64) {
    let journal = history(kind, versions);
    let crashes =
        std::env::var("HOMEPORT_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(CRASHES);
    let all = journal.crash_points();
    let step = (all.len() / crashes).max(1);
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let image_file = File::create_new(&image).unwrap();
    image_file.set_len(journal.bytes()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut at, mut checked) = (0, 0);
    let last = all.len() - 1;
    for (seed, point) in all.iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last) {
        let promised = journal.promises(*point).len() as u64;
        if promised == 0 {
            continue;
        }
        let safe = journal.safe_point(*point);
        journal.advance(&image_file, at, safe).unwrap();
        at = safe;
        let crashed = place.path().join("crashed");
        let copied = Command::new("cp").arg("--sparse=always").args([&image, &crashed]).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        let file = File::options().write(true).open(&crashed).unwrap();
        journal.crash(&file, *point, &mut rand::rngs::StdRng::seed_from_u64(seed as u64)).unwrap();
        drop(file);
        let device = LoopDevice::attach(&crashed).unwrap();
        let target = tempfile::tempdir().unwrap();
        let mounted = Mounted::mount(device.path(), kind, target.path()).unwrap();
        let found = runtime.block_on(check(&mounted.path().join(DATA)));
        assert!(
            found >= promised,
            "{promised} versions were promised before event {point}, {found} are there"
        );
        checked += 1;
    }
    assert_eq!(journal.promises(all[last]).len() as u64, versions);
    assert!(
        checked >= crashes.min(all.len()) / 2,
        "only {checked} of {} moments had something to lose",
        all.len()
    );
}

#[test]
fn acknowledged_versions_survive_power_loss_at_any_moment() {
    crash_everywhere("ext4", 40);
}
