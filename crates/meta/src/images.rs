//! Images, found by what they are made of.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, cache_key, state, record";

/// A row of `images`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Image {
    /// `im-…`
    pub id: String,
    /// Digest of everything that decides the image's content. Unique.
    pub cache_key: String,
    /// State in the caller's words.
    pub state: String,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces an image. Fails if another image has the same cache key.
pub async fn put(meta: &Meta, image: &Image) -> Result<()> {
    sqlx::query(
        "INSERT INTO images (id, cache_key, state, record) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET cache_key = excluded.cache_key, state = excluded.state, \
         record = excluded.record",
    )
    .bind(&image.id)
    .bind(&image.cache_key)
    .bind(&image.state)
    .bind(&image.record)
    .execute(&meta.pool)
    .await
    .context(|| format!("write image {}", image.id))?;
    Ok(())
}

/// Inserts an image unless one with its cache key exists; returns the one that is there afterwards.
///
/// Of two callers with the same key both get the same image.
pub async fn get_or_insert(meta: &Meta, image: &Image) -> Result<Image> {
    let what = || format!("create image {}", image.id);
    let mut transaction = meta.pool.begin().await.context(what)?;
    sqlx::query(
        "INSERT INTO images (id, cache_key, state, record) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (cache_key) DO NOTHING",
    )
    .bind(&image.id)
    .bind(&image.cache_key)
    .bind(&image.state)
    .bind(&image.record)
    .execute(&mut *transaction)
    .await
    .context(what)?;
    let stored = sqlx::query_as(&format!("SELECT {COLUMNS} FROM images WHERE cache_key = $1"))
        .bind(&image.cache_key)
        .fetch_one(&mut *transaction)
        .await
        .context(what)?;
    transaction.commit().await.context(what)?;
    Ok(stored)
}

/// The image with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<Image>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM images WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read image {id}"))
}

/// The image with this cache key.
pub async fn find(meta: &Meta, cache_key: &str) -> Result<Option<Image>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM images WHERE cache_key = $1"))
        .bind(cache_key)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("find the image of key {cache_key}"))
}

/// All images in a state.
pub async fn list_by_state(meta: &Meta, state: &str) -> Result<Vec<Image>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM images WHERE state = $1 ORDER BY id"))
        .bind(state)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the images in state {state}"))
}

/// Deletes an image. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM images WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete image {id}"))?;
    Ok(result.rows_affected() > 0)
}
