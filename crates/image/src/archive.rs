//! Archives that `ADD` unpacks: tar streams, compressed or not, known by their content.

use std::io::{Cursor, Read};

use homeport_content::{FileContent, Leaf, LeafKind, Tree};
use homeport_store::{Store, StoreError};

use crate::base::compression::decompressed;
use crate::base::layer::{LayerError, Layering, Limits};
use crate::base::tar_stream::TarError;

/// Length of a header of a tar stream, and where in it the word stands that tells it from other data.
const HEADER: usize = 512;
const MAGIC_AT: usize = 257;
const MAGIC: &[u8] = b"ustar";

/// What is in the archive that `leaf` is; none if it is none. Its files are in `store` then.
///
/// # Errors
///
/// The file can't be read, or it is an archive that is broken or compressed in a way not known here.
pub fn unpack(store: &Store, leaf: &Leaf) -> Result<Option<Tree>, LayerError> {
    let LeafKind::File(content) = &leaf.kind else { return Ok(None) };
    let failed = |source: StoreError| LayerError::Store { path: "the archive".to_owned(), source };
    let file: Box<dyn Read> = match content {
        FileContent::Inline(bytes) => Box::new(Cursor::new(bytes)),
        FileContent::Object { digest, .. } => Box::new(store.open_object(digest).map_err(failed)?),
    };
    let mut stream = decompressed(file).map_err(TarError::from)?;
    let mut header = Vec::with_capacity(HEADER);
    if stream.by_ref().take(HEADER as u64).read_to_end(&mut header).is_err() || !is_tar(&header) {
        return Ok(None);
    }
    let batch = store.batch().map_err(failed)?;
    let mut layering = Layering::new(&batch, Limits::default());
    layering.apply(Cursor::new(header).chain(stream))?;
    let tree = layering.finish();
    batch.publish().map_err(failed)?;
    Ok(Some(tree))
}

fn is_tar(header: &[u8]) -> bool {
    header.get(MAGIC_AT..).is_some_and(|rest| rest.starts_with(MAGIC))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use homeport_content::{EntryRef, Metadata};

    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_uid(42);
        header.set_mode(0o640);
        header.set_cksum();
        builder.append_data(&mut header, "inner/file", &b"hello"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_are_known_by_their_content() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let unpacked = |bytes: &[u8]| {
            let kind = LeafKind::File(store.file_content(bytes).unwrap());
            unpack(&store, &Leaf { metadata: Metadata::with_mode(0o644), kind })
        };
        let zstd = zstd::encode_all(&archive()[..], 1).unwrap();
        for bytes in [archive(), gzip(&archive()), zstd] {
            let tree = unpacked(&bytes).unwrap().expect("an archive");
            let Some(EntryRef::Leaf(_, leaf)) = tree.get(b"inner/file") else { panic!("{tree:?}") };
            assert_eq!((leaf.metadata.uid, leaf.metadata.mode), (42, 0o640));
        }
        for plain in [&b"text"[..], b"", &gzip(b"text"), &[7; 2000]] {
            assert!(unpacked(plain).unwrap().is_none());
        }
        let error = unpacked(b"BZh91AY").unwrap_err().to_string();
        assert!(error.contains("bzip2"), "{error}");
        let mut broken = gzip(&archive());
        broken.truncate(broken.len() - 30);
        assert!(!matches!(unpacked(&broken), Ok(Some(_))));
    }
}
