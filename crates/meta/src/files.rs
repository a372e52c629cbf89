//! Files that clients uploaded: clients name contents by SHA-256, the store by its own digest.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `files`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct File {
    /// SHA-256 of the content, lower hex.
    pub sha256: String,
    /// The store's digest of the same content.
    pub digest: String,
    /// Bytes.
    pub size: i64,
}

/// Inserts or replaces a file.
pub async fn put(meta: &Meta, file: &File) -> Result<()> {
    sqlx::query(
        "INSERT INTO files (sha256, digest, size) VALUES ($1, $2, $3) \
         ON CONFLICT (sha256) DO UPDATE SET digest = excluded.digest, size = excluded.size",
    )
    .bind(&file.sha256)
    .bind(&file.digest)
    .bind(file.size)
    .execute(&meta.pool)
    .await
    .context(|| format!("write file {}", file.sha256))?;
    Ok(())
}

/// The file with this SHA-256.
pub async fn get(meta: &Meta, sha256: &str) -> Result<Option<File>> {
    sqlx::query_as("SELECT sha256, digest, size FROM files WHERE sha256 = $1")
        .bind(sha256)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read file {sha256}"))
}

/// Deletes a file. False if there was none.
pub async fn delete(meta: &Meta, sha256: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM files WHERE sha256 = $1")
        .bind(sha256)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete file {sha256}"))?;
    Ok(result.rows_affected() > 0)
}

/// The SHA-256 and the store's digest of every file.
pub async fn list(meta: &Meta) -> Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT sha256, digest FROM files ORDER BY sha256")
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the uploaded files".to_owned())
}
