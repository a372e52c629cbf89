//! Objects: functions, classes, mounts and whatever else an app is made of, kept apart by `kind`.

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, FromRow};

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, kind, app_id, name, record";

/// A row of `objects`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Object {
    /// Id with the prefix of its kind, for example `fu-…`.
    pub id: String,
    /// Kind in the caller's words, for example `function`.
    pub kind: String,
    /// App it belongs to; empty for what lives by itself.
    pub app_id: String,
    /// Name within the app, or of its own; empty if none.
    pub name: String,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces an object.
pub async fn put(meta: &Meta, object: &Object) -> Result<()> {
    put_all(meta, std::slice::from_ref(object)).await
}

/// Inserts or replaces several objects in one transaction.
pub async fn put_all(meta: &Meta, objects: &[Object]) -> Result<()> {
    let what = || match objects {
        [one] => format!("write {} {}", one.kind, one.id),
        _ => format!("write {} objects", objects.len()),
    };
    let mut transaction = meta.pool.begin().await.context(what)?;
    for object in objects {
        upsert(object).execute(&mut *transaction).await.context(what)?;
    }
    transaction.commit().await.context(what)
}

pub(crate) fn upsert(object: &Object) -> Query<'_, Any, AnyArguments<'_>> {
    sqlx::query(
        "INSERT INTO objects (id, kind, app_id, name, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, app_id = excluded.app_id, \
         name = excluded.name, record = excluded.record",
    )
    .bind(&object.id)
    .bind(&object.kind)
    .bind(&object.app_id)
    .bind(&object.name)
    .bind(&object.record)
}

/// The object with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<Object>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM objects WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read object {id}"))
}

/// The object of this kind and name within an app.
pub async fn find(meta: &Meta, app_id: &str, kind: &str, name: &str) -> Result<Option<Object>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM objects WHERE app_id = $1 AND kind = $2 AND name = $3 ORDER BY id LIMIT 1"
    ))
    .bind(app_id)
    .bind(kind)
    .bind(name)
    .fetch_optional(&meta.pool)
    .await
    .context(|| format!("find {kind} {name} of app {app_id}"))
}

/// All objects of an app, by kind and name.
pub async fn list_by_app(meta: &Meta, app_id: &str) -> Result<Vec<Object>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM objects WHERE app_id = $1 ORDER BY kind, name, id"))
        .bind(app_id)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the objects of app {app_id}"))
}

/// All objects of a kind, by name.
pub async fn list_by_kind(meta: &Meta, kind: &str) -> Result<Vec<Object>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM objects WHERE kind = $1 ORDER BY name, id"))
        .bind(kind)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the objects of kind {kind}"))
}

/// Deletes an object. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM objects WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete object {id}"))?;
    Ok(result.rows_affected() > 0)
}

/// Deletes all objects of an app; returns how many.
pub async fn delete_by_app(meta: &Meta, app_id: &str) -> Result<u64> {
    let result = sqlx::query("DELETE FROM objects WHERE app_id = $1")
        .bind(app_id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete the objects of app {app_id}"))?;
    Ok(result.rows_affected())
}
