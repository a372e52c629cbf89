//! A large image, mounted as the root of a container, beside the same files on the plain file
//! system.
//!
//! The same files exist as plain files, as objects below an EROFS image and as links to copies of the
//! objects (the fallback). Each form is compared with the plain files in turns, A B A B, after
//! both were read once, from disk, by the same access: the state of an image on a machine that
//! serves from it.

pub(crate) mod corpus;
mod mapping;
pub(crate) mod reads;
pub(crate) mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use homeport_content::{FileContent, LeafKind, SnapshotId};
use homeport_fs::{BackendChoice, MountRequest, SnapshotFs, WritableLayer};
use homeport_store::Store;

use crate::BenchError;
use crate::error::io_error;
use crate::interruption::Interruption;
use crate::machine::{self, ByteCount, Machine};
use crate::mounts::with_private_mounts;
use crate::scratch::Scratch;
use crate::statistics::{Summary, ratios};

use corpus::Corpus;
use reads::Copy;
use report::{Aim, Comparison, ImageReport, MountReport, Warmth};

/// Times that a mount is made.
const MOUNTS: usize = 20;
/// Least speed of warm reads of weights, beside plain files.
const AIM: f64 = 0.95;
/// Bytes that a small file takes on disk beyond its content, or an entry in the kernel's memory.
const ENTRY_OVERHEAD: u64 = 8 << 10;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Files of the image.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: ByteCount,
    /// Directory on the file system to measure; it must exist. Everything is written below a new
    /// directory in it, which is removed at the end.
    pub dir: PathBuf,
    /// Turns of each access.
    pub rounds: usize,
}

/// Runs the benchmark. Needs root. Says what it is doing through `progress`.
///
/// SIGINT, SIGTERM and SIGHUP end it with [`BenchError::Interrupted`], after cleaning up.
pub fn run_image(
    options: &ImageOptions,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<ImageReport, BenchError> {
    let corpus = Corpus::plan(options.files, options.bytes.0)?;
    let interruption = Interruption::catch()?;
    let scratch = Scratch::create(&options.dir)?;
    check_room(options)?;
    let run = Run { options, corpus: &corpus, scratch: &scratch, interruption: &interruption, progress };
    let report = with_private_mounts(|| run.all());
    progress("removing the files");
    let removed = scratch.remove();
    let report = report?;
    removed?;
    Ok(report)
}

/// Plain files, objects and the copies of the fallback are on disk together; of them two at a
/// time in the page cache.
fn check_room(options: &ImageOptions) -> Result<(), BenchError> {
    let one = options.bytes.0.saturating_add(options.files.saturating_mul(ENTRY_OVERHEAD));
    let needed = one.saturating_mul(3);
    let free = machine::free_disk(&options.dir)?;
    if needed > free {
        return Err(BenchError::NotEnoughDisk {
            needed: ByteCount(needed),
            dir: options.dir.clone(),
            free: ByteCount(free),
        });
    }
    let needed = one.saturating_mul(2);
    let available = machine::available_memory()?;
    if needed > available {
        return Err(BenchError::NotEnoughMemory {
            needed: ByteCount(needed),
            available: ByteCount(available),
        });
    }
    Ok(())
}

/// One form of lower layer.
#[derive(Debug, Clone, Copy)]
struct Form {
    choice: BackendChoice,
    name: &'static str,
}

const FORMS: [Form; 2] = [
    Form { choice: BackendChoice::Erofs, name: "erofs" },
    Form { choice: BackendChoice::Linked, name: "linked" },
];

/// One kind of access: how it is timed, and what is shown of the time.
struct Measure {
    name: &'static str,
    unit: &'static str,
    seconds: fn(&Copy) -> Result<f64, BenchError>,
    figure: fn(&Copy, f64) -> f64,
    aim: Option<f64>,
}

const MEASURES: [Measure; 6] = [
    Measure {
        name: "weights, sequential 1 MiB reads",
        unit: "GB/s",
        seconds: Copy::read_sequentially,
        figure: gigabytes_a_second,
        aim: Some(AIM),
    },
    Measure {
        name: "weights, mmap, tensors copied",
        unit: "GB/s",
        seconds: Copy::load_tensors,
        figure: gigabytes_a_second,
        aim: Some(AIM),
    },
    Measure {
        name: "weights, mmap at 2 MiB, tensors copied",
        unit: "GB/s",
        seconds: Copy::load_tensors_aligned,
        figure: gigabytes_a_second,
        aim: None,
    },
    Measure {
        name: "weights, mmap, pages touched",
        unit: "GB/s",
        seconds: Copy::touch_pages,
        figure: gigabytes_a_second,
        aim: None,
    },
    Measure {
        name: "small files, open+read+close",
        unit: "us/file",
        seconds: Copy::read_small_files,
        figure: |copy, seconds| seconds * 1e6 / copy.opened() as f64,
        aim: None,
    },
    Measure {
        name: "whole tree, readdir+lstat",
        unit: "us/entry",
        seconds: Copy::walk,
        figure: |copy, seconds| seconds * 1e6 / copy.entries() as f64,
        aim: None,
    },
];

fn gigabytes_a_second(copy: &Copy, seconds: f64) -> f64 {
    copy.large_bytes() as f64 / seconds / 1e9
}

struct Run<'a> {
    options: &'a ImageOptions,
    corpus: &'a Corpus,
    scratch: &'a Scratch,
    interruption: &'a Interruption,
    progress: &'a (dyn Fn(&str) + Sync),
}

