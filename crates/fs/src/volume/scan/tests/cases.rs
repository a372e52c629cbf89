//! One kind of entry, or one danger, at a time.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use homeport_content::{Change, Digest};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::*;

/// `dir/{one,two}` large, `dir/small`, and one file as `links/{a,b}` and `other/c`.
fn base(place: &Place) -> Stack {
    let mut tree = Tree::default();
    for (path, bytes) in [("dir/one", vec![1; 90_000]), ("dir/two", vec![2; 3000]), ("dir/small", vec![3])] {
        tree.insert_leaf(path.as_bytes(), place.file(0o644, &bytes)).unwrap();
    }
    let linked = tree.insert_leaf(b"links/a", place.file(0o644, &[7; 2000])).unwrap();
    tree.insert_link(b"links/b", linked).unwrap();
    tree.insert_link(b"other/c", linked).unwrap();
    place.base(&tree)
}

/// Runs a test on a mount of that.
fn with_base(test: impl Fn(&Mounted<'_>) + Sync) {
    for mapped in [false, true] {
        isolated(|| {
            let place = Place::new(mapped);
            let mounted = place.mount(&base(&place));
            test(&mounted);
            mounted.check("as the mount shows it");
            mounted.finish();
        });
    }
}

/// Long enough for times of files to be told apart.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

fn open_for_writing(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn what_is_opened_for_writing_in_vain_is_no_change() {
    with_base(|mounted| {
        for path in ["dir/one", "dir/two", "dir/small", "links/a", "other/c"] {
            open_for_writing(&mounted.root().join(path));
        }
        assert!(mounted.upper().join("links/a").exists());
        for manner in [Manner::Copy, Manner::Adopt] {
            let delta = mounted.scan(manner).unwrap();
            assert_eq!(paths(&delta), Vec::<String>::new());
            assert_eq!(&delta.root.metadata, mounted.seen.get(b"").unwrap().metadata());
        }
    });
}

#[test]
fn a_changed_file_takes_along_the_names_that_were_not_used() {
    with_base(|mounted| {
        fs::write(mounted.root().join("links/a"), b"new").unwrap();
        let delta = mounted.check("a change by one name");
        assert_eq!(paths(&delta), ["links/", "links/a", "links/b", "other/", "other/c"]);
        assert_eq!(delta.leaves.len(), 1);
        // The name that was used goes, and the change stays under the others.
        fs::remove_file(mounted.root().join("links/a")).unwrap();
        let delta = mounted.check("the name that was used is gone");
        assert_eq!(paths(&delta), ["links/", "links/a removed", "links/b", "other/", "other/c"]);
        assert_eq!(*content(&delta, "other/c"), FileContent::Inline(b"new".as_slice().into()));
    });
}

#[test]
fn a_renamed_directory_keeps_its_links_to_files_elsewhere() {
    with_base(|mounted| {
        fs::rename(mounted.root().join("links"), mounted.root().join("renamed")).unwrap();
        let delta = mounted.check("renamed");
        assert_eq!(
            paths(&delta),
            ["links removed", "other/", "other/c", "renamed/", "renamed/a", "renamed/b"]
        );
        open_for_writing(&mounted.root().join("renamed/b")).write_all_at(b"!", 0).unwrap();
        mounted.check("renamed and changed");
        fs::remove_file(mounted.root().join("renamed/b")).unwrap();
        mounted.check("renamed, changed by a name that is gone");
    });
}

#[test]
fn content_that_came_after_a_rename_counts_and_not_the_redirect() {
    with_base(|mounted| {
        let to = mounted.root().join("other/moved");
        fs::rename(mounted.root().join("dir/one"), &to).unwrap();
        let redirect = |name: &str| lgetxattr(mounted.upper().join("other/moved"), name, &mut [0_u8; 99][..]);
        assert!(redirect("trusted.overlay.metacopy").is_ok());
        let delta = mounted.check("renamed");
        assert_eq!(content(&delta, "other/moved").size(), 90_000);
        open_for_writing(&to).write_all_at(b"!", 5).unwrap();
        assert!(redirect("trusted.overlay.redirect").is_ok());
        assert!(redirect("trusted.overlay.metacopy").is_err());
        let delta = mounted.check("renamed and changed");
        assert_eq!(paths(&delta), ["dir/", "dir/one removed", "other/", "other/moved"]);
    });
}

#[test]
fn sockets_are_left_out_and_hide_what_was_there() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        UnixListener::bind(mounted.root().join("socket")).unwrap();
        fs::remove_file(mounted.root().join("dir/two")).unwrap();
        UnixListener::bind(mounted.root().join("dir/two")).unwrap();
        assert_eq!(paths(&mounted.scan(Manner::Copy).unwrap()), ["dir/", "dir/two removed"]);
        mounted.detach();
    });
}

