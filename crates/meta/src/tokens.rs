//! Tokens: the id and secret with which a client shows who it is.
//!
//! A secret is 22 random letters and digits (131 bits), so a salted SHA-256 is enough: there is nothing
//! to guess. The secret itself is returned once, by [`create`], and never stored.

use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use subtle::ConstantTimeEq;

use crate::database::{Context, Meta, Result};

const RANDOM_CHARACTERS: usize = 22;
const SALT_BYTES: usize = 16;

/// A token as its owner needs it. The secret exists nowhere else.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `ak-…`
    pub id: String,
    /// `as-…`
    pub secret: String,
}

/// A token as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Token {
    /// `ak-…`
    pub id: String,
    /// What it is for, as its creator said. May be empty.
    pub name: String,
    /// Milliseconds since 1970, UTC.
    pub created_at: i64,
}

/// Makes a token. `created_at` is in milliseconds since 1970, UTC.
pub async fn create(meta: &Meta, name: &str, created_at: i64) -> Result<Credentials> {
    let id = format!("ak-{}", random_characters());
    let secret = format!("as-{}", random_characters());
    let salt: [u8; SALT_BYTES] = rand::rng().random();
    sqlx::query("INSERT INTO tokens (id, name, salt, hash, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(&id)
        .bind(name)
        .bind(salt.to_vec())
        .bind(hash(&salt, &secret).to_vec())
        .bind(created_at)
        .execute(&meta.pool)
        .await
        .context(|| "create a token".to_owned())?;
    Ok(Credentials { id, secret })
}

/// All tokens, oldest first.
pub async fn list(meta: &Meta) -> Result<Vec<Token>> {
    sqlx::query_as("SELECT id, name, created_at FROM tokens ORDER BY created_at, id")
        .fetch_all(&meta.pool)
        .await
        .context(|| "list the tokens".to_owned())
}

/// Deletes a token. False if there was none with this id.
pub async fn revoke(meta: &Meta, id: &str) -> Result<bool> {
    let result = sqlx::query("DELETE FROM tokens WHERE id = $1")
        .bind(id)
        .execute(&meta.pool)
        .await
        .context(|| format!("revoke token {id}"))?;
    Ok(result.rows_affected() > 0)
}

/// Whether the secret belongs to the token.
///
/// The time it takes tells nothing of how much of a secret was right, nor whether the id exists beyond
/// what the database's own lookup of it costs.
pub async fn verify(meta: &Meta, id: &str, secret: &str) -> Result<bool> {
    let row: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as("SELECT salt, hash FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_optional(&meta.pool)
        .await
        .context(|| format!("read token {id}"))?;
    let known = row.is_some();
    // An unknown id is compared with something that no secret hashes to, so that both cases do the same work.
    let (salt, expected) = row.unwrap_or_else(|| (vec![0; SALT_BYTES], vec![0; 32]));
    let matches: bool = hash(&salt, secret).as_slice().ct_eq(&expected).into();
    Ok(known & matches)
}

fn hash(salt: &[u8], secret: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(secret.as_bytes()).finalize().into()
}

fn random_characters() -> String {
    rand::rng().sample_iter(Alphanumeric).take(RANDOM_CHARACTERS).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_accepted_with_its_own_secret_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        let one = create(&meta, "laptop", 1).await.unwrap();
        let two = create(&meta, "", 2).await.unwrap();

        assert!(verify(&meta, &one.id, &one.secret).await.unwrap());
        assert!(!verify(&meta, &one.id, &two.secret).await.unwrap());
        assert!(!verify(&meta, "ak-unknown", &one.secret).await.unwrap());
        assert!(!verify(&meta, &one.id, "").await.unwrap());

        let listed = list(&meta).await.unwrap();
        assert_eq!(listed.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["laptop", ""]);

        assert!(revoke(&meta, &one.id).await.unwrap());
        assert!(!revoke(&meta, &one.id).await.unwrap());
        assert!(!verify(&meta, &one.id, &one.secret).await.unwrap());
        assert!(verify(&meta, &two.id, &two.secret).await.unwrap());
    }

    #[tokio::test]
    async fn the_secret_is_nowhere_in_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        let token = create(&meta, "x", 1).await.unwrap();
        meta.close().await;
        let secret = token.secret.strip_prefix("as-").unwrap();
        assert_eq!(secret.len(), RANDOM_CHARACTERS);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}
