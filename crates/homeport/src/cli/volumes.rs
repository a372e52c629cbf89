//! `homeport volume …`.

use std::ffi::OsString;
use std::str::FromStr;

use clap::{Args, Subcommand};
use homeport_bench::ByteCount;
use homeport_hub::{RepoId, RevisionName};

#[derive(Debug, Args)]
pub(crate) struct VolumeFlags {
    /// Environment of the Volume, where programs use other ones than `main`
    #[arg(long = "env", global = true, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) environment: String,
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

/// Versions are named by their number or by a tag.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List the Volumes
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the versions of a Volume, newest first
    ///
    /// Each with its time, what made it, how many names it added (+), changed (~) and removed (-), and its tags.
    /// Where two containers had written the same file, the last commit won: then the command is shown that
    /// brings the other content back.
    Log {
        /// The Volume
        volume: String,
        /// Show so many
        #[arg(long, short = 'n', value_name = "N")]
        limit: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what differs between two versions
    ///
    /// Without versions: what the newest changed in the one before. With one: what the newest has that it
    /// has not.
    Diff {
        /// The Volume
        volume: String,
        /// The older version
        from: Option<String>,
        /// The newer version [default: the newest]
        to: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Bring back what an earlier version had
    ///
    /// This makes a new version: what is there now stays in the history. Running containers see it when
    /// they reload.
    Restore {
        /// The Volume
        volume: String,
        /// The version that has it
        #[arg(long, value_name = "VERSION")]
        version: String,
        /// Only these files and directories, from the Volume's root on [default: everything]
        paths: Vec<OsString>,
    },
    /// Give a version a name, under which it is kept for good
    Tag {
        /// The Volume
        volume: String,
        /// The name
        tag: String,
        /// The version [default: the newest]
        #[arg(long, value_name = "VERSION", conflicts_with = "remove")]
        version: Option<String>,
        /// Take the name away
        #[arg(long)]
        remove: bool,
    },
    /// Make a second Volume that begins with what a version of the first has
    ///
    /// Takes no time and no space: both share their content until they change it.
    Fork {
        /// The Volume
        volume: String,
        /// Name of the new one
        new_name: String,
        /// The version [default: the newest]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// Place a model of the hub on a Volume
    ///
    /// Takes no time and no space: the Volume shares the hub's content. Files of the same names are replaced,
    /// in a new version.
    PutModel {
        /// ORG/NAME
        model: RepoId,
        /// Where to place its files: a Volume, and a directory in it
        #[arg(value_name = "VOLUME:PATH")]
        place: Place,
        /// Branch or commit of the model
        #[arg(long, default_value = RevisionName::MAIN)]
        revision: RevisionName,
    },
    /// Show or change how a Volume is kept
    ///
    /// Without options it shows what is set.
    Configure(ConfigureFlags),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigureFlags {
    /// The Volume
    pub(crate) volume: String,
    /// Keep so many versions; 0 is the server's default
    #[arg(long, value_name = "N")]
    pub(crate) keep_versions: Option<u32>,
    /// Keep versions for so many days; 0 is the server's default
    #[arg(long, value_name = "DAYS")]
    pub(crate) keep_days: Option<u32>,
    /// Let a reload fail while any file is open, not only while one is open for writing
    #[arg(long, value_name = "BOOL")]
    pub(crate) strict_reload: Option<bool>,
    /// Refuse commits that make the Volume larger, such as 100GB; 0 is no limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) quota: Option<ByteCount>,
    /// Files that are copied for writing when the Volume is mounted, such as '*.sqlite': needed where a program
    /// maps a file read-only before another one first writes to it. Can be given several times; replaces
    /// what is set
    #[arg(long, value_name = "PATTERN")]
    pub(crate) early_copy: Vec<String>,
    /// Copy no files early
    #[arg(long, conflicts_with = "early_copy")]
    pub(crate) no_early_copies: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A directory in a Volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) volume: String,
    pub(crate) path: String,
}

#[derive(Debug, thiserror::Error)]
#[error("write VOLUME:PATH, for example weights:/models/llama")]
pub(crate) struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Place, PlaceError> {
        let (volume, path) = text.split_once(':').unwrap_or((text, ""));
        if volume.is_empty() || volume.contains('/') {
            return Err(PlaceError);
        }
        Ok(Place { volume: volume.to_owned(), path: path.trim_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_volume_and_a_directory() {
        let place = |text: &str| text.parse::<Place>().map(|place| (place.volume, place.path));
        assert_eq!(place("weights:/models/x/").unwrap(), ("weights".into(), "models/x".into()));
        assert_eq!(place("weights:").unwrap(), ("weights".into(), String::new()));
        assert_eq!(place("weights").unwrap(), ("weights".into(), String::new()));
        assert!(place(":/x").is_err() && place("/models/x").is_err());
    }
}
