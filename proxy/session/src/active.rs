//! A client that is being served: both sockets, the bytes between them, and what is known of the session on the way.
//!
//! [`Active::poll`] moves bytes both ways until it must wait, or until something needs more than moving bytes: an
//! [`Event`], which `settle.rs` handles. `requests.rs` and `prepare.rs` look at what the client says, `relay.rs` at what the
//! server answers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pgdog_backend::server::Reported;
use pgdog_backend::{CheckoutError, Expect, Server, ServerState, StatementId, Waiting};
use pgdog_config::PoolerMode;
use pgdog_sql::Effects;
use pgdog_wire::ErrorResponse;
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::buffer::{self, Buffer};
use tokio_util::io::poll_read_buf;

use crate::client::Client;
use crate::handle::{Doing, Signal};
use crate::mirror;
use crate::named::{Rewritten, Shift};
use crate::route::{Choice, NoHost, Trial};
use crate::tally::Tally;
use crate::watch::Watch;

/// A side is not read while this much waits to be written to the other.
pub(crate) const HIGH: usize = 64 * 1024;

/// Something that moving bytes cannot do.
#[derive(Debug)]
pub(crate) enum Event {
    /// All is answered: the client is idle again.
    Idle,
    /// A connection came that must be moved to this worker or checked first.
    Prepare(Box<Server>),
    /// The server's settings are not the client's.
    Params,
    /// The server began with other settings than the client's mode asks for, or clients of another mode have left things there.
    Rebase,
    /// Settings that a transaction has put back are to be what the client's login gave.
    Restore,
    /// The server is to forget the sequence values that others have drawn, as [`Active::sequences`] says.
    CleanSequences {
        /// Because the client asks for those of its session, which it keeps from then on.
        asks: bool,
    },
    /// The server is to listen to what the client listens to over the pool's listener.
    FetchChannels,
    /// No host may get what the client says.
    NoHost(NoHost),
    /// The transaction that the client has begun is to begin on the server.
    Begin,
    /// The same on the primary, and no more on the server at hand.
    BeginElsewhere,
    /// What was asked has not taken place, and may do so elsewhere.
    Again(Box<ErrorResponse>),
    /// No connection could be had.
    CheckoutFailed(Box<CheckoutError>),
    /// The server is at rest, and its session may have changed.
    Settle,
    /// The client has closed its socket or said goodbye.
    ClientLeft,
    /// The client's socket broke.
    ClientBroke(io::Error),
    /// The server has closed, or its socket broke.
    ServerLost(Option<io::Error>),
    /// The server broke the protocol.
    OutOfSync(pgdog_backend::expect::OutOfSync),
    /// The client broke the protocol or a rule: it is told and closed.
    Refuse(Box<ErrorResponse>),
    /// Somebody has something to tell.
    Signal(Signal),
}

/// The message that is passing by in parts: how much of it is still to come, and whether it goes on to the other side.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Passing {
    pub(crate) left: usize,
    pub(crate) kept: bool,
}

/// What to do when a statement that was passed on has succeeded.
#[derive(Debug)]
pub(crate) enum Pending {
    /// One SET or RESET, whose text is known.
    Setting(Box<str>),
    /// One prepared statement is gone: the client's name for it, and what the server has.
    Forget(Box<[u8]>, StatementId),
    /// A query string that names prepared statements.
    Named(Box<Rewritten>),
}

/// Whether the client is going. What it has asked for is finished first, as PostgreSQL does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It stays.
    No,
    /// It said goodbye.
    Goodbye,
    /// It closed its side.
    Closed,
}

/// Whether the end of the answer to a RESET waits for what the client's login gave to be set again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// It does not.
    No,
    /// It will: settings that the server reports, and its ReadyForQuery, are kept back.
    Waiting,
    /// ReadyForQuery has come, and is owed to the client.
    Ready,
}

