//! The process of a site, from its start to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use homeport_runtime::{Container, Exit, Stdio};
use tokio::sync::watch;

use crate::error::{SiteError, blocking, sentence};
use crate::node::Node;
use crate::orders::Signals;
use crate::output::{self, Source};
use crate::site::{Command, Site};

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;

/// Runs `command` in `site` until its end, reporting its output as that of `source` and passing `signals` on to it.
/// `started` is given the container and told how long the start took. When this returns, the container is removed and
/// all of its output is reported.
pub(crate) async fn run(
    node: &Arc<Node>,
    site: Site,
    command: Command,
    source: Source,
    signals: &mut watch::Receiver<Signals>,
    started: impl AsyncFnOnce(&Arc<Container>, Duration),
) -> Result<(Site, Result<Exit, SiteError>), SiteError> {
    let begin = Instant::now();
    let pipes = pipe().and_then(|out| Ok((out, pipe()?)));
    let ((stdout, stdout_writer), (stderr, stderr_writer)) = match pipes {
        Ok(pipes) => pipes,
        Err(error) => return Ok((site, Err(SiteError::Pipes(error)))),
    };
    let stdio = Stdio { stdin: None, stdout: stdout_writer, stderr: stderr_writer };
    let (site, container) = site.start(node, command, stdio).await?;
    let container = match container {
        Ok(container) => Arc::new(container),
        Err(error) => return Ok((site, Err(error))),
    };
    started(&container, begin.elapsed()).await;
    let pump = tokio::spawn({
        let reports = node.reports.clone();
        async move { output::pump(&reports, &source, stdout, stderr).await }
    });
    let exit = wait(&container, signals).await;
    // What is left of the container ends here, and with it the last writer of the pipes.
    let id = container.id().to_owned();
    let removed = blocking(move || container.remove()).await?;
    if let Err(error) = removed {
        tracing::error!(error = sentence(&error), "a container is left until the next recovery");
    }
    match pump.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(container = id, %error, "output could not be read to its end")
        }
        Err(_) => return Err(SiteError::Bug),
    }
    Ok((site, exit))
}

/// Waits for the end, delivering the signals that come and those that came before the start.
async fn wait(container: &Container, signals: &mut watch::Receiver<Signals>) -> Result<Exit, SiteError> {
    let mut delivered = Signals::default();
    loop {
        let wanted = *signals.borrow_and_update();
        if wanted.kill && !delivered.kill {
            deliver(container, SIGKILL);
        } else if wanted.interrupts > delivered.interrupts {
            deliver(container, SIGINT);
        }
        delivered = wanted;
        tokio::select! {
            exit = container.wait() => return exit.map_err(SiteError::Wait),
            changed = signals.changed() => if changed.is_err() {
                return container.wait().await.map_err(SiteError::Wait);
            },
        }
    }
}

fn deliver(container: &Container, signal: i32) {
    if let Err(error) = container.signal(signal) {
        tracing::error!(error = sentence(&error), "a container can't be signalled");
    }
}

/// A pipe whose ends no other process inherits: reader, writer.
fn pipe() -> std::io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