impl Run<'_> {
    fn all(&self) -> Result<ImageReport, BenchError> {
        let machine = Machine::of(&self.options.dir)?;
        let plain_dir = self.scratch.directory("plain")?;
        (self.progress)("writing plain files");
        self.corpus.write(&plain_dir, self.interruption)?;
        let plain = Copy::new(&plain_dir, self.corpus, reads::walk(&plain_dir)?);

        (self.progress)("writing the same files into a store");
        let store_dir = self.scratch.directory("store")?;
        let begin = Instant::now();
        let store = Store::open(&store_dir)?;
        let snapshot = self.corpus.import(&plain_dir, &store, self.interruption)?;
        let mut report = ImageReport {
            machine,
            files: self.options.files,
            entries: plain.entries(),
            bytes: self.options.bytes.0,
            large_bytes: self.corpus.large_bytes(),
            import_seconds: begin.elapsed().as_secs_f64(),
            mounts: Vec::new(),
            comparisons: Vec::new(),
            warmth: Vec::new(),
        };
        let objects = large_objects(&store, &snapshot)?;
        drop(store);
        for form in FORMS {
            self.interruption.check()?;
            let fs_dir = self.scratch.directory(form.name)?;
            let target = self.scratch.directory(&format!("root-{}", form.name))?;
            (self.progress)(&format!("making the image mountable ({})", form.name));
            let (build_seconds, image_bytes) = build(&store_dir, &fs_dir, form, &snapshot)?;

            // As a process does that was started anew.
            let store = Arc::new(Store::open(&store_dir)?);
            let fs = SnapshotFs::open(store, &fs_dir, form.choice)?;
            let first_mount_seconds = mount_once(&fs, &snapshot, &target)?.0;
            let (mut mounts, mut unmounts) = (Vec::new(), Vec::new());
            for _ in 0..MOUNTS {
                self.interruption.check()?;
                let (mount, unmount) = mount_once(&fs, &snapshot, &target)?;
                mounts.push(mount);
                unmounts.push(unmount);
            }
            report.mounts.extend(Summary::of(&mounts).zip(Summary::of(&unmounts)).map(|(mount, unmount)| {
                MountReport {
                    backend: form.name,
                    build_seconds,
                    image_bytes,
                    first_mount_seconds,
                    mount_seconds: mount,
                    unmount_seconds: unmount,
                }
            }));

            // What is cached now was left by the writing. Only what is read again may count, so
            // that both sides are cached in the same way, and no third copy takes memory.
            fs.store().sync()?;
            reads::evict(objects.iter().map(PathBuf::as_path))?;
            let layer = fs.new_layer("bench")?;
            let mount = fs.mount(request(&snapshot, Some(&layer), &target))?;
            self.compare(&mut report, form, &plain, &target)?;
            mount.unmount()?;
            layer.discard()?;
        }
        Ok(report)
    }

    /// Reads plain files and the mounted image in turns.
    fn compare(
        &self,
        report: &mut ImageReport,
        form: Form,
        plain: &Copy,
        target: &Path,
    ) -> Result<(), BenchError> {
        let mounted = Copy::new(target, self.corpus, plain.entries());
        let turns = Turns {
            layer: form.name,
            rounds: self.options.rounds,
            interruption: self.interruption,
            progress: self.progress,
        };
        let (comparisons, warmth) = turns.compare(plain, &mounted)?;
        report.comparisons.extend(comparisons);
        report.warmth.push(warmth);
        Ok(())
    }
}

