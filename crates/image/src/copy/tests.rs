use std::collections::BTreeMap;

use homeport_content::{FileContent, Leaf, LeafKind};
use proptest::prelude::*;

use super::*;

fn file(text: &str) -> Leaf {
    Leaf {
        metadata: Metadata { uid: 1000, gid: 1000, ..Metadata::with_mode(0o4640) },
        kind: LeafKind::File(FileContent::Inline(text.as_bytes().into())),
    }
}

fn link(target: &str) -> Leaf {
    Leaf { metadata: Metadata::with_mode(0o777), kind: LeafKind::Symlink(target.as_bytes().into()) }
}

/// A tree of files whose content is their own path.
fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for path in paths {
        match path.strip_suffix('/') {
            Some(directory) => drop(tree.directory_mut(directory.as_bytes(), true).unwrap()),
            None => drop(tree.insert_leaf(path.as_bytes(), file(path)).unwrap()),
        }
    }
    tree
}

fn copied(base: &Tree, context: &Tree, sources: &[&str], destination: &str) -> Result<Tree, CopyError> {
    let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
    copy(request(base, context, &sources, destination))
}

fn request<'a>(
    base: &'a Tree,
    context: &'a Tree,
    sources: &'a [String],
    destination: &'a str,
) -> CopyRequest<'a> {
    CopyRequest {
        base,
        context,
        origin: "the build context",
        sources,
        destination,
        workdir: "/work",
        owner: None,
        mode: None,
        unpack: None,
    }
}

/// Files of a tree with their contents.
fn files(tree: &Tree) -> BTreeMap<String, String> {
    tree.walk()
        .filter_map(|(path, entry)| match entry {
            EntryRef::Leaf(_, leaf) => match &leaf.kind {
                LeafKind::File(FileContent::Inline(bytes)) => Some((shown(&path), shown(bytes))),
                other => Some((shown(&path), format!("{other:?}"))),
            },
            EntryRef::Directory(_) => None,
        })
        .collect()
}

fn names(tree: &Tree) -> Vec<String> {
    files(tree).into_keys().collect()
}

#[test]
fn file_goes_to_a_name_or_into_a_directory() {
    let context = tree(&["a.txt"]);
    let cases = [
        ("/b.txt", "b.txt"),
        ("b.txt", "work/b.txt"),
        ("./", "work/a.txt"),
        (".", "work/a.txt"),
        ("/new/dir/", "new/dir/a.txt"),
        ("/etc", "etc/a.txt"),
        ("/", "a.txt"),
    ];
    for (destination, expected) in cases {
        let image = copied(&tree(&["etc/"]), &context, &["a.txt"], destination).unwrap();
        assert_eq!(names(&image), [expected], "{destination}");
    }
}

#[test]
fn copies_belong_to_root_and_keep_mode_and_new_parents_are_0755() {
    let image = copied(&Tree::default(), &tree(&["a"]), &["a"], "/x/y/a").unwrap();
    let metadata = image.get(b"x/y/a").unwrap().metadata();
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4640, 0, 0));
    assert_eq!(image.get(b"x/y").unwrap().metadata(), &Metadata::with_mode(0o755));
}

#[test]
fn directory_gives_its_contents_and_its_mode_to_a_new_one_only() {
    let mut context = tree(&["d/a", "d/sub/b"]);
    context.directory_mut(b"d", false).unwrap().metadata = Metadata { uid: 5, ..Metadata::with_mode(0o700) };
    let base = tree(&["old/a", "old/keep", "old/sub/c"]);
    let image = copied(&base, &context, &["d"], "/old").unwrap();
    assert_eq!(names(&image), ["old/a", "old/keep", "old/sub/b", "old/sub/c"]);
    assert_eq!(files(&image)["old/a"], "d/a");
    assert_eq!(image.get(b"old").unwrap().metadata().mode, 0o755);
    let image = copied(&base, &context, &["d/."], "/new").unwrap();
    assert_eq!(image.get(b"new").unwrap().metadata(), &Metadata::with_mode(0o700));
}

