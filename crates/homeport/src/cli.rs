//! The command line.

mod app;
mod storage;
mod volumes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use homeport_bench::ByteCount;
use homeport_hub::{RepoId, RevisionName};
use serde::Deserialize;

pub(crate) use app::AppCommand;
pub(crate) use storage::{FsckFlags, GcFlags, InitFlags, StorageCommand};
pub(crate) use volumes::{ConfigureFlags, Place, VolumeCommand, VolumeFlags};

/// A home of your own for model weights and the code that serves them.
#[derive(Debug, Parser)]
#[command(
    name = "homeport",
    version,
    after_help = "A flag wins over its HOMEPORT_… variable, and that over homeport.toml, whose keys are the \
                  flags' names with `_` for `-`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands take.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where the server keeps everything [default: ~/.local/share/homeport]
    #[arg(long, global = true, value_name = "DIR", env = "HOMEPORT_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings file [default: homeport.toml here, else /etc/homeport/homeport.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "HOMEPORT_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve in the foreground until SIGTERM or Ctrl-C
    ///
    /// Prints one line, `ready http://ADDRESS:PORT`, on stdout once it serves; the log is on stderr. Needs
    /// root. At the end it stops every container, unmounts, and exits 0 within 10 seconds.
    Up(UpFlags),
    /// Who may use the server
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print the `export` lines for a shell: eval "$(homeport env)"
    ///
    /// Prints where the running server is, and a token made for this purpose. Its secret is kept in the data
    /// directory, in a file that only its owner can read, and is made anew when the token was revoked.
    Env,
    /// Check what this machine has and lacks, and say what mends it
    ///
    /// Exits 1 if something needed is missing. Run it as root: it tries small mounts.
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What the model hub has
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Apps: what became of them
    ///
    /// Needs the running server. Listing, stopping and logs are in the client: `modal app`.
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Volumes: what is in them, and what was
    ///
    /// Needs the running server. Creating, deleting, uploading and downloading are in the client: `modal volume`.
    Volume(VolumeFlags),
    /// Remove content that nothing refers to any more
    ///
    /// The running server does this by itself from time to time. What is in use, what a version that is kept
    /// refers to, and what is younger than a day stays.
    Gc(GcFlags),
    /// Say what takes the space, and what would be free without it
    ///
    /// Equal content is stored once, wherever it appears; so the sum of all is more than what the disk has.
    Du {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read everything in the store and say what is wrong with it
    ///
    /// Works beside a running server and without one. Exits 1 if something is wrong and was not mended.
    Fsck(FsckFlags),
    /// The file system that the data directory is on
    Storage {
        #[command(subcommand)]
        command: StorageCommand,
    },
    /// Measure what Homeport costs on this machine
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Print a completion script: homeport completions bash > /etc/bash_completion.d/homeport
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What `homeport up` takes. Absent ones come from the settings file, else from the defaults.
#[derive(Debug, Default, Args)]
pub(crate) struct UpFlags {
    /// Address to serve; port 0 takes a free one [default: 127.0.0.1:8750]
    #[arg(long, value_name = "ADDRESS:PORT", env = "HOMEPORT_LISTEN", hide_env_values = true)]
    pub(crate) listen: Option<SocketAddr>,
    /// What to do with a program that asks for a GPU that this machine doesn't have: `cpu` runs it without,
    /// and says so at every start. By default it waits
    #[arg(long, value_name = "KIND", env = "HOMEPORT_GPU_FALLBACK", hide_env_values = true)]
    pub(crate) gpu_fallback: Option<GpuFallback>,
    /// How often changes of Volumes are committed while a function writes and was not asked to [default: 5s]
    #[arg(long, value_name = "TIME", env = "HOMEPORT_COMMIT_INTERVAL", hide_env_values = true,
          value_parser = humantime::parse_duration)]
    pub(crate) commit_interval: Option<Duration>,
    /// Versions that are kept of each Volume, where `homeport volume configure` says nothing else [default: 100]
    #[arg(long, value_name = "N", env = "HOMEPORT_KEEP_VERSIONS", hide_env_values = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_versions: Option<u32>,
    /// Days for which versions are kept, where `homeport volume configure` says nothing else [default: 30]
    #[arg(long, value_name = "DAYS", env = "HOMEPORT_KEEP_DAYS", hide_env_values = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_days: Option<u32>,
    /// How old content that nothing refers to must be before it is removed [default: 1day]
    #[arg(long, value_name = "TIME", env = "HOMEPORT_GC_GRACE", hide_env_values = true,
          value_parser = humantime::parse_duration)]
    pub(crate) gc_grace: Option<Duration>,
    /// How long the results of spawned calls are kept after their end, such as 12h [default: 7days]
    #[arg(long, value_name = "TIME", env = "HOMEPORT_KEEP_RESULTS", hide_env_values = true,
          value_parser = humantime::parse_duration)]
    pub(crate) keep_results: Option<Duration>,
    /// Form of the log on stderr [default: text]
    #[arg(long, value_name = "FORM", env = "HOMEPORT_LOG_FORMAT", hide_env_values = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// What to log: a level, or levels by module such as `info,homeport_worker=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "HOMEPORT_LOG", hide_env_values = true)]
    pub(crate) log: Option<String>,
}

