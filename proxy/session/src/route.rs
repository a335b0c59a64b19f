//! Where a database has several hosts: which of them gets what a client says next.
//!
//! Flow: all messages up to the next Query, Sync or Flush are looked at before any is sent, `Active::choose` picks the host
//! for them, and the client stays there until the server is at rest outside of a transaction. What was sent is kept, so that
//! it can be sent again elsewhere when nothing of it has taken place: see `Active::try_again`.
//!
//! Guarantees: a request goes to a replica only when all of it is known to read. A request that was refused because its host
//! takes no writes (25006) has changed nothing, and is sent to the primary; one that only reads is sent again when its host
//! goes away. Both only as long as the client has seen nothing of the answer.

mod again;
mod ask;
mod begin;
mod guard;

pub(crate) use again::deposed;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::probe::Reasons;
use pgdog_backend::{Cluster, HostState, NoPrimary, Role};
use pgdog_config::{PoolerMode, ReadYourWrites};
use pgdog_sql::Functions;
use pgdog_wire::{ErrorResponse, sqlstate};

use self::ask::{need, steering};
use crate::active::{Active, Event};
use crate::client::Client;
use crate::handle::Signal;
use crate::runtime::{Account, Runtime};

/// The setting that makes transactions read-only.
const READ_ONLY: &str = "default_transaction_read_only";
/// Requests up to this size can be sent again.
const AGAIN_MAX: usize = 16 * 1024;
/// So many times a request is sent again.
const TRIES_MAX: u8 = 8;
/// How often it is looked whether hosts have come or gone.
const STEP: Duration = Duration::from_millis(100);

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

/// How much of a request has been dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Handed {
    /// Nothing.
    #[default]
    None,
    /// Some of its messages.
    Part,
    /// All of it.
    All,
}

/// A request on its way, and what it takes to send it again.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    /// The text with which the transaction began, as long as nothing else of it has taken place.
    begin: Vec<u8>,
    /// The server has not been told of it.
    pub(crate) deferred: bool,
    /// The request is a BEGIN and nothing else.
    opening: bool,
    /// The next request is the first of the transaction.
    first: bool,
    /// It is within a transaction on a replica, where the client has not said that it wants to be.
    guarded: bool,
    /// How much of it has been dealt with.
    pub(crate) handed: Handed,
    /// The server has begun to answer it.
    pub(crate) heard: bool,
    /// A host was chosen for it.
    pub(crate) routed: bool,
    pub(crate) wish: Wish,
    /// The client's own messages; empty where they cannot be sent again.
    bytes: Vec<u8>,
    /// What lies before the answer in the client's buffer.
    mark: usize,
    tries: u8,
    /// It goes to the primary, whatever it looks like.
    pub(crate) to_primary: bool,
    /// Coarse time since when it is held back, ms; 0 when it is not.
    held: u64,
    /// What the answer to an EXPLAIN ends with.
    pub(crate) explained: Option<Box<str>>,
    /// What was known of functions when a host was last chosen, for whomever.
    functions: Arc<Functions>,
}

impl Trial {
    /// Whether the next request needs a look, beside that at its host.
    #[inline]
    pub(crate) fn watched(&self) -> bool {
        self.deferred || self.first || self.guarded
    }

    /// Whether answers of the proxy's own are kept back until the server has begun to answer: until then the request can be
    /// sent again. It ends with a message that every server answers.
    #[inline]
    pub(crate) fn keeps_back(&self) -> bool {
        !self.heard && !self.bytes.is_empty()
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
        self.guarded = false;
        self.opening = false;
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
    /// The same, where the client wants a replica.
    Behind,
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
            Self::Behind => ErrorResponse::error(
                sqlstate::CANNOT_CONNECT,
                format!("no replica of database \"{database}\" has replayed what this session has written (read_your_writes, hold_timeout)"),
            )
            .hint("SHOW REPLICATION on the admin console tells how far they are behind."),
            Self::Reads | Self::Replay => ErrorResponse::error(
                sqlstate::CANNOT_CONNECT,
                format!("no host of database \"{database}\" may answer reads (read_write_split, bans)"),
            )
            .hint("SHOW REPLICATION on the admin console tells what each host is, SHOW BANS which are left out and why."),
        }
    }
}

