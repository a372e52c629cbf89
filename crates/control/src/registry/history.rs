//! What was deployed when.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use homeport_meta::{Meta, deployments};
use homeport_proto::record as rec;
use prost::Message as _;

use super::{
    CLASS, FUNCTION, Registry, RegistryError, app_row, decode, insert, millis, object_row, read, write,
};
use crate::functions;

/// Versions of an app that can come back. Of older ones is known that they were there.
const KEPT_VERSIONS: usize = 10;

/// The versions of each app, the oldest first.
pub(super) type History = std::sync::RwLock<HashMap<String, Vec<Arc<rec::Deployment>>>>;

/// Reads the history of the apps that `lives` knows, and removes that of others.
pub(super) async fn load(meta: &Meta, lives: impl Fn(&str) -> bool) -> Result<History, RegistryError> {
    let mut history: HashMap<String, Vec<_>> = HashMap::new();
    let mut orphans = HashSet::new();
    for row in deployments::list(meta).await? {
        if lives(&row.app_id) {
            let deployment = decode::<rec::Deployment>(&row.app_id, &row.record)?;
            history.entry(row.app_id).or_default().push(Arc::new(deployment));
        } else {
            orphans.insert(row.app_id);
        }
    }
    for app_id in orphans {
        deployments::delete_by_app(meta, &app_id).await?;
    }
    Ok(History::new(history))
}

impl Registry {
    /// The versions of an app, the oldest first.
    pub(crate) fn deployments(&self, app_id: &str) -> Vec<Arc<rec::Deployment>> {
        read(&self.history).get(app_id).cloned().unwrap_or_default()
    }

    /// Writes an app with those of its functions and classes that change, and the version that this makes, all at once
    /// or not at all.
    pub(crate) async fn publish(
        &self,
        app: rec::App,
        functions: Vec<rec::Function>,
        classes: Vec<rec::Class>,
        deployment: Option<rec::Deployment>,
    ) -> Result<(), RegistryError> {
        let function_rows = functions
            .iter()
            .map(|function| object_row(FUNCTION, &function.id, &function.app_id, function.encode_to_vec()));
        let class_rows =
            classes.iter().map(|class| object_row(CLASS, &class.id, &class.app_id, class.encode_to_vec()));
        let objects: Vec<_> = function_rows.chain(class_rows).collect();
        let mut versions = self.deployments(&app.id);
        let mut changed = Vec::new();
        if let Some(deployment) = deployment {
            versions.push(Arc::new(deployment));
            let first_kept = versions.len().saturating_sub(KEPT_VERSIONS);
            for old in versions[..first_kept].iter_mut().filter(|old| !old.functions.is_empty()) {
                let forgotten = Arc::make_mut(old);
                forgotten.functions.clear();
                forgotten.classes.clear();
                changed.push(row(forgotten));
            }
            changed.extend(versions.last().map(|newest| row(newest)));
        }
        let app_row = app_row(&app);
        let publication =
            deployments::Publication { app: &app_row, objects: &objects, deployments: &changed };
        deployments::publish(&self.meta, &publication).await?;
        for function in functions {
            insert(&self.functions, function.id.clone(), function);
        }
        for class in classes {
            insert(&self.classes, class.id.clone(), class);
        }
        if !versions.is_empty() {
            write(&self.history).insert(app.id.clone(), versions);
        }
        insert(&self.apps, app.id.clone(), app);
        Ok(())
    }

    pub(super) async fn forget_history(&self, app_id: &str) -> Result<(), RegistryError> {
        deployments::delete_by_app(&self.meta, app_id).await?;
        write(&self.history).remove(app_id);
        Ok(())
    }

    /// The secrets that an app needs, now and in the versions that can come back.
    pub(crate) fn secrets_of(&self, app_id: &str) -> HashSet<String> {
        let now = self.functions_of(app_id);
        let earlier = self.deployments(app_id);
        let functions = now.iter().map(AsRef::as_ref);
        let functions = functions.chain(earlier.iter().flat_map(|deployment| &deployment.functions));
        functions
            .filter_map(|function| functions::definition(self, function))
            .flat_map(|definition| definition.secret_ids)
            .collect()
    }

    /// The definitions of all versions that can come back.
    pub(super) fn earlier_functions(&self) -> Vec<Arc<rec::Deployment>> {
        read(&self.history).values().flatten().cloned().collect()
    }
}

fn row(deployment: &rec::Deployment) -> deployments::Deployment {
    deployments::Deployment {
        app_id: deployment.app_id.clone(),
        version: deployment.version.into(),
        deployed_at: millis(deployment.deployed_at),
        record: deployment.encode_to_vec(),
    }
}
