//! Which paths a pattern of the client names: `*` within a component, `**` across them.

use globset::{GlobBuilder, GlobMatcher};

use super::FileError;

/// Whether the client means a pattern and not a path.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains('*')
}

/// The directory below which everything that matches lies.
pub(super) fn fixed_part(pattern: &str) -> &str {
    let wild = pattern.find('*').unwrap_or(pattern.len());
    pattern[..wild].rfind('/').map_or("", |slash| &pattern[..slash])
}

/// A pattern for paths without a leading slash.
pub(super) fn matcher(pattern: &str) -> Result<GlobMatcher, FileError> {
    GlobBuilder::new(pattern.trim_start_matches('/'))
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| FileError::Pattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_component_and_double_stars_do_not() {
        let matches = |pattern: &str, path: &str| matcher(pattern).unwrap().is_match(path);
        assert!(matches("**", "a/b/c"));
        assert!(matches("a/*", "a/b"));
        assert!(!matches("a/*", "a/b/c"));
        assert!(matches("/a/**", "a/b/c"));
        assert!(matches("a/*.txt", "a/b.txt"));
    }

    #[test]
    fn the_fixed_part_ends_before_the_first_component_with_a_star() {
        assert_eq!(fixed_part("a/b/*.txt"), "a/b");
        assert_eq!(fixed_part("a/b*/c"), "a");
        assert_eq!(fixed_part("**"), "");
    }
}
