//! Garbage, usage and faults of the store, as they are asked for from outside.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use homeport_proto::admin as pb;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use super::{AdminService, Answers};
use crate::storage::{CheckEvent, CheckOptions, CollectOptions, StorageError};

impl AdminService {
    pub(super) async fn collect_garbage(
        &self,
        request: pb::CollectGarbageRequest,
    ) -> Result<Answers<pb::CollectGarbageProgress>, Status> {
        let options = CollectOptions {
            dry_run: request.dry_run,
            older_than: request.older_than_seconds.map(Duration::from_secs),
        };
        let control = self.0.clone();
        Ok(in_parts(async move |parts| {
            let progress = parts.clone();
            let collected = control
                .collect_garbage(options, move |at| {
                    say(
                        &progress,
                        pb::CollectGarbageProgress {
                            phase: at.phase.to_owned(),
                            scanned: at.scanned,
                            ..Default::default()
                        },
                    );
                })
                .await?;
            Ok(pb::CollectGarbageProgress {
                done: true,
                removed_objects: collected.removed_objects,
                removed_trees: collected.removed_trees,
                removed_images: collected.removed_images,
                removed_bytes: collected.removed_bytes,
                kept_bytes: collected.kept_bytes,
                ..Default::default()
            })
        }))
    }

    pub(super) async fn disk_usage(
        &self,
        _request: pb::DiskUsageRequest,
    ) -> Result<pb::DiskUsageResponse, Status> {
        let usage = self.0.disk_usage().await?;
        let rows = usage
            .rows
            .into_iter()
            .map(|row| pb::DiskUsageRow {
                kind: row.kind,
                name: row.name,
                bytes: row.bytes,
                unique_bytes: row.unique_bytes,
            })
            .collect();
        Ok(pb::DiskUsageResponse {
            rows,
            total_bytes: usage.total_bytes,
            garbage_bytes: usage.garbage_bytes,
            free_bytes: usage.free_bytes,
        })
    }

    pub(super) async fn check_store(
        &self,
        request: pb::CheckStoreRequest,
    ) -> Result<Answers<pb::CheckStoreProgress>, Status> {
        let from = Some(PathBuf::from(request.repair_from)).filter(|from| !from.as_os_str().is_empty());
        let options = CheckOptions { repair: request.repair || from.is_some(), repair_from: from };
        let control = self.0.clone();
        Ok(in_parts(async move |parts| {
            let events = parts.clone();
            let checked = control.check_store(options, move |event| say(&events, to_progress(event))).await?;
            Ok(pb::CheckStoreProgress {
                checked_objects: checked.objects,
                checked_bytes: checked.bytes,
                done: true,
                faults: checked.faults,
                mended_faults: checked.mended,
                ..Default::default()
            })
        }))
    }
}

/// Work whose parts are said as they come. It goes on when nobody listens any more: half of it is of no use.
fn in_parts<T: Send + 'static, F>(work: impl FnOnce(UnboundedSender<Result<T, Status>>) -> F) -> Answers<T>
where
    F: Future<Output = Result<T, StorageError>> + Send + 'static,
{
    let (sender, receiver) = unbounded_channel();
    let work = work(sender.clone());
    tokio::spawn(async move {
        let last = work.await.map_err(Status::from);
        // Whoever asked may have gone.
        let _ = sender.send(last);
    });
    UnboundedReceiverStream::new(receiver).boxed()
}

fn say<T>(parts: &UnboundedSender<Result<T, Status>>, part: T) {
    // Whoever asked may have gone.
    let _ = parts.send(Ok(part));
}

fn to_progress(event: CheckEvent) -> pb::CheckStoreProgress {
    pb::CheckStoreProgress {
        checked_objects: event.checked_objects,
        checked_bytes: event.checked_bytes,
        fault: event.fault.unwrap_or_default(),
        mended: event.mended.unwrap_or_default(),
        ..Default::default()
    }
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Self {
        let text = with_causes(&error);
        match error {
            StorageError::Sweep { .. } => Status::failed_precondition(text),
            _ => Status::internal(text),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
