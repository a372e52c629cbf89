//! What containers changed and what is in the history of it, so that a change that is reported again is found.

use crate::database::{Context, Meta, Result};

/// A row of `volume_takes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The container's task.
    pub task_id: String,
    /// The Volume.
    pub volume_id: String,
    /// Counts the changes of one task and Volume, from 1.
    pub sequence: i64,
    /// The version that came of it.
    pub number: i64,
}

/// Inserts a take that is in a version by now, or whose content was there already.
pub async fn put(meta: &Meta, take: &Take) -> Result<()> {
    let what = || format!("write take {} of task {}", take.sequence, take.task_id);
    let mut connection = meta.pool.acquire().await.context(what)?;
    insert_row(&mut connection, take).await.context(what)
}

pub(crate) async fn insert_row(
    connection: &mut sqlx::AnyConnection,
    take: &Take,
) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO volume_takes (task_id, volume_id, sequence, number) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (task_id, volume_id, sequence) DO NOTHING",
    )
    .bind(&take.task_id)
    .bind(&take.volume_id)
    .bind(take.sequence)
    .bind(take.number)
    .execute(connection)
    .await?;
    Ok(())
}

/// The highest sequence that is kept of a task and Volume; 0 if none is.
pub async fn last_sequence(meta: &Meta, task_id: &str, volume_id: &str) -> Result<i64> {
    let (last,): (Option<i64>,) =
        sqlx::query_as("SELECT MAX(sequence) FROM volume_takes WHERE task_id = $1 AND volume_id = $2")
            .bind(task_id)
            .bind(volume_id)
            .fetch_one(&meta.pool)
            .await
            .context(|| format!("read the takes of task {task_id}"))?;
    Ok(last.unwrap_or(0))
}

/// Forgets the takes of a task and Volume up to a sequence; returns how many.
pub async fn forget(meta: &Meta, task_id: &str, volume_id: &str, sequence: i64) -> Result<u64> {
    let result =
        sqlx::query("DELETE FROM volume_takes WHERE task_id = $1 AND volume_id = $2 AND sequence <= $3")
            .bind(task_id)
            .bind(volume_id)
            .bind(sequence)
            .execute(&meta.pool)
            .await
            .context(|| format!("forget old takes of task {task_id}"))?;
    Ok(result.rows_affected())
}
