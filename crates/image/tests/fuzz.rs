//! Dockerfile commands, layers and settings that nobody would write.

use std::io::Read as _;

use homeport_fuzz::Target;
use homeport_image::base::tar_stream::TarStream;
use homeport_image::config::ImageConfig;
use homeport_image::dockerfile::{self, expand, expand_text};

const COMMANDS: [&str; 8] = [
    "FROM python:3.11-slim AS base\nRUN --mount=type=cache,target=/x pip install \\\n  a b # c\nENV A=1 B=\"two words\" C=$A",
    "COPY --from=base --chown=1:2 --chmod=0644 a/* [b]? /c/\nADD [\"x y\", \"/z\"]\nWORKDIR ${HOME:-/root}/d",
    "RUN <<EOF cat\nline $A\nEOF\nCOPY <<-'X' <<\"Y\" /there/\n\tone\nX\ntwo\nY",
    "ARG V=1\nLABEL a.b=c \"d e\"='f'\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT [\"python\"]\nCMD echo $V",
    "# escape=`\nUSER 1000:100\nEXPOSE 80/tcp 443\nVOLUME /data\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD x",
    "ENV OLD value with spaces\nRUN [\"a\", \"\\u0041\", \"\\\"\"]\nONBUILD RUN x\nMAINTAINER nobody",
    "RUN ${A:-${B:+${C:?why}}} \"$D\" '$E' \\$F ${G",
    "run \\\r\n\r\n# comment\r\n  x\r\nfrom scratch",
];

fn lookup(name: &str) -> Option<String> {
    matches!(name, "A" | "HOME").then(|| "value".to_owned())
}

#[test]
fn fuzz_dockerfiles() {
    Target::new(env!("CARGO_MANIFEST_DIR"), "dockerfiles").fuzz(COMMANDS.map(Vec::from), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let words = [expand(&text, &lookup).map(drop), expand_text(&text, &lookup).map(drop)];
        let words = words.map(|word| word.map_or_else(|fault| fault.to_string(), |()| "expanded".to_owned()));
        // As it comes from clients: some commands, each of some lines.
        let commands: Vec<&str> = text.split_inclusive('\n').collect();
        match (dockerfile::parse(&[&text]), dockerfile::parse(&commands)) {
            (Ok(whole), _) => {
                let kinds: Vec<String> = whole.iter().map(|line| format!("{:?}", line.instruction)).collect();
                let kinds: Vec<&str> =
                    kinds.iter().filter_map(|kind| kind.split(['(', ' ', '{']).next()).collect();
                format!("{} {words:?}", kinds.join(" "))
            }
            (Err(error), _) => format!("{} {words:?}", error.fault),
        }
    });
}

#[test]
fn a_reference_in_a_reference_without_end_is_refused() {
    for length in [10_000, 1_000_000] {
        assert!(expand(&"${a-".repeat(length), &lookup).is_err());
    }
}

#[test]
fn a_value_that_doubles_with_each_reference_is_refused_in_time() {
    let mut value = "x".repeat(1000);
    let refused = (0..64).any(|_| match expand("$A$A$A$A", &|_| Some(value.clone())) {
        Ok(longer) => {
            value = longer;
            false
        }
        Err(fault) => fault.to_string().contains("longer than"),
    });
    assert!(refused && value.len() < 1 << 20, "{}", value.len());
}

#[test]
fn fuzz_layers() {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_cksum();
    let long = "a/".repeat(120) + "file";
    for path in ["etc/passwd", long.as_str()] {
        layer.append_data(&mut header.clone(), path, &b"hello"[..]).unwrap();
    }
    layer.append_pax_extensions([("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", &b"1.5"[..])]).unwrap();
    layer.append_data(&mut header.clone(), "pax", &b"hello"[..]).unwrap();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    layer.append_link(&mut header.clone(), "link", "etc/passwd").unwrap();
    header.set_entry_type(tar::EntryType::Link);
    layer.append_link(&mut header, "hard", "etc/passwd").unwrap();
    let seed = layer.into_inner().unwrap();
    Target::new(env!("CARGO_MANIFEST_DIR"), "layers").fuzz([seed], |bytes| {
        let mut stream = TarStream::new(with_sums(bytes));
        let mut seen = String::new();
        for _ in 0..64 {
            match stream.next_entry() {
                Ok(Some(entry)) => {
                    let mut content = Vec::new();
                    let read = stream.by_ref().take(1 << 16).read_to_end(&mut content);
                    seen += &format!("{:?} {} ", entry.kind, read.is_ok());
                }
                Ok(None) => return seen + "end",
                Err(error) => return format!("{seen}{error}"),
            }
        }
        seen
    });
}

/// The same blocks with the check sums that they should have, without which nothing else is looked at.
fn with_sums(bytes: &[u8]) -> std::io::Cursor<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    std::io::Cursor::new(bytes)
}

#[test]
fn fuzz_image_settings() {
    let seed = br#"{"os":"linux","architecture":"amd64","config":{"Env":["A=b","PATH=/x"],"WorkingDir":"/../a/./b",
        "Entrypoint":["x"],"Cmd":null,"User":"1:2","Labels":{"a":"b"},"Shell":["/bin/sh","-c"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    Target::new(env!("CARGO_MANIFEST_DIR"), "image_settings").fuzz([seed.to_vec()], |bytes| {
        match ImageConfig::from_oci(bytes, ("linux", "amd64")) {
            Ok(config) => {
                assert!(
                    config.workdir.starts_with('/') && !config.workdir.contains("/../"),
                    "{}",
                    config.workdir
                );
                "settings".to_owned()
            }
            Err(error) => error.to_string(),
        }
    });
}
