//! Paths of a Volume on a terminal, in a shell and in JSON. They are bytes, of which most are text.

use serde_json::Value;

/// A path for people: one line, whatever is in it.
pub(super) fn shown(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() { text.extend(letter.escape_default()) } else { text.push(letter) }
        }
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// A word of a shell command that means exactly these bytes.
pub(super) fn word(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(byte);
    match str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes[0] != b'-' && bytes.iter().all(plain) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let escaped: String = bytes
                .iter()
                .map(|byte| match byte {
                    b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                    0x20..0x7f => char::from(*byte).to_string(),
                    byte => format!("\\x{byte:02x}"),
                })
                .collect();
            format!("$'{escaped}'")
        }
    }
}

/// Adds a path to a JSON object: as text, and as bytes too where the text is not all of it.
pub(super) fn path_json(object: &mut Value, path: &[u8]) {
    object["path"] = String::from_utf8_lossy(path).into();
    if str::from_utf8(path).is_err() {
        object["path_hex"] = path.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_word_as_the_bytes_that_it_was() {
        for odd in [
            &b"plain/file.bin"[..],
            b"a b'c$d\"e\\f",
            b"-rf",
            b"tab\there",
            b"not \xff text\\'",
            b"",
            "ünï".as_bytes(),
        ] {
            let script = format!("printf %s {}", word(odd));
            let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, odd, "{script}");
        }
    }

    #[test]
    fn a_path_stays_on_its_line() {
        assert_eq!(shown("modèle/x".as_bytes()), "modèle/x");
        assert_eq!(shown(b"a\x1b[2J\n\xfe"), "a\\u{1b}[2J\\n\\xfe");
    }
}
