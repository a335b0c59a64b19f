//! A client that has proven who it is, is taken in and told what its server would have told it.

use std::sync::Arc;
use std::task::Poll;

use pgdog_backend::probe::Reasons;
use pgdog_backend::{CheckoutError, Params, Pool, Server, Value};
use pgdog_net::Stream;
use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::startup::Startup;
use pgdog_wire::{ClientError, ErrorResponse, sqlstate};

use super::{Fail, Session};
use crate::client::Client;
use crate::handle::{ClientKind, Newcomer};
use crate::mirror::Tap;
use crate::registry::{LimitHit, Limits, Registered};
use crate::runtime::Account;
use crate::settle::hides;

/// Bytes of an application's name that PostgreSQL keeps (`NAMEDATALEN` less one).
const NAME_MAX: usize = 63;

impl Session {
    /// Counts the client among those that are here, as far as the limits allow.
    pub(super) fn take_in(
        &mut self,
        startup: &Startup,
        account: &Account,
        params: &Arc<Params>,
    ) -> Result<Registered, Fail> {
        if self.runtime.gates.is_disabled(&account.user.database) {
            return Err(disabled(&account.user.database));
        }
        if let Some(why) = account.unroutable() {
            return Err(why.into());
        }
        let settings = &self.live.settings;
        let limits = Limits {
            process: settings.max_client_conn,
            user: account.user.max_clients,
            database: account.user.pool.database_max_clients,
        };
        let (peer_id, long) = (settings.peer_id, startup.minor >= 2);
        let newcomer = Newcomer {
            identity: &account.identity,
            peer: self.peer,
            kind: if startup.replication.is_some() {
                ClientKind::Replication
            } else {
                ClientKind::Normal
            },
            tls: self.stream.as_ref().is_some_and(Stream::is_tls),
            params,
        };
        let registered = self
            .runtime
            .registry
            .register(limits, &newcomer, self.runtime.clock.now(), || {
                self.runtime.cancel_key(peer_id, long)
            })
            .map_err(|hit| too_many(hit, account))?;
        if let Some(error) = &startup.bad_options {
            Authentication::Ok.write(&mut self.out);
            return Err(error.response().into());
        }
        Ok(registered)
    }

    /// Takes the client in, finds out what its server would have told it, and tells it.
    pub(super) async fn greet(
        &mut self,
        startup: Startup,
        account: Arc<Account>,
    ) -> Result<Client, Fail> {
        let (params, application_name, pin) = session_params(&startup);
        let params = self.runtime.interner.intern(params);
        let registered = self.take_in(&startup, &account, &params)?;
        let mut nameless = (*params).clone();
        nameless.remove("application_name");
        let nameless = self.runtime.interner.intern(nameless);
        let known = match self.runtime.welcome(account.anyone(), &nameless) {
            Some(known) => known,
            None => match self.learn_welcome(&account, &nameless).await {
                Ok(known) => known,
                Err(error) => {
                    // The password was right; it is the settings, or the server, that are not.
                    Authentication::Ok.write(&mut self.out);
                    return Err(error);
                }
            },
        };
        let out = &mut self.out;
        out.reserve(known.len() + 128);
        Authentication::Ok.write(out);
        out.extend_from_slice(&known);
        let name = clean_ascii(&application_name.unwrap_or_default());
        backend::parameter_status(out, b"application_name", name.as_bytes());
        backend::key_data(out, registered.handle.pid, &registered.handle.secret);
        backend::ready(out, TransactionStatus::Idle);
        self.flush().await?;
        self.runtime.metrics.count(|m| &m.logins);
        if let Some(began) = self.began {
            let took = self.runtime.clock.precise().saturating_sub(began);
            let counters = &account.pool.counters;
            counters.of(self.worker).login_time.record(took);
        }
        let mut reasons = Reasons::NONE;
        reasons.put(Reasons::ASKED, pin);
        reasons.put(Reasons::FOREVER, hides(&params));
        let mode = account.pool.mode();
        let tap = Tap::of(&self.runtime, &self.live, &account, mode);
        Ok(Client {
            tap,
            stream: self.stream.take().ok_or(Fail::Io)?,
            watched: self.live.watches(),
            live: self.live.clone(),
            id: self.runtime.next_client(),
            generation: self.generation,
            runtime: self.runtime.clone(),
            pool: account.pool.clone(),
            mode,
            account,
            wrote: 0,
            registered,
            worker: self.worker,
            startup: params.clone(),
            params,
            statements: None,
            pinned: None,
            reasons,
            channels: None,
            token: 0,
            counted: false,
            draining: false,
            listening: false,
            early: (!self.input.is_empty()).then(|| Box::new(std::mem::take(&mut self.input))),
        })
    }

