//! Storms of small files: made, looked at, listed and removed, on a Volume, on the plain file
//! system, and on an overlay without anything of ours.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use homeport_content::Stack;

use super::VolumeOptions;
use super::mounted::Place;
use super::report::Pair;
use crate::BenchError;
use crate::error::io_error;
use crate::interruption::Interruption;
use crate::statistics::{Summary, ratios};

/// Files of one directory of a storm.
const OF_A_DIRECTORY: u64 = 1000;
const STEPS: [&str; 4] = ["create", "stat", "list", "delete"];

/// Each step on a Volume beside each peer.
pub(super) fn all(
    place: &Place,
    empty: &Stack,
    scratch: &Path,
    options: &VolumeOptions,
    interruption: &Interruption,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Pair>, BenchError> {
    let (plain, overlay) = (scratch.join("plain"), Overlay::mount(scratch)?);
    fs::create_dir(&plain).map_err(io_error("make the directory", &plain))?;
    let volume = place.mount("storm", empty)?;
    let (mut theirs, mut overlays, mut ours) =
        ([const { Vec::new() }; 4], [const { Vec::new() }; 4], [const { Vec::new() }; 4]);
    for round in 0..options.rounds.min(3) {
        progress(&format!("{} small files, turn {}", options.files, round + 1));
        for (root, times) in [
            (plain.as_path(), &mut theirs),
            (overlay.path.as_path(), &mut overlays),
            (volume.path(), &mut ours),
        ] {
            interruption.check()?;
            for (step, seconds) in
                storm(&root.join(format!("storm-{round}")), options.files)?.into_iter().enumerate()
            {
                times[step].push(seconds * 1e6 / options.files as f64);
            }
        }
    }
    volume.end()?;
    drop(overlay);
    let mut pairs = Vec::new();
    for (step, name) in STEPS.iter().enumerate() {
        for (peer, peers) in [("plain", &theirs[step]), ("plain overlay", &overlays[step])] {
            let summaries = Summary::of(peers).zip(Summary::of(&ours[step])).zip(ratios(peers, &ours[step]));
            pairs.extend(summaries.map(|((plain, volume), ratio)| {
                Pair::new(format!("{name} a small file, beside {peer}"), "us", plain, volume, ratio, None)
            }));
        }
    }
    Ok(pairs)
}

/// Seconds of each step.
fn storm(root: &Path, files: u64) -> Result<[f64; 4], BenchError> {
    let paths: Vec<_> = (0..files)
        .map(|number| root.join((number / OF_A_DIRECTORY).to_string()).join(number.to_string()))
        .collect();
    let directories: Vec<_> =
        (0..files.div_ceil(OF_A_DIRECTORY)).map(|number| root.join(number.to_string())).collect();
    let mut seconds = [0.0; 4];
    let mut timed = |step: usize, work: &dyn Fn() -> Result<(), BenchError>| {
        let begin = Instant::now();
        work()?;
        seconds[step] = begin.elapsed().as_secs_f64();
        Ok::<_, BenchError>(())
    };
    timed(0, &|| {
        for directory in &directories {
            fs::create_dir_all(directory).map_err(io_error("make the directory", directory))?;
        }
        paths.iter().try_for_each(|path| File::create(path).map(drop).map_err(io_error("create", path)))
    })?;
    timed(1, &|| {
        paths.iter().try_for_each(|path| fs::metadata(path).map(drop).map_err(io_error("look at", path)))
    })?;
    timed(2, &|| {
        for directory in &directories {
            let entries = fs::read_dir(directory).map_err(io_error("list", directory))?;
            entries.count();
        }
        Ok(())
    })?;
    timed(3, &|| fs::remove_dir_all(root).map_err(io_error("remove", root)))?;
    Ok(seconds)
}

/// An overlay with one empty lower layer, as `mount` makes it.
struct Overlay {
    path: std::path::PathBuf,
}

impl Overlay {
    fn mount(scratch: &Path) -> Result<Overlay, BenchError> {
        let part = |name: &str| {
            let path = scratch.join(name);
            fs::create_dir(&path).map_err(io_error("make the directory", &path)).map(|()| path)
        };
        let (lower, upper, work, path) = (part("lower")?, part("upper")?, part("work")?, part("overlay")?);
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options)
            .map_err(|error| io_error("mount an overlay at", &path)(std::io::Error::other(error)))?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &path, "overlay", flags, options.as_c_str())
            .map_err(io_error("mount an overlay at", &path))?;
        Ok(Overlay { path })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // The namespace, and the mount with it, ends with the benchmark in any case.
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
    }
}
