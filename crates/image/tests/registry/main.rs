//! Images from a real registry server on loopback.

// The lints spare test functions only, not what stands beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use homeport_content::{EntryRef, LeafKind, SnapshotId, Timestamp, Tree};
use homeport_image::base::{Log, architecture};
use homeport_image::{BaseError, BaseOptions, Bases, Credentials, ImageConfig};
use homeport_store::Store;
use server::{Image, Layer, Layout, Packing, Server};

/// Bases over a store of their own, and what was said in their log.
struct Place {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    bases: Arc<Bases>,
    log: Log,
    said: Arc<Mutex<Vec<String>>>,
}

impl Place {
    fn new() -> Place {
        Place::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut BaseOptions)) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let mut options = BaseOptions::new(dir.path().join("cache"));
        options.connect_timeout = Duration::from_secs(2);
        change(&mut options);
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let log: Log = {
            let said = Arc::clone(&said);
            Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()))
        };
        let bases = Arc::new(Bases::new(Arc::clone(&store), options));
        Place { dir, store, bases, log, said }
    }

    async fn resolve(&self, reference: &str) -> Result<(SnapshotId, ImageConfig), BaseError> {
        self.bases.resolve(reference, None, &self.log).await
    }

    async fn error(&self, reference: &str) -> BaseError {
        self.resolve(reference).await.unwrap_err()
    }

    fn lines_with(&self, words: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// Objects and trees, whether or not anything names them.
    fn files_in_store(&self) -> usize {
        fn count(dir: &Path) -> usize {
            let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        ["objects", "trees", "scratch"]
            .iter()
            .map(|part| count(&self.dir.path().join("store").join(part)))
            .sum()
    }
}

fn small_image(layout: &Layout, text: &str) -> Image {
    let tar = Layer::new().file("etc/text", 0o644, text.as_bytes()).file("big", 0o644, &[7; 5000]).bytes();
    let variable = format!("TEXT={text}");
    let image = layout.image(architecture(), &["A=1", &variable], &[(tar, Packing::Gzip)]);
    layout.publish(&image);
    image
}

fn symlink_target(tree: &Tree, path: &[u8]) -> Option<Vec<u8>> {
    match tree.get(path)? {
        EntryRef::Leaf(_, leaf) => match &leaf.kind {
            LeafKind::Symlink(target) => Some(target.to_vec()),
            _ => None,
        },
        EntryRef::Directory(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_layers_keep_all_that_layers_can_hold() {
    let server = Server::start(false);
    let layout = Layout::new();
    let content: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let lower = Layer::new()
        .directory("./usr/", 0o755)
        .file("usr/bin/su", 0o4755, &content)
        .symlink("bin", "usr/bin")
        .records(&[("mtime", b"1700000001.123456789"), ("SCHILY.xattr.user.note", b"hello")])
        .file("etc/noted", 0o640, b"noted")
        .records(&[("uid", b"70000"), ("gid", b"70001")])
        .file("home/owned", 0o600, b"owned")
        .file("gone/file", 0o644, b"x")
        .file("emptied/old", 0o644, b"x")
        .directory("tmp/", 0o1777)
        .bytes();
    let middle = Layer::new()
        .hard_link("usr/bin/su-link", "usr/bin/su")
        .file(".wh.gone", 0o644, b"")
        .file("emptied/.wh..wh..opq", 0o644, b"")
        .file("emptied/new", 0o644, b"y")
        .bytes();
    let upper = Layer::new().file("bin/tool", 0o755, b"#!/bin/sh\n").bytes();
    let image = layout.image(
        architecture(),
        &["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHON_VERSION=3.11.10"],
        &[(lower, Packing::Gzip), (middle, Packing::Zstd), (upper, Packing::Plain)],
    );
    layout.publish(&image);
    server.push(layout.path(), "org/app:1", None);

    let place = Place::new();
    let reference = format!("{}/org/app:1", server.host());
    let (snapshot, config) = place.resolve(&reference).await.unwrap();
    assert_eq!(config.get_env("LANG"), Some("C.UTF-8"));
    assert_eq!((config.workdir.as_str(), config.user.as_str()), ("/srv", "7:8"));
    assert_eq!(config.python.as_deref(), Some("3.11.10"));

    let tree = place.store.tree(&snapshot).unwrap();
    place.store.verify_tree(&snapshot).unwrap();
    let metadata = |path: &str| tree.get(path.as_bytes()).unwrap().metadata().clone();
    assert_eq!(metadata("usr/bin/su").mode, 0o4755);
    assert_eq!(metadata("tmp").mode, 0o1777);
    assert_eq!(metadata("etc/noted").mtime, Timestamp { seconds: 1_700_000_001, nanos: 123_456_789 });
    assert_eq!(metadata("etc/noted").xattrs[b"user.note".as_slice()].as_ref(), b"hello");
    assert_eq!((metadata("home/owned").uid, metadata("home/owned").gid), (70_000, 70_001));
    assert!(tree.get(b"gone").is_none());
    assert!(tree.get(b"emptied/old").is_none());
    assert!(tree.get(b"emptied/new").is_some());
    assert_eq!(symlink_target(&tree, b"bin").unwrap(), b"usr/bin");
    assert!(tree.get(b"usr/bin/tool").is_some());
    let (Some(EntryRef::Leaf(su, leaf)), Some(EntryRef::Leaf(linked, _))) =
        (tree.get(b"usr/bin/su"), tree.get(b"usr/bin/su-link"))
    else {
        panic!("the hard link is missing");
    };
    assert_eq!(su, linked);
    let LeafKind::File(file) = &leaf.kind else { panic!("{leaf:?}") };
    assert_eq!(place.store.read_content(file).unwrap(), content);

    // The second time nothing but the manifest is asked for.
    assert_eq!(place.lines_with("layer 1/3"), 1);
    assert_eq!(place.resolve(&reference).await.unwrap(), (snapshot, config));
    assert_eq!(place.lines_with("layer 1/3"), 1);
    assert_eq!(place.lines_with("is here already"), 1);
    assert_eq!(place.lines_with("broke off"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_is_chosen_from_a_list_and_its_absence_is_said() {
    let server = Server::start(false);
    let layout = Layout::new();
    let ours = small_image(&layout, "ours");
    let tar = Layer::new().file("etc/text", 0o644, b"theirs").bytes();
    let theirs = layout.image("s390x", &[], &[(tar, Packing::Gzip)]);
    layout.publish_list(&[&theirs, &ours]);
    server.push(layout.path(), "both:1", None);
    layout.publish_list(&[&theirs]);
    server.push(layout.path(), "other:1", None);
    layout.publish(&theirs);
    server.push(layout.path(), "single:1", None);

    let place = Place::new();
    let (_, config) = place.resolve(&format!("{}/both:1", server.host())).await.unwrap();
    assert_eq!(config.get_env("A"), Some("1"));
    let error = place.error(&format!("{}/other:1", server.host())).await;
    assert!(matches!(error, BaseError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    let error = place.error(&format!("{}/single:1", server.host())).await;
    assert!(matches!(error, BaseError::Config { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_images_are_not_found_and_never_bootstrapped() {
    let server = Server::start(false);
    let layout = Layout::new();
    small_image(&layout, "a");
    server.push(layout.path(), "known:1", None);
    let place = Place::new();
    for name in ["known:2", "unknown:1"] {
        let error = place.error(&format!("{}/{name}", server.host())).await;
        assert!(matches!(error, BaseError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(place.lines_with("bootstrapping"), 0);
    assert_eq!(place.files_in_store(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn login_is_needed_where_the_registry_wants_one() {
    let server = Server::start(true);
    let layout = Layout::new();
    small_image(&layout, "secret");
    server.push(layout.path(), "private:1", Some("user:open sesame"));
    let place = Place::new();
    let reference = format!("{}/private:1", server.host());
    let login = |password: &str| Credentials { username: "user".to_owned(), password: password.to_owned() };
    for credentials in [None, Some(login("wrong"))] {
        let error = place.bases.resolve(&reference, credentials.as_ref(), &place.log).await.unwrap_err();
        assert!(matches!(error, BaseError::Denied { .. }), "{error}");
    }
    place.bases.resolve(&reference, Some(&login("open sesame")), &place.log).await.unwrap();
    assert_eq!(place.lines_with("open sesame"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_leave_nothing_behind() {
    let server = Server::start(false);
    let layout = Layout::new();
    let place = Place::new();
    type Change = fn(&mut Vec<u8>);
    let damage: [(&str, Change); 3] = [
        ("flipped", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("first", |bytes| bytes[0] ^= 1),
        ("short", |bytes| bytes.truncate(bytes.len() - 10)),
    ];
    for (name, change) in damage {
        for what in ["layer", "configuration"] {
            let image = small_image(&layout, &format!("{name} {what}"));
            server.push(layout.path(), &format!("{name}-{what}:1"), None);
            let digest = if what == "layer" { &image.layers[0] } else { &image.config };
            let file = server.blob_file(digest);
            let mut bytes = std::fs::read(&file).unwrap();
            change(&mut bytes);
            std::fs::write(&file, &bytes).unwrap();
            let error = place.error(&format!("{}/{name}-{what}:1", server.host())).await;
            assert!(matches!(error, BaseError::DigestMismatch { .. }), "{name} {what}: {error}");
            assert!(error.to_string().contains(digest), "{error}");
            assert_eq!(place.files_in_store(), 0, "{name} {what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layer_that_is_no_archive_or_leaves_the_image_is_refused() {
    let server = Server::start(false);
    let layout = Layout::new();
    let place = Place::new();
    let mut outside = Layer::new().file("aa/x", 0o644, b"x").bytes();
    outside[..2].copy_from_slice(b"..");
    let sum: u32 = outside[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    outside[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (name, tar, words) in [
        ("junk", vec![b'j'; 4096], "checksum"),
        ("outside", outside, "points outside the image"),
        ("cut", Layer::new().file("a", 0o644, &[1; 4000]).bytes()[..2000].to_vec(), "ends inside"),
    ] {
        let image = layout.image(architecture(), &[], &[(tar, Packing::Gzip)]);
        layout.publish(&image);
        server.push(layout.path(), &format!("{name}:1"), None);
        let error = place.error(&format!("{}/{name}:1", server.host())).await;
        assert!(matches!(error, BaseError::Layer { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(place.files_in_store(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_want_one_image_pull_it_once() {
    let server = Server::start(false);
    let layout = Layout::new();
    small_image(&layout, "shared");
    server.push(layout.path(), "shared:1", None);
    let place = Place::new();
    let reference = format!("{}/shared:1", server.host());
    let results = futures::future::join_all((0..5).map(|_| place.resolve(&reference))).await;
    let snapshots: Vec<SnapshotId> = results.into_iter().map(|result| result.unwrap().0).collect();
    assert!(snapshots.iter().all(|snapshot| *snapshot == snapshots[0]));
    assert_eq!(place.lines_with("layer 1/1"), 1);
    assert_eq!(place.lines_with("waiting for another build"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_gives_the_images_of_docker_hub() {
    let server = Server::start(false);
    let layout = Layout::new();
    small_image(&layout, "mirrored");
    server.push(layout.path(), "library/thing:1", None);
    let place = Place::with(|options| options.registry_mirror = Some(format!("http://{}", server.host())));
    place.resolve("thing:1").await.unwrap();
    assert_eq!(place.lines_with(&format!("from {}", server.host())), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_that_is_not_there_or_silent_is_unreachable_and_remembered() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let [silent_host, closed_host] =
        [&silent, &closed].map(|listener| listener.local_addr().unwrap().to_string());
    drop(closed);
    let place = Place::with(|options| options.connect_timeout = Duration::from_millis(300));
    for host in [silent_host, closed_host] {
        let started = Instant::now();
        let error = place.error(&format!("{host}/some/app:1")).await;
        assert!(matches!(error, BaseError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&host), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
        let started = Instant::now();
        place.error(&format!("{host}/another/app:1")).await;
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_that_nobody_waits_for_any_more_leaves_nothing() {
    let server = Server::start(false);
    let layout = Layout::new();
    let noise: Vec<u8> =
        (0..40_000_000_u64).map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let tar = Layer::new().file("noise", 0o644, &noise).bytes();
    let image = layout.image(architecture(), &[], &[(tar, Packing::Plain)]);
    layout.publish(&image);
    server.push(layout.path(), "large:1", None);
    let place = Place::new();
    let reference = format!("{}/large:1", server.host());
    {
        let mut pull = std::pin::pin!(place.resolve(&reference));
        let begun = async {
            while place.lines_with("layer 1/1") == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = &mut pull => panic!("the pull was done before it could be given up"),
            () = begun => {}
        }
    }
    let started = Instant::now();
    while place.files_in_store() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "the pull goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    place.resolve(&reference).await.unwrap();
}
