//! The build context: files of the request, and of its context mount.

use homeport_content::{Digest, FileContent, Leaf, LeafKind, Metadata, SnapshotId, Timestamp, Tree};
use homeport_proto::client as pb;

use super::BuildError;
use crate::control::Control;

impl Control {
    /// The snapshot that `COPY` copies from; the empty one where the request brings nothing.
    pub(super) fn build_context(&self, image: &pb::Image) -> Result<SnapshotId, BuildError> {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        if !image.context_mount_id.is_empty() {
            let mount = self.registry.mount(&image.context_mount_id).ok_or_else(|| {
                BuildError::Request(format!("the context mount {} does not exist", image.context_mount_id))
            })?;
            let id: SnapshotId = mount
                .snapshot
                .parse()
                .map_err(|_| BuildError::Request(format!("mount {} has no snapshot", mount.id)))?;
            tree = (*self.store.tree(&id)?).clone();
        }
        for context_file in &image.context_files {
            let content = self.store.file_content(&context_file.data[..])?;
            insert(&mut tree, &context_file.filename, file(0o644, content))?;
        }
        Ok(self.store.put_tree(&tree)?)
    }

    /// The same with files that stand in the commands themselves.
    pub(super) fn context_with(
        &self,
        context: &SnapshotId,
        inline: &[(String, String)],
    ) -> Result<SnapshotId, BuildError> {
        if inline.is_empty() {
            return Ok(*context);
        }
        let mut tree = (*self.store.tree(context)?).clone();
        for (name, text) in inline {
            let content = self.store.file_content(text.as_bytes())?;
            insert(&mut tree, name, file(0o644, content))?;
        }
        Ok(self.store.put_tree(&tree)?)
    }
}

/// Puts a file at an absolute path; directories above it are made.
pub(crate) fn insert(tree: &mut Tree, path: &str, leaf: Leaf) -> Result<(), BuildError> {
    tree.insert_leaf(path.as_bytes(), leaf)
        .map(drop)
        .map_err(|error| BuildError::Request(format!("`{path}` is not a usable file name: {error}")))
}

/// A file of a program: root's, with a time that follows from its content.
///
/// Equal content gives an equal tree. Different content gives a different time, because Python
/// takes bytecode that it cached for fresh when time and size of the source are as before.
pub(crate) fn file(mode: u32, content: FileContent) -> Leaf {
    let digest = match &content {
        FileContent::Inline(bytes) => Digest::of(bytes),
        FileContent::Object { digest, .. } => *digest,
    };
    let [a, b, c, d, ..] = *digest.as_bytes();
    let seconds = EARLIEST + i64::from(u32::from_le_bytes([a, b, c, d]) >> 3);
    let mut metadata = Metadata::with_mode(mode);
    metadata.mtime = Timestamp { seconds, nanos: 0 };
    Leaf { metadata, kind: LeafKind::File(content) }
}

/// The year 2000. Archive formats refuse much earlier times.
const EARLIEST: i64 = 946_684_800;
