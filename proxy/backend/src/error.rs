//! What can go wrong with servers, and what a client is told of it.

use std::sync::Arc;
use std::time::Duration;

use pgdog_net::NetError;
use pgdog_wire::scram::ScramError;
use pgdog_wire::{ClientError, ErrorResponse, sqlstate};
use thiserror::Error;

use crate::expect::OutOfSync;

/// Why a server connection could not be had or was lost.
#[derive(Debug, Clone, Error)]
pub enum ServerError {
    /// The server could not be reached.
    #[error("connect to server {}: {}", self.place(address), self.reason())]
    Dial {
        /// Host and port.
        address: String,
        /// The cause.
        source: Arc<NetError>,
    },
    /// It did not finish the login in time.
    #[error("connect to server {address}: {}", self.reason())]
    LoginTimeout {
        /// Host and port.
        address: String,
        /// `connect_timeout`.
        timeout: Duration,
    },
    /// `tls_verify` asks for TLS and the server has none.
    #[error("connect to server {address}: {}", self.reason())]
    NoTls {
        /// Host and port.
        address: String,
    },
    /// The server's own words, at login or for a query of ours.
    #[error("server said: {} ({})", .0.message, .0.code)]
    Refused(Box<ErrorResponse>),
    /// The server wants a way of authentication that is not spoken here, or that the configuration has no secret for.
    #[error("server asks for {0}")]
    Authentication(&'static str),
    /// SCRAM failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The connection broke.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// The connection broke with an error of the system.
    #[error("server connection: {0}")]
    Io(Arc<std::io::Error>),
    /// The server broke the protocol.
    #[error("server broke the protocol: {0}")]
    Protocol(&'static str),
    /// An answer that nothing asked for.
    #[error(transparent)]
    OutOfSync(#[from] OutOfSync),
    /// The server did not answer a query of ours in time.
    #[error("server did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl From<std::io::Error> for ServerError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl ServerError {
    /// Whether trying again cannot help before somebody changes something: wrong password, no such database, a
    /// certificate that is not trusted. A name without an address is none of these: names come and go.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoTls { .. } | Self::Authentication(_) | Self::Scram(_) => true,
            Self::Dial { source, .. } => matches!(
                **source,
                NetError::Certificate { .. } | NetError::HostName { .. }
            ),
            Self::Refused(error) => {
                error.code.starts_with("28")
                    || error.code == sqlstate::UNDEFINED_DATABASE
                    || error.code.starts_with("42")
            }
            _ => false,
        }
    }

    /// Whether it is the connection that has ended, and not a question that was answered with no.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Closed | Self::Io(_) | Self::Timeout(_) => true,
            Self::Refused(error) => error.code.starts_with("57P"),
            _ => false,
        }
    }

    /// The cause without the place.
    fn reason(&self) -> String {
        match self {
            Self::Dial { source, .. } => match &**source {
                NetError::Connect { cause, .. } => in_words(cause),
                NetError::Resolve { host, cause } => {
                    format!("the name {host} cannot be resolved: {}", in_words(cause))
                }
                NetError::ConnectTimeout { timeout, .. } => {
                    format!("no answer within {} ms", timeout.as_millis())
                }
                NetError::Handshake { cause, .. } => {
                    format!("the TLS handshake failed: {}", in_words(cause))
                }
                NetError::Certificate { reason, .. } => reason.clone(),
                other => other.to_string(),
            },
            Self::LoginTimeout { timeout, .. } => {
                format!(
                    "it did not answer the login within {} ms",
                    timeout.as_millis()
                )
            }
            Self::NoTls { .. } => "it does not support TLS, which tls_verify requires".to_owned(),
            Self::Refused(error) => format!("{} ({})", error.message, error.code),
            other => other.to_string(),
        }
    }

    /// Where the server is: as configured, and the address that was tried where a name has several.
    fn place<'a>(&'a self, address: &'a str) -> &'a str {
        match self {
            Self::Dial { source, .. } => match &**source {
                NetError::Connect { address, .. } => address,
                _ => address,
            },
            _ => address,
        }
    }

    /// What is told where no server can be had: the cause first.
    fn cannot_connect(&self, address: &str) -> ErrorResponse {
        let message = format!(
            "cannot connect to server {}: {}",
            self.place(address),
            self.reason()
        );
        ErrorResponse::error(sqlstate::CANNOT_CONNECT, message)
    }
}

/// What the system said, without its number.
fn in_words(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error ") {
        text.truncate(end);
    }
    text
}

impl ClientError for ServerError {
    fn response(&self) -> ErrorResponse {
        match self {
            Self::Refused(error) => ErrorResponse {
                ..(**error).clone()
            },
            Self::Dial { address, .. }
            | Self::LoginTimeout { address, .. }
            | Self::NoTls { address } => self.cannot_connect(address),
            Self::Authentication(_) | Self::Scram(_) => ErrorResponse::error(
                sqlstate::CANNOT_CONNECT,
                format!("could not log in to the server: {self}"),
            ),
            Self::Closed | Self::Io(_) | Self::Timeout(_) => {
                ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, self.to_string())
            }
            Self::Protocol(_) | Self::OutOfSync(_) => {
                ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, self.to_string())
            }
        }
    }
}

/// Why a checkout failed.
#[derive(Debug, Clone, Error)]
pub enum CheckoutError {
    /// No server connection became free in time.
    #[error("no server connection became free within {} ms", waited.as_millis())]
    Timeout {
        /// `checkout_timeout`.
        waited: Duration,
        /// Why no new one could be opened, if that was tried.
        last: Option<ServerError>,
    },
    /// There is no server connection, and none could be opened in time.
    #[error("cannot connect to server {}: {}", cause.place(address), cause.reason())]
    Unreachable {
        /// Where the server is.
        address: String,
        /// `checkout_timeout`.
        waited: Duration,
        /// Why the last attempt failed.
        cause: ServerError,
    },
    /// A server connection could not be opened, and waiting would not help.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The pool was taken out of the configuration or the proxy shuts down.
    #[error("the pool is closed")]
    Closed,
}

impl ClientError for CheckoutError {
    fn response(&self) -> ErrorResponse {
        match self {
            Self::Timeout { last, .. } => {
                let error = ErrorResponse::error(
                    sqlstate::TOO_MANY_CONNECTIONS,
                    format!("checkout timeout: {self}"),
                );
                match last {
                    Some(last) => ErrorResponse {
                        code: sqlstate::CANNOT_CONNECT.to_owned(),
                        ..error
                    }
                    .detail(last.to_string()),
                    None => error
                        .hint("Raise pool_size (or the budget of the host) or checkout_timeout, or make transactions shorter."),
                }
            }
            Self::Unreachable {
                address,
                waited,
                cause,
            } => cause.cannot_connect(address).detail(format!(
                "It was tried for {} ms (checkout_timeout).",
                waited.as_millis()
            )),
            Self::Server(error) => error.response(),
            Self::Closed => ErrorResponse::fatal(
                sqlstate::ADMIN_SHUTDOWN,
                "the pool is closed: the configuration changed or the proxy shuts down",
            ),
        }
    }
}
