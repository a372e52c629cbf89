//! The machine's device specifications.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::CdiError;
use super::edits::Edits;

/// All specifications that could be read.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    files: Vec<SpecificationFile>,
    unreadable: Vec<String>,
}

#[derive(Debug)]
struct SpecificationFile {
    path: PathBuf,
    /// Place of its directory in the list; a later directory's devices go before an earlier one's.
    rank: usize,
    specification: Specification,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

impl Registry {
    /// Reads every specification. One that can't be read is passed over; an error about a missing device names it.
    pub(crate) fn load(directories: &[impl AsRef<Path>]) -> Registry {
        let mut registry = Registry::default();
        for (rank, directory) in directories.iter().enumerate() {
            let Ok(entries) = fs::read_dir(directory) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml")
                })
                .collect();
            paths.sort();
            for path in paths {
                match read(&path) {
                    Ok(specification) => registry.files.push(SpecificationFile { path, rank, specification }),
                    Err(message) => registry.unreadable.push(format!("`{}`: {message}", path.display())),
                }
            }
        }
        registry
    }

    /// Whether the device exists.
    pub(crate) fn has(&self, device: &str) -> bool {
        self.devices().contains_key(device)
    }

    /// What containers need for the devices, each with the name of its device: a specification's own edits once, before
    /// those of its devices. `vendor/class=all` means all devices of the kind, unless one has that name.
    pub(super) fn edits(&self, wanted: &[String]) -> Result<Vec<(String, &Edits)>, CdiError> {
        let known = self.devices();
        let mut edits = Vec::new();
        let mut specifications: Vec<&Path> = Vec::new();
        let mut given: Vec<String> = Vec::new();
        for name in wanted {
            for device in self.expand(name, &known)? {
                if given.contains(&device) {
                    continue;
                }
                let (file, own) = self.find(&device, &known)?;
                if !specifications.contains(&file.path.as_path()) {
                    specifications.push(&file.path);
                    edits.push((device.clone(), &file.specification.container_edits));
                }
                edits.push((device.clone(), &own.container_edits));
                given.push(device);
            }
        }
        Ok(edits)
    }

    fn expand(&self, name: &str, known: &Devices<'_>) -> Result<Vec<String>, CdiError> {
        let (kind, device) = name
            .split_once('=')
            .filter(|(kind, device)| {
                !device.is_empty()
                    && kind
                        .split_once('/')
                        .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty())
            })
            .ok_or_else(|| CdiError::NotQualified(name.to_owned()))?;
        if known.contains_key(name) || device != "all" {
            return Ok(vec![name.to_owned()]);
        }
        let prefix = format!("{kind}=");
        let all: Vec<String> = known.keys().filter(|device| device.starts_with(&prefix)).cloned().collect();
        if all.is_empty() {
            return Err(self.missing(name, known));
        }
        Ok(all)
    }

    fn find<'a>(
        &self,
        name: &str,
        known: &Devices<'a>,
    ) -> Result<(&'a SpecificationFile, &'a Device), CdiError> {
        let described = known.get(name).ok_or_else(|| self.missing(name, known))?;
        let best = described.iter().map(|(file, _)| file.rank).max();
        let mut first_rank = described.iter().filter(|(file, _)| Some(file.rank) == best);
        match (first_rank.next(), first_rank.next()) {
            (Some(found), None) => Ok(*found),
            (Some((first, _)), Some((second, _))) => Err(CdiError::Conflict {
                device: name.to_owned(),
                first: first.path.clone(),
                second: second.path.clone(),
            }),
            (None, _) => Err(self.missing(name, known)),
        }
    }

    fn devices(&self) -> Devices<'_> {
        let mut devices = Devices::new();
        for file in &self.files {
            for device in &file.specification.devices {
                devices
                    .entry(format!("{}={}", file.specification.kind, device.name))
                    .or_default()
                    .push((file, device));
            }
        }
        devices
    }

    fn missing(&self, device: &str, known: &Devices<'_>) -> CdiError {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        CdiError::NoDevice {
            device: device.to_owned(),
            known: if names.is_empty() {
                "no device is described".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            },
            unreadable: self.unreadable.iter().map(|file| format!("; can't be read: {file}")).collect(),
        }
    }
}

/// By qualified name, with every specification that has it.
type Devices<'a> = BTreeMap<String, Vec<(&'a SpecificationFile, &'a Device)>>;

fn read(path: &Path) -> Result<Specification, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML as well, but its own parser tells errors better.
    if path.extension().is_some_and(|end| end == "json") {
        return serde_json::from_str(&text).map_err(|error| error.to_string());
    }
    serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specification(directory: &Path, file: &str, devices: &[&str]) {
        let devices: Vec<String> = devices
            .iter()
            .map(|name| format!("  - name: '{name}'\n    containerEdits:\n      env: ['DEVICE={name}']\n"))
            .collect();
        let text = format!(
            "cdiVersion: 0.6.0\nkind: example.com/thing\ncontainerEdits:\n  env: ['FILE={file}']\ndevices:\n{}",
            devices.concat()
        );
        fs::write(directory.join(file), text).unwrap();
    }

    fn variables(registry: &Registry, wanted: &[&str]) -> Result<Vec<String>, CdiError> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let edits = registry.edits(&wanted)?;
        Ok(edits.iter().flat_map(|(_, edits)| edits.env.clone()).collect())
    }

    #[test]
    fn all_means_every_device_and_shared_edits_come_once() {
        let directory = tempfile::tempdir().unwrap();
        specification(directory.path(), "a.yaml", &["0", "1"]);
        let registry = Registry::load(&[directory.path()]);
        assert_eq!(
            variables(&registry, &["example.com/thing=all", "example.com/thing=1"]).unwrap(),
            ["FILE=a.yaml", "DEVICE=0", "DEVICE=1"]
        );
    }

    #[test]
    fn a_later_directory_wins_and_a_twin_beside_it_is_a_conflict() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        specification(etc.path(), "a.yaml", &["0"]);
        specification(run.path(), "b.yaml", &["0"]);
        let directories = [etc.path(), run.path()];
        let found = variables(&Registry::load(&directories), &["example.com/thing=0"]).unwrap();
        assert_eq!(found, ["FILE=b.yaml", "DEVICE=0"]);
        specification(run.path(), "c.yml", &["0"]);
        let conflict = variables(&Registry::load(&directories), &["example.com/thing=0"]).unwrap_err();
        assert!(matches!(conflict, CdiError::Conflict { .. }), "{conflict}");
    }

    #[test]
    fn a_missing_device_is_reported_with_those_there_are_and_files_that_are_broken() {
        let directory = tempfile::tempdir().unwrap();
        specification(directory.path(), "a.yaml", &["0"]);
        fs::write(directory.path().join("broken.json"), "{").unwrap();
        let registry = Registry::load(&[directory.path()]);
        let missing = variables(&registry, &["example.com/thing=7"]).unwrap_err().to_string();
        assert!(missing.contains("there are example.com/thing=0"), "{missing}");
        assert!(missing.contains("broken.json"), "{missing}");
        for name in ["thing", "example.com/thing", "thing=0", "/x=0", "example.com/thing="] {
            assert!(matches!(variables(&registry, &[name]), Err(CdiError::NotQualified(_))), "{name}");
        }
    }
}
