//! One logical line to one [`Instruction`].

use super::flags::{self, Flags};
use super::instruction::{CommandLine, CopyInstruction, InlineFile, Instruction};
use super::lines::Line;
use super::{Fault, heredoc, words};

const KNOWN: [&str; 18] = [
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
    "HEALTHCHECK",
    "STOPSIGNAL",
    "MAINTAINER",
    "ONBUILD",
];

pub(super) fn instruction(line: &Line) -> Result<Instruction, Fault> {
    let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let rest = rest.trim();
    let keyword = word.to_ascii_uppercase();
    if rest.is_empty() && KNOWN.contains(&keyword.as_str()) {
        return Err(Fault::Arguments(format!("{keyword} needs arguments")));
    }
    match keyword.as_str() {
        "FROM" => from(rest),
        "RUN" => run(rest, line),
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
        "ONBUILD" => Err(Fault::Unsupported(
            "ONBUILD (write the instruction into the image that is built on this one)".to_owned(),
        )),
        _ => Err(Fault::UnknownInstruction(word.to_owned())),
    }
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
    let (image, name) = match words.collect::<Vec<_>>().as_slice() {
        [image] => (*image, None),
        [image, as_word, name] if as_word.eq_ignore_ascii_case("as") => {
            (*image, Some(name.to_ascii_lowercase()))
        }
        _ => return Err(Fault::Arguments("FROM needs one image, optionally with `AS name`".to_owned())),
    };
    Ok(Instruction::From { image: image.to_owned(), platform, name })
}

fn run(rest: &str, line: &Line) -> Result<Instruction, Fault> {
    let (flags, rest) = flags::split(rest);
    let scratch = flags::run(&flags)?;
    if rest.is_empty() {
        return Err(Fault::Arguments("RUN needs a command".to_owned()));
    }
    let Some(first) = line.heredocs.first() else {
        return Ok(Instruction::Run { command: command_line(rest), scratch });
    };
    // A heredoc alone is the script; beside a command it is the shell's own.
    if heredoc::opening(rest).is_some() {
        let text = first.file_text();
        if text.starts_with("#!") {
            return Err(Fault::Unsupported(
                "a heredoc that names its interpreter by `#!` (write `RUN python3 <<EOF` instead)".to_owned(),
            ));
        }
        return Ok(Instruction::Run { command: CommandLine::Shell(text), scratch });
    }
    let mut text = rest.to_owned();
    for heredoc in &line.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.text, heredoc.end));
    }
    Ok(Instruction::Run { command: CommandLine::Shell(text), scratch })
}

fn copy(keyword: &str, rest: &str, line: &Line) -> Result<Instruction, Fault> {
    let (flags, rest) = flags::split(rest);
    let Flags { from, owner, mode } = flags::copy(keyword, &flags)?;
    let mut words =
        json_strings(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let destination = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(Fault::Arguments(format!("{keyword} needs at least one source and a destination")));
    }
    let mut inline = Vec::new();
    let mut heredocs = line.heredocs.iter();
    for word in &mut words {
        if heredoc::opening(word).is_none() {
            continue;
        }
        let heredoc = heredocs
            .next()
            .ok_or_else(|| Fault::Arguments(format!("no line closes the heredoc {word} of {keyword}")))?;
        let name = heredoc.opening.name.clone();
        let file =
            InlineFile { name: name.clone(), text: heredoc.file_text(), expand: !heredoc.opening.quoted };
        inline.push(file);
        *word = name;
    }
    if from.is_some() && !inline.is_empty() {
        return Err(Fault::Arguments(format!("{keyword} takes a heredoc or --from, not both")));
    }
    let unpack = keyword == "ADD";
    if unpack && words.iter().any(|source| source.contains("://") || source.starts_with("git@")) {
        return Err(Fault::Unsupported("ADD of a URL (fetch it in a RUN instead)".to_owned()));
    }
    let copy = CopyInstruction { sources: words, destination, from, owner, mode, inline, unpack };
    Ok(Instruction::Copy(copy))
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
