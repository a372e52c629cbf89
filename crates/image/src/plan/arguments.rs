//! `ARG`: values that are known while an image is built and not kept in it.

use std::collections::BTreeMap;

use crate::config::ImageConfig;
use crate::dockerfile::{DockerfileError, Located, expand};

/// Values by name.
pub(super) type Values = BTreeMap<String, String>;

/// What every build knows of the machine. A stage sees one of these once it declares it.
pub(super) fn of_platform() -> Values {
    let architecture = crate::base::architecture();
    let platform = format!("linux/{architecture}");
    ["TARGET", "BUILD"]
        .into_iter()
        .flat_map(|kind| {
            [
                (format!("{kind}PLATFORM"), platform.clone()),
                (format!("{kind}OS"), "linux".to_owned()),
                (format!("{kind}ARCH"), architecture.to_owned()),
                (format!("{kind}VARIANT"), String::new()),
            ]
        })
        .collect()
}

/// Declares `names`. The values that a build is `given` win over defaults, and those over what holds
/// `outside` of the stage.
pub(super) fn declare(
    located: &Located,
    names: &[(String, Option<String>)],
    arguments: &mut Values,
    given: &Values,
    outside: &Values,
    config: &ImageConfig,
) -> Result<(), DockerfileError> {
    for (name, default) in names {
        let value = match (given.get(name), default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| {
                    config.get_env(name).map(str::to_owned).or_else(|| arguments.get(name).cloned())
                };
                let value = expand(default, &lookup)
                    .map_err(|fault| DockerfileError::at(located.line, &located.text, fault))?;
                Some(value)
            }
            (None, None) => outside.get(name).cloned(),
        };
        if let Some(value) = value {
            arguments.insert(name.clone(), value);
        }
    }
    Ok(())
}
