//! Blobs: files of a directory, named by random ids, complete or not there at all.
//!
//! ```text
//! signing.key       key of the signed URLs, 32 bytes
//! bl-…              a complete blob
//! bl-….upload-…     a single upload under way
//! bl-….parts/       a multipart upload under way
//! blocks/           files that arrive in blocks
//! ```
//! What an upload must be (length, hashes) is in its signed URL, so nothing is stored before bytes
//! arrive and a restart forgets nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use rand::distr::Alphanumeric;

use grant::{Method, Signer, Terms};
use multipart::Uploads;

use crate::blocks::BlockStore;

pub(crate) mod grant;
pub(crate) mod multipart;
mod sweep;

pub use sweep::Swept;

const ID_PREFIX: &str = "bl-";
const ID_CHARACTERS: usize = 22;

/// S3, whose protocol the clients speak, ends at this many parts.
const MAX_PARTS: u64 = 10_000;
/// Parts of an ordinary upload. Clients copy all that they upload once for each part before they begin.
const FEW_PARTS: u64 = 4;
/// Bytes of a part that are not worth sending again when the line breaks.
const LARGE_PART: u64 = 1 << 30;

/// Where the time comes from.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How blobs are kept.
#[derive(Clone, Debug)]
pub struct BlobOptions {
    /// Directory of the blobs; created where it doesn't exist.
    pub directory: PathBuf,
    /// Largest blob, in bytes.
    pub max_bytes: u64,
    /// Length of a part of a multipart upload, in bytes; longer where there would be too many parts.
    pub part_bytes: u64,
    /// How long a signed URL is good for.
    pub url_lifetime: Duration,
}

