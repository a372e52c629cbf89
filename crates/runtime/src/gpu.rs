//! NVIDIA GPUs of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cdi::Registry;
use crate::deadline;

/// The driver's own list of GPUs, one directory each.
const DRIVER_LIST: &str = "/proc/driver/nvidia/gpus";
/// A driver that hangs must not hang the service.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A GPU that containers can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Fully qualified CDI device name, for example `nvidia.com/gpu=0`.
    pub device: String,
    /// Model in upper-case words, for example `H200` or `A100-80GB`; empty if unknown.
    pub model: String,
    /// Memory; 0 if unknown.
    pub memory_bytes: u64,
}

/// What the driver says of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Description {
    index: String,
    uuid: String,
    name: String,
    memory_bytes: u64,
}

/// The GPUs of this machine for which a CDI specification in one of `cdi_dirs` has a device. One without is logged:
/// containers can't be given it.
pub fn gpus(cdi_dirs: &[PathBuf]) -> Vec<Gpu> {
    let registry = Registry::load(cdi_dirs);
    let mut found = Vec::new();
    for gpu in installed() {
        let names = [&gpu.index, &gpu.uuid].map(|name| format!("nvidia.com/gpu={name}"));
        match names.into_iter().find(|name| registry.has(name)) {
            Some(device) => found.push(Gpu {
                device,
                model: model(&gpu.name, gpu.memory_bytes),
                memory_bytes: gpu.memory_bytes,
            }),
            None => tracing::warn!(
                gpu = gpu.name,
                index = gpu.index,
                "containers can't be given this GPU: run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
            ),
        }
    }
    found
}

/// How many GPUs the driver lists, with or without a CDI specification.
pub(crate) fn driver_count() -> usize {
    fs::read_dir(DRIVER_LIST).map_or(0, Iterator::count)
}

fn installed() -> Vec<Description> {
    if driver_count() == 0 {
        return Vec::new();
    }
    match ask_driver() {
        Some(text) => parse_query(&text),
        None => read_driver_list(Path::new(DRIVER_LIST)),
    }
}

fn ask_driver() -> Option<String> {
    let mut child = Command::new("nvidia-smi")
        .args(["--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // The answer is shorter than a pipe holds, so it can be read after the end.
    let status = deadline::wait(&mut child, TIMEOUT).ok()??;
    let text = std::io::read_to_string(child.stdout.take()?).ok()?;
    status.success().then_some(text)
}

/// Lines of `index, uuid, name, MiB`.
fn parse_query(text: &str) -> Vec<Description> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(str::trim);
            Some(Description {
                index: fields.next()?.to_owned(),
                uuid: fields.next()?.to_owned(),
                name: fields.next()?.to_owned(),
                memory_bytes: fields.next()?.parse::<u64>().unwrap_or(0) << 20,
            })
        })
        .collect()
}

fn read_driver_list(directory: &Path) -> Vec<Description> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<Description> = entries
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("information")).ok())
        .filter_map(|text| parse_information(&text))
        .collect();
    found.sort_by_key(|gpu| gpu.index.parse::<u32>().unwrap_or(u32::MAX));
    found
}

/// Lines of `Key: value`; memory isn't among them.
fn parse_information(text: &str) -> Option<Description> {
    let value = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    Some(Description {
        index: value("Device Minor")?,
        uuid: value("GPU UUID").unwrap_or_default(),
        name: value("Model")?,
        memory_bytes: 0,
    })
}

/// The word by which people ask for the model: the driver's name without vendor, family and packaging.
fn model(name: &str, memory_bytes: u64) -> String {
    let words: Vec<String> = name
        .split([' ', '-'])
        .filter(|word| !["NVIDIA", "TESLA", "QUADRO", "GEFORCE"].contains(&word.to_uppercase().as_str()))
        .filter(|word| !word.is_empty())
        .map(str::to_uppercase)
        .collect();
    let Some(first) = words.first() else {
        return String::new();
    };
    if first == "RTX" || first == "GTX" {
        // `RTX 4090`, `RTX PRO 6000 Blackwell …`: up to the number.
        let numbered = words.iter().position(|word| word.bytes().any(|byte| byte.is_ascii_digit()));
        return words[..numbered.map_or(words.len(), |last| last + 1)].join("-");
    }
    // The one model that people tell apart by memory.
    if first == "A100" {
        let named = words.iter().find(|word| *word == "40GB" || *word == "80GB");
        return match named {
            Some(size) => format!("A100-{size}"),
            None if memory_bytes > 48 << 30 => "A100-80GB".to_owned(),
            None if memory_bytes > 0 => "A100-40GB".to_owned(),
            None => first.clone(),
        };
    }
    first.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_the_words_that_people_ask_for() {
        for (name, expected) in [
            ("NVIDIA H200", "H200"),
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
            ("NVIDIA A100 80GB PCIe", "A100-80GB"),
            ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
            ("NVIDIA L4", "L4"),
            ("NVIDIA L40S", "L40S"),
            ("Tesla T4", "T4"),
            ("NVIDIA A10G", "A10G"),
            ("NVIDIA GeForce RTX 4090", "RTX-4090"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
            ("", ""),
        ] {
            assert_eq!(model(name, 0), expected, "{name}");
        }
        assert_eq!(model("NVIDIA A100", 40 << 30), "A100-40GB");
    }

    #[test]
    fn both_of_the_drivers_accounts_are_understood() {
        assert_eq!(
            parse_query("0, GPU-8a1b, NVIDIA H200, 143771\n"),
            [Description {
                index: "0".into(),
                uuid: "GPU-8a1b".into(),
                name: "NVIDIA H200".into(),
                memory_bytes: 143_771 << 20,
            }]
        );
        let information = "Model: \t\t NVIDIA L4\nIRQ:   \t\t 90\nGPU UUID: \t GPU-77aa\nBus Location: \t 0000:00:03.0\nDevice Minor: \t 2\n";
        let gpu = parse_information(information).unwrap();
        assert_eq!(
            (gpu.index.as_str(), gpu.uuid.as_str(), gpu.name.as_str()),
            ("2", "GPU-77aa", "NVIDIA L4")
        );
    }
}
