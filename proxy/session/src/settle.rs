//! What moving bytes cannot do: waiting for a connection to be fit, asking a server what its session holds, telling a
//! client that it must go, and putting an abandoned server back into order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgdog_backend::probe::Reasons;
use pgdog_backend::{CheckoutError, Params, Server, ServerError, Value};
use pgdog_config::{ClientRecovery, PoolerMode};
use pgdog_sql::Effects;
use pgdog_sql::set::{self, Setting};
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::{ClientError, ErrorResponse, Header, Severity, frontend, sqlstate};
use tokio::io::AsyncWriteExt as _;

use crate::active::{Active, Event, Holding, Passing, Pending};
use crate::anew;
use crate::client::{Client, Ended, shutting_down, write_all};
use crate::handle::{Doing, Signal};
use crate::notify;
use crate::recover;
use crate::relay::ASKS;

/// Limit for the proxy's own questions to a server.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The setting by which a client asks for a server of its own.
pub(crate) const PIN: &str = "pgdog.pin";
/// A client that does not take its last words within this time does not get them.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Active {
    /// Whether the server must be asked, or told, something before it is given back.
    pub(crate) fn needs_settling(&mut self, client: &mut Client) -> bool {
        if self.mode == PoolerMode::Session {
            self.pending = None;
            self.reverts.clear();
            return false;
        }
        self.conclude(client);
        if self.holding == Holding::Ready {
            return true;
        }
        let shown = Effects::SETTINGS.with(Effects::ONE_SETTING);
        if self.effects.any(shown) {
            self.reverts.clear();
        } else if !self.reverts.is_empty() {
            // By a function, or because the server has read its configuration again.
            self.effects = self.effects.with(Effects::SETTINGS);
        }
        let released = self.effects.any(Effects::RELEASES) && client.reasons.has(Reasons::KNOWABLE);
        let keeps = client.reasons.any();
        let pins = keeps && !self.counted;
        let unlike = keeps
            && self
                .server
                .as_ref()
                .is_some_and(|s| !Arc::ptr_eq(&s.params, &client.params));
        self.effects.any(ASKS) || released || pins || unlike || self.counted && !keeps
    }

    /// The statement that all waited for has been answered.
    pub(crate) fn conclude(&mut self, client: &mut Client) {
        if let Some(Pending::Setting(text)) = self.pending.take()
            && !self.failed
        {
            self.track(client, &text);
        }
    }

    /// One SET or RESET has succeeded: the client and its server have it now.
    fn track(&mut self, client: &mut Client, text: &str) {
        let Some(server) = &mut self.server else {
            return;
        };
        let statement = pgdog_sql::lexer::statements(text.as_bytes())
            .next()
            .unwrap_or_default();
        let (mut of_client, mut of_server) = ((*client.params).clone(), (*server.params).clone());
        match set::read(statement) {
            Some(Setting::Set { name }) => {
                // What the server reports is the whole value; the text may hold a part of it (DateStyle) or mean another
                // thing elsewhere.
                let value = match server.reported(name.as_bytes()) {
                    Some(value) => Value::Plain(String::from_utf8_lossy(value).into()),
                    None => Value::Statement(String::from_utf8_lossy(statement).trim_end().into()),
                };
                of_client.set(&name, value.clone());
                of_server.set(&name, value);
            }
            Some(Setting::Reset { name }) => {
                of_server.remove(&name);
                match client.startup.get(&name) {
                    Some(value) => of_client.set(&name, value.clone()),
                    None if name.contains('.') => {
                        // PostgreSQL does not forget a setting that somebody made up: it is empty from then on.
                        of_server.set(&name, Value::Plain("".into()));
                        of_client.set(&name, Value::Plain("".into()));
                    }
                    None => of_client.remove(&name),
                }
            }
            Some(Setting::ResetAll) => {
                let identity =
                    ["role", "session_authorization"].map(|n| (n, of_server.get(n).cloned()));
                of_server = Params::default();
                of_client = (*client.startup).clone();
                for (name, value) in identity {
                    if let Some(value) = value {
                        of_server.set(name, value.clone());
                        of_client.set(name, value);
                    }
                }
            }
            Some(Setting::Local) | None => return,
        }
        client.params = client.runtime.interner.intern(of_client);
        client.registered.handle.has_params(&client.params);
        server.params = client.runtime.interner.intern(of_server);
        if heed_pin(client, server) {
            self.effects = self.effects.with(Effects::UNKNOWN);
        }
    }

    /// Deals with an event. Not cancel safe.
    pub(crate) async fn handle(&mut self, client: &mut Client, event: Event) -> Result<(), Ended> {
        match event {
            Event::Idle => Ok(()),
            Event::Prepare(server) => self.prepare(client, server).await,
            Event::Params => self.sync_params(client).await,
            Event::CheckoutFailed(error) => self.checkout_failed(client, &error).await,
            Event::NoHost(why) => self.no_host(client, why).await,
            Event::Begin => self.begin(client).await,
            Event::BeginElsewhere => self.begin_elsewhere(client).await,
            Event::Again(error) => self.try_again(client, &error).await,
            Event::Settle => {
                self.settle(client).await?;
                // Before the client says more, which may belong on another host.
                self.let_go(client);
                Ok(())
            }
            Event::CleanSequences { asks } => self.clean_sequences(client, asks).await,
            Event::FetchChannels => self.fetch_channels(client).await,
            Event::Rebase => self.rebase(client).await,
            Event::Restore => self.restore(client).await,
            Event::ClientLeft => {
                self.abandon(client);
                Err(Ended::Left)
            }
            Event::ClientBroke(error) => {
                self.abandon(client);
                Err(Ended::Broke(error))
            }
            Event::ServerLost(cause) => self.server_lost(client, cause).await,
            Event::OutOfSync(error) => {
                tracing::error!(user = %client.account.user.name, database = %client.account.user.database, "{error}");
                self.drop_server(client);
                self.refuse(
                    client,
                    ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string()),
                )
                .await
            }
            Event::Refuse(error) => self.refuse(client, *error).await,
            Event::Signal(signal) => self.signal(client, signal).await,
        }
    }

    async fn prepare(&mut self, client: &mut Client, server: Box<Server>) -> Result<(), Ended> {
        let pool = client.pool().clone();
        let Some(server) = pool.prepare(server, client.worker).await else {
            // It was no good; in line again.
            self.waiting = Some(pool.wait(client.worker));
            return Ok(());
        };
        match self.attach(client, server) {
            Ok(()) => Ok(()),
            Err(Event::Rebase) => self.rebase(client).await,
            Err(_) => self.sync_params(client).await,
        }
    }

    /// Brings the server's settings to the client's.
    async fn sync_params(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        client.runtime.metrics.count(|m| &m.param_syncs);
        match server.set_params(&client.params.clone(), ASK_TIMEOUT).await {
            // Asked for with the login: the server is the client's from its first statement on.
            Ok(()) if client.reasons.any() && !self.counted => {
                self.clean_sequences(client, false).await
            }
            Ok(()) => Ok(()),
            Err(ServerError::Refused(_))
                if self.server.as_ref().is_some_and(|s| s.params != s.base) =>
            {
                // What another client left may be what cannot be put back: another connection may do.
                self.drop_server(client);
                self.waiting = Some(client.pool().wait(client.worker));
                Ok(())
            }
            Err(error) if self.trial.routed && error.is_gone() => {
                self.lost_before_use(client, error).await
            }
            Err(_) if self.trial.routed && self.is_on_replica(client) => {
                // Of serializable transactions, say, it can have none.
                self.drop_server(client);
                self.trial.to_primary = true;
                Ok(())
            }
            Err(error) => {
                // Not even a new connection of this pool would take them: the session cannot go on as it was.
                self.drop_server(client);
                let response = error.response().into_fatal().hint(
                    "The settings of this session could not be given to a server connection.",
                );
                self.refuse(client, response).await
            }
        }
    }

    /// In session mode a server begins with the client's own startup settings, so that RESET means what it means: one that
    /// began with others is replaced. So is one that others have shared. In the other modes it begins with none, as all that
    /// are not asked for by a client in session mode.
    async fn rebase(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(mut old) = self.server.take() else {
            return Ok(());
        };
        if self.mode != PoolerMode::Session {
            old.close();
            self.waiting = Some(client.pool().wait(client.worker));
            return Ok(());
        }
        let target = client.pool().target();
        let mut parameters = target.parameters.clone();
        parameters.extend(client.startup.iter().filter_map(|(n, v)| match v {
            Value::Plain(v) => Some((n.to_owned(), v.to_string())),
            Value::Statement(_) => None,
        }));
        let permit = old.permit.take();
        let (used, expires, generation) = (old.used, old.expires, old.generation);
        if permit.as_ref().is_some_and(|permit| permit.is_limited()) {
            // One place, one connection.
            Box::pin(old.gone(true)).await;
        } else {
            old.close();
        }
        match target.with_parameters(parameters).connect().await {
            Ok(server) => {
                let base = client.startup.clone();
                let new = Server {
                    permit,
                    used,
                    expires,
                    generation,
                    worker: client.worker,
                    params: base.clone(),
                    base,
                    ..server
                };
                let mut new = Box::new(new);
                client.pool().list(&mut new);
                self.server = Some(new);
                if !Arc::ptr_eq(&client.params, &client.startup) {
                    return self.sync_params(client).await;
                }
                Ok(())
            }
            Err(error) => self.refuse(client, error.response().into_fatal()).await,
        }
    }

    async fn checkout_failed(
        &mut self,
        client: &mut Client,
        error: &CheckoutError,
    ) -> Result<(), Ended> {
        if let Some(why) = client.unroutable() {
            return self.refuse(client, why).await;
        }
        let before = client.pool().clone();
        if matches!(error, CheckoutError::Closed)
            && client.refresh().is_some()
            && !Arc::ptr_eq(&before, client.pool())
        {
            // A reload has put another pool in its place: in line there.
            self.waiting = Some(client.pool().wait(client.worker));
            return Ok(());
        }
        if let Some(held) = self.host_failed(client, error).await {
            return held;
        }
        self.give_up(client, &error.response()).await
    }

    /// Tells the client that its request gets no server.
    pub(crate) async fn give_up(
        &mut self,
        client: &mut Client,
        response: &ErrorResponse,
    ) -> Result<(), Ended> {
        // A transaction that the client has begun cannot end without a word.
        let drop = client.live.settings.client_recovery == ClientRecovery::Drop
            || self.trial.deferred
            || response.severity == Severity::Fatal;
        if drop {
            return self.refuse(client, response.clone().into_fatal()).await;
        }
        self.fail_unserved(client, response);
        Ok(())
    }

    /// Answers the message that waits for a server with an error, as a server would: once, and ReadyForQuery at its place.
    fn fail_unserved(&mut self, client: &mut Client, error: &ErrorResponse) {
        if let Some(tap) = &mut client.tap {
            tap.leave_out();
        }
        error.write(&mut self.cout.bytes);
        self.tally.errors += 1;
        client.runtime.metrics.error(error.code.as_bytes());
        self.note(client, Doing::Idle);
        let Ok(Some(header)) = Header::peek(self.cin.data()) else {
            return;
        };
        if matches!(header.kind, b'Q' | b'F') {
            backend::ready(&mut self.cout.bytes, TransactionStatus::Idle);
        } else {
            self.skipping = true;
        }
        self.from_client = Passing {
            left: header.len,
            kept: false,
        };
    }

    /// Asks the server what its session holds now, and decides whether the client keeps it.
    async fn settle(&mut self, client: &mut Client) -> Result<(), Ended> {
        let lent = self.only_lent(client);
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let effects = std::mem::take(&mut self.effects);
        let unsaid = std::mem::take(&mut self.reverts).into_iter();
        let unsaid: Vec<pgdog_backend::server::Reported> = unsaid
            .filter_map(|(name, _)| server.reported(&name).map(Box::from).map(|now| (name, now)))
            .collect();
        let login = client.pool().settings().server_user.clone();
        let holding = std::mem::replace(&mut self.holding, Holding::No) != Holding::No;
        let mut custom = std::mem::take(&mut self.custom);
        custom.extend(
            client
                .params
                .iter()
                .map(|(n, _)| n.to_owned())
                .filter(|n| n.contains('.')),
        );
        custom.sort();
        custom.dedup();
        let had_temp = client.reasons.has(Reasons::TEMP);
        let mut reset: Vec<Box<str>> = Vec::new();
        let mut before = None;
        let asked = async {
            if effects.any(Effects::SETTINGS) {
                let found = server.settings(&login, &custom, ASK_TIMEOUT).await?;
                let mut wanted = found.clone();
                // A setting with a dot is empty after a RESET, rather than unknown again.
                let is_reset = |n: &str| {
                    found
                        .get(n)
                        .is_none_or(|v| n.contains('.') && *v == Value::Plain("".into()))
                };
                for (name, value) in client.startup.iter().filter(|(n, _)| is_reset(n)) {
                    wanted.set(name, value.clone());
                    reset.push(name.into());
                }
                server.params = client.runtime.interner.intern(found);
                client.params = client.runtime.interner.intern(wanted);
                client.registered.handle.has_params(&client.params);
                heed_pin(client, server);
                if hides(&client.params) {
                    client.reasons.put(Reasons::FOREVER, true);
                }
            }
            if effects.any(Effects::HOLDS.with(Effects::RELEASES)) {
                client.reasons = client.reasons.learn(server.holds(ASK_TIMEOUT).await?);
                notify::hand_over(server, client).await?;
                let keeps = client.reasons.has(Reasons::PREPARE);
                if let Some(statements) = &mut client.statements {
                    // Without any under its own names on the server, all of them may become ours again.
                    statements.passes_prepare &= keeps;
                }
            }
            if had_temp && !client.reasons.has(Reasons::TEMP) || effects.any(Effects::CREATES_TEMP)
            {
                // It has a temporary schema from now on, as no new session has: not for others, when this client leaves it.
                server.expires = Some(0);
            }
            if (client.reasons.any() || holding || !reset.is_empty())
                && !Arc::ptr_eq(&server.params, &client.params)
            {
                before = Some(server.reported.clone());
                server
                    .set_params(&client.params.clone(), ASK_TIMEOUT)
                    .await?;
            }
            Ok::<_, ServerError>(())
        };
        let result = asked.await;
        client.runtime.metrics.count(|m| &m.probes);
        if let Err(error) = result {
            let silent = effects == Effects::SETTINGS && !unsaid.is_empty() && !holding;
            self.drop_server(client);
            if lent && silent && error.is_gone() && anew::begins_with(client.pool(), &unsaid).await
            {
                // The server was told by its configuration, and not by the client, whose session is as it was.
                if self.trial.routed {
                    self.routed(client);
                }
                return Ok(());
            }
            return self.refuse(client, error.response().into_fatal()).await;
        }
        if holding {
            self.reverts.clear();
            self.release_held(TransactionStatus::Idle);
        } else if let Some(before) = before {
            // Late, but told: nobody saw the RESET before.
            self.tell(&before);
        }
        if client.reasons.any() && !self.counted && !effects.any(Effects::OWN_SEQUENCES) {
            self.clean_sequences(client, false).await?;
            self.effects = Effects::NONE;
        }
        self.pass_notifications();
        self.count_pin(client).await
    }

    /// Notifications that came while the server was asked something.
    pub(crate) fn pass_notifications(&mut self) {
        if let Some(server) = &mut self.server {
            self.cout.bytes.append(&mut server.notifications);
        }
    }

    /// Keeps the pool's count of pinned servers, and its limit.
    async fn count_pin(&mut self, client: &mut Client) -> Result<(), Ended> {
        let pins = client.reasons.any() && !self.is_astray(client);
        let pool = client.pool().clone();
        if pins && !self.counted {
            let limit = pool.settings().max_pinned;
            if limit.is_some_and(|limit| pool.pinned.load(Ordering::Relaxed) >= limit) {
                self.drop_server(client);
                let error = ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many pinned server connections")
                    .detail(format!("This session needs a server of its own outside of transactions ({}).", describe(client.reasons)))
                    .hint("Raise max_pinned_connections, or use pooler_mode = \"session\" for such clients.");
                return self.refuse(client, error).await;
            }
            client.runtime.metrics.count(|m| &m.pins);
            pool.pinned.fetch_add(1, Ordering::Relaxed);
            self.counted = true;
            client.registered.handle.is_pinned_now(true);
            if let Some(server) = &mut self.server {
                server.tainted = true;
            }
        } else if !pins && self.counted {
            pool.pinned.fetch_sub(1, Ordering::Relaxed);
            self.counted = false;
            if !client.account.cluster.is_single() {
                // What it did meanwhile was not looked at.
                client.wrote = client.runtime.clock.now().max(1);
            }
            client.registered.handle.is_pinned_now(false);
            if let Some(server) = &mut self.server {
                server.tainted = false;
            }
        }
        Ok(())
    }

    async fn signal(&mut self, client: &mut Client, signal: Signal) -> Result<(), Ended> {
        if signal.has(Signal::TERMINATE) {
            self.cancel_server(client);
            return self.refuse(client, shutting_down()).await;
        }
        let too_long = [
            (
                Signal::QUERY_TIMEOUT,
                sqlstate::QUERY_CANCELED,
                "query_timeout",
            ),
            (
                Signal::TRANSACTION_TIMEOUT,
                sqlstate::TRANSACTION_TIMEOUT,
                "transaction_timeout",
            ),
            // Idle, with a message that does not come to its end.
            (
                Signal(if self.doing == Doing::Idle {
                    Signal::IDLE_TIMEOUT.0
                } else {
                    0
                }),
                sqlstate::IDLE_SESSION_TIMEOUT,
                "client_idle_timeout",
            ),
            (
                Signal::IDLE_IN_TRANSACTION_TIMEOUT,
                sqlstate::IDLE_IN_TRANSACTION_TIMEOUT,
                "client_idle_in_transaction_timeout",
            ),
        ];
        for (which, code, key) in too_long {
            if signal.has(which) {
                self.cancel_server(client);
                return self
                    .refuse(
                        client,
                        ErrorResponse::fatal(code, format!("terminating connection due to {key}")),
                    )
                    .await;
            }
        }
        if signal.has(Signal::HOSTS) {
            self.hosts_changed(client).await?;
        }
        self.draining |= signal.has(Signal::DRAIN);
        if signal.has(Signal::CANCEL) {
            let unsent = self.doing == Doing::Waiting
                && self.server.as_ref().is_none_or(|s| s.owed.at_rest())
                && !self.cin.is_empty();
            if self.waiting.take().is_some() || unsent {
                let error = ErrorResponse::error(
                    sqlstate::QUERY_CANCELED,
                    "canceling statement due to user request",
                );
                // A transaction that waits to begin is over, as what it waits for.
                self.trial.end();
                self.fail_unserved(client, &error);
            } else {
                self.cancel_server(client);
            }
        }
        Ok(())
    }

    /// Asks the server to cancel what it runs, if it runs something.
    pub(crate) fn cancel_server(&mut self, client: &Client) {
        let Some(server) = &self.server else { return };
        let Some(key) = server.key.clone() else {
            return;
        };
        if server.owed.settled() {
            return;
        }
        let (target, before) = (client.pool().target(), self.cancelling.take());
        self.cancelling = Some(client.runtime.tidying.spawn(async move {
            // One may have hit an earlier statement of the same pipeline; whoever waits for this one waits for both.
            let mut done = true;
            if let Some(before) = before {
                done = before.await.unwrap_or(false);
            }
            if let Err(error) = pgdog_backend::cancel::cancel(&target, &key).await {
                tracing::warn!("failed to cancel a query: {error}");
                done = false;
            }
            done
        }));
    }

    /// The server has gone. What it said before has been passed on; a client that was told nothing is told now.
    async fn server_lost(
        &mut self,
        client: &mut Client,
        cause: Option<std::io::Error>,
    ) -> Result<(), Ended> {
        let error = cause.map_or(ServerError::Closed, ServerError::from);
        tracing::warn!(user = %client.account.user.name, database = %client.account.user.database, "{error}");
        if self.trial.routed && self.deserves_another_server(client) {
            return self.try_again(client, &error.response()).await;
        }
        let told = self.told;
        if self.watch.is_some() {
            self.watched_end(client, error.response().code.as_str());
        }
        self.drop_server(client);
        if told {
            let words = std::mem::take(&mut self.cout.bytes);
            let _ = pgdog_net::timer::timeout(
                LAST_WORDS,
                say_and_close(&mut client.stream, &words[self.cout.start..]),
            )
            .await;
            return Err(Ended::ServerLost);
        }
        self.refuse(client, error.response()).await
    }

    /// Tells the client why it must go. What was to be written before goes first, as long as it is whole messages.
    pub(crate) async fn refuse(
        &mut self,
        client: &mut Client,
        error: ErrorResponse,
    ) -> Result<(), Ended> {
        let torn = self.from_server.left > 0;
        client.runtime.metrics.error(error.code.as_bytes());
        if self.watch.is_some() {
            self.watched_end(client, &error.code);
        }
        self.abandon(client);
        let mut words = std::mem::take(&mut self.cout.bytes).split_off(self.cout.start);
        self.cout.start = 0;
        if !torn {
            error.write(&mut words);
        }
        let _ =
            pgdog_net::timer::timeout(LAST_WORDS, say_and_close(&mut client.stream, &words)).await;
        Err(Ended::Refused(Box::new(error)))
    }

    /// Closes the server's connection: its state is not known.
    pub(crate) fn drop_server(&mut self, client: &Client) {
        if self.server.take().is_some() && std::mem::take(&mut self.counted) {
            client.pool().pinned.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client has gone: its server is put into order behind its back.
    fn abandon(&mut self, client: &mut Client) {
        self.waiting = None;
        if std::mem::take(&mut self.counted) {
            client.pool().pinned.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(mut server) = self.server.take() else {
            return;
        };
        let partial_request = self.from_client.left > 0 || !self.sout.is_empty();
        server.tainted |= client.reasons.any()
            || self.mode == PoolerMode::Session
            || self.effects != Effects::NONE
            || !self.reverts.is_empty();
        let left = recover::Abandoned {
            server,
            partial_request,
            answer_left: std::mem::take(&mut self.from_server.left),
            input: std::mem::take(&mut self.sin),
            cancelling: self.cancelling.take(),
        };
        recover::spawn(left, client);
    }
}

/// The last words, and over TLS the word that there are no more.
async fn say_and_close(stream: &mut pgdog_net::Stream, words: &[u8]) -> std::io::Result<()> {
    write_all(stream, words).await?;
    stream.shutdown().await
}

/// The names of the reasons, for people.
fn describe(reasons: Reasons) -> String {
    reasons.names().collect::<Vec<_>>().join(", ")
}

/// Appends what ends an abandoned request: for a copy its failure, for a batch its Sync.
pub(crate) fn finish_request(server: &mut Server, out: &mut Vec<u8>) {
    if server.owed.copy_in {
        frontend::copy_fail(out, "the client has gone");
        server.owed.push_copy_end();
    }
    if server.owed.unsynced || server.owed.ignoring {
        if !server.owed.ignoring {
            // Sync would commit what the client has not: an error first, so that it rolls back.
            frontend::bind_plain(out, crate::requests::NO_STATEMENT);
            server.owed.push(pgdog_backend::Expect::Bind(None));
        }
        frontend::bare(out, b'S');
        server.owed.push_sync();
    }
}

/// Keeps the server or not, as the client asks by its settings. Whether a pin has just ended: what was done meanwhile nobody has
/// looked at, so it goes with the client as far as the server tells it, and stays with nobody else.
fn heed_pin(client: &mut Client, server: &mut Server) -> bool {
    let asked = client.params.is_on(PIN);
    let ended = client.reasons.has(Reasons::ASKED) && !asked;
    if ended {
        server.expires = Some(0);
    }
    client.reasons.put(Reasons::ASKED, asked);
    ended
}

/// Whether with these settings texts do not show what they do.
pub(crate) fn hides(params: &Params) -> bool {
    let text = |value: &Value| match value {
        Value::Plain(text) | Value::Statement(text) => text.to_string(),
    };
    params
        .iter()
        .any(|(name, value)| set::hiding_name(name).is_some() && set::hides(name, &text(value)))
}
