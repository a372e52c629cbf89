//! The check of a whole store: is everything here that is named, and is it what its name says?
//!
//! Reads every byte, from the disk and not from memory. It may run beside everything else, except
//! a collection of garbage, which would make things missing.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::BuildHasherDefault;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use homeport_content::Digest;

use crate::batch::strip_metadata;
use crate::error::io_error;
use crate::examine::{Examined, examine};
use crate::fault::{Fault, Finding, Mended};
use crate::hold::{LISTS, Root};
use crate::marks::{AsItIs, key};
use crate::reach::names_of;
use crate::sources::Sources;
use crate::{Store, StoreError};

/// What a check shall do.
#[derive(Debug, Clone, Default)]
pub struct CheckRequest {
    /// What must be here, with what refers to it for people. All that it leads to must be here as well.
    pub roots: Vec<(Root, String)>,
    /// Put damaged files aside, and mend what can be mended.
    pub repair: bool,
    /// Data directories, stores or directories of files to take good copies from.
    pub sources: Vec<PathBuf>,
}

/// What a check tells while it runs.
#[derive(Debug)]
pub enum CheckNews<'a> {
    /// One more was read, with so many bytes.
    Read(u64),
    /// Something is wrong.
    Found(&'a Finding),
}

/// What a check found beside faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Objects, trees and deltas that were read.
    pub read: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Faults.
    pub faults: u64,
    /// Faults after which all is well again.
    pub mended: u64,
    /// Trees and deltas that nothing refers to: garbage, not a fault.
    pub unreachable: u64,
}

type Sizes = HashMap<u64, u64, BuildHasherDefault<AsItIs>>;

struct Check<'a> {
    store: &'a Store,
    repair: bool,
    sources: Sources,
    /// What trees and deltas say of objects, by [`key`].
    sizes: Sizes,
    on_news: &'a (dyn Fn(CheckNews<'_>) + Sync),
    read: AtomicU64,
    bytes: AtomicU64,
    faults: AtomicU64,
    mended: AtomicU64,
}