/// How two copies of the files are read in turns.
pub(crate) struct Turns<'a> {
    /// What the mounted copy is on.
    pub(crate) layer: &'static str,
    pub(crate) rounds: usize,
    pub(crate) interruption: &'a Interruption,
    pub(crate) progress: &'a (dyn Fn(&str) + Sync),
}

impl Turns<'_> {
    /// Times every kind of access on both, warm.
    pub(crate) fn compare(
        &self,
        plain: &Copy,
        mounted: &Copy,
    ) -> Result<(Vec<Comparison>, Warmth), BenchError> {
        plain.evict()?;
        mounted.evict()?;
        plain.read_sequentially()?;
        mounted.read_sequentially()?;
        let mut warmth =
            Warmth { backend: self.layer, plain: plain.cached_share()?, mounted: mounted.cached_share()? };
        let mut comparisons = Vec::new();
        for measure in &MEASURES {
            (self.progress)(&format!("{} ({})", measure.name, self.layer));
            let (mut plain_seconds, mut mounted_seconds) = (Vec::new(), Vec::new());
            for round in 0..=self.rounds {
                self.interruption.check()?;
                let times = ((measure.seconds)(plain)?, (measure.seconds)(mounted)?);
                // The first turn fills the kernel's caches of names.
                if round > 0 {
                    plain_seconds.push(times.0);
                    mounted_seconds.push(times.1);
                }
            }
            let figures = |copy: &Copy, seconds: &[f64]| {
                let figures: Vec<f64> =
                    seconds.iter().map(|seconds| (measure.figure)(copy, *seconds)).collect();
                Summary::of(&figures)
            };
            let summaries = figures(plain, &plain_seconds)
                .zip(figures(mounted, &mounted_seconds))
                .zip(ratios(&plain_seconds, &mounted_seconds));
            comparisons.extend(summaries.map(|((plain, mounted), ratio)| Comparison {
                measure: measure.name,
                backend: self.layer,
                unit: measure.unit,
                plain,
                mounted,
                ratio,
                aim: measure.aim.map(|at_least| Aim { at_least, reached: ratio.median >= at_least }),
            }));
        }
        warmth.plain = warmth.plain.min(plain.cached_share()?);
        warmth.mounted = warmth.mounted.min(mounted.cached_share()?);
        Ok((comparisons, warmth))
    }
}

/// Seconds to make the snapshot mountable, and the size of its image if that is one file.
fn build(
    store_dir: &Path,
    fs_dir: &Path,
    form: Form,
    snapshot: &SnapshotId,
) -> Result<(f64, Option<u64>), BenchError> {
    let store = Arc::new(Store::open(store_dir)?);
    // A server has just committed the tree, and remembers it.
    store.tree(snapshot)?;
    let fs = SnapshotFs::open(store, fs_dir, form.choice)?;
    let begin = Instant::now();
    let image = fs.prepare(snapshot)?;
    let seconds = begin.elapsed().as_secs_f64();
    let found = std::fs::metadata(&image).map_err(io_error("look at", &image))?;
    Ok((seconds, found.is_file().then_some(found.len())))
}

/// Seconds of a mount with a fresh writable layer, and of its unmount.
fn mount_once(fs: &SnapshotFs, snapshot: &SnapshotId, target: &Path) -> Result<(f64, f64), BenchError> {
    let begin = Instant::now();
    let layer = fs.new_layer("bench")?;
    let mount = fs.mount(request(snapshot, Some(&layer), target))?;
    let mounted = Instant::now();
    mount.unmount()?;
    let unmounted = Instant::now();
    layer.discard()?;
    Ok(((mounted - begin).as_secs_f64(), (unmounted - mounted).as_secs_f64()))
}

fn request<'a>(
    snapshot: &'a SnapshotId,
    layer: Option<&'a WritableLayer>,
    target: &'a Path,
) -> MountRequest<'a> {
    MountRequest { lowers: std::slice::from_ref(snapshot), layer, target, id_map: None }
}

/// The objects of files of more than a few megabytes.
fn large_objects(store: &Store, snapshot: &SnapshotId) -> Result<Vec<PathBuf>, BenchError> {
    let tree = store.tree(snapshot)?;
    let large = tree.leaves.iter().filter_map(|leaf| match &leaf.kind {
        LeafKind::File(FileContent::Object { digest, size }) if *size > 4 << 20 => Some(digest),
        _ => None,
    });
    Ok(large.map(|digest| store.object_path(digest)).collect())
}
