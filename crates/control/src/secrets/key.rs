//! The key that seals secrets: a file beside the database, readable by its owner alone.
//!
//! ChaCha20-Poly1305 with a random nonce for each sealing. The id of the secret is authenticated with it, so that rows
//! can't be exchanged for each other.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use super::SecretError;
use crate::ids::Entropy;

const LENGTH: usize = 32;
const OWNER_ALONE: u32 = 0o600;

/// A key. It never shows what it is.
pub(super) struct Key {
    path: PathBuf,
    /// For names that follow from contents without telling them.
    bytes: [u8; LENGTH],
    cipher: LessSafeKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Key {
    /// The key in a file; none if there is no such file.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, SecretError> {
        let wrong = |what: String| SecretError::KeyFile { path: path.to_path_buf(), what };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
        };
        // Whoever copied it back may have left it open to others.
        std::fs::set_permissions(path, Permissions::from_mode(OWNER_ALONE))
            .map_err(|error| wrong(format!("cannot be kept from others: {error}")))?;
        let mut bytes = [0; LENGTH];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| wrong(format!("is no key: {} hex digits are expected", 2 * LENGTH)))?;
        Self::new(path, bytes).map(Some)
    }

    /// A new key, in a file that outlives a crash.
    pub(super) fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, SecretError> {
        let mut bytes = [0; LENGTH];
        entropy.fill(&mut bytes);
        write(path, &hex::encode(bytes)).map_err(|error| SecretError::KeyFile {
            path: path.to_path_buf(),
            what: format!("cannot be written: {error}"),
        })?;
        Self::new(path, bytes)
    }

    fn new(path: &Path, bytes: [u8; LENGTH]) -> Result<Self, SecretError> {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| SecretError::KeyFile {
            path: path.to_path_buf(),
            what: "has the wrong length".to_owned(),
        })?;
        Ok(Self { path: path.to_path_buf(), bytes, cipher: LessSafeKey::new(unbound) })
    }

    /// Seals `plain` for the secret `id`: the nonce, then the ciphertext with its tag.
    pub(super) fn seal(
        &self,
        id: &str,
        mut plain: Vec<u8>,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SecretError> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        self.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.as_bytes()),
                &mut plain,
            )
            .map_err(|_| SecretError::Variable { key: "…".to_owned(), reason: "it is too long" })?;
        Ok([&nonce, plain.as_slice()].concat())
    }

    /// Opens what [`Key::seal`] made.
    pub(super) fn open(&self, id: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        let wrong = || SecretError::Sealed { id: id.to_owned(), path: self.path.clone() };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut plain = ciphertext.to_vec();
        let length = self
            .cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(id.as_bytes()), &mut plain)
            .map_err(|_| wrong())?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    /// A digest that says nothing to those who lack the key.
    pub(super) fn digest(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = Sha256::new_with_prefix(self.bytes);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        // Twice, so that nobody can go on from the first one.
        Sha256::digest(hash.finalize()).to_vec()
    }
}

/// Writes a file that only its owner may read, all of it or nothing.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SystemEntropy;

    fn key(dir: &Path) -> Key {
        Key::create(&dir.join("secrets.key"), &SystemEntropy).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_for_its_secret_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(dir.path());
        let sealed = key.seal("st-1", b"hunter2".to_vec(), &SystemEntropy).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(key.open("st-1", &sealed).unwrap(), b"hunter2");
        assert!(matches!(key.open("st-2", &sealed), Err(SecretError::Sealed { .. })));
        for broken in [&sealed[..5], &sealed[..sealed.len() - 1], &[][..]] {
            assert!(matches!(key.open("st-1", broken), Err(SecretError::Sealed { .. })));
        }
    }

    #[test]
    fn the_file_is_for_its_owner_and_gives_the_same_key_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let sealed = key(dir.path()).seal("st-1", b"x".to_vec(), &SystemEntropy).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = Key::load(&path).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ALONE);
        assert_eq!(again.open("st-1", &sealed).unwrap(), b"x");
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(Key::load(&path), Err(SecretError::KeyFile { .. })));
        assert!(Key::load(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn neither_the_key_nor_what_it_seals_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(dir.path());
        let text = std::fs::read_to_string(dir.path().join("secrets.key")).unwrap();
        assert!(!format!("{key:?}").contains(text.trim()));
    }
}
