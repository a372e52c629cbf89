//! Volumes beside a plain directory on the same disk: reading what is committed, writing and
//! committing, showing other versions, storms of small files, and what versions take.
//!
//! This is the storage alone, without a server: what the control plane adds to a commit is one row
//! in its database, and to a reload one more message in each direction.

mod mounted;
pub(crate) mod report;
mod storm;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use homeport_content::Stack;

use crate::BenchError;
use crate::error::io_error;
use crate::image::Turns;
use crate::image::corpus::Corpus;
use crate::image::reads::{self, Copy};
use crate::interruption::Interruption;
use crate::machine::{ByteCount, Machine};
use crate::mounts::with_private_mounts;
use crate::scratch::Scratch;
use crate::statistics::{Summary, ratios};

use mounted::Place;
use report::{Pair, Single, VolumeReport};

const CHUNK: usize = 4 << 20;
/// Versions that are shown, one after the other.
const SHOWS: usize = 200;
/// Commits of one changed file.
const SMALL_COMMITS: usize = 20;
/// Fine-tunes of one model, and the part of its bytes that each changes.
const TUNES: u64 = 10;
const CHANGED_PART: u64 = 10;

/// What to measure.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// Files of the Volume that is read, and of the storms.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: ByteCount,
    /// Bytes that are written and committed as one file.
    pub written: ByteCount,
    /// Directory on the file system to measure; it must exist.
    pub dir: PathBuf,
    /// Turns of each access.
    pub rounds: usize,
}

/// Runs the benchmark. Needs root. Says what it is doing through `progress`.
pub fn run_volume(
    options: &VolumeOptions,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<VolumeReport, BenchError> {
    let corpus = Corpus::plan(options.files, options.bytes.0)?;
    let interruption = Interruption::catch()?;
    let scratch = Scratch::create(&options.dir)?;
    let run = Run { options, corpus: &corpus, scratch: &scratch, interruption: &interruption, progress };
    let report = with_private_mounts(|| run.all());
    progress("removing the files");
    let removed = scratch.remove();
    let report = report?;
    removed?;
    Ok(report)
}

struct Run<'a> {
    options: &'a VolumeOptions,
    corpus: &'a Corpus,
    scratch: &'a Scratch,
    interruption: &'a Interruption,
    progress: &'a (dyn Fn(&str) + Sync),
}

