//! Methods that clients called and this server doesn't have, for the log and for `homeport doctor`.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `unknown_methods`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct UnknownMethod {
    /// Version that the client named.
    pub client_version: String,
    /// Name of the method.
    pub method: String,
    /// Milliseconds since 1970, UTC.
    pub first_seen_at: i64,
}

/// Notes a method; true if it is the first time for this client version.
pub async fn note(meta: &Meta, client_version: &str, method: &str, now: i64) -> Result<bool> {
    let result = sqlx::query(
        "INSERT INTO unknown_methods (client_version, method, first_seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (client_version, method) DO NOTHING",
    )
    .bind(client_version)
    .bind(method)
    .bind(now)
    .execute(&meta.pool)
    .await
    .context(|| format!("note the unknown method {method}"))?;
    Ok(result.rows_affected() > 0)
}

/// All that were noted, by client version and name.
pub async fn list(meta: &Meta) -> Result<Vec<UnknownMethod>> {
    sqlx::query_as(
        "SELECT client_version, method, first_seen_at FROM unknown_methods ORDER BY client_version, method",
    )
    .fetch_all(&meta.pool)
    .await
    .context(|| "list the unknown methods".to_owned())
}
