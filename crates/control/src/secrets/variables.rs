//! Environment variables whose values nobody prints by mistake.

use std::collections::BTreeMap;

use homeport_proto::record as rec;

use super::SecretError;

/// The longest `NAME=VALUE` in bytes: the kernel takes no more for one string of a program's environment.
const LONGEST: usize = (128 << 10) - 1;
/// The most bytes of all variables of one secret.
const MOST: usize = 1 << 20;

/// Names and values. `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables(BTreeMap<String, String>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Variables").field(&self.0.keys()).finish()
    }
}

impl Variables {
    /// What a user sent, if it can be an environment.
    pub(crate) fn checked(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SecretError> {
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        let mut total = 0;
        for (key, value) in &variables {
            let length = key.len() + value.len() + 1;
            total += length;
            let reason = match () {
                () if key.is_empty() => "its name is empty",
                () if key.contains(['=', '\0']) => "a name has no `=` and no zero byte",
                () if value.contains('\0') => "a value has no zero byte",
                () if length > LONGEST => "with its name it is longer than 128 KiB",
                () if total > MOST => "the secret is longer than 1 MiB",
                () => continue,
            };
            return Err(SecretError::Variable { key: key.clone(), reason });
        }
        Ok(Self(variables))
    }

    /// The names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Adds others; theirs win.
    pub(crate) fn extend(&mut self, others: Variables) {
        self.0.extend(others.0);
    }

    /// Takes some out.
    pub(crate) fn remove(&mut self, names: &[String]) {
        for name in names {
            self.0.remove(name);
        }
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl IntoIterator for Variables {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Variables> for rec::SecretValues {
    fn from(variables: Variables) -> Self {
        Self { variables: variables.0.into_iter().collect() }
    }
}

impl From<rec::SecretValues> for Variables {
    fn from(values: rec::SecretValues) -> Self {
        Self(values.variables.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(key: &str, value: &str) -> Result<Variables, SecretError> {
        Variables::checked([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", checked("TOKEN", "hunter2").unwrap());
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_cannot_be_an_environment_is_refused_without_its_value() {
        let long = "v".repeat(LONGEST);
        for (key, value) in [("", "hunter2"), ("A=B", "hunter2"), ("A", "hunter2\0"), ("A", long.as_str())] {
            let text = checked(key, value).unwrap_err().to_string();
            assert!(!text.contains("hunter2") && !text.contains("vvv"), "{text}");
        }
        assert!(checked("A", "").is_ok());
    }
}