impl Active {
    /// Chooses the host for what the client says next.
    ///
    /// # Errors
    ///
    /// [`Event::NoHost`].
    pub(crate) fn choose(&mut self, client: &mut Client) -> Result<Choice, Event> {
        let catalogue = client.account.catalogue(&client.runtime);
        catalogue.refresh(&mut self.trial.functions);
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
                let any = wish == Wish::Any;
                let here = || {
                    let mut members = cluster.members().iter();
                    let fits = |host: &HostState| host.is_free() && host.role() != Role::Unknown;
                    members.position(|m| Arc::ptr_eq(&m.pool, &client.pool) && fits(&m.host))
                };
                let need = need(client, wish);
                let chosen = any.then(here).flatten();
                let chosen = chosen.or_else(|| cluster.for_read(need));
                // What any host can tell, the primary can.
                let primary = || any.then(|| cluster.for_write().ok())?;
                let none = match need.after {
                    Some(_) if need.replica_only => NoHost::Behind,
                    Some(_) => NoHost::Replay,
                    None => NoHost::Reads,
                };
                chosen.or_else(primary).ok_or(Event::NoHost(none))?
            }
        };
        let member = &cluster.members()[index];
        if !Arc::ptr_eq(&client.pool, &member.pool) {
            client.pool = member.pool.clone();
        }
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
        self.trial.guarded = asked.begins && !asked.told && member.host.role() != Role::Primary;
        self.trial.handed = Handed::None;
        self.trial.heard = false;
        self.trial.bytes.clear();
        if !self.trial.deferred {
            self.trial.begin.clear();
            self.trial.opening = asked.opens && client.tap.is_none();
            if self.trial.opening {
                self.keep_begin();
            }
        }
        if let Some(end) = asked.end
            && end <= AGAIN_MAX
            && !asked.told
            && asked.alone
            && client.tap.is_none()
            && steering(client, READ_ONLY).is_none()
            && self.mode != PoolerMode::Session
        {
            self.trial.bytes.extend_from_slice(&self.cin.data()[..end]);
            self.trial.mark = self.cout.len();
        }
        Ok(Choice::Made)
    }

    /// A message of the request was dealt with.
    #[inline]
    pub(crate) fn handed(&mut self, kind: u8) {
        // What follows upon a Flush may belong elsewhere too, if nothing was executed before it.
        self.barrier |= kind == b'H';
        self.trial.handed = if matches!(kind, b'Q' | b'S' | b'F') {
            // The next request may belong elsewhere.
            self.barrier = true;
            Handed::All
        } else {
            Handed::Part
        };
    }

    /// The server is at rest: the request and its host are done with.
    #[cold]
    #[inline(never)]
    pub(crate) fn routed(&mut self, client: &mut Client) {
        let wrote = self.trial.wish == Wish::Write;
        if wrote && client.live.settings.balancing.read_your_writes != ReadYourWrites::Off {
            client.wrote = client.runtime.clock.now().max(1);
        }
        self.trial.end();
    }

    /// Whether the client wants to keep a server, and this one is on a replica for no better reason than that it has only read
    /// before: it is to be one of the primary.
    #[cold]
    pub(crate) fn is_astray(&self, client: &Client) -> bool {
        client.reasons == Reasons::ASKED
            && self.trial.routed
            && self.trial.wish != Wish::Read { replica: true }
            && self
                .host(client)
                .is_some_and(|host| host.role() != Role::Primary)
    }

    /// Whether the client's server is on a replica.
    pub(crate) fn is_on_replica(&self, client: &Client) -> bool {
        self.host(client)
            .is_some_and(|host| host.role() == Role::Replica)
    }

    /// The host that the client's server is on.
    pub(crate) fn host(&self, client: &Client) -> Option<Arc<HostState>> {
        let mut members = client.account.cluster.members().iter();
        let member = members.find(|m| Arc::ptr_eq(&m.pool, &client.pool))?;
        Some(member.host.clone())
    }
}

/// Nobody is notified by a host that takes no writes any more: who listens there goes to the one that does.
fn listen_elsewhere(cluster: &Cluster) {
    let Ok(writer) = cluster.for_write() else {
        return;
    };
    let others = cluster.members().iter().enumerate();
    for (_, other) in others.filter(|(index, _)| *index != writer) {
        other.pool.listener.close();
    }
}

/// Tells clients of hosts that have come or gone. Never ends; cancel safe.
pub async fn tell_changes(runtime: Arc<Runtime>) {
    let mut seen: HashMap<String, u64> = HashMap::new();
    loop {
        pgdog_net::timer::sleep(STEP).await;
        let live = runtime.live();
        let mut changed: Vec<&str> = Vec::new();
        for account in live.accounts.values().flat_map(HashMap::values) {
            let name = account.identity.database.as_str();
            if account.cluster.is_single() {
                continue;
            }
            let members = account.cluster.members().iter();
            for member in members.filter(|m| m.host.is_healthy()) {
                member.pool.forgive();
            }
            listen_elsewhere(&account.cluster);
            if changed.contains(&name) {
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
