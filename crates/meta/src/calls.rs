//! Calls that must outlive the process: a spawned call is here before it is acknowledged.
//!
//! The states are the caller's words. What this module knows is that a call can be over, and that
//! what came of it goes before the call itself does.

use sqlx::{AnyConnection, FromRow};

use crate::database::{Context, Meta, Result};
use crate::inputs::{self, Input};

const COLUMNS: &str = "id, function_id, state, created_at, finished_at, record";
/// Calls whose inputs and outputs go in one transaction: others write in between.
const AT_ONCE: i64 = 100;

/// A row of `calls`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Call {
    /// `fc-…`
    pub id: String,
    /// Function that is called.
    pub function_id: String,
    /// State in the caller's words.
    pub state: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// When it was over, in milliseconds since 1970, UTC; 0 while it isn't.
    pub finished_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces a call.
pub async fn put(meta: &Meta, call: &Call) -> Result<()> {
    put_with_inputs(meta, call, &[]).await
}

/// Inserts or replaces a call together with inputs of it, in one transaction.
pub async fn put_with_inputs(meta: &Meta, call: &Call, inputs: &[Input]) -> Result<()> {
    let what = || format!("write call {}", call.id);
    let mut transaction = meta.pool.begin().await.context(what)?;
    write(&mut transaction, call).await.context(what)?;
    for input in inputs {
        inputs::write(&mut transaction, input).await.context(what)?;
    }
    transaction.commit().await.context(what)
}

async fn write(connection: &mut AnyConnection, call: &Call) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO calls (id, function_id, state, created_at, finished_at, record) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET function_id = excluded.function_id, state = excluded.state, \
         created_at = excluded.created_at, finished_at = excluded.finished_at, record = excluded.record",
    )
    .bind(&call.id)
    .bind(&call.function_id)
    .bind(&call.state)
    .bind(call.created_at)
    .bind(call.finished_at)
    .bind(&call.record)
    .execute(connection)
    .await?;
    Ok(())
}

/// The call with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<Call>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM calls WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read call {id}"))
}

/// All calls of a function, oldest first.
pub async fn list_by_function(meta: &Meta, function_id: &str) -> Result<Vec<Call>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM calls WHERE function_id = $1 ORDER BY created_at, id"))
        .bind(function_id)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the calls of function {function_id}"))
}

/// All calls in a state, oldest first: after a start, what is still to be done.
pub async fn list_by_state(meta: &Meta, state: &str) -> Result<Vec<Call>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM calls WHERE state = $1 ORDER BY created_at, id"))
        .bind(state)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the calls in state {state}"))
}

/// Moves a call from one state to another because it is over, unless an input of it has no output.
/// False if it didn't move.
pub async fn finish(meta: &Meta, id: &str, from: &str, to: &str, finished_at: i64) -> Result<bool> {
    let result = sqlx::query(
        "UPDATE calls SET state = $3, finished_at = $4 WHERE id = $1 AND state = $2 AND NOT EXISTS \
         (SELECT 1 FROM inputs WHERE inputs.call_id = calls.id AND NOT EXISTS \
         (SELECT 1 FROM outputs WHERE outputs.call_id = inputs.call_id AND outputs.entry = inputs.idx))",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(finished_at)
    .execute(&meta.pool)
    .await
    .context(|| format!("finish call {id}"))?;
    Ok(result.rows_affected() > 0)
}

/// Takes inputs and outputs from calls that were over before a time, and moves those calls to another
/// state. Returns how many there were.
pub async fn expire(meta: &Meta, from: &str, to: &str, before: i64) -> Result<u64> {
    let mut expired = 0;
    loop {
        let some = expire_some(meta, from, to, before).await.context(|| "expire old calls".to_owned())?;
        expired += some;
        if some == 0 {
            return Ok(expired);
        }
    }
}

async fn expire_some(
    meta: &Meta,
    from: &str,
    to: &str,
    before: i64,
) -> std::result::Result<u64, sqlx::Error> {
    const OLD: &str =
        "SELECT id FROM calls WHERE state = $1 AND finished_at < $2 ORDER BY finished_at, id LIMIT $3";
    let mut transaction = meta.pool.begin().await?;
    for table in ["inputs", "outputs"] {
        sqlx::query(&format!("DELETE FROM {table} WHERE call_id IN ({OLD})"))
            .bind(from)
            .bind(before)
            .bind(AT_ONCE)
            .execute(&mut *transaction)
            .await?;
    }
    let moved = sqlx::query(&format!("UPDATE calls SET state = $4 WHERE id IN ({OLD})"))
        .bind(from)
        .bind(before)
        .bind(AT_ONCE)
        .bind(to)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(moved.rows_affected())
}

/// Deletes the calls in a state that were over before a time. Returns how many there were.
pub async fn delete_before(meta: &Meta, state: &str, before: i64) -> Result<u64> {
    let result = sqlx::query("DELETE FROM calls WHERE state = $1 AND finished_at < $2")
        .bind(state)
        .bind(before)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete old calls in the state {state}"))?;
    Ok(result.rows_affected())
}

/// Deletes a call with its inputs and outputs. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM calls WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete call {id}"))?;
    Ok(result.rows_affected() > 0)
}
