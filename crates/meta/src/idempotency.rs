//! Answers that were given, by the key that the client repeats when it retries.

use crate::database::{Context, Meta, Result};

/// The answer that was given under this key.
pub async fn get(meta: &Meta, key: &str) -> Result<Option<Vec<u8>>> {
    let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT response FROM idempotency WHERE request_key = $1")
        .bind(key)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read the answer under key {key}"))?;
    Ok(row.map(|(response,)| response))
}

/// Keeps an answer unless there is one under this key; returns the one that counts.
///
/// `now` is in milliseconds since 1970, UTC.
pub async fn get_or_insert(meta: &Meta, key: &str, response: &[u8], now: i64) -> Result<Vec<u8>> {
    let what = || format!("keep the answer under key {key}");
    let mut transaction = meta.pool.begin().await.context(what)?;
    sqlx::query(
        "INSERT INTO idempotency (request_key, response, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (request_key) DO NOTHING",
    )
    .bind(key)
    .bind(response)
    .bind(now)
    .execute(&mut *transaction)
    .await
    .context(what)?;
    let (stored,): (Vec<u8>,) = sqlx::query_as("SELECT response FROM idempotency WHERE request_key = $1")
        .bind(key)
        .fetch_one(&mut *transaction)
        .await
        .context(what)?;
    transaction.commit().await.context(what)?;
    Ok(stored)
}

/// Forgets answers given before `before` (milliseconds since 1970, UTC); returns how many.
pub async fn sweep(meta: &Meta, before: i64) -> Result<u64> {
    let result = sqlx::query("DELETE FROM idempotency WHERE created_at < $1")
        .bind(before)
        .execute(&meta.pool)
        .await
        .context(|| "forget old answers".to_owned())?;
    Ok(result.rows_affected())
}