/// What runs in place of a GPU that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GpuFallback {
    /// The same program without a GPU
    Cpu,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; the secret is shown this once
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List the tokens
    List,
    /// Make a token invalid, from now on and for running clients too
    Revoke {
        /// Its id, `ak-…`
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Put a directory with a model's files into the hub
    Import(ImportFlags),
    /// List the models
    List,
    /// Take a model out of the hub
    Rm {
        /// ORG/NAME
        name: RepoId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImportFlags {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Name to give it, as programs will ask for it
    #[arg(long = "as", value_name = "ORG/NAME")]
    pub(crate) name: RepoId,
    /// Branch that is to point at it
    #[arg(long, default_value = RevisionName::MAIN)]
    pub(crate) revision: RevisionName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Mount a large image and read from it, beside the same files without an image
    ///
    /// Needs root and no server. All files are removed at the end, also after Ctrl-C.
    Image(BenchImageFlags),
    /// Start containers on the running server and say where the time goes
    ///
    /// Needs root, for the comparison with plain runc.
    Start(BenchStartFlags),
    /// Call functions that do nothing on the running server, beside a bare server that only answers
    ///
    /// Needs room for six small containers. Long queues take the server's memory until the end.
    Calls(BenchCallsFlags),
    /// Commit, reload, upload and download on the running server, where a program waits for it
    Commit(BenchCommitFlags),
    /// Read, write and commit on a Volume, beside the same on the plain file system
    ///
    /// Needs root and no server. All files are removed at the end, also after Ctrl-C.
    Volume(BenchVolumeFlags),
}

#[derive(Debug, Args)]
pub(crate) struct BenchImageFlags {
    /// Files of the image
    #[arg(long, value_name = "N", default_value = "100000")]
    pub(crate) files: u64,
    /// Bytes of all of them, such as 5GB or 500MiB; about three times as many go to the disk
    #[arg(long, value_name = "BYTES", default_value = "5GB")]
    pub(crate) bytes: ByteCount,
    /// Directory on the file system to measure [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Turns of each access
    #[arg(long, value_name = "N", default_value = "7", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchVolumeFlags {
    /// Files of the Volume
    #[arg(long, value_name = "N", default_value = "100000")]
    pub(crate) files: u64,
    /// Bytes of all of them; about three times as many go to the disk
    #[arg(long, value_name = "BYTES", default_value = "4GB")]
    pub(crate) bytes: ByteCount,
    /// Bytes of the one file that is written and committed
    #[arg(long, value_name = "BYTES", default_value = "4GB")]
    pub(crate) written: ByteCount,
    /// Directory on the file system to measure [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Turns of each access
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCommitFlags {
    /// Python of a virtual environment that has the client
    #[arg(long, value_name = "PATH")]
    pub(crate) python: PathBuf,
    /// Small files of the Volume
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(2..))]
    pub(crate) files: u64,
    /// Commits of one changed file, and at most five turns of uploads and downloads
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Reloads
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reloads: u32,
    /// Bytes of a large file; it is written and committed, and one per cent of it again
    #[arg(long, value_name = "BYTES", default_value = "4GB")]
    pub(crate) large: ByteCount,
    /// Bytes that go up and come down
    #[arg(long, value_name = "BYTES", default_value = "64MB")]
    pub(crate) payload: ByteCount,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCallsFlags {
    /// Python of a virtual environment that has the client
    #[arg(long, value_name = "PATH")]
    pub(crate) python: PathBuf,
    /// Turns
    #[arg(long, value_name = "N", default_value = "7", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Calls of `.remote()` in each turn
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) calls: u32,
    /// Inputs of `.map()` in each turn
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) inputs: u32,
    /// Inputs of the longest queue
    #[arg(long, value_name = "N", default_value = "100000")]
    pub(crate) queued: u32,
    /// Bytes of the largest argument
    #[arg(long, value_name = "BYTES", default_value = "100MB")]
    pub(crate) payload: ByteCount,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchStartFlags {
    /// Python of a virtual environment that has the client
    #[arg(long, value_name = "PATH")]
    pub(crate) python: PathBuf,
    /// Number of cold starts; their containers idle until the end, so the machine needs room for all of them
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
