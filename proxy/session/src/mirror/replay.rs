//! The mirror's side: a client that nobody hears, of the destination's pool, says again what the client has said.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pgdog_backend::probe::Reasons;
use pgdog_backend::{CheckoutError, Params, Value};
use pgdog_net::{Peer, Stream};
use tokio::time::Sleep;

use super::queue::Outlet;
use super::{APPLICATION, Counters, GRACE, Transaction};
use crate::active::{Active, Event};
use crate::client::{Client, Ended};
use crate::handle::{ClientKind, Newcomer, Signal};
use crate::registry::Limits;
use crate::runtime::Runtime;
use crate::settle::ASK_TIMEOUT;

/// Why a session is left at once.
const LEAVE: Signal = Signal(Signal::DRAIN.0 | Signal::TERMINATE.0);

/// Repeats the transactions of one client in one other database.
#[derive(Debug)]
pub(super) struct Replay {
    runtime: Arc<Runtime>,
    outlet: Outlet,
    counters: Arc<Counters>,
    user: String,
    /// The database that is the mirror.
    database: String,
    /// Where the client is, for views.
    peer: Peer,
    worker: usize,
    /// The settings of the client's login: what RESET goes back to.
    startup: Arc<Params>,
    /// The last settings of the client, and what the mirror has instead.
    renamed: Option<(Arc<Params>, Arc<Params>)>,
    /// The client has gone: what waits is repeated until then.
    until: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// What comes after a transaction.
enum Next {
    Repeat(Arc<Transaction>),
    /// Somebody wants this session to end. Another one begins with the next transaction.
    Leave,
    End,
}

impl Replay {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        (outlet, counters): (Outlet, Arc<Counters>),
        (user, database): (String, String),
        (peer, worker): (Peer, usize),
        startup: Arc<Params>,
    ) -> Self {
        Self {
            runtime,
            outlet,
            counters,
            user,
            database,
            peer,
            worker,
            startup,
            renamed: None,
            until: None,
            over: false,
        }
    }

    /// Repeats what comes, until the client has gone or the proxy goes.
    pub(super) async fn run(mut self) {
        let mut session: Option<Box<Client>> = None;
        loop {
            let next = match poll_fn(|cx| self.poll_next(session.as_deref(), cx)).await {
                Next::Repeat(next) => next,
                Next::End => break,
                Next::Leave => {
                    if let Some(mut client) = session.take() {
                        let _ = leave(&mut client).await;
                    }
                    continue;
                }
            };
            let Some(mut client) = session.take().or_else(|| self.log_in()) else {
                self.counters.count(|c| &c.errors);
                continue;
            };
            poll_fn(|cx| {
                client.registered.handle.listen(cx.waker());
                Poll::Ready(())
            })
            .await;
            let before = client.registered.handle.counters.errors.get();
            let ended = self.repeat(&mut client, &next).await;
            let failed = client.registered.handle.counters.errors.get() > before;
            if ended.is_err() || failed {
                self.counters.count(|c| &c.errors);
            } else {
                self.counters.count(|c| &c.mirrored);
            }
            if ended.is_ok() {
                session = Some(client);
            }
        }
        if let Some(mut client) = session {
            // A server that it keeps is put into order.
            let _ = leave(&mut client).await;
        }
    }

    fn poll_next(&mut self, session: Option<&Client>, cx: &mut Context<'_>) -> Poll<Next> {
        let told = session.map_or(Signal(0), |s| s.registered.handle.take_signals());
        self.over |= told.has(Signal::DRAIN);
        if self.is_over(cx) {
            return Poll::Ready(Next::End);
        }
        // It idles as long as its client likes: other signals are not heard.
        if told.has(Signal::TERMINATE) {
            return Poll::Ready(Next::Leave);
        }
        let next = self.outlet.poll_next(cx);
        next.map(|next| next.map_or(Next::End, Next::Repeat))
    }