#[test]
fn whole_context_is_copied_by_a_dot() {
    let context = tree(&["root/app/a.py", "b"]);
    let image = copied(&tree(&["b", "root/.profile"]), &context, &["."], "/").unwrap();
    assert_eq!(names(&image), ["b", "root/.profile", "root/app/a.py"]);
    let image = copied(&tree(&[]), &Tree::default(), &["."], "/made/here").unwrap();
    assert!(image.directory(b"made/here").is_some());
}

#[test]
fn links_in_the_destination_are_followed() {
    let mut base = tree(&["usr/lib/", "data/"]);
    base.insert_leaf(b"lib", link("usr/lib")).unwrap();
    base.insert_leaf(b"srv", link("/data")).unwrap();
    let image = copied(&base, &tree(&["a"]), &["a"], "/srv").unwrap();
    assert!(image.get(b"data/a").is_some());
    let image = copied(&base, &tree(&["lib/deep/b"]), &["."], "/").unwrap();
    assert!(image.get(b"usr/lib/deep/b").is_some());
    assert!(matches!(image.get(b"lib"), Some(EntryRef::Leaf(..))));
}

#[test]
fn source_link_stands_for_its_target_and_nested_links_stay() {
    let mut context = tree(&["real/a"]);
    context.insert_leaf(b"alias", link("real")).unwrap();
    context.insert_leaf(b"real/l", link("a")).unwrap();
    context.insert_leaf(b"first", link("real/a")).unwrap();
    let image = copied(&Tree::default(), &context, &["alias"], "/d").unwrap();
    assert!(matches!(image.get(b"d/l"), Some(EntryRef::Leaf(_, leaf)) if leaf.kind == link("a").kind));
    let image = copied(&Tree::default(), &context, &["first"], "/d/").unwrap();
    assert_eq!(files(&image)["d/first"], "real/a");
}

