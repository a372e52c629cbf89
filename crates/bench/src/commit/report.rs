//! What came out of the benchmark of commits.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{CommitOptions, Found};
use crate::machine::{ByteCount, Machine};
use crate::statistics::{Summary, ratios};
use crate::table;
use crate::volume::report::{Pair, Single, pair_rows, single_rows};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct CommitReport {
    /// Where.
    pub machine: Machine,
    /// The version of the client.
    pub client: String,
    /// Small files of the Volume.
    pub files: u64,
    /// Bytes of the large file.
    pub large: u64,
    /// Bytes that went up and came down.
    pub payload: u64,
    /// Beside something.
    pub pairs: Vec<Pair>,
    /// Alone.
    pub singles: Vec<Single>,
}

impl CommitReport {
    pub(super) fn new(
        machine: Machine,
        client: String,
        options: &CommitOptions,
        found: &Found,
    ) -> CommitReport {
        let mut pairs = Vec::new();
        let mut pair =
            |name: &str, peers: &[f64], ours: &[f64]| {
                let found = Summary::of(peers).zip(Summary::of(ours)).zip(ratios(peers, ours));
                pairs.extend(found.map(|((peer, volume), ratio)| {
                    Pair::new(name.to_owned(), "s", peer, volume, ratio, None)
                }));
            };
        let payload = &found.payload;
        pair("upload, to plain HTTP", &payload.plain_upload, &payload.upload);
        pair("download, to plain HTTP", &payload.plain_download, &payload.download);
        let large = &found.large;
        let whole = large.commit.first().copied().unwrap_or(f64::NAN);
        let whole = vec![whole; large.changed_commit.len()];
        pair("commit of 1 % of the large file, to all of it", &whole, &large.changed_commit);

        let milliseconds = |seconds: &[f64]| seconds.iter().map(|seconds| seconds * 1e3).collect::<Vec<_>>();
        let small = &found.small;
        let mut singles = Vec::new();
        let mut single = |name: String, seconds: &[f64], at_most| {
            singles.push(Single::of(name, "ms", &milliseconds(seconds), at_most));
        };
        single(format!("commit of {} new files", options.files), &small.first_commit, None);
        single(format!("commit of 1 changed file among {}", options.files), &small.commit, Some(50.0));
        single("reload".to_owned(), &small.reload, Some(10.0));
        single("writing the large file".to_owned(), &large.write, None);
        single("changing 1 % of it".to_owned(), &large.change, None);
        let (opens, failed) = small.opens;
        singles.push(Single::of(
            format!("failed opens of {opens} meanwhile"),
            "",
            &[failed as f64],
            Some(0.0),
        ));
        CommitReport {
            machine,
            client,
            files: options.files,
            large: options.large.0,
            payload: options.payload.0,
            pairs,
            singles,
        }
    }
}

impl Display for CommitReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "machine  {}", self.machine)?;
        writeln!(
            formatter,
            "volume   client {}, {} small files, a large one of {}, a payload of {}\n",
            self.client,
            self.files,
            ByteCount(self.large),
            ByteCount(self.payload)
        )?;
        writeln!(formatter, "{}", table::render(&pair_rows(&[], &self.pairs), &[0, 3, 6]))?;
        write!(formatter, "{}", table::render(&single_rows(&self.singles), &[0, 4]))
    }
}
