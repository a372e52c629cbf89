//! Threads that take contents while the walk goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use homeport_content::{Delta, FileContent, LeafId, LeafKind};

use super::contents::{Contents, NewFile, Taken, Unhashed};
use crate::error::FsError;

/// Files that wait for a thread; each is open.
const WAITING: usize = 64;

/// Takes the files that the walk finds.
pub(super) struct Intake {
    sender: SyncSender<(LeafId, NewFile)>,
}

impl Intake {
    /// Hands over the content of a leaf.
    pub(super) fn give(&self, id: LeafId, file: NewFile) {
        // It is refused only if all threads panicked, which is passed on at the end.
        let _ = self.sender.send((id, file));
    }
}

/// Runs a walk with threads that take what it finds; gives what both found.
pub(super) fn during<T>(
    contents: &Contents<'_>,
    walk: impl FnOnce(&Intake) -> Result<T, FsError>,
) -> Result<(T, Vec<(LeafId, Taken)>), FsError> {
    let (sender, receiver) = sync_channel(WAITING);
    let receiver = Arc::new(Mutex::new(receiver));
    let failed = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let spawn = |_| {
            let receiver = Arc::clone(&receiver);
            scope.spawn(move || take_all(contents, &receiver, failed))
        };
        let threads: Vec<_> = (0..threads()).map(spawn).collect();
        // It ends with the last thread.
        drop(receiver);
        let walked = walk(&Intake { sender });
        // The sender is gone, so the threads come to their end.
        let taken = gather(threads);
        Ok((walked?, taken?))
    })
}

fn take_all(
    contents: &Contents<'_>,
    receiver: &Mutex<Receiver<(LeafId, NewFile)>>,
    failed: &AtomicBool,
) -> Result<Vec<(LeafId, Taken)>, FsError> {
    let mut taken = Vec::new();
    let mut result = Ok(());
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, file)) = next else { break };
        // The walk must not wait for threads that have failed.
        if failed.load(Ordering::Relaxed) {
            continue;
        }
        match contents.take(&file) {
            Ok(content) => taken.push((id, content)),
            Err(error) => {
                failed.store(true, Ordering::Relaxed);
                result = Err(error);
            }
        }
    }
    result.map(|()| taken)
}

/// Puts contents into their leaves; returns those that are not hashed yet.
pub(super) fn settle(delta: &mut Delta, taken: Vec<(LeafId, Taken)>) -> Vec<(LeafId, Unhashed)> {
    let mut unhashed = Vec::new();
    for (id, taken) in taken {
        match (taken, delta.leaves.get_mut(id.0 as usize)) {
            (Taken::Content(content), Some(leaf)) => leaf.kind = LeafKind::File(content),
            (Taken::Unhashed(copy), _) => unhashed.push((id, copy)),
            (Taken::Content(_), None) => {}
        }
    }
    unhashed
}

/// Hashes private copies.
pub(super) fn hash(
    contents: &Contents<'_>,
    unhashed: &[(LeafId, Unhashed)],
) -> Result<Vec<(LeafId, FileContent)>, FsError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((id, copy)) = unhashed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashed = contents.finish(copy).inspect_err(|_| next.store(unhashed.len(), Ordering::Relaxed));
            done.push((*id, hashed?));
        }
        Ok(done)
    };
    if unhashed.len() <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        gather((0..threads().min(unhashed.len())).map(|_| scope.spawn(work)).collect())
    })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// All that threads give, or the first error.
fn gather<T>(threads: Vec<ScopedJoinHandle<'_, Result<Vec<T>, FsError>>>) -> Result<Vec<T>, FsError> {
    let mut all = Ok(Vec::new());
    for thread in threads {
        match (thread.join(), &mut all) {
            (Ok(Ok(part)), Ok(all)) => all.extend(part),
            (Ok(Err(error)), Ok(_)) => all = Err(error),
            (Ok(_), Err(_)) => {}
            (Err(panic), _) => std::panic::resume_unwind(panic),
        }
    }
    all
}
