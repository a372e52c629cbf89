//! Hashes that clients see, as lower-case hexadecimal text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A hash of `N` bytes, shown, parsed and stored as `2 * N` lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexHash<const N: usize>([u8; N]);

/// The name of a commit: the first 20 bytes of its snapshot's digest.
pub type CommitHash = HexHash<20>;

/// The SHA-1 name that git gives a blob or a tree.
pub type GitId = HexHash<20>;

/// The SHA-256 of a file's bytes.
pub type Sha256 = HexHash<32>;

/// The text is not a hash of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a hash: {digits} lower-case hexadecimal digits are expected")]
pub struct ParseHashError {
    /// The text, cut to its first 80 characters.
    pub text: String,
    /// How many digits were expected.
    pub digits: usize,
}

impl<const N: usize> HexHash<N> {
    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; N]) -> HexHash<N> {
        HexHash(bytes)
    }

    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Display for HexHash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for HexHash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<const N: usize> FromStr for HexHash<N> {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<HexHash<N>, ParseHashError> {
        let refused = || ParseHashError { text: text.chars().take(80).collect(), digits: 2 * N };
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused());
        }
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
        Ok(HexHash(bytes))
    }
}

impl<const N: usize> Serialize for HexHash<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for HexHash<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HexHash<N>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
