//! `homeport up`: the life of the server process.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use homeport_meta::DataDirLock;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::data_dir::{DataDir, DataDirError};
use crate::failure::Hint;
use crate::namespace::enter_private_mounts;
use crate::serving::serve;
use crate::settings::UpSettings;
use crate::wiring::{Parts, WiringError};

/// How long the parts may take to end: callers rely on an end within 10 seconds, connections included.
const CLOSE_PATIENCE: Duration = Duration::from_millis(8500);

/// Why the server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("the server needs root, to mount images and to start containers")]
    NotRoot,
    #[error("cannot enter a mount namespace")]
    Namespace(#[source] std::io::Error),
    #[error("cannot create the data directory {}", path.display())]
    DataDirectory { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Lock(#[from] homeport_meta::LockError),
    #[error("the address {0} is in use by another program")]
    AddressInUse(SocketAddr),
    #[error("cannot listen on {listen}")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    #[error(transparent)]
    Parts(#[from] WiringError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot start the server's threads")]
    Runtime(#[source] std::io::Error),
    #[error("cannot say that the server is ready")]
    Stdout(#[source] std::io::Error),
    #[error("the server's parts did not end within {} s", CLOSE_PATIENCE.as_secs())]
    Stuck,
}

impl Hint for UpError {
    fn hint(&self) -> Option<String> {
        match self {
            UpError::NotRoot => Some("run it with sudo".to_owned()),
            UpError::AddressInUse(_) => {
                Some("stop that program, or choose another address with --listen".to_owned())
            }
            UpError::DataDir(error) => error.hint(),
            UpError::Storage(error) => error.hint(),
            UpError::Stuck => {
                Some("what is left is cleaned up at the next start; the log says what it was".to_owned())
            }
            _ => None,
        }
    }
}

/// Runs the server until it is told to stop.
pub(crate) fn run(settings: &UpSettings) -> Result<(), UpError> {
    start_log(settings);
    if !rustix::process::geteuid().is_root() {
        return Err(UpError::NotRoot);
    }
    // Before the server's own mounts are hidden from others: this one is for all to see.
    if crate::storage::attach(&settings.data_dir)? {
        tracing::info!(data_dir = %settings.data_dir.display(), "mounted the data directory's file system");
    }
    enter_private_mounts().map_err(UpError::Namespace)?;
    let data_dir = DataDir::new(&settings.data_dir);
    // Others may pass through to what is theirs to read, but see no names.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(data_dir.root())
        .map_err(|source| UpError::DataDirectory { path: data_dir.root().to_path_buf(), source })?;
    let lock = DataDirLock::acquire(data_dir.root())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(UpError::Runtime)?;
    let ended = runtime.block_on(live(settings, &data_dir));
    // What blocks on a disk or a pipe must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    drop(lock);
    ended
}

async fn live(settings: &UpSettings, data_dir: &DataDir) -> Result<(), UpError> {
    let mut signals = StopSignals::new().map_err(UpError::Runtime)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(|source| {
        if source.kind() == std::io::ErrorKind::AddrInUse {
            UpError::AddressInUse(settings.listen)
        } else {
            UpError::Listen { listen: settings.listen, source }
        }
    })?;
    let listen =
        listener.local_addr().map_err(|source| UpError::Listen { listen: settings.listen, source })?;
    let parts = tokio::select! {
        parts = Parts::open(settings, listen) => parts?,
        name = signals.received() => {
            tracing::info!("{name} while starting");
            return Ok(());
        }
    };

    let stop_serving = CancellationToken::new();
    let server = tokio::spawn(serve(listener, parts.router.clone(), stop_serving.clone()));
    let ready = data_dir.write_server_record(listen).map_err(UpError::from).and_then(|()| {
        writeln!(std::io::stdout(), "ready {}", crate::data_dir::url_of(listen)).map_err(UpError::Stdout)
    });
    if ready.is_ok() {
        let name = signals.received().await;
        tracing::info!("{name}: stopping");
    }

    data_dir.remove_server_record();
    // Clients stay connected while the parts end, so that they hear how their calls ended.
    let closed = tokio::time::timeout(CLOSE_PATIENCE, parts.close()).await;
    stop_serving.cancel();
    if let Err(error) = server.await {
        tracing::error!(%error, "serving ended badly");
    }
    ready?;
    closed.map_err(|_| UpError::Stuck)?;
    tracing::info!("stopped");
    Ok(())
}

/// The signals that end the server.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one; returns its name.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn start_log(settings: &UpSettings) {
    // The filter was checked when the settings were read.
    let filter = EnvFilter::new(&settings.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}
