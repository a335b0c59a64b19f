//! The server's side: checks a client.

use std::fmt;
use std::mem;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::keys::{self, Keys};
use super::message::{BindingFlag, ClientFinal, ClientFirst};
use super::verifier::Verifiers;
use super::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, random_nonce};

/// What the connection to the client can be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Nothing: no TLS, or a certificate without a usable digest. Only `SCRAM-SHA-256` is offered.
    Unsupported,
    /// The `tls-server-end-point` data of our certificate. `SCRAM-SHA-256-PLUS` is offered too.
    Supported(Vec<u8>),
}

impl ChannelBinding {
    /// The mechanisms to offer, the preferred one first.
    #[must_use]
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self {
            Self::Unsupported => &[SCRAM_SHA_256],
            Self::Supported(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
        }
    }
}

/// A client that proved to know a password.
#[derive(Debug)]
pub struct Accepted {
    /// The server-final message.
    pub message: Vec<u8>,
    /// The index of the verifier that fits; see [`Verifiers::new`] for the order.
    pub verifier: usize,
    /// The keys of the client, out of its proof: they log in to any server that stores the same verifier.
    pub keys: Keys,
}

/// One login of a client: [`client_first`](Self::client_first), then [`client_final`](Self::client_final).
#[derive(Debug)]
pub struct Exchange {
    verifiers: Arc<Verifiers>,
    binding: ChannelBinding,
    state: State,
}

enum State {
    AwaitFirst {
        nonce: String,
    },
    AwaitFinal {
        client_first_bare: String,
        server_first: String,
        /// Of both sides, joined.
        nonce: String,
        /// What `c=` has to be.
        channel: String,
    },
    /// Terminal: accepted or refused.
    Done,
}

impl Exchange {
    /// Begins with a random nonce.
    #[must_use]
    pub fn new(verifiers: Arc<Verifiers>, binding: ChannelBinding) -> Self {
        Self::with_nonce(verifiers, binding, random_nonce())
    }

    /// Begins with a given nonce, which has to be printable and free of commas: for tests with fixed messages.
    #[must_use]
    pub fn with_nonce(verifiers: Arc<Verifiers>, binding: ChannelBinding, nonce: String) -> Self {
        Self {
            verifiers,
            binding,
            state: State::AwaitFirst { nonce },
        }
    }

    /// Takes the mechanism that the client chose and its first message, gives the server-first message.
    ///
    /// # Errors
    ///
    /// When the message is malformed, or its channel-binding flag does not fit what was offered and chosen. The
    /// exchange is over then.
    pub fn client_first(&mut self, mechanism: &str, data: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::AwaitFirst { nonce } = mem::replace(&mut self.state, State::Done) else {
            return Err(ScramError::OutOfOrder);
        };
        let plus = match (mechanism, &self.binding) {
            (SCRAM_SHA_256, _) => false,
            (SCRAM_SHA_256_PLUS, ChannelBinding::Supported(_)) => true,
            _ => return Err(ScramError::UnknownMechanism),
        };
        let message = ClientFirst::parse(data)?;
        let channel = match (message.flag, plus, &self.binding) {
            (BindingFlag::EndPoint, true, ChannelBinding::Supported(data)) => {
                message.flag.channel(data)
            }
            (BindingFlag::NotUsed, false, _)
            | (BindingFlag::NotOffered, false, ChannelBinding::Unsupported) => {
                message.flag.channel(&[])
            }
            (BindingFlag::NotOffered, false, ChannelBinding::Supported(_)) => {
                return Err(ScramError::Downgrade);
            }
            _ => return Err(ScramError::BindingFlag),
        };

        let params = self.verifiers.params();
        let nonce = format!("{}{nonce}", message.nonce);
        let server_first = format!(
            "r={nonce},s={},i={}",
            STANDARD.encode(&params.salt),
            params.iterations
        );
        let answer = server_first.clone().into_bytes();
        self.state = State::AwaitFinal {
            client_first_bare: message.bare.to_owned(),
            server_first,
            nonce,
            channel,
        };
        Ok(answer)
    }

    /// Takes the second message of the client and checks its proof against every verifier.
    ///
    /// # Errors
    ///
    /// [`ScramError::WrongPassword`] when the proof fits none; other variants when the message is malformed, belongs
    /// to another exchange or is bound to another channel. The exchange is over in any case.
    pub fn client_final(&mut self, data: &[u8]) -> Result<Accepted, ScramError> {
        let State::AwaitFinal {
            client_first_bare,
            server_first,
            nonce,
            channel,
        } = mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::OutOfOrder);
        };
        let message = ClientFinal::parse(data)?;
        if !bool::from(message.channel.as_bytes().ct_eq(channel.as_bytes())) {
            return Err(ScramError::BindingMismatch);
        }
        if !bool::from(message.nonce.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(ScramError::Nonce);
        }
        let sign = |key: &[u8]| {
            keys::sign(
                key,
                &client_first_bare,
                &server_first,
                message.without_proof,
            )
        };
        let (verifier, keys) = self
            .verifiers
            .find(&message.proof, sign)
            .ok_or(ScramError::WrongPassword)?;
        let signature = sign(&keys.server_key);
        Ok(Accepted {
            message: format!("v={}", STANDARD.encode(signature)).into_bytes(),
            verifier,
            keys,
        })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the messages: together with a proof they allow guessing passwords.
        f.write_str(match self {
            Self::AwaitFirst { .. } => "AwaitFirst",
            Self::AwaitFinal { .. } => "AwaitFinal",
            Self::Done => "Done",
        })
    }
}
