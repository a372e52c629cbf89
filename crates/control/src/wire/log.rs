//! Logs of apps.

use homeport_proto::client as pb;
use tonic::Status;

use super::{Answers, call, missing};
use crate::auth::Caller;
use crate::control::Control;
use crate::logs::{Entry, Source};

impl Control {
    pub(super) fn app_get_logs(
        &self,
        _: &Caller,
        request: pb::AppGetLogsRequest,
    ) -> Result<Answers<pb::TaskLogsBatch>, Status> {
        let app_id = self.log_of(&request)?;
        let control = self.clone();
        let mut last = entry_number(&request.last_entry_id);
        // No time is what one asks who wants only what is there.
        let deadline = tokio::time::Instant::now() + call::seconds(request.timeout.into());
        Ok(Box::pin(async_stream::stream! {
            loop {
                // The log of an app that ended long ago is gone, and nothing will come any more.
                let ended = control.registry.app(&app_id).is_none_or(|app| app.state() == pb::AppState::Stopped);
                if ended && !control.logs.contains(&app_id) {
                    yield Ok(pb::TaskLogsBatch { app_done: true, ..Default::default() });
                    return;
                }
                let mut page = control.logs.page(&app_id, last);
                for entry in &page.entries {
                    last = entry.number;
                    if wanted(entry, &request) {
                        yield Ok(batch(entry));
                    }
                }
                if page.done {
                    let entry_id = format!("{last}-0");
                    yield Ok(pb::TaskLogsBatch { entry_id, app_done: true, ..Default::default() });
                    return;
                }
                if page.entries.is_empty()
                    && !matches!(tokio::time::timeout_at(deadline, page.change.changed()).await, Ok(Ok(())))
                {
                    return;
                }
            }
        }))
    }

    /// The app whose log is meant. Who wants that of a container may leave the app out.
    fn log_of(&self, request: &pb::AppGetLogsRequest) -> Result<String, Status> {
        let mut app_id = request.app_id.clone();
        if app_id.is_empty() && !request.task_id.is_empty() {
            let task = |scheduler: &mut crate::scheduler::Scheduler, _| {
                scheduler.task(&request.task_id).map(|task| task.app_id.clone())
            };
            app_id = self.with_scheduler(task).ok_or_else(|| missing("container", &request.task_id))?;
        }
        match self.registry.app(&app_id) {
            Some(_) => Ok(app_id),
            None => Err(missing("app", &app_id)),
        }
    }

    pub(super) async fn app_fetch_logs(
        &self,
        _: &Caller,
        request: pb::AppFetchLogsRequest,
    ) -> Result<pb::AppFetchLogsResponse, Status> {
        let time = |stamp: Option<prost_types::Timestamp>, default: f64| {
            stamp.map_or(default, |at| at.seconds as f64 + f64::from(at.nanos) * 1e-9)
        };
        let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
        let since = time(request.since, 0.0);
        let until = time(request.until, f64::MAX);
        let filter = pb::AppGetLogsRequest {
            function_id: request.function_id,
            task_id: request.task_id,
            ..Default::default()
        };
        let entries = self.logs.between(&request.app_id, since, until, limit);
        let batches = entries.iter().filter(|entry| wanted(entry, &filter)).map(batch).collect();
        Ok(pb::AppFetchLogsResponse { batches })
    }
}

pub(super) fn entry_number(entry_id: &str) -> u64 {
    entry_id.split('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn wanted(entry: &Entry, request: &pb::AppGetLogsRequest) -> bool {
    (request.task_id.is_empty() || request.task_id == entry.task_id)
        && (request.function_id.is_empty() || request.function_id == entry.function_id)
}

fn batch(entry: &Entry) -> pb::TaskLogsBatch {
    pb::TaskLogsBatch {
        task_id: entry.task_id.clone(),
        function_id: entry.function_id.clone(),
        entry_id: format!("{}-0", entry.number),
        items: vec![lines(entry)],
        ..Default::default()
    }
}

pub(super) fn lines(entry: &Entry) -> pb::TaskLogs {
    let descriptor = match entry.source {
        Source::Stdout => pb::FileDescriptor::Stdout,
        Source::Stderr => pb::FileDescriptor::Stderr,
        Source::Server => pb::FileDescriptor::Info,
    };
    pb::TaskLogs {
        data: entry.text.clone(),
        timestamp: entry.at,
        timestamp_ns: (entry.at * 1e9) as u64,
        file_descriptor: descriptor.into(),
        ..Default::default()
    }
}