impl BlobOptions {
    /// The defaults: 256 GiB, parts of 16 MiB, URLs for a day.
    pub fn new(directory: impl Into<PathBuf>) -> BlobOptions {
        BlobOptions {
            directory: directory.into(),
            max_bytes: 256 << 30,
            part_bytes: 16 << 20,
            url_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Name of a blob: `bl-` and 22 letters and digits. Nothing else parses, so it is safe in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(String);

impl BlobId {
    fn random() -> BlobId {
        let random = rand::rng().sample_iter(Alphanumeric).take(ID_CHARACTERS).map(char::from);
        BlobId(ID_PREFIX.chars().chain(random).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for BlobId {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<BlobId, BlobError> {
        let random = text.strip_prefix(ID_PREFIX).unwrap_or_default();
        if random.len() == ID_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(BlobId(text.to_owned()))
        } else {
            Err(BlobError::BadId(text.chars().take(64).collect()))
        }
    }
}

/// How a client is to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStyle {
    /// One `PUT`.
    Single,
    /// Parts in parallel, then a completion.
    Multipart,
}

/// Where a client uploads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upload {
    /// One `PUT` to this URL.
    Single {
        /// The signed URL.
        url: String,
    },
    /// `PUT` of each part, then `POST` of the list of their ETags.
    Multipart {
        /// Bytes of each part but the last.
        part_length: u64,
        /// A signed URL for each part, in order.
        part_urls: Vec<String>,
        /// Where to post the completion.
        completion_url: String,
    },
}

/// A blob that is about to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobTicket {
    /// Its name. It exists once the upload is complete.
    pub blob_id: BlobId,
    /// Where to upload it.
    pub upload: Upload,
}

/// Why a blob store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be made.
    #[error("cannot create or read the blob directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key of the signed URLs could not be read or made.
    #[error("cannot read or create the key of signed URLs {}", path.display())]
    Key {
        /// The file of the key.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a blob may not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// More than the store takes.
    #[error("a blob of {length} bytes is larger than the {limit} bytes this server takes")]
    TooLarge {
        /// What the client wants to upload, in bytes.
        length: u64,
        /// The store's limit, in bytes.
        limit: u64,
    },
    /// A declared hash is not one.
    #[error("`{value}` is not a base64 {algorithm}")]
    BadHash {
        /// `MD5` or `SHA-256`.
        algorithm: &'static str,
        /// What the client sent.
        value: String,
    },
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The text is no blob id.
    #[error("`{0}` is not a blob id")]
    BadId(String),
    /// There is no such blob, or it was not uploaded to its end.
    #[error("blob {0} does not exist: it was never uploaded completely, or has expired")]
    NotFound(BlobId),
    /// The disk failed.
    #[error("cannot {operation} blob {id}")]
    Io {
        /// For example `read`.
        operation: &'static str,
        /// The blob.
        id: BlobId,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The blobs of a server.
pub struct BlobStore {
    pub(crate) options: BlobOptions,
    pub(crate) signer: Signer,
    pub(crate) uploads: Uploads,
    blocks: BlockStore,
    pub(crate) clock: WallClock,
}

impl BlobStore {
    /// Opens the directory and its signing key, making both where they don't exist.
    pub fn open(options: BlobOptions, clock: WallClock) -> Result<BlobStore, OpenError> {
        std::fs::create_dir_all(&options.directory)
            .map_err(|source| OpenError::Directory { path: options.directory.clone(), source })?;
        let path = options.directory.join("signing.key");
        let signer = Signer::open(&path).map_err(|source| OpenError::Key { path, source })?;
        let path = options.directory.join("blocks");
        let blocks = BlockStore::open(path.clone(), Arc::clone(&clock))
            .map_err(|source| OpenError::Directory { path, source })?;
        Ok(BlobStore { options, signer, uploads: Uploads::default(), blocks, clock })
    }

    /// Files that arrive in blocks.
    pub fn blocks(&self) -> &BlockStore {
        &self.blocks
    }

    /// Names a new blob and signs the URLs to upload it.
    ///
    /// `length` is in bytes. The hashes are base64 and may be empty; where given, a single upload is
    /// checked against both. A multipart upload is checked part by part by the ETags that the client
    /// repeats. `base_url` is how the client reaches this server, without a slash at its end.
    pub fn create(
        &self,
        length: u64,
        md5_base64: &str,
        sha256_base64: &str,
        base_url: &str,
        style: UploadStyle,
    ) -> Result<BlobTicket, CreateError> {
        if length > self.options.max_bytes {
            return Err(CreateError::TooLarge { length, limit: self.options.max_bytes });
        }
        let md5 = hash_to_hex("MD5", md5_base64, 16)?;
        let sha256 = hash_to_hex("SHA-256", sha256_base64, 32)?;
        let blob_id = BlobId::random();
        let path = format!("/blobs/{blob_id}");
        let terms = self.terms(length);
        let upload = match style {
            UploadStyle::Single => Upload::Single {
                url: self.signer.url(base_url, Method::Put, &path, &Terms { md5, sha256, ..terms }),
            },
            UploadStyle::Multipart => {
                let part_length = self.part_length(length);
                let terms = Terms { part_length: Some(part_length), ..terms };
                let sign = |method, path: &str| self.signer.url(base_url, method, path, &terms);
                Upload::Multipart {
                    part_length,
                    part_urls: (1..=multipart::part_count(length, part_length))
                        .map(|number| sign(Method::Put, &format!("{path}/parts/{number}")))
                        .collect(),
                    completion_url: sign(Method::Post, &format!("{path}/complete")),
                }
            }
        };
        Ok(BlobTicket { blob_id, upload })
    }

    /// Signs the URL to download a blob, which must exist. `base_url` as for [`BlobStore::create`].
    pub fn download_url(&self, id: &BlobId, base_url: &str) -> Result<String, BlobError> {
        self.length(id)?;
        let terms = Terms { length: None, ..self.terms(0) };
        Ok(self.signer.url(base_url, Method::Get, &format!("/blobs/{id}"), &terms))
    }

    /// Where a blob is on disk once it is complete. It never changes after that.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.options.directory.join(id.as_str())
    }

    /// Bytes of a complete blob.
    pub fn length(&self, id: &BlobId) -> Result<u64, BlobError> {
        match std::fs::metadata(self.path(id)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(read_error(id, source)),
        }
    }

    /// Opens a complete blob for reading.
    pub fn open_blob(&self, id: &BlobId) -> Result<std::fs::File, BlobError> {
        std::fs::File::open(self.path(id)).map_err(|source| read_error(id, source))
    }

    /// Stores bytes as a new blob that survives power loss. Blocks on the disk.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        self.put_reader(&mut &*bytes)
    }

    /// Stores all that `reader` gives, as [`BlobStore::put`] does.
    pub fn put_reader(&self, reader: &mut impl std::io::Read) -> Result<BlobId, BlobError> {
        let id = BlobId::random();
        let written = self.new_upload(&id).and_then(|mut file| {
            std::io::copy(reader, &mut file)?;
            self.publish(file, &id)
        });
        written.map_err(|source| BlobError::Io { operation: "write", id: id.clone(), source })?;
        Ok(id)
    }

    /// Deletes a blob. One that doesn't exist is no error.
    pub fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        match std::fs::remove_file(self.path(id)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(BlobError::Io { operation: "delete", id: id.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// An unfinished file for a blob, gone when it is dropped.
    pub(crate) fn new_upload(&self, id: &BlobId) -> std::io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new().prefix(&format!("{id}.upload-")).tempfile_in(&self.options.directory)
    }

    /// Makes an unfinished file the blob: contents first, then the name.
    pub(crate) fn publish(&self, file: tempfile::NamedTempFile, id: &BlobId) -> std::io::Result<()> {
        file.as_file().sync_all()?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        sync_directory(&self.options.directory)
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    pub(crate) fn terms(&self, length: u64) -> Terms {
        Terms {
            expires: grant::unix_seconds(self.now() + self.options.url_lifetime),
            length: Some(length),
            ..Terms::default()
        }
    }

    fn part_length(&self, length: u64) -> u64 {
        let few = length.div_ceil(FEW_PARTS).min(LARGE_PART);
        let least = few.max(length.div_ceil(MAX_PARTS));
        if least <= self.options.part_bytes {
            return self.options.part_bytes.max(1);
        }
        least.next_multiple_of(1 << 20)
    }
}

pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

fn read_error(id: &BlobId, source: std::io::Error) -> BlobError {
    if source.kind() == std::io::ErrorKind::NotFound {
        BlobError::NotFound(id.clone())
    } else {
        BlobError::Io { operation: "read", id: id.clone(), source }
    }
}

fn hash_to_hex(algorithm: &'static str, value: &str, bytes: usize) -> Result<Option<String>, CreateError> {
    if value.is_empty() {
        return Ok(None);
    }
    match STANDARD.decode(value) {
        Ok(hash) if hash.len() == bytes => Ok(Some(hex::encode(hash))),
        _ => Err(CreateError::BadHash { algorithm, value: value.chars().take(128).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path) -> BlobStore {
        BlobStore::open(BlobOptions::new(directory), Arc::new(SystemTime::now)).unwrap()
    }

    #[test]
    fn an_id_that_could_leave_the_directory_does_not_parse() {
        for bad in ["", "bl-", "bl-../../etc/passwd000000", "bl-0123456789012345678901x", "signing.key"] {
            assert!(bad.parse::<BlobId>().is_err(), "{bad}");
        }
        let id = BlobId::random();
        assert_eq!(id.as_str().parse::<BlobId>().unwrap(), id);
    }

    #[test]
    fn stored_bytes_are_read_back_until_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = store(dir.path());
        let id = blobs.put(b"hello").unwrap();
        assert_eq!(blobs.length(&id).unwrap(), 5);
        assert_eq!(std::fs::read(blobs.path(&id)).unwrap(), b"hello");
        blobs.delete(&id).unwrap();
        assert!(matches!(blobs.open_blob(&id), Err(BlobError::NotFound(_))));
        assert!(matches!(blobs.download_url(&id, "http://x"), Err(BlobError::NotFound(_))));
    }

    #[test]
    fn a_huge_blob_has_no_more_parts_than_clients_can_send() {
        let dir = tempfile::tempdir().unwrap();
        let mut blobs = store(dir.path());
        blobs.options.max_bytes = u64::MAX;
        let ticket = blobs.create(3 << 40, "", "", "http://h", UploadStyle::Multipart).unwrap();
        let Upload::Multipart { part_length, part_urls, .. } = ticket.upload else { panic!() };
        assert!(part_urls.len() as u64 <= MAX_PARTS);
        assert!(part_length * part_urls.len() as u64 >= 3 << 40);
    }

    #[test]
    fn an_ordinary_upload_has_few_parts() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = store(dir.path());
        for (length, parts) in [(1 << 20, 1), (40 << 20, 3), (200 << 20, 4), (2 << 30, 4), (8 << 30, 8)] {
            let ticket = blobs.create(length, "", "", "http://h", UploadStyle::Multipart).unwrap();
            let Upload::Multipart { part_urls, .. } = ticket.upload else { panic!() };
            assert_eq!(part_urls.len(), parts, "{length}");
        }
    }

    #[test]
    fn what_cannot_be_taken_is_refused_before_any_byte_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = store(dir.path());
        let create = |length, md5| blobs.create(length, md5, "", "http://h", UploadStyle::Single);
        assert!(matches!(create(u64::MAX, ""), Err(CreateError::TooLarge { .. })));
        assert!(matches!(create(1, "nonsense"), Err(CreateError::BadHash { algorithm: "MD5", .. })));
    }
}
