//! Garbage collection: marks what roots lead to, removes the rest.
//!
//! Safe beside everything that goes on in the store, in this process and in others, as long as
//! that takes [holds and pins](crate::Hold). A collection goes: [`Store::collection`], which fixes
//! what is young; then the caller reads its roots and [marks](Collection::mark) them; then
//! [`Collection::sweep`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use homeport_content::Digest;

use crate::clock::{Time, nanos};
use crate::error::io_error;
use crate::hold::Root;
use crate::marks::Marks;
use crate::protocol::Tally;
use crate::{Store, StoreError};

/// How long files that were put aside as damaged are kept.
const QUARANTINE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A garbage collection that has begun.
#[derive(Debug)]
pub struct Collection {
    store: Arc<Store>,
    cutoff: Time,
    marks: Marks,
    broken: Vec<BrokenRoot>,
}

/// A root that leads nowhere.
#[derive(Debug)]
pub struct BrokenRoot {
    /// The root.
    pub root: Root,
    /// What is wrong with it.
    pub fault: StoreError,
}

/// What a sweep removed, or would have removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Contents of files.
    pub objects: u64,
    /// Trees.
    pub trees: u64,
    /// Deltas.
    pub deltas: u64,
    /// What was computed from objects that are gone.
    pub outboards: u64,
    /// Directories that processes left that are gone, and damaged files that were long put aside.
    pub leftovers: u64,
    /// What all that took on disk.
    pub bytes: u64,
    /// Objects, trees and deltas that stay.
    pub kept: u64,
    /// What they take on disk.
    pub kept_bytes: u64,
}

/// A sweep was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// What a broken tree names is not known, so nothing could be called garbage.
    #[error(
        "nothing was removed, because {} cannot be read and what it names is not known; \
         run `homeport fsck --repair`, or remove what refers to it", .0
    )]
    BrokenRoot(Root, #[source] StoreError),
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Begins a collection. Of what no root leads to, what was stored or found less than `grace`
    /// ago stays, and what was since the oldest live hold began. Roots are to be read after this
    /// returns.
    pub fn collection(self: &Arc<Self>, grace: Duration) -> Collection {
        let cutoff = self.protocol.begin_collection(nanos(grace));
        Collection { store: Arc::clone(self), cutoff, marks: Marks::default(), broken: Vec::new() }
    }
}

impl Collection {
    /// Marks a root and all that it leads to. `false` if it leads nowhere: then it is also among
    /// the [broken](Collection::broken) ones.
    pub fn mark(&mut self, root: Root) -> bool {
        if !self.marks.insert(&root) {
            return true;
        }
        let fault = match root {
            Root::Object(digest) if self.store.contains(&digest) => return true,
            Root::Object(digest) => StoreError::MissingObject(digest),
            Root::Tree(_) | Root::Delta(_) => match self.store.names_in(&root) {
                Ok(objects) => {
                    for (digest, _) in objects {
                        self.marks.insert(&Root::Object(digest));
                    }
                    return true;
                }
                Err(fault) => fault,
            },
        };
        self.broken.push(BrokenRoot { root, fault });
        false
    }

    /// The marked roots that lead nowhere.
    pub fn broken(&self) -> &[BrokenRoot] {
        &self.broken
    }

    /// Whether a tree or delta stays.
    pub fn keeps(&self, digest: &Digest) -> bool {
        self.marks.contains(&Root::Tree(*digest)) || self.marks.contains(&Root::Delta(*digest))
    }

    /// Marks what is pinned, and what young trees and deltas name. To be called when all roots
    /// are marked, before [`Collection::keeps`] is asked.
    pub fn mark_young(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        for root in store.protocol.pinned() {
            self.mark(root);
        }
        for root in store.roots_since(self.cutoff)? {
            let known = self.broken.len();
            self.mark(root);
            // Nobody has named it yet, so nobody misses it.
            self.broken.truncate(known);
        }
        Ok(())
    }

    /// Removes what is neither marked nor young, or says what that would be. `on_progress` is told
    /// how much was looked at.
    pub fn sweep(&mut self, dry_run: bool, on_progress: &dyn Fn(u64)) -> Result<Swept, SweepError> {
        self.mark_young()?;
        // A missing object has nothing behind it; of a tree that cannot be read we don't know.
        let unknown = |broken: &BrokenRoot| !matches!(broken.root, Root::Object(_));
        if !dry_run && let Some(at) = self.broken.iter().position(unknown) {
            let broken = self.broken.swap_remove(at);
            return Err(SweepError::BrokenRoot(broken.root, broken.fault));
        }
        let mut swept = Swept::default();
        // Trees go before what they name: none ever stands there with nothing behind it.
        swept.trees = self.kind("trees", &Root::Tree, &mut swept, dry_run, on_progress)?;
        swept.deltas = self.kind("deltas", &Root::Delta, &mut swept, dry_run, on_progress)?;
        if !dry_run {
            self.store.forget_cached(&|id| !self.keeps(id));
        }
        swept.objects = self.kind("objects", &Root::Object, &mut swept, dry_run, on_progress)?;
        let here = |digest: &Digest| match dry_run {
            true => self.marks.contains(&Root::Object(*digest)),
            false => self.store.contains(digest),
        };
        let outboards = self.shards("outboards", &here, dry_run, &|_| ())?;
        swept.outboards = outboards.removed;
        swept.bytes += outboards.removed_bytes;
        let leftovers = self.leftovers()?;
        if !leftovers.is_empty() && !dry_run {
            // Whoever left them may have made names that are not on disk yet, and this was the only sign of it.
            self.store.sync()?;
        }
        for path in leftovers {
            swept.bytes += allocated(&path);
            swept.leftovers += 1;
            if !dry_run {
                remove(&path)?;
            }
        }
        Ok(swept)
    }

    fn kind(
        &self,
        kind: &str,
        root: &dyn Fn(Digest) -> Root,
        swept: &mut Swept,
        dry_run: bool,
        on_progress: &dyn Fn(u64),
    ) -> Result<u64, StoreError> {
        let before = swept.kept + swept.objects + swept.trees + swept.deltas;
        let marked = |digest: &Digest| self.marks.contains(&root(*digest));
        let tally = self.shards(kind, &marked, dry_run, &|seen| on_progress(before + seen))?;
        swept.bytes += tally.removed_bytes;
        swept.kept += tally.kept;
        swept.kept_bytes += tally.kept_bytes;
        Ok(tally.removed)
    }

    fn shards(
        &self,
        kind: &str,
        marked: &dyn Fn(&Digest) -> bool,
        dry_run: bool,
        on_progress: &dyn Fn(u64),
    ) -> Result<Tally, StoreError> {
        let mut sum = Tally::default();
        for shard in self.store.shards(kind)? {
            let tally = self.store.protocol.sweep(&shard, self.cutoff, marked, dry_run)?;
            sum.removed += tally.removed;
            sum.removed_bytes += tally.removed_bytes;
            sum.kept += tally.kept;
            sum.kept_bytes += tally.kept_bytes;
            on_progress(sum.removed + sum.kept);
        }
        Ok(sum)
    }

    fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = self.store.leftovers(self.cutoff)?;
        found.extend(self.store.quarantined_before(QUARANTINE)?);
        Ok(found)
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.store.protocol.end_collection();
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        // Its owner was not gone, and removed it himself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove what was left of", path)),
    }
}

/// What a file or all files below a directory take on disk; what cannot be looked at counts as nothing.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let mut sum = found.blocks() * 512;
    if found.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        sum += entries.map(|entry| allocated(&entry.path())).sum::<u64>();
    }
    sum
}