#[test]
fn flags_of_files_and_what_belongs_to_the_host_are_dropped() {
    with_base(|mounted| {
        let path = mounted.root().join("dir/two");
        lsetxattr(&path, "user.kept", b"1", XattrFlags::empty()).unwrap();
        let flags = |file: &File, flags: libc::c_int| {
            // SAFETY: the call reads an integer, which lives.
            let result =
                unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw const flags) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        let file = File::open(&path).unwrap();
        flags(&file, 0x10);
        assert!(fs::write(&path, b"").is_err());
        let delta = mounted.check("immutable");
        let names: Vec<_> = leaf(&delta, "dir/two").metadata.xattrs.keys().map(|name| &**name).collect();
        assert_eq!(names, [b"user.kept"]);
        flags(&file, 0);
    });
}

#[test]
fn large_holes_are_hashed_without_being_read_and_stay_holes() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let sparse = File::create(mounted.root().join("sparse")).unwrap();
        sparse.set_len(2 << 30).unwrap();
        sparse.write_all_at(b"data", 700 << 20).unwrap();
        drop(sparse);
        for manner in [Manner::Copy, Manner::Adopt] {
            let delta = mounted.scan(manner).unwrap();
            let FileContent::Object { digest, size } = content(&delta, "sparse") else { panic!("inline") };
            assert_eq!(*size, 2 << 30);
            assert_eq!(place.store.verify_object(digest).unwrap(), *size);
            let object = fs::metadata(place.store.object_path(digest)).unwrap();
            assert!(object.blocks() * 512 < 1 << 20, "{} blocks", object.blocks());
        }
        mounted.detach();
    });
}

#[test]
fn what_no_version_can_hold_is_an_error_that_names_it() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        fs::create_dir(mounted.root().join("dir/sub")).unwrap();
        symlink("t".repeat(4050), mounted.root().join("dir/sub/link")).unwrap();
        let error = mounted.scan(Manner::Copy).unwrap_err().to_string();
        assert!(error.contains("`dir/sub/link`") && error.contains("longer than 4000"), "{error}");
        fs::remove_file(mounted.root().join("dir/sub/link")).unwrap();
        mounted.check("without it");
        mounted.detach();
    });
}

/// A mapping that can be written to.
struct Mapping(*mut u8);

impl Mapping {
    fn new(file: &File) -> Mapping {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        Mapping(at.cast())
    }

