//! How commands speak to the running server: where it serves and with which token is in the data directory.

use std::path::Path;

use homeport_proto::admin::admin_client::AdminClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::data_dir::{DataDir, DataDirError};
use crate::environment::{self, KeptToken};
use crate::failure::Hint;
use crate::tokens::TokenError;

/// The largest message that is read: a history may be long.
const MAX_MESSAGE: usize = 256 << 20;

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot start the command")]
    Runtime(#[source] std::io::Error),
    #[error("the server can't be reached")]
    Connect(#[source] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    #[error("the server stopped before it was done")]
    CutOff(#[source] Box<Status>),
    #[error("the server's answer ended early")]
    Incomplete,
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<Status> for AdminError {
    fn from(status: Status) -> AdminError {
        match status.code() {
            Code::Unavailable => AdminError::CutOff(Box::new(status)),
            _ => AdminError::Refused(Box::new(status)),
        }
    }
}

impl Hint for AdminError {
    fn hint(&self) -> Option<String> {
        match self {
            AdminError::DataDir(error) => error.hint(),
            AdminError::Token(error) => error.hint(),
            AdminError::Refused(status) if status.code() == Code::Unimplemented => {
                Some("the running server is of another version: restart it".to_owned())
            }
            AdminError::CutOff(_) => Some("its log says why; the command can be repeated".to_owned()),
            _ => None,
        }
    }
}

/// Adds the token to every request.
#[derive(Clone)]
pub(crate) struct WithToken {
    id: MetadataValue<Ascii>,
    secret: MetadataValue<Ascii>,
}

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("x-modal-token-id", self.id.clone());
        metadata.insert("x-modal-token-secret", self.secret.clone());
        Ok(request)
    }
}

/// The API of the running server.
pub(crate) type Admin = AdminClient<InterceptedService<Channel, WithToken>>;

/// Does something with the server that runs on a data directory.
pub(crate) fn with_server<T, E: From<AdminError>>(
    data_dir: &Path,
    work: impl AsyncFnOnce(Admin) -> Result<T, E>,
) -> Result<T, E> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Runtime)?;
    runtime.block_on(async {
        let admin = connect(data_dir).await?;
        work(admin).await
    })
}

async fn connect(data_dir: &Path) -> Result<Admin, AdminError> {
    let data_dir = DataDir::existing(data_dir)?;
    let server = data_dir.running_server()?;
    let token = environment::token(&data_dir).await?;
    let channel = Endpoint::from_shared(server.url())
        .map_err(AdminError::Connect)?
        .connect()
        .await
        .map_err(AdminError::Connect)?;
    let client = AdminClient::with_interceptor(channel, with_token(&token)?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE))
}

fn with_token(token: &KeptToken) -> Result<WithToken, Status> {
    let value = |text: &str| {
        text.parse().map_err(|_| Status::unauthenticated("the kept token has characters that no token has"))
    };
    Ok(WithToken { id: value(&token.id)?, secret: value(&token.secret)? })
}
