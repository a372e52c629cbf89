//! On a file system that shares blocks.

use std::process::Command;

use super::*;

/// An XFS file system in a file, mounted in the mount namespace of the test.
pub(super) struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk::sized(3 << 30)
    }

    pub(super) fn sized(bytes: u64) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&mount).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let output = Command::new(program).args(arguments).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}; see scripts/packages.sh"));
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run("mkfs.xfs", &[Path::new("-q"), &image]);
        run("mount", &[Path::new("-o"), Path::new("loop"), &image, &mount]);
        Disk { dir }
    }

    pub(super) fn place(&self) -> Place {
        Place::within(tempfile::tempdir_in(self.dir.path().join("mount")).unwrap(), false)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its device goes with it.
        let _ = rustix::mount::unmount(self.dir.path().join("mount"), rustix::mount::UnmountFlags::DETACH);
    }
}

pub(super) fn shares_blocks(dir: &Path) -> bool {
    let store = Store::open(&dir.join("probe")).unwrap();
    let batch = store.batch().unwrap();
    let known = Known::default();
    !Contents::new(&store, &batch, Manner::Copy, &known).copies_bytes()
}

/// Scans with a count of the bytes that were hashed.
fn hashed(mounted: &Mounted<'_>, manner: Manner, survey: bool) -> (Delta, u64) {
    let (place, upper) = (mounted.place, mounted.upper());
    let batch = place.store.batch().unwrap();
    let contents = Contents::new(&place.store, &batch, manner, &mounted.known);
    if survey {
        contents.survey(&upper, &mounted.seen).unwrap();
    }
    let request = ScanRequest { upper: &upper, index: None, seen: &mounted.seen, id_map: None, exclude: &[] };
    let delta = scan(request, &contents).unwrap();
    let hashed = contents.hashed();
    drop(contents);
    batch.publish_with_delta(&delta).unwrap();
    (delta, hashed)
}

const SIZE: u64 = (48 << 20) + 777;

/// Bytes that are all different.
fn bytes(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    bytes.chunks_mut(8).enumerate().for_each(|(number, part)| {
        let number = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        part.iter_mut().zip(number).for_each(|(byte, value)| *byte = value ^ seed);
    });
    bytes
}

/// A version with a large file that came from a mount, and so has an outboard.
fn with_large_file(place: &Place) -> Stack {
    let mounted = place.mount(&place.base(&Tree::default()));
    fs::write(mounted.root().join("large"), bytes(0)).unwrap();
    mounted.finish()
}

#[track_caller]
fn expect(place: &Place, delta: &Delta, expected: &[u8]) {
    let FileContent::Object { digest, size } = content(delta, "large") else { panic!("inline") };
    assert_eq!((*digest, *size), (homeport_content::Digest::of(expected), expected.len() as u64));
    assert_eq!(place.store.verify_object(digest).unwrap(), *size);
}

#[test]
fn a_small_change_of_a_large_file_is_hashed_and_not_the_rest() {
    use std::os::unix::fs::FileExt;
    isolated(|| {
        let disk = Disk::new();
        let place = disk.place();
        let stack = with_large_file(&place);
        for (manner, survey) in [(Manner::Copy, false), (Manner::Copy, true), (Manner::Adopt, false)] {
            let mounted = place.mount(&stack);
            let path = mounted.root().join("large");
            let open = || File::options().write(true).open(&path).unwrap();
            drop(open());
            let (delta, count) = hashed(&mounted, Manner::Copy, survey);
            assert_eq!((paths(&delta).len(), count), (0, 0), "opened in vain");

            let mut expected = bytes(0);
            open().write_all_at(b"a patch", 30 << 20).unwrap();
            open().write_all_at(b"more", SIZE).unwrap();
            expected[30 << 20..(30 << 20) + 7].copy_from_slice(b"a patch");
            expected.extend(b"more");
            let (delta, count) = hashed(&mounted, manner, survey);
            expect(&place, &delta, &expected);
            assert!(count <= 4 * 65_536, "{manner:?}, {survey}: {count} bytes");
            if manner == Manner::Copy {
                // Once more, against what was taken before.
                let writer = open();
                writer.write_all_at(b"!", 3 << 20).unwrap();
                expected[3 << 20] = b'!';
                let (delta, count) = hashed(&mounted, manner, survey);
                expect(&place, &delta, &expected);
                assert!(count <= 4 * 65_536, "{survey}: {count} bytes");
            }
            mounted.detach();
        }
    });
}

#[test]
fn without_an_outboard_all_is_hashed_and_right() {
    use std::os::unix::fs::FileExt;
    isolated(|| {
        let disk = Disk::new();
        let place = disk.place();
        let stack = with_large_file(&place);
        fs::remove_dir_all(place.store.dir().join("outboards")).unwrap();
        let mounted = place.mount(&stack);
        let file = File::options().write(true).open(mounted.root().join("large")).unwrap();
        file.write_all_at(b"a patch", 99).unwrap();
        let (delta, count) = hashed(&mounted, Manner::Copy, false);
        let mut expected = bytes(0);
        expected[99..106].copy_from_slice(b"a patch");
        expect(&place, &delta, &expected);
        assert_eq!(count, SIZE);
        drop(file);
        mounted.detach();
    });
}

#[test]
fn copies_take_no_space_and_lists_of_access_come_once() {
    use std::os::unix::fs::FileExt;
    isolated(|| {
        let disk = Disk::new();
        let place = disk.place();
        let stack = with_large_file(&place);
        let mounted = place.mount(&stack);
        let path = mounted.root().join("large");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut acl = vec![2, 0, 0, 0];
        for (tag, rights, id) in
            [(1_u16, 6_u16, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
        {
            acl.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        let name = "system.posix_acl_access";
        rustix::fs::lsetxattr(&path, name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(b"!", 5).unwrap();
        let free = || rustix::fs::statvfs(place.dir.path()).unwrap().f_bfree * 4096;
        rustix::fs::sync();
        let before = free();
        let (delta, _) = hashed(&mounted, Manner::Copy, false);
        rustix::fs::sync();
        assert!(before.saturating_sub(free()) < 4 << 20, "{} bytes", before - free());
        let attributes: Vec<_> = leaf(&delta, "large").metadata.xattrs.keys().map(|name| &**name).collect();
        assert_eq!(attributes, [name.as_bytes()]);
        mounted.detach();
    });
}
