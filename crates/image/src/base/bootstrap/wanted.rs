//! Which release stands in for an image.

use oci_client::Reference;

use super::BootstrapError;

/// A family of releases that one archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
        }
    }
}

/// A release of a distribution.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    pub(super) distribution: Distribution,
    /// For example `bookworm`.
    pub(super) codename: &'static str,
    /// For example `12`.
    pub(super) number: &'static str,
    /// Minor version of its `python3`.
    pub(super) python: &'static str,
    /// Whether its official image keeps package sources in a `.sources` file.
    pub(super) has_deb822_sources: bool,
}

/// The newest of each distribution comes last.
const RELEASES: [Release; 5] = [
    release(Distribution::Debian, "bullseye", "11", "3.9", false),
    release(Distribution::Debian, "bookworm", "12", "3.11", true),
    release(Distribution::Debian, "trixie", "13", "3.13", true),
    release(Distribution::Ubuntu, "jammy", "22.04", "3.10", false),
    release(Distribution::Ubuntu, "noble", "24.04", "3.12", true),
];

const fn release(
    distribution: Distribution,
    codename: &'static str,
    number: &'static str,
    python: &'static str,
    has_deb822_sources: bool,
) -> Release {
    Release { distribution, codename, number, python, has_deb822_sources }
}

pub(super) fn is_codename(distribution: Distribution, name: &str) -> bool {
    RELEASES.iter().any(|release| release.distribution == distribution && release.codename == name)
}

/// An image that a bootstrap can stand in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    reference: String,
    image: Image,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Image {
    Python {
        /// `X.Y` or `X.Y.Z`.
        version: String,
        codename: Option<String>,
    },
    System {
        distribution: Distribution,
        /// Codename, number or nothing for the newest.
        release: Option<String>,
    },
}

impl Wanted {
    /// What `reference` asks for, if it is one of the official Python, Debian and Ubuntu images.
    pub fn of(reference: &Reference) -> Option<Self> {
        if reference.registry() != "docker.io" || reference.digest().is_some() {
            return None;
        }
        let tag = reference.tag().unwrap_or("latest");
        let mut parts: Vec<&str> = tag.split('-').filter(|part| *part != "slim").collect();
        let image = match reference.repository() {
            "library/python" => {
                let version = parts.remove(0);
                let is_version = (2..=3).contains(&version.split('.').count())
                    && version.split('.').all(|number| {
                        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
                    });
                let codename = match parts.as_slice() {
                    [] => None,
                    [name] if is_codename(Distribution::Debian, name) || *name == "buster" => {
                        Some((*name).to_owned())
                    }
                    // Alpine and Windows are other systems.
                    _ => return None,
                };
                is_version.then(|| Image::Python { version: version.to_owned(), codename })?
            }
            "library/debian" => system(Distribution::Debian, &parts)?,
            "library/ubuntu" => system(Distribution::Ubuntu, &parts)?,
            _ => return None,
        };
        Some(Self { reference: reference.whole(), image })
    }

    /// The Python version that was asked for; `None` for an image without Python.
    pub fn python(&self) -> Option<&str> {
        match &self.image {
            Image::Python { version, .. } => Some(version),
            Image::System { .. } => None,
        }
    }

    /// The release that stands in for the image, out of those that `distribution`'s archive has.
    pub(super) fn release(&self, distribution: Distribution) -> Result<&'static Release, BootstrapError> {
        let at_hand = || RELEASES.iter().filter(move |release| release.distribution == distribution);
        match &self.image {
            Image::Python { version, .. } => {
                let minor = minor(version);
                at_hand().find(|release| release.python == minor).ok_or_else(|| {
                    BootstrapError::NoSuchPython {
                        reference: self.reference.clone(),
                        version: minor.to_owned(),
                        available: listed(at_hand().map(|release| {
                            format!("{} ({} {})", release.python, distribution.name(), release.codename)
                        })),
                    }
                })
            }
            Image::System { distribution: asked, release } => {
                let found = match release {
                    _ if *asked != distribution => None,
                    None => at_hand().next_back(),
                    Some(name) => {
                        at_hand().find(|release| release.codename == *name || release.number == *name)
                    }
                };
                found.ok_or_else(|| BootstrapError::NoSuchRelease {
                    reference: self.reference.clone(),
                    archive: distribution.name().to_owned(),
                    available: listed(
                        at_hand().map(|release| format!("{} ({})", release.codename, release.number)),
                    ),
                })
            }
        }
    }

    /// What differs between the image and the release that stands in for it, in sentences.
    pub(super) fn notes(&self, release: &Release) -> Vec<String> {
        let mut notes = Vec::new();
        if let Image::Python { version, codename } = &self.image {
            let is_other = codename.as_ref().is_some_and(|codename| codename != release.codename);
            if let (true, Some(codename)) = (is_other, codename) {
                notes.push(format!(
                    "{codename} asked, but Python {} is in {} {}; using that",
                    minor(version),
                    release.distribution.name(),
                    release.codename
                ));
            }
        }
        notes
    }
}

