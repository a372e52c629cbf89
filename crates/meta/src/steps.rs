//! Build steps that were carried out: from the digest of all that goes in to the snapshot that came out.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `steps`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Step {
    /// Digest of the parent, the command and its context.
    pub cache_key: String,
    /// Snapshot after the step.
    pub snapshot: String,
    /// Image configuration after the step, in the caller's encoding.
    pub config: Vec<u8>,
}

/// Inserts or replaces a step.
pub async fn put(meta: &Meta, step: &Step) -> Result<()> {
    sqlx::query(
        "INSERT INTO steps (cache_key, snapshot, config) VALUES ($1, $2, $3) \
         ON CONFLICT (cache_key) DO UPDATE SET snapshot = excluded.snapshot, config = excluded.config, used_at = 0",
    )
    .bind(&step.cache_key)
    .bind(&step.snapshot)
    .bind(&step.config)
    .execute(&meta.pool)
    .await
    .context(|| format!("write build step {}", step.cache_key))?;
    Ok(())
}

/// The step with this key.
pub async fn get(meta: &Meta, cache_key: &str) -> Result<Option<Step>> {
    sqlx::query_as("SELECT cache_key, snapshot, config FROM steps WHERE cache_key = $1")
        .bind(cache_key)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read build step {cache_key}"))
}

/// Deletes a step. False if there was none.
pub async fn delete(meta: &Meta, cache_key: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM steps WHERE cache_key = $1")
        .bind(cache_key)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete build step {cache_key}"))?;
    Ok(result.rows_affected() > 0)
}
