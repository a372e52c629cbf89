//! Outputs of the calls in [`crate::calls`], numbered within the call.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `outputs`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Output {
    /// Call it belongs to, which must exist.
    pub call_id: String,
    /// The place of its input in the call.
    pub entry: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts outputs in one transaction. One that is there stays as it is: the first one counts.
pub async fn put_all(meta: &Meta, outputs: &[Output]) -> Result<()> {
    let what = || format!("write {} outputs", outputs.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    for output in outputs {
        sqlx::query(
            "INSERT INTO outputs (call_id, entry, record) VALUES ($1, $2, $3) \
             ON CONFLICT (call_id, entry) DO NOTHING",
        )
        .bind(&output.call_id)
        .bind(output.entry)
        .bind(&output.record)
        .execute(&mut *transaction)
        .await
        .context(what)?;
    }
    transaction.commit().await.context(what)
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
