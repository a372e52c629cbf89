//! What an error of a registry means for the user.

use std::error::Error;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use super::Source;
use crate::base::BaseError;

pub(super) fn classify(source: &Source, object: &str, error: OciDistributionError) -> BaseError {
    let reference = source.reference.whole();
    let registry = source.host().to_owned();
    let reason = chain(&error);
    match error {
        OciDistributionError::RequestError(request)
            if request.is_connect() || request.is_timeout() || request.is_request() =>
        {
            source.unreachable(&reason)
        }
        // What stands between us and the registry answers in its place.
        OciDistributionError::ServerError { code: code @ 502..=504, .. } => {
            source.unreachable(&format!("HTTP status {code}"))
        }
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::ServerError { code: 401 | 403, .. } => {
            BaseError::Denied { reference, registry, reason: "login needed or refused".to_owned() }
        }
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => {
            BaseError::NotFound { reference, registry, reason: "not found".to_owned() }
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let said: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
            let reason = said.join("; ");
            match envelope.errors.first().map(|error| &error.code) {
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::NameInvalid
                    | OciErrorCode::TagInvalid,
                ) => BaseError::NotFound { reference, registry, reason },
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                    BaseError::Denied { reference, registry, reason }
                }
                _ => source.failed(reason),
            }
        }
        OciDistributionError::DigestError(_) => {
            BaseError::DigestMismatch { reference, registry, object: object.to_owned(), reason }
        }
        _ => source.failed(reason),
    }
}

/// The message with those of its causes: "error sending request" alone helps nobody.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = next.source();
    }
    text
}
