use super::*;

/// An apt directory with these files.
fn machine(files: &[(&str, &str)]) -> Result<Archive, BootstrapError> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Archive::of_machine(directory.path())
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[test]
fn deb822_sources_with_comments_and_third_parties_give_the_archive() {
    let archive = machine(&[
        (
            "sources.list.d/debian.sources",
            "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\n\
             Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        ),
        (
            "sources.list.d/a-third-party.list",
            "deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://packages.example/debian bookworm main\n",
        ),
    ])
    .unwrap();
    assert_eq!(archive.distribution, Distribution::Debian);
    let sources = archive.lines("trixie");
    assert_eq!(
        sources.lines(),
        [
            format!("deb [signed-by={KEYRING}] http://mirror.example/debian trixie main"),
            format!("deb [signed-by={KEYRING}] http://mirror.example/debian trixie-updates main"),
            format!("deb [signed-by={KEYRING}] http://mirror.example/debian-security trixie-security main"),
        ]
    );
}

#[test]
fn one_line_sources_of_ubuntu_are_read() {
    let archive = machine(&[(
        "sources.list",
        "# deb cdrom:[Ubuntu]/ noble main\ndeb-src http://archive.example/ubuntu noble main\n\
         deb\thttp://archive.example/ubuntu/ noble main restricted # note\n\
         deb http://security.example/ubuntu noble-security main\n",
    )])
    .unwrap();
    assert_eq!(archive.distribution, Distribution::Ubuntu);
    let sources = archive.lines("jammy");
    assert_eq!(sources.main_uri, "http://archive.example/ubuntu");
    assert_eq!(
        sources.security,
        Some(("http://security.example/ubuntu".to_owned(), "jammy-security".to_owned()))
    );
}

#[test]
fn disabled_local_and_foreign_sources_are_no_archive() {
    let error = machine(&[
        (
            "sources.list.d/off.sources",
            "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n",
        ),
        (
            "sources.list",
            "deb file:/srv/debian bookworm main\ndeb http://x.example/debian bookworm-pgdg main\n\
             deb http://y.example/debian bookworm stable\ndeb http://z.example/debian/12/prod bookworm main\n",
        ),
    ])
    .unwrap_err();
    assert!(matches!(error, BootstrapError::NoArchive(_)), "{error}");
}

#[test]
fn list_of_mirrors_in_a_file_stands_for_its_first_uri() {
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), "# mirrors\nhttps://mirror.example/debian\tpriority:1\n").unwrap();
    let source = format!("deb mirror+file:{} bookworm main\n", list.path().display());
    let archive = machine(&[("sources.list", &source)]).unwrap();
    assert_eq!(archive.lines("bookworm").main_uri, "https://mirror.example/debian");
    assert_eq!(archive.lines("bookworm").security, None);
}
