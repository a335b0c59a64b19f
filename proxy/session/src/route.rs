//! Where a database has several hosts: which of them gets what a client says next.
//!
//! Flow: all messages up to the next Query, Sync or Flush are looked at before any is sent, [`Active::choose`] picks the host
//! for them, and the client stays there until the server is at rest outside of a transaction. What was sent is kept, so that
//! it can be sent again elsewhere when nothing of it has taken place: see [`Active::try_again`].
//!
//! Guarantees: a request goes to a replica only when all of it is known to read. A request that was refused because its host
//! takes no writes (25006) has changed nothing, and is sent to the primary; one that only reads is sent again when its host
//! goes away. Both only as long as the client has seen nothing of the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::{
    CheckoutError, HostState, NoPrimary, Pool, ReadNeed, Reason, Role, ServerError, Value,
};
use pgdog_config::{PoolerMode, ReadWriteStrategy, ReadYourWrites};
use pgdog_sql::{Begins, Effects, Place, RoleHint, Why};
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::frontend::{BindNames, Parse, query_text};
use pgdog_wire::{ClientError as _, ErrorResponse, Header, Severity, error, frame, sqlstate};

use crate::active::{Active, Event, HIGH, Holding, Passing};
use crate::client::{Client, Ended};
use crate::handle::{Doing, Signal};
use crate::runtime::{Account, Runtime};
use crate::settle::ASK_TIMEOUT;
use crate::watch::Watch;

/// The setting by which a client says where it wants to go.
const ROLE: &str = "pgdog.role";
/// The setting that makes transactions read-only.
const READ_ONLY: &str = "default_transaction_read_only";
/// Whether writes are refused by a server itself, and not by what a user or a database is set to.
const TAKES_NO_WRITES: &str = "select pg_is_in_recovery() or exists (select from pg_settings \
    where name = 'default_transaction_read_only' and setting = 'on' and source in ('configuration file', 'command line'))";
/// Time for that question.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// Requests up to this size can be sent again.
const AGAIN_MAX: usize = 16 * 1024;
/// So many times a request is sent again.
const TRIES_MAX: u8 = 8;
/// A client that is held looks again this often, whatever happens, ms.
const HELD_STEP: u64 = 100;

/// What a request needs of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    /// To write, or what only the primary can tell.
    #[default]
    Write,
    /// To read.
    Read {
        /// The client wants a replica.
        replica: bool,
    },
    /// Nothing: the host at hand will do.
    Any,
}

/// What came of choosing a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It is chosen.
    Made,
    /// The client must say more first.
    More,
    /// A transaction has begun that has not said yet what it is for: its host is chosen with its first statement.
    Deferred,
}

/// A request on its way, and what it takes to send it again.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    /// The text with which the transaction began, as long as nothing else of it has taken place.
    begin: Vec<u8>,
    /// The server has not been told of it.
    pub(crate) deferred: bool,
    /// The next request is the first of the transaction.
    first: bool,
    /// A host was chosen for it.
    pub(crate) routed: bool,
    pub(crate) wish: Wish,
    /// The client's own messages; empty where they cannot be sent again.
    bytes: Vec<u8>,
    /// What lies before the answer in the client's buffer.
    mark: usize,
    tries: u8,
    /// It goes to the primary, whatever it looks like.
    to_primary: bool,
    /// Coarse time since when it is held back, ms; 0 when it is not.
    held: u64,
    /// What the answer to an EXPLAIN ends with.
    pub(crate) explained: Option<Box<str>>,
}

impl Trial {
    /// Whether the next request needs a look, beside that at its host.
    #[inline]
    pub(crate) fn watched(&self) -> bool {
        self.deferred || self.first
    }

    /// Bytes have gone to the client: an answer that it has begun to read cannot be taken back.
    #[inline]
    pub(crate) fn sent(&mut self, count: usize) {
        if self.bytes.is_empty() {
            return;
        }
        match self.mark.checked_sub(count) {
            Some(mark) => self.mark = mark,
            None => self.bytes.clear(),
        }
    }