#[test]
fn hard_links_stay_linked() {
    let mut context = tree(&["a"]);
    let Some(EntryRef::Leaf(id, _)) = context.get(b"a") else { panic!() };
    context.insert_link(b"b", id).unwrap();
    let image = copied(&Tree::default(), &context, &["."], "/").unwrap();
    let ids: Vec<_> = ["a", "b"]
        .map(|name| match image.get(name.as_bytes()) {
            Some(EntryRef::Leaf(id, _)) => id,
            other => panic!("{other:?}"),
        })
        .to_vec();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn several_sources_and_patterns_need_a_directory() {
    let context = tree(&["a.py", "b.py", "c.txt", "d[1].py", "sub/e.py"]);
    let image = copied(&Tree::default(), &context, &["*.py", "c.txt"], "x/").unwrap();
    assert_eq!(names(&image), ["work/x/a.py", "work/x/b.py", "work/x/c.txt", "work/x/d[1].py"]);
    let image = copied(&Tree::default(), &context, &["d[1].py", "no*match"], "/x/").unwrap();
    assert_eq!(names(&image), ["x/d[1].py"]);
    let image = copied(&Tree::default(), &context, &["s?b/*.py"], "/x.py").unwrap();
    assert_eq!(names(&image), ["x.py"]);
    let error = copied(&Tree::default(), &context, &["a.py", "b.py"], "/x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "COPY: 2 sources need a directory as destination; write `/x/` with a slash at the end"
    );
}

#[test]
fn missing_source_is_named_with_what_is_near() {
    let context = tree(&["sub/a.py", "sub/b.py"]);
    let error = copied(&Tree::default(), &context, &["sub/c.py"], "/x").unwrap_err();
    assert_eq!(error.to_string(), "COPY: `sub/c.py` is not in the build context; /sub has a.py, b.py");
    let error = copied(&Tree::default(), &Tree::default(), &["*.c"], "/x").unwrap_err();
    assert_eq!(error.to_string(), "COPY: nothing in the build context matches `*.c`; / is empty");
    // `..` stops at the root of the context.
    assert!(copied(&Tree::default(), &context, &["../../sub/a.py"], "/x").is_ok());
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let base = tree(&["f", "d/x"]);
    assert!(matches!(
        copied(&base, &tree(&["f/a"]), &["."], "/"),
        Err(CopyError::NotADirectory { path }) if path == "f"
    ));
    assert!(matches!(
        copied(&base, &tree(&["d"]), &["."], "/"),
        Err(CopyError::DirectoryInTheWay { path }) if path == "d"
    ));
    assert!(matches!(copied(&base, &tree(&["a"]), &["a"], "/f/a"), Err(CopyError::Unreachable { .. })));
}

#[test]
fn owner_and_mode_hold_for_all_that_is_copied() {
    let (base, context) = (Tree::default(), tree(&["d/f"]));
    let sources = [".".to_owned()];
    let request =
        CopyRequest { owner: Some((7, 8)), mode: Some(0o750), ..request(&base, &context, &sources, "/new") };
    let image = copy(request).unwrap();
    for path in ["new", "new/d", "new/d/f"] {
        let metadata = image.get(path.as_bytes()).unwrap().metadata();
        assert_eq!((metadata.uid, metadata.gid, metadata.mode), (7, 8, 0o750), "{path}");
    }
}

#[test]
fn archives_give_their_contents_and_keep_their_owners() {
    let mut archive = tree(&["inner/f"]);
    archive.leaves[0].metadata.uid = 42;
    let unpack = |leaf: &Leaf| {
        let is_archive =
            matches!(&leaf.kind, LeafKind::File(FileContent::Inline(bytes)) if bytes.ends_with(b"tar"));
        Ok(is_archive.then(|| archive.clone()))
    };
    let (base, context) = (Tree::default(), tree(&["a.tar", "plain"]));
    let sources = ["a.tar".to_owned(), "plain".to_owned()];
    let request = CopyRequest { unpack: Some(&unpack), ..request(&base, &context, &sources, "/to/") };
    let image = copy(request).unwrap();
    assert_eq!(names(&image), ["to/inner/f", "to/plain"]);
    assert_eq!(image.get(b"to/inner/f").unwrap().metadata().uid, 42);
    assert_eq!(image.get(b"to/plain").unwrap().metadata().uid, 0);
}

/// Paths over a small alphabet, files in `.f` and directories without, so that kinds never clash.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let path = prop::collection::vec("[abc]", 0..3).prop_flat_map(|directories| {
        "[abc]\\.f".prop_map(move |name| {
            directories.iter().chain([&name]).map(String::as_str).collect::<Vec<_>>().join("/")
        })
    });
    prop::collection::vec(path, 0..8)
}

proptest! {
    /// The model knows files alone, as a map from path to content.
    #[test]
    fn copy_agrees_with_a_model_of_maps(
        in_base in paths(),
        in_context in paths(),
        source in "[abc](/[abc])?|\\.|[abc]\\.f|[abc]/[abc]\\.f",
        destination in "/[abc]/|/[abc]/[abc]/|\\./|/[abc]\\.f",
    ) {
        let base = tree(&in_base.iter().map(String::as_str).collect::<Vec<_>>());
        let context = tree(&in_context.iter().map(String::as_str).collect::<Vec<_>>());
        let result = copied(&base, &context, &[&source], &destination);

        let target = join_clean("/work", &destination)[1..].to_owned();
        let prefix = if source == "." { String::new() } else { format!("{source}/") };
        let mut expected = files(&base);
        let context_files = files(&context);
        let selected: Vec<&String> = context_files.keys().filter(|path| path.starts_with(&prefix)).collect();
        if let Some(content) = context_files.get(&source) {
            let name = source.rsplit('/').next().unwrap();
            let place = if destination.ends_with('/') { format!("{target}/{name}") } else { target };
            expected.insert(place, content.clone());
        } else if !selected.is_empty() || source == "." {
            for path in selected {
                expected.insert(format!("{target}/{}", &path[prefix.len()..]), context_files[path].clone());
            }
            if expected.contains_key(&target) {
                prop_assert!(result.is_err());
                return Ok(());
            }
        } else {
            let missing = matches!(result, Err(CopyError::MissingSource { .. }));
            prop_assert!(missing);
            return Ok(());
        }
        prop_assert_eq!(files(&result.unwrap()), expected);
    }
}
