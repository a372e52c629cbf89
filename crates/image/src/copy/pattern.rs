//! Patterns for one component of a path, with the syntax of Go's `filepath.Match`, which Docker uses.

use std::iter::Peekable;
use std::str::Chars;

use thiserror::Error;

/// Why a pattern can't be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// A `[` without its `]`, or with nothing in it.
    #[error("a `[` is not closed or its range is empty")]
    BadRange,
    /// A backslash at the end.
    #[error("a backslash stands at its end")]
    TrailingBackslash,
}

/// Whether any character of `text` could make it a pattern.
pub(super) fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

enum Token {
    AnySequence,
    AnyOne,
    Literal(char),
    Range { negated: bool, spans: Vec<(char, char)> },
}

/// Whether the whole of `name` matches `pattern`. `*` and `?` match no slash, which no name has.
pub(super) fn matches(pattern: &str, name: &str) -> Result<bool, PatternError> {
    let tokens = tokens(pattern)?;
    let name: Vec<char> = name.chars().collect();
    // `reachable[i]`: the tokens so far can match the first `i` characters.
    let mut reachable = vec![false; name.len() + 1];
    reachable[0] = true;
    for token in &tokens {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            if !reachable[at] {
                continue;
            }
            match token {
                Token::AnySequence => next[at..].fill(true),
                _ if at == name.len() => {}
                _ => next[at + 1] |= takes(token, name[at]),
            }
        }
        reachable = next;
    }
    Ok(reachable[name.len()])
}

fn takes(token: &Token, character: char) -> bool {
    match token {
        Token::AnySequence | Token::AnyOne => true,
        Token::Literal(literal) => *literal == character,
        Token::Range { negated, spans } => {
            spans.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
        }
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, PatternError> {
    let mut characters = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::AnySequence,
            '?' => Token::AnyOne,
            '\\' => Token::Literal(characters.next().ok_or(PatternError::TrailingBackslash)?),
            '[' => range(&mut characters)?,
            literal => Token::Literal(literal),
        });
    }
    Ok(tokens)
}

/// What stands after a `[`, up to and with its `]`.
fn range(characters: &mut Peekable<Chars<'_>>) -> Result<Token, PatternError> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut spans = Vec::new();
    loop {
        if !spans.is_empty() && characters.next_if_eq(&']').is_some() {
            return Ok(Token::Range { negated, spans });
        }
        let low = bound(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => bound(characters)?,
            None => low,
        };
        spans.push((low, high));
    }
}

fn bound(characters: &mut Peekable<Chars<'_>>) -> Result<char, PatternError> {
    match characters.next() {
        None | Some(']' | '-') => Err(PatternError::BadRange),
        Some('\\') => characters.next().ok_or(PatternError::BadRange),
        Some(other) => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("[\\]a]", "]", true),
            ("[\\-x]", "x", true),
            ("*x", "xxx", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), Ok(expected), "{pattern} on {name}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "a[", "[^]", "[^bc"] {
            assert_eq!(matches(bad, "a"), Err(PatternError::BadRange), "{bad}");
        }
        assert_eq!(matches("a\\", "a"), Err(PatternError::TrailingBackslash));
    }
}
