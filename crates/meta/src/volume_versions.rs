//! The versions of Volumes. Inserting number n + 1 is the commit: of two who try, one gets it.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};
use crate::volume_takes::{self, Take};
use crate::volumes;

const COLUMNS: &str = "volume_id, number, created_at, record";

/// A row of `volume_versions`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Version {
    /// The Volume.
    pub volume_id: String,
    /// Counts from 1.
    pub number: i64,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts a version, together with the mark of the take that it came from. False if its number is given away.
pub async fn insert(meta: &Meta, version: &Version, take: Option<&Take>) -> Result<bool> {
    let what = || format!("write version {} of Volume {}", version.number, version.volume_id);
    let mut transaction = meta.pool.begin().await.context(what)?;
    let inserted = insert_row(&mut transaction, version).await.context(what)?;
    if !inserted {
        return Ok(false);
    }
    if let Some(take) = take {
        volume_takes::insert_row(&mut transaction, take).await.context(what)?;
    }
    transaction.commit().await.context(what)?;
    Ok(true)
}

/// Writes a new Volume together with its first version.
pub async fn found(meta: &Meta, volume: &volumes::Volume, version: &Version) -> Result<()> {
    let what = || format!("write Volume {}", volume.id);
    let mut transaction = meta.pool.begin().await.context(what)?;
    sqlx::query(
        "INSERT INTO volumes (id, name, environment, created_at, record) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&volume.id)
    .bind(&volume.name)
    .bind(&volume.environment)
    .bind(volume.created_at)
    .bind(&volume.record)
    .execute(&mut *transaction)
    .await
    .context(what)?;
    insert_row(&mut transaction, version).await.context(what)?;
    transaction.commit().await.context(what)
}

async fn insert_row(
    connection: &mut sqlx::AnyConnection,
    version: &Version,
) -> std::result::Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "INSERT INTO volume_versions (volume_id, number, created_at, record) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (volume_id, number) DO NOTHING",
    )
    .bind(&version.volume_id)
    .bind(version.number)
    .bind(version.created_at)
    .bind(&version.record)
    .execute(connection)
    .await?;
    Ok(result.rows_affected() > 0)
}

/// Replaces the records of versions that are there, all or none. What is not there any more stays away.
pub async fn replace(meta: &Meta, versions: &[Version]) -> Result<()> {
    let what = || match versions {
        [one] => format!("write version {} of Volume {}", one.number, one.volume_id),
        _ => format!("write {} versions", versions.len()),
    };
    let mut transaction = meta.pool.begin().await.context(what)?;
    for version in versions {
        sqlx::query("UPDATE volume_versions SET record = $1 WHERE volume_id = $2 AND number = $3")
            .bind(&version.record)
            .bind(&version.volume_id)
            .bind(version.number)
            .execute(&mut *transaction)
            .await
            .context(what)?;
    }
    transaction.commit().await.context(what)
}

/// The newest version.
pub async fn newest(meta: &Meta, volume_id: &str) -> Result<Option<Version>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM volume_versions WHERE volume_id = $1 ORDER BY number DESC LIMIT 1"
    ))
    .bind(volume_id)
    .fetch_optional(&meta.pool)
    .await
    .context(|| format!("read the newest version of Volume {volume_id}"))
}

/// The version of this number.
pub async fn get(meta: &Meta, volume_id: &str, number: i64) -> Result<Option<Version>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM volume_versions WHERE volume_id = $1 AND number = $2"))
        .bind(volume_id)
        .bind(number)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read version {number} of Volume {volume_id}"))
}

/// The versions with numbers above `after`, the oldest first.
pub async fn list_after(meta: &Meta, volume_id: &str, after: i64) -> Result<Vec<Version>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM volume_versions WHERE volume_id = $1 AND number > $2 ORDER BY number"
    ))
    .bind(volume_id)
    .bind(after)
    .fetch_all(&meta.pool)
    .await
    .context(|| format!("list the versions of Volume {volume_id}"))
}

/// All versions of all Volumes at one moment, by Volume and number.
pub async fn list_all(meta: &Meta) -> Result<Vec<Version>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM volume_versions ORDER BY volume_id, number"))
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the versions of all Volumes".to_owned())
}

/// Deletes versions and returns how many were there.
pub async fn delete(meta: &Meta, volume_id: &str, numbers: &[i64]) -> Result<u64> {
    let what = || format!("delete {} versions of Volume {volume_id}", numbers.len());
    let mut transaction = meta.pool.begin().await.context(what)?;
    let mut deleted = 0;
    for number in numbers {
        let result = sqlx::query("DELETE FROM volume_versions WHERE volume_id = $1 AND number = $2")
            .bind(volume_id)
            .bind(number)
            .execute(&mut *transaction)
            .await
            .context(what)?;
        deleted += result.rows_affected();
    }
    transaction.commit().await.context(what)?;
    Ok(deleted)
}
