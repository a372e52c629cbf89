//! Reading of numbers and bytes that nobody vouches for.

/// The bytes are not the canonical encoding of a tree, or of a delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {offset}: {kind}")]
pub struct DecodeError {
    /// Where reading stopped.
    pub offset: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// What a [`DecodeError`] is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The input does not start as a tree does.
    #[error("this is not an encoded tree")]
    NotATree,
    /// The input does not start as a delta does.
    #[error("this is not an encoded delta")]
    NotADelta,
    /// The tree or delta was written by another version.
    #[error("version {0} of the encoding is unknown: a newer Homeport wrote it")]
    UnknownVersion(u8),
    /// The input ends too early.
    #[error("{wanted} more bytes are needed and {left} are left")]
    Truncated {
        /// Bytes that must follow.
        wanted: u64,
        /// Bytes that do.
        left: usize,
    },
    /// A number is not in its shortest form or does not fit.
    #[error("a number is too large or not in its shortest form")]
    BadNumber,
    /// Names are not strictly ascending.
    #[error("names are not in ascending order")]
    Unordered,
    /// No kind of entry has this tag.
    #[error("no kind of entry has the tag {0}")]
    UnknownTag(u8),
    /// A link to a leaf that has not been seen.
    #[error("a link names leaf {0}, which has not been seen")]
    UnknownLeaf(u64),
    /// A value that no tree and no delta may have.
    #[error("{0}")]
    Invalid(&'static str),
    /// Something follows the tree or delta.
    #[error("bytes follow the end")]
    TrailingBytes,
}

/// A cursor that never reads past the end and allocates nothing.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, offset: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    pub(crate) fn refuse(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { offset: self.offset, kind }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(self.refuse(DecodeErrorKind::Truncated { wanted: length as u64, left: rest.len() }));
        };
        self.offset += length;
        Ok(taken)
    }

    pub(crate) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.take_array::<1>()?;
        Ok(byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds one bit, and a last byte of zero could be left out.
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                return Err(self.refuse(DecodeErrorKind::BadNumber));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.refuse(DecodeErrorKind::BadNumber))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.refuse(DecodeErrorKind::BadNumber))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.refuse(DecodeErrorKind::BadNumber)),
        }
    }

    /// A name that must be greater than the one before it.
    pub(crate) fn ascending(&mut self, previous: &mut Option<&'a [u8]>) -> Result<&'a [u8], DecodeError> {
        let name = self.bytes()?;
        if previous.is_some_and(|previous| previous >= name) {
            return Err(self.refuse(DecodeErrorKind::Unordered));
        }
        *previous = Some(name);
        Ok(name)
    }
}
