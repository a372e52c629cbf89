//! `homeport token`.

use std::path::Path;
use std::time::SystemTime;

use chrono::DateTime;
use homeport_meta::{Meta, tokens};

use crate::data_dir::{DataDir, DataDirError};
use crate::failure::Hint;

/// Why a command on tokens failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Open(#[from] homeport_meta::OpenError),
    #[error(transparent)]
    Query(#[from] homeport_meta::QueryError),
    #[error("cannot start the command")]
    Runtime(#[source] std::io::Error),
    #[error("there is no token `{0}`")]
    Unknown(String),
}

impl Hint for TokenError {
    fn hint(&self) -> Option<String> {
        match self {
            TokenError::DataDir(error) => error.hint(),
            TokenError::Unknown(_) => Some("`homeport token list` shows the tokens".to_owned()),
            _ => None,
        }
    }
}

/// Makes a token; returns it as lines for a shell.
pub(crate) fn create(data_dir: &Path, name: &str) -> Result<String, TokenError> {
    let data_dir = DataDir::existing(data_dir)?;
    let token = block_on(async {
        let meta = Meta::open(data_dir.root()).await?;
        Ok(tokens::create(&meta, name, now_millis()).await?)
    })?;
    Ok(format!("MODAL_TOKEN_ID={}\nMODAL_TOKEN_SECRET={}\n", token.id, token.secret))
}

/// All tokens as a table, without their secrets.
pub(crate) fn list(data_dir: &Path) -> Result<String, TokenError> {
    let data_dir = DataDir::existing(data_dir)?;
    let tokens = block_on(async {
        let meta = Meta::open(data_dir.root()).await?;
        Ok(tokens::list(&meta).await?)
    })?;
    let row = |id: &str, created: &str, name: &str| format!("{id:<26}  {created:<20}  {name}\n");
    let rows = tokens.iter().map(|token| row(&token.id, &date(token.created_at / 1000), &token.name));
    Ok(std::iter::once(row("ID", "CREATED", "NAME")).chain(rows).collect())
}

/// Makes a token invalid.
pub(crate) fn revoke(data_dir: &Path, id: &str) -> Result<String, TokenError> {
    let data_dir = DataDir::existing(data_dir)?;
    let existed = block_on(async {
        let meta = Meta::open(data_dir.root()).await?;
        Ok(tokens::revoke(&meta, id).await?)
    })?;
    if !existed {
        return Err(TokenError::Unknown(id.to_owned()));
    }
    Ok(format!("revoked {id}\n"))
}

/// Runs a short command's asynchronous part.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, TokenError>>) -> Result<T, TokenError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(TokenError::Runtime)?
        .block_on(work)
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_millis() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A time in seconds since 1970 for people.
pub(crate) fn date(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%d %H:%M UTC").to_string())
}
