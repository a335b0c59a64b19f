//! Somebody who logs in to the admin console: by password always, and however full the proxy is.

use std::sync::Arc;

use pgdog_config::AuthType;
use pgdog_net::Stream;
use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::startup::Startup;
use pgdog_wire::{ErrorResponse, sqlstate};

use super::welcome::{clean_ascii, session_params};
use super::{Fail, Session};
use crate::handle::{ClientKind, Identity, Newcomer};
use crate::registry::{Limits, Registered};

/// The version that drivers take the console for: one whose protocol it speaks.
const SERVER_VERSION: &str = concat!("15.0 (pgdog ", env!("CARGO_PKG_VERSION"), ")");

/// What a console says of itself at login, in the order PostgreSQL says it.
const PARAMETERS: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
];

/// A logged-in connection to the admin console, which has been told that it may begin.
#[derive(Debug)]
pub struct Console {
    /// The socket.
    pub stream: Stream,
    /// What it said in one breath with its login.
    pub input: Buffer,
    /// Its place among the clients.
    pub registered: Registered,
    /// What it was told of itself.
    pub parameters: Vec<(String, String)>,
}

impl Session {
    /// Has the client prove that it is the administrator, and greets it.
    pub(super) async fn admin(&mut self, startup: &Startup) -> Result<Console, Fail> {
        let settings = &self.live.settings;
        let (admin, auth) = (settings.admin.clone(), settings.auth);
        let known = startup.user == admin.user;
        let secrets = known.then(|| self.runtime.console_secrets(&admin));
        // Rules say from where; how is always by password.
        self.demand(startup)?;
        let user = &startup.user;
        let shown = match auth {
            AuthType::Md5 => self.md5(secrets.as_deref(), user).await?,
            AuthType::Plain => {
                self.plain_is_safe()?;
                self.plain(secrets.as_deref(), user).await?
            }
            // Nobody who comes here is trusted.
            AuthType::Scram | AuthType::Trust => self.scram(secrets.clone(), user).await?,
        };
        if shown.is_none() {
            return Err(self.wrong(startup, secrets.as_deref()));
        }
        self.right();
        if startup.replication.is_some() {
            let error = ErrorResponse::fatal(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "the admin console cannot be replicated",
            );
            return Err(error.into());
        }
        let (params, application_name, _) = session_params(startup);
        let params = self.runtime.interner.intern(params);
        let identity = Arc::new(Identity {
            user: admin.user,
            database: admin.name,
        });
        let newcomer = Newcomer {
            identity: &identity,
            peer: self.peer,
            kind: ClientKind::Admin,
            tls: self.stream.as_ref().is_some_and(Stream::is_tls),
            params: &params,
        };
        let (peer_id, long) = (self.live.settings.peer_id, startup.minor >= 2);
        let registered = self
            .runtime
            .registry
            .register(
                Limits::default(),
                &newcomer,
                self.runtime.clock.now(),
                || self.runtime.cancel_key(peer_id, long),
            )
            .map_err(|_| Fail::Io)?;
        let name = clean_ascii(&application_name.unwrap_or_default());
        let mut parameters: Vec<_> = PARAMETERS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        parameters.push(("session_authorization".to_owned(), identity.user.clone()));
        parameters.push(("application_name".to_owned(), name));
        let out = &mut self.out;
        Authentication::Ok.write(out);
        for (name, value) in &parameters {
            backend::parameter_status(out, name.as_bytes(), value.as_bytes());
        }
        backend::key_data(out, registered.handle.pid, &registered.handle.secret);
        backend::ready(out, TransactionStatus::Idle);
        self.flush().await?;
        self.runtime.metrics.count(|m| &m.logins);
        Ok(Console {
            stream: self.stream.take().ok_or(Fail::Io)?,
            input: std::mem::take(&mut self.input),
            registered,
            parameters,
        })
    }
}
