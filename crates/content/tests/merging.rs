//! The rows of `docs/volume-merging.md`, one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use homeport_content::{
    Conflict, Delta, Edit, Foreign, Layered, Leaf, LeafId, LeafKind, Metadata, Seen, Timestamp, Tree, diff,
    merge,
};

const DOCUMENT: &str = include_str!("../../../docs/volume-merging.md");

const NEW: [&str; 2] = ["adds a file", "adds a directory"];
const FILE: [&str; 5] = [
    "changes the content",
    "changes the mode",
    "changes only the time",
    "removes it",
    "makes it a directory",
];
const DIRECTORY: [&str; 7] = [
    "adds a file to it",
    "changes a file in it",
    "removes a file from it",
    "changes its mode",
    "removes it",
    "makes it a file",
    "renames it",
];
const LINKED: [&str; 4] = ["changes it", "replaces `a`", "removes `a`", "adds the name `c`"];

fn file(content: &str, mode: u32, time: i64) -> Leaf {
    let metadata = Metadata { mtime: Timestamp { seconds: time, nanos: 0 }, ..Metadata::with_mode(mode) };
    let content = homeport_content::FileContent::Inline(content.as_bytes().into());
    Leaf { metadata, kind: LeafKind::File(content) }
}

/// What all versions begin with.
fn base() -> Layered {
    let mut tree = Tree::default();
    for path in ["f", "d/x", "d/y", "other"] {
        tree.insert_leaf(path.as_bytes(), file("old", 0o644, 1)).unwrap();
    }
    let id = tree.insert_leaf(b"a", file("old", 0o644, 1)).unwrap();
    tree.insert_link(b"b", id).unwrap();
    Layered::of(Arc::new(tree))
}

/// Who acts: what he writes, which mode he sets, what he calls things, and when it is.
struct Side {
    content: &'static str,
    mode: u32,
    name: &'static str,
    time: i64,
}

const OURS: Side = Side { content: "ours", mode: 0o600, name: "o", time: 3 };
const THEIRS: Side = Side { content: "theirs", mode: 0o755, name: "t", time: 2 };

impl Side {
    fn act(&self, seen: &Layered, subject: &str, action: &str) -> Delta {
        let mut edit = Edit::new(seen, Timestamp { seconds: self.time, nanos: 0 });
        let own = file(self.content, 0o644, self.time);
        let put = |edit: &mut Edit<'_>, path: &str, leaf: Leaf| edit.put_leaf(path.as_bytes(), leaf).unwrap();
        let below = |directory: &str| format!("{directory}/{}", self.name);
        match (subject, action) {
            ("n", "adds a file") => put(&mut edit, "n", own),
            ("n", "adds a directory") => put(&mut edit, &below("n"), own),
            ("n", "adds the same file") => put(&mut edit, "n", file("old", 0o644, self.time)),
            ("f", "changes the content") => put(&mut edit, "f", own),
            ("f", "changes the mode") => put(&mut edit, "f", file("old", self.mode, 1)),
            ("f", "changes only the time") => put(&mut edit, "f", file("old", 0o644, self.time)),
            ("f", "removes it") => edit.remove(b"f", false).unwrap(),
            ("f", "makes it a directory") => {
                edit.remove(b"f", false).unwrap();
                put(&mut edit, &below("f"), own);
            }
            ("f", "writes the same content") => put(&mut edit, "f", file("same", 0o644, self.time)),
            ("f", "sets the same mode") => put(&mut edit, "f", file("old", 0o640, 1)),
            ("d", "adds a file to it") => put(&mut edit, &below("d"), own),
            ("d", "changes a file in it") => put(&mut edit, "d/x", own),
            ("d", "removes a file from it") => edit.remove(b"d/x", false).unwrap(),
            ("d", "changes its mode") => {
                edit.set_directory(b"d", Metadata::with_mode(self.mode | 0o020)).unwrap();
            }
            ("d", "removes it") => edit.remove(b"d", true).unwrap(),
            ("d", "makes it a file") => {
                edit.remove(b"d", true).unwrap();
                put(&mut edit, "d", own);
            }
            ("d", "renames it") => edit.rename(b"d", self.name.as_bytes()).unwrap(),
            ("d", "renames it to `e`") => edit.rename(b"d", b"e").unwrap(),
            ("a", "changes it") => return linked(seen, own, &["a", "b"]),
            ("a", "replaces `a`") => put(&mut edit, "a", own),
            ("a", "removes `a`") => edit.remove(b"a", false).unwrap(),
            ("a", "adds the name `c`") => return linked(seen, file("old", 0o644, 1), &["a", "b", "c"]),
            _ => panic!("`{action}` is not something that is done to {subject}"),
        }
        edit.finish()
    }
}

/// A delta in which these names are links to one file.
fn linked(seen: &Layered, leaf: Leaf, names: &[&str]) -> Delta {
    let Some(Seen::Directory(root)) = seen.get(b"") else { panic!("no root") };
    let mut delta = Delta::new(root.clone());
    let id = delta.push_leaf(leaf);
    for name in names {
        delta.root.entries.insert(name.as_bytes().into(), homeport_content::Change::Leaf(id));
    }
    delta
}

