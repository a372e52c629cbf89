//! Environments: in which names live. The default one has no row.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

/// A row of `environments`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Environment {
    /// Its name, which is also its identity.
    pub name: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
}

/// Inserts an environment. False if there was one of this name.
pub async fn insert(meta: &Meta, environment: &Environment) -> Result<bool> {
    let result = sqlx::query(
        "INSERT INTO environments (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&environment.name)
    .bind(environment.created_at)
    .execute(&meta.pool)
    .await
    .context(|| format!("write environment {}", environment.name))?;
    Ok(result.rows_affected() > 0)
}

/// All environments, the oldest first.
pub async fn list(meta: &Meta) -> Result<Vec<Environment>> {
    sqlx::query_as("SELECT name, created_at FROM environments ORDER BY created_at, name")
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the environments".to_owned())
}

/// Deletes an environment. False if there was none.
pub async fn delete(meta: &Meta, name: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM environments WHERE name = $1")
        .bind(name)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete environment {name}"))?;
    Ok(result.rows_affected() > 0)
}
