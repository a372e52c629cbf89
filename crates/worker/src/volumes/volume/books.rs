//! What was taken and what is owed, in memory and on disk.

use homeport_content::Stack;
use homeport_fs::{Taken, VolumeError};
use homeport_proto::worker::{TakeReason, VolumeTaken};
use homeport_store::Root;

use super::{Layer, State, TakeError, Volume};
use crate::volumes::lock;
use crate::volumes::note::{Note, Owed, Showing};
use crate::volumes::stacks;

impl Volume {
    /// Enters into the books what was taken.
    pub(super) fn settle(
        &self,
        state: &mut State,
        taken: Option<Taken>,
        reason: TakeReason,
        clean: bool,
    ) -> Result<VolumeTaken, TakeError> {
        let mut report = VolumeTaken { clean, ..self.blank(reason) };
        report.seen_version = state.seen_version;
        let Some(taken) = taken else {
            report.seen = Some(stacks::to_wire(&state.seen));
            return Ok(report);
        };
        if matches!(state.layer, Layer::Left(_)) {
            self.enter_forgotten(state, &taken.seen, reason);
            report.seen_version = state.seen_version;
        }
        report.seen = Some(stacks::to_wire(&taken.seen));
        if taken.delta.is_none() && state.seen == taken.seen && state.noted {
            return Ok(report);
        }
        state.seen = taken.seen;
        if let Some(delta) = taken.delta {
            state.sequence += 1;
            report.sequence = state.sequence;
            report.delta = delta.to_string();
            state.seen = state.seen.with(delta);
            self.owed.send_modify(|owed| owed.push(report.clone()));
            state.noted = false;
        }
        self.pin(state);
        self.write_note(state, None)?;
        Ok(report)
    }

    /// An earlier process may have ended between taking something and noting it: then the layer knows of more deltas
    /// than the note.
    fn enter_forgotten(&self, state: &mut State, seen: &Stack, reason: TakeReason) {
        let starts_with = |stack: &Stack| seen.base == stack.base && seen.deltas.starts_with(&stack.deltas);
        if let Some((version, stack)) = state.showing.take()
            && starts_with(&stack)
        {
            (state.seen_version, state.seen) = (version, stack);
        }
        if !starts_with(&state.seen) {
            return;
        }
        for delta in &seen.deltas[state.seen.deltas.len()..] {
            state.sequence += 1;
            let forgotten = VolumeTaken {
                sequence: state.sequence,
                delta: delta.to_string(),
                seen_version: state.seen_version,
                seen: Some(stacks::to_wire(&state.seen)),
                ..self.blank(reason)
            };
            state.seen = state.seen.with(*delta);
            self.owed.send_modify(|owed| owed.push(forgotten));
        }
        self.pin(state);
    }

    /// Writes the note beside the layer. A layer of an earlier process keeps its own, from which the same follows again.
    pub(in crate::volumes) fn write_first_note(&self) -> Result<(), VolumeError> {
        let mut state = lock(&self.state);
        self.try_note(&mut state, None)
    }

    pub(super) fn write_note(&self, state: &mut State, showing: Option<Showing>) -> Result<(), TakeError> {
        self.try_note(state, showing).map_err(|source| TakeError::Note { name: self.name.clone(), source })
    }

    fn try_note(&self, state: &mut State, showing: Option<Showing>) -> Result<(), VolumeError> {
        let Layer::Mounted(mount) = &mut state.layer else {
            state.noted = true;
            return Ok(());
        };
        let note = Note {
            task: self.task_id.clone(),
            volume: self.volume_id.clone(),
            name: self.name.clone(),
            sequence: state.sequence,
            seen_version: state.seen_version,
            seen: stacks::to_wire(&state.seen).into(),
            showing,
            owed: self.owed.borrow().iter().map(Owed::of).collect(),
        };
        if state.noted {
            return mount.note_cheaply(&note.text());
        }
        mount.note(&note.text())?;
        state.noted = true;
        Ok(())
    }

    /// Keeps what is seen and owed now, in place of what was.
    pub(super) fn pin(&self, state: &mut State) {
        let owed = self.owed.borrow();
        state.pin = self.store.pin(Root::of_stack(&state.seen).chain(roots(&owed)));
    }

    pub(super) fn blank(&self, reason: TakeReason) -> VolumeTaken {
        VolumeTaken {
            task_id: self.task_id.clone(),
            volume_id: self.volume_id.clone(),
            reason: reason.into(),
            ..VolumeTaken::default()
        }
    }
}

/// The deltas that are owed.
pub(super) fn roots(owed: &[VolumeTaken]) -> impl Iterator<Item = Root> + '_ {
    owed.iter().filter_map(|taken| taken.delta.parse().ok()).map(Root::Delta)
}