    /// It is answered.
    pub(crate) fn end(&mut self) {
        self.begin.clear();
        self.deferred = false;
        self.first = false;
        self.routed = false;
        self.bytes.clear();
        self.tries = 0;
        self.to_primary = false;
        self.held = 0;
        self.explained = None;
    }
}

/// Why no host can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHost {
    /// For writes.
    Primary(NoPrimary),
    /// For reads.
    Reads,
    /// For reads that have to see the client's own write.
    Replay,
}

impl NoHost {
    /// What the client is told in the end.
    fn response(self, account: &Account) -> ErrorResponse {
        let database = &account.identity.database;
        match self {
            Self::Primary(NoPrimary::Split) => ErrorResponse::error(
                sqlstate::READ_ONLY_SQL_TRANSACTION,
                format!("several hosts of database \"{database}\" say that they are the primary: writes are refused"),
            )
            .hint("Demote all but one of them; SHOW REPLICATION on the admin console lists them."),
            Self::Primary(_) => ErrorResponse::error(
                sqlstate::CANNOT_CONNECT,
                format!("no primary of database \"{database}\" is known (hold_timeout)"),
            )
            .hint("SHOW REPLICATION on the admin console lists what is known of its hosts."),
            Self::Reads | Self::Replay => ErrorResponse::error(
                sqlstate::CANNOT_CONNECT,
                format!("no host of database \"{database}\" may answer reads (read_write_split, bans)"),
            )
            .hint("SHOW BANS on the admin console lists the hosts that are left out, and why."),
        }
    }
}

/// What the messages up to the end of a request ask for.
struct Asked {
    wish: Wish,
    /// The client itself has said where it wants to go.
    told: bool,
    /// It is one transaction, which begins and ends with it.
    alone: bool,
    /// Where the request ends; `None` when it may go on.
    end: Option<usize>,
    /// It is a BEGIN that waits for what comes next.
    defers: bool,
    /// Why an EXPLAIN goes where it goes, where that is to be told.
    why: Option<String>,
}

impl Active {
    /// Chooses the host for what the client says next.
    ///
    /// # Errors
    ///
    /// [`Event::NoHost`].
    pub(crate) fn choose(&mut self, client: &mut Client) -> Result<Choice, Event> {
        let Some(asked) = self.asked(client) else {
            return Ok(Choice::More);
        };
        if asked.defers {
            self.defer();
            return Ok(Choice::Deferred);
        }
        let wish = if self.trial.to_primary {
            Wish::Write
        } else {
            asked.wish
        };
        let cluster = &client.account.cluster;
        let index = match wish {
            Wish::Write => cluster
                .for_write()
                .map_err(|why| Event::NoHost(NoHost::Primary(why)))?,
            Wish::Read { .. } | Wish::Any => {
                let here = cluster
                    .members()
                    .iter()
                    .position(|m| Arc::ptr_eq(&m.pool, &client.pool) && m.host.is_free());
                let need = need(client, wish);
                let chosen = match (wish, here) {
                    (Wish::Any, Some(here)) => Some(here),
                    _ => cluster.for_read(need),
                };
                // What any host can tell, the primary can.
                let primary = || (wish == Wish::Any).then(|| cluster.for_write().ok())?;
                let none = match need.after {
                    Some(_) if !need.replica_only => NoHost::Replay,
                    _ => NoHost::Reads,
                };
                chosen.or_else(primary).ok_or(Event::NoHost(none))?
            }
        };
        let member = &cluster.members()[index];
        client.pool = member.pool.clone();
        self.trial.explained = asked.why.map(|why| {
            let (host, role) = (&member.host.address, member.host.role().as_str());
            let wish = match (wish, asked.told) {
                (Wish::Write, _) => "primary",
                (Wish::Read { .. }, _) => "read",
                (Wish::Any, _) => "anywhere",
            };
            let told = if asked.told {
                ", as the client has asked"
            } else {
                ""
            };
            format!("PgDog Routing:\n  Route: {wish}{told} ({why})\n  Host: {host} ({role})").into()
        });
        self.trial.routed = true;
        self.trial.wish = wish;
        self.trial.bytes.clear();
        if !self.trial.deferred {
            self.trial.begin.clear();
        }
        if let Some(end) = asked.end
            && end <= AGAIN_MAX
            && !asked.told
            && asked.alone
            && client.tap.is_none()
            && client.params.get(READ_ONLY).is_none()
            && self.mode != PoolerMode::Session
        {
            self.trial.bytes.extend_from_slice(&self.cin.data()[..end]);
            self.trial.mark = self.cout.len();
        }
        Ok(Choice::Made)
    }

