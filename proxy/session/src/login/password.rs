//! The client proves that it knows a password: by SCRAM, by MD5, or by telling it.

use std::sync::Arc;

use pgdog_wire::backend::Authentication;
use pgdog_wire::frame::HEADER;
use pgdog_wire::scram::server::{ChannelBinding, Exchange};
use pgdog_wire::scram::{Keys, Params, Verifiers};
use pgdog_wire::{ClientError, Header, frontend, md5};

use super::{Fail, Session, violation};
use crate::runtime::Secrets;

/// Largest answer to an authentication request: tokens of cloud services are long.
const PASSWORD_MAX: usize = 64 * 1024;

/// What a client has shown of its secret: good for its server too, where the configuration has no password for that.
pub(crate) enum Shown {
    /// That it may come in.
    Nothing,
    /// The keys that its password becomes with this salt.
    Keys(Params, Keys),
    /// The password.
    Password(String),
}

impl Session {
    /// The body of the client's answer to an authentication request.
    async fn answer(&mut self) -> Result<Vec<u8>, Fail> {
        let header = Header::peek(self.fill(HEADER).await?)
            .ok()
            .flatten()
            .ok_or_else(|| violation("invalid message length"))?;
        if header.kind != b'p' {
            return Err(violation(&format!(
                "expected password response, got message type {}",
                header.kind
            )));
        }
        if header.len > PASSWORD_MAX {
            return Err(violation("password message is too long"));
        }
        let body = self.fill(header.len).await?[HEADER..header.len].to_vec();
        self.input.consume(header.len);
        Ok(body)
    }

    pub(super) async fn scram(
        &mut self,
        secrets: Option<Arc<Secrets>>,
        user: &str,
    ) -> Result<Option<Shown>, Fail> {
        let secret = self.runtime.secret;
        let verifiers = match &secrets {
            None => None,
            Some(secrets) => match secrets.derived() {
                Some(verifiers) => verifiers,
                // PBKDF2 takes milliseconds the first time: not on the thread that serves others.
                None => {
                    let secrets = secrets.clone();
                    tokio::task::spawn_blocking(move || secrets.verifiers(&secret))
                        .await
                        .unwrap_or_default()
                }
            },
        };
        let real = verifiers.is_some();
        let verifiers = verifiers.unwrap_or_else(|| Arc::new(Verifiers::mock(&secret, user)));
        let salt = verifiers.params().clone();
        let encrypted = self.stream()?.is_tls();
        let binding = match self.live.tls.as_ref().and_then(|t| t.channel_binding()) {
            Some(end_point) if encrypted => ChannelBinding::Supported(end_point.to_vec()),
            _ => ChannelBinding::Unsupported,
        };
        let mut list = Vec::new();
        for mechanism in binding.mechanisms() {
            list.extend_from_slice(mechanism.as_bytes());
            list.push(0);
        }
        list.push(0);
        self.ask(Authentication::Sasl(&list)).await?;
        let mut exchange = Exchange::new(verifiers, binding);
        let body = self.answer().await?;
        let (mechanism, first) = frontend::read_sasl_initial(&body)
            .ok_or_else(|| violation("malformed SASL message"))?;
        let reply = exchange
            .client_first(mechanism, first)
            .map_err(|e| e.response())?;
        self.ask(Authentication::SaslContinue(&reply)).await?;
        let body = self.answer().await?;
        match exchange.client_final(&body) {
            Ok(accepted) if real => {
                // With what follows: the client waits for all of it.
                Authentication::SaslFinal(&accepted.message).write(&mut self.out);
                Ok(Some(Shown::Keys(salt, accepted.keys)))
            }
            Ok(_) | Err(pgdog_wire::scram::ScramError::WrongPassword) => Ok(None),
            Err(error) => Err(error.response().into()),
        }
    }

    pub(super) async fn md5(
        &mut self,
        secrets: Option<&Secrets>,
        user: &str,
    ) -> Result<Option<Shown>, Fail> {
        let salt: [u8; 4] = rand::random();
        self.ask(Authentication::Md5(salt)).await?;
        let body = self.answer().await?;
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        let none = [String::from("\u{1}unknown")];
        let passwords = secrets.map_or(&none[..], |s| &s.credentials.passwords[..]);
        let right = passwords.iter().fold(false, |right, password| {
            right | md5::verify(user, password, salt, answer)
        });
        Ok((right && secrets.is_some()).then_some(Shown::Nothing))
    }

    pub(super) async fn plain(
        &mut self,
        secrets: Option<&Secrets>,
        user: &str,
    ) -> Result<Option<Shown>, Fail> {
        let answer = self.ask_for_password().await?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        let secret = self.runtime.secret;
        let shown = answer.clone();
        let known = secrets.is_some();
        // An unknown user costs as much as one with one password.
        let nobody = || pgdog_config::Credentials {
            passwords: vec!["\u{1}unknown".to_owned()],
            verifier: None,
        };
        let credentials = secrets.map_or_else(nobody, |s| s.credentials.clone());
        let user = user.to_owned();
        // Compared by what is derived from them, so that the time says nothing of the text.
        let check = move || {
            let verifier = |password: &str| {
                pgdog_wire::scram::Verifier::from_password(
                    password,
                    &pgdog_wire::scram::Params::for_user(&secret, &user),
                )
            };
            let given = verifier(&answer).ok();
            let listed = credentials.passwords.iter().fold(false, |right, p| {
                let fits = match md5::Secret::parse(p) {
                    // The stored form of a password; who knows only that has to be asked for MD5.
                    Some(secret) => secret.fits(&user, &answer),
                    None => given.is_some() && verifier(p).ok() == given,
                };
                right | fits
            });
            let stored = credentials
                .verifier
                .as_deref()
                .and_then(|v| pgdog_wire::scram::Verifier::parse(v).ok());
            (listed | stored.is_some_and(|v| v.matches(&answer))) && known
        };
        let right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        Ok(right.then_some(Shown::Password(shown)))
    }

    /// What the client says when it is asked for its password as text; `None` when that is no text.
    pub(super) async fn ask_for_password(&mut self) -> Result<Option<String>, Fail> {
        self.ask(Authentication::Cleartext).await?;
        let mut body = self.answer().await?;
        if body.last() == Some(&0) {
            body.pop();
        }
        Ok(String::from_utf8(body).ok())
    }
}
