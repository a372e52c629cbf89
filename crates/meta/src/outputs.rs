//! Outputs of the calls in [`crate::calls`], numbered within the call.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `outputs`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Output {
    /// Call it belongs to, which must exist.
    pub call_id: String,
    /// Number within the call, rising in the order of arrival.
    pub entry: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces an output.
pub async fn put(meta: &Meta, output: &Output) -> Result<()> {
    sqlx::query(
        "INSERT INTO outputs (call_id, entry, record) VALUES ($1, $2, $3) \
         ON CONFLICT (call_id, entry) DO UPDATE SET record = excluded.record",
    )
    .bind(&output.call_id)
    .bind(output.entry)
    .bind(&output.record)
    .execute(&meta.pool)
    .await
    .context(|| format!("write output {} of call {}", output.entry, output.call_id))?;
    Ok(())
}

/// Outputs of a call with a number greater than `after`, in order.
pub async fn list_by_call(meta: &Meta, call_id: &str, after: i64) -> Result<Vec<Output>> {
    sqlx::query_as(
        "SELECT call_id, entry, record FROM outputs WHERE call_id = $1 AND entry > $2 ORDER BY entry",
    )
    .bind(call_id)
    .bind(after)
    .fetch_all(&meta.pool)
    .await
    .context(|| format!("list the outputs of call {call_id}"))
}