    /// Answers a BEGIN, which the server is told before the next statement.
    fn defer(&mut self) {
        let len = Header::peek(self.cin.data())
            .ok()
            .flatten()
            .map_or(0, |h| h.len);
        let text = query_text(&self.cin.data()[frame::HEADER..len]).unwrap_or_default();
        let starts = text.trim_ascii_start().get(..5);
        let starts = starts.is_some_and(|word| word.eq_ignore_ascii_case(b"start"));
        self.trial.begin.clear();
        self.trial.begin.extend_from_slice(text);
        self.trial.deferred = true;
        self.cin.consume(len);
        let tag = if starts { "START TRANSACTION" } else { "BEGIN" };
        backend::command_complete(&mut self.cout.bytes, tag);
        backend::ready(&mut self.cout.bytes, TransactionStatus::InTransaction);
    }

    /// Has the transaction begin on the server that the client has now.
    pub(crate) async fn begin(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&self.trial.begin).into_owned();
        match server.query(&text, ASK_TIMEOUT).await {
            Ok(_) => {
                self.trial.deferred = false;
                self.trial.first = true;
                self.trial.mark = self.cout.len();
                Ok(())
            }
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                self.drop_server(client);
                self.refuse(client, error.into_fatal()).await
            }
            Err(error) => {
                self.drop_server(client);
                let why = CheckoutError::Server(error);
                match self.host_failed(client, &why).await {
                    Some(held) => held,
                    None => self.refuse(client, why.response().into_fatal()).await,
                }
            }
        }
    }

    /// The first request of a transaction that nothing has taken place of: it can be sent again, behind its BEGIN.
    pub(crate) fn arm(&mut self, client: &Client) {
        self.trial.first = false;
        let data = self.cin.data();
        let mut at = 0;
        while let Ok(Some(Header { kind, len })) = Header::peek(&data[at..]) {
            let Some(body) = data.get(at + frame::HEADER..at + len) else {
                break;
            };
            at += len;
            let ends = matches!(kind, b'Q' | b'S');
            let one = kind != b'Q' || is_one(query_text(body).unwrap_or_default());
            if ends && one && at <= AGAIN_MAX && client.tap.is_none() {
                self.trial.bytes.clear();
                self.trial.bytes.extend_from_slice(&data[..at]);
                self.trial.mark = self.cout.len();
                return;
            }
            if ends {
                break;
            }
        }
        self.trial.begin.clear();
    }

    /// The server is at rest within a transaction.
    #[cold]
    #[inline(never)]
    pub(crate) fn routed_within(&mut self, _: &Client) {
        let bytes = std::mem::take(&mut self.trial.bytes);
        if bytes.is_empty() {
            return;
        }
        // That was its BEGIN, if it came alone.
        let text = bytes.get(frame::HEADER..).and_then(query_text);
        let text = text.filter(|_| bytes[0] == b'Q' && !self.failed);
        self.trial.begin.clear();
        if let Some(text) = text.filter(|text| begins(text)) {
            self.trial.begin.extend_from_slice(text);
            self.trial.first = true;
        }
    }

    /// Hosts have come or gone: nobody waits for one that does not answer.
    pub(crate) async fn hosts_changed(&mut self, client: &mut Client) -> Result<(), Ended> {
        if !self.trial.routed {
            return Ok(());
        }
        let Some(host) = self.host(client) else {
            return Ok(());
        };
        let primary = host.role() == Role::Primary;
        let gone = host.ban().is_some_and(|ban| ban.reason == Reason::Failed);
        if self.waiting.is_some() {
            let fits = match self.trial.wish {
                Wish::Write => primary,
                Wish::Read { .. } | Wish::Any => !gone,
            };
            if !fits {
                // In line again, elsewhere.
                self.waiting = None;
            }
            return Ok(());
        }
        let busy = self.server.as_ref().is_some_and(|s| !s.owed.settled());
        if !gone || !busy {
            return Ok(());
        }
        if self.deserves_another_try(b"57P01", true) {
            return self
                .try_again(client, &ServerError::Closed.response())
                .await;
        }
        if primary {
            return Ok(());
        }
        let text = format!("host {} does not answer any more", host.address);
        let error = ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, text);
        self.refuse(client, error).await
    }

    /// What the client's messages up to the end of its request ask for; `None` when more must come first.
    fn asked(&self, client: &Client) -> Option<Asked> {
        let data = self.cin.data();
        let catalogue = client.account.catalogue(&client.runtime).now();
        let planner = &client.runtime.planner;
        let aggressive =
            client.live.settings.balancing.transactions == ReadWriteStrategy::Aggressive;
        let (mut place, mut hint, mut begins) = (Place::Anywhere, None, None);
        let deferred = self.trial.deferred;
        if deferred {
            // What comes next decides.
            begins = Some(Begins::Unsaid);
            if !aggressive {
                place = Place::Primary;
            }
        }
        let (mut alone, mut executes) = (true, false);
        let (explains, mut why) = (client.live.settings.balancing.expanded_explain, None);
        let mut consider = |text: &[u8]| {
            if explains && why.is_none() && is_explain(text) {
                why = Some(planner.facts(text).explain(&catalogue));
            }
            let route = planner.route(text, &catalogue);
            hint = hint.or(route.hint).or_else(|| set_within(text));
            alone &= route.why != Why::Transaction && is_one(text);
            let here = match route.begins {
                Some(how) => {
                    begins = begins.or(Some(how));
                    match how {
                        Begins::ReadOnly => Place::Read,
                        Begins::Unsaid if aggressive => Place::Anywhere,
                        Begins::Unsaid | Begins::ReadWrite => Place::Primary,
                    }
                }
                None => route.place,
            };
            place = match (place, here) {
                (Place::Primary, _) | (_, Place::Primary) => Place::Primary,
                (Place::Read, _) | (_, Place::Read) => Place::Read,
                _ => Place::Anywhere,
            };
        };
        let (mut at, mut end) = (0, None);
        while end.is_none() {
            let Ok(Some(Header { kind, len })) = Header::peek(&data[at..]) else {
                break;
            };
            let Some(body) = data.get(at + frame::HEADER..at + len) else {
                break;
            };
            let statements = client.statements.as_deref();
            match kind {
                b'Q' => consider(query_text(body).unwrap_or_default()),
                b'P' => {
                    if let Some(parse) = Parse::read(body) {
                        consider(parse.query);
                    }
                }
                b'B' => {
                    if let (Some(names), Some(statements)) = (BindNames::read(body), statements) {
                        if names.statement.is_empty() {
                            statements
                                .unnamed_text()
                                .into_iter()
                                .for_each(&mut consider);
                        } else if let Some(statement) = statements.get(names.statement) {
                            consider(&statement.text);
                        }
                    }
                }
                b'E' => executes = true,
                b'F' => consider(b"call function"),
                _ => {}
            }
            at += len;
            if matches!(kind, b'Q' | b'F' | b'S' | b'H' | b'X') {
                end = Some(at);
            }
        }
        if executes && end.is_some_and(|end| data.get(end - frame::HEADER) == Some(&b'H')) {
            // What follows is of the same transaction.
            place = Place::Primary;
            alone = false;
        }
        // A request that is larger than what is kept of one may do anything.
        let too_large = end.is_none() && data.len() >= HIGH / 2;
        let large_first = matches!(Header::peek(data), Ok(Some(h)) if h.len >= HIGH / 2);
        if end.is_none() && !too_large && !large_first {
            return None;
        }
        // No replica is serializable, and where backslashes escape, texts are not what they look like.
        let odd = [
            "default_transaction_isolation",
            "standard_conforming_strings",
        ];
        if end.is_none() || odd.iter().any(|name| client.params.get(name).is_some()) {
            place = Place::Primary;
        }
        let told = hint.or_else(|| told_by(client));
        let (wrote, follows) = (
            client.wrote > 0,
            client.live.settings.balancing.read_your_writes,
        );
        let wish = match (told, place) {
            (Some(RoleHint::Primary), _) => Wish::Write,
            (Some(RoleHint::Replica), _) => Wish::Read { replica: true },
            (None, _) if self.mode == PoolerMode::Session || client.reasons.any() => Wish::Write,
            (None, Place::Primary) => Wish::Write,
            (None, Place::Read) if wrote && follows == ReadYourWrites::Primary => Wish::Write,
            (None, Place::Read) => Wish::Read { replica: false },
            // A transaction that has not said what it is for.
            (None, Place::Anywhere) if begins.is_some() => Wish::Write,
            (None, Place::Anywhere) => Wish::Any,
        };
        Some(Asked {
            wish,
            told: told.is_some(),
            // What a transaction has begun with is sent again with it.
            alone: alone && !deferred,
            defers: aggressive
                && !deferred
                && begins == Some(Begins::Unsaid)
                && alone
                && self.mode == PoolerMode::Transaction
                && client.tap.is_none()
                && data.first() == Some(&b'Q'),
            end,
            why,
        })
    }

    /// The server is at rest: the request and its host are done with.
    #[cold]
    #[inline(never)]
    pub(crate) fn routed(&mut self, client: &mut Client, released: bool) {
        let wrote = released && self.trial.wish == Wish::Write && !self.failed;
        if wrote && client.live.settings.balancing.read_your_writes != ReadYourWrites::Off {
            client.wrote = client.runtime.clock.now().max(1);
        }
        self.trial.end();
    }

    /// The host that the client's server is on.
    fn host(&self, client: &Client) -> Option<Arc<HostState>> {
        let mut members = client.account.cluster.members().iter();
        let member = members.find(|m| Arc::ptr_eq(&m.pool, &client.pool))?;
        Some(member.host.clone())
    }

    /// Whether a request that got this error is to be sent again, to a host that may do better.
    pub(crate) fn deserves_another_try(&self, code: &[u8], fatal: bool) -> bool {
        if self.trial.bytes.is_empty() || self.trial.tries >= TRIES_MAX {
            return false;
        }
        let reads = matches!(self.trial.wish, Wish::Read { .. } | Wish::Any);
        match code {
            // Refused before anything was done, by a host that takes no writes.
            b"25006" => true,
            // The host is going, or has come in the way of what it replays.
            b"57P01" | b"57P02" | b"57P03" | b"57P05" => fatal && reads,
            b"40001" => reads && !self.trial.to_primary,
            _ => false,
        }
    }

    /// An error has come: it ends here when its request is to be sent again.
    #[cold]
    pub(crate) fn may_try_again(&self, body: &[u8]) -> Result<(), Event> {
        let fatal = error::field(body, b'V') == Some(b"FATAL");
        let code = error::field(body, b'C').unwrap_or_default();
        if self.deserves_another_try(code, fatal) {
            return Err(Event::Again(Box::new(ErrorResponse::read(body))));
        }
        Ok(())
    }

    /// Takes back a request of which nothing has taken place, so that it is looked at again.
    pub(crate) async fn try_again(
        &mut self,
        client: &mut Client,
        error: &ErrorResponse,
    ) -> Result<(), Ended> {
        let code = &*error.code;
        let (wish, host, pool) = (self.trial.wish, self.host(client), client.pool.clone());
        client.runtime.metrics.count(|m| &m.retries);
        tracing::debug!(user = %client.account.user.name, database = %client.account.user.database, code, "a request is sent again to another host");
        self.drop_server(client);
        let start = self.cout.start;
        self.cout.bytes.truncate(start + self.trial.mark);
        self.sin.clear();
        self.sout.clear();
        self.from_client = Passing::default();
        self.from_server = Passing::default();
        self.effects = Effects::NONE;
        self.pending = None;
        self.naming = None;
        self.barrier = false;
        self.skipping = false;
        self.failed = false;
        self.told = false;
        self.holding = Holding::No;
        self.restores.clear();
        self.told_before.clear();
        self.custom.clear();
        self.reverts.clear();
        self.unflushed_server = false;
        if let Some(watch) = &mut self.watch {
            **watch = Watch::default();
        }
        if let Some(statements) = &mut client.statements {
            statements.undo_all();
        }
        let rest = self.cin.data().to_vec();
        self.cin.clear();
        self.cin.bytes.extend_from_slice(&self.trial.bytes);
        self.cin.bytes.extend_from_slice(&rest);
        self.trial.bytes.clear();
        self.trial.tries += 1;
        self.trial.first = false;
        // Nothing of its transaction has taken place but its BEGIN.
        self.trial.deferred = !self.trial.begin.is_empty();
        match code {
            // A replica that cancels reads for its own sake does so again.
            "40001" => self.trial.to_primary = true,
            "25006" if wish != Wish::Write => self.trial.to_primary = true,
            "25006" if takes_no_writes(&pool).await => {
                if let Some(host) = host {
                    host.refused_write();
                }
                return self.hold_back(client, error).await;
            }
            // Somebody wants it so.
            "25006" => {
                self.trial.end();
                return self.give_up(client, error).await;
            }
            _ => {
                if let Some(host) = host {
                    host.failed(&ServerError::Closed);
                }
            }
        }
        Ok(())
    }

    /// No host may get the request now: it is held until one may, or until `hold_timeout` is over.
    pub(crate) async fn no_host(&mut self, client: &mut Client, why: NoHost) -> Result<(), Ended> {
        let response = why.response(&client.account);
        if why == NoHost::Replay {
            return self.await_replay(client).await;
        }
        if why == NoHost::Primary(NoPrimary::ReplicasOnly) {
            self.trial.end();
            return self.give_up(client, &response).await;
        }
        self.hold_back(client, &response).await
    }

    /// Whether a request that found no server is tried again: its host has failed, and another one, or the same a moment
    /// later, may serve it.
    pub(crate) async fn host_failed(
        &mut self,
        client: &mut Client,
        error: &CheckoutError,
    ) -> Option<Result<(), Ended>> {
        if client.account.cluster.is_single() {
            return None;
        }
        let (CheckoutError::Server(cause) | CheckoutError::Unreachable { cause, .. }) = error
        else {
            return None;
        };
        if cause.is_permanent() {
            return None;
        }
        if let Some(host) = self.host(client) {
            host.failed(cause);
        }
        client.pool = client.account.pool.clone();
        if self.trial.wish != Wish::Write && self.trial.tries < TRIES_MAX {
            self.trial.tries += 1;
            if usize::from(self.trial.tries) < client.account.cluster.members().len() {
                return Some(Ok(()));
            }
        }
        Some(self.hold_back(client, &error.response()).await)
    }

    /// Waits until a replica has replayed what the client has written; when that takes too long, the primary is asked.
    async fn await_replay(&mut self, client: &mut Client) -> Result<(), Ended> {
        self.note(client, Doing::Waiting);
        let limit = client.live.settings.balancing.read_your_writes_timeout;
        let need = need(client, self.trial.wish);
        let cluster = client.account.cluster.clone();
        let replayed = pgdog_net::timer::timeout(limit, cluster.replayed(need)).await;
        self.trial.to_primary = replayed.is_err();
        Ok(())
    }

    /// Waits for something to change, for a moment at most. When `hold_timeout` is over, the client is told why.
    async fn hold_back(&mut self, client: &mut Client, why: &ErrorResponse) -> Result<(), Ended> {
        let now = client.runtime.clock.now().max(1);
        if self.trial.held == 0 {
            self.trial.held = now;
            client.runtime.metrics.count(|m| &m.holds);
        }
        self.note(client, Doing::Waiting);
        let limit = client.live.settings.balancing.hold_timeout;
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let left = limit.saturating_sub(now - self.trial.held);
        if left == 0 {
            self.trial.end();
            return self.give_up(client, why).await;
        }
        let cluster = client.account.cluster.clone();
        let step = std::time::Duration::from_millis(left.min(HELD_STEP));
        // What changes meanwhile is seen by looking again.
        let _ = pgdog_net::timer::timeout(step, cluster.changed()).await;
        Ok(())
    }
}

