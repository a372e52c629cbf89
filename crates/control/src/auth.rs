//! Who calls: a user with a token, a worker of this server, or a container behind its worker.
//!
//! A container holds no credential. Its worker forwards what it says with the worker's own
//! credential and the id of the task, so the connection is the identity.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use homeport_meta::{ChangeMark, tokens, unknown_methods};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::Status;

use crate::clock::Seconds;
use crate::control::Control;
use crate::wire::feature;

/// Seconds for which a verified token isn't looked up again while nothing is written to the database.
/// Where writes can't be seen, a revoked token works so much longer.
const TRUST: Seconds = 2.0;
const CLIENT_SERVICE: &str = "/modal.client.ModalClient/";
/// Every request is looked up here, so it is no list.
static KNOWN_METHODS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| homeport_proto::CLIENT_METHODS.iter().copied().collect());

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A person or a program outside, by token.
    User {
        /// The token's id.
        token_id: String,
    },
    /// A container.
    Task {
        /// Its task.
        task_id: String,
    },
    /// A worker.
    Worker,
}

/// What is known of a caller besides its request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// The version of its client; empty if not said.
    pub client_version: String,
    /// The same over all attempts of one call.
    pub idempotency_key: Option<String>,
    /// The address by which it reached this server, for addresses in answers.
    pub authority: String,
}

impl Caller {
    /// The task, when the caller is a container.
    pub fn task_id(&self) -> Result<&str, Status> {
        match &self.identity {
            Identity::Task { task_id } => Ok(task_id),
            _ => Err(Status::permission_denied("only a container of this server may say this")),
        }
    }
}

/// Tokens that were verified a moment ago, by id.
#[derive(Debug, Default)]
pub struct Trusted {
    tokens: Mutex<HashMap<String, Trust>>,
}

/// What makes it needless to look a token up again.
#[derive(Debug, Clone, Copy)]
struct Trust {
    secret_hash: [u8; 32],
    at: Seconds,
    /// Any write to the database may be a revocation.
    database: Option<ChangeMark>,
}

/// Lets through who may call, with [`Caller`] and [`Identity`] attached to the request.
pub async fn authenticate(
    State(control): State<Control>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let identity = match control.identify(request.headers()).await {
        Ok(identity) => identity,
        Err(status) => return status.into_http::<Body>().into_response(),
    };
    let client_version = text(request.headers(), "x-modal-client-version").unwrap_or_default().to_owned();
    if let Some(method) = request.uri().path().strip_prefix(CLIENT_SERVICE)
        && !KNOWN_METHODS.contains(method)
    {
        let method = method.to_owned();
        let status = control.unknown_method(&client_version, &method).await;
        return status.into_http::<Body>().into_response();
    }
    let authority = text(request.headers(), "x-homeport-authority")
        .or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str))
        .or_else(|| text(request.headers(), "host"))
        .unwrap_or("localhost")
        .to_owned();
    let caller = Caller {
        identity: identity.clone(),
        client_version,
        idempotency_key: text(request.headers(), "x-idempotency-key").map(str::to_owned),
        authority,
    };
    request.extensions_mut().insert(identity);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

impl Control {
    async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Status> {
        if let Some(credential) = text(headers, "x-homeport-worker") {
            let expected = self.options.worker_credential.as_bytes();
            if !bool::from(credential.as_bytes().ct_eq(expected)) {
                return Err(Status::unauthenticated("the worker's credential is not this server's"));
            }
            if headers.contains_key("x-homeport-step") {
                return Err(Status::permission_denied("a command of an image build has no part in this API"));
            }
            return Ok(match text(headers, "x-homeport-task") {
                Some(task_id) => Identity::Task { task_id: task_id.to_owned() },
                None => Identity::Worker,
            });
        }
        let (Some(id), Some(secret)) =
            (text(headers, "x-modal-token-id"), text(headers, "x-modal-token-secret"))
        else {
            return Err(Status::unauthenticated(
                "no token was sent: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, which `homeport env` prints",
            ));
        };
        if self.is_valid(id, secret).await? {
            return Ok(Identity::User { token_id: id.to_owned() });
        }
        Err(Status::unauthenticated(format!(
            "the token {id} is not valid here: make one with `homeport token create`, or take the one that \
             `homeport env` prints"
        )))
    }

    async fn is_valid(&self, id: &str, secret: &str) -> Result<bool, Status> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let now = self.clock.now();
        let known = {
            let tokens = self.trusted.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.get(id).copied()
        };
        // Read before the look-up, so that a write during it ends the trust.
        let database = self.registry.meta().change_mark();
        if let Some(trust) = known
            && now - trust.at < TRUST
            && trust.database == database
            && bool::from(trust.secret_hash.ct_eq(&hash))
        {
            return Ok(true);
        }
        let valid = tokens::verify(self.registry.meta(), id, secret)
            .await
            .map_err(|error| Status::unavailable(format!("the token could not be checked: {error}")))?;
        if valid {
            let mut tokens = self.trusted.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.insert(id.to_owned(), Trust { secret_hash: hash, at: now, database });
        }
        Ok(valid)
    }

    /// The answer to a method that this server doesn't have; noted once for each client version.
    async fn unknown_method(&self, client_version: &str, method: &str) -> Status {
        let now = (self.clock.now() * 1000.0) as i64;
        match unknown_methods::note(self.registry.meta(), client_version, method, now).await {
            Ok(true) => {
                tracing::warn!(client = client_version, method, "a client called a method that is not there")
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, method, "an unknown method could not be noted"),
        }
        let what = feature(method).unwrap_or("what the client asks for is not there yet");
        Status::unimplemented(format!("on this Homeport, {what} ({method}, client {client_version})"))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