    fn set(&self, byte: u8) {
        // SAFETY: the mapping is of a page, and lives.
        unsafe { self.0.write_volatile(byte) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is of this size, and nobody has a reference into it.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

#[test]
fn writes_through_a_mapping_are_seen_by_every_scan_though_times_stay() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let path = mounted.root().join("mapped");
        fs::write(&path, [0; 4096]).unwrap();
        let mapping = Mapping::new(&open_for_writing(&path));
        let expect = |byte: u8| {
            let delta = mounted.scan(Manner::Copy).unwrap();
            let mut bytes = vec![0; 4096];
            bytes[0] = byte;
            let FileContent::Object { digest, .. } = content(&delta, "mapped") else { panic!("inline") };
            assert_eq!(*digest, Digest::of(&bytes), "{byte}");
        };
        // Whenever something is written out in between, the next write is seen in the times as well.
        let times_stay = (1..100).step_by(2).any(|byte| {
            mapping.set(byte);
            settle();
            expect(byte);
            let change = || fs::metadata(&path).map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
            let before = change();
            mapping.set(byte + 1);
            expect(byte + 1);
            change() == before
        });
        assert!(times_stay, "else this says nothing");
        mapping.set(2);
        expect(2);
        drop(mapping);
        settle();
        expect(2);
        // Remembered now; somebody else comes.
        Mapping::new(&open_for_writing(&path)).set(3);
        expect(3);
        mounted.detach();
    });
}

#[test]
fn a_file_that_stays_the_same_is_hashed_once() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let path = mounted.root().join("file");
        fs::write(&path, vec![5; 300_000]).unwrap();
        settle();
        let hashed = || {
            let hashed = std::cell::Cell::new(0);
            let batch = place.store.batch().unwrap();
            let contents = Contents::new(&place.store, &batch, Manner::Copy, &mounted.known);
            let upper = mounted.upper();
            let request =
                ScanRequest { upper: &upper, index: None, seen: &mounted.seen, id_map: None, exclude: &[] };
            let delta = scan(request, &contents).unwrap();
            hashed.set(contents.hashed());
            drop(contents);
            batch.publish_with_delta(&delta).unwrap();
            hashed.get()
        };
        assert_eq!(hashed(), 300_000);
        assert_eq!(hashed(), 0);
        open_for_writing(&path).write_all_at(b"!", 9).unwrap();
        assert_eq!(hashed(), 300_000);
        // It was too fresh to be trusted.
        settle();
        assert_eq!(hashed(), 300_000);
        assert_eq!(hashed(), 0);
        mounted.detach();
    });
}

#[test]
fn what_was_taken_is_read_again_only_when_it_has_changed() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let at = |name: &str| mounted.root().join(name);
        for name in ["written", "mode", "attribute", "linked", "small"] {
            fs::write(at(name), vec![5; if name == "small" { 100 } else { 5000 }]).unwrap();
        }
        symlink("target", at("symlink")).unwrap();
        fs::set_permissions(at("dir/one"), fs::Permissions::from_mode(0o600)).unwrap();
        settle();
        mounted.check("the first time");
        let files = || mounted.known_leaves();
        assert_eq!(files(), 7);
        mounted.check("nothing has changed");
        open_for_writing(&at("written")).write_all_at(b"!", 0).unwrap();
        open_for_writing(&at("small")).write_all_at(b"!", 0).unwrap();
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o700)).unwrap();
        lsetxattr(at("attribute"), "user.a", b"1", XattrFlags::empty()).unwrap();
        fs::hard_link(at("linked"), at("dir/link")).unwrap();
        assert_eq!(files(), 2);
        mounted.check("all have changed but two");
        let before = files();
        open_for_writing(&at("dir/one")).write_all_at(b"!", 0).unwrap();
        fs::rename(at("symlink"), at("renamed")).unwrap();
        assert_eq!(files(), before - 2);
        mounted.check("and those");
        mounted.finish();
    });
}