impl Run<'_> {
    fn all(&self) -> Result<VolumeReport, BenchError> {
        let place = Place::open(&self.scratch.directory("volumes")?)?;
        let mut report = VolumeReport {
            machine: Machine::of(&self.options.dir)?,
            files: self.options.files,
            bytes: self.options.bytes.0,
            written: self.options.written.0,
            comparisons: Vec::new(),
            warmth: Vec::new(),
            pairs: Vec::new(),
            singles: Vec::new(),
        };
        let empty = place.empty()?;
        self.write_and_commit(&place, &empty, &mut report)?;
        let version = self.read(&place, &empty, &mut report)?;
        self.small_commits(&place, &version, &mut report)?;
        self.show(&place, &version, &mut report)?;
        for pair in storm::all(
            &place,
            &empty,
            &self.scratch.directory("storm")?,
            self.options,
            self.interruption,
            self.progress,
        )? {
            report.pairs.push(pair);
        }
        self.fine_tunes(&place, &empty, &mut report)?;
        Ok(report)
    }

    /// One large file: written and synced on the plain file system, written and committed on a Volume.
    fn write_and_commit(
        &self,
        place: &Place,
        empty: &Stack,
        report: &mut VolumeReport,
    ) -> Result<(), BenchError> {
        (self.progress)("writing a large file and committing it");
        let plain = self.scratch.directory("written")?.join("weights");
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 0..self.options.rounds.min(3) as u64 {
            self.interruption.check()?;
            let begin = Instant::now();
            self.write_noise(&plain, 2 * round)?.sync_all().map_err(io_error("sync", &plain))?;
            theirs.push(begin.elapsed().as_secs_f64());
            fs::remove_file(&plain).map_err(io_error("remove", &plain))?;

            let mut volume = place.mount(&format!("write-{round}"), empty)?;
            let path = volume.path().join("weights");
            let begin = Instant::now();
            self.write_noise(&path, 2 * round + 1)?;
            volume.take()?;
            ours.push(begin.elapsed().as_secs_f64());
            volume.end()?;
        }
        report.push_pair("write and commit, to write and fsync", "s", &theirs, &ours, Some(0.8));
        Ok(())
    }

    fn write_noise(&self, path: &Path, seed: u64) -> Result<File, BenchError> {
        let mut file = File::create(path).map_err(io_error("create", path))?;
        let mut noise = crate::image::corpus::Noise::new(seed + 1);
        let mut chunk = vec![0; CHUNK];
        noise.fill(&mut chunk);
        let mut left = self.options.written.0;
        while left > 0 {
            self.interruption.check()?;
            // Each chunk differs, and making it costs nothing beside writing it.
            chunk[..8].copy_from_slice(&left.to_le_bytes());
            let length = left.min(CHUNK as u64) as usize;
            file.write_all(&chunk[..length]).map_err(io_error("write", path))?;
            left -= length as u64;
        }
        Ok(file)
    }

    /// Commits the whole corpus, then reads it beside plain files, warm and cold.
    fn read(&self, place: &Place, empty: &Stack, report: &mut VolumeReport) -> Result<Stack, BenchError> {
        (self.progress)("writing plain files");
        let plain_dir = self.scratch.directory("plain")?;
        self.corpus.write(&plain_dir, self.interruption)?;
        let plain = Copy::new(&plain_dir, self.corpus, reads::walk(&plain_dir)?);
        (self.progress)("writing the same files to a Volume");
        let mut volume = place.mount("corpus", empty)?;
        self.corpus.write(volume.path(), self.interruption)?;
        let begin = Instant::now();
        let version = volume.take()?;
        let name = format!("commit of {} new files", self.options.files);
        report.singles.push(Single::of(name, "ms", &[begin.elapsed().as_secs_f64() * 1e3], None));
        volume.end()?;

        let volume = place.mount("read", &version)?;
        let mounted = Copy::new(volume.path(), self.corpus, plain.entries());
        let turns = Turns {
            layer: "volume",
            rounds: self.options.rounds,
            interruption: self.interruption,
            progress: self.progress,
        };
        let (comparisons, warmth) = turns.compare(&plain, &mounted)?;
        report.comparisons.extend(comparisons);
        report.warmth.push(warmth);

        (self.progress)("reading weights from disk");
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds.min(5) {
            self.interruption.check()?;
            plain.evict()?;
            theirs.push(plain.read_sequentially()?);
            mounted.evict()?;
            ours.push(mounted.read_sequentially()?);
        }
        report.push_pair("weights from disk, sequential reads", "s", &theirs, &ours, Some(0.95));
        volume.end()?;
        Ok(version)
    }

    /// One small file changed among all.
    fn small_commits(
        &self,
        place: &Place,
        version: &Stack,
        report: &mut VolumeReport,
    ) -> Result<(), BenchError> {
        (self.progress)("committing one changed file");
        let mut volume = place.mount("small", version)?;
        let path = volume.path().join("one-small-file");
        let mut milliseconds = Vec::new();
        for round in 0..SMALL_COMMITS {
            self.interruption.check()?;
            fs::write(&path, format!("{round}{}", "x".repeat(2000))).map_err(io_error("write", &path))?;
            let begin = Instant::now();
            volume.take()?;
            milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let name = format!("commit of 1 changed file among {}", self.options.files);
        report.singles.push(Single::of(name, "ms", &milliseconds, Some(50.0)));
        volume.end()
    }

    /// Two versions in turns, while somebody opens and stats a file of both.
    fn show(&self, place: &Place, version: &Stack, report: &mut VolumeReport) -> Result<(), BenchError> {
        (self.progress)("showing other versions");
        let mut volume = place.mount("other", version)?;
        let path = volume.path().join("watched");
        fs::write(&path, "watched").map_err(io_error("write", &path))?;
        let first = volume.take()?;
        fs::write(&path, "watched again").map_err(io_error("write", &path))?;
        let second = volume.take()?;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (milliseconds, failures, looks) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut looks, mut failures) = (0_u64, 0_u64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    looks += 1;
                    let mut text = String::new();
                    let opened = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
                    failures += u64::from(opened.is_err() || fs::metadata(&path).is_err());
                }
                (failures, looks)
            });
            let mut milliseconds = Vec::new();
            let mut shown = Ok(());
            for round in 0..SHOWS {
                let begin = Instant::now();
                shown = volume.show(if round % 2 == 0 { &first } else { &second });
                if shown.is_err() {
                    break;
                }
                milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let (failures, looks) = reader.join().unwrap_or((1, 0));
            shown.map(|()| (milliseconds, failures, looks))
        })?;
        report.singles.push(Single::of("showing another version".into(), "ms", &milliseconds, Some(10.0)));
        let name = format!("failed opens of {looks} meanwhile");
        report.singles.push(Single::of(name, "", &[failures as f64], Some(0.0)));
        volume.end()
    }

    /// Space on disk of fine-tunes that share most of their bytes with the model they come from.
    fn fine_tunes(&self, place: &Place, empty: &Stack, report: &mut VolumeReport) -> Result<(), BenchError> {
        (self.progress)("storing fine-tunes of one model");
        let size = self.options.written.0 / 8;
        let mut volume = place.mount("tunes", empty)?;
        let model = volume.path().join("model");
        let mut noise = crate::image::corpus::Noise::new(99);
        let mut bytes = vec![0; size as usize];
        noise.fill(&mut bytes);
        fs::write(&model, &bytes).map_err(io_error("write", &model))?;
        let used = || crate::machine::used_disk(&self.options.dir);
        place.sync()?;
        let before = used()?;
        for number in 0..TUNES {
            self.interruption.check()?;
            let path = volume.path().join(format!("tune-{number}"));
            let copied = Command::new("cp").args(["--reflink=auto"]).arg(&model).arg(&path).status();
            copied.map_err(io_error("copy to", &path))?;
            let mut file = File::options().write(true).open(&path).map_err(io_error("open", &path))?;
            noise.fill(&mut bytes[..(size / CHANGED_PART) as usize]);
            file.seek(SeekFrom::Start(number * (size / TUNES / 2)))
                .and_then(|_| file.write_all(&bytes[..(size / CHANGED_PART) as usize]))
                .map_err(io_error("write", &path))?;
        }
        volume.take()?;
        volume.end()?;
        place.sync()?;
        let grown = used()?.saturating_sub(before) as f64;
        let name = format!("{TUNES} fine-tunes that share 90 %: space, in models");
        report.singles.push(Single::of(name, "", &[grown / size as f64], None));
        Ok(())
    }
}

impl VolumeReport {
    fn push_pair(&mut self, name: &str, unit: &'static str, theirs: &[f64], ours: &[f64], aim: Option<f64>) {
        let summaries = Summary::of(theirs).zip(Summary::of(ours)).zip(ratios(theirs, ours));
        self.pairs.extend(
            summaries
                .map(|((plain, volume), ratio)| Pair::new(name.to_owned(), unit, plain, volume, ratio, aim)),
        );
    }
}
