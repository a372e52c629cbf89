//! `homeport doctor`: what this machine has and lacks.

mod checks;
mod network;
mod report;

use std::path::Path;

use homeport_meta::unknown_methods::{self, UnknownMethod};

use crate::data_dir::DataDir;
use crate::failure::Hint;
use crate::namespace::enter_private_mounts;
use crate::tokens::{TokenError, block_on};
use report::Report;

/// The report could not be made. What is wrong with the machine is in the report instead.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report as JSON")]
pub(crate) struct DoctorError(#[from] serde_json::Error);

impl Hint for DoctorError {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Checks everything; returns the report, and whether all that is needed is there.
pub(crate) fn run(data_dir: &Path, json: bool) -> Result<(String, bool), DoctorError> {
    // Trial mounts must not be seen by others. Without the right to mount, the checks say so.
    let _ = enter_private_mounts();
    let report = Report { checks: checks::all(data_dir), unknown_methods: unknown_methods(data_dir) };
    let text =
        if json { serde_json::to_string_pretty(&report.as_json())? + "\n" } else { report.to_string() };
    Ok((text, report.needed_is_there()))
}

/// What clients asked for in vain. A data directory without a database has nothing to tell.
fn unknown_methods(data_dir: &Path) -> Vec<UnknownMethod> {
    let Ok(data_dir) = DataDir::existing(data_dir) else {
        return Vec::new();
    };
    let listed: Result<_, TokenError> = block_on(async {
        let meta = homeport_meta::Meta::open(data_dir.root()).await?;
        Ok(unknown_methods::list(&meta).await?)
    });
    listed.unwrap_or_default()
}