#[test]
fn what_is_adopted_keeps_everything_until_it_is_published() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let path = mounted.root().join("file");
        fs::write(&path, vec![5; 30_000]).unwrap();
        lsetxattr(&path, "user.kept", b"1", XattrFlags::empty()).unwrap();
        chown(&path, Some(5), Some(6)).unwrap();
        let before = observe(&mounted.root());
        let batch = place.store.batch().unwrap();
        let contents = Contents::new(&place.store, &batch, Manner::Adopt, &mounted.known);
        let upper = mounted.upper();
        let request =
            ScanRequest { upper: &upper, index: None, seen: &mounted.seen, id_map: None, exclude: &[] };
        let delta = scan(request, &contents).unwrap();
        let FileContent::Object { digest, .. } = content(&delta, "file") else { panic!("inline") };
        assert_eq!(
            fs::metadata(batch.staged_path(digest).unwrap()).unwrap().ino(),
            fs::metadata(upper.join("file")).unwrap().ino()
        );
        drop(contents);
        drop(batch);
        assert_same(&observe(&mounted.root()), &before, "after a scan that came to nothing");
        assert_eq!(fs::metadata(upper.join("file")).unwrap().nlink(), 1);
        mounted.finish();
    });
}

#[test]
fn a_survey_counts_for_what_nobody_wrote_to_since() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        for name in ["kept", "changed", "cut", "open"] {
            fs::write(mounted.root().join(name), vec![name.as_bytes()[0]; 3 << 20]).unwrap();
        }
        let open = open_for_writing(&mounted.root().join("open"));
        let delta = mounted.scan_with(Manner::Copy, |contents| {
            contents.survey(&mounted.upper(), &mounted.seen).unwrap();
            // Not the one that is open for writing.
            assert_eq!(contents.hashed(), 9 << 20);
            open_for_writing(&mounted.root().join("changed")).write_all_at(b"!", 0).unwrap();
            rustix::fs::ftruncate(open_for_writing(&mounted.root().join("cut")), 2 << 20).unwrap();
            open.write_all_at(b"!", 0).unwrap();
            contents
        });
        let delta = delta.unwrap();
        for name in ["kept", "changed", "cut", "open"] {
            let expected = Digest::of(&fs::read(mounted.root().join(name)).unwrap());
            let FileContent::Object { digest, .. } = content(&delta, name) else { panic!("inline") };
            assert_eq!(*digest, expected, "{name}");
        }
        drop(open);
        mounted.finish();
    });
}

#[test]
fn large_files_that_are_open_can_be_left_for_later() {
    isolated(|| {
        let place = Place::new(false);
        let mounted = place.mount(&base(&place));
        let open = File::create(mounted.root().join("open")).unwrap();
        open.write_all_at(&[1; 50_000], 0).unwrap();
        let changed = open_for_writing(&mounted.root().join("dir/one"));
        changed.write_all_at(b"!", 0).unwrap();
        fs::write(mounted.root().join("closed"), vec![2; 50_000]).unwrap();
        let taken = || {
            let delta =
                mounted.scan_with(Manner::Copy, |contents| contents.leaving_out_open_files_above(10_000));
            paths(&delta.unwrap())
        };
        // Only where they would be copied byte by byte.
        if reflink::shares_blocks(place.dir.path()) {
            assert_eq!(taken(), ["closed", "dir/", "dir/one", "open"]);
        } else {
            assert_eq!(taken(), ["closed"]);
        }
        drop((open, changed));
        assert_eq!(taken(), ["closed", "dir/", "dir/one", "open"]);
        mounted.finish();
    });
}

#[test]
fn whole_directories_that_are_replaced_say_each_name_that_is_gone() {
    with_base(|mounted| {
        fs::remove_dir_all(mounted.root().join("dir")).unwrap();
        fs::create_dir(mounted.root().join("dir")).unwrap();
        fs::write(mounted.root().join("dir/new"), b"new").unwrap();
        let delta = mounted.check("made anew");
        let expected = ["dir/", "dir/new", "dir/one removed", "dir/small removed", "dir/two removed"];
        assert_eq!(paths(&delta), expected);
        fs::remove_dir_all(mounted.root().join("other")).unwrap();
        fs::write(mounted.root().join("other"), b"a file").unwrap();
        let delta = mounted.check("a file in place of a directory");
        assert!(matches!(delta.get(b"other"), Some(Change::Leaf(_))));
    });
}
