//! Calls that must outlive the process: a spawned call is here before it is acknowledged.

use sqlx::{AnyConnection, FromRow};

use crate::database::{Context, Meta, Result};
use crate::inputs::{self, Input};

const COLUMNS: &str = "id, function_id, state, created_at, record";

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
        "INSERT INTO calls (id, function_id, state, created_at, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET function_id = excluded.function_id, state = excluded.state, \
         created_at = excluded.created_at, record = excluded.record",
    )
    .bind(&call.id)
    .bind(&call.function_id)
    .bind(&call.state)
    .bind(call.created_at)
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

/// Deletes a call with its inputs and outputs. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM calls WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete call {id}"))?;
    Ok(result.rows_affected() > 0)
}
