//! `homeport env`: what a shell needs so that programs talk to the running server.

use std::path::Path;

use homeport_meta::{Meta, tokens};
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, DataDirError, replace_file};
use crate::tokens::{TokenError, block_on, now_millis};

/// Name of the token, as `homeport token list` shows it.
const TOKEN_NAME: &str = "homeport env";

/// The token that this command prints, as it is kept in the data directory. It is the one secret that is
/// stored in the clear, for whoever could read the directory's other files as well.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptToken {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// The `export` lines.
pub(crate) fn run(data_dir: &Path) -> Result<String, TokenError> {
    let data_dir = DataDir::new(data_dir);
    let url = data_dir.running_server()?.url();
    let token = block_on(token(&data_dir))?;
    let variables = [
        ("MODAL_SERVER_URL", url.as_str()),
        ("MODAL_TOKEN_ID", &token.id),
        ("MODAL_TOKEN_SECRET", &token.secret),
        ("HF_ENDPOINT", &url),
    ];
    Ok(variables.map(|(name, value)| format!("export {name}={}\n", quoted(value))).concat())
}

/// The kept token, made anew if there is none or it was revoked.
pub(crate) async fn token(data_dir: &DataDir) -> Result<KeptToken, TokenError> {
    let meta = Meta::open(data_dir.root()).await?;
    let path = data_dir.env_token();
    if let Some(kept) = read(&path)?
        && tokens::verify(&meta, &kept.id, &kept.secret).await?
    {
        return Ok(kept);
    }
    let made = tokens::create(&meta, TOKEN_NAME, now_millis()).await?;
    let kept = KeptToken { id: made.id, secret: made.secret };
    let failed = |source| DataDirError::Unwritable { path: path.clone(), source };
    let text = serde_json::to_vec_pretty(&kept).map_err(|error| failed(error.into()))?;
    replace_file(&path, &text, 0o600).map_err(failed)?;
    Ok(kept)
}

fn read(path: &Path) -> Result<Option<KeptToken>, DataDirError> {
    match std::fs::read(path) {
        // A damaged file is replaced like a missing one.
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Unreadable { path: path.to_path_buf(), source }),
    }
}

/// A word of a shell command that means exactly this text.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_value_as_it_is() {
        let odd = "a b'c$d\"e\\f";
        let script = format!("printf %s {}", quoted(odd));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.stdout, odd.as_bytes());
    }
}
