//! `homeport storage …`, `gc`, `du` and `fsck`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use homeport_bench::ByteCount;

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Make a file system in a file and put the data directory on it
    ///
    /// An XFS file system that can share blocks between files: opening a large committed file for writing then
    /// copies nothing. It is mounted over the data directory, where every program sees it; `homeport up` mounts
    /// it again after a restart of the machine. Needs root, xfsprogs, and no running server.
    Init(InitFlags),
    /// Mount the data directory's file system, as `homeport up` does
    Attach,
    /// Take the data directory's file system off; its file keeps the data
    Detach,
    /// Say where the data directory's file system is, and what is free in it
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InitFlags {
    /// Its size, such as 200GB
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: ByteCount,
    /// The file [default: storage.xfs in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
    /// Move what is in the data directory into the file system; both need room until it is done
    #[arg(long = "move")]
    pub(crate) move_content: bool,
    /// Let the file take space as it is written, instead of all at once. When the disk below is full, writes
    /// that were accepted get lost
    #[arg(long)]
    pub(crate) sparse: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GcFlags {
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep what is younger than this, such as 12h or 7d [default: the server's gc_grace]
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FsckFlags {
    /// Put damaged content aside, so that nothing uses it, and mend what there is another copy of
    #[arg(long)]
    pub(crate) repair: bool,
    /// Take good copies from this data directory, store or directory of files; implies --repair
    #[arg(long, value_name = "DIR")]
    pub(crate) repair_from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
