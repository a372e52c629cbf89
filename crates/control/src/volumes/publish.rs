//! New versions: of what containers changed, and of what is asked for over the API.

use std::sync::Arc;

use homeport_content::{Delta, DeltaId, Foreign, Layered, Stack, merge};
use homeport_meta::{volume_takes, volume_versions};
use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use homeport_store::Root;

use super::account::Account;
use super::catalog::Volumes;
use super::compaction;
use super::entry::{Entry, Loaded, layers};
use super::version::{Version, sql};
use super::{EditError, VolumeError, blocking};

/// What a container changed in a Volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The container.
    pub task_id: String,
    /// For people; empty if unknown.
    pub function_name: String,
    /// Its app; empty if unknown.
    pub app_id: String,
    /// The Volume.
    pub volume_id: String,
    /// Counts the changes of one task and Volume, from 1.
    pub sequence: u64,
    /// The change, which is in the store.
    pub delta: DeltaId,
    /// The version that was shown to it last.
    pub seen_version: u64,
    /// The layers of that version, with the container's own earlier changes over them.
    pub seen: Stack,
    /// What made it report.
    pub reason: wp::TakeReason,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in the history now.
    Published {
        /// As this version.
        version: Arc<Version>,
        /// Whether others had changed the Volume since the container looked.
        merged: bool,
    },
    /// It was in the history already, or changed nothing.
    Known,
    /// The Volume was deleted meanwhile.
    Gone,
}

/// A version in the making: a change of the newest one.
pub(super) struct Draft {
    pub(super) delta: Arc<Delta>,
    /// Who, why, and what lost against it.
    pub(super) record: rec::VolumeVersion,
    pub(super) take: Option<volume_takes::Take>,
    /// Refuse what makes the Volume larger than it may be.
    pub(super) limited: bool,
}

