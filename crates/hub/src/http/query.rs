//! Query strings and forms as the library writes them: repeated keys, Python's `True`.

/// The pairs of a query string or form, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &[u8]) -> Query {
        Query(form_urlencoded::parse(text).into_owned().collect())
    }

    /// All values of a key. Lists are sent as `key=a&key=b`, by some as `key[]=a`.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name.strip_suffix("[]").unwrap_or(name) == key)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn first<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_escapes_and_pythons_booleans_are_understood() {
        let query = Query::parse(b"paths=a%2Fb+c&paths=d&expand=True&recursive=False&e%5B%5D=x");
        assert_eq!(query.all("paths").collect::<Vec<_>>(), ["a/b c", "d"]);
        assert!(query.flag("expand") && !query.flag("recursive") && !query.flag("none"));
        assert_eq!(query.first("e"), Some("x"));
    }
}
