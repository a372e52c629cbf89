//! The file system in user space that has the disk as its only file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

use crate::journal::{Event, Journal};
use crate::{DiskError, failed};

pub(crate) const FILE_NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Nothing changes but the content, so the kernel need not ask again.
const FOR_EVER: Duration = Duration::from_secs(86_400);
const BLOCK: u64 = 65_536;

/// Serves the disk in `directory`.
pub(crate) fn serve(journal: Arc<Mutex<Journal>>, directory: &Path) -> Result<BackgroundSession, DiskError> {
    let bytes = journal.lock().unwrap_or_else(PoisonError::into_inner).bytes();
    let served = Served { journal, bytes, content: Mutex::default() };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("crashdisk".to_owned())];
    fuser::spawn_mount(served, directory, &config).map_err(failed("mount a file system in user space"))
}

struct Served {
    journal: Arc<Mutex<Journal>>,
    bytes: u64,
    /// What was written, by number of block.
    content: Mutex<BTreeMap<u64, Box<[u8]>>>,
}

impl Served {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let directory = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if directory { 0 } else { self.bytes },
            blocks: self.bytes / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o755 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn store(&self, offset: u64, data: &[u8]) {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        for_blocks(offset, data.len(), |number, within, range| {
            let block = content.entry(number).or_insert_with(|| vec![0; BLOCK as usize].into());
            block[within..within + range.len()].copy_from_slice(&data[range]);
        });
    }

    fn load(&self, offset: u64, size: usize) -> Vec<u8> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = vec![0; size];
        for_blocks(offset, size, |number, within, range| {
            if let Some(block) = content.get(&number) {
                let length = range.len();
                data[range].copy_from_slice(&block[within..within + length]);
            }
        });
        data
    }
}

/// Cuts a range of bytes at the borders of blocks: the block, where in it, and which of the bytes.
fn for_blocks(offset: u64, size: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < size {
        let at = offset + done as u64;
        let within = (at % BLOCK) as usize;
        let length = (BLOCK as usize - within).min(size - done);
        each(at / BLOCK, within, done..done + length);
        done += length;
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE_NAME {
            reply.entry(&FOR_EVER, &self.attributes(FILE), fuser::Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.bytes.saturating_sub(offset).min(u64::from(size));
        reply.data(&self.load(offset, left as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if offset + data.len() as u64 > self.bytes {
            reply.error(Errno::ENOSPC);
            return;
        }
        // The journal first: what can be read was written down.
        let event = Event::Write { offset, data: data.into() };
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.store(offset, data);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The close of a descriptor: no promise of a disk.
        reply.ok();
    }
}
