//! Which entries the sources of a `COPY` name.

use homeport_content::{EntryRef, Tree};

use super::{CopyError, CopyRequest, below, pattern};
use crate::config::join_clean;

/// An entry to copy, and the name it has when it lands in a directory.
pub(super) struct Source<'a> {
    pub(super) name: Vec<u8>,
    pub(super) entry: EntryRef<'a>,
}

/// All entries that the request's sources name, in their order; those of one pattern by name. At least one.
pub(super) fn select<'a>(request: &CopyRequest<'a>) -> Result<Vec<Source<'a>>, CopyError> {
    let CopyRequest { context, sources, origin, .. } = *request;
    let mut selected = Vec::new();
    for source in sources {
        let cleaned = join_clean("/", source);
        // A file whose name has a bracket in it is meant before a pattern that happens to be its name.
        if let Some(entry) = entry_at(context, cleaned.as_bytes()) {
            let name = cleaned.rsplit('/').next().unwrap_or_default();
            selected.push(Source { name: name.as_bytes().to_vec(), entry });
            continue;
        }
        if !pattern::has_wildcard(&cleaned) {
            return Err(CopyError::MissingSource {
                origin: origin.to_owned(),
                source_path: source.clone(),
                near: what_is_near(context, &cleaned),
            });
        }
        for path in matching(context, source, &cleaned)? {
            if let Some(entry) = entry_at(context, &path) {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                selected.push(Source { name: name.to_vec(), entry });
            }
        }
    }
    if selected.is_empty() {
        return Err(CopyError::NothingMatches {
            origin: origin.to_owned(),
            patterns: sources.join(" "),
            near: what_is_near(context, &join_clean("/", sources.first().map_or("", |s| s))),
        });
    }
    Ok(selected)
}

/// What `path` leads to; a source that is itself a symbolic link stands for its target.
fn entry_at<'a>(context: &'a Tree, path: &[u8]) -> Option<EntryRef<'a>> {
    context.get(&context.resolve(path)?)
}

fn matching(context: &Tree, written: &str, cleaned: &str) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut found = vec![Vec::new()];
    for part in cleaned.split('/').filter(|part| !part.is_empty()) {
        let mut deeper = Vec::new();
        for path in &found {
            let Some(EntryRef::Directory(directory)) = entry_at(context, path) else {
                continue;
            };
            for name in directory.entries.keys() {
                let matches = pattern::matches(part, &String::from_utf8_lossy(name))
                    .map_err(|fault| CopyError::BadPattern { pattern: written.to_owned(), fault })?;
                if matches {
                    deeper.push(below(path, name));
                }
            }
        }
        found = deeper;
    }
    Ok(found)
}

/// Words on what the deepest directory of `path` that exists holds.
fn what_is_near(context: &Tree, path: &str) -> String {
    const SHOWN: usize = 8;
    let mut place = path;
    let directory = loop {
        place = place.rsplit_once('/').map_or("", |(parent, _)| parent);
        match entry_at(context, place.as_bytes()) {
            Some(EntryRef::Directory(directory)) => break directory,
            _ if place.is_empty() => break &context.root,
            _ => {}
        }
    };
    let place = if place.is_empty() { "/" } else { place };
    if directory.entries.is_empty() {
        return format!("{place} is empty");
    }
    let mut names: Vec<_> =
        directory.entries.keys().take(SHOWN).map(|name| String::from_utf8_lossy(name)).collect();
    if directory.entries.len() > SHOWN {
        names.push("…".into());
    }
    format!("{place} has {}", names.join(", "))
}
