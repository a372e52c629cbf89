//! What stands between an instruction and its arguments: `--chown=…`, `--mount=…`.

use super::Fault;

/// The flags of `COPY` and `ADD`.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) from: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) mode: Option<u32>,
}

/// Parts the flags at the beginning from the rest.
pub(super) fn split(rest: &str) -> (Vec<&str>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest;
    while rest.starts_with("--") {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if word.len() == 2 {
            break;
        }
        flags.push(word);
        rest = after.trim_start();
    }
    (flags, rest)
}

pub(super) fn copy(keyword: &str, flags: &[&str]) -> Result<Flags, Fault> {
    let mut found = Flags::default();
    for flag in flags {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("--from", stage) if keyword == "COPY" && !stage.is_empty() => {
                found.from = Some(stage.to_owned());
            }
            ("--chown", owner) if !owner.is_empty() => found.owner = Some(owner.to_owned()),
            ("--chmod", mode) => found.mode = Some(octal(keyword, mode)?),
            // A matter of how layers are kept: the files are the same.
            ("--link", "" | "true" | "false") => {}
            (name, _) => return Err(Fault::Unsupported(format!("{keyword} with {name}"))),
        }
    }
    Ok(found)
}

fn octal(keyword: &str, mode: &str) -> Result<u32, Fault> {
    match u32::from_str_radix(mode, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => {
            Err(Fault::Arguments(format!("{keyword} needs an octal mode, as in --chmod=755, found `{mode}`")))
        }
    }
}

/// The directories that `RUN` shall find empty and not keep.
pub(super) fn run(flags: &[&str]) -> Result<Vec<String>, Fault> {
    let mut scratch = Vec::new();
    for flag in flags {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("--mount", fields) => scratch.push(scratch_directory(fields)?),
            ("--network", "default") => {}
            (name, _) => return Err(Fault::Unsupported(format!("RUN with {name}"))),
        }
    }
    Ok(scratch)
}

/// A cache may be empty at any time, so one that always is keeps its promise.
fn scratch_directory(fields: &str) -> Result<String, Fault> {
    let (mut kind, mut target) = ("bind", None);
    for field in fields.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = value,
            Some(("target" | "dst" | "destination", value)) => target = Some(value),
            _ => {}
        }
    }
    match kind {
        "cache" | "tmpfs" => {}
        "secret" => {
            return Err(Fault::Unsupported(
                "RUN with --mount=type=secret (give the secret with `secrets=[…]`: the command finds it in its environment)"
                    .to_owned(),
            ));
        }
        other => return Err(Fault::Unsupported(format!("RUN with --mount=type={other}"))),
    }
    match target {
        Some(target) if target.starts_with('/') && !target.trim_matches('/').is_empty() => {
            Ok(target.to_owned())
        }
        _ => Err(Fault::Arguments(format!("RUN --mount=type={kind} needs an absolute path as its target"))),
    }
}
