//! One logical line to one [`Instruction`].

use super::lines::Line;
use super::{Fault, words};

/// A command in shell form (given to the shell as it stands) or exec form (an argument vector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell.
    Shell(String),
    /// Arguments, run without a shell.
    Exec(Vec<String>),
}

impl CommandLine {
    /// The argument vector, with `shell` before a shell form.
    pub fn argv(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(argv) => argv.clone(),
            Self::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }
}

/// What one Dockerfile command says. Words still hold their quotes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM`.
    From {
        /// The image or the name of a parent.
        image: String,
        /// `--platform`, if given.
        platform: Option<String>,
    },
    /// `RUN`.
    Run(CommandLine),
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `COPY`, or `ADD` of local files, which does the same.
    Copy {
        /// Paths or patterns in the build context.
        sources: Vec<String>,
        /// Path in the image.
        destination: String,
    },
    /// `ENV`.
    Env(Vec<(String, String)>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `ARG`: names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `EXPOSE`, `VOLUME`, `STOPSIGNAL`, `HEALTHCHECK`, `MAINTAINER`: nothing here acts on them.
    Noted {
        /// The instruction's name in capitals.
        keyword: String,
    },
}

pub(super) fn read(line: &Line) -> Result<Instruction, Fault> {
    let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let rest = rest.trim();
    let keyword = word.to_ascii_uppercase();
    if rest.is_empty() && is_known(&keyword) {
        return Err(Fault::Arguments(format!("{keyword} needs arguments")));
    }
    if keyword != "FROM" {
        refuse_flag(&keyword, rest)?;
    }
    match keyword.as_str() {
        "FROM" => from(rest),
        "RUN" => {
            refuse_heredoc("RUN", rest, line)?;
            Ok(Instruction::Run(command_line(rest)))
        }
        "CMD" => Ok(Instruction::Cmd(command_line(rest))),
        "ENTRYPOINT" => Ok(Instruction::Entrypoint(command_line(rest))),
        "COPY" | "ADD" => copy(&keyword, rest, line),
        "ENV" => Ok(Instruction::Env(pairs("ENV", rest)?)),
        "LABEL" => Ok(Instruction::Label(pairs("LABEL", rest)?)),
        "ARG" => arg(rest),
        "WORKDIR" => Ok(Instruction::Workdir(rest.to_owned())),
        "USER" => Ok(Instruction::User(rest.to_owned())),
        "SHELL" => match json_strings(rest) {
            Some(argv) if !argv.is_empty() => Ok(Instruction::Shell(argv)),
            _ => Err(Fault::Arguments(
                "SHELL needs a JSON array, for example [\"/bin/bash\", \"-c\"]".to_owned(),
            )),
        },
        "EXPOSE" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "MAINTAINER" => {
            Ok(Instruction::Noted { keyword })
        }
        "ONBUILD" => Err(Fault::Unsupported("ONBUILD".to_owned())),
        _ => Err(Fault::UnknownInstruction(word.to_owned())),
    }
}

fn is_known(keyword: &str) -> bool {
    const KNOWN: [&str; 17] = [
        "FROM",
        "RUN",
        "CMD",
        "ENTRYPOINT",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "WORKDIR",
        "USER",
        "SHELL",
        "EXPOSE",
        "VOLUME",
        "STOPSIGNAL",
        "MAINTAINER",
        "ONBUILD",
    ];
    KNOWN.contains(&keyword)
}

fn refuse_flag(keyword: &str, rest: &str) -> Result<(), Fault> {
    let takes_flags = matches!(keyword, "RUN" | "COPY" | "ADD");
    match rest.split_whitespace().next() {
        Some(word) if takes_flags && word.starts_with("--") && word.len() > 2 => {
            let flag = word.split('=').next().unwrap_or(word);
            Err(Fault::Unsupported(format!("{keyword} with {flag}")))
        }
        _ => Ok(()),
    }
}

