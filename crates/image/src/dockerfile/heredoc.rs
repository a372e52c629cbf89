//! Texts that stand in a Dockerfile between `<<NAME` and a line with that name.

use super::words;

/// The opening of a heredoc, as it stands in an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// The word that closes it, without quotes.
    pub(super) name: String,
    /// Quoted: the text is taken as it is.
    pub(super) quoted: bool,
    /// `<<-`: tabs at the beginning of lines don't count.
    pub(super) strips_tabs: bool,
}

/// A heredoc with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    pub(super) opening: Opening,
    /// As written, each line with its end.
    pub(super) text: String,
    /// The line that closed it.
    pub(super) end: String,
}

impl Heredoc {
    /// The text as a file has it.
    pub(super) fn file_text(&self) -> String {
        if !self.opening.strips_tabs {
            return self.text.clone();
        }
        self.text.lines().map(|line| format!("{}\n", line.trim_start_matches('\t'))).collect()
    }
}

/// The opening that `word` is, if it is one.
pub(super) fn opening(word: &str) -> Option<Opening> {
    let after = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (after, strips_tabs) = match after.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (after, false),
    };
    let unquoted = |quote| after.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let bare = unquoted('"').or_else(|| unquoted('\''));
    let name = bare.unwrap_or(after);
    let plain = !name.is_empty() && !name.contains(['<', '"', '\'', ' ']);
    plain.then(|| Opening { name: name.to_owned(), quoted: bare.is_some(), strips_tabs })
}

/// The heredocs that an instruction opens, in their order. Only these instructions take any.
pub(super) fn openings(text: &str) -> Vec<Opening> {
    let mut words = words::split(text).into_iter();
    let takes_some = words.next().is_some_and(|keyword| {
        ["RUN", "COPY", "ADD"].iter().any(|known| keyword.eq_ignore_ascii_case(known))
    });
    if !takes_some { Vec::new() } else { words.filter_map(|word| opening(&word)).collect() }
}
