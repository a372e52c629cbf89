//! Holds and pins: what an operation says so that no collection takes what it works with.

use std::sync::{Mutex, PoisonError};

use homeport_content::{DeltaId, Digest, SnapshotId, Stack};

use crate::Store;
use crate::clock::Time;
use crate::disk::Disk;
use crate::protocol::{HoldOn, PinOn};

/// A name from which content is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// A tree and all that it names.
    Tree(SnapshotId),
    /// A delta and all that it names.
    Delta(DeltaId),
    /// One object.
    Object(Digest),
}

/// A directory of the store, and what the names in it stand for.
pub(crate) type Kind = (&'static str, fn(Digest) -> Root);

/// What names other content.
pub(crate) const LISTS: [Kind; 2] = [("trees", Root::Tree), ("deltas", Root::Delta)];

impl Root {
    /// All layers of a stack.
    pub fn of_stack(stack: &Stack) -> impl Iterator<Item = Root> + '_ {
        std::iter::once(Root::Tree(stack.base)).chain(stack.deltas.iter().copied().map(Root::Delta))
    }

    /// The name itself.
    pub fn digest(&self) -> &Digest {
        match self {
            Root::Tree(digest) | Root::Delta(digest) | Root::Object(digest) => digest,
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Root::Tree(_) => "tree",
            Root::Delta(_) => "delta",
            Root::Object(_) => "object",
        };
        write!(f, "{kind} {}", self.digest())
    }
}

/// While it lives, no collection removes what was stored or found in the store since it began.
///
/// An operation takes one before its first look into the store and drops it when the name of its
/// result is written. It is seen by other processes, and ends with its process.
#[derive(Debug)]
pub struct Hold {
    hold: HoldOn<Disk>,
    store: std::sync::Arc<crate::protocol::Protocol<Disk>>,
    pins: Mutex<Vec<PinOn<Disk>>>,
}

impl Hold {
    /// Keeps roots, which must exist now, and all that they lead to, as long as the hold lives:
    /// for what is built from existing content by its names.
    pub fn pin(&self, roots: impl IntoIterator<Item = Root>) {
        let pin = PinOn::new(&self.store, roots.into_iter().collect());
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).push(pin);
    }

    pub(crate) fn start(&self) -> Time {
        self.hold.start()
    }
}

/// While it lives, no collection removes what its roots lead to. Unlike a [`Hold`] it protects
/// nothing else, and may live for days.
#[derive(Debug)]
pub struct Pin {
    _pin: PinOn<Disk>,
}

impl Store {
    /// Begins an operation that stores something, or builds on what is stored.
    pub fn hold(&self) -> Hold {
        Hold { hold: HoldOn::new(&self.protocol), store: self.protocol.clone(), pins: Mutex::default() }
    }

    /// What is pinned now.
    pub fn pinned(&self) -> Vec<Root> {
        self.protocol.pinned()
    }

    /// Keeps roots, which must exist now, and all that they lead to.
    pub fn pin(&self, roots: impl IntoIterator<Item = Root>) -> Pin {
        Pin { _pin: PinOn::new(&self.protocol, roots.into_iter().collect()) }
    }
}
