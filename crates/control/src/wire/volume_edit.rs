//! Changes that clients make to a Volume without a container: each is one version, made once.

use homeport_content::{Delta, Edit, Layered, PathError, Timestamp};
use homeport_meta::idempotency;
use homeport_store::Hold;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::auth::Caller;
use crate::clock::Seconds;
use crate::control::Control;
use crate::registry::RegistryError;
use crate::volumes::EditError;

/// Seconds for which a repeated request is known to be one.
const REMEMBERED: Seconds = 24.0 * 3600.0;
/// Seconds after its last use for which it is known where a block is.
const BLOCKS_REMEMBERED: Seconds = 7.0 * 24.0 * 3600.0;
/// Seconds between two times that old facts are forgotten.
const FORGETTING: std::time::Duration = std::time::Duration::from_secs(3600);

impl Control {
    /// Changes a Volume as `change` says from what is in it, which must be all that the request is about. A request that is repeated
    /// because its answer was lost finds that it was carried out.
    ///
    /// `hold` keeps the content that the change names. The work goes on when the client goes
    /// away: half of it is nothing that others may see.
    pub(super) async fn edit_volume(
        &self,
        caller: &Caller,
        hold: Hold,
        volume_id: String,
        reason: &'static str,
        change: impl FnOnce(&Layered, &mut Edit<'_>) -> Result<(), Status> + Send + 'static,
    ) -> Result<(), Status> {
        let control = self.clone();
        let key = key_of(caller, reason);
        let work = async move {
            let _hold = hold;
            if control.was_done(key.as_deref()).await? {
                return Ok(());
            }
            let now = control.mtime();
            let edit = move |layered: &Layered| -> Result<Delta, Status> {
                let mut edit = Edit::new(layered, now);
                change(layered, &mut edit)?;
                Ok(edit.finish())
            };
            match control.volumes.publish_edit(&volume_id, reason, edit).await {
                Ok(_) => control.note_done(key.as_deref()).await,
                // The first attempt may have come to its end while this one waited for its turn.
                Err(EditError::Refused(_)) if control.was_done(key.as_deref()).await? => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        tokio::spawn(work).await.map_err(|error| Status::unavailable(error.to_string()))?
    }

    /// The time of what is written now.
    pub(super) fn mtime(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp { seconds: now.floor() as i64, nanos: (now.fract() * 1e9) as u32 }
    }

    /// Whether this very request was carried out before.
    pub(super) async fn was_edited(&self, caller: &Caller, reason: &str) -> Result<bool, Status> {
        self.was_done(key_of(caller, reason).as_deref()).await
    }

    async fn was_done(&self, key: Option<&str>) -> Result<bool, Status> {
        let Some(key) = key else { return Ok(false) };
        let answer = idempotency::get(self.registry.meta(), key).await.map_err(RegistryError::from)?;
        Ok(answer.is_some())
    }

    async fn note_done(&self, key: Option<&str>) -> Result<(), Status> {
        let Some(key) = key else { return Ok(()) };
        let noted = idempotency::get_or_insert(self.registry.meta(), key, &[], self.milliseconds()).await;
        noted.map(drop).map_err(|error| RegistryError::from(error).into())
    }

    pub(super) fn milliseconds(&self) -> i64 {
        (self.clock.now() * 1000.0) as i64
    }

    /// Forgets, from time to time, requests that nobody repeats and blocks that nobody uploads again.
    pub async fn forget_old_uploads(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(FORGETTING);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let before = |age: Seconds| self.milliseconds() - (age * 1000.0) as i64;
            let meta = self.registry.meta();
            let swept = async {
                idempotency::sweep(meta, before(REMEMBERED)).await?;
                homeport_meta::blocks::sweep(meta, before(BLOCKS_REMEMBERED)).await
            };
            match swept.await {
                Ok(0) => {}
                Ok(blocks) => tracing::debug!(blocks, "forgot where blocks of uploads are"),
                Err(error) => tracing::warn!(%error, "cannot forget old uploads"),
            }
        }
    }
}

fn key_of(caller: &Caller, reason: &str) -> Option<String> {
    caller.idempotency_key.as_ref().map(|key| format!("volume {reason} {key}"))
}

/// An edit that the content refused, as clients understand it.
pub(super) fn refused(error: homeport_content::EditError) -> Status {
    use homeport_content::EditError as Refused;
    let code = match &error {
        Refused::NotFound { .. } | Refused::Path(PathError::NotFound { .. }) => Code::NotFound,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}
