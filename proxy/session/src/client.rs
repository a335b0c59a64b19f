//! A logged-in client: idle until it says something, then `Active` until all is answered.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use pgdog_backend::probe::Reasons;
use pgdog_backend::{Params, Pool, Server};
use pgdog_config::PoolerMode;
use pgdog_net::Stream;
use pgdog_wire::buffer::Buffer;
use pgdog_wire::{ErrorResponse, sqlstate};

use crate::active::{Active, Event, listens};
use crate::handle::{Doing, Signal};
use crate::mirror::{self, Tap};
use crate::notify::Channels;
use crate::registry::Registered;
use crate::route;
use crate::runtime::{Account, Live, Runtime};
use crate::statements::Statements;

/// A client that has been idle for less than this says more at any moment; ms.
const AT_WORK: u64 = 1000;

/// What a client keeps while it is idle. Ten thousand of them lie in memory: everything that is not always there is boxed.
#[derive(Debug)]
pub struct Client {
    pub(crate) stream: Stream,
    pub(crate) runtime: Arc<Runtime>,
    /// The configuration that it was last served under.
    pub(crate) live: Arc<Live>,
    pub(crate) account: Arc<Account>,
    /// Where its server is from, or the last one was.
    pub(crate) pool: Arc<Pool>,
    /// When its server goes back there: the mode of the pool when the client logged in, which it keeps. What its session has lies
    /// with its server in one mode and here in the others, and does not move.
    pub(crate) mode: PoolerMode,
    /// Coarse time, ms, of the end of its last write; 0 when there was none, or nobody wants to know.
    pub(crate) wrote: u64,
    pub(crate) registered: Registered,
    /// A number that no other client has had.
    pub(crate) id: u64,
    pub(crate) worker: usize,
    /// The settings that its session has.
    pub(crate) params: Arc<Params>,
    /// Those that it gave at login: what RESET goes back to.
    pub(crate) startup: Arc<Params>,
    pub(crate) statements: Option<Box<Statements>>,
    /// The server that it keeps outside of transactions, and why.
    pub(crate) pinned: Option<Box<Server>>,
    pub(crate) reasons: Reasons,
    /// What it listens to without a server of its own.
    pub(crate) channels: Option<Box<Channels>>,
    /// Counts its unnamed statements.
    pub(crate) token: u32,
    /// What it asks is to be watched, as its configuration has it.
    pub(crate) watched: bool,
    /// It is counted among those with a pinned server.
    pub(crate) counted: bool,
    /// The proxy shuts down: the client is told behind its next answer, or when it stays idle.
    pub(crate) draining: bool,
    pub(crate) generation: u64,
    /// The last read found nothing, and nothing has come since as long as the socket is not known to be readable: its task
    /// is woken when that changes.
    pub(crate) listening: bool,
    /// What it said in one breath with its login.
    pub(crate) early: Option<Box<Buffer>>,
    /// Copies what it says, where its database is mirrored.
    pub(crate) tap: Option<Box<Tap>>,
}

/// How a client's session ended.
#[derive(Debug)]
pub enum Ended {
    /// It said goodbye, or closed its socket.
    Left,
    /// Its socket broke.
    Broke(std::io::Error),
    /// The proxy ended it, and told it so.
    Refused(Box<ErrorResponse>),
    /// Its server was lost, as the server itself has said.
    ServerLost,
}

