//! Versions: their records, and the layers that they name.

use homeport_content::Stack;
use homeport_meta::volume_versions;
use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use prost::Message as _;

use super::VolumeError;

/// A version of a Volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// What is known of it.
    pub record: rec::VolumeVersion,
    /// What is in it.
    pub stack: Stack,
}

impl Version {
    /// A version with these layers.
    pub(super) fn new(mut record: rec::VolumeVersion, stack: Stack) -> Self {
        record.stack = Some(rec::VolumeStack {
            base: stack.base.to_string(),
            deltas: stack.deltas.iter().map(ToString::to_string).collect(),
        });
        Self { record, stack }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.record.number
    }

    pub(super) fn row(&self, volume_id: &str) -> volume_versions::Version {
        volume_versions::Version {
            volume_id: volume_id.to_owned(),
            number: sql(self.record.number),
            created_at: (self.record.created_at * 1000.0) as i64,
            record: self.record.encode_to_vec(),
        }
    }

    pub(super) fn of_row(row: &volume_versions::Version) -> Result<Self, VolumeError> {
        let damaged = |reason: String| VolumeError::Record { id: row.volume_id.clone(), reason };
        let record =
            rec::VolumeVersion::decode(row.record.as_slice()).map_err(|error| damaged(error.to_string()))?;
        let layers = record.stack.clone().unwrap_or_default();
        let stack = parse(&layers.base, &layers.deltas)
            .ok_or_else(|| damaged(format!("version {} has no layers", row.number)))?;
        Ok(Self { record, stack })
    }
}

/// The layers that a worker names.
pub(super) fn stack_of(stack: &wp::Stack) -> Option<Stack> {
    parse(&stack.base, &stack.deltas)
}

/// The layers in the words of workers.
pub(super) fn to_worker(stack: &Stack) -> wp::Stack {
    wp::Stack { base: stack.base.to_string(), deltas: stack.deltas.iter().map(ToString::to_string).collect() }
}

fn parse(base: &str, deltas: &[String]) -> Option<Stack> {
    let deltas = deltas.iter().map(|delta| delta.parse().ok()).collect::<Option<_>>()?;
    Some(Stack { base: base.parse().ok()?, deltas })
}

/// A number as the database has it.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
