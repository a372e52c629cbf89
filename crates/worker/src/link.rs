//! The stream to control: one in each direction, opened anew whenever it breaks.

use std::collections::VecDeque;
use std::time::Duration;

use homeport_proto::worker::report::Report as Kind;
use homeport_proto::worker::worker_link_client::WorkerLinkClient;
use homeport_proto::worker::{Hello, Order, Report};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::reports::Outbox;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is probed this often, and given up when a probe isn't answered in this time.
const PROBE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time for the last reports to reach control when the worker stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// An order may carry the arguments of a container.
const MAX_ORDER: usize = 256 << 20;
/// Reports handed to the stream and not yet written; what is queued here is lost when the stream breaks.
const IN_FLIGHT: usize = 4;

/// Receives what the link learns.
pub(crate) trait Orders {
    /// An order arrived. Must not block.
    fn order(&self, order: Order);
    /// Control has been away for longer than the grace time.
    fn orphaned(&self);
}

/// Where and as whom to attach.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    pub(crate) credential: MetadataValue<Ascii>,
    pub(crate) hello: Hello,
    pub(crate) orphan_grace: Duration,
}

/// `http://host:port` with the limits of a link.
pub(crate) fn endpoint(control: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(control.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE)
        .keep_alive_timeout(PROBE)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(16 << 20)
        .initial_stream_window_size(8 << 20))
}

impl Link {
    /// Keeps the worker attached. After `leaving` no new stream is opened, and reports go to the current one or to
    /// nobody; after `left`, and when the queued reports are out, it returns.
    pub(crate) async fn run(
        &self,
        mut outbox: Outbox,
        orders: &impl Orders,
        leaving: &CancellationToken,
        left: &CancellationToken,
    ) {
        let mut pause = FIRST_PAUSE;
        let mut away_since = Instant::now();
        let mut orphaned = false;
        while !leaving.is_cancelled() {
            let attached = leaving.run_until_cancelled(self.attach()).await;
            match attached {
                None => break,
                Some(Ok(stream)) => {
                    tracing::info!(worker = %self.hello.worker_id, "attached to control");
                    pause = FIRST_PAUSE;
                    let end = self.converse(stream, &mut outbox, orders, left).await;
                    if left.is_cancelled() {
                        return;
                    }
                    away_since = Instant::now();
                    orphaned = false;
                    match end {
                        Ok(()) => tracing::info!("control closed the stream; attaching again"),
                        Err(error) => tracing::warn!(%error, "the stream to control broke; attaching again"),
                    }
                }
                Some(Err(error)) if matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                    tracing::error!(%error, "control refuses this worker; check its credential");
                }
                Some(Err(error)) => tracing::debug!(%error, "control can't be reached; trying again"),
            }
            if !orphaned && away_since.elapsed() > self.orphan_grace {
                tracing::error!(grace = ?self.orphan_grace, "control is away for too long; ending all tasks and steps");
                orphaned = true;
                orders.orphaned();
            }
            leaving.run_until_cancelled(tokio::time::sleep(jittered(pause))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // Nobody listens any more, but nobody must wait for room in the queue either.
        left.run_until_cancelled(async { while outbox.queue.recv().await.is_some() {} }).await;
    }

    async fn attach(&self) -> Result<Attached, Status> {
        let channel: Channel = self
            .endpoint
            .connect()
            .await
            .map_err(|error| Status::unavailable(format!("no connection: {error}")))?;
        let (sender, reports) = mpsc::channel(IN_FLIGHT);
        let hello = Report { report: Some(Kind::Hello(self.hello.clone())) };
        sender.try_send(hello).map_err(|_| Status::internal("a fresh stream has no room"))?;
        let mut request = tonic::Request::new(ReceiverStream::new(reports));
        request.metadata_mut().insert("x-homeport-worker", self.credential.clone());
        let orders = WorkerLinkClient::new(channel)
            .max_decoding_message_size(MAX_ORDER)
            .attach(request)
            .await?
            .into_inner();
        Ok(Attached { reports: sender, orders })
    }

    /// Speaks until the stream ends, or until `left` and everything queued is said.
    async fn converse(
        &self,
        mut stream: Attached,
        outbox: &mut Outbox,
        orders: &impl Orders,
        left: &CancellationToken,
    ) -> Result<(), Status> {
        let mut again = outbox.remembered();
        loop {
            tokio::select! {
                order = stream.orders.message() => match order? {
                    Some(order) => orders.order(order),
                    None => return Ok(()),
                },
                open = say_next(&stream.reports, outbox, &mut again) => if !open {
                    // The transport dropped the request body: the reason comes as the stream's status.
                    return match stream.orders.message().await {
                        Ok(_) => Ok(()),
                        Err(status) => Err(status),
                    };
                },
                () = left.cancelled() => break,
            }
        }
        let farewell = async {
            while let Ok(report) = outbox.queue.try_recv() {
                if stream.reports.send(report).await.is_err() {
                    return;
                }
            }
            // Ends the request body; control ends its side when it has read all of it.
            drop(stream.reports);
            while let Ok(Some(_)) = stream.orders.message().await {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        Ok(())
    }
}

struct Attached {
    reports: mpsc::Sender<Report>,
    orders: tonic::Streaming<Order>,
}

/// Hands the next report to the stream. False when the stream takes no more. Loses nothing when dropped half-way.
async fn say_next(stream: &mpsc::Sender<Report>, outbox: &mut Outbox, again: &mut VecDeque<Report>) -> bool {
    let Ok(permit) = stream.reserve().await else {
        return false;
    };
    if let Some(report) = again.pop_front() {
        permit.send(report);
        return true;
    }
    let Some(report) = outbox.queue.recv().await else {
        // All reporters are gone, which happens only after `left`.
        return std::future::pending().await;
    };
    outbox.remember(&report);
    permit.send(report);
    true
}

/// Between half of `pause` and all of it, so that workers don't come back in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
