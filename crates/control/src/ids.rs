//! Object ids: a short prefix that clients check, and 22 letters or digits.
//!
//! A write that carries an idempotency key derives its ids from that key. A repeated write then
//! meets the object that the first one made, also across a restart of the server.

use sha2::{Digest as _, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 22;

/// Where random bytes come from; a seeded source makes a run repeatable.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random data.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random source.
#[derive(Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill(&mut rand::rng(), bytes);
    }
}

/// A fresh id, such as `ap-…`.
pub fn fresh(entropy: &dyn Entropy, prefix: &str) -> String {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    format!("{prefix}-{}", spell(&bytes))
}

/// The id that follows from `parts`: the same parts give the same id.
pub fn derived(prefix: &str, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(&prefix.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{prefix}-{}", spell(&hash.finalize()))
}

fn spell(bytes: &[u8]) -> String {
    bytes.iter().take(LENGTH).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shape_that_clients_check() {
        let id = fresh(&SystemEntropy, "ap");
        assert_eq!(id.len(), 3 + LENGTH);
        assert!(id[3..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_its_borders() {
        let id = derived("fc", &[b"key", b"1"]);
        assert_eq!(id, derived("fc", &[b"key", b"1"]));
        assert_ne!(id, derived("fc", &[b"key1", b""]));
        assert_ne!(id, derived("in", &[b"key", b"1"]));
    }
}
