//! Which bytes of a file a request wants (RFC 9110, sections 13 and 14).
//!
//! One range is served. Several in one request, and anything malformed, count as no range at
//! all, which the specification allows: the whole file is a correct answer to every request.

use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// The part of a file to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// The whole file.
    Whole,
    /// Bytes `start` to `end`, the latter excluded; never empty.
    Part { start: u64, end: u64 },
    /// The range begins behind the end of the file.
    Unsatisfiable,
}

/// The part that the headers ask for, of a file of `size` bytes with this quoted entity tag.
pub(super) fn select(headers: &HeaderMap, size: u64, etag: &str) -> Selection {
    let Some(range) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else {
        return Selection::Whole;
    };
    // A date, or the tag of another version: the client's part is of no use to it.
    if headers.get(IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) {
        return Selection::Whole;
    }
    parse(range, size).unwrap_or(Selection::Whole)
}

fn parse(range: &str, size: u64) -> Option<Selection> {
    let (unit, spec) = range.split_once('=')?;
    let (first, last) = spec.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(part(size.saturating_sub(suffix), size));
    }
    let start = number(first)?;
    if last.is_empty() {
        return Some(part(start, size));
    }
    let last = number(last)?;
    (start <= last).then(|| part(start, last.saturating_add(1).min(size)))
}

fn part(start: u64, end: u64) -> Selection {
    if start < end { Selection::Part { start, end } } else { Selection::Unsatisfiable }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Whether the client has this version already.
pub(super) fn is_unchanged(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(range: &str, size: u64) -> Selection {
        let headers = HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
        select(&headers, size, "\"e\"")
    }

    #[test]
    fn one_range_is_cut_to_the_file() {
        let part = |start, end| Selection::Part { start, end };
        assert_eq!(selected("bytes=0-0", 10), part(0, 1));
        assert_eq!(selected("bytes=3-", 10), part(3, 10));
        assert_eq!(selected("Bytes = 3-99", 10), part(3, 10));
        assert_eq!(selected("bytes=-4", 10), part(6, 10));
        assert_eq!(selected("bytes=-99", 10), part(0, 10));
        assert_eq!(selected("bytes=5-18446744073709551615", 10), part(5, 10));
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        for (range, size) in [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10), ("bytes=-5", 0)] {
            assert_eq!(selected(range, size), Selection::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn what_is_not_one_range_of_bytes_asks_for_the_whole_file() {
        for range in ["bytes=0-1,3-4", "bytes=4-3", "lines=0-1", "bytes=-", "bytes=+1-2", "bytes=", "x"] {
            assert_eq!(selected(range, 10), Selection::Whole, "{range}");
        }
    }

    #[test]
    fn if_range_of_another_version_asks_for_the_whole_file() {
        let mut headers = HeaderMap::from_iter([(RANGE, "bytes=1-".parse().unwrap())]);
        headers.insert(IF_RANGE, "\"e\"".parse().unwrap());
        assert_eq!(select(&headers, 2, "\"e\""), Selection::Part { start: 1, end: 2 });
        assert_eq!(select(&headers, 2, "\"f\""), Selection::Whole);
    }

    #[test]
    fn if_none_match_is_compared_weakly_and_in_lists() {
        for (value, unchanged) in [("\"a\", W/\"e\"", true), ("*", true), ("\"a\"", false), ("e", false)] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]);
            assert_eq!(is_unchanged(&headers, "\"e\""), unchanged, "{value}");
        }
    }

    #[test]
    fn fuzz_ranges() {
        let seeds = ["bytes=0-5", "bytes = 2-", "Bytes=-7"].map(Vec::from);
        homeport_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "ranges").fuzz(seeds, |bytes| {
            let header = String::from_utf8_lossy(bytes);
            let selections = [0, 1, 10, u64::MAX].map(|size| {
                let selection = parse(&header, size);
                if let Some(Selection::Part { start, end }) = selection {
                    assert!(start < end && end <= size, "{selection:?} of {size}");
                }
                selection
            });
            format!("{selections:?}")
        });
    }
}
