//! Whom copies belong to: `--chown`, by the image's own account files.

use homeport_content::{EntryRef, Leaf, LeafKind, Tree};
use homeport_store::{Store, StoreError};
use thiserror::Error;

/// Why an owner can't be told.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// The user has no entry.
    #[error("COPY --chown: the user `{0}` isn't in the image's /etc/passwd; give its number")]
    NoUser(String),
    /// The group has no entry.
    #[error("COPY --chown: the group `{0}` isn't in the image's /etc/group; give its number")]
    NoGroup(String),
    /// An account file can't be read.
    #[error("COPY --chown: `{file}` of the image can't be read: {source}")]
    Unreadable {
        /// Path in the image.
        file: &'static str,
        /// Why.
        source: StoreError,
    },
}

/// User and group that `wanted` (`user[:group]`, names or numbers) means in `image`. Without a group it
/// is the one with the user's number, as in Docker.
pub fn owner(store: &Store, image: &Tree, wanted: &str) -> Result<(u32, u32), OwnerError> {
    let (user, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => number(&account_file(store, image, "/etc/passwd")?, user)
            .ok_or_else(|| OwnerError::NoUser(user.to_owned()))?,
    };
    let gid = match (group, group.parse()) {
        ("", _) => uid,
        (_, Ok(gid)) => gid,
        (name, Err(_)) => number(&account_file(store, image, "/etc/group")?, name)
            .ok_or_else(|| OwnerError::NoGroup(name.to_owned()))?,
    };
    Ok((uid, gid))
}

/// The third field of the line of `name`: the number, in both files.
fn number(text: &str, name: &str) -> Option<u32> {
    text.lines()
        .map(|line| line.trim().split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
}

/// An empty text when there is no such file.
fn account_file(store: &Store, image: &Tree, file: &'static str) -> Result<String, OwnerError> {
    let found = image.resolve(file.as_bytes()).and_then(|path| image.get(&path));
    let Some(EntryRef::Leaf(_, Leaf { kind: LeafKind::File(content), .. })) = found else {
        return Ok(String::new());
    };
    let bytes = store.read_content(content).map_err(|source| OwnerError::Unreadable { file, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use homeport_content::{FileContent, Metadata};

    use super::*;

    #[test]
    fn names_are_the_images_and_numbers_are_anybodys() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut image = Tree::default();
        for (path, text) in [("etc/passwd", "app:x:1001:1002::/:/bin/sh\n"), ("etc/group", "staff:x:50:\n")] {
            let kind = LeafKind::File(FileContent::Inline(text.as_bytes().into()));
            image.insert_leaf(path.as_bytes(), Leaf { metadata: Metadata::with_mode(0o644), kind }).unwrap();
        }
        let of = |wanted| owner(&store, &image, wanted);
        assert_eq!(of("app").unwrap(), (1001, 1001));
        assert_eq!(of("app:staff").unwrap(), (1001, 50));
        assert_eq!(of("7:8").unwrap(), (7, 8));
        assert!(of("nobody").unwrap_err().to_string().contains("`nobody`"));
        assert!(of("app:none").unwrap_err().to_string().contains("`none`"));
    }
}
