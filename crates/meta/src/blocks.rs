//! Where in the store the blocks of uploaded files are, by the SHA-256 that clients name them with.
//!
//! A row is a hint, so that what is here isn't uploaded again. It keeps nothing: the object may be gone.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "sha256, digest, start, size, used_at";

/// A row of `blocks`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Block {
    /// SHA-256 of the block as the client counts it, lower hex; or the name of the list of a whole file's blocks.
    pub sha256: String,
    /// The store's digest of the object that has the same bytes.
    pub digest: String,
    /// Where they begin in the object.
    pub start: i64,
    /// Bytes.
    pub size: i64,
    /// When it was uploaded or asked for last; milliseconds since 1970, UTC.
    pub used_at: i64,
}

/// Inserts or replaces blocks.
pub async fn put_all(meta: &Meta, blocks: &[Block]) -> Result<()> {
    let what = || format!("write {} blocks", blocks.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    for block in blocks {
        sqlx::query(
            "INSERT INTO blocks (sha256, digest, start, size, used_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (sha256) DO UPDATE SET digest = excluded.digest, start = excluded.start, \
             size = excluded.size, used_at = excluded.used_at",
        )
        .bind(&block.sha256)
        .bind(&block.digest)
        .bind(block.start)
        .bind(block.size)
        .bind(block.used_at)
        .execute(&mut *transaction)
        .await
        .context(what)?;
    }
    transaction.commit().await.context(what)
}

/// The block with this SHA-256.
pub async fn get(meta: &Meta, sha256: &str) -> Result<Option<Block>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM blocks WHERE sha256 = $1"))
        .bind(sha256)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read block {sha256}"))
}

/// Those of `sha256s` that are there. One transaction for all of them: an upload asks for thousands at once.
pub async fn get_all(meta: &Meta, sha256s: &[String]) -> Result<Vec<Block>> {
    let what = || format!("read {} blocks", sha256s.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    let mut found = Vec::new();
    for sha256 in sha256s {
        let block = sqlx::query_as(&format!("SELECT {COLUMNS} FROM blocks WHERE sha256 = $1"))
            .bind(sha256)
            .fetch_optional(&mut *transaction)
            .await
            .context(what)?;
        found.extend(block);
    }
    transaction.commit().await.context(what)?;
    Ok(found)
}

/// Notes that blocks are in use, so that they stay.
pub async fn touch(meta: &Meta, sha256s: &[String], now: i64) -> Result<()> {
    let what = || format!("note the use of {} blocks", sha256s.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    for sha256 in sha256s {
        sqlx::query("UPDATE blocks SET used_at = $1 WHERE sha256 = $2 AND used_at < $1")
            .bind(now)
            .bind(sha256)
            .execute(&mut *transaction)
            .await
            .context(what)?;
    }
    transaction.commit().await.context(what)
}

/// Deletes a block. False if there was none.
pub async fn delete(meta: &Meta, sha256: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM blocks WHERE sha256 = $1")
        .bind(sha256)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete block {sha256}"))?;
    Ok(result.rows_affected() > 0)
}

/// Forgets blocks that were not used since `before` (milliseconds since 1970, UTC); returns how many.
pub async fn sweep(meta: &Meta, before: i64) -> Result<u64> {
    let result = sqlx::query("DELETE FROM blocks WHERE used_at < $1")
        .bind(before)
        .execute(&meta.pool)
        .await
        .context(|| "forget old blocks".to_owned())?;
    Ok(result.rows_affected())
}
