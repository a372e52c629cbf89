//! Paths in a Volume as requests name them.
//!
//! They begin at the root, with or without a slash. Symbolic links are followed as far as they stay in the Volume.
//! Requests are in UTF-8 and names may be anything: a name that isn't UTF-8 is shown with `�` for what cannot be, and
//! found by what is shown, if no other name in its directory is shown alike.

use homeport_content::{Layered, Leaf, LeafKind, Seen};
use tonic::Status;

/// Symbolic links that are followed before a path counts as going in circles, as in Linux.
const MAX_LINKS: usize = 40;
/// The longest name.
const NAME_LIMIT: usize = 255;

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// The names in a path of a request. Empty is the root.
pub(super) fn clean(path: &str) -> Result<String, Status> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") {
        return Err(refused(path, "paths begin at the root of the Volume and have no `..`"));
    }
    if names.iter().any(|name| name.len() > NAME_LIMIT) {
        return Err(refused(path, "no name is longer than 255 bytes"));
    }
    if path.contains('\0') {
        return Err(refused(path, "it has a zero byte"));
    }
    Ok(names.join("/"))
}

/// The path of a file to be written, which isn't the root.
pub(super) fn clean_file(path: &str) -> Result<String, Status> {
    let cleaned = clean(path)?;
    if cleaned.is_empty() || path.ends_with('/') {
        return Err(refused(path, "a file needs a name"));
    }
    Ok(cleaned)
}

fn refused(path: &str, reason: &str) -> Status {
    Status::invalid_argument(format!("`{path}` cannot be a path: {reason}"))
}

/// There is nothing at a path.
pub(super) fn nothing_at(path: &str) -> Status {
    Status::not_found(format!("there is no file or directory `{path}` in the Volume"))
}

/// What is at a path, and the path without links.
pub(super) fn find<'a>(layered: &'a Layered, path: &str, last: Last) -> Result<(Vec<u8>, Seen<'a>), Status> {
    let (here, missing) = follow(layered, path, last)?;
    let seen = layered.get(&here).filter(|_| missing.is_empty()).ok_or_else(|| nothing_at(path))?;
    if path.ends_with('/') && !matches!(seen, Seen::Directory(_)) {
        return Err(Status::not_found(format!("`{path}` is not a directory")));
    }
    Ok((here, seen))
}

/// Where something with this path is or would be: links to directories are followed, one at the end isn't.
pub(super) fn place(layered: &Layered, path: &str) -> Result<Vec<u8>, Status> {
    let (here, missing) = follow(layered, path, Last::Keep)?;
    Ok(missing.iter().fold(here, |path, name| join(&path, name)))
}

/// Follows a path as far as there is something: that place without links, and the names that are left.
fn follow(layered: &Layered, path: &str, last: Last) -> Result<(Vec<u8>, Vec<Vec<u8>>), Status> {
    let cleaned = clean(path)?;
    // The name of a directory may be said with a slash, which follows a link.
    let last = if path.ends_with('/') { Last::Follow } else { last };
    let mut ahead: Vec<Vec<u8>> = cleaned.split('/').rev().map(|name| name.as_bytes().to_vec()).collect();
    ahead.retain(|name| !name.is_empty());
    let mut here: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == b".." {
            if here.is_empty() {
                return Err(leaves(path));
            }
            here.truncate(here.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            continue;
        }
        let next = child(layered, &here, &name);
        match next.as_deref().and_then(|next| layered.get(next)) {
            Some(Seen::Leaf { leaf: Leaf { kind: LeafKind::Symlink(target), .. }, .. })
                if !ahead.is_empty() || last == Last::Follow =>
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Status::invalid_argument(format!("the links in `{path}` go in circles")));
                }
                if target.starts_with(b"/") {
                    return Err(leaves(path));
                }
                let names = target.split(|byte| *byte == b'/').rev();
                ahead.extend(names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec));
            }
            Some(Seen::Directory(_)) => here = next.unwrap_or_default(),
            Some(Seen::Leaf { .. }) if ahead.is_empty() => here = next.unwrap_or_default(),
            Some(Seen::Leaf { .. }) | None => {
                ahead.push(name);
                ahead.reverse();
                return Ok((here, ahead));
            }
        }
    }
    Ok((here, Vec::new()))
}

fn leaves(path: &str) -> Status {
    Status::not_found(format!(
        "a symbolic link in `{path}` leads out of the Volume, or only a container can follow it"
    ))
}

/// The path of a name in a directory, as it is stored.
fn child(layered: &Layered, directory: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let exact = join(directory, name);
    if layered.get(&exact).is_some() {
        return Some(exact);
    }
    let shown = std::str::from_utf8(name).ok().filter(|name| name.contains(char::REPLACEMENT_CHARACTER))?;
    let entries = layered.list(directory)?;
    let mut alike = entries.iter().filter(|(name, _)| String::from_utf8_lossy(name) == shown);
    let (only, None) = (alike.next()?, alike.next()) else { return None };
    Some(join(directory, &only.0))
}

/// A name below a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') }
}

/// Names with wildcards: `*` and `?` within a name, `**` for any number of names.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The directory above the first wildcard.
    pub(super) base: String,
    names: Vec<Vec<u8>>,
}

