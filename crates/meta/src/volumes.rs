//! Volumes. Their versions are in [`crate::volume_versions`].

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, name, environment, created_at, record";

/// A row of `volumes`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Volume {
    /// `vo-…`
    pub id: String,
    /// Name within its environment; empty if it has none.
    pub name: String,
    /// Environment that the name belongs to.
    pub environment: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces a Volume.
pub async fn put(meta: &Meta, volume: &Volume) -> Result<()> {
    sqlx::query(
        "INSERT INTO volumes (id, name, environment, created_at, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, environment = excluded.environment, \
         created_at = excluded.created_at, record = excluded.record",
    )
    .bind(&volume.id)
    .bind(&volume.name)
    .bind(&volume.environment)
    .bind(volume.created_at)
    .bind(&volume.record)
    .execute(&meta.pool)
    .await
    .context(|| format!("write Volume {}", volume.id))?;
    Ok(())
}

/// The Volume with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<Volume>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM volumes WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read Volume {id}"))
}

/// The Volume of this name. Of several the oldest counts.
pub async fn find(meta: &Meta, environment: &str, name: &str) -> Result<Option<Volume>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM volumes WHERE environment = $1 AND name = $2 ORDER BY created_at, id LIMIT 1"
    ))
    .bind(environment)
    .bind(name)
    .fetch_optional(&meta.pool)
    .await
    .context(|| format!("find the Volume {name} of environment {environment}"))
}

/// All Volumes, the oldest first.
pub async fn list(meta: &Meta) -> Result<Vec<Volume>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM volumes ORDER BY created_at, id"))
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the Volumes".to_owned())
}

/// Deletes a Volume with its versions and the marks of what was taken for it. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM volumes WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete Volume {id}"))?;
    Ok(result.rows_affected() > 0)
}
