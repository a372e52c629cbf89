//! The stream to control: one in each direction, opened anew whenever it breaks.
//!
//! To control, a worker whose stream breaks is gone, and its containers with it. The worker agrees: it ends everything
//! that runs and drops what it had to say about it before it attaches again, so both always know the same of each other.
//! Only what containers changed in Volumes is said again.

use std::time::Duration;

use homeport_proto::worker::report::Report as Kind;
use homeport_proto::worker::worker_link_client::WorkerLinkClient;
use homeport_proto::worker::{Hello, Order, Report};
use tokio::sync::mpsc;
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
/// Reports handed to the stream and not yet written.
const IN_FLIGHT: usize = 4;

/// Receives what the link learns.
pub(crate) trait Orders {
    /// There is a stream: what is reported from now on goes to control.
    fn attached(&self);
    /// An order arrived. Must not block.
    fn order(&self, order: Order);
    /// The stream is gone: ends everything that runs and waits until it has ended.
    async fn stream_lost(&self);
}

/// Where and as whom to attach.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    pub(crate) credential: MetadataValue<Ascii>,
    pub(crate) hello: Hello,
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
        while !leaving.is_cancelled() {
            match leaving.run_until_cancelled(self.attach()).await {
                None => break,
                Some(Ok(stream)) => {
                    tracing::info!(worker = self.hello.worker_id, "attached to control");
                    pause = FIRST_PAUSE;
                    orders.attached();
                    match self.converse(stream, &mut outbox, orders, left).await {
                        _ if left.is_cancelled() => return,
                        Ok(()) => tracing::info!("control closed the stream; attaching again"),
                        Err(error) => {
                            tracing::warn!(%error, "the stream to control broke; attaching again");
                        }
                    }
                    tokio::select! {
                        () = discard(&mut outbox) => {}
                        () = orders.stream_lost() => {}
                    }
                    while outbox.try_recv().is_ok() {}
                }
                Some(Err(error)) if is_refusal(&error) => {
                    tracing::error!(%error, "control refuses this worker; check its credential");
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "control can't be reached; trying again");
                }
            }
            leaving.run_until_cancelled(tokio::time::sleep(jittered(pause))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // Nobody listens any more, but nobody must wait for room in the queue either.
        left.run_until_cancelled(discard(&mut outbox)).await;
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
        loop {
            tokio::select! {
                order = stream.orders.message() => match order? {
                    Some(order) => orders.order(order),
                    None => return Ok(()),
                },
                open = say_next(&stream.reports, outbox) => if !open {
                    // Control reads no more; why comes as the status of the stream.
                    return stream.orders.message().await.map(drop);
                },
                () = left.cancelled() => break,
            }
        }
        let farewell = async {
            while let Ok(report) = outbox.try_recv() {
                if stream.reports.send(report).await.is_err() {
                    return;
                }
            }
            // Ends this side; control ends its own when it has read all of it.
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
async fn say_next(stream: &mpsc::Sender<Report>, outbox: &mut Outbox) -> bool {
    let Ok(permit) = stream.reserve().await else {
        return false;
    };
    match outbox.recv().await {
        Some(report) => permit.send(report),
        // All reporters are gone: nothing will ever be said again.
        None => std::future::pending().await,
    }
    true
}

async fn discard(outbox: &mut Outbox) {
    while outbox.recv().await.is_some() {}
}

fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// Between half of `pause` and all of it, so that workers don't come back in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
