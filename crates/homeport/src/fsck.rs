//! `homeport fsck`: is everything in the store what its name says?

use std::path::Path;

use homeport_control::{CheckEvent, CheckOptions, StorageError};
use homeport_meta::{DataDirLock, LockError};
use homeport_proto::admin as pb;
use serde_json::json;

use crate::admin::{AdminError, with_server};
use crate::cli::{FsckFlags, UpFlags};
use crate::data_dir::{DataDir, DataDirError};
use crate::failure::Hint;
use crate::models::size;
use crate::progress::ProgressLine;
use crate::settings::{Settings, SettingsError, UpSettings};
use crate::wiring::{Ground, WiringError};

/// Reads everything and says what is wrong; returns the summary, and whether all is well.
///
/// A running server does it itself, since content comes and goes under it. Without one, this process takes the
/// server's place for as long as it takes.
pub(crate) fn run(settings: Settings, mut flags: FsckFlags) -> Result<(String, bool), CheckError> {
    flags.repair |= flags.repair_from.is_some();
    // The server has another working directory.
    flags.repair_from =
        flags.repair_from.map(std::path::absolute).transpose().map_err(CheckError::Absolute)?;
    let data_dir = DataDir::existing(&settings.data_dir)?;
    let mut found = Findings::default();
    let mut line = ProgressLine::new();
    match data_dir.running_server() {
        Ok(_) => check_by_server(data_dir.root(), &flags, &mut found, &mut line)?,
        Err(DataDirError::NotRunning { .. }) => {
            let _place = DataDirLock::acquire(data_dir.root())?;
            let settings = settings.for_up(UpFlags::default())?;
            check_here(&settings, &flags, &mut found, &mut line)?;
        }
        Err(error) => return Err(error.into()),
    }
    line.clear();
    Ok(found.report(&flags)?)
}

fn check_by_server(
    data_dir: &Path,
    flags: &FsckFlags,
    found: &mut Findings,
    line: &mut ProgressLine,
) -> Result<(), AdminError> {
    with_server(data_dir, async |mut admin| -> Result<_, AdminError> {
        let from = flags.repair_from.as_deref().unwrap_or(Path::new(""));
        let request =
            pb::CheckStoreRequest { repair: flags.repair, repair_from: from.to_string_lossy().into_owned() };
        let mut events = admin.check_store(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            let done = event.done;
            found.take(event, line, flags.json);
            if done {
                return Ok(());
            }
        }
        Err(AdminError::Incomplete)
    })
}

fn check_here(
    settings: &UpSettings,
    flags: &FsckFlags,
    found: &mut Findings,
    line: &mut ProgressLine,
) -> Result<(), CheckError> {
    let options = CheckOptions { repair: flags.repair, repair_from: flags.repair_from.clone() };
    let runtime = tokio::runtime::Runtime::new().map_err(CheckError::Runtime)?;
    runtime.block_on(async {
        let ground = Ground::open(settings, "", "").await?;
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let say = move |event| {
            // Read until the check has ended.
            let _ = sender.send(event);
        };
        let mut check = std::pin::pin!(ground.control.check_store(options, say));
        let checked = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => found.take(progress_of(event), line, flags.json),
                checked = &mut check => break checked?,
            }
        };
        while let Ok(event) = events.try_recv() {
            found.take(progress_of(event), line, flags.json);
        }
        (found.objects, found.bytes, found.mended) = (checked.objects, checked.bytes, checked.mended);
        ground.meta.close().await;
        Ok(())
    })
}

/// An event as a server says it.
fn progress_of(event: CheckEvent) -> pb::CheckStoreProgress {
    pb::CheckStoreProgress {
        checked_objects: event.checked_objects,
        checked_bytes: event.checked_bytes,
        fault: event.fault.unwrap_or_default(),
        mended: event.mended.unwrap_or_default(),
        ..Default::default()
    }
}

