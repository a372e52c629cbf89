//! What lies beside a layer on disk, so that a later process knows whose it is and what is owed of it.

use homeport_proto::worker::{Stack, VolumeTaken};
use serde::{Deserialize, Serialize};

/// The note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) task: String,
    pub(super) volume: String,
    pub(super) name: String,
    /// The sequence that was given away last.
    pub(super) sequence: u64,
    /// The version that was shown last.
    pub(super) seen_version: u64,
    /// The layers that the container saw when this was written.
    pub(super) seen: NotedStack,
    /// Set while another version is being shown, and until the next note: it may be what is seen by now.
    pub(super) showing: Option<Showing>,
    /// What control has not acknowledged, the oldest first.
    pub(super) owed: Vec<Owed>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotedStack {
    pub(super) base: String,
    pub(super) deltas: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Showing {
    pub(super) version: u64,
    pub(super) stack: NotedStack,
}

/// A delta that control has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owed {
    pub(super) sequence: u64,
    pub(super) delta: String,
    pub(super) seen_version: u64,
    pub(super) seen: NotedStack,
    /// The number of a `TakeReason`.
    pub(super) reason: i32,
}

impl Note {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn text(&self) -> String {
        // Strings, numbers and lists always have a text.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Owed {
    pub(super) fn of(taken: &VolumeTaken) -> Self {
        Self {
            sequence: taken.sequence,
            delta: taken.delta.clone(),
            seen_version: taken.seen_version,
            seen: taken.seen.clone().unwrap_or_default().into(),
            reason: taken.reason,
        }
    }

    pub(super) fn report(self, task: &str, volume: &str) -> VolumeTaken {
        VolumeTaken {
            task_id: task.to_owned(),
            volume_id: volume.to_owned(),
            sequence: self.sequence,
            delta: self.delta,
            seen_version: self.seen_version,
            seen: Some(self.seen.into()),
            reason: self.reason,
            ..VolumeTaken::default()
        }
    }
}

impl From<Stack> for NotedStack {
    fn from(stack: Stack) -> Self {
        Self { base: stack.base, deltas: stack.deltas }
    }
}

impl From<NotedStack> for Stack {
    fn from(stack: NotedStack) -> Self {
        Self { base: stack.base, deltas: stack.deltas }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_comes_back_as_it_was_written() {
        let seen = NotedStack { base: "aa".to_owned(), deltas: vec!["bb".to_owned()] };
        let owed =
            Owed { sequence: 3, delta: "cc".to_owned(), seen_version: 7, seen: seen.clone(), reason: 2 };
        let note = Note {
            task: "ta-1".to_owned(),
            volume: "vo-1".to_owned(),
            name: "weights".to_owned(),
            sequence: 3,
            seen_version: 7,
            seen: seen.clone(),
            showing: Some(Showing { version: 8, stack: seen }),
            owed: vec![owed.clone()],
        };
        assert_eq!(Note::parse(&note.text()), Some(note));
        assert_eq!(Owed::of(&owed.clone().report("ta-1", "vo-1")), owed);
        assert_eq!(Note::parse(""), None);
    }
}
