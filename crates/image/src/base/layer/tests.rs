use std::collections::{BTreeMap, BTreeSet};

use homeport_content::{FileContent, Timestamp};
use homeport_store::Store;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header.set_size(0);
    header
}

/// A layer from lines: `path` (a file holding its own path), `path/`, `path -> symlink`, `path = hard link`.
fn layer(lines: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for line in lines {
        if let Some((path, target)) = line.split_once(" -> ") {
            let mut header = header(EntryType::Symlink, 0o777);
            builder.append_link(&mut header, path, target).unwrap();
        } else if let Some((path, target)) = line.split_once(" = ") {
            let mut header = header(EntryType::Link, 0o644);
            builder.append_link(&mut header, path, target).unwrap();
        } else if line.ends_with('/') {
            builder.append_data(&mut header(EntryType::Directory, 0o750), line, io::empty()).unwrap();
        } else {
            let mut header = header(EntryType::Regular, 0o4755);
            header.set_size(line.len() as u64);
            builder.append_data(&mut header, line, line.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn layered(layers: &[Vec<u8>]) -> Result<Tree, LayerError> {
    layered_within(layers, Limits::default())
}

fn layered_within(layers: &[Vec<u8>], limits: Limits) -> Result<Tree, LayerError> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let batch = store.batch().unwrap();
    let mut layering = Layering::new(&batch, limits);
    layers.iter().try_for_each(|layer| layering.apply(layer.as_slice()))?;
    Ok(layering.finish())
}

fn names(tree: &Tree) -> Vec<String> {
    tree.walk().map(|(path, _)| shown(&path)).collect()
}

#[test]
fn metadata_is_kept_and_later_layers_replace() {
    let tree = layered(&[
        layer(&["./", "./bin/", "./bin/su", "etc/conf", "d/x", "f"]),
        layer(&["etc/conf/", "d", "f -> bin/su"]),
    ])
    .unwrap();
    let su = tree.get(b"bin/su").unwrap().metadata();
    assert_eq!((su.mode, su.uid, su.gid), (0o4755, 7, 8));
    assert_eq!(su.mtime, Timestamp { seconds: 9, nanos: 0 });
    assert_eq!(tree.root.metadata.mode, 0o750);
    assert_eq!(names(&tree), ["bin", "bin/su", "d", "etc", "etc/conf", "f"]);
    // A parent that no layer has.
    assert_eq!(tree.get(b"etc").unwrap().metadata().mode, 0o755);
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    let lower = layer(&["a/x", "a/y", "b/z", "b/c/w", "gone"]);
    let before = layer(&["a/.wh..wh..opq", "a/new", "b/c/mine", ".wh.b", ".wh.gone", ".wh.never"]);
    let after = layer(&["a/new", "a/.wh..wh..opq", ".wh.b", "b/c/mine", ".wh.gone"]);
    for upper in [before, after] {
        let tree = layered(&[lower.clone(), upper]).unwrap();
        assert_eq!(names(&tree), ["a", "a/new", "b", "b/c", "b/c/mine"]);
    }
}

#[test]
fn hard_links_reach_lower_layers_and_share_a_leaf() {
    let tree = layered(&[layer(&["a/x"]), layer(&["b = a/x", "c = ./b"])]).unwrap();
    let leaf = |path: &[u8]| match tree.get(path) {
        Some(EntryRef::Leaf(id, _)) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(leaf(b"a/x"), leaf(b"b"));
    assert_eq!(leaf(b"a/x"), leaf(b"c"));
    for target in ["nowhere", "a"] {
        let error = layered(&[layer(&["a/x", &format!("b = {target}")])]).unwrap_err();
        assert!(matches!(error, LayerError::DanglingHardLink { .. }), "{error}");
    }
}

#[test]
fn path_through_a_link_lands_where_it_leads_inside_the_image() {
    let tree = layered(&[
        layer(&["usr/bin/", "bin -> usr/bin", "out -> ../../../usr"]),
        layer(&["bin/sh", "out/x"]),
    ])
    .unwrap();
    assert!(tree.get(b"usr/bin/sh").is_some());
    assert!(tree.get(b"usr/x").is_some());
    assert!(matches!(tree.get(b"bin"), Some(EntryRef::Leaf(..))));
}

#[test]
fn paths_out_of_the_image_are_refused() {
    // The builder refuses such names, so the bytes are put there by hand.
    for name in ["../x", "a/../../x", "/../x"] {
        let mut header = header(EntryType::Regular, 0o644);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let error = layered(&[header.as_bytes().to_vec()]).unwrap_err();
        assert!(matches!(error, LayerError::Traversal(_)), "{error}");
    }
    let tree = layered(&[{
        let mut header = header(EntryType::Regular, 0o644);
        header.as_mut_bytes()[..6].copy_from_slice(b"//etc/");
        header.as_mut_bytes()[6..7].copy_from_slice(b"x");
        header.set_cksum();
        header.as_bytes().to_vec()
    }])
    .unwrap();
    assert!(tree.get(b"etc/x").is_some());
}

#[test]
fn limits_bound_what_is_unpacked() {
    let one = layer(&["abc", "def"]);
    let limits = |bytes, entries| Limits { bytes, entries };
    layered_within(std::slice::from_ref(&one), limits(6, 2)).unwrap();
    for limits in [limits(5, 9), limits(9, 1)] {
        let error = layered_within(std::slice::from_ref(&one), limits).unwrap_err();
        assert!(matches!(error, LayerError::TooLarge(_)), "{error}");
    }
}

#[test]
fn devices_attributes_and_large_files_are_kept_and_overlay_attributes_dropped() {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.user.note", b"n".as_slice()),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/secret"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("mtime", b"12.000000034"),
        ])
        .unwrap();
    let content = vec![5; 100_000];
    let mut file = header(EntryType::Regular, 0o600);
    file.set_size(content.len() as u64);
    builder.append_data(&mut file, "big", content.as_slice()).unwrap();
    let mut device = header(EntryType::Char, 0o666);
    device.set_device_major(1).unwrap();
    device.set_device_minor(300).unwrap();
    builder.append_data(&mut device, "dev/x", io::empty()).unwrap();
    let tree = layered(&[builder.into_inner().unwrap()]).unwrap();
    let Some(EntryRef::Leaf(_, big)) = tree.get(b"big") else { panic!() };
    assert_eq!(big.metadata.mtime, Timestamp { seconds: 12, nanos: 34 });
    let expected: BTreeMap<Box<[u8]>, Box<[u8]>> =
        BTreeMap::from([(b"user.note".as_slice().into(), b"n".as_slice().into())]);
    assert_eq!(big.metadata.xattrs, expected);
    let digest = homeport_content::Digest::of(&content);
    assert_eq!(big.kind, LeafKind::File(FileContent::Object { digest, size: 100_000 }));
    let Some(EntryRef::Leaf(_, device)) = tree.get(b"dev/x") else { panic!() };
    assert_eq!(device.kind, LeafKind::CharDevice(0x10_012c));
}

#[derive(Clone, Debug)]
enum Change {
    File(String),
    Directory(String),
    Whiteout(String),
    Opaque(String),
}

fn change() -> impl Strategy<Value = Change> {
    let path = prop::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"));
    (path, 0..8_u8).prop_map(|(path, kind)| match kind {
        0..=3 => Change::File(path),
        4 | 5 => Change::Directory(path),
        6 => Change::Whiteout(path),
        _ => Change::Opaque(path),
    })
}

/// Paths to whether they are directories. A path's parents are directories.
type Model = BTreeMap<String, bool>;

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn parents(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect()
}

/// A layer as it would be unpacked: first all of its whiteouts, on what was there before, then the rest.
fn apply_to_model(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Whiteout(path) => model.retain(|other, _| other != path && !is_below(other, path)),
            Change::Opaque(path) => model.retain(|other, _| !is_below(other, path)),
            _ => {}
        }
    }
    for change in changes {
        let (Change::File(path) | Change::Directory(path)) = change else {
            continue;
        };
        for parent in parents(path) {
            model.insert(parent, true);
        }
        if matches!(change, Change::File(_)) {
            model.retain(|other, _| !is_below(other, path));
        }
        model.insert(path.clone(), matches!(change, Change::Directory(_)));
    }
}

