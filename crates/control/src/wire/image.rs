//! Images: asked for layer by layer, joined until they are there.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use pb::generic_result::GenericStatus;
use tonic::Status;

use super::{Answers, LONG_POLL, call, log, missing};
use crate::auth::Caller;
use crate::builds::{BuildError, LayerState};
use crate::control::Control;

impl From<BuildError> for Status {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Registry(error) => error.into(),
            BuildError::Secret(error) => error.into(),
            other => Self::failed_precondition(other.to_string()),
        }
    }
}

impl Control {
    pub(super) async fn image_from_id(
        &self,
        _: &Caller,
        request: pb::ImageFromIdRequest,
    ) -> Result<pb::ImageFromIdResponse, Status> {
        let image =
            self.registry.image(&request.image_id).ok_or_else(|| missing("image", &request.image_id))?;
        Ok(pb::ImageFromIdResponse { image_id: image.id.clone(), metadata: Some(metadata(&image)) })
    }

    pub(super) async fn image_get_or_create(
        &self,
        _: &Caller,
        request: pb::ImageGetOrCreateRequest,
    ) -> Result<pb::ImageGetOrCreateResponse, Status> {
        let image_id = self.request_layer(request)?;
        let ready = self.registry.image(&image_id);
        Ok(pb::ImageGetOrCreateResponse {
            image_id,
            result: ready.as_ref().map(|_| success()),
            metadata: ready.map(|image| metadata(&image)),
        })
    }

    pub(super) fn image_join_streaming(
        &self,
        _: &Caller,
        request: pb::ImageJoinStreamingRequest,
    ) -> Result<Answers<pb::ImageJoinStreamingResponse>, Status> {
        let image_id = request.image_id.clone();
        // A client that finds the image built did not wait for it: what the build said is none of its news.
        let silent = match self.layer_state(&image_id) {
            LayerState::Unknown => return Err(missing("image", &image_id)),
            LayerState::Ready(_) => request.last_entry_id.is_empty() && !request.include_logs_for_finished,
            LayerState::Pending | LayerState::Failed(_) => false,
        };
        self.start_build(&image_id);
        let waiting = self.wait_for_image(&image_id);
        let control = self.clone();
        let mut last = log::entry_number(&request.last_entry_id);
        let timeout = if request.timeout > 0.0 { request.timeout.into() } else { LONG_POLL };
        let deadline = tokio::time::Instant::now() + call::seconds(timeout);
        Ok(Box::pin(async_stream::stream! {
            let _waiting = waiting;
            loop {
                // The state is read before the log: all that was said before the end is in the page.
                let state = control.layer_state(&image_id);
                let mut page = control.logs.page(&image_id, last);
                if let Some(entry) = page.entries.last().filter(|_| !silent) {
                    last = entry.number;
                    yield Ok(pb::ImageJoinStreamingResponse {
                        task_logs: page.entries.iter().map(log::lines).collect(),
                        entry_id: format!("{last}-0"),
                        ..Default::default()
                    });
                    continue;
                }
                match state {
                    LayerState::Ready(image) => {
                        yield Ok(end(last, success(), Some(metadata(&image))));
                        return;
                    }
                    LayerState::Failed(exception) => {
                        let result = pb::GenericResult {
                            status: GenericStatus::Failure.into(),
                            exception,
                            ..Default::default()
                        };
                        yield Ok(end(last, result, None));
                        return;
                    }
                    LayerState::Unknown => {
                        yield Err(missing("image", &image_id));
                        return;
                    }
                    LayerState::Pending => {}
                }
                if !matches!(tokio::time::timeout_at(deadline, page.change.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        }))
    }
}

fn success() -> pb::GenericResult {
    pb::GenericResult { status: GenericStatus::Success.into(), ..Default::default() }
}

fn end(
    last: u64,
    result: pb::GenericResult,
    metadata: Option<pb::ImageMetadata>,
) -> pb::ImageJoinStreamingResponse {
    pb::ImageJoinStreamingResponse {
        result: Some(result),
        entry_id: format!("{last}-0"),
        metadata,
        ..Default::default()
    }
}

fn metadata(image: &rec::Image) -> pb::ImageMetadata {
    pb::ImageMetadata { image_builder_version: Some(image.builder_version.clone()), ..Default::default() }
}
