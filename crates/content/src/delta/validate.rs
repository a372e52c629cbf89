//! What a delta may hold: what its encoding can say, and what can be mounted over a valid tree.

use super::{Change, ChangedDirectory, Delta};
use crate::tree::{kind_fault, metadata_fault, name_fault, refuse};
use crate::{InvalidTree, MAX_DEPTH};

impl Delta {
    /// Checks everything that [`Delta::decode`] will demand of the encoding.
    pub fn validate(&self) -> Result<(), InvalidTree> {
        self.validate_directory(&self.root, &mut Vec::new(), 0)
    }

    fn validate_directory(
        &self,
        directory: &ChangedDirectory,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), InvalidTree> {
        if depth > MAX_DEPTH {
            return refuse(path, "nested too deep");
        }
        if let Some(reason) = metadata_fault(&directory.metadata) {
            return refuse(path, reason);
        }
        for (name, change) in &directory.entries {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            if let Some(reason) = name_fault(name) {
                return refuse(path, reason);
            }
            match change {
                Change::Removed => {}
                Change::Directory(directory) => self.validate_directory(directory, path, depth + 1)?,
                Change::Leaf(id) => {
                    let Some(leaf) = self.leaf(*id) else {
                        return refuse(path, "names a leaf that the delta does not have");
                    };
                    if let Some(reason) = metadata_fault(&leaf.metadata).or_else(|| kind_fault(&leaf.kind)) {
                        return refuse(path, reason);
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }
}
