//! The client's side: logs in to a server.
//!
//! ```
//! # use pgdog_wire::scram::{KeyCache, ScramError, client::{ClientBinding, Exchange}};
//! # fn login(cache: &KeyCache, mut ask: impl FnMut(&[u8]) -> Vec<u8>) -> Result<(), ScramError> {
//! let mut exchange = Exchange::new(ClientBinding::None);
//! let server_first = ask(&exchange.client_first()?);
//! let params = exchange.server_first(&server_first)?;
//! let keys = cache.get_or_derive("password", &params)?; // may take a while: not in an async task
//! let server_final = ask(&exchange.client_final(&keys)?);
//! exchange.server_final(&server_final)
//! # }
//! ```

use std::fmt;
use std::mem;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::keys::{self, Keys};
use super::message::{self, BindingFlag, MAX_SERVER_MESSAGE, ServerFirst};
use super::verifier::Params;
use super::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, random_nonce};

/// What the connection to the server is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientBinding {
    /// Nothing: no TLS, or channel binding is not wanted.
    None,
    /// Nothing: there is TLS and we could, but the server did not offer it. The server refuses us if it did, since
    /// then somebody in between removed the offer.
    NotOffered,
    /// The `tls-server-end-point` data of the server's certificate; the server offered `SCRAM-SHA-256-PLUS`.
    EndPoint(Vec<u8>),
}

impl ClientBinding {
    fn flag(&self) -> BindingFlag {
        match self {
            Self::None => BindingFlag::NotUsed,
            Self::NotOffered => BindingFlag::NotOffered,
            Self::EndPoint(_) => BindingFlag::EndPoint,
        }
    }

    fn channel(&self) -> String {
        match self {
            Self::None | Self::NotOffered => self.flag().channel(&[]),
            Self::EndPoint(data) => self.flag().channel(data),
        }
    }
}

/// One login to a server: [`client_first`](Self::client_first), [`server_first`](Self::server_first),
/// [`client_final`](Self::client_final), [`server_final`](Self::server_final).
///
/// The login counts only after [`server_final`](Self::server_final): before, the server has proved nothing.
#[derive(Debug)]
pub struct Exchange {
    binding: ClientBinding,
    state: State,
}

enum State {
    Start {
        nonce: String,
    },
    AwaitFirst {
        nonce: String,
        client_first_bare: String,
    },
    AwaitKeys {
        nonce: String,
        client_first_bare: String,
        server_first: String,
    },
    AwaitFinal {
        signature: [u8; 32],
    },
    /// Terminal: both sides proved themselves, or an error.
    Done,
}

impl Exchange {
    /// Begins with a random nonce.
    #[must_use]
    pub fn new(binding: ClientBinding) -> Self {
        Self::with_nonce(binding, random_nonce())
    }

    /// Begins with a given nonce, which has to be printable and free of commas: for tests with fixed messages.
    #[must_use]
    pub fn with_nonce(binding: ClientBinding, nonce: String) -> Self {
        Self {
            binding,
            state: State::Start { nonce },
        }
    }