impl Volumes {
    /// Changes a Volume: `edit` says how, from what is in it now. Returns the number of the version that came of it, or
    /// of the newest one if nothing changed.
    ///
    /// `edit` runs on a thread that may block. All content that its change names must be in the store, kept there by a
    /// hold of the caller.
    pub async fn publish_edit<E: Send + 'static>(
        self: &Arc<Self>,
        volume_id: &str,
        reason: &str,
        edit: impl FnOnce(&Layered) -> Result<Delta, E> + Send + 'static,
    ) -> Result<u64, EditError<E>> {
        let _hold = self.store.hold();
        let entry = self.entry(volume_id)?;
        let _turn = entry.turn.lock().await;
        // It may have been deleted while others had their turn.
        self.entry(volume_id)?;
        let (head, loaded) = self.load_head(&entry).await?;
        let layered = Arc::clone(&loaded.layered);
        let delta = blocking(move || edit(&layered)).await?.map_err(EditError::Refused)?;
        if is_nothing(&loaded.layered, &delta) {
            return Ok(head.number());
        }
        let record = rec::VolumeVersion { reason: reason.to_owned(), ..Default::default() };
        let draft = Draft { delta: Arc::new(delta), record, take: None, limited: true };
        Ok(self.append(&entry, loaded, draft).await?.number())
    }

    /// Brings what a container changed into the history, once. Durable on return.
    pub async fn publish_taken(self: &Arc<Self>, report: Report) -> Result<Outcome, VolumeError> {
        let hold = self.store.hold();
        hold.pin(Root::of_stack(&report.seen).chain([Root::Delta(report.delta)]));
        let Ok(entry) = self.entry(&report.volume_id) else { return Ok(Outcome::Gone) };
        let _turn = entry.turn.lock().await;
        if self.entry(&report.volume_id).is_err() {
            return Ok(Outcome::Gone);
        }
        let last = volume_takes::last_sequence(&self.meta, &report.task_id, &report.volume_id).await?;
        if sql(report.sequence) <= last {
            return Ok(Outcome::Known);
        }
        if sql(report.sequence) > last + 1 {
            return Err(VolumeError::OutOfOrder {
                task_id: report.task_id,
                sequence: report.sequence,
                expected: u64::try_from(last).unwrap_or(0) + 1,
            });
        }
        let mut take = volume_takes::Take {
            task_id: report.task_id.clone(),
            volume_id: report.volume_id.clone(),
            sequence: sql(report.sequence),
            number: 0,
        };
        let (head, loaded) = self.load_head(&entry).await?;
        let since = self.since(&report).await?;
        let merged = since.iter().any(|change| !change.own);
        let (store, layered) = (Arc::clone(&self.store), Arc::clone(&loaded.layered));
        let (seen, mine) = (report.seen.clone(), report.delta);
        let (delta, conflicts) = blocking(move || {
            let ours = store.delta(&mine)?;
            if !merged {
                // What it saw is what there is.
                return Ok((ours, Vec::new()));
            }
            let seen = layers(&store, &seen)?;
            let changes = since.iter().map(|change| change.delta(&store)).collect::<Result<Vec<_>, _>>()?;
            let foreign: Vec<Foreign<'_>> = changes
                .iter()
                .zip(&since)
                .map(|(delta, change)| Foreign { version: change.version, delta, own: change.own })
                .collect();
            let result = merge(&seen, &layered, &ours, &foreign);
            let conflicts = result
                .conflicts
                .into_iter()
                .map(|conflict| {
                    let by = since.iter().find(|change| change.version == conflict.lost_version);
                    rec::VolumeConflict {
                        path: conflict.path.into(),
                        lost_version: conflict.lost_version,
                        lost_by: by.map(|change| change.by.clone()).unwrap_or_default(),
                        lost_removed: conflict.lost_removed,
                    }
                })
                .collect();
            Ok::<_, VolumeError>((Arc::new(result.delta), conflicts))
        })
        .await??;
        if is_nothing(&loaded.layered, &delta) {
            take.number = sql(head.number());
            volume_takes::put(&self.meta, &take).await?;
            return Ok(Outcome::Known);
        }
        let record = rec::VolumeVersion {
            reason: reason(report.reason).to_owned(),
            task_id: report.task_id,
            function_name: report.function_name,
            app_id: report.app_id,
            sequence: report.sequence,
            conflicts,
            ..Default::default()
        };
        let draft = Draft { delta, record, take: Some(take), limited: false };
        let version = self.append(&entry, loaded, draft).await?;
        Ok(Outcome::Published { version, merged })
    }

    /// Makes a draft the newest version. The caller has the turn and a hold.
    pub(super) async fn append(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        loaded: Loaded,
        draft: Draft,
    ) -> Result<Arc<Version>, VolumeError> {
        let now = entry.now();
        let (head, volume) = (now.head, now.record);
        let store = Arc::clone(&self.store);
        let before = (head.record.files, head.record.bytes);
        let quota = if draft.limited { volume.quota_bytes } else { 0 };
        let (delta, links, stack) = (draft.delta, Arc::clone(&loaded.links), head.stack.clone());
        let named = display_name(&volume);
        let (id, account, stack, layered) = blocking(move || {
            delta.validate()?;
            let account = Account::of(&loaded.layered, &loaded.links, &delta, before);
            if quota > 0 && account.bytes > quota && account.bytes > before.1 {
                return Err(VolumeError::Full { volume: named, quota, bytes: account.bytes });
            }
            let id = store.put_delta(&delta)?;
            let grown = (stack.with(id), loaded.layered.with(delta));
            let (stack, layered) = compaction::keep_shallow(&store, grown)?;
            Ok((id, account, stack, layered))
        })
        .await??;
        let mut record = draft.record;
        record.number = head.number() + 1;
        // Never before the version below, whatever the clock did between two starts of the server.
        record.created_at = self.clock.now().max(head.record.created_at);
        record.delta = id.to_string();
        (record.added, record.changed, record.removed) = (account.added, account.changed, account.removed);
        (record.files, record.bytes) = (account.files, account.bytes);
        let version = Arc::new(Version::new(record, stack));
        let take = draft.take.map(|take| volume_takes::Take { number: sql(version.number()), ..take });
        if !volume_versions::insert(&self.meta, &version.row(&volume.id), take.as_ref()).await? {
            return Err(VolumeError::Overtaken { volume: display_name(&volume), number: version.number() });
        }
        entry.change(|state| {
            state.head = Arc::clone(&version);
            state.loaded = Some(Loaded { layered: Arc::new(layered), links });
        });
        self.tidy_soon(&volume.id, entry);
        Ok(version)
    }
}

/// Whether a change of `head` changes nothing.
pub(super) fn is_nothing(head: &Layered, delta: &Delta) -> bool {
    let root = head.get(b"").map(homeport_content::Seen::metadata);
    delta.is_empty() && root == Some(&delta.root.metadata)
}

/// Who made a version, for people.
pub(super) fn who(record: &rec::VolumeVersion) -> String {
    match (record.function_name.as_str(), record.task_id.as_str()) {
        ("", "") => record.reason.clone(),
        ("", task) => task.to_owned(),
        (function, _) => function.to_owned(),
    }
}

/// The name of a Volume for people: its id if it has none.
pub(super) fn display_name(volume: &rec::Volume) -> String {
    if volume.name.is_empty() { volume.id.clone() } else { volume.name.clone() }
}

/// What a report of a container is in the history.
pub(super) fn reason(reason: wp::TakeReason) -> &'static str {
    match reason {
        wp::TakeReason::Asked | wp::TakeReason::Unspecified => "commit",
        wp::TakeReason::Background => BACKGROUND,
        wp::TakeReason::Ended => "commit at the end",
        wp::TakeReason::Recovered => "commit after a restart",
    }
}

/// The reason of versions that nobody asked for.
pub(super) const BACKGROUND: &str = "background commit";
