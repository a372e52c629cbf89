//! From physical lines to logical ones: comments, empty lines, continuations, heredocs, parser directives.

use super::heredoc::{self, Heredoc};
use super::{DockerfileError, Fault};

/// One instruction on one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Number of the first physical line, from 1.
    pub(super) number: usize,
    /// The text, continuation lines joined.
    pub(super) text: String,
    /// The texts that belong to it.
    pub(super) heredocs: Vec<Heredoc>,
}

struct Physical<'a> {
    number: usize,
    text: &'a str,
    last_of_command: bool,
}

/// Joins the physical lines of `commands` to logical ones.
pub(super) fn logical_lines<S: AsRef<str>>(commands: &[S]) -> Result<Vec<Line>, DockerfileError> {
    let physical = physical_lines(commands);
    let mut lines = Vec::new();
    let mut at = 0;
    let mut directives_allowed = true;
    while let Some(first) = physical.get(at) {
        let trimmed = first.text.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            directives_allowed = directives_allowed && is_directive(first, trimmed)?;
            at += 1;
            continue;
        }
        directives_allowed = false;
        let mut text = String::new();
        let mut next_text = trimmed;
        loop {
            at += 1;
            let Some(continued) = without_continuation(next_text) else {
                text.push_str(next_text);
                break;
            };
            text.push_str(continued);
            // Comments and empty lines inside an instruction are dropped, as Docker does.
            while physical.get(at).is_some_and(|line| is_blank_or_comment(line.text)) {
                at += 1;
            }
            match physical.get(at) {
                Some(line) => next_text = line.text,
                None => break,
            }
        }
        // The client quotes values of `ENV` for a shell, line breaks included: a quote that stays
        // open runs on into the next line of the same command.
        while is_env(&text) && has_open_quote(&text) && !physical[at - 1].last_of_command {
            text.push('\n');
            text.push_str(physical[at].text);
            at += 1;
        }
        let text = text.trim_end().to_owned();
        let heredocs = heredocs(&text, &physical, &mut at);
        lines.push(Line { number: first.number, text, heredocs });
    }
    Ok(lines)
}

/// Takes the texts that the instruction opens. What no line closes is not one: a shell has other uses for `<<`.
fn heredocs(text: &str, physical: &[Physical<'_>], at: &mut usize) -> Vec<Heredoc> {
    let mut taken = Vec::new();
    let mut next = *at;
    for opening in heredoc::openings(text) {
        let closes = |line: &Physical<'_>| match opening.strips_tabs {
            true => line.text.trim_start_matches('\t') == opening.name,
            false => line.text == opening.name,
        };
        let Some(length) = physical[next..].iter().position(closes) else { break };
        let text = physical[next..next + length].iter().map(|line| format!("{}\n", line.text)).collect();
        let end = physical[next + length].text.to_owned();
        next += length + 1;
        taken.push(Heredoc { opening, text, end });
    }
    *at = next;
    taken
}

fn physical_lines<S: AsRef<str>>(commands: &[S]) -> Vec<Physical<'_>> {
    let mut lines = Vec::new();
    for command in commands {
        let mut rest = command.as_ref().lines().peekable();
        while let Some(text) = rest.next() {
            lines.push(Physical { number: lines.len() + 1, text, last_of_command: rest.peek().is_none() });
        }
        if command.as_ref().is_empty() {
            lines.push(Physical { number: lines.len() + 1, text: "", last_of_command: true });
        }
    }
    lines
}

/// Whether parser directives may still follow this comment or empty line.
fn is_directive(line: &Physical<'_>, trimmed: &str) -> Result<bool, DockerfileError> {
    let Some((name, value)) = trimmed.strip_prefix('#').and_then(|comment| comment.split_once('=')) else {
        return Ok(false);
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "escape" if value.trim() != "\\" => Err(DockerfileError::at(
            line.number,
            line.text,
            Fault::Unsupported("an escape character other than the backslash".to_owned()),
        )),
        "escape" | "syntax" | "check" => Ok(true),
        _ => Ok(false),
    }
}

fn is_blank_or_comment(text: &str) -> bool {
    let trimmed = text.trim_start();
    trimmed.is_empty() || trimmed.starts_with('#')
}

/// The text before a continuation mark, if the line ends in one. Blanks after the mark are allowed.
fn without_continuation(text: &str) -> Option<&str> {
    text.trim_end_matches([' ', '\t']).strip_suffix('\\')
}

fn is_env(text: &str) -> bool {
    text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("ENV ") || word.eq_ignore_ascii_case("ENV\t"))
}

fn has_open_quote(text: &str) -> bool {
    let mut open = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (open, character) {
            (None, '\'' | '"') => open = Some(character),
            (Some(quote), _) if quote == character => open = None,
            (None | Some('"'), '\\') => {
                characters.next();
            }
            _ => {}
        }
    }
    open.is_some()
}
