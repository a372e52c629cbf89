//! The BLAKE3 of a file from the hashes of its blocks.
//!
//! BLAKE3 is a tree over chunks of 1 KiB, whose left branches are full powers of two. A block of 8 MiB at a multiple
//! of 8 MiB is such a branch, so its value can be computed when the block arrives, whatever order blocks come in.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::BLOCK_BYTES;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Hashes one block of a file at its place in it.
pub(super) struct BlockHasher {
    hasher: blake3::Hasher,
    /// The block is all of the file.
    alone: bool,
}

impl BlockHasher {
    /// For the block at `start` of a file of `size` bytes.
    pub(super) fn new(start: u64, size: u64) -> BlockHasher {
        let mut hasher = blake3::Hasher::new();
        let alone = size <= BLOCK_BYTES;
        if !alone {
            hasher.set_input_offset(start);
        }
        BlockHasher { hasher, alone }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub(super) fn update_zeros(&mut self, mut count: u64) {
        while count > 0 {
            let part = count.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..part as usize]);
            count -= part;
        }
    }

    /// The value of the block in the tree; of a file's only block, the hash of the file.
    pub(super) fn finish(self) -> ChainingValue {
        if self.alone { self.hasher.finalize().into() } else { self.hasher.finalize_non_root() }
    }
}

/// The hash of a file of `size` bytes whose blocks have these values.
pub(super) fn root(values: &[ChainingValue], size: u64) -> [u8; 32] {
    match values {
        [] => blake3::hash(&[]).into(),
        [only] => *only,
        _ => {
            let (left, right, split) = halves(values, size);
            merge_subtrees_root(&branch(left, split), &branch(right, size - split), Mode::Hash).into()
        }
    }
}

fn branch(values: &[ChainingValue], size: u64) -> ChainingValue {
    match values {
        [only] => *only,
        _ => {
            let (left, right, split) = halves(values, size);
            merge_subtrees_non_root(&branch(left, split), &branch(right, size - split), Mode::Hash)
        }
    }
}

fn halves(values: &[ChainingValue], size: u64) -> (&[ChainingValue], &[ChainingValue], u64) {
    let split = left_subtree_len(size);
    let (left, right) = values.split_at((split / BLOCK_BYTES) as usize);
    (left, right, split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_blocks_is_the_hash_of_the_file() {
        for size in [
            1,
            1024,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            2 * BLOCK_BYTES,
            3 * BLOCK_BYTES - 5,
            5 * BLOCK_BYTES + 1025,
        ] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut values = Vec::new();
            for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
                let mut hasher = BlockHasher::new(index as u64 * BLOCK_BYTES, size);
                hasher.update(block);
                values.push(hasher.finish());
            }
            assert_eq!(root(&values, size), *blake3::hash(&bytes).as_bytes(), "{size} bytes");
        }
        assert_eq!(root(&[], 0), *blake3::hash(&[]).as_bytes());
    }

    #[test]
    fn zeros_count_as_bytes() {
        let mut told = BlockHasher::new(0, 100_000);
        told.update(b"a");
        told.update_zeros(99_999);
        let mut bytes = vec![0; 100_000];
        bytes[0] = b'a';
        assert_eq!(told.finish(), *blake3::hash(&bytes).as_bytes());
    }
}
