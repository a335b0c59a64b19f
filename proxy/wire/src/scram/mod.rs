//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) as Postgres speaks them: both sides, without IO.
//!
//! [`server::Exchange`] proves a client against [`Verifiers`], [`client::Exchange`] logs in to a server with
//! [`Keys`]. The expensive step (PBKDF2) is never hidden inside an exchange: it happens in [`Keys::derive`] and in
//! [`Verifiers::new`], so the caller chooses where and how often it runs (see [`KeyCache`]).
//!
//! Both exchanges take one message per call and move on by one state; after an error they are finished, and every
//! further call answers [`ScramError::OutOfOrder`].

pub mod client;
pub mod server;

mod keys;
mod message;
mod verifier;

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{ClientError, ErrorResponse, sqlstate};

pub use self::keys::{KeyCache, Keys};
pub use self::verifier::{Params, Verifier, Verifiers};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The iteration count Postgres uses unless it is told otherwise.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// The most iterations accepted from a peer or from a stored verifier. Without a bound, a hostile server could keep a
/// worker busy for minutes with one small message.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Bytes of a SHA-256 digest, and so of every key and proof.
const KEY_LENGTH: usize = 32;

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that does not follow the grammar.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// A message longer than any honest one.
    #[error("SCRAM message is too long")]
    TooLong,
    /// A call in a state that does not expect it, or after an error.
    #[error("SCRAM message is out of order")]
    OutOfOrder,
    /// The client chose a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    UnknownMechanism,
    /// The client wants to act as somebody else (`a=`).
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The peer requires an extension (`m=`).
    #[error("peer requires an unsupported SCRAM extension")]
    MandatoryExtension,
    /// The client binds to something else than `tls-server-end-point`.
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The flag in the message contradicts the mechanism that the client chose.
    #[error("SCRAM channel-binding flag does not match the selected mechanism")]
    BindingFlag,
    /// The client believes that channel binding was not offered, but it was: somebody in between removed the offer.
    #[error(
        "SCRAM channel binding negotiation error: the offer of channel binding did not reach the client"
    )]
    Downgrade,
    /// The client is bound to another TLS channel than ours.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM nonce")]
    Nonce,
    /// The proof fits none of the verifiers.
    #[error("password authentication failed")]
    WrongPassword,
    /// Not 1 to [`MAX_ITERATIONS`] iterations.
    #[error("SCRAM iteration count {0} is not between 1 and {MAX_ITERATIONS}")]
    Iterations(u32),
    /// The server answered with an error of its own (`e=`), cut to a sane length.
    #[error("server rejected SCRAM authentication: {0}")]
    Rejected(String),
    /// The server could not prove that it knows the password.
    #[error("incorrect SCRAM server signature")]
    ServerSignature,
    /// A stored secret that is not a SCRAM-SHA-256 verifier.
    #[error("not a SCRAM-SHA-256 verifier: {0}")]
    Verifier(&'static str),
    /// A user without any password.
    #[error("no password to verify against")]
    NoPassword,
}

impl ScramError {
    /// The SQLSTATE with which Postgres reports this failure to a client.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Malformed(_)
            | Self::TooLong
            | Self::OutOfOrder
            | Self::UnknownMechanism
            | Self::BindingType
            | Self::BindingFlag
            | Self::Nonce => sqlstate::PROTOCOL_VIOLATION,
            Self::AuthorizationIdentity | Self::MandatoryExtension => {
                sqlstate::FEATURE_NOT_SUPPORTED
            }
            Self::Downgrade
            | Self::BindingMismatch
            | Self::Iterations(_)
            | Self::ServerSignature => sqlstate::INVALID_AUTHORIZATION,
            Self::WrongPassword | Self::Rejected(_) | Self::NoPassword => {
                sqlstate::INVALID_PASSWORD
            }
            Self::Verifier(_) => sqlstate::INTERNAL_ERROR,
        }
    }
}

impl ClientError for ScramError {
    fn response(&self) -> ErrorResponse {
        ErrorResponse::fatal(self.sqlstate(), self.to_string())
    }
}

/// A nonce for one exchange: 18 random bytes as 24 printable characters, like libpq's.
fn random_nonce() -> String {
    STANDARD.encode(rand::random::<[u8; 18]>())
}
