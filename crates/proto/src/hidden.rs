//! `Debug` of messages that hold secrets: what they are about, never a value.

use std::collections::HashMap;
use std::fmt::{Debug, Formatter, Result};

use crate::client::{SecretGetOrCreateRequest, secret_update_request};
use crate::record::SecretValues;
use crate::worker::{PullBase, RunCommand, StartTask};

fn names(variables: &HashMap<String, String>) -> Vec<&String> {
    let mut names: Vec<_> = variables.keys().collect();
    names.sort();
    names
}

impl Debug for SecretGetOrCreateRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("SecretGetOrCreateRequest")
            .field("deployment_name", &self.deployment_name)
            .field("environment_name", &self.environment_name)
            .field("object_creation_type", &self.object_creation_type())
            .field("env_dict", &names(&self.env_dict))
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl Debug for secret_update_request::Update {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Update").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Debug for SecretValues {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("SecretValues").field("variables", &names(&self.variables)).finish()
    }
}

impl Debug for StartTask {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("StartTask")
            .field("task_id", &self.task_id)
            .field("layers", &self.layers)
            .field("env", &names(&self.env))
            .finish_non_exhaustive()
    }
}

impl Debug for RunCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RunCommand")
            .field("layers", &self.layers)
            .field("argv", &self.argv)
            .field("env", &names(&self.env))
            .finish_non_exhaustive()
    }
}

impl Debug for PullBase {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("PullBase").field("reference", &self.reference).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_in_no_debug_text() {
        let variables = HashMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
        let shown = [
            format!("{:?}", SecretGetOrCreateRequest { env_dict: variables.clone(), ..Default::default() }),
            format!("{:?}", SecretValues { variables: variables.clone() }),
            format!("{:?}", StartTask { env: variables.clone(), ..Default::default() }),
            format!("{:?}", RunCommand { env: variables, ..Default::default() }),
            format!(
                "{:?}",
                secret_update_request::Update { key: "TOKEN".into(), value: Some("hunter2".into()) }
            ),
        ];
        for text in shown {
            assert!(text.contains("TOKEN") && !text.contains("hunter2"), "{text}");
        }
    }
}
