//! Who waits for a build: one that nobody waits for any more is given up.

use std::collections::HashMap;

use super::{Pending, lock};
use crate::clock::Seconds;
use crate::control::Control;

/// Seconds after which a build that nobody waits for is given up: a client that lost its connection is back by then.
const PATIENCE: Seconds = 10.0;

/// Somebody waits for a build for as long as this lives.
pub(crate) struct Waiting {
    control: Control,
    image_id: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.control.clock.now();
        if let Some(pending) = lock(&self.control.builds.pending).get_mut(&self.image_id) {
            pending.waiting = pending.waiting.saturating_sub(1);
            pending.alone_since = now;
        }
    }
}

impl Control {
    /// Notes that somebody waits for an image.
    pub(crate) fn wait_for_image(&self, image_id: &str) -> Waiting {
        if let Some(pending) = lock(&self.builds.pending).get_mut(image_id) {
            pending.waiting += 1;
        }
        Waiting { control: self.clone(), image_id: image_id.to_owned() }
    }

    /// Gives up the builds that nobody waits for. A function that fills a layer ends with its app.
    pub(super) fn give_up_builds(&self, now: Seconds) {
        let alone = given_up(&mut lock(&self.builds.pending), now);
        for image_id in alone {
            tracing::info!(image = image_id, "nobody waits for the build any more");
            self.builds.fail(&image_id, "its build was given up: nobody waited for it any more".into());
            self.builds.count("cancelled");
            self.end_build(&image_id);
        }
    }
}

/// Stops the builds that have been alone for too long.
fn given_up(pending: &mut HashMap<String, Pending>, now: Seconds) -> Vec<String> {
    let mut alone = Vec::new();
    for (image_id, build) in pending.iter_mut() {
        let since = now - build.alone_since;
        if build.waiting == 0
            && build.failure.is_none()
            && since > PATIENCE
            && let Some(work) = build.work.take()
        {
            work.abort();
            alone.push(image_id.clone());
        }
    }
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_build_without_anybody_is_given_up_and_only_after_a_while() {
        let build = |waiting| {
            let mut pending = Pending::new(Default::default(), super::super::key::Layer::default());
            pending.waiting = waiting;
            pending.alone_since = 100.0;
            let task = tokio::spawn(std::future::pending::<()>());
            pending.work = Some(task.abort_handle());
            (pending, task)
        };
        let ((left, left_task), (watched, watched_task)) = (build(0), build(1));
        let mut pending = HashMap::from([("im-left".to_owned(), left), ("im-watched".to_owned(), watched)]);
        assert!(given_up(&mut pending, 100.0 + PATIENCE).is_empty());
        assert_eq!(given_up(&mut pending, 101.0 + PATIENCE), ["im-left"]);
        assert!(given_up(&mut pending, 102.0 + PATIENCE).is_empty(), "once is enough");
        assert!(left_task.await.unwrap_err().is_cancelled());
        assert!(!watched_task.is_finished());
    }
}
