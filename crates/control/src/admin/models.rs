//! Models of the hub on Volumes. Both are trees over one store, so nothing is copied.

use std::sync::Arc;

use homeport_content::{Edit, EditError, EntryRef, Layered, Seen, Timestamp, Tree};
use homeport_hub::{CatalogError, RepoId};
use homeport_proto::admin as pb;
use homeport_store::StoreError;
use tonic::Status;

use super::AdminService;

/// Why a model could not be placed.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    #[error("the content store failed: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl From<PlaceError> for Status {
    fn from(error: PlaceError) -> Self {
        match &error {
            PlaceError::Store(_) => Status::internal(error.to_string()),
            PlaceError::Edit(_) => Status::failed_precondition(error.to_string()),
        }
    }
}

impl AdminService {
    pub(super) async fn volume_put_model(
        &self,
        request: pb::VolumePutModelRequest,
    ) -> Result<pb::VolumeVersionAnswer, Status> {
        let volume_id = self.volume(&request.volume, &request.environment)?;
        // What is found now stays until it is on the Volume, also when the model is removed meanwhile.
        let _hold = self.0.store.hold();
        let repo: RepoId = request
            .model
            .parse()
            .map_err(|error| Status::invalid_argument(format!("`{}`: {error}", request.model)))?;
        let commit = self.commit(&repo, &request.revision).await?;
        let (store, path, snapshot) = (Arc::clone(&self.0.store), request.path, commit);
        let now = timestamp(self.0.clock.now());
        let reason = format!("put-model {repo}");
        let version = self
            .0
            .volumes()
            .publish_edit(&volume_id, &reason, move |layered| {
                let tree = store.tree(&snapshot)?;
                let mut edit = Edit::new(layered, now);
                if !is_there(layered, &path, &tree) {
                    edit.put_tree(&path, &tree)?;
                }
                Ok::<_, PlaceError>(edit.finish())
            })
            .await?;
        Ok(pb::VolumeVersionAnswer { volume_id, version })
    }

    /// The files of a model at a revision.
    async fn commit(&self, repo: &RepoId, revision: &str) -> Result<homeport_content::SnapshotId, Status> {
        let failed = |error: CatalogError| Status::internal(error.to_string());
        let Some(record) = self.0.options.models.get(repo).await.map_err(failed)? else {
            return Err(Status::not_found(format!(
                "the hub has no model `{repo}`; `homeport models list` shows what it has"
            )));
        };
        let revision = if revision.is_empty() { "main" } else { revision };
        match record.resolve(revision) {
            Some(commit) => Ok(commit.snapshot),
            None => Err(Status::not_found(format!("the model `{repo}` has no revision `{revision}`"))),
        }
    }
}

/// Whether everything of a tree is in a directory of a Volume already, as it is in the tree.
fn is_there(layered: &Layered, path: &[u8], tree: &Tree) -> bool {
    matches!(layered.get(path), Some(Seen::Directory(_)))
        && tree.walk().all(|(found, entry)| match (layered.get(&[path, b"/", &found].concat()), entry) {
            (Some(Seen::Directory(there)), EntryRef::Directory(wanted)) => *there == wanted.metadata,
            (Some(Seen::Leaf { leaf, .. }), EntryRef::Leaf(_, wanted)) => leaf == wanted,
            _ => false,
        })
}

fn timestamp(seconds: f64) -> Timestamp {
    Timestamp { seconds: seconds as i64, nanos: (seconds.fract() * 1e9) as u32 }
}

#[cfg(test)]
mod tests {
    use homeport_content::{Entry, FileContent, Leaf, LeafKind, Metadata};

    use super::*;

    fn model(content: &[u8]) -> Tree {
        let mut tree = Tree::default();
        let id = tree.push_leaf(Leaf {
            metadata: Metadata::with_mode(0o644),
            kind: LeafKind::File(FileContent::Inline(content.into())),
        });
        tree.root.entries.insert(b"config.json".as_slice().into(), Entry::Leaf(id));
        tree
    }

    #[test]
    fn a_model_is_there_only_where_all_of_it_is_as_it_should_be() {
        let empty = Layered::of(Arc::new(Tree::default()));
        assert!(!is_there(&empty, b"models/x", &model(b"{}")));
        let mut edit = Edit::new(&empty, timestamp(1.5));
        edit.put_tree(b"models/x", &model(b"{}")).unwrap();
        let placed = empty.with(Arc::new(edit.finish()));
        assert!(is_there(&placed, b"models/x", &model(b"{}")));
        assert!(!is_there(&placed, b"models/x", &model(b"other")));
        assert!(!is_there(&placed, b"models", &model(b"{}")));
    }
}
