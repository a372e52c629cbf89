//! A disk under a real file system: what was synced is there after any crash.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use homeport_crashdisk::{CrashDisk, Journal, LoopDevice, Mounted};
use rand::SeedableRng;

const BYTES: u64 = 64 << 20;
const FILES: u64 = 12;

fn format(device: &Path) {
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(device).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A disk on which files were written one after the other, each synced with its directory.
fn history(sync: bool) -> Journal {
    let disk = CrashDisk::create(BYTES).unwrap();
    format(disk.device());
    let place = tempfile::tempdir().unwrap();
    let mounted = Mounted::mount(disk.device(), "ext4", place.path()).unwrap();
    for number in 0..FILES {
        let path = mounted.path().join(number.to_string());
        let mut file = File::create(&path).unwrap();
        file.write_all(&content(number)).unwrap();
        if sync {
            file.sync_all().unwrap();
            File::open(mounted.path()).unwrap().sync_all().unwrap();
        }
        disk.note(number);
    }
    drop(mounted);
    disk.journal()
}

fn content(number: u64) -> Vec<u8> {
    vec![number as u8 + 1; 20_000 + number as usize]
}

/// Numbers of promised files that are missing or damaged after a crash at each of the last points.
fn broken_promises(journal: &Journal) -> usize {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("image");
    let image = File::create_new(&path).unwrap();
    image.set_len(journal.bytes()).unwrap();
    let points = journal.crash_points();
    let first = points.iter().position(|point| !journal.promises(*point).is_empty()).unwrap();
    let (mut at, mut broken) = (0, 0);
    for (seed, point) in points[first..].iter().enumerate() {
        let safe = journal.safe_point(*point);
        journal.advance(&image, at, safe).unwrap();
        at = safe;
        let crashed = place.path().join("crashed");
        fs::copy(&path, &crashed).unwrap();
        let file = File::options().write(true).open(&crashed).unwrap();
        journal.crash(&file, *point, &mut rand::rngs::StdRng::seed_from_u64(seed as u64)).unwrap();
        drop(file);
        let device = LoopDevice::attach(&crashed).unwrap();
        let target = tempfile::tempdir().unwrap();
        let mounted = Mounted::mount(device.path(), "ext4", target.path()).unwrap();
        for number in journal.promises(*point) {
            let found = fs::read(mounted.path().join(number.to_string()));
            broken += usize::from(found.ok() != Some(content(number)));
        }
    }
    broken
}

#[test]
fn synced_files_survive_every_crash() {
    assert_eq!(broken_promises(&history(true)), 0);
}

#[test]
fn files_that_were_not_synced_do_not() {
    assert!(broken_promises(&history(false)) > 0, "this disk forgets nothing: it tests nothing");
}