/// What a client's read asks of the host that answers it.
fn need(client: &Client, wish: Wish) -> ReadNeed {
    let follows = client.live.settings.balancing.read_your_writes == ReadYourWrites::Replayed;
    ReadNeed {
        replica_only: wish == Wish::Read { replica: true },
        after: (follows && client.wrote > 0).then_some(client.wrote),
    }
}

/// What the client's session says of where it wants to go.
fn told_by(client: &Client) -> Option<RoleHint> {
    let mut parameters = client.account.user.pool.parameters.iter();
    if parameters.any(|(name, value)| name == READ_ONLY && value == "on") {
        return Some(RoleHint::Replica);
    }
    // The value, or the whole statement that has set it.
    let (Value::Plain(value) | Value::Statement(value)) = client.params.get(ROLE)?;
    let value = value.to_ascii_lowercase();
    if value.contains("replica") {
        Some(RoleHint::Replica)
    } else if value.contains("primary") {
        Some(RoleHint::Primary)
    } else {
        None
    }
}

/// Whether a text is an EXPLAIN whose answer is text.
fn is_explain(text: &[u8]) -> bool {
    if text.to_ascii_lowercase().windows(6).any(|w| w == b"format") {
        return false;
    }
    let first = pgdog_sql::lexer::statements(text)
        .next()
        .unwrap_or_default();
    let word = first.trim_ascii_start().get(..7);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"explain"))
}

