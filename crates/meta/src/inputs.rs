//! Inputs of the calls in [`crate::calls`].

use sqlx::{AnyConnection, FromRow};

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, call_id, idx, failures, record";

/// A row of `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Input {
    /// `in-…`
    pub id: String,
    /// Call it belongs to, which must exist.
    pub call_id: String,
    /// Position within the call.
    pub idx: i64,
    /// How often it has failed.
    pub failures: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces further inputs of a call in one transaction, and moves the call to a state.
pub async fn add(meta: &Meta, call_id: &str, state: &str, inputs: &[Input]) -> Result<()> {
    let what = || format!("write {} inputs of call {call_id}", inputs.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    sqlx::query("UPDATE calls SET state = $2 WHERE id = $1 AND state <> $2")
        .bind(call_id)
        .bind(state)
        .execute(&mut *transaction)
        .await
        .context(what)?;
    for input in inputs {
        write(&mut transaction, input).await.context(what)?;
    }
    transaction.commit().await.context(what)
}

/// Notes how often an input has failed. Nothing happens if there is no such input.
pub async fn set_failures(meta: &Meta, id: &str, failures: i64) -> Result<()> {
    sqlx::query("UPDATE inputs SET failures = $2 WHERE id = $1")
        .bind(id)
        .bind(failures)
        .execute(&meta.pool)
        .await
        .context(|| format!("write the failures of input {id}"))?;
    Ok(())
}

pub(crate) async fn write(connection: &mut AnyConnection, input: &Input) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO inputs (id, call_id, idx, failures, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET call_id = excluded.call_id, idx = excluded.idx, \
         record = excluded.record",
    )
    .bind(&input.id)
    .bind(&input.call_id)
    .bind(input.idx)
    .bind(input.failures)
    .bind(&input.record)
    .execute(connection)
    .await?;
    Ok(())
}

/// The input with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<Input>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM inputs WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read input {id}"))
}

/// All inputs of a call, by position.
pub async fn list_by_call(meta: &Meta, call_id: &str) -> Result<Vec<Input>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM inputs WHERE call_id = $1 ORDER BY idx, id"))
        .bind(call_id)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the inputs of call {call_id}"))
}
