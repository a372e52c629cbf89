//! Compact sets of what is marked.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use homeport_content::Digest;

use crate::hold::Root;

/// Marked objects, trees and deltas, by the first eight bytes of their digests: digests are as
/// good as random, and where two are alike in these some garbage stays.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    trees: Keys,
    deltas: Keys,
    objects: Keys,
}

pub(crate) type Keys = HashSet<u64, BuildHasherDefault<AsItIs>>;

impl Marks {
    /// Marks it; `false` if it was marked.
    pub(crate) fn insert(&mut self, root: &Root) -> bool {
        let keys = match root {
            Root::Tree(_) => &mut self.trees,
            Root::Delta(_) => &mut self.deltas,
            Root::Object(_) => &mut self.objects,
        };
        keys.insert(key(root.digest()))
    }

    pub(crate) fn contains(&self, root: &Root) -> bool {
        let keys = match root {
            Root::Tree(_) => &self.trees,
            Root::Delta(_) => &self.deltas,
            Root::Object(_) => &self.objects,
        };
        keys.contains(&key(root.digest()))
    }
}

pub(crate) fn key(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Hashes a key to itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
