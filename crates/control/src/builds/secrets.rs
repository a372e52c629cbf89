//! What builds get of secrets: the environment of commands, and logins at registries.
//!
//! Values go into the order to the worker and nowhere else: neither into a key, nor into a record, nor into a log.

use std::collections::{BTreeMap, BTreeSet};

use homeport_image::Credentials;
use homeport_proto::client as pb;
use pb::RegistryAuthType;

use super::BuildError;
use crate::control::Control;

/// The user name under which Google's registries take a service account.
const GOOGLE_USER: &str = "_json_key";

impl Control {
    /// The names of the variables in these secrets.
    pub(super) fn names_of_secrets(&self, ids: &[String]) -> Result<BTreeSet<String>, BuildError> {
        let mut names = BTreeSet::new();
        for id in ids {
            names.extend(self.secrets.find(id)?.record.keys.iter().cloned());
        }
        Ok(names)
    }

    /// The variables that the commands of a layer find in their environment.
    pub(super) fn secret_environment(
        &self,
        image: &pb::Image,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        Ok(self.secrets.environment(&image.secret_ids)?.into_iter().collect())
    }

    /// The login for the registry of the base, if the request brings one.
    pub(super) fn registry_login(&self, image: &pb::Image) -> Result<Option<Credentials>, BuildError> {
        let Some(config) = image.image_registry_config.as_ref().filter(|config| !config.secret_id.is_empty())
        else {
            return Ok(None);
        };
        let ids = std::slice::from_ref(&config.secret_id);
        let mut variables: BTreeMap<String, String> = self.secrets.environment(ids)?.into_iter().collect();
        let mut take = |name: &str| {
            variables.remove(name).ok_or_else(|| {
                BuildError::Request(format!(
                    "the secret for the registry has no {name}; add it to the secret"
                ))
            })
        };
        let (username, password) = match config.registry_auth_type() {
            RegistryAuthType::Public => return Ok(None),
            RegistryAuthType::Gcp => (GOOGLE_USER.to_owned(), take("SERVICE_ACCOUNT_JSON")?),
            RegistryAuthType::Unspecified | RegistryAuthType::StaticCreds => {
                (take("REGISTRY_USERNAME")?, take("REGISTRY_PASSWORD")?)
            }
            RegistryAuthType::Aws => {
                return Err(BuildError::Request(
                    "logging in at AWS ECR with AWS keys is not supported by this Homeport: use \
                     `Image.from_registry(…, secret=…)` with REGISTRY_USERNAME=AWS and what \
                     `aws ecr get-login-password` prints as REGISTRY_PASSWORD"
                        .into(),
                ));
            }
        };
        Ok(Some(Credentials { username, password }))
    }
}
