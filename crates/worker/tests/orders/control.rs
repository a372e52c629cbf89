//! The other end of a worker's link: hands out orders, gathers reports, and answers requests of containers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::get;
use homeport_proto::worker::order::Order as OrderKind;
use homeport_proto::worker::report::Report as Kind;
use homeport_proto::worker::step_ended::End as StepEnd;
use homeport_proto::worker::worker_link_server::{WorkerLink, WorkerLinkServer};
use homeport_proto::worker::{Hello, Order, Report, Stream, TaskEnded};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const CREDENTIAL: &str = "worker-word";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    attached: Mutex<mpsc::Receiver<Link>>,
}

/// One attached worker.
pub(crate) struct Link {
    pub(crate) hello: Hello,
    orders: mpsc::Sender<Result<Order, Status>>,
    reports: Mutex<Streaming<Report>>,
}

/// What was reported on one order.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) stages: Vec<String>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) task: Option<TaskEnded>,
    pub(crate) step: Option<StepEnd>,
}

struct Service {
    attached: mpsc::Sender<Link>,
}

#[tonic::async_trait]
impl WorkerLink for Service {
    type AttachStream = ReceiverStream<Result<Order, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<Report>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if request.metadata().get("x-homeport-worker").is_none_or(|word| word != CREDENTIAL) {
            return Err(Status::unauthenticated("wrong credential"));
        }
        let mut reports = request.into_inner();
        let Some(Report { report: Some(Kind::Hello(hello)) }) = reports.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (orders, stream) = mpsc::channel(16);
        self.attached.send(Link { hello, orders, reports: Mutex::new(reports) }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Answers with what control would see of a container's request.
async fn seen(Path(name): Path<String>, headers: HeaderMap) -> String {
    let header =
        |name| headers.get(name).map_or("-", |value: &axum::http::HeaderValue| value.to_str().unwrap());
    format!(
        "{name} {} {} {}\n",
        header("x-homeport-task"),
        header("x-homeport-step"),
        header("x-homeport-worker")
    )
}

impl Control {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (attached, links) = mpsc::channel(4);
        let router = tonic::service::Routes::new(WorkerLinkServer::new(Service { attached }))
            .into_axum_router()
            .route("/blobs/{name}", get(seen));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Arc::new(Self { address, attached: Mutex::new(links) })
    }

    /// The next worker that attaches.
    pub(crate) async fn attached(&self) -> Link {
        let mut attached = self.attached.lock().await;
        tokio::time::timeout(PATIENCE, attached.recv()).await.expect("no worker attaches").unwrap()
    }
}

impl Link {
    pub(crate) async fn order(&self, order: OrderKind) {
        self.orders.send(Ok(Order { order: Some(order) })).await.unwrap();
    }

    pub(crate) async fn report(&self) -> Kind {
        let mut reports = self.reports.lock().await;
        let report = tokio::time::timeout(PATIENCE, reports.message()).await.expect("no report comes");
        report.unwrap().expect("the stream ended").report.unwrap()
    }

    /// All reports up to one that is looked for.
    pub(crate) async fn until(&self, is_last: impl Fn(&Kind) -> bool) -> Vec<Kind> {
        let mut reports = Vec::new();
        loop {
            let report = self.report().await;
            let last = is_last(&report);
            reports.push(report);
            if last {
                return reports;
            }
        }
    }

    /// Hears the worker out until it leaves, as control does.
    pub(crate) async fn until_closed(self) {
        let mut reports = self.reports.into_inner();
        while let Ok(Some(_)) =
            tokio::time::timeout(PATIENCE, reports.message()).await.expect("the worker stays")
        {}
    }

    /// All reports up to the end of `id`.
    pub(crate) async fn until_ended(&self, id: &str) -> Story {
        self.until_all_ended(&[id]).await.remove(id).unwrap()
    }

    /// All reports up to the end of the last of `ids`. Nothing may be reported after an end.
    pub(crate) async fn until_all_ended(&self, ids: &[&str]) -> HashMap<String, Story> {
        let mut stories: HashMap<String, Story> =
            ids.iter().map(|id| (id.to_string(), Story::default())).collect();
        while stories.values().any(|story| !story.ended()) {
            hear(&mut stories, self.report().await);
        }
        stories
    }

    /// Reports up to one with output that contains `text`; everything up to there.
    pub(crate) async fn until_said(&self, id: &str, text: &str) -> Story {
        let mut stories = HashMap::from([(id.to_owned(), Story::default())]);
        loop {
            hear(&mut stories, self.report().await);
            let story = &stories[id];
            assert!(!story.ended(), "{story:?}");
            if story.stdout.contains(text) {
                return stories.remove(id).unwrap();
            }
        }
    }
}

impl Story {
    fn ended(&self) -> bool {
        self.task.is_some() || self.step.is_some()
    }

    pub(crate) fn task(&self) -> &TaskEnded {
        self.task.as_ref().unwrap()
    }

    /// Snapshot of a step that succeeded.
    pub(crate) fn snapshot(&self) -> String {
        match self.step.as_ref().unwrap() {
            StepEnd::Result(result) => result.snapshot.clone(),
            StepEnd::Failure(failure) => panic!("{failure:?}\n{self:?}"),
        }
    }
}

fn hear(stories: &mut HashMap<String, Story>, report: Kind) {
    match report {
        Kind::TaskStage(stage) => live(stories, &stage.task_id).stages.push(stage.stage),
        Kind::TaskOutput(output) => {
            let stream = output.stream();
            live(stories, &output.task_id).add(stream, &output.data);
        }
        Kind::StepOutput(output) => {
            let stream = output.stream();
            live(stories, &output.step_id).add(stream, &output.data);
        }
        Kind::TaskEnded(ended) => {
            let story = live(stories, &ended.task_id);
            story.task = Some(ended);
        }
        Kind::StepEnded(ended) => live(stories, &ended.step_id).step = ended.end,
        Kind::VolumeTaken(_) | Kind::VolumeShown(_) => {}
        Kind::Hello(_) => panic!("a second hello"),
    }
}

fn live<'a>(stories: &'a mut HashMap<String, Story>, id: &str) -> &'a mut Story {
    let story = stories.get_mut(id).unwrap_or_else(|| panic!("a report on `{id}`"));
    assert!(!story.ended(), "a report after the end of `{id}`");
    story
}

impl Story {
    fn add(&mut self, stream: Stream, data: &[u8]) {
        let text = std::str::from_utf8(data).unwrap();
        match stream {
            Stream::Stdout => self.stdout.push_str(text),
            Stream::Stderr => self.stderr.push_str(text),
            Stream::Unspecified => panic!("output of no stream"),
        }
    }
}
