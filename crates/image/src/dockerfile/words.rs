//! Words, quotes and variables, with the rules of Docker's own shell-like lexer.

use std::iter::Peekable;
use std::str::Chars;

use thiserror::Error;

/// Why a word can't be expanded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WordFault {
    /// A quote is opened and never closed.
    #[error("a {0} quote is not closed")]
    OpenQuote(&'static str),
    /// A `${` is opened and never closed, or holds no name.
    #[error("`${{{0}` is not a variable reference; close it with a brace or write `\\$`")]
    BadSubstitution(String),
    /// `${NAME:?message}` with `NAME` not set.
    #[error("the variable {name} is required: {message}")]
    Required {
        /// Name of the variable.
        name: String,
        /// The message given in the Dockerfile.
        message: String,
    },
    /// Variables in the defaults of variables, without end.
    #[error("variable references are nested deeper than {DEEPEST}")]
    TooDeep,
    /// Variables that were put into each other.
    #[error("with its variables it is longer than {0} bytes")]
    TooLong(usize),
}

/// References within references; people write one or two.
const DEEPEST: usize = 50;
/// Bytes of a word: the kernel gives processes no longer variables and arguments.
const LONGEST_WORD: usize = 128 << 10;
/// Bytes of a text.
const LONGEST_TEXT: usize = 16 << 20;

/// Splits at blanks outside quotes. Quotes and backslashes stay in the words.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut open = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (open, character) {
            (None, blank) if blank.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => open = Some(character),
            (Some(quote), _) if quote == character => open = None,
            (None | Some('"'), '\\') => {
                word.push(character);
                if let Some(escaped) = characters.next() {
                    word.push(escaped);
                }
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes quotes and puts in the values of variables. A variable that `lookup` doesn't know is empty.
pub fn expand(word: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, WordFault> {
    Expander { rest: word.chars().peekable(), lookup, keeps_quotes: false, depth: 0, longest: LONGEST_WORD }
        .until(None)
}

/// Puts in the values of variables and leaves quotes alone, as a shell does in a heredoc. A backslash
/// before a dollar or a backslash takes away its meaning.
pub fn expand_text(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, WordFault> {
    Expander { rest: text.chars().peekable(), lookup, keeps_quotes: true, depth: 0, longest: LONGEST_TEXT }
        .until(None)
}

struct Expander<'a> {
    rest: Peekable<Chars<'a>>,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    keeps_quotes: bool,
    depth: usize,
    longest: usize,
}

impl Expander<'_> {
    /// Expands up to `end` (which is consumed), or up to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, WordFault> {
        let mut result = String::new();
        while let Some(character) = self.rest.next() {
            if result.len() > self.longest {
                return Err(WordFault::TooLong(self.longest));
            }
            match character {
                _ if Some(character) == end => return Ok(result),
                '\\' if self.keeps_quotes => match self.rest.next_if(|next| ['$', '\\'].contains(next)) {
                    Some(escaped) => result.push(escaped),
                    None => result.push('\\'),
                },
                '\'' | '"' if self.keeps_quotes => result.push(character),
                '\'' => self.single_quoted(&mut result)?,
                '"' => self.double_quoted(&mut result)?,
                '$' => result.push_str(&self.variable()?),
                '\\' => result.extend(self.rest.next()),
                _ => result.push(character),
            }
        }
        match end {
            None => Ok(result),
            Some(_) => Err(WordFault::BadSubstitution(result)),
        }
    }

    fn single_quoted(&mut self, result: &mut String) -> Result<(), WordFault> {
        for character in self.rest.by_ref() {
            if character == '\'' {
                return Ok(());
            }
            result.push(character);
        }
        Err(WordFault::OpenQuote("single"))
    }

    fn double_quoted(&mut self, result: &mut String) -> Result<(), WordFault> {
        while let Some(character) = self.rest.next() {
            match character {
                '"' => return Ok(()),
                '$' => result.push_str(&self.variable()?),
                '\\' => match self.rest.next() {
                    Some(escaped @ ('"' | '$' | '\\')) => result.push(escaped),
                    // A backslash before anything else is an ordinary character.
                    Some(other) => result.extend(['\\', other]),
                    None => break,
                },
                _ => result.push(character),
            }
        }
        Err(WordFault::OpenQuote("double"))
    }

    /// What stands after a `$`.
    fn variable(&mut self) -> Result<String, WordFault> {
        if self.rest.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() })
    }

    fn braced(&mut self) -> Result<String, WordFault> {
        let name = self.name();
        if name.is_empty() {
            return Err(WordFault::BadSubstitution(self.rest.clone().collect()));
        }
        let value = self.value(&name);
        let empty_counts_as_unset = self.rest.next_if_eq(&':').is_some();
        let operator = match self.rest.next() {
            Some('}') if !empty_counts_as_unset => return Ok(value.unwrap_or_default()),
            Some(operator @ ('-' | '+' | '?')) => operator,
            _ => return Err(WordFault::BadSubstitution(name)),
        };
        if self.depth == DEEPEST {
            return Err(WordFault::TooDeep);
        }
        self.depth += 1;
        let word = self.until(Some('}')).map_err(|fault| match fault {
            WordFault::BadSubstitution(_) => WordFault::BadSubstitution(name.clone()),
            other => other,
        })?;
        self.depth -= 1;
        let present = value.filter(|value| !(empty_counts_as_unset && value.is_empty()));
        match (operator, present) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ => Err(WordFault::Required { name, message: word }),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(first) if first.is_ascii_digit() => {
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(digit);
                }
            }
            _ => {
                while let Some(letter) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(letter);
                }
            }
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }
}