/// What is there in the words of the document. Only what belongs to the subject is said; the rest must be as it was.
fn words(version: &Layered, subject: &str) -> String {
    let mut groups: BTreeMap<(usize, LeafId), Vec<String>> = BTreeMap::new();
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let tree = version.flatten();
    let version = Layered::of(Arc::new(tree));
    let belongs = |path: &str| match subject {
        "n" => path.starts_with('n'),
        "f" => path.starts_with('f'),
        "d" => ["d", "o", "t", "e"].contains(&path.split('/').next().unwrap()),
        _ => ["a", "b", "c"].contains(&path),
    };
    for (path, seen) in version.walk(b"") {
        let path = String::from_utf8(path).unwrap();
        let Seen::Leaf { leaf, layer, id } = seen else {
            if path == "d" && seen.metadata().mode != 0o755 {
                let who = if seen.metadata().mode == OURS.mode | 0o020 { "ours" } else { "theirs" };
                lines.insert(path, format!("`d`, mode of {who},"));
            }
            continue;
        };
        if !belongs(&path) {
            let before = base();
            let Some(Seen::Leaf { leaf: before, .. }) = before.get(path.as_bytes()) else {
                panic!("{path} is new")
            };
            assert_eq!(leaf, before, "{path}");
            continue;
        }
        groups.entry((layer, id)).or_default().push(path);
        let _ = leaf;
    }
    for ((layer, id), names) in groups {
        assert_eq!(version.names_of(layer, id).len(), names.len());
        let Some(Seen::Leaf { leaf, .. }) = version.get(names[0].as_bytes()) else { panic!() };
        let content = match &leaf.kind {
            LeafKind::File(homeport_content::FileContent::Inline(bytes)) => match &bytes[..] {
                b"ours" => "=ours",
                b"theirs" => "=theirs",
                _ => "",
            },
            kind => panic!("{kind:?}"),
        };
        let mode = match leaf.metadata.mode {
            mode if mode == OURS.mode => ", mode of ours",
            mode if mode == THEIRS.mode => ", mode of theirs",
            _ => "",
        };
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        lines.insert(names[0].clone(), format!("{}{content}{mode}", quoted.join(",")));
    }
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    lines.into_values().collect::<Vec<_>>().join(" ")
}

fn conflict_words(conflicts: &[Conflict]) -> String {
    if conflicts.is_empty() {
        return "-".to_owned();
    }
    let word = |conflict: &Conflict| {
        assert_eq!(conflict.lost_version, 7);
        let removal = if conflict.lost_removed { " (a removal)" } else { "" };
        format!("`{}`{removal}", String::from_utf8(conflict.path.clone()).unwrap())
    };
    conflicts.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The rows of the section with this heading.
fn rows(heading: &str) -> Vec<[String; 4]> {
    let section =
        DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect("no such section");
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().expect("four cells")
        })
        .collect()
}

fn check(heading: &str, subject: &str, actions: &[&str]) {
    let seen = base();
    let mut wrong = Vec::new();
    let mut met = BTreeSet::new();
    for [ours, theirs, afterwards, conflict] in rows(heading) {
        let theirs_delta = Arc::new(THEIRS.act(&seen, subject, &theirs));
        let ours_delta = OURS.act(&seen, subject, &ours);
        let head = seen.with(Arc::clone(&theirs_delta));
        let since = [Foreign { version: 7, delta: &theirs_delta, own: false }];
        let merged = merge(&seen, &head, &ours_delta, &since);
        merged.delta.validate().unwrap();
        let result = head.with(Arc::new(merged.delta.clone()));
        let found = (words(&result, subject), conflict_words(&merged.conflicts));
        if found != (afterwards.clone(), conflict.clone()) {
            wrong.push(format!(
                "{ours} / {theirs}: said {afterwards} | {conflict}, found {} | {}",
                found.0, found.1
            ));
        }
        // The layers that a version is made of do not matter, nor does how their change is known.
        let flat = Layered::of(Arc::new(head.flatten()));
        let theirs_delta = diff(&seen, &flat);
        let since = [Foreign { version: 7, delta: &theirs_delta, own: false }];
        let again = merge(&seen, &flat, &ours_delta, &since);
        assert_eq!(again.conflicts, merged.conflicts, "{ours} / {theirs}");
        assert_eq!(
            flat.with(Arc::new(again.delta)).flatten().id(),
            result.flatten().id(),
            "{ours} / {theirs}"
        );
        // Ours once more, on what came of it: nothing is left to do.
        let twice = merge(
            &seen.with(Arc::new(ours_delta)),
            &result,
            &Delta::new(seen.base.root.metadata.clone()),
            &since,
        );
        assert!(twice.conflicts.is_empty() && twice.delta.is_empty(), "{ours} / {theirs}: {:?}", twice.delta);
        met.insert((ours, theirs));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for ours in actions {
        for theirs in actions {
            assert!(
                met.contains(&((*ours).to_owned(), (*theirs).to_owned())),
                "no row for {ours} / {theirs}"
            );
        }
    }
}

#[test]
fn rows_of_a_path_that_was_not_there() {
    check("A path that was not there", "n", &NEW);
}

#[test]
fn rows_of_a_file() {
    check("A file\n", "f", &FILE);
}

#[test]
fn rows_of_a_directory() {
    check("A directory", "d", &DIRECTORY);
}

#[test]
fn rows_of_a_file_with_several_names() {
    check("A file with several names", "a", &LINKED);
}
