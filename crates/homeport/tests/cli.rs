//! The real binary: its commands, and the life of a server. Needs root, as the server does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The command without settings of whoever runs the tests, and with nothing to reach but loopback.
fn homeport(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homeport"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOMEPORT_") {
            command.env_remove(name);
        }
    }
    command.env("HTTPS_PROXY", "http://127.0.0.1:9");
    command.args(arguments).arg("--data-dir").arg(data_dir).current_dir("/").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], data_dir: &Path) -> Output {
    homeport(arguments, data_dir).output().unwrap()
}

/// Runs a command that must succeed; returns what it prints.
fn stdout(arguments: &[&str], data_dir: &Path) -> String {
    let output = run(arguments, data_dir);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this exit code; returns what it says.
fn stderr(arguments: &[&str], data_dir: &Path, code: i32) -> String {
    let output = run(arguments, data_dir);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

/// A server in a data directory of its own.
struct Server {
    data_dir: tempfile::TempDir,
    process: Child,
    address: SocketAddr,
    /// Everything it prints to stdout, until its end.
    lines: mpsc::Receiver<String>,
}

impl Server {
    fn start() -> Server {
        let data_dir = tempfile::tempdir().unwrap();
        let mut process = homeport(&["up", "--listen", "127.0.0.1:0"], data_dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // The test may have ended.
                let _ = sender.send(line.unwrap());
            }
        });
        let ready = lines.recv_timeout(START_PATIENCE).unwrap_or_else(|error| {
            // What was started must not outlive a failure.
            let _ = process.kill();
            let _ = process.wait();
            panic!("no line on stdout: {error}")
        });
        let address = ready.strip_prefix("ready http://").unwrap_or_else(|| panic!("{ready}"));
        Server { data_dir, process, address: address.parse().unwrap(), lines }
    }

    fn path(&self) -> &Path {
        self.data_dir.path()
    }

    /// Sends a signal and waits for the end; returns the exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
        let began = Instant::now();
        while began.elapsed() < STOP_PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not end within {STOP_PATIENCE:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            // SIGTERM first: it takes its containers' network with it.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            let began = Instant::now();
            while began.elapsed() < STOP_PATIENCE && matches!(self.process.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

#[test]
fn a_server_says_ready_once_and_ends_with_0_on_sigterm_and_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        TcpStream::connect(server.address).unwrap();
        assert_eq!(server.end(signal), Some(0));
        let more: Vec<String> = server.lines.iter().collect();
        assert!(more.is_empty(), "more on stdout than the ready line: {more:?}");
        assert!(TcpStream::connect(server.address).is_err(), "somebody still serves");
        let text = stderr(&["env"], server.path(), 1);
        assert!(text.contains("homeport up"), "{text}");
    }
}

#[test]
fn a_second_server_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let server = Server::start();
    let text = stderr(&["up", "--listen", "127.0.0.1:0"], server.path(), 1);
    assert!(text.contains(&server.path().display().to_string()), "{text}");
    assert!(text.contains(&server.process.id().to_string()), "{text}");
    TcpStream::connect(server.address).unwrap();
}

#[test]
fn a_used_port_is_named_and_nothing_stays_locked() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let text = stderr(&["up", "--listen", &address], dir.path(), 1);
        assert!(text.contains(&format!("{address} is in use")) && text.contains("--listen"), "{text}");
    }
}

#[test]
fn a_token_is_made_listed_and_revoked_beside_a_running_server() {
    let server = Server::start();
    let made = stdout(&["token", "create", "--name", "laptop"], server.path());
    let value =
        |name: &str| made.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    let (id, secret) = (value("MODAL_TOKEN_ID"), value("MODAL_TOKEN_SECRET"));
    assert!(id.starts_with("ak-") && secret.starts_with("as-"), "{made}");

    let listed = stdout(&["token", "list"], server.path());
    assert!(listed.contains(&id) && listed.contains("laptop") && !listed.contains(&secret), "{listed}");
    stdout(&["token", "revoke", &id], server.path());
    assert!(!stdout(&["token", "list"], server.path()).contains(&id));
    let text = stderr(&["token", "revoke", &id], server.path(), 1);
    assert!(text.contains(&id), "{text}");
}

