//! Everything in which the supported clients differ, as data.
//!
//! A [`Dialect`] is chosen once from the version that a client states. The rest of the server
//! asks it and never compares versions. A new client is one more row here, if it differs at all.

/// How the container entrypoint gets its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// Base64 on the command line; the process identifies itself by task id and secret.
    CommandLine,
    /// A file whose path is in the environment.
    File,
}

/// Which fields of the answer to `BlobCreate` a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobAnswer {
    /// `upload_url` or `multipart`.
    Singular,
    /// `upload_urls` or `multiparts`.
    Plural,
}

/// What one range of client versions expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The image builder version that the server recommends to the client.
    pub builder_version: &'static str,
    /// How its container entrypoint is started.
    pub arguments: Arguments,
    /// The shape of blob answers.
    pub blob_answer: BlobAnswer,
    /// Whether it knows that an entry of a listing can be a pipe; others fail on the whole listing.
    pub lists_fifos: bool,
}

/// Image builder versions above this one leave the client's dependencies to the server.
const LAST_BUILDER_WITH_DEPENDENCIES: &str = "2024.10";

impl Dialect {
    /// The dialect of a stated client version, such as `0.77.0`. Unknown and newer versions speak
    /// the newest dialect.
    pub fn of(version: &str) -> Self {
        let mut parts = version.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().unwrap_or(0)
        });
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let row = |builder_version, arguments, blob_answer| {
            let lists_fifos = number.0 > 0;
            Self { builder_version, arguments, blob_answer, lists_fifos }
        };
        match number {
            (0, ..=63) => row("2024.04", Arguments::CommandLine, BlobAnswer::Singular),
            (0, _) => row("2024.10", Arguments::File, BlobAnswer::Singular),
            _ => row("2025.06", Arguments::File, BlobAnswer::Plural),
        }
    }
}

/// Whether an image of this builder version has the client's dependencies installed inside.
pub fn image_holds_dependencies(builder_version: &str) -> bool {
    builder_version <= LAST_BUILDER_WITH_DEPENDENCIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_supported_client_gets_its_dialect() {
        assert_eq!(Dialect::of("0.63.99").arguments, Arguments::CommandLine);
        assert_eq!(Dialect::of("0.77.0").arguments, Arguments::File);
        assert_eq!(Dialect::of("0.77.0").blob_answer, BlobAnswer::Singular);
        assert_eq!(Dialect::of("1.6.4").blob_answer, BlobAnswer::Plural);
        assert_eq!(Dialect::of("2.0.0.dev1"), Dialect::of("1.6.4"));
    }

    #[test]
    fn only_newer_builders_leave_dependencies_to_the_server() {
        assert!(image_holds_dependencies("2023.12"));
        assert!(image_holds_dependencies("2024.10"));
        assert!(!image_holds_dependencies("2025.06"));
    }
}