/// Docker takes `<<NAME` as a heredoc; without one the shell would read the next instructions as text.
fn refuse_heredoc(keyword: &str, rest: &str, line: &Line) -> Result<(), Fault> {
    let starts_heredoc = |word: &String| {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        word.strip_prefix("<<").is_some_and(|name| {
            let name = name.strip_prefix('-').unwrap_or(name);
            !name.is_empty() && !name.contains('<')
        })
    };
    if line.has_follower && words::split(rest).iter().any(starts_heredoc) {
        return Err(Fault::Unsupported(format!("{keyword} with a heredoc")));
    }
    Ok(())
}

fn from(rest: &str) -> Result<Instruction, Fault> {
    let mut platform = None;
    let mut words = rest.split_whitespace().peekable();
    while let Some(flag) = words.next_if(|word| word.starts_with("--")) {
        match flag.split_once('=') {
            Some(("--platform", value)) => platform = Some(value.to_owned()),
            _ => return Err(Fault::Unsupported(format!("FROM with {flag}"))),
        }
    }
    match words.collect::<Vec<_>>().as_slice() {
        [image] => Ok(Instruction::From { image: (*image).to_owned(), platform }),
        [image, as_word, _name] if as_word.eq_ignore_ascii_case("as") => {
            Ok(Instruction::From { image: (*image).to_owned(), platform })
        }
        _ => Err(Fault::Arguments("FROM needs one image, optionally with `AS name`".to_owned())),
    }
}

fn copy(keyword: &str, rest: &str, line: &Line) -> Result<Instruction, Fault> {
    refuse_heredoc(keyword, rest, line)?;
    let mut words =
        json_strings(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let destination = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(Fault::Arguments(format!("{keyword} needs at least one source and a destination")));
    }
    if keyword == "ADD" {
        words.iter().try_for_each(|source| refuse_special_add(source))?;
    }
    Ok(Instruction::Copy { sources: words, destination })
}

/// `ADD` fetches URLs and unpacks archives; plain files it copies as `COPY` does.
fn refuse_special_add(source: &str) -> Result<(), Fault> {
    const ARCHIVES: [&str; 9] =
        [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"];
    let lower = source.to_ascii_lowercase();
    if lower.contains("://") || lower.starts_with("git@") {
        return Err(Fault::Unsupported("ADD of a URL (fetch it in a RUN instead)".to_owned()));
    }
    if ARCHIVES.iter().any(|suffix| lower.ends_with(suffix)) {
        return Err(Fault::Unsupported(
            "ADD of an archive (COPY it and unpack it in a RUN instead)".to_owned(),
        ));
    }
    Ok(())
}

fn command_line(rest: &str) -> CommandLine {
    match json_strings(rest) {
        Some(argv) => CommandLine::Exec(argv),
        None => CommandLine::Shell(rest.to_owned()),
    }
}

fn json_strings(rest: &str) -> Option<Vec<String>> {
    if !rest.starts_with('[') {
        return None;
    }
    serde_json::from_str(rest).ok()
}

/// `NAME=value NAME=value`, or the old form `NAME the rest of the line`.
fn pairs(keyword: &str, rest: &str) -> Result<Vec<(String, String)>, Fault> {
    let words = words::split(rest);
    let is_old_form = words.first().is_none_or(|word| !word.contains('='));
    if is_old_form {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or_else(|| {
            Fault::Arguments(format!("{keyword} needs a value for {rest}, as in {rest}=value"))
        })?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Fault::Arguments(format!("{keyword} needs NAME=value, found `{word}`"))),
        })
        .collect()
}

fn arg(rest: &str) -> Result<Instruction, Fault> {
    let names = words::split(rest)
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Fault::Arguments(format!("ARG needs a name, found `{word}`"))),
            Some((name, default)) => Ok((name.to_owned(), Some(default.to_owned()))),
            None => Ok((word, None)),
        })
        .collect::<Result<_, _>>()?;
    Ok(Instruction::Arg(names))
}
