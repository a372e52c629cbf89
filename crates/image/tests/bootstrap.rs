//! Roots made from the machine's own package archive: one entered and used, one given up.
//!
//! Slow: the first run fetches packages by the machine's apt configuration. The image is kept in the
//! build directory for a week, so that later runs only enter it.

// The lints spare test functions only, not what stands beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use homeport_content::{EntryRef, LeafKind, Tree};
use homeport_image::base::Log;
use homeport_image::base::bootstrap::{Archive, BootstrapError, Distribution};
use homeport_image::{BaseError, BaseOptions, Bases};
use homeport_store::Store;

/// Writes a tree to disk, as far as running programs in it needs it.
fn write_out(store: &Store, tree: &Tree, target: &Path) {
    for (path, entry) in tree.walk() {
        let place = target.join(String::from_utf8(path).unwrap());
        match entry {
            EntryRef::Directory(directory) => {
                fs::create_dir(&place).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(directory.metadata.mode)).unwrap();
            }
            EntryRef::Leaf(_, leaf) => match &leaf.kind {
                LeafKind::File(content) => {
                    fs::write(&place, store.read_content(content).unwrap()).unwrap();
                    fs::set_permissions(&place, fs::Permissions::from_mode(leaf.metadata.mode)).unwrap();
                }
                LeafKind::Symlink(link) => {
                    symlink(String::from_utf8(link.to_vec()).unwrap(), &place).unwrap()
                }
                other => panic!("{other:?} in a base image"),
            },
        }
    }
}

/// Runs a shell command in the root, in namespaces of its own and without a network.
fn run_in(root: &Path, env: &[(String, String)], command: &str) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--"])
        .arg("chroot")
        .arg(root)
        .args(["/bin/sh", "-c", command])
        .env_clear()
        .envs(env.iter().cloned())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A pure Python wheel with a module and a program, written by hand: no index is at hand in the root.
fn write_wheel(dir: &Path) {
    let script = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/greeter-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeter.py", "def main():\n    print('hello from', __file__)\n")
    wheel.writestr("greeter-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    wheel.writestr("greeter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("greeter-1.0.dist-info/entry_points.txt", "[console_scripts]\ngreet = greeter:main\n")
    wheel.writestr("greeter-1.0.dist-info/RECORD", "")
"#;
    let status = Command::new("python3").args(["-c", script]).arg(dir).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_image_without_a_registry_runs_python_and_pip() {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bootstrap");
    let store = Arc::new(Store::open(&kept.join("store")).unwrap());
    let mut options = BaseOptions::new(kept.join("cache"));
    options.registries = false;
    let bases = Bases::new(Arc::clone(&store), options);
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let log: Log = {
        let said = Arc::clone(&said);
        Arc::new(move |line: &str| {
            let _ = writeln!(std::io::stderr(), "{line}");
            said.lock().unwrap().push(line.to_owned());
        })
    };
    let archive = Archive::of_machine(Path::new("/etc/apt")).unwrap();
    let (minor, missing) = match archive.distribution {
        Distribution::Debian => ("3.11", "3.12"),
        Distribution::Ubuntu => ("3.12", "3.11"),
    };

    let error = bases.resolve(&format!("python:{missing}.1-slim"), None, &log).await.unwrap_err();
    assert!(matches!(error, BaseError::Bootstrap(BootstrapError::NoSuchPython { .. })), "{error}");
    let error = bases.resolve("nvidia/cuda:12.2.0-devel-ubuntu22.04", None, &log).await.unwrap_err();
    assert!(matches!(error, BaseError::Unreachable { .. }), "{error}");

    let (snapshot, config) =
        bases.resolve(&format!("python:{minor}.99-slim-bookworm"), None, &log).await.unwrap();
    let version = config.python.clone().unwrap();
    assert!(version.starts_with(&format!("{minor}.")), "{version}");
    let difference = format!("Python {minor}.99 asked, the archive has {version}");
    assert!(said.lock().unwrap().contains(&difference), "{difference}");

    let tree = store.tree(&snapshot).unwrap();
    assert!(tree.directory(b"dev").unwrap().entries.is_empty());
    assert!(tree.directory(b"tmp").unwrap().entries.is_empty());
    for absent in ["etc/resolv.conf", "etc/apt/sources.list.d/mmdebstrap.list", "var/log/bootstrap.log"] {
        assert!(tree.get(absent.as_bytes()).is_none(), "{absent}");
    }
    // What a package of the distribution put there, `pip` could never replace.
    let of_packages = tree.directory(b"usr/lib/python3/dist-packages");
    assert!(of_packages.is_none_or(|directory| directory.entries.is_empty()));
    assert_eq!(tree.get(b"usr/bin/su").unwrap().metadata().mode, 0o4755);

    let root = tempfile::tempdir().unwrap();
    write_out(&store, &tree, root.path());
    write_wheel(&root.path().join("tmp"));
    let run = |command: &str| run_in(root.path(), &config.env, command);
    for python in ["python", "python3", &format!("python{minor}")] {
        assert_eq!(run(&format!("{python} -V")).trim(), format!("Python {version}"));
    }
    run("pip --version && pip3 --version && python -m venv --help");
    run("python -c 'import ssl, sqlite3, ctypes, lzma, zoneinfo; zoneinfo.ZoneInfo(\"Europe/Berlin\")'");
    run("python -m pip install --no-index --no-input /tmp/greeter-1.0-py3-none-any.whl");
    let greeting = run("cd / && greet");
    assert!(greeting.contains("/usr/local/lib/python"), "{greeting}");
    run("echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections");
    run("test -s /etc/ssl/certs/ca-certificates.crt && test -f /usr/include/python*/Python.h");
    let uris = run("apt-get update --print-uris");
    for suite in ["-updates", "-security"] {
        assert!(uris.contains(suite), "{uris}");
    }
}

/// Whether a process has this text among its arguments or environment.
fn is_in_use(text: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.filter(|path| path.join("cmdline").exists()).any(|path| {
        let read = |name: &str| fs::read(path.join(name)).unwrap_or_default();
        let whole = [read("cmdline"), read("environ")].concat();
        whole.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_that_nobody_waits_for_leaves_no_process_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let mut options = BaseOptions::new(dir.path().join("cache"));
    options.registries = false;
    let bases = Bases::new(store, options);
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let log: Log = Arc::new(move |line: &str| drop(say.send(line.to_owned())));
    let scratch = dir.path().join("store/scratch");
    let scratch_name = scratch.to_str().unwrap();
    {
        let mut bootstrap = std::pin::pin!(bases.resolve("debian:stable-slim", None, &log));
        let begun = async { while !said.recv().await.unwrap().contains("running apt-get update") {} };
        tokio::select! {
            ended = &mut bootstrap => panic!("it ended too early: {ended:?}"),
            () = begun => {}
        }
        assert!(is_in_use(scratch_name), "the bootstrap isn't found at work, so this test proves nothing");
    }
    let started = std::time::Instant::now();
    while is_in_use(scratch_name) || fs::read_dir(&scratch).unwrap().count() > 0 {
        assert!(started.elapsed().as_secs() < 10, "something of the bootstrap is left");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
