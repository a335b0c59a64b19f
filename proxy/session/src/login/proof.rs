//! The client proves that it is who it says: by password in one of three ways, by certificate, or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_config::AuthType;
use pgdog_net::{Peer, Stream};
use pgdog_wire::backend::Authentication;
use pgdog_wire::frame::HEADER;
use pgdog_wire::scram::Verifiers;
use pgdog_wire::scram::server::{ChannelBinding, Exchange};
use pgdog_wire::startup::Startup;
use pgdog_wire::{ClientError, ErrorResponse, Header, frontend, md5, sqlstate};

use super::{Fail, Session, violation};
use crate::runtime::{Account, Secrets};

/// Largest answer to an authentication request: tokens of cloud services are long.
const PASSWORD_MAX: usize = 64 * 1024;

impl Session {
    /// Finds the account and has the client prove that it is its own. Who is unknown looks and times like who errs.
    pub(super) async fn authenticate(&mut self, startup: &Startup) -> Result<Arc<Account>, Fail> {
        let of_user = self.live.accounts.get(&startup.user);
        // Physical replication is of a whole server: its clients name no database, or one that does not matter.
        let physical = startup
            .replication
            .as_ref()
            .is_some_and(|v| v != "database");
        let exact = of_user
            .and_then(|a| {
                a.get(&startup.database)
                    .or_else(|| only_server(a).filter(|_| physical))
            })
            .cloned();
        // The password of any of the user's databases serves to tell that the database is not there.
        let account = exact.clone().or_else(|| {
            of_user
                .and_then(|a| {
                    a.values()
                        .min_by(|x, y| x.user.database.cmp(&y.user.database))
                })
                .cloned()
        });
        let auth = account
            .as_ref()
            .and_then(|a| a.user.auth)
            .unwrap_or(self.live.settings.auth);
        let by_certificate = self.certificate_fits(account.as_deref());
        let secrets = account.as_ref().map(|a| a.secrets.clone());
        let proven = match (&account, auth) {
            _ if by_certificate => true,
            (Some(account), _) if account.user.certificate_required => {
                return Err(self.certificate_refused(&startup.user));
            }
            (account, AuthType::Trust) => account.is_some(),
            (_, auth) => self.by_password(auth, secrets, &startup.user).await?,
        };
        if !proven {
            tracing::info!(peer = %self.peer, user = %startup.user, database = %startup.database, known = account.is_some(), "login refused");
            return Err(wrong_password(&startup.user));
        }
        exact.ok_or_else(|| {
            let error = ErrorResponse::fatal(
                sqlstate::UNDEFINED_DATABASE,
                format!("database \"{}\" does not exist", startup.database),
            );
            if physical {
                let hint = format!("The databases of this user are on several servers. Add one named \"{}\" on the server to replicate.", startup.database);
                return error.hint(hint).into();
            }
            error.into()
        })
    }

    fn certificate_fits(&self, account: Option<&Account>) -> bool {
        let identity = account.and_then(|a| a.user.identity.as_deref());
        let presented = self.stream.as_ref().and_then(Stream::peer_identity);
        match (identity, presented) {
            (Some(identity), Some(presented)) => presented.name() == Some(identity),
            _ => false,
        }
    }

    /// What is told to a client that can only get in by a certificate, in PostgreSQL's words.
    fn certificate_refused(&self, user: &str) -> Fail {
        let presented = self
            .stream
            .as_ref()
            .is_some_and(|s| s.peer_identity().is_some());
        let text = if presented {
            format!("certificate authentication failed for user \"{user}\"")
        } else {
            "connection requires a valid client certificate".to_owned()
        };
        ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into()
    }

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

    /// Has the client prove that it knows a password. `secrets` are `None` for a user that there is not: such a client is
    /// asked all the same.
    pub(super) async fn by_password(
        &mut self,
        auth: AuthType,
        secrets: Option<Arc<Secrets>>,
        user: &str,
    ) -> Result<bool, Fail> {
        match auth {
            AuthType::Md5 => self.md5(secrets.as_deref(), user).await,
            AuthType::Plain => self.plain(secrets.as_deref()).await,
            // Nobody who comes here is trusted.
            AuthType::Scram | AuthType::Trust => self.scram(secrets, user).await,
        }
    }

    async fn scram(&mut self, secrets: Option<Arc<Secrets>>, user: &str) -> Result<bool, Fail> {
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
                Ok(true)
            }
            Ok(_) | Err(pgdog_wire::scram::ScramError::WrongPassword) => Ok(false),
            Err(error) => Err(error.response().into()),
        }
    }

    async fn md5(&mut self, secrets: Option<&Secrets>, user: &str) -> Result<bool, Fail> {
        let salt: [u8; 4] = rand::random();
        self.ask(Authentication::Md5(salt)).await?;
        let body = self.answer().await?;
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        let none = [String::from("\u{1}unknown")];
        let passwords = secrets.map_or(&none[..], |s| &s.credentials.passwords[..]);
        let right = passwords.iter().fold(false, |right, password| {
            right | md5::verify(user, password, salt, answer)
        });
        Ok(right && secrets.is_some())
    }

    async fn plain(&mut self, secrets: Option<&Secrets>) -> Result<bool, Fail> {
        let secure = self.stream()?.is_tls()
            || self.peer == Peer::Unix
            || self.live.settings.plain_without_tls;
        if !secure {
            let error = ErrorResponse::fatal(
                sqlstate::INVALID_AUTHORIZATION,
                "a plain password is not asked for without TLS",
            );
            return Err(error
                .hint("Connect with sslmode=require, or set plain_without_tls.")
                .into());
        }
        self.ask(Authentication::Cleartext).await?;
        let body = self.answer().await?;
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        let Ok(answer) = std::str::from_utf8(answer) else {
            return Ok(false);
        };
        let (secret, answer) = (self.runtime.secret, answer.to_owned());
        let known = secrets.is_some();
        // An unknown user costs as much as one with one password.
        let nobody = || pgdog_config::Credentials {
            passwords: vec!["\u{1}unknown".to_owned()],
            verifier: None,
        };
        let credentials = secrets.map_or_else(nobody, |s| s.credentials.clone());
        let user = secrets.map(|s| s.user.clone()).unwrap_or_default();
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
                right | (given.is_some() && verifier(p).ok() == given)
            });
            let stored = credentials
                .verifier
                .as_deref()
                .and_then(|v| pgdog_wire::scram::Verifier::parse(v).ok());
            (listed | stored.is_some_and(|v| v.matches(&answer))) && known
        };
        Ok(tokio::task::spawn_blocking(check).await.unwrap_or(false))
    }
}

pub(super) fn wrong_password(user: &str) -> Fail {
    ErrorResponse::fatal(
        sqlstate::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
    .into()
}

/// Any of a user's databases, when all of them are on one server.
fn only_server(accounts: &HashMap<String, Arc<Account>>) -> Option<&Arc<Account>> {
    let mut accounts: Vec<_> = accounts.values().collect();
    accounts.sort_by(|x, y| x.user.database.cmp(&y.user.database));
    let first = accounts.first()?.pool.target();
    accounts
        .iter()
        .all(|a| a.pool.target().address == first.address)
        .then(|| accounts[0])
}
