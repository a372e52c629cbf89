//! Where the space of a store goes.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use crate::hold::Root;
use crate::marks::{AsItIs, Keys, key};
use crate::protocol::Ground;
use crate::{Store, StoreError};

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    One(u32),
    Several,
}

type Files = HashMap<u64, (u64, Owner), BuildHasherDefault<AsItIs>>;

/// What each owner takes, and all together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the order of the owners.
    pub owners: Vec<OwnerUsage>,
    /// What everything takes on disk.
    pub total: u64,
    /// What no owner leads to.
    pub garbage: u64,
    /// Damaged files that were put aside.
    pub quarantined: u64,
}

/// What one owner takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnerUsage {
    /// All that it leads to.
    pub bytes: u64,
    /// What no other owner leads to.
    pub unique: u64,
}

impl Store {
    /// Adds up what the roots of each owner lead to. What cannot be read counts as empty.
    pub fn usage(&self, owners: &[Vec<Root>]) -> Result<Usage, StoreError> {
        let mut files = Files::default();
        let mut usage = Usage::default();
        for kind in ["trees", "deltas", "objects"] {
            self.each(kind, |digest, path| {
                if let Some((_, bytes)) = self.protocol.ground.look(&path)? {
                    usage.total += bytes;
                    files.insert(key(&digest), (bytes, Owner::Nobody));
                }
                Ok(())
            })?;
        }
        for (number, roots) in owners.iter().enumerate() {
            let bytes = self.count(roots, u32::try_from(number).unwrap_or(u32::MAX), &mut files);
            usage.owners.push(OwnerUsage { bytes, unique: 0 });
        }
        for (bytes, owner) in files.values() {
            match owner {
                Owner::Nobody => usage.garbage += bytes,
                Owner::One(number) => {
                    if let Some(owner) = usage.owners.get_mut(*number as usize) {
                        owner.unique += bytes;
                    }
                }
                Owner::Several => {}
            }
        }
        for path in self.quarantined()? {
            usage.quarantined += self.protocol.ground.look(&path)?.map_or(0, |(_, bytes)| bytes);
        }
        Ok(usage)
    }

    /// Claims what roots lead to for an owner; returns what it takes.
    fn count(&self, roots: &[Root], number: u32, files: &mut Files) -> u64 {
        let mut seen = Keys::default();
        let mut sum = 0;
        let mut claim = |key: u64| {
            if !seen.insert(key) {
                return;
            }
            if let Some((bytes, owner)) = files.get_mut(&key) {
                sum += *bytes;
                *owner = match owner {
                    Owner::Nobody => Owner::One(number),
                    _ => Owner::Several,
                };
            }
        };
        for root in roots.iter().collect::<HashSet<_>>() {
            claim(key(root.digest()));
            if let Ok(names) = self.names_in(root) {
                names.iter().for_each(|(digest, _)| claim(key(digest)));
            }
        }
        sum
    }
}