/// The system named by a tag without `slim`: a codename or number, perhaps with a date or point release.
fn system(distribution: Distribution, parts: &[&str]) -> Option<Image> {
    let name = parts.first().copied().unwrap_or("latest");
    let release = match name {
        "latest" | "stable" => None,
        _ if distribution == Distribution::Debian => Some(name.split('.').next().unwrap_or(name).to_owned()),
        _ => Some(name.to_owned()),
    };
    Some(Image::System { distribution, release })
}

fn minor(version: &str) -> &str {
    match version.match_indices('.').nth(1) {
        Some((at, _)) => &version[..at],
        None => version,
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(reference: &str) -> Option<Wanted> {
        Wanted::of(&reference.parse().unwrap())
    }

    #[test]
    fn python_is_taken_from_the_release_that_has_it() {
        let wanted = wanted("python:3.11.10-slim-bookworm").unwrap();
        assert_eq!(wanted.python(), Some("3.11.10"));
        let release = wanted.release(Distribution::Debian).unwrap();
        assert_eq!(release.codename, "bookworm");
        assert!(wanted.notes(release).is_empty());
        let wanted = super::Wanted::of(&"python:3.13.3-slim-bookworm".parse().unwrap()).unwrap();
        let release = wanted.release(Distribution::Debian).unwrap();
        assert_eq!(release.codename, "trixie");
        assert_eq!(
            wanted.notes(release),
            ["bookworm asked, but Python 3.13 is in Debian trixie; using that"]
        );
        let release = super::Wanted::of(&"python:3.12".parse().unwrap()).unwrap();
        assert_eq!(release.release(Distribution::Ubuntu).unwrap().codename, "noble");
    }

    #[test]
    fn python_that_no_release_has_is_an_error_with_those_that_there_are() {
        let error = wanted("python:3.12.6-slim").unwrap().release(Distribution::Debian).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no release in this machine's archive has Python 3.12"), "{text}");
        assert!(
            text.contains("3.9 (Debian bullseye), 3.11 (Debian bookworm), 3.13 (Debian trixie)"),
            "{text}"
        );
    }

    #[test]
    fn systems_are_named_by_codename_number_or_newest() {
        let codename = |reference: &str, distribution| {
            wanted(reference).unwrap().release(distribution).map(|release| release.codename)
        };
        for (reference, expected) in [
            ("debian:bookworm-slim", "bookworm"),
            ("debian:12", "bookworm"),
            ("debian:11.9-slim", "bullseye"),
            ("debian", "trixie"),
            ("debian:bookworm-20240701-slim", "bookworm"),
        ] {
            assert_eq!(codename(reference, Distribution::Debian).unwrap(), expected);
        }
        assert_eq!(codename("ubuntu:22.04", Distribution::Ubuntu).unwrap(), "jammy");
        assert!(matches!(
            codename("ubuntu:22.04", Distribution::Debian),
            Err(BootstrapError::NoSuchRelease { .. })
        ));
        assert!(matches!(
            codename("debian:potato", Distribution::Debian),
            Err(BootstrapError::NoSuchRelease { .. })
        ));
    }

    #[test]
    fn other_images_and_other_systems_are_not_bootstrapped() {
        for reference in [
            "python:3.11-alpine",
            "python:3.11-slim-windowsservercore",
            "python:latest",
            "someone/python:3.11",
            "ghcr.io/library/python:3.11",
            "nvidia/cuda:12.2.0-devel-ubuntu22.04",
            "python:3.11@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(wanted(reference), None, "{reference}");
        }
    }
}
