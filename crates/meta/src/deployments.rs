//! Deployments: what an app consisted of at each of its versions.

use sqlx::FromRow;

use crate::apps::App;
use crate::database::{Context, Meta, Result};
use crate::objects::Object;
use crate::{apps, objects};

/// A row of `deployments`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Deployment {
    /// The app.
    pub app_id: String,
    /// Counts the deployments of the app, from 1.
    pub version: i64,
    /// Milliseconds since 1970, UTC.
    pub deployed_at: i64,
    /// The rest, in the caller's encoding.
    pub record: Vec<u8>,
}

/// A new state of an app and of what it consists of, all at once or not at all.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// The app.
    pub app: &'a App,
    /// Those of its objects that change.
    pub objects: &'a [Object],
    /// Rows of its history that are new or change.
    pub deployments: &'a [Deployment],
}

/// Writes a publication in one transaction.
pub async fn publish(meta: &Meta, publication: &Publication<'_>) -> Result<()> {
    let what = || format!("publish app {}", publication.app.id);
    let mut transaction = meta.pool.begin().await.context(what)?;
    for object in publication.objects {
        objects::upsert(object).execute(&mut *transaction).await.context(what)?;
    }
    for deployment in publication.deployments {
        sqlx::query(
            "INSERT INTO deployments (app_id, version, deployed_at, record) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (app_id, version) DO UPDATE SET deployed_at = excluded.deployed_at, \
             record = excluded.record",
        )
        .bind(&deployment.app_id)
        .bind(deployment.version)
        .bind(deployment.deployed_at)
        .bind(&deployment.record)
        .execute(&mut *transaction)
        .await
        .context(what)?;
    }
    apps::upsert(publication.app).execute(&mut *transaction).await.context(what)?;
    transaction.commit().await.context(what)
}

/// All deployments of all apps, by app and version.
pub async fn list(meta: &Meta) -> Result<Vec<Deployment>> {
    sqlx::query_as("SELECT app_id, version, deployed_at, record FROM deployments ORDER BY app_id, version")
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the deployments".to_owned())
}

/// Deletes the history of an app; returns how many versions it had.
pub async fn delete_by_app(meta: &Meta, app_id: &str) -> Result<u64> {
    let result = sqlx::query("DELETE FROM deployments WHERE app_id = $1")
        .bind(app_id)
        .execute(&meta.pool)
        .await
        .context(|| format!("delete the deployments of app {app_id}"))?;
    Ok(result.rows_affected())
}
