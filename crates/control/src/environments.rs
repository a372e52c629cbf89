//! Environments: names of apps, Volumes, network file systems and secrets live in one each.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use homeport_meta::{Meta, QueryError, environments};
use homeport_proto::client as pb;
use tonic::Status;

use crate::clock::Seconds;
use crate::control::Control;
use crate::registry::millis;

/// The environment of those who name none. It is always there.
pub(crate) const DEFAULT: &str = "main";
/// The longest name.
const NAME_LIMIT: usize = 64;

/// All environments of a server.
#[derive(Debug)]
pub(crate) struct Environments {
    meta: Meta,
    /// When each was made, by name.
    made: RwLock<BTreeMap<String, Seconds>>,
}

/// Why an environment could not be made, found or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("there is no environment `{0}`: make it with `modal environment create {0}`")]
    Unknown(String),
    #[error("an environment `{0}` exists already")]
    Exists(String),
    #[error(
        "`{0}` is no name for an environment: letters, digits, `-` and `_`, at most {NAME_LIMIT} of them, with a \
         letter or digit in front"
    )]
    Name(String),
    #[error("the environment `{DEFAULT}` stays: it is that of everybody who names none")]
    Default,
    #[error("the server's database failed: {0}")]
    Query(#[from] QueryError),
}

impl From<EnvironmentError> for Status {
    fn from(error: EnvironmentError) -> Self {
        let text = error.to_string();
        match error {
            EnvironmentError::Unknown(_) => Self::not_found(text),
            EnvironmentError::Exists(_) => Self::already_exists(text),
            EnvironmentError::Name(_) => Self::invalid_argument(text),
            EnvironmentError::Default => Self::failed_precondition(text),
            // Clients try again after this one.
            EnvironmentError::Query(_) => Self::unavailable(text),
        }
    }
}

impl Environments {
    /// Reads which there are.
    pub(crate) async fn load(meta: Meta) -> Result<Self, QueryError> {
        let rows = environments::list(&meta).await?;
        let mut made: BTreeMap<String, Seconds> =
            rows.into_iter().map(|row| (row.name, row.created_at as Seconds / 1000.0)).collect();
        made.entry(DEFAULT.to_owned()).or_insert(0.0);
        Ok(Self { meta, made: RwLock::new(made) })
    }

    /// All of them, by name, with the time when each was made; 0 = with the server.
    pub(crate) fn list(&self) -> Vec<(String, Seconds)> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }

    /// The environment of this name, or the default one.
    pub(crate) fn named(&self, name: &str) -> Result<String, EnvironmentError> {
        let name = or_default(name);
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        if made.contains_key(&name) { Ok(name) } else { Err(EnvironmentError::Unknown(name)) }
    }

    /// Makes one.
    pub(crate) async fn create(&self, name: &str, now: Seconds) -> Result<(), EnvironmentError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !name.starts_with("en-")
            && name.len() <= NAME_LIMIT
            && name.chars().all(fits);
        if !is_name {
            return Err(EnvironmentError::Name(name.to_owned()));
        }
        let row = environments::Environment { name: name.to_owned(), created_at: millis(now) };
        if name == DEFAULT || !environments::insert(&self.meta, &row).await? {
            return Err(EnvironmentError::Exists(name.to_owned()));
        }
        self.made.write().unwrap_or_else(PoisonError::into_inner).insert(row.name, now);
        Ok(())
    }

    async fn forget(&self, name: &str) -> Result<(), EnvironmentError> {
        environments::delete(&self.meta, name).await?;
        self.made.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}

/// The name of the environment that is meant.
pub(crate) fn or_default(name: &str) -> String {
    if name.is_empty() { DEFAULT.to_owned() } else { name.to_owned() }
}

impl Control {
    /// The environment that a request means.
    pub(crate) fn environment(&self, name: &str) -> Result<String, EnvironmentError> {
        self.environments.named(name)
    }

    /// Deletes an environment with all that has a name in it. What fails on the way can be repeated: the environment
    /// goes last.
    pub(crate) async fn delete_environment(&self, name: &str) -> Result<(), Status> {
        let name = self.environments.named(name)?;
        if name == DEFAULT {
            return Err(EnvironmentError::Default.into());
        }
        for app in self.registry.apps().iter().filter(|app| app.environment == name) {
            if app.state() != pb::AppState::Stopped {
                self.stop_app(&app.id).await?;
            }
        }
        for volume in self.volumes.list(&name) {
            self.volumes.delete(&volume.id).await?;
        }
        for record in self.network_files.list(&name) {
            self.network_files.delete(&record.id).await?;
        }
        for secret in self.secrets.list(&name) {
            self.secrets.delete(&secret.record.id).await?;
        }
        Ok(self.environments.forget(&name).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn environments_outlive_a_restart_and_the_default_one_is_always_there() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        let environments = Environments::load(meta.clone()).await.unwrap();
        assert_eq!(environments.named("").unwrap(), DEFAULT);
        environments.create("dev", 5.0).await.unwrap();
        assert!(matches!(environments.create("dev", 6.0).await, Err(EnvironmentError::Exists(_))));
        assert!(matches!(environments.create(DEFAULT, 6.0).await, Err(EnvironmentError::Exists(_))));

        let again = Environments::load(meta).await.unwrap();
        assert_eq!(again.list(), [("dev".to_owned(), 5.0), (DEFAULT.to_owned(), 0.0)]);
        again.forget("dev").await.unwrap();
        assert!(matches!(again.named("dev"), Err(EnvironmentError::Unknown(_))));
    }

    #[tokio::test]
    async fn names_that_clients_refuse_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let environments = Environments::load(Meta::open(dir.path()).await.unwrap()).await.unwrap();
        let long = "a".repeat(NAME_LIMIT + 1);
        for name in ["", "-a", "en-1", "a b", "ä", "a/b", long.as_str()] {
            assert!(matches!(environments.create(name, 1.0).await, Err(EnvironmentError::Name(_))), "{name}");
        }
    }
}
