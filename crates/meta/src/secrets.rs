//! Secrets: named sets of environment variables. What is in them comes sealed and leaves sealed.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, environment, name, app_id, created_at, used_at, record";

/// A row of `secrets`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Secret {
    /// `st-…`
    pub id: String,
    /// Environment that the name belongs to.
    pub environment: String,
    /// Name within the environment; empty if it has none.
    pub name: String,
    /// App that it ends with; empty if it lives by itself.
    pub app_id: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// When a container got it last; 0 = never. Milliseconds since 1970, UTC.
    pub used_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces a secret.
pub async fn put(meta: &Meta, secret: &Secret) -> Result<()> {
    sqlx::query(
        "INSERT INTO secrets (id, environment, name, app_id, created_at, used_at, record) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET environment = excluded.environment, name = excluded.name, \
         app_id = excluded.app_id, created_at = excluded.created_at, used_at = excluded.used_at, \
         record = excluded.record",
    )
    .bind(&secret.id)
    .bind(&secret.environment)
    .bind(&secret.name)
    .bind(&secret.app_id)
    .bind(secret.created_at)
    .bind(secret.used_at)
    .bind(&secret.record)
    .execute(&meta.pool)
    .await
    .context(|| format!("write secret {}", secret.id))?;
    Ok(())
}

/// All secrets, the oldest first.
pub async fn list(meta: &Meta) -> Result<Vec<Secret>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM secrets ORDER BY created_at, id"))
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the secrets".to_owned())
}

/// Notes when a secret was used. One that was deleted meanwhile stays deleted.
pub async fn touch(meta: &Meta, id: &str, used_at: i64) -> Result<()> {
    sqlx::query("UPDATE secrets SET used_at = $2 WHERE id = $1 AND used_at < $2")
        .bind(id)
        .bind(used_at)
        .execute(&meta.pool)
        .await
        .context(|| format!("note the use of secret {id}"))?;
    Ok(())
}

/// Deletes a secret. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM secrets WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete secret {id}"))?;
    Ok(result.rows_affected() > 0)
}