    /// The name of the mechanism to send with the first message.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self.binding {
            ClientBinding::None | ClientBinding::NotOffered => SCRAM_SHA_256,
            ClientBinding::EndPoint(_) => SCRAM_SHA_256_PLUS,
        }
    }

    /// Gives the client-first message.
    ///
    /// # Errors
    ///
    /// [`ScramError::OutOfOrder`] when it was asked for before.
    pub fn client_first(&mut self) -> Result<Vec<u8>, ScramError> {
        let State::Start { nonce } = mem::replace(&mut self.state, State::Done) else {
            return Err(ScramError::OutOfOrder);
        };
        // The server takes the user from the startup message, so the name stays empty, as in libpq.
        let client_first_bare = format!("n=,r={nonce}");
        let message = format!("{}{client_first_bare}", self.binding.flag().header());
        self.state = State::AwaitFirst {
            nonce,
            client_first_bare,
        };
        Ok(message.into_bytes())
    }

    /// Takes the server-first message, gives what the password has to be salted with.
    ///
    /// # Errors
    ///
    /// When the message is malformed, asks for too many iterations or does not extend our nonce.
    pub fn server_first(&mut self, data: &[u8]) -> Result<Params, ScramError> {
        let State::AwaitFirst {
            nonce,
            client_first_bare,
        } = mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::OutOfOrder);
        };
        let text = message::text(data, MAX_SERVER_MESSAGE)?;
        let message = ServerFirst::parse(text)?;
        // A server that adds nothing could replay an old exchange.
        if message
            .nonce
            .strip_prefix(nonce.as_str())
            .is_none_or(str::is_empty)
        {
            return Err(ScramError::Nonce);
        }
        self.state = State::AwaitKeys {
            nonce: message.nonce.to_owned(),
            client_first_bare,
            server_first: text.to_owned(),
        };
        Ok(message.params)
    }

    /// Gives the client-final message: the proof that we know the keys.
    ///
    /// # Errors
    ///
    /// [`ScramError::OutOfOrder`] unless the last step was [`server_first`](Self::server_first).
    pub fn client_final(&mut self, keys: &Keys) -> Result<Vec<u8>, ScramError> {
        let State::AwaitKeys {
            nonce,
            client_first_bare,
            server_first,
        } = mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::OutOfOrder);
        };
        let without_proof = format!("c={},r={nonce}", self.binding.channel());
        let sign = |key: &[u8]| keys::sign(key, &client_first_bare, &server_first, &without_proof);
        let proof = keys::xor(&keys.client_key, &sign(&keys.stored_key()));
        self.state = State::AwaitFinal {
            signature: sign(&keys.server_key),
        };
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Takes the server-final message: the proof that the server knows us.
    ///
    /// # Errors
    ///
    /// [`ScramError::Rejected`] when the server says so, [`ScramError::ServerSignature`] when its proof is wrong.
    pub fn server_final(&mut self, data: &[u8]) -> Result<(), ScramError> {
        let State::AwaitFinal { signature } = mem::replace(&mut self.state, State::Done) else {
            return Err(ScramError::OutOfOrder);
        };
        let theirs = message::parse_server_final(data)?;
        if bool::from(theirs.ct_eq(&signature)) {
            Ok(())
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the messages: together with a proof they allow guessing passwords.
        f.write_str(match self {
            Self::Start { .. } => "Start",
            Self::AwaitFirst { .. } => "AwaitFirst",
            Self::AwaitKeys { .. } => "AwaitKeys",
            Self::AwaitFinal { .. } => "AwaitFinal",
            Self::Done => "Done",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_rfc_7677_says_what_the_rfc_says() {
        // The RFC names a user in its first message, which we never do: hence the state by hand.
        let mut exchange = Exchange {
            binding: ClientBinding::None,
            state: State::AwaitFirst {
                nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(),
                client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            },
        };
        let params = exchange
            .server_first(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
            .unwrap();
        let message = exchange
            .client_final(&Keys::derive("pencil", &params).unwrap())
            .unwrap();
        assert_eq!(
            String::from_utf8(message).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(
            exchange.server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Ok(())
        );
    }

    #[test]
    fn a_server_has_to_extend_our_nonce() {
        for nonce in ["abcd", "abc", "xabcdx", "ABCDx"] {
            let mut exchange = Exchange::with_nonce(ClientBinding::None, "abcd".to_owned());
            exchange.client_first().unwrap();
            let answer = exchange.server_first(format!("r={nonce},s=AAAA,i=4096").as_bytes());
            assert_eq!(answer, Err(ScramError::Nonce), "{nonce}");
        }
    }

    #[test]
    fn an_error_ends_the_exchange() {
        let mut exchange = Exchange::new(ClientBinding::None);
        assert_eq!(exchange.server_final(b"v="), Err(ScramError::OutOfOrder));
        assert_eq!(exchange.client_first(), Err(ScramError::OutOfOrder));
    }
}