#[test]
fn env_is_what_a_shell_can_evaluate_and_its_token_stays_until_revoked() {
    let server = Server::start();
    let variables = || {
        let binary = env!("CARGO_BIN_EXE_homeport");
        let dir = server.path().display();
        let script = format!(
            "set -eu; eval \"$({binary} env --data-dir {dir})\"; \
             echo $MODAL_SERVER_URL $HF_ENDPOINT $MODAL_TOKEN_ID $MODAL_TOKEN_SECRET"
        );
        let output = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = variables();
    let url = format!("http://{}", server.address);
    assert_eq!(first[..2], [url.clone(), url]);
    assert_eq!(variables(), first);

    stdout(&["token", "revoke", &first[2]], server.path());
    let renewed = variables();
    assert_ne!(renewed[2], first[2]);
    assert!(stdout(&["token", "list"], server.path()).contains(&renewed[2]));

    use std::os::unix::fs::PermissionsExt;
    let kept = std::fs::metadata(server.path().join("env-token.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
}

#[test]
fn models_are_imported_listed_and_removed_beside_a_running_server() {
    let server = Server::start();
    let model = tempfile::tempdir().unwrap();
    std::fs::write(model.path().join("config.json"), "{}").unwrap();
    let directory = model.path().to_str().unwrap();
    stdout(&["models", "import", directory, "--as", "tests/tiny", "--revision", "dev"], server.path());
    let listed = stdout(&["models", "list"], server.path());
    assert!(listed.contains("tests/tiny") && listed.contains("dev"), "{listed}");
    stdout(&["models", "rm", "tests/tiny"], server.path());
    assert!(!stdout(&["models", "list"], server.path()).contains("tests/tiny"));
    let text = stderr(&["models", "rm", "tests/tiny"], server.path(), 1);
    assert!(text.contains("tests/tiny"), "{text}");
}

#[test]
fn commands_on_a_directory_without_data_make_none() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    for arguments in [
        &["token", "list"][..],
        &["token", "create"],
        &["models", "list"],
        &["env"],
        &["volume", "list"],
        &["gc"],
        &["du"],
    ] {
        let text = stderr(arguments, &nowhere, 1);
        assert!(text.starts_with("error: ") && text.contains("homeport up"), "{text}");
    }
    assert!(!nowhere.exists());
}

#[test]
fn doctor_reports_every_requirement_as_text_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["doctor", "--json"], dir.path());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success());
    let text = String::from_utf8(run(&["doctor"], dir.path()).stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    for name in [
        "kernel",
        "storage",
        "mounts",
        "reflinks",
        "reloads in place",
        "long paths",
        "runc",
        "cgroups",
        "freezer",
        "CA bundle",
        "disk",
        "base-image source",
        "GPU",
    ] {
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check of {name}"));
        let good = check["status"] == "ok";
        assert_eq!(check["lost"].is_null(), good, "{check}");
        assert_eq!(check["mend"].is_null(), good, "{check}");
        assert!(text.contains(name), "{text}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "doctor left {left:?}");
}

#[test]
fn settings_come_from_flag_then_variable_then_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("homeport.toml");
    let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [flag, variable, in_file] = sockets.each_ref().map(|s| s.local_addr().unwrap().to_string());
    std::fs::write(&file, format!("listen = '{in_file}'")).unwrap();
    // Every address is taken, so that the message says which one was chosen.
    let chosen = |arguments: &[&str], variable: Option<&str>| {
        let mut command = homeport(arguments, dir.path());
        command.arg("--config").arg(&file);
        if let Some(value) = variable {
            command.env("HOMEPORT_LISTEN", value);
        }
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(chosen(&["up"], None).contains(&in_file));
    assert!(chosen(&["up"], Some(&variable)).contains(&variable));
    assert!(chosen(&["up", "--listen", &flag], Some(&variable)).contains(&flag));

    std::fs::write(&file, "listen = 'nowhere'").unwrap();
    let wrong = chosen(&["up"], None);
    assert!(wrong.contains("`listen`") && wrong.contains("homeport.toml"), "{wrong}");
}

#[test]
fn wrong_usage_exits_with_2_and_every_command_has_help() {
    let dir = tempfile::tempdir().unwrap();
    let text = stderr(&["up", "--listen", "nowhere"], dir.path(), 2);
    assert!(text.contains("--listen"), "{text}");
    stderr(&["up", "--gpu-fallback", "tpu"], dir.path(), 2);
    stderr(&["models", "import", "/tmp", "--as", "a/b/c"], dir.path(), 2);
    stderr(&["volume", "put-model", "a/b", "/no/volume"], dir.path(), 2);
    stderr(&["gc", "--older-than", "soon"], dir.path(), 2);
    stderr(&["volume", "configure", "v", "--early-copy", "*.db", "--no-early-copies"], dir.path(), 2);
    for command in [
        "up",
        "token",
        "token create",
        "token list",
        "token revoke",
        "env",
        "doctor",
        "models",
        "models import",
        "models list",
        "models rm",
        "volume",
        "volume list",
        "volume log",
        "volume diff",
        "volume restore",
        "volume tag",
        "volume fork",
        "volume put-model",
        "volume configure",
        "gc",
        "du",
        "fsck",
        "storage",
        "storage init",
        "storage attach",
        "storage detach",
        "storage status",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        assert!(stdout(&arguments, dir.path()).contains("Usage: homeport"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&["completions", shell], dir.path()).contains("homeport"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = homeport(&["completions", "bash"], dir.path());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