impl Client {
    /// The user that it logged in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.account.user.name
    }

    /// The database that it asked for.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.account.user.database
    }

    /// Who it is, for the log at its end; `None` when that is not wanted.
    #[must_use]
    pub fn log_line(&self, peer: pgdog_net::Peer) -> Option<Box<str>> {
        self.live
            .settings
            .log
            .disconnections
            .then(|| format!("{peer} {}/{}", self.user(), self.database()).into())
    }

    /// Its pool.
    #[inline]
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// A number that no other unnamed statement of any client has had: the client's own number and a count.
    pub(crate) fn next_token(&mut self) -> u64 {
        self.token = self.token.wrapping_add(1);
        self.id << 24 | u64::from(self.token) & 0xff_ffff
    }

    /// Its prepared statements, made when there are none.
    pub(crate) fn statements(&mut self) -> &mut Statements {
        self.statements.get_or_insert_default()
    }

    /// Ready when the client has said something, was told something, or its pinned server has.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        let signals = self.registered.handle.take_signals();
        if signals.0 != 0 {
            return Poll::Ready(signals);
        }
        if let Some(server) = &mut self.pinned
            && server.stream.poll_read_ready(cx).is_ready()
        {
            return Poll::Ready(Signal(0));
        }
        if self.listening && !self.stream.may_have_input() {
            return Poll::Pending;
        }
        let polled = self.stream.poll_read_ready(cx).map(|_| Signal(0));
        self.listening = listens(&polled);
        polled
    }

    /// Serves the client to its end, and tells how it ended. Boxed, because a future holds what it is given twice.
    pub async fn run(mut self: Box<Self>) -> Ended {
        poll_fn(|cx| {
            self.registered.handle.listen(cx.waker());
            Poll::Ready(())
        })
        .await;
        if let Some(early) = self.early.take()
            && let Err(ended) = Box::pin(self.begin(*early)).await
        {
            return ended;
        }
        loop {
            let mut asleep = false;
            let signals = poll_fn(|cx| {
                // Woken: by what, is seen by looking.
                if std::mem::replace(&mut asleep, true) {
                    return Poll::Ready(self.registered.handle.take_signals());
                }
                self.poll_idle(cx)
            })
            .await;
            let mut event = self.heed_idle(signals).map(|e| Event::Refuse(Box::new(e)));
            let mut rest = Vec::new();
            if signals.has(Signal::NOTIFIED)
                && event.is_none()
                && let Some(stopped) = Box::pin(self.deliver()).await
            {
                rest = stopped.rest;
                event = Some(stopped.event);
            }
            if signals.0 != 0 && event.is_none() {
                continue;
            }
            let mut active = Active::take(&mut self);
            active.cout.bytes.append(&mut rest);
            loop {
                let next = match event.take() {
                    Some(event) => event,
                    None => poll_fn(|cx| active.poll(&mut self, cx)).await,
                };
                if matches!(next, Event::Idle) {
                    break;
                }
                if let Err(ended) = Box::pin(active.handle(&mut self, next)).await {
                    return ended;
                }
            }
            active.put_back(&mut self);
        }
    }

    /// Serves a client that has said something before it was let in, until it is idle.
    async fn begin(&mut self, early: Buffer) -> Result<(), Ended> {
        let mut active = Active::take(self);
        active.tally.received += early.len() as u64;
        active.cin = early;
        loop {
            match poll_fn(|cx| active.poll(self, cx)).await {
                Event::Idle => break,
                next => active.handle(self, next).await?,
            }
        }
        active.put_back(self);
        Ok(())
    }

    /// What the client was told while idle: the reason to end it, when there is one.
    pub(crate) fn heed_idle(&mut self, signals: Signal) -> Option<ErrorResponse> {
        if signals.has(Signal::TERMINATE) {
            return Some(shutting_down());
        }
        if signals.has(Signal::DRAIN) {
            let (_, since) = self.registered.handle.doing();
            if self.runtime.clock.now().saturating_sub(since) >= AT_WORK {
                return Some(shutting_down());
            }
            // Told now, it would take this for the answer to what it may be saying.
            self.draining = true;
        }
        if signals.has(Signal::IDLE_TIMEOUT) && self.registered.handle.doing().0 == Doing::Idle {
            return Some(ErrorResponse::fatal(
                sqlstate::IDLE_SESSION_TIMEOUT,
                "terminating connection due to client_idle_timeout",
            ));
        }
        if signals.has(Signal::HOSTS)
            && let Some(server) = &self.pinned
            && self.pool.is_deposed(server)
        {
            return Some(route::deposed());
        }
        // Nothing runs: a cancel request came too late, as PostgreSQL would see it.
        None
    }

    /// Why it is served no more by another configuration than the one that it has seen.
    pub(crate) fn unroutable(&self) -> Option<ErrorResponse> {
        if self.runtime.generation() == self.generation {
            return None;
        }
        let (live, user) = (self.runtime.live(), &self.account.user);
        let account = self.runtime.account(&live, &user.name, &user.database);
        account?.unroutable()
    }

    /// The account as it is configured now; `None` when it was taken out. Whether there is another configuration.
    pub(crate) fn refresh(&mut self) -> Option<bool> {
        let generation = self.runtime.generation();
        if generation == self.generation {
            return Some(false);
        }
        let live = self.runtime.live();
        let user = &self.account.user;
        self.account = self.runtime.account(&live, &user.name, &user.database)?;
        let stays = |pool: &Arc<Pool>| {
            let mut members = self.account.cluster.members().iter();
            members.any(|m| Arc::ptr_eq(&m.pool, pool))
        };
        if !stays(&self.pool) {
            self.pool = self.account.pool.clone();
        }
        self.watched = live.watches();
        self.live = live;
        self.generation = generation;
        mirror::renew(self);
        Some(true)
    }
}

/// What clients are told at shutdown.
pub(crate) fn shutting_down() -> ErrorResponse {
    ErrorResponse::fatal(
        sqlstate::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}

/// Writes and flushes all of `bytes`. Not cancel safe.
pub(crate) async fn write_all(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        match poll_fn(|cx| stream.poll_write_slice(cx, &bytes[sent..])).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            n => sent += n,
        }
    }
    poll_fn(|cx| stream.poll_flush_all(cx)).await
}
