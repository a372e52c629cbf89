//! Signed URLs of what is in the content store: of a whole object, or of one block of it.
//!
//! Such a URL without its host also serves as the id of a blob, for clients that want one.

use homeport_content::Digest;
use http::Uri;

use crate::blobs::grant::{GrantError, Method, Terms};
use crate::blobs::{BlobStore, grant};

const PREFIX: &str = "/blobs/content/";
/// Stands in the place of a digest where the bytes are in the URL.
pub(crate) const INLINE: &str = "inline";

/// A range of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentPart {
    /// The object.
    pub digest: Digest,
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// Zeros at the end may be left out: who downloads puts them back.
    pub may_be_cut: bool,
}

/// A signed URL without its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentToken(String);

impl ContentToken {
    /// Whether the id of a blob is such a token, good or not.
    pub fn is_one(id: &str) -> bool {
        id.starts_with(PREFIX)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL for clients that reach this server as `base_url`.
    pub fn url(&self, base_url: &str) -> String {
        format!("{base_url}{}", self.0)
    }
}

impl BlobStore {
    /// Lets who has the token download a range of an object.
    pub fn grant_content(&self, part: &ContentPart) -> ContentToken {
        let terms = Terms {
            length: Some(part.length),
            start: Some(part.start),
            cut: part.may_be_cut.then_some(1),
            ..self.terms(0)
        };
        ContentToken(self.signer.url("", Method::Get, &format!("{PREFIX}{}", part.digest), &terms))
    }

    /// Lets who has the token download these few bytes, which are in it.
    pub fn grant_bytes(&self, bytes: &[u8]) -> ContentToken {
        let terms = Terms { length: None, data: Some(hex::encode(bytes)), ..self.terms(0) };
        ContentToken(self.signer.url("", Method::Get, &format!("{PREFIX}{INLINE}"), &terms))
    }

    /// The token with this text, if this server gave it out and it still holds.
    pub fn content_token(&self, text: &str) -> Result<ContentToken, GrantError> {
        let uri: Uri = text.parse().map_err(|_| GrantError::BadSignature)?;
        self.signer.check(Method::Get, &uri, self.now())?;
        Ok(ContentToken(text.to_owned()))
    }

    /// Signs the URL to which a client sends one block of an upload.
    ///
    /// `base_url` as for [`BlobStore::create`].
    pub fn block_url(
        &self,
        upload: &crate::UploadKey,
        index: usize,
        name: &crate::BlockName,
        length: u64,
        base_url: &str,
    ) -> String {
        let terms = Terms { length: Some(length), sha256: Some(hex::encode(name)), ..self.terms(0) };
        self.signer.url(base_url, grant::Method::Put, &format!("/blobs/uploads/{upload}/{index}"), &terms)
    }
}
