//! The service that workers attach to.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use homeport_proto::worker as wp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::Identity;
use crate::control::Control;
use crate::links::ORDERS;
use crate::logs::Source;
use crate::scheduler::{Ending, Gpu, Node, Outcome};

type Orders = Pin<Box<dyn Stream<Item = Result<wp::Order, Status>> + Send>>;

#[tonic::async_trait]
impl wp::worker_link_server::WorkerLink for Control {
    type AttachStream = Orders;

    async fn attach(&self, request: Request<Streaming<wp::Report>>) -> Result<Response<Orders>, Status> {
        if !matches!(request.extensions().get::<Identity>(), Some(Identity::Worker)) {
            return Err(Status::unauthenticated("only workers of this server may attach"));
        }
        let mut reports = request.into_inner();
        let Some(Ok(wp::Report { report: Some(wp::report::Report::Hello(hello)) })) = reports.next().await
        else {
            return Err(Status::invalid_argument("the first report of a worker is its hello"));
        };
        let worker_id = hello.worker_id.clone();
        let (orders, stream) = mpsc::channel(ORDERS);
        let replaced = self.links.attach(&worker_id, orders.clone());
        tracing::info!(worker = worker_id, cores = f64::from(hello.milli_cpu) / 1000.0, "worker attached");
        if replaced {
            self.volumes.worker_gone(&worker_id);
        }
        self.with_scheduler(|scheduler, now| {
            if replaced {
                scheduler.detach_worker(&worker_id, now);
            }
            scheduler.attach_worker(node(hello), now);
        });
        let control = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(report)) = reports.next().await {
                if let Some(report) = report.report {
                    control.hear(&worker_id, report);
                }
            }
            if control.links.detach(&worker_id, &orders) {
                control.volumes.worker_gone(&worker_id);
                tracing::info!(worker = worker_id, "worker detached");
                control.with_scheduler(|scheduler, now| scheduler.detach_worker(&worker_id, now));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream).map(Ok))))
    }
}

impl Control {
    fn hear(&self, worker_id: &str, report: wp::report::Report) {
        match report {
            wp::report::Report::Hello(_) => {}
            wp::report::Report::TaskStage(stage) => {
                self.with_scheduler(|scheduler, now| {
                    scheduler.record_stage(&stage.task_id, &stage.stage, stage.micros, now);
                });
            }
            wp::report::Report::TaskOutput(output) => self.hear_output(&output),
            wp::report::Report::TaskEnded(ended) => self.hear_ended(ended),
            wp::report::Report::StepOutput(output) => {
                if let Some(log_id) = self.links.step_log(&output.step_id) {
                    let source = source(output.stream());
                    self.logs.append(&log_id, &output.step_id, "", source, &output.data, output.at);
                }
            }
            wp::report::Report::StepEnded(ended) => self.links.finish_step(ended),
            wp::report::Report::VolumeTaken(taken) => self.hear_taken(worker_id, taken),
            wp::report::Report::VolumeShown(shown) => self.hear_shown(shown),
        }
    }

    /// A container has ended, and all that was heard of it before is settled.
    pub(crate) fn task_has_ended(&self, ended: wp::TaskEnded) {
        let (task_id, ending) = ending(ended);
        tracing::info!(task = task_id, outcome = ?ending.outcome, "container ended");
        self.with_scheduler(|scheduler, now| scheduler.task_ended(&task_id, ending, now));
    }

    fn hear_output(&self, output: &wp::TaskOutput) {
        let Some((app_id, pool_id)) = self.with_scheduler(|scheduler, _| {
            scheduler.task(&output.task_id).map(|task| (task.app_id.clone(), task.pool_id.clone()))
        }) else {
            return;
        };
        let log_id = self.builds.image_of(&pool_id).unwrap_or(app_id);
        self.logs.append(
            &log_id,
            &output.task_id,
            &pool_id,
            source(output.stream()),
            &output.data,
            output.at,
        );
    }
}

fn source(stream: wp::Stream) -> Source {
    match stream {
        wp::Stream::Stderr => Source::Stderr,
        wp::Stream::Stdout | wp::Stream::Unspecified => Source::Stdout,
    }
}

fn node(hello: wp::Hello) -> Node {
    Node {
        id: hello.worker_id,
        milli_cpu: hello.milli_cpu,
        memory_bytes: hello.memory_bytes,
        gpus: hello.gpus.into_iter().map(|gpu| Gpu { device: gpu.device, model: gpu.model }).collect(),
    }
}

fn ending(ended: wp::TaskEnded) -> (String, Ending) {
    let outcome = match ended.end {
        Some(wp::task_ended::End::ExitCode(code)) => Outcome::Exit(code),
        Some(wp::task_ended::End::Signal(signal)) => Outcome::Signal(signal),
        Some(wp::task_ended::End::StartError(reason)) => Outcome::NotStarted(reason),
        None => Outcome::Lost("the worker did not say how it ended".into()),
    };
    let some = |text: String| (!text.is_empty()).then_some(text);
    let ending = Ending {
        outcome,
        out_of_memory: ended.out_of_memory,
        snapshot: some(ended.snapshot),
        commit_error: some(ended.commit_error),
    };
    (ended.task_id, ending)
}
