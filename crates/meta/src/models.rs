//! Models of the local hub: repositories, their revisions, and the names that point at revisions.

use sqlx::FromRow;

use crate::database::{Context, Meta, Result};

const COLUMNS: &str = "repository, revision, created_at, record";

/// A row of `models`: one revision of a repository.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Model {
    /// `organization/name`
    pub repository: String,
    /// Commit hash, lower hex.
    pub revision: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// A row of `model_refs`: a branch or tag.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Reference {
    /// `organization/name`
    pub repository: String,
    /// For example `main`.
    pub name: String,
    /// Commit hash it points at.
    pub revision: String,
}

/// Inserts or replaces a revision and points a name at it, in one transaction.
pub async fn put(meta: &Meta, model: &Model, name: &str) -> Result<()> {
    let what = || format!("write model {} at {name}", model.repository);
    let mut transaction = meta.pool.begin().await.context(what)?;
    sqlx::query(
        "INSERT INTO models (repository, revision, created_at, record) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (repository, revision) DO UPDATE SET created_at = excluded.created_at, \
         record = excluded.record",
    )
    .bind(&model.repository)
    .bind(&model.revision)
    .bind(model.created_at)
    .bind(&model.record)
    .execute(&mut *transaction)
    .await
    .context(what)?;
    sqlx::query(
        "INSERT INTO model_refs (repository, name, revision) VALUES ($1, $2, $3) \
         ON CONFLICT (repository, name) DO UPDATE SET revision = excluded.revision",
    )
    .bind(&model.repository)
    .bind(name)
    .bind(&model.revision)
    .execute(&mut *transaction)
    .await
    .context(what)?;
    transaction.commit().await.context(what)
}

/// The revision that a commit hash or a name means.
pub async fn find(meta: &Meta, repository: &str, revision_or_name: &str) -> Result<Option<Model>> {
    sqlx::query_as(&format!(
        "SELECT {COLUMNS} FROM models WHERE repository = $1 AND (revision = $2 OR revision = \
         (SELECT r.revision FROM model_refs r WHERE r.repository = $1 AND r.name = $2)) \
         ORDER BY CASE WHEN revision = $2 THEN 1 ELSE 0 END LIMIT 1"
    ))
    .bind(repository)
    .bind(revision_or_name)
    .fetch_optional(&meta.pool)
    .await
    .context(|| format!("read model {repository} at {revision_or_name}"))
}

/// All revisions of all repositories, by repository and age.
pub async fn list(meta: &Meta) -> Result<Vec<Model>> {
    sqlx::query_as(&format!("SELECT {COLUMNS} FROM models ORDER BY repository, created_at, revision"))
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the models".to_owned())
}

/// All names of a repository.
pub async fn references(meta: &Meta, repository: &str) -> Result<Vec<Reference>> {
    sqlx::query_as("SELECT repository, name, revision FROM model_refs WHERE repository = $1 ORDER BY name")
        .bind(repository)
        .fetch_all(&meta.pool)
        .await
        .context(|| format!("list the names of model {repository}"))
}

/// Deletes a repository with all its revisions and names; returns how many revisions there were.
pub async fn delete(meta: &Meta, repository: &str) -> Result<u64> {
    let result = sqlx::query("DELETE FROM models WHERE repository = $1")
        .bind(repository)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete model {repository}"))?;
    Ok(result.rows_affected())
}
