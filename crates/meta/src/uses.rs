//! When things were used last, and the removal of what was not used for long.
//!
//! Finding a build step by [`step`] is a use. It is written down before the step is returned, at
//! most once in [`PRECISION`]; so of a lookup and a removal at the same time, either the lookup finds
//! nothing or the row stays.

use crate::database::{Context, Meta, Result};
use crate::steps::Step;

/// Milliseconds within which uses are not told apart. What is younger must never be removed.
pub const PRECISION: i64 = 24 * 60 * 60 * 1000;

/// Rows of which the last use is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Images, by id.
    Images,
    /// Build steps, by cache key.
    Steps,
    /// Objects of apps, by id.
    Objects,
}

impl Kind {
    fn table(self) -> (&'static str, &'static str) {
        match self {
            Kind::Images => ("images", "id"),
            Kind::Steps => ("steps", "cache_key"),
            Kind::Objects => ("objects", "id"),
        }
    }
}

/// Notes that rows were used at `now` (milliseconds since 1970, UTC).
pub async fn touch(meta: &Meta, kind: Kind, ids: &[String], now: i64) -> Result<()> {
    let (table, key) = kind.table();
    let what = || format!("note the use of {} {table}", ids.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    for id in ids {
        sqlx::query(&format!("UPDATE {table} SET used_at = $1 WHERE {key} = $2 AND used_at < $1"))
            .bind(now)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .context(what)?;
    }
    transaction.commit().await.context(what)
}

/// Lets the age of rows of which no use is known begin now.
pub async fn stamp(meta: &Meta, kind: Kind, now: i64) -> Result<u64> {
    let (table, _) = kind.table();
    let stamped = sqlx::query(&format!("UPDATE {table} SET used_at = $1 WHERE used_at = 0"))
        .bind(now)
        .execute(&meta.pool)
        .await
        .context(|| format!("note when the {table} were used"))?;
    Ok(stamped.rows_affected())
}

/// All rows with their last uses, 0 where it is not known.
pub async fn list(meta: &Meta, kind: Kind) -> Result<Vec<(String, i64)>> {
    let (table, key) = kind.table();
    sqlx::query_as(&format!("SELECT {key}, used_at FROM {table} ORDER BY {key}"))
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list when the {table} were used"))
}

/// Deletes rows that were not used since `before`, except those whose key begins with `spare`; returns
/// how many.
pub async fn sweep(meta: &Meta, kind: Kind, before: i64, spare: Option<&str>) -> Result<u64> {
    let (table, key) = kind.table();
    let swept = sqlx::query(&format!(
        "DELETE FROM {table} WHERE used_at > 0 AND used_at < $1 AND ($2 = '' OR substr({key}, 1, $3) <> $2)"
    ))
    .bind(before)
    .bind(spare.unwrap_or_default())
    .bind(i64::try_from(spare.unwrap_or_default().chars().count()).unwrap_or(0))
    .execute(&meta.pool)
    .await
    .context(|| format!("forget old {table}"))?;
    Ok(swept.rows_affected())
}

/// Finds the build step with this key, as [`crate::steps::get`], and notes its use.
pub async fn step(meta: &Meta, cache_key: &str, now: i64) -> Result<Option<Step>> {
    let found = crate::steps::get(meta, cache_key).await?;
    Ok(if used(meta, Kind::Steps, cache_key, now).await? { found } else { None })
}

/// Notes a use, unless one was noted not long ago. False if there is no such row.
async fn used(meta: &Meta, kind: Kind, id: &str, now: i64) -> Result<bool> {
    let (table, key) = kind.table();
    let what = || format!("note the use of {id} in {table}");
    let found: Option<(i64,)> = sqlx::query_as(&format!("SELECT used_at FROM {table} WHERE {key} = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(what)?;
    match found {
        None => Ok(false),
        Some((at,)) if at > now - PRECISION => Ok(true),
        Some(_) => {
            let noted = sqlx::query(&format!("UPDATE {table} SET used_at = $1 WHERE {key} = $2"))
                .bind(now)
                .bind(id)
                .execute(&meta.pool)
                .await
                .context(what)?;
            Ok(noted.rows_affected() > 0)
        }
    }
}

/// The snapshots of all build steps, with their keys.
pub async fn step_snapshots(meta: &Meta) -> Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT cache_key, snapshot FROM steps ORDER BY cache_key")
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the build steps".to_owned())
}
