//! Signed URLs: who holds one may do what it says until it expires.
//!
//! The signature covers method, path and every parameter, so that the terms of an upload (its length and
//! hashes) need no other store than the URL. It doesn't cover the host: the same server is reached by
//! different addresses from inside and outside a container.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use rand::Rng;
use serde::Deserialize;
use sha2::Sha256;

const KEY_BYTES: usize = 32;
const SIGNATURE_PARAMETER: &str = "&signature=";

/// Why a signed URL is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// No signature, or one that this server didn't make for this request.
    #[error("the signature of this URL is missing or wrong")]
    BadSignature,
    /// The time is over.
    #[error("this URL expired {} seconds ago", .0.as_secs())]
    Expired(Duration),
}

/// What a URL allows. `HEAD` counts as `GET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Post,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
        }
    }
}

/// The signed parameters of a URL. Lengths are in bytes, hashes in lower hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Terms {
    /// Seconds since 1970, UTC.
    pub(crate) expires: u64,
    /// Of the whole blob.
    pub(crate) length: Option<u64>,
    pub(crate) md5: Option<String>,
    pub(crate) sha256: Option<String>,
    /// Of each part but the last.
    pub(crate) part_length: Option<u64>,
    /// First byte, where only a range may be read.
    pub(crate) start: Option<u64>,
    /// Zeros at the end of the range may be left out.
    pub(crate) cut: Option<u8>,
    /// The bytes themselves, in hex.
    pub(crate) data: Option<String>,
}

impl Terms {
    fn query(&self) -> String {
        let mut query = format!("expires={}", self.expires);
        let optional = [
            ("length", self.length.map(|length| length.to_string())),
            ("md5", self.md5.clone()),
            ("sha256", self.sha256.clone()),
            ("part_length", self.part_length.map(|length| length.to_string())),
            ("start", self.start.map(|start| start.to_string())),
            ("cut", self.cut.map(|cut| cut.to_string())),
            ("data", self.data.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={value}"));
            }
        }
        query
    }
}

/// Makes and checks signatures with the key of a data directory.
pub(crate) struct Signer {
    key: Hmac<Sha256>,
}

impl Signer {
    /// Reads the key, or makes one that only its owner can read.
    pub(crate) fn open(path: &Path) -> std::io::Result<Signer> {
        let mut key = [0; KEY_BYTES];
        match std::fs::File::open(path) {
            Ok(mut file) => file.read_exact(&mut key)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                key = rand::rng().random();
                let directory = path.parent().unwrap_or(Path::new("."));
                let mut file = tempfile::Builder::new()
                    .permissions(Permissions::from_mode(0o600))
                    .tempfile_in(directory)?;
                file.write_all(&key)?;
                file.as_file().sync_all()?;
                file.persist(path).map_err(|error| error.error)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Signer::with_key(&key))
    }

    fn with_key(key: &[u8; KEY_BYTES]) -> Signer {
        // HMAC takes a key of any length; this form of the constructor cannot fail.
        Signer { key: <Hmac<Sha256> as hmac::digest::KeyInit>::new(&padded(key).into()) }
    }

    pub(crate) fn url(&self, base_url: &str, method: Method, path: &str, terms: &Terms) -> String {
        let query = terms.query();
        let signature = hex::encode(self.mac(method, path, &query).finalize().into_bytes());
        format!("{base_url}{path}?{query}{SIGNATURE_PARAMETER}{signature}")
    }

    /// The terms of a request's URL, if this server signed them and they still hold.
    pub(crate) fn check(
        &self,
        method: Method,
        uri: &http::Uri,
        now: SystemTime,
    ) -> Result<Terms, GrantError> {
        let (query, signature) = uri
            .query()
            .and_then(|query| query.split_once(SIGNATURE_PARAMETER))
            .ok_or(GrantError::BadSignature)?;
        let signature = hex::decode(signature).map_err(|_| GrantError::BadSignature)?;
        // Compares in constant time.
        self.mac(method, uri.path(), query).verify_slice(&signature).map_err(|_| GrantError::BadSignature)?;
        let terms = axum::extract::Query::<Terms>::try_from_uri(uri).map_err(|_| GrantError::BadSignature)?.0;
        match unix_seconds(now).checked_sub(terms.expires) {
            Some(late) if late > 0 => Err(GrantError::Expired(Duration::from_secs(late))),
            _ => Ok(terms),
        }
    }

    fn mac(&self, method: Method, path: &str, query: &str) -> Hmac<Sha256> {
        self.key.clone().chain_update(format!("homeport blob v1\n{}\n{path}\n{query}", method.name()))
    }
}

/// The key as the block that HMAC works on.
fn padded(key: &[u8; KEY_BYTES]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..KEY_BYTES].copy_from_slice(key);
    block
}

/// Seconds since 1970, UTC; 0 before.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signed() -> (Signer, String) {
        let signer = Signer::with_key(&[7; KEY_BYTES]);
        let terms =
            Terms { expires: NOW + 60, length: Some(5), sha256: Some("ab".into()), ..Terms::default() };
        let url = signer.url("http://h:1", Method::Put, "/blobs/bl-x", &terms);
        (signer, url)
    }

    #[test]
    fn a_signed_url_gives_its_terms_back_through_any_host() {
        let (signer, url) = signed();
        let elsewhere = url.replace("http://h:1", "http://127.0.0.1:10101");
        for url in [url, elsewhere] {
            let terms = signer.check(Method::Put, &url.parse().unwrap(), at(NOW + 60)).unwrap();
            assert_eq!((terms.length, terms.sha256.as_deref()), (Some(5), Some("ab")));
        }
    }

    #[test]
    fn an_expired_url_is_refused() {
        let (signer, url) = signed();
        let late = signer.check(Method::Put, &url.parse().unwrap(), at(NOW + 61));
        assert_eq!(late, Err(GrantError::Expired(Duration::from_secs(1))));
    }

    #[test]
    fn any_change_of_method_path_terms_or_signature_is_refused() {
        let (signer, url) = signed();
        let bad = |method, url: &str| {
            assert_eq!(
                signer.check(method, &url.parse().unwrap(), at(NOW)),
                Err(GrantError::BadSignature),
                "{url}"
            );
        };
        bad(Method::Get, &url);
        bad(Method::Put, &url.replace("bl-x", "bl-y"));
        bad(Method::Put, &url.replace("length=5", "length=6"));
        bad(Method::Put, &url.replace("expires=1", "expires=2"));
        bad(Method::Put, &format!("{url}&length=6"));
        bad(Method::Put, &url[..url.len() - 2]);
        bad(Method::Put, "http://h:1/blobs/bl-x");
        let other = Signer::with_key(&[8; KEY_BYTES]);
        assert!(other.check(Method::Put, &url.parse().unwrap(), at(NOW)).is_err());
    }

    #[test]
    fn the_key_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let terms = Terms { expires: NOW, ..Terms::default() };
        let url = Signer::open(&path).unwrap().url("http://h", Method::Get, "/blobs/b", &terms);
        let again = Signer::open(&path).unwrap();
        again.check(Method::Get, &url.parse().unwrap(), at(NOW)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