/// Whether a text is one statement, as far as can be told without reading it.
fn is_one(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text);
    !text.contains(&b';')
}

/// Whether a host takes no writes, as a new connection finds it.
async fn takes_no_writes(pool: &Arc<Pool>) -> bool {
    let asked = async {
        let mut server = pool.target().connect().await?;
        let rows = server.query(TAKES_NO_WRITES, ASK_LIMIT).await;
        server.close();
        rows
    };
    match pgdog_net::timer::timeout(ASK_LIMIT, asked).await {
        Ok(Ok(rows)) => crate::notify::is_on(&rows),
        // It has gone, or is about to.
        _ => true,
    }
}

/// Whether a text is one statement that begins a transaction.
fn begins(text: &[u8]) -> bool {
    let word = text
        .trim_ascii_start()
        .split(|b| !b.is_ascii_alphabetic())
        .next();
    let word = word.unwrap_or_default();
    is_one(text) && (word.eq_ignore_ascii_case(b"begin") || word.eq_ignore_ascii_case(b"start"))
}

/// Where a string sends itself that sets the role, as the first of its transaction.
fn set_within(text: &[u8]) -> Option<RoleHint> {
    let at = text
        .windows(ROLE.len())
        .position(|w| w.eq_ignore_ascii_case(ROLE.as_bytes()))?;
    let after = text[at + ROLE.len()..].to_ascii_lowercase();
    let has = |word: &[u8]| after.windows(word.len()).position(|w| w == word);
    match (has(b"replica"), has(b"primary")) {
        (Some(replica), primary) if primary.is_none_or(|primary| replica < primary) => {
            Some(RoleHint::Replica)
        }
        (_, Some(_)) => Some(RoleHint::Primary),
        _ => None,
    }
}

/// Tells clients of hosts that have come or gone. Never ends; cancel safe.
pub async fn tell_changes(runtime: Arc<Runtime>) {
    let mut seen: HashMap<String, u64> = HashMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(HELD_STEP)).await;
        let live = runtime.live();
        let mut changed: Vec<&str> = Vec::new();
        for account in live.accounts.values().flat_map(HashMap::values) {
            let name = account.identity.database.as_str();
            if account.cluster.is_single() || changed.contains(&name) {
                continue;
            }
            let now = *account.cluster.database().changes().borrow();
            if seen
                .insert(name.to_owned(), now)
                .is_some_and(|before| before != now)
            {
                changed.push(name);
            }
        }
        if changed.is_empty() {
            continue;
        }
        for client in runtime.registry.all() {
            if changed.contains(&client.identity.database.as_str()) {
                client.signal(Signal::HOSTS);
            }
        }
    }
}