impl Pattern {
    /// None if there is no wildcard in the path.
    pub(super) fn of(path: &str) -> Result<Option<Pattern>, Status> {
        let cleaned = clean(path)?;
        let names: Vec<&str> = cleaned.split('/').collect();
        let Some(first) = names.iter().position(|name| name.contains(['*', '?'])) else { return Ok(None) };
        let names_of_all = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Some(Pattern { base: names[..first].join("/"), names: names_of_all }))
    }

    /// Whether a path fits, or with `below` lies below one that does.
    pub(super) fn fits(&self, path: &[u8], below: bool) -> bool {
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let shortest = if below { 1 } else { path.len() };
        (shortest..=path.len()).any(|length| fits(&self.names, &path[..length]))
    }
}

fn fits(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [any, rest @ ..] if any == b"**" => (0..=path.len()).any(|skip| fits(rest, &path[skip..])),
        [first, rest @ ..] => {
            path.split_first().is_some_and(|(name, path)| name_fits(first, name) && fits(rest, path))
        }
    }
}

fn name_fits(pattern: &[u8], name: &[u8]) -> bool {
    // Goes back to the last `*` only: an earlier one need never take more.
    let (mut at, mut in_name) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((star, from)) = last else { return false };
                last = Some((star, from + 1));
                at = star + 1;
                in_name = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use homeport_content::{Edit, FileContent, Metadata, Timestamp, Tree};
    use tonic::Code;

    use super::*;

    fn volume(entries: &[(&[u8], LeafKind)]) -> Layered {
        let empty = Layered::of(Arc::new(Tree::default()));
        let mut edit = Edit::new(&empty, Timestamp::default());
        for (path, kind) in entries {
            edit.put_leaf(path, Leaf { metadata: Metadata::with_mode(0o644), kind: kind.clone() }).unwrap();
        }
        let delta = edit.finish();
        empty.with(Arc::new(delta))
    }

    fn file() -> LeafKind {
        LeafKind::File(FileContent::Inline((*b"x").into()))
    }

    fn link(target: &[u8]) -> LeafKind {
        LeafKind::Symlink(target.into())
    }

    #[test]
    fn paths_begin_at_the_root_and_never_leave_it() {
        for (path, cleaned) in [("/", ""), ("", ""), ("//a//./b/", "a/b"), ("a b/ü", "a b/ü"), ("...", "...")]
        {
            assert_eq!(clean(path).unwrap(), cleaned);
        }
        for bad in ["..", "a/../b", "/..", "a\0b", &"x".repeat(256)] {
            assert_eq!(clean(bad).unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        }
        for bad in ["", "/", "a/", "."] {
            assert!(clean_file(bad).is_err(), "{bad:?}");
        }
        assert_eq!(clean_file(&format!("/{}", "x".repeat(255))).unwrap().len(), 255);
    }

    #[test]
    fn links_are_followed_inside_the_volume() {
        let volume = volume(&[
            (b"v2/model", file()),
            (b"latest", link(b"v2")),
            (b"v2/again", link(b"../latest/./model")),
            (b"round", link(b"round")),
            (b"out", link(b"../outside")),
            (b"absolute", link(b"/v2/model")),
            (b"dangling", link(b"nowhere")),
        ]);
        let at = |path, last| find(&volume, path, last).map(|(path, _)| String::from_utf8(path).unwrap());
        assert_eq!(at("latest/model", Last::Keep).unwrap(), "v2/model");
        assert_eq!(at("/latest/again", Last::Follow).unwrap(), "v2/model");
        assert_eq!(at("latest/again", Last::Keep).unwrap(), "v2/again");
        assert_eq!(at("latest", Last::Keep).unwrap(), "latest");
        assert_eq!(at("latest/", Last::Keep).unwrap(), "v2");
        assert_eq!(at("dangling", Last::Keep).unwrap(), "dangling");
        assert_eq!(at("round", Last::Follow).unwrap_err().code(), Code::InvalidArgument);
        let place = |path| String::from_utf8(place(&volume, path).unwrap()).unwrap();
        assert_eq!(place("latest/new/file"), "v2/new/file");
        assert_eq!(place("/latest"), "latest");
        assert_eq!(place("new/file"), "new/file");
        assert_eq!(place("v2/model/x"), "v2/model/x");
        for missing in ["out", "absolute", "dangling", "v2/model/x", "v2/model/", "v3"] {
            assert_eq!(at(missing, Last::Follow).unwrap_err().code(), Code::NotFound, "{missing}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_is_found_by_what_is_shown_of_it() {
        let volume = volume(&[(b"d/caf\xe9", file()), (b"d/a\xff", file()), (b"d/a\xfe", file())]);
        assert_eq!(find(&volume, "d/caf\u{fffd}", Last::Keep).unwrap().0, b"d/caf\xe9");
        assert!(find(&volume, "d/a\u{fffd}", Last::Keep).is_err(), "two names are shown like this");
    }

    #[test]
    fn wildcards_are_those_of_a_shell() {
        let fits =
            |pattern: &str, path: &str| Pattern::of(pattern).unwrap().unwrap().fits(path.as_bytes(), false);
        for (pattern, path) in [
            ("*", "a"),
            ("a*c", "abc"),
            ("a*c", "ac"),
            ("*.t?t", "x.y.txt"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**", "a/b/c"),
            ("a/*/c", "a/b/c"),
            ("*a*b*", "xaybz"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("*", "a/b"), ("a*c", "abcd"), ("?", ""), ("a/*", "a"), ("*.txt", "a/b.txt")]
        {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
        let below = Pattern::of("runs/*").unwrap().unwrap();
        assert_eq!(below.base, "runs");
        assert!(below.fits(b"runs/1/a/b", true) && !below.fits(b"runs/1/a/b", false));
        assert!(Pattern::of("a/b").unwrap().is_none());
    }
}