/// Why a check could not be made. What it finds is no error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Open(#[from] WiringError),
    #[error(transparent)]
    Check(#[from] StorageError),
    #[error("cannot start the command")]
    Runtime(#[source] std::io::Error),
    #[error("cannot find out the current directory")]
    Absolute(#[source] std::io::Error),
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

impl Hint for CheckError {
    fn hint(&self) -> Option<String> {
        match self {
            CheckError::DataDir(error) => error.hint(),
            CheckError::Admin(error) => error.hint(),
            CheckError::Settings(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a check found.
#[derive(Debug, Default)]
struct Findings {
    objects: u64,
    bytes: u64,
    /// A fault each, with what was done about it.
    faults: Vec<(String, Option<String>)>,
    /// Faults after which all is well again.
    mended: u64,
}

impl Findings {
    /// Takes up an event, and shows it: faults at once, since a check may take hours.
    fn take(&mut self, event: pb::CheckStoreProgress, line: &mut ProgressLine, json: bool) {
        self.objects = self.objects.max(event.checked_objects);
        self.bytes = self.bytes.max(event.checked_bytes);
        self.mended = self.mended.max(event.mended_faults);
        if !event.fault.is_empty() {
            let done = (!event.mended.is_empty()).then_some(event.mended);
            if !json {
                line.clear();
                // Stdout may be a pipe that nobody reads any more; the check goes on all the same.
                let _ = crate::output::print(&fault_lines(&event.fault, done.as_deref()));
            }
            self.faults.push((event.fault, done));
        }
        line.show(|| format!("checked {} objects, {}", self.objects, size(self.bytes)));
    }

    /// The summary, and whether all is well.
    fn report(&self, flags: &FsckFlags) -> Result<(String, bool), serde_json::Error> {
        let faults = self.faults.len() as u64;
        let left = faults.saturating_sub(self.mended);
        if flags.json {
            let faults: Vec<_> =
                self.faults.iter().map(|(fault, done)| json!({ "fault": fault, "done": done })).collect();
            let report = json!({
                "ok": left == 0, "checked_objects": self.objects, "checked_bytes": self.bytes,
                "faults": faults, "mended_faults": self.mended,
            });
            return Ok((serde_json::to_string_pretty(&report)? + "\n", left == 0));
        }
        let mut text = format!("checked {} objects, {}: ", self.objects, size(self.bytes));
        let count = if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") };
        text += &match (faults, left) {
            (0, _) => "all is well\n".to_owned(),
            (_, 0) => format!("{count}, mended\n"),
            _ if flags.repair => format!(
                "{count}, {left} not mended; --repair-from takes good copies from a backup or another \
                 data directory\n"
            ),
            _ => format!("{count}; --repair mends what can be mended\n"),
        };
        Ok((text, left == 0))
    }
}

fn fault_lines(fault: &str, mended: Option<&str>) -> String {
    match mended {
        Some(mended) => format!("{fault}\n    {mended}\n"),
        None => format!("{fault}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_well_when_everything_was_mended() {
        let flags = FsckFlags { repair: true, repair_from: None, json: false };
        let mut found = Findings { objects: 2, bytes: 1024, ..Findings::default() };
        assert_eq!(found.report(&flags).unwrap(), ("checked 2 objects, 1.0 KiB: all is well\n".into(), true));
        found.faults.push(("object x is altered".into(), Some("a good copy is in its place".into())));
        found.mended = 1;
        assert!(found.report(&flags).unwrap().1);
        found.faults.push(("object z is altered".into(), Some("it was put aside".into())));
        let (text, well) = found.report(&flags).unwrap();
        assert!(!well && text.contains("2 faults, 1 not mended; --repair-from"), "{text}");
        let json = FsckFlags { json: true, ..flags };
        let value: serde_json::Value = serde_json::from_str(&found.report(&json).unwrap().0).unwrap();
        assert_eq!(value["faults"][0]["done"], "a good copy is in its place");
        assert_eq!(value["ok"], false);
    }
}
