//! `homeport models`.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use homeport_hub::{
    CatalogError, DirectoryCatalog, ImportError, ImportProgress, ImportRequest, ModelCatalog, RepoId,
    import_model,
};
use homeport_store::{Store, StoreError};

use crate::cli::ImportFlags;
use crate::data_dir::{DataDir, DataDirError};
use crate::failure::Hint;
use crate::tokens::{date, now_millis};

/// Why a command on models failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelsError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("cannot start the command")]
    Runtime(#[source] std::io::Error),
    #[error("the hub has no model `{0}`")]
    Unknown(RepoId),
}

impl Hint for ModelsError {
    fn hint(&self) -> Option<String> {
        match self {
            ModelsError::DataDir(error) => error.hint(),
            ModelsError::Unknown(_) => Some("`homeport models list` shows what it has".to_owned()),
            _ => None,
        }
    }
}

/// Puts a directory into the hub.
pub(crate) fn import(data_dir: &Path, flags: ImportFlags) -> Result<String, ModelsError> {
    let data_dir = DataDir::existing(data_dir)?;
    let store = Arc::new(Store::open(&data_dir.store())?);
    let catalog = DirectoryCatalog::open(&data_dir.models())?;
    let name = flags.name.clone();
    let branch = flags.revision.clone();
    let request = ImportRequest {
        directory: flags.directory,
        repo: flags.name,
        branch: flags.revision,
        now: now_millis() / 1000,
    };
    let display = ProgressDisplay::default();
    let outcome = block_on(import_model(store, &catalog, request, move |at| display.show(at)))??;
    Ok(format!(
        "{} {name} at {branch}, commit {}: {} files, {}\n",
        if outcome.changed { "imported" } else { "already there:" },
        outcome.commit,
        outcome.files,
        size(outcome.bytes)
    ))
}

/// What the hub has, as a table.
pub(crate) fn list(data_dir: &Path) -> Result<String, ModelsError> {
    let data_dir = DataDir::existing(data_dir)?;
    let catalog = DirectoryCatalog::open(&data_dir.models())?;
    let row = |[model, revision, commit, size, imported]: [&str; 5]| {
        format!("{model:<48}  {revision:<12}  {commit:<12}  {size:>10}  {imported}\n")
    };
    let mut table = row(["MODEL", "REVISION", "COMMIT", "SIZE", "IMPORTED"]);
    for record in block_on(catalog.list())?? {
        for (branch, hash) in &record.branches {
            let Some(commit) = record.commit(*hash) else { continue };
            let bytes = commit.files.values().map(|file| file.size).sum();
            let short: String = hash.to_string().chars().take(12).collect();
            table +=
                &row([record.repo.as_str(), branch.as_str(), &short, &size(bytes), &date(commit.created)]);
        }
    }
    Ok(table)
}

/// Takes a model out of the hub.
pub(crate) fn remove(data_dir: &Path, name: &RepoId) -> Result<String, ModelsError> {
    let data_dir = DataDir::existing(data_dir)?;
    let catalog = DirectoryCatalog::open(&data_dir.models())?;
    if !block_on(catalog.remove(name))?? {
        return Err(ModelsError::Unknown(name.clone()));
    }
    Ok(format!("removed {name}\n"))
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ModelsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(ModelsError::Runtime)?.block_on(work))
}

/// A line on the terminal that says how far an import is. Nothing where stderr is no terminal.
#[derive(Default)]
struct ProgressDisplay {
    shown: Mutex<Option<Instant>>,
}

impl ProgressDisplay {
    fn show(&self, at: ImportProgress) {
        const INTERVAL: Duration = Duration::from_millis(200);
        if !std::io::stderr().is_terminal() {
            return;
        }
        let Ok(mut shown) = self.shown.lock() else {
            return;
        };
        let done = at.bytes_done == at.bytes_total;
        if !done && shown.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        *shown = Some(Instant::now());
        let end = if done { "\n" } else { "" };
        // A progress line that can't be shown is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "\r{} of {}, {} of {} files{end}",
            size(at.bytes_done),
            size(at.bytes_total),
            at.files_done,
            at.files_total
        );
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(90 << 20), "90.0 MiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
