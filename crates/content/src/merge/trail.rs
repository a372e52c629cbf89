//! Which of the versions in between did something to a path.

use std::collections::BTreeSet;

use super::Foreign;
use crate::{Change, ChangedDirectory, Metadata};

/// What the versions in between did to one path and below it.
#[derive(Clone)]
pub(super) struct Trail<'a> {
    since: &'a [Foreign<'a>],
    /// By their places in `since`, the oldest first. What is not here did nothing.
    touches: Vec<(usize, Touch<'a>)>,
}

#[derive(Clone, Copy)]
enum Touch<'a> {
    /// Something in this directory, or its metadata.
    Directory(&'a ChangedDirectory),
    /// It put something else here or above, or nothing.
    Replaced,
}

impl<'a> Trail<'a> {
    pub(super) fn new(since: &'a [Foreign<'a>]) -> Trail<'a> {
        let roots = since.iter().map(|foreign| Touch::Directory(&foreign.delta.root));
        Trail { since, touches: roots.enumerate().collect() }
    }

    pub(super) fn child(&self, name: &[u8]) -> Trail<'a> {
        let child = |(index, touch): &(usize, Touch<'a>)| {
            let touch = match touch {
                Touch::Replaced => Touch::Replaced,
                Touch::Directory(directory) => match directory.entries.get(name)? {
                    Change::Directory(directory) => Touch::Directory(directory),
                    Change::Leaf(_) | Change::Removed => Touch::Replaced,
                },
            };
            Some((*index, touch))
        };
        Trail { since: self.since, touches: self.touches.iter().filter_map(child).collect() }
    }

    /// The names in this directory that any version did something to.
    pub(super) fn names(&self) -> BTreeSet<&'a [u8]> {
        let directories = self.touches.iter().filter_map(|(_, touch)| match touch {
            Touch::Directory(directory) => Some(directory),
            Touch::Replaced => None,
        });
        directories.flat_map(|directory| directory.entries.keys().map(AsRef::as_ref)).collect()
    }

    /// The last version of others that did something to the path: the one whose content is there.
    pub(super) fn last(&self) -> u64 {
        let mut touching = self.touches.iter().rev().filter_map(|(index, _)| self.since.get(*index));
        let any = || self.since.iter().rev().find(|version| !version.own);
        touching.find(|version| !version.own).or_else(any).map_or(0, |version| version.version)
    }

    /// The version of others that gave the directory at the path the metadata that it has now.
    pub(super) fn last_metadata(&self, now: &Metadata) -> u64 {
        let mut found = None;
        for (index, touch) in self.touches.iter().rev() {
            let Some(version) = self.since.get(*index).filter(|version| !version.own) else { continue };
            match touch {
                Touch::Directory(directory) if super::three_way::same_but_time(&directory.metadata, now) => {
                    found = Some(version.version);
                }
                _ => break,
            }
        }
        found.unwrap_or_else(|| self.last())
    }
}
