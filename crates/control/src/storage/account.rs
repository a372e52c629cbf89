//! What the database says about contents, compared with the contents.

use homeport_store::{Fault, Finding, Mended};

use super::StorageError;
use crate::control::Control;

impl Control {
    /// Compares the sums of the newest versions of Volumes with what is in them.
    pub(super) async fn check_accounts(&self, repair: bool) -> Result<Vec<Finding>, StorageError> {
        let mut findings = Vec::new();
        for recount in self.volumes.recount(repair).await? {
            let said = format!("{} files of {} bytes", recount.said.0, recount.said.1);
            let found = format!("{} files of {} bytes", recount.found.0, recount.found.1);
            let fault =
                Fault::Account(format!("Volume {} says that it has {said}, and has {found}", recount.name));
            let mended = recount.corrected.then(|| Mended::Corrected(format!("it says {found} now")));
            findings.push(Finding { fault, mended });
        }
        Ok(findings)
    }
}