/// What came of asking for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkout {
    /// It is there.
    Ready,
    /// It must be waited for.
    Wait,
    /// The client must say more first, so that a host can be chosen.
    More,
    /// The message is answered without.
    Answered,
}

/// A client being served.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) server: Option<Box<Server>>,
    pub(crate) waiting: Option<Waiting>,
    /// From the client, not looked at yet.
    pub(crate) cin: Buffer,
    /// To the server.
    pub(crate) sout: Buffer,
    /// From the server, not looked at yet.
    pub(crate) sin: Buffer,
    /// To the client.
    pub(crate) cout: Buffer,
    pub(crate) from_client: Passing,
    pub(crate) from_server: Passing,
    /// What the statements since the last rest may have changed.
    pub(crate) effects: Effects,
    pub(crate) pending: Option<Pending>,
    /// The unnamed statement in whose text a name was replaced last, and how positions in it differ.
    pub(crate) naming: Option<(u64, Shift)>,
    /// The client's messages wait until the server has answered all.
    pub(crate) barrier: bool,
    /// An error was told without a server: the client's messages are dropped up to its Sync.
    pub(crate) skipping: bool,
    /// An error came since the last rest.
    pub(crate) failed: bool,
    /// The server has said that it ends the connection.
    pub(crate) told: bool,
    /// ReadyForQuery is kept back until settings that RESET has put back are what this client's login gave.
    pub(crate) holding: Holding,
    /// Names with dots of settings that the session may have made up since the last rest.
    pub(crate) custom: Vec<String>,
    /// The settings of the client's login that are to be set again then, and what it was told of all before.
    pub(crate) restores: Vec<Box<str>>,
    pub(crate) told_before: Vec<Reported>,
    /// Settings that the server reported and that are not what they were before; name and old value.
    pub(crate) reverts: Vec<Reported>,
    /// The cancel request under way to the server.
    pub(crate) cancelling: Option<tokio::task::JoinHandle<bool>>,
    pub(crate) leaving: Leaving,
    /// How long the answer to a client that has closed is worked on.
    pub(crate) grace: Option<Pin<Box<tokio::time::Sleep>>>,
    /// The client's mode.
    pub(crate) mode: PoolerMode,
    /// The request for which a host was chosen.
    pub(crate) trial: Trial,
    pub(crate) doing: Doing,
    pub(crate) tally: Tally,
    /// What it asks, where somebody wants to know.
    pub(crate) watch: Option<Box<Watch>>,
    /// The client is to leave when it is outside of a transaction: it is told in one breath with its last answer.
    pub(crate) draining: bool,
    /// TLS holds bytes for the client that its socket did not take.
    pub(crate) unflushed: bool,
    /// TLS holds bytes for the server that its socket did not take.
    pub(crate) unflushed_server: bool,
    /// The client is counted among those with a pinned server.
    pub(crate) counted: bool,
}

thread_local! {
    /// Those that nobody uses now, with their buffers: as many as were ever needed at once on this worker.
    #[allow(clippy::vec_box, reason = "clients hold them by pointer, and hand them back so")]
    static SPARE: RefCell<Vec<Box<Active>>> = const { RefCell::new(Vec::new()) };
}

/// No more spare ones than this are kept on a worker.
const SPARE_MAX: usize = 64;

impl Active {
    fn new() -> Self {
        Self {
            server: None,
            waiting: None,
            cin: Buffer::new(),
            sout: Buffer::new(),
            sin: Buffer::new(),
            cout: Buffer::new(),
            from_client: Passing::default(),
            from_server: Passing::default(),
            effects: Effects::NONE,
            pending: None,
            naming: None,
            barrier: false,
            skipping: false,
            failed: false,
            told: false,
            holding: Holding::No,
            restores: Vec::new(),
            told_before: Vec::new(),
            custom: Vec::new(),
            reverts: Vec::new(),
            cancelling: None,
            leaving: Leaving::No,
            grace: None,
            mode: PoolerMode::Transaction,
            trial: Trial::default(),
            doing: Doing::Idle,
            tally: Tally::default(),
            watch: None,
            draining: false,
            unflushed: false,
            unflushed_server: false,
            counted: false,
        }
    }

