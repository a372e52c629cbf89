use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt;

use super::*;

fn nothing(_: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// Bytes without a pattern that a group could repeat.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

const G: usize = GROUP as usize;

#[test]
fn the_digest_is_that_of_the_bytes_for_every_shape_of_the_tree() {
    let all = bytes(40 * G, 1);
    let sizes =
        [0, 1, 1023, 1025, G - 1, G, G + 1, 2 * G, 2 * G + 5, 3 * G, 5 * G + 1024, 16 * G + 1, 40 * G - 7];
    for size in sizes {
        let expected = Digest::of(&all[..size]);
        assert_eq!(Outboard::of(&file(&all[..size]), &nothing).unwrap().digest(), expected, "{size}");
    }
}

/// Gives a few bytes at a time.
struct Dripping<'a>(&'a [u8]);

impl io::Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = buffer.len().min(self.0.len()).min(70_001);
        let (now, later) = self.0.split_at(part);
        buffer[..part].copy_from_slice(now);
        self.0 = later;
        Ok(part)
    }
}

#[test]
fn what_is_hashed_while_it_is_written_is_what_was_written() {
    let all = bytes((13 << 20) + 77, 2);
    let block = 1 << 20;
    let sizes = [0, 1, G, G + 1, block - 1, block, block + 1, 5 * block, 5 * block + 1, 6 * block, all.len()];
    for size in sizes {
        let mut written = tempfile::tempfile().unwrap();
        let (head, rest) = all[..size].split_at(size.min(512));
        let Ok(outboard) = copy(head, &mut Dripping(rest), &mut written) else { panic!("{size}") };
        assert_eq!(outboard.digest(), Digest::of(&all[..size]), "{size}");
        assert!(outboard == Outboard::of(&written, &nothing).unwrap(), "{size}");
    }
}

#[test]
fn a_source_that_fails_is_told_from_a_disk_that_does() {
    struct Failing(u64);
    impl io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("no more"))?;
            Ok(buffer.len())
        }
    }
    for blocks in [0, 2, 20] {
        let mut file = tempfile::tempfile().unwrap();
        assert!(matches!(copy(b"", &mut Failing(blocks), &mut file), Err(CopyError::Read(_))));
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        assert!(matches!(
            copy(b"x", &mut io::repeat(1).take(blocks << 20), &mut full),
            Err(CopyError::Write(_))
        ));
    }
}

#[test]
fn several_threads_and_holes_give_the_digest_of_the_bytes() {
    let mut all = vec![0; 40 << 20];
    for (at, seed) in [(3 << 20, 2), ((17 << 20) + 4096, 3), ((39 << 20) + 8192, 4)] {
        all[at..at + 200_000].copy_from_slice(&bytes(200_000, seed));
    }
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(all.len() as u64).unwrap();
    for (number, part) in all.chunks(4096).enumerate().filter(|(_, part)| part.iter().any(|byte| *byte != 0))
    {
        sparse.write_all_at(part, number as u64 * 4096).unwrap();
    }
    assert_eq!(Outboard::of(&sparse, &nothing).unwrap().digest(), Digest::of(&all));
    sparse.set_len(3 << 30).unwrap();
    sparse.set_len(all.len() as u64 + 5).unwrap();
    all.resize(all.len() + 5, 0);
    assert_eq!(Outboard::of(&sparse, &nothing).unwrap().digest(), Digest::of(&all));
}

#[test]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges, most of them with one")]
fn changes_read_only_what_is_not_equal() {
    let old = bytes(20 * G + 100, 5);
    let outboard = Outboard::of(&file(&old), &nothing).unwrap();
    let grow = |by: usize| [&old[..], &bytes(by, 6)].concat();
    let patched = |at: usize| {
        let mut new = old.clone();
        new[at..at + 10].copy_from_slice(&bytes(10, 7));
        new
    };
    let cases = [
        (old.clone(), vec![0..old.len()], 0),
        (patched(5 * G + 3), vec![0..5 * G, 5 * G + 4096..old.len()], 1),
        (patched(20 * G + 50), vec![0..20 * G], 1),
        (grow(1), vec![0..old.len()], 1),
        (grow(3 * G), vec![0..old.len()], 4),
        (old[..7 * G].to_vec(), vec![0..7 * G], 0),
        (old[..7 * G + 1].to_vec(), vec![0..7 * G + 1], 1),
        (old[..10].to_vec(), vec![0..10], 1),
        // Not said to be equal, so not taken to be.
        (old.clone(), vec![], 21),
        (old.clone(), vec![3 * G + 1..5 * G + 1], 20),
    ];
    for (number, (new, equal, groups)) in cases.into_iter().enumerate() {
        let equal: Vec<_> = equal.into_iter().map(|range| range.start as u64..range.end as u64).collect();
        let read = std::sync::atomic::AtomicU64::new(0);
        let count = |range: Range<u64>| {
            read.fetch_add((range.end - range.start).div_ceil(GROUP), std::sync::atomic::Ordering::Relaxed);
            Ok(())
        };
        let changed = outboard.with_changes(&file(&new), new.len() as u64, &equal, &count).unwrap();
        assert_eq!(changed.digest(), Digest::of(&new), "case {number}");
        assert_eq!(read.into_inner(), groups, "case {number}");
    }
}

#[test]
fn hashing_ends_with_the_error_of_who_looks_on() {
    let large = tempfile::tempfile().unwrap();
    large.set_len(64 << 20).unwrap();
    let stop = |range: Range<u64>| match range.start {
        0 => Err(io::Error::other("enough")),
        _ => Ok(()),
    };
    assert_eq!(Outboard::of(&large, &stop).unwrap_err().to_string(), "enough");
}

#[test]
fn a_kept_outboard_is_found_unless_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let outboard = Outboard::of(&file(&bytes(MIN_SIZE as usize + 9, 8)), &nothing).unwrap();
    let digest = outboard.digest();
    assert_eq!(store.outboard(&digest), None);
    store.keep_outboard(&outboard);
    assert_eq!(store.outboard(&digest), Some(outboard));
    let place = store.place("outboards", &digest);
    let mut damaged = fs::read(&place).unwrap();
    damaged[40] ^= 1;
    for broken in [&damaged[..], &damaged[..100], b""] {
        fs::write(&place, broken).unwrap();
        assert_eq!(store.outboard(&digest), None);
    }
}

#[test]
fn small_contents_have_no_outboard_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.keep_outboard(&Outboard::of(&file(&bytes(3 * G, 9)), &nothing).unwrap());
    assert!(!dir.path().join("outboards").exists());
}