    /// Whether nothing more is to be repeated.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.over && self.outlet.is_left(cx) {
            let until = self
                .until
                .get_or_insert_with(|| Box::pin(pgdog_net::timer::sleep(GRACE)));
            self.over = until.as_mut().poll(cx).is_ready();
        }
        self.over
    }

    /// A session in the mirror's database; `None` when the user has no account there.
    fn log_in(&self) -> Option<Box<Client>> {
        let runtime = &self.runtime;
        // Read before the configuration: what comes later is noticed.
        let generation = runtime.generation();
        let live = runtime.live();
        let account = runtime.account(&live, &self.user, &self.database)?;
        let params = rename(runtime, &self.startup);
        let newcomer = Newcomer {
            identity: &account.identity,
            peer: self.peer,
            kind: ClientKind::Mirror,
            tls: false,
            params: &params,
        };
        let peer_id = live.settings.peer_id;
        let registered = runtime
            .registry
            .register(Limits::default(), &newcomer, runtime.clock.now(), || {
                runtime.cancel_key(peer_id, false)
            })
            .ok()?;
        Some(Box::new(Client {
            stream: Stream::Script(Box::default()),
            watched: live.watches(),
            live,
            id: runtime.next_client(),
            generation,
            runtime: runtime.clone(),
            pool: account.pool.clone(),
            mode: account.pool.mode(),
            account,
            wrote: 0,
            registered,
            worker: self.worker,
            startup: params.clone(),
            params,
            statements: None,
            pinned: None,
            reasons: Reasons::NONE,
            channels: None,
            token: 0,
            counted: false,
            draining: false,
            listening: false,
            early: None,
            tap: None,
        }))
    }

    /// Makes the session what the client's was when the transaction began, and says what the client has said. When it gives
    /// an error the session has ended.
    async fn repeat(
        &mut self,
        client: &mut Client,
        transaction: &Transaction,
    ) -> Result<(), Ended> {
        self.take_over(client, transaction);
        let params = client.params.clone();
        if let Some(server) = &mut client.pinned
            && server.params != params
            && server.set_params(&params, ASK_TIMEOUT).await.is_err()
        {
            return leave(client).await;
        }
        if let Stream::Script(script) = &mut client.stream {
            script.load(transaction.parts.clone());
        }
        while !is_spent(client) {
            if !poll_fn(|cx| self.poll_begin(client, cx)).await {
                return leave(client).await;
            }
            let mut active = Active::take(client);
            loop {
                match poll_fn(|cx| self.poll_active(&mut active, client, cx)).await {
                    Event::Idle => break,
                    event => Box::pin(active.handle(client, event)).await?,
                }
            }
            active.put_back(client);
        }
        Ok(())
    }

    /// The settings and the statements.
    fn take_over(&mut self, client: &mut Client, transaction: &Transaction) {
        let known = self
            .renamed
            .as_ref()
            .filter(|(theirs, _)| Arc::ptr_eq(theirs, &transaction.params))
            .map(|(_, ours)| ours.clone());
        let params = known.unwrap_or_else(|| {
            let ours = rename(&self.runtime, &transaction.params);
            self.renamed = Some((transaction.params.clone(), ours.clone()));
            ours
        });
        if !Arc::ptr_eq(&params, &client.params) {
            client.registered.handle.has_params(&params);
            client.params = params;
        }
        if let Some(unnamed) = &transaction.unnamed {
            let token = client.next_token();
            client.statements().take_over_unnamed(unnamed, token);
        }
        for (name, statement) in &transaction.names {
            match statement {
                Some(statement) => client.statements().set(name, statement.clone()),
                None => client.statements().remove(name),
            }
        }
    }

    /// Ready when there is something to say; `false` when nothing more is to be said.
    fn poll_begin(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Poll<bool> {
        let told = client.registered.handle.take_signals();
        self.over |= told.has(Signal::DRAIN);
        if told.has(LEAVE) || self.is_over(cx) {
            return Poll::Ready(false);
        }
        client.stream.poll_read_ready(cx).map(|_| true)
    }

    /// As [`Active::poll`], where nobody will say any more when the script has ended.
    fn poll_active(
        &mut self,
        active: &mut Active,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        if self.is_over(cx) {
            return Poll::Ready(Event::ClientLeft);
        }
        match active.poll(client, cx) {
            Poll::Ready(Event::Signal(signal)) if signal.has(LEAVE) => {
                self.over |= signal.has(Signal::DRAIN);
                Poll::Ready(Event::ClientLeft)
            }
            // One wait is enough to know that the database is down.
            Poll::Ready(Event::CheckoutFailed(error))
                if !matches!(*error, CheckoutError::Closed) =>
            {
                Poll::Ready(Event::ClientLeft)
            }
            // Something went another way than for the client: what would go on is in no script.
            Poll::Pending if is_spent(client) && active.waits_for_client() => {
                Poll::Ready(Event::ClientLeft)
            }
            polled => polled,
        }
    }
}

/// The same settings under the name of a mirror.
fn rename(runtime: &Runtime, params: &Params) -> Arc<Params> {
    let mut params = params.clone();
    params.set("application_name", Value::Plain(APPLICATION.into()));
    runtime.interner.intern(params)
}

fn is_spent(client: &Client) -> bool {
    matches!(&client.stream, Stream::Script(script) if script.is_spent())
}

/// Leaves between two transactions, or before one.
async fn leave(client: &mut Client) -> Result<(), Ended> {
    let mut active = Active::take(client);
    Box::pin(active.handle(client, Event::ClientLeft)).await
}