    /// One for this client, with its pinned server.
    pub(crate) fn take(client: &mut Client) -> Box<Self> {
        let mut active = SPARE
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| Box::new(Self::new()));
        active.server = client.pinned.take();
        active.counted = client.counted;
        active.draining = client.draining;
        active.mode = client.mode;
        if active.server.is_some() {
            active.watches(client);
        }
        active
    }

    /// The client is idle: what it keeps goes to the client, the rest back to the stack.
    pub(crate) fn put_back(mut self: Box<Self>, client: &mut Client) {
        client.pinned = self.server.take();
        self.barrier = false;
        client.counted = std::mem::take(&mut self.counted);
        client.draining = std::mem::take(&mut self.draining);
        self.waiting = None;
        debug_assert!(
            self.cin.is_empty()
                && self.cout.is_empty()
                && self.sin.is_empty()
                && self.sout.is_empty()
        );
        for buffer in [&mut self.cin, &mut self.sout, &mut self.sin, &mut self.cout] {
            buffer.clear();
            buffer.shrink();
        }
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// Moves bytes until there is nothing to move or something to do. Cancel safe.
    pub(crate) fn poll(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Poll<Event> {
        let signals = client.registered.handle.take_urgent();
        if signals.0 != 0 {
            return Poll::Ready(Event::Signal(signals));
        }
        match self.poll_bytes(client, cx) {
            Poll::Pending => match &mut self.grace {
                Some(grace) => grace.as_mut().poll(cx).map(|()| Event::ClientLeft),
                None => Poll::Pending,
            },
            Poll::Ready(Ok(event) | Err(event)) => Poll::Ready(event),
        }
    }

    fn poll_bytes(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, Event>> {
        if self.waiting.is_some() {
            let server = ready!(self.poll_waiting(client, cx))?;
            self.attach(client, server)?;
        }
        loop {
            let mut moved = self.poll_server(client, cx)?;
            if moved
                && self.draining
                && let Some(event) = self.rest(client, cx)
            {
                return Poll::Ready(Ok(event));
            }
            moved |= self.poll_write_client(client, cx)?;
            // After the last answer the client is idle: whether it has said more is seen there.
            if moved && let Some(event) = self.rest(client, cx) {
                return Poll::Ready(Ok(event));
            }
            moved |= self.poll_client(client, cx)?;
            moved |= self.poll_write_server(cx)?;
            if let Some(event) = self.rest(client, cx) {
                return Poll::Ready(Ok(event));
            }
            if self.waiting.is_some() {
                let server = ready!(self.poll_waiting(client, cx))?;
                self.attach(client, server)?;
                moved = true;
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Reads from the server while the client keeps up, and looks at what came.
    fn poll_server(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Result<bool, Event> {
        let Some(server) = &mut self.server else {
            return Ok(false);
        };
        if self.cout.len() >= HIGH {
            return Ok(false);
        }
        match server.poll_fill(cx, &mut self.sin) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => self.server_ends(client, None),
            Poll::Ready(Ok(_)) => {
                self.relay(client)?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => self.server_ends(client, Some(error)),
        }
    }

    /// The server has closed. Says whether that was new, when it is not the client's affair.
    #[cold]
    fn server_ends(&mut self, client: &Client, cause: Option<io::Error>) -> Result<bool, Event> {
        if !self.only_lent(client) {
            return Err(Event::ServerLost(cause));
        }
        let ended = self.server.as_mut().and_then(|s| s.expires.replace(0));
        Ok(ended != Some(0))
    }

    /// Whether the server owes the client nothing and goes back to the pool now: what it says of itself is the pool's
    /// affair.
    pub(crate) fn only_lent(&self, client: &Client) -> bool {
        self.mode != PoolerMode::Session
            && !client.reasons.any()
            && self.server.as_ref().is_some_and(|s| s.owed.at_rest())
    }

    fn poll_write_client(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Result<bool, Event> {
        if self.cout.is_empty() && !self.unflushed {
            return Ok(false);
        }
        if self.trial.routed && self.trial.keeps_back() && self.server.is_some() {
            return Ok(false);
        }
        let before = self.cout.len();
        let (moved, flushed) =
            poll_out(&mut client.stream, &mut self.cout, cx).map_err(Event::ClientBroke)?;
        let sent = before - self.cout.len();
        self.tally.sent += sent as u64;
        if self.trial.routed {
            self.trial.sent(sent);
        }
        self.unflushed = !flushed;
        Ok(moved)
    }

    fn poll_write_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Event> {
        let Some(server) = &mut self.server else {
            return Ok(false);
        };
        if self.sout.is_empty() && !self.unflushed_server {
            return Ok(false);
        }
        match poll_out(&mut server.stream, &mut self.sout, cx) {
            Ok((moved, flushed)) => {
                self.unflushed_server = !flushed;
                Ok(moved)
            }
            // A server that closes says why before: reading comes to the end of it.
            Err(_) => {
                self.sout.clear();
                self.unflushed_server = false;
                Ok(false)
            }
        }
    }

    /// Reads from the client while the server keeps up, and looks at what came.
    fn poll_client(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Result<bool, Event> {
        if self.barrier {
            // A COPY does not end before the client has said more.
            if !self
                .server
                .as_ref()
                .is_none_or(|s| s.owed.is_empty() || s.owed.copy_in)
            {
                return self.poll_behind_barrier(client, cx);
            }
            if self.holding == Holding::Ready {
                // At rest, what was reset is set again before the server is given back.
                let open = |s: &Server| s.owed.status != TransactionStatus::Idle;
                return match &self.server {
                    Some(server) if open(server) => Err(Event::Restore),
                    _ => Ok(false),
                };
            }
            self.barrier = false;
            // Before more is said: an error in what follows says nothing of this one.
            self.conclude(client);
        }
        if self.waiting.is_some() || self.sout.len() >= HIGH || self.cout.len() >= HIGH {
            return Ok(false);
        }
        if self.cancelling.is_some()
            && self
                .server
                .as_ref()
                .is_none_or(|s| s.owed.settled() || s.owed.copy_in)
            && self.cancel_under_way(cx)
        {
            return Ok(false);
        }
        // What is there is looked at first: a wait for a connection may have come in between.
        if !self.cin.is_empty() && self.requests(client, cx)? {
            return Ok(true);
        }
        if self.waiting.is_some() || self.barrier || self.leaving != Leaving::No {
            return Ok(false);
        }
        let came = self.read_client(client, cx)?;
        if came {
            self.requests(client, cx)?;
        }
        Ok(came)
    }

    /// Reads from the client, without looking at what comes. Says whether something came; its end is noted.
    fn read_client(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Result<bool, Event> {
        self.cin.reserve(buffer::SIZE / 4);
        let read = poll_read_buf(Pin::new(&mut client.stream), cx, &mut self.cin.bytes);
        client.listening = listens(&read);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.leaves(client, Leaving::Closed, cx);
                Ok(false)
            }
            Poll::Ready(Ok(count)) => {
                self.tally.received += count as u64;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(Event::ClientBroke(error)),
        }
    }

    /// What the client says now is looked at later; but a client that leaves meanwhile is noticed.
    fn poll_behind_barrier(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Result<bool, Event> {
        if self.leaving != Leaving::No || self.cin.len() >= HIGH {
            return Ok(false);
        }
        self.read_client(client, cx)
    }

    /// The client goes. What it said before still counts; but an answer that nobody waits for is not worked on forever.
    pub(crate) fn leaves(&mut self, client: &Client, how: Leaving, cx: &Context<'_>) {
        self.leaving = how;
        self.grace = Some(Box::pin(pgdog_net::timer::sleep(
            client.live.settings.rollback_timeout,
        )));
        cx.waker().wake_by_ref();
    }

    /// The connection that was waited for. A client that leaves meanwhile is noticed.
    fn poll_waiting(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<Server>, Event>> {
        let Some(waiting) = &mut self.waiting else {
            return Poll::Pending;
        };
        match waiting.poll(cx) {
            Poll::Ready(result) => {
                self.waiting = None;
                Poll::Ready(match result {
                    Ok(mut server) => {
                        if let Some(why) = client.unroutable() {
                            client.pool().release(server);
                            return Poll::Ready(Err(Event::Refuse(Box::new(why))));
                        }
                        // Fresh from another client of this worker: nothing to move and nothing to check.
                        let fresh = client.pool().is_fresh(&server);
                        if fresh && server.worker == client.worker && server.still_idle(cx) {
                            Ok(server)
                        } else {
                            Err(Event::Prepare(server))
                        }
                    }
                    Err(error) => Err(Event::CheckoutFailed(Box::new(error))),
                })
            }
            Poll::Pending => {
                self.poll_write_client(client, cx)?;
                self.poll_meanwhile(client, cx)?;
                Poll::Pending
            }
        }
    }

    /// Takes what the client says while it waits for a server, and notices when it goes.
    pub(crate) fn poll_meanwhile(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Result<(), Event> {
        if self.cin.len() >= HIGH {
            return Ok(());
        }
        self.cin.reserve(buffer::SIZE / 4);
        let read = poll_read_buf(Pin::new(&mut client.stream), cx, &mut self.cin.bytes);
        client.listening = listens(&read);
        match read {
            Poll::Ready(Ok(0)) => Err(Event::ClientLeft),
            Poll::Ready(Err(error)) => Err(Event::ClientBroke(error)),
            Poll::Ready(Ok(count)) => {
                self.tally.received += count as u64;
                cx.waker().wake_by_ref();
                Ok(())
            }
            Poll::Pending => Ok(()),
        }
    }

    /// The connection is the client's from now on. Its settings may have to be brought in line first.
    pub(crate) fn attach(
        &mut self,
        client: &mut Client,
        mut server: Box<Server>,
    ) -> Result<(), Event> {
        client.pool().counters.of(client.worker).assignments.add(1);
        let unfit = if self.mode == PoolerMode::Session {
            server.shared
                || !Arc::ptr_eq(&server.base, &client.startup) && server.base != client.startup
        } else {
            !server.base.is_empty()
        };
        if unfit {
            self.server = Some(server);
            return Err(Event::Rebase);
        }
        server.shared = self.mode != PoolerMode::Session;
        let same = Arc::ptr_eq(&server.params, &client.params) || server.params == client.params;
        if same {
            server.params = client.params.clone();
        }
        self.server = Some(server);
        // A client that asked with its login to keep its server gets it without sequence values of others.
        if same && !client.reasons.any() {
            Ok(())
        } else {
            Err(Event::Params)
        }
    }

    /// Asks for a connection.
    pub(crate) fn checkout(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Result<Checkout, Event> {
        if let Some(why) = client.unroutable() {
            return Err(Event::Refuse(Box::new(why)));
        }
        let refreshed = client.refresh();
        if refreshed == Some(true) && client.tap.is_some() {
            // Once more from the start: from this message on it may be mirrored.
            return Ok(Checkout::Wait);
        }
        if refreshed.is_none() {
            let error = ErrorResponse::fatal(
                pgdog_wire::sqlstate::ADMIN_SHUTDOWN,
                format!(
                    "user \"{}\" of database \"{}\" was taken out of the configuration",
                    client.account.user.name, client.account.user.database
                ),
            );
            return Err(Event::Refuse(Box::new(error)));
        }
        self.watches(client);
        if !client.account.cluster.is_single() {
            match self.choose(client)? {
                Choice::Made => {}
                Choice::More => return Ok(Checkout::More),
                Choice::Deferred => return Ok(Checkout::Answered),
            }
        }
        match client.pool().take(client.worker, cx) {
            Some(server) => {
                self.attach(client, server)?;
                Ok(Checkout::Ready)
            }
            None => {
                self.waiting = Some(client.pool().wait(client.worker));
                self.note(client, Doing::Waiting);
                Ok(Checkout::Wait)
            }
        }
    }

    /// Whether all that the client said has been answered, and what is to be done then.
    fn rest(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Option<Event> {
        let worked = self.doing != Doing::Idle;
        if let Some(server) = &mut self.server {
            let unfinished = server.owed.copy_in || server.owed.unsynced || server.owed.ignoring;
            if self.leaving != Leaving::No
                && unfinished
                && self.sout.is_empty()
                && !whole_message(&self.cin)
            {
                // The rest of what it began will not come.
                return Some(Event::ClientLeft);
            }
            if server.owed.prepared_only()
                && self.from_client.left == 0
                && (self.cin.is_empty() || self.trial.routed)
                && self.sin.is_empty()
                && self.mode != PoolerMode::Session
                && !client
                    .statements
                    .as_ref()
                    .is_some_and(|s| s.only_on_server())
            {
                // asyncpg prepares with Flush, and its Sync comes when the statement is used: minutes later, or never.
                pgdog_wire::frontend::bare(&mut self.sout.bytes, b'S');
                server.owed.push(Expect::OwnSync);
                // What comes next may belong elsewhere.
                self.barrier |= self.trial.routed;
                cx.waker().wake_by_ref();
                return None;
            }
            if !server.owed.settled()
                || !self.sout.is_empty()
                || self.unflushed_server
                || self.from_client.left > 0
            {
                return None;
            }
            if server.owed.status != TransactionStatus::Idle {
                if self.trial.routed {
                    self.routed_within();
                }
                self.note(client, Doing::IdleInTransaction);
                return (self.leaving != Leaving::No && !whole_message(&self.cin))
                    .then_some(Event::ClientLeft);
            }
            if !self.sin.is_empty() || self.from_server.left > 0 {
                return None;
            }
            if self.cancelling.is_some() && self.cancel_under_way(cx) {
                return None;
            }
            if self.needs_settling(client) {
                return Some(Event::Settle);
            }
            self.note(client, Doing::Idle);
            self.let_go(client);
        }
        if self.leaving != Leaving::No
            && self.waiting.is_none()
            && !whole_message(&self.cin)
            && self.cout.is_empty()
        {
            return Some(Event::ClientLeft);
        }
        if self.trial.deferred && self.cin.is_empty() && self.waiting.is_none() {
            // In a transaction, as the client sees it.
            self.note(client, Doing::IdleInTransaction);
            return None;
        }
        if self.waiting.is_some()
            || !self.cin.is_empty()
            || self.skipping
            || self.from_client.left > 0
        {
            // An unfinished message: the client is not idle yet, but has no server either.
            return None;
        }
        if self.draining && worked {
            return Some(Event::Refuse(Box::new(crate::client::shutting_down())));
        }
        if !self.cout.is_empty() || self.unflushed {
            return None;
        }
        self.note(client, Doing::Idle);
        Some(Event::Idle)
    }

    /// All is answered and nothing left to ask: the server goes back to the pool, unless the client keeps it.
    #[inline(always)]
    pub(crate) fn let_go(&mut self, client: &mut Client) {
        self.effects = Effects::NONE;
        self.failed = false;
        self.custom.clear();
        if client.tap.is_some() {
            mirror::end(client);
        }
        let keep =
            self.mode == PoolerMode::Session || client.reasons.any() && !self.is_astray(client);
        if self.trial.routed {
            self.routed(client);
        }
        if !keep && let Some(server) = self.server.take() {
            client.pool().release(server);
        }
    }

    /// Whether a cancel request is on its way: until the server has closed its connection, it may hit whatever runs next.
    fn cancel_under_way(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(cancelling) = &mut self.cancelling else {
            return false;
        };
        let Poll::Ready(done) = Pin::new(cancelling).poll(cx) else {
            return true;
        };
        if !matches!(done, Ok(true))
            && let Some(server) = &mut self.server
        {
            // It may still be on its way: nobody else is to run into it.
            server.expires = Some(0);
        }
        self.cancelling = None;
        false
    }

    /// Whether nothing will happen unless the client says more.
    pub(crate) fn waits_for_client(&self) -> bool {
        let answered = |server: &Server| server.owed.is_empty() || server.owed.copy_in;
        self.waiting.is_none()
            && self.sout.is_empty()
            && !self.unflushed_server
            && self.cancelling.is_none()
            && self.server.as_deref().is_none_or(answered)
    }

    /// Notes what the client does, for timeouts and views.
    #[inline(always)]
    pub(crate) fn note(&mut self, client: &Client, doing: Doing) {
        if self.doing != doing {
            self.turn(client, doing);
        }
    }

    /// From now on the client does something else.
    #[inline(never)]
    fn turn(&mut self, client: &Client, doing: Doing) {
        let (now, exact) = (client.runtime.clock.now(), client.runtime.clock.precise());
        let handle = &client.registered.handle;
        let counters = client.pool().counters.of(client.worker);
        handle.does(doing, now);
        if doing == Doing::Idle {
            handle.in_transaction(None);
        } else if self.doing == Doing::Idle {
            handle.in_transaction(Some(now));
        }
        if self.trial.routed
            && self.doing == Doing::Active
            && let Some(host) = client.pool().host()
        {
            host.record_latency(exact.saturating_sub(self.tally.since()));
        }
        self.tally.turn(self.doing, doing, exact, handle, counters);
        if self.watch.is_some() {
            self.watched_turn(client, doing == Doing::Idle, exact);
        }
        let server = self.server.as_ref();
        if let Some(server) = server {
            let state = match doing {
                Doing::Active => ServerState::Active,
                _ => ServerState::Held,
            };
            server.handle.does(state, handle.pid, now);
        }
        if matches!(doing, Doing::Idle | Doing::IdleInTransaction) {
            if self.tally.prepares() {
                let count = client.statements.as_ref().map_or(0, |s| s.len());
                handle.prepared.store(count as u32, Ordering::Relaxed);
            }
            let server = server.map(|s| &*s.handle);
            self.tally.hand_on(handle, server, counters);
        }
        self.doing = doing;
    }
}

/// Whether a read has asked to be woken when there is something. One that had to wait for its task's turn has not.
#[inline]
pub(crate) fn listens<T>(read: &Poll<T>) -> bool {
    read.is_pending() && tokio::task::coop::has_budget_remaining()
}

/// Whether a whole message is still to be looked at.
fn whole_message(input: &Buffer) -> bool {
    matches!(pgdog_wire::Header::peek(input.data()), Ok(Some(h)) if input.len() >= h.len)
}

/// Writes what the socket takes.
/// Says whether something moved, and whether nothing is held back (TLS may keep what the socket did not take).
pub(crate) fn poll_out(
    stream: &mut pgdog_net::Stream,
    out: &mut Buffer,
    cx: &mut Context<'_>,
) -> io::Result<(bool, bool)> {
    let mut moved = false;
    while !out.is_empty() {
        match stream.poll_write_slice(cx, out.data()) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => {
                out.consume(n);
                moved = true;
            }
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    let flushed = match stream.poll_flush_all(cx) {
        Poll::Ready(result) => result.map(|()| true)?,
        Poll::Pending => false,
    };
    Ok((moved, flushed))
}