impl Store {
    /// Checks everything in the store. `on_news` is called from several threads.
    pub fn check(
        &self,
        request: &CheckRequest,
        on_news: &(dyn Fn(CheckNews<'_>) + Sync),
    ) -> Result<CheckSummary, StoreError> {
        let mut check = Check {
            store: self,
            repair: request.repair,
            sources: Sources::of(&request.sources),
            sizes: Sizes::default(),
            on_news,
            read: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            mended: AtomicU64::new(0),
        };
        let seen = check.trees()?;
        check.objects()?;
        let reached = check.reached(&request.roots)?;
        check.strays()?;
        Ok(CheckSummary {
            read: check.read.into_inner(),
            bytes: check.bytes.into_inner(),
            faults: check.faults.into_inner(),
            mended: check.mended.into_inner(),
            unreachable: seen.difference(&reached).count() as u64,
        })
    }
}

impl Check<'_> {
    /// Reads all trees and deltas, and what they say of objects.
    fn trees(&mut self) -> Result<HashSet<Root>, StoreError> {
        let mut seen = HashSet::new();
        for (kind, root) in LISTS {
            let mut all = Vec::new();
            self.store.each(kind, |digest, _| {
                all.push(root(digest));
                Ok(())
            })?;
            for root in all {
                if self.encoded(&root)? {
                    seen.insert(root);
                }
            }
        }
        Ok(seen)
    }

    /// Checks a tree or delta; whether it is good, also after mending.
    fn encoded(&mut self, root: &Root) -> Result<bool, StoreError> {
        let Some(examined) = self.examined(root)? else {
            return Ok(false);
        };
        if examined.digest != *root.digest() {
            let fault = Fault::Altered { what: *root, found: examined.digest };
            let mended = self.replace(root, Some(examined.inode), None)?;
            let whole = mended.as_ref().is_some_and(Mended::is_whole);
            self.report(fault, mended);
            if !whole {
                return Ok(false);
            }
        }
        match self.store.read_checked(root).and_then(|bytes| names_of(root, &bytes)) {
            Ok(objects) => {
                self.sizes.extend(objects.iter().map(|(digest, size)| (key(digest), *size)));
                Ok(true)
            }
            Err(error) => {
                self.report(Fault::Undecodable { what: *root, reason: error.to_string() }, None);
                Ok(false)
            }
        }
    }

    /// Reads all objects, with all cores.
    fn objects(&self) -> Result<(), StoreError> {
        let shards = Mutex::new(self.store.shards("objects")?);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || -> Result<(), StoreError> {
            loop {
                let shard = shards.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(shard) = shard else { return Ok(()) };
                for digest in self.store.digests(&shard)? {
                    self.object(&digest)?;
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                // A panic there is one here.
                let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
            result
        })
    }

    fn object(&self, digest: &Digest) -> Result<(), StoreError> {
        let root = Root::Object(*digest);
        let expected = self.sizes.get(&key(digest)).copied();
        let Some(examined) = self.examined(&root)? else {
            return Ok(());
        };
        if examined.digest != *digest {
            let fault = match expected {
                Some(expected) if expected != examined.size => {
                    Fault::WrongSize { what: root, expected, found: examined.size }
                }
                _ => Fault::Altered { what: root, found: examined.digest },
            };
            let mended = self.replace(&root, Some(examined.inode), expected)?;
            self.report(fault, mended);
        } else if let Some(expected) = expected.filter(|expected| *expected != examined.size) {
            // The bytes are right, so it is the tree that is wrong about them.
            self.report(Fault::WrongSize { what: root, expected, found: examined.size }, None);
        } else if !examined.is_plain {
            let mended = self.repair.then(|| self.make_plain(&root)).transpose()?;
            self.report(Fault::Metadata { what: root }, mended);
        }
        Ok(())
    }

    /// Reads a file. What differs is read once more, so that an error in memory is not taken for one on the disk.
    fn examined(&self, root: &Root) -> Result<Option<Examined>, StoreError> {
        let path = self.store.place_of(root);
        let once = || examine(&path, &|_| Ok(()));
        let examined = match once() {
            Ok(examined) if examined.digest != *root.digest() => once(),
            examined => examined,
        };
        match examined {
            Ok(examined) => {
                self.read.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(examined.size, Ordering::Relaxed);
                (self.on_news)(CheckNews::Read(examined.size));
                Ok(Some(examined))
            }
            // It went meanwhile: then it is missing, or was not needed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let inode = path.symlink_metadata().ok().map(|found| found.ino());
                let size = self.sizes.get(&key(root.digest())).copied();
                let mended = self.replace(root, inode, size)?;
                self.report(Fault::Unreadable { what: *root, reason: error.to_string() }, mended);
                Ok(None)
            }
        }
    }

    /// Looks for all that the roots lead to; returns the trees and deltas among it.
    fn reached(&self, roots: &[(Root, String)]) -> Result<HashSet<Root>, StoreError> {
        let mut reached = HashSet::new();
        let mut missing = HashSet::new();
        for (root, name) in roots {
            if !reached.insert(*root) {
                continue;
            }
            if !self.is_here(root, None, name, &mut missing)? {
                continue;
            }
            // What is wrong with those that cannot be read was said before.
            for (digest, size) in self.store.names_in(root).unwrap_or_default() {
                let object = Root::Object(digest);
                if !missing.contains(&object) {
                    self.is_here(&object, Some(size), &format!("{root} of {name}"), &mut missing)?;
                }
            }
        }
        reached.retain(|root| !matches!(root, Root::Object(_)));
        Ok(reached)
    }

    fn is_here(
        &self,
        root: &Root,
        size: Option<u64>,
        named_by: &str,
        missing: &mut HashSet<Root>,
    ) -> Result<bool, StoreError> {
        if self.store.place_of(root).symlink_metadata().is_ok() {
            return Ok(true);
        }
        missing.insert(*root);
        let mended = self.replace(root, None, size)?;
        let whole = mended.is_some();
        self.report(Fault::Missing { what: *root, named_by: named_by.to_owned() }, mended);
        Ok(whole)
    }

    /// Files that have no business in the store are reported, not touched.
    fn strays(&self) -> Result<(), StoreError> {
        for kind in ["objects", "trees", "deltas"] {
            let dir = self.store.dir().join(kind);
            for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))?.flatten() {
                let shard = entry.path();
                if entry.file_name().len() != 2 || !shard.is_dir() {
                    self.report(Fault::Stray(shard), None);
                    continue;
                }
                let prefix = entry.file_name();
                for entry in fs::read_dir(&shard).map_err(io_error("list", &shard))?.flatten() {
                    let name = format!("{}{}", prefix.to_string_lossy(), entry.file_name().to_string_lossy());
                    if name.parse::<Digest>().is_err() {
                        self.report(Fault::Stray(entry.path()), None);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a damaged file aside, and a good copy in its place if there is one.
    fn replace(
        &self,
        root: &Root,
        damaged: Option<u64>,
        size: Option<u64>,
    ) -> Result<Option<Mended>, StoreError> {
        if !self.repair {
            return Ok(None);
        }
        let aside = match damaged {
            Some(inode) => self.store.quarantine(root, inode)?,
            None => None,
        };
        let copied = self.sources.mend(self.store, root, size)?;
        Ok(copied.map(Mended::Copied).or(aside.map(Mended::PutAside)))
    }

    fn make_plain(&self, root: &Root) -> Result<Mended, StoreError> {
        let path = self.store.place_of(root);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        strip_metadata(&file, &path)?;
        Ok(Mended::MadePlain)
    }

    fn report(&self, fault: Fault, mended: Option<Mended>) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        if mended.as_ref().is_some_and(Mended::is_whole) {
            self.mended.fetch_add(1, Ordering::Relaxed);
        }
        (self.on_news)(CheckNews::Found(&Finding { fault, mended }));
    }
}
