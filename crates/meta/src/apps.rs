//! Apps: programs that were run or deployed.

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, FromRow};

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "id, name, environment, state, created_at, record";

/// A row of `apps`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct App {
    /// `ap-…`
    pub id: String,
    /// Name it was run or deployed under; empty if none. Not unique: stopped apps keep theirs.
    pub name: String,
    /// Environment that the name lives in.
    pub environment: String,
    /// State in the caller's words.
    pub state: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// Inserts or replaces an app.
pub async fn put(meta: &Meta, app: &App) -> Result<()> {
    upsert(app).execute(&meta.pool).await.context(|| format!("write app {}", app.id))?;
    Ok(())
}

pub(crate) fn upsert(app: &App) -> Query<'_, Any, AnyArguments<'_>> {
    sqlx::query(
        "INSERT INTO apps (id, name, environment, state, created_at, record) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, environment = excluded.environment, \
         state = excluded.state, created_at = excluded.created_at, record = excluded.record",
    )
    .bind(&app.id)
    .bind(&app.name)
    .bind(&app.environment)
    .bind(&app.state)
    .bind(app.created_at)
    .bind(&app.record)
}

/// The app with this id.
pub async fn get(meta: &Meta, id: &str) -> Result<Option<App>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM apps WHERE id = $1"))
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read app {id}"))
}

/// The newest app of this name in this state.
pub async fn find(meta: &Meta, environment: &str, name: &str, state: &str) -> Result<Option<App>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM apps WHERE environment = $1 AND name = $2 AND state = $3 \
         ORDER BY created_at DESC, id DESC LIMIT 1"
    ))
    .bind(environment)
    .bind(name)
    .bind(state)
    .fetch_optional(&meta.pool)
    .await
    .context(|| format!("find app {name}"))
}

/// All apps of an environment, newest first.
pub async fn list_by_environment(meta: &Meta, environment: &str) -> Result<Vec<App>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM apps WHERE environment = $1 ORDER BY created_at DESC, id DESC"
    ))
    .bind(environment)
    .fetch_all(&meta.pool)
    .await
    .context(|| format!("list the apps of environment {environment}"))
}

/// All apps in a state, oldest first.
pub async fn list_by_state(meta: &Meta, state: &str) -> Result<Vec<App>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM apps WHERE state = $1 ORDER BY created_at, id"))
        .bind(state)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the apps in state {state}"))
}

/// Deletes an app. False if there was none.
pub async fn delete(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM apps WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete app {id}"))?;
    Ok(result.rows_affected() > 0)
}