/// What a builder could write: no path is both a file and a directory, and no whiteout hides its own layer's.
fn is_sound(changes: &[Change]) -> bool {
    let mut files = BTreeSet::new();
    let mut directories = BTreeSet::new();
    let mut hidden = BTreeSet::new();
    for change in changes {
        match change {
            Change::File(path) => files.insert(path.clone()),
            Change::Directory(path) | Change::Opaque(path) => directories.insert(path.clone()),
            Change::Whiteout(path) => hidden.insert(path.clone()),
        };
        let (Change::File(path) | Change::Directory(path) | Change::Whiteout(path) | Change::Opaque(path)) =
            change;
        directories.extend(parents(path));
    }
    let hides_own = hidden.iter().any(|path| files.contains(path) || directories.contains(path));
    files.is_disjoint(&directories) && !hides_own
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn layers_agree_with_a_model_of_maps(
        layers in prop::collection::vec(prop::collection::vec(change(), 0..5).prop_filter("sound", |c| is_sound(c)), 1..5),
    ) {
        let mut model = Model::new();
        let mut streams = Vec::new();
        for changes in &layers {
            // A directory's own entry comes first, as every builder writes it.
            let mut lines: BTreeSet<String> = BTreeSet::new();
            for change in changes {
                let (Change::File(path) | Change::Directory(path) | Change::Whiteout(path) | Change::Opaque(path)) = change;
                lines.extend(parents(path).iter().map(|parent| format!("{parent}/")));
                lines.insert(match change {
                    Change::File(path) => path.clone(),
                    Change::Directory(path) | Change::Opaque(path) => format!("{path}/"),
                    Change::Whiteout(path) => match path.rsplit_once('/') {
                        Some((parent, name)) => format!("{parent}/.wh.{name}"),
                        None => format!(".wh.{path}"),
                    },
                });
                if let Change::Opaque(path) = change {
                    lines.insert(format!("{path}/.wh..wh..opq"));
                }
            }
            let mut expected: Vec<Change> = changes.clone();
            for change in changes {
                let (Change::File(path) | Change::Directory(path) | Change::Whiteout(path) | Change::Opaque(path)) = change;
                expected.extend(parents(path).into_iter().map(Change::Directory));
                if let Change::Opaque(path) = change {
                    expected.push(Change::Directory(path.clone()));
                }
            }
            apply_to_model(&mut model, &expected);
            streams.push(layer(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let tree = layered(&streams).unwrap();
        let found: Model = tree
            .walk()
            .map(|(path, entry)| (shown(&path), matches!(entry, EntryRef::Directory(_))))
            .collect();
        prop_assert_eq!(found, model);
    }
}