    /// Asks a server of the pool what it says to a client with these settings; it refuses wrong ones as PostgreSQL does.
    async fn learn_welcome(
        &mut self,
        account: &Arc<Account>,
        params: &Arc<Params>,
    ) -> Result<Arc<[u8]>, Fail> {
        let mut account = account.clone();
        let mut tried: Vec<Arc<Pool>> = Vec::new();
        let (mut server, pool) = loop {
            let known = |pool: &Arc<Pool>| tried.iter().any(|t| Arc::ptr_eq(t, pool));
            let mut others = account.cluster.members().iter().map(|m| &m.pool);
            let pool = match account.anyone() {
                // Any host will do.
                first if known(first) => others.find(|p| !known(p)).unwrap_or(first),
                first => first,
            };
            let pool = pool.clone();
            let error = match borrow(&pool, self.worker).await {
                Ok(server) if server.base.is_empty() => break (server, pool),
                Ok(server) => {
                    // It began with the settings of a client of session mode: RESET would go back to those.
                    server.close();
                    continue;
                }
                Err(error) => error,
            };
            let live = self.runtime.live();
            let user = &account.user;
            match self.runtime.account(&live, &user.name, &user.database) {
                // A reload has put another pool in its place meanwhile.
                Some(now)
                    if matches!(error, CheckoutError::Closed)
                        && !Arc::ptr_eq(&now.pool, &account.pool) =>
                {
                    account = now;
                }
                _ if tried.len() + 1 < account.cluster.members().len() => tried.push(pool),
                _ => {
                    return Err(error.response().into_fatal().into());
                }
            }
        };
        if let Err(error) = server
            .set_params(params, account.user.pool.connect_timeout)
            .await
        {
            if server.owed.at_rest() {
                pool.release(server);
            }
            return Err(error.response().into_fatal().into());
        }
        let mut messages = Vec::new();
        // The application's name differs between clients of the same settings, and never fails.
        for (name, value) in server
            .reported
            .iter()
            .filter(|(n, _)| &**n != b"application_name")
        {
            backend::parameter_status(&mut messages, name, value);
        }
        pool.release(server);
        let messages: Arc<[u8]> = messages.into();
        self.runtime
            .remember_welcome(&pool, params.clone(), messages.clone());
        Ok(messages)
    }
}

/// A connection of the pool for the greeting.
pub(super) async fn borrow(pool: &Arc<Pool>, worker: usize) -> Result<Box<Server>, CheckoutError> {
    let mut taken = std::future::poll_fn(|cx| Poll::Ready(pool.take(worker, cx))).await;
    loop {
        if let Some(server) = taken.take() {
            return Ok(server);
        }
        let mut waiting = pool.wait(worker);
        let server = std::future::poll_fn(|cx| waiting.poll(cx)).await?;
        taken = pool.prepare(server, worker).await;
    }
}

/// The settings that the client's session begins with, its application name, and whether it asks for a server of its own.
pub(super) fn session_params(startup: &Startup) -> (Params, Option<String>, bool) {
    let mut params = Params::default();
    let (mut application_name, mut pin) = (None, false);
    for (name, value) in &startup.parameters {
        if name.eq_ignore_ascii_case("application_name") {
            application_name = Some(value.clone());
        }
        if name.eq_ignore_ascii_case("pgdog.pin") {
            pin = matches!(value.as_str(), "on" | "true" | "t" | "yes" | "1");
        }
        params.set(name, Value::Plain(value.as_str().into()));
    }
    (params, application_name, pin)
}

/// PostgreSQL keeps names of applications to printable ASCII (`pg_clean_ascii`).
pub(super) fn clean_ascii(text: &str) -> String {
    text.bytes()
        .take(NAME_MAX)
        .map(|b| {
            if (32..127).contains(&b) {
                b as char
            } else {
                '?'
            }
        })
        .collect()
}

fn disabled(database: &str) -> Fail {
    let text = format!("database \"{database}\" is disabled");
    ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, text)
        .hint("An administrator has switched it off; ENABLE on the admin console switches it on.")
        .into()
}

fn too_many(hit: LimitHit, account: &Account) -> ErrorResponse {
    let text = match hit {
        LimitHit::Process => "sorry, too many clients already (max_client_conn)".to_owned(),
        LimitHit::User => format!(
            "too many connections for role \"{}\" (max_user_client_connections)",
            account.user.name
        ),
        LimitHit::Database => format!(
            "too many connections for database \"{}\" (max_db_client_connections)",
            account.user.database
        ),
    };
    ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, text)
}
