//! The server connections of one user in one database: idle ones, those on loan, and the clients that wait for one.
//!
//! Idle connections lie on a stack per worker, because a connection belongs to the reactor of the worker that opened it;
//! a worker whose stack is empty takes from a neighbour. The last one used is the first to be used again.
//! A connection that is dropped, wherever that happens, frees its place: see [`Permit`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;

use pgdog_config::{PoolSettings, PoolerMode};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::{CheckoutError, ServerError};
use crate::gate::Gate;
use crate::handle::{ServerHandle, ServerState};
use crate::host::HostState;
use crate::listener::Listener;
use crate::login::Target;
use crate::plans::Plans;
use crate::server::Server;
use crate::stats::PoolCounters;
use crate::wait::Waiter;

/// How far the local waiter may be ahead of its turn: moving a connection between workers costs two system calls,
/// so the order of arrival is kept within each worker exactly and between workers up to this many places.
const LOCAL_PREFERENCE: u64 = 32;

/// A connection used within this time, ms, needs no check, unless `healthcheck_interval` is shorter.
const FRESH: u64 = 500;

/// One pool.
#[derive(Debug)]
pub struct Pool {
    /// The user that clients log in as.
    pub user: String,
    /// The database that clients ask for.
    pub database: String,
    /// What has happened to its connections.
    pub stats: PoolStats,
    /// What clients did in it.
    pub counters: PoolCounters,
    pub(crate) clock: Arc<Clock>,
    pub(crate) state: Mutex<State>,
    mode: AtomicU8,
    /// A limit over several pools keeps this one from serving its waiters.
    pub(crate) starved: AtomicBool,
    /// Clients that keep a server outside of a transaction.
    pub pinned: AtomicU32,
    /// A client has asked for sequence values within a transaction: transactions begin without those of other clients.
    pub asks_sequences: AtomicBool,
    /// What has become of statements here.
    pub plans: Plans,
    /// Channels that its clients listen to without a server of their own.
    pub listener: Listener,
    /// Connections of an earlier generation are to a host that has been the primary, and is none any more.
    deposed: AtomicU64,
    /// The host that its servers are on, which hears of failures.
    host: OnceLock<Arc<HostState>>,
}

/// Counters, since the pool was made.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Connections that were opened.
    pub connects: AtomicU64,
    /// Attempts to open one that failed.
    pub connect_errors: AtomicU64,
    /// Clients that had to wait for a connection.
    pub waits: AtomicU64,
    /// Clients that waited in vain.
    pub wait_timeouts: AtomicU64,
    /// Connections that were found broken or closed instead of being reused.
    pub discards: AtomicU64,
}

/// What is behind the pool's lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Arc<PoolSettings>,
    pub(crate) target: Arc<Target>,
    pub(crate) budgets: Vec<Arc<Budget>>,
    /// Whether any of them does more than count.
    limited: bool,
    #[allow(
        clippy::vec_box,
        reason = "connections move by pointer between the stack, waiters and clients"
    )]
    pub(crate) idle: Vec<Vec<Box<Server>>>,
    /// Those that a limit which sank has taken out of use, until their workers close them.
    #[allow(clippy::vec_box, reason = "as above")]
    pub(crate) leaving: Vec<Vec<Box<Server>>>,
    pub(crate) waiting: Vec<VecDeque<Arc<Waiter>>>,
    pub(crate) waiters: usize,
    /// Connections open or being opened.
    pub(crate) total: u32,
    pub(crate) connecting: u32,
    /// Those of `total` that were told to go and have not gone yet.
    closing: u32,
    ticket: u64,
    pub(crate) generation: u64,
    pub(crate) gate: Gate,
    /// Coarse time when clients were last let through again, ms: what they waited before does not count against them.
    pub(crate) resumed: u64,
    pub(crate) last_error: Option<ServerError>,
    pub(crate) failures: u32,
    pub(crate) retry_at: u64,
    /// The connections, for views; those that are gone are taken out now and then.
    servers: Vec<Weak<ServerHandle>>,
    /// The host that counts connections on loan: where there are several to choose among.
    counted: Option<Arc<HostState>>,
}

/// A place in a pool (and in the limits above it) that a connection takes; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    pub(crate) pool: Weak<Pool>,
    pub(crate) budgets: Vec<Arc<Budget>>,
    /// The worker that the connection belongs to.
    pub(crate) worker: usize,
    /// Its connection has been told to go.
    going: bool,
    /// The host that counts its connection while that is on loan.
    host: Option<Arc<HostState>>,
    lent: bool,
}

impl Permit {
    /// A place that was taken in `pool` and in `budgets`.
    pub(crate) fn new(pool: &Arc<Pool>, budgets: Vec<Arc<Budget>>, worker: usize) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            budgets,
            worker,
            going: false,
            host: None,
            lent: false,
        }
    }

    /// Its connection has been told to go: the place is taken until it has gone, and counts for nothing else.
    pub(crate) fn going(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            self.going_from(&mut pool.lock());
        }
    }

    fn going_from(&mut self, state: &mut State) {
        if !std::mem::replace(&mut self.going, true) {
            state.closing += 1;
            self.budgets.iter().for_each(|budget| budget.going(true));
        }
        self.take_back();
    }

    /// Whether a limit stands above it that another connection in its place might break for a moment.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.budgets.iter().any(|budget| budget.limits())
    }

    /// Its connection is on loan from now on.
    #[inline]
    fn lend(&mut self, host: &Arc<HostState>) {
        if !std::mem::replace(&mut self.lent, true) {
            let host = self.host.get_or_insert_with(|| host.clone());
            host.active.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody has its connection any more.
    #[inline]
    fn take_back(&mut self) {
        if std::mem::take(&mut self.lent)
            && let Some(host) = &self.host
        {
            host.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.take_back();
        for budget in &self.budgets {
            budget.release();
            // Only then: nobody takes it for one that stays and is too many.
            if self.going {
                budget.going(false);
            }
        }
        if let Some(pool) = self.pool.upgrade() {
            {
                let mut state = pool.lock();
                state.total -= 1;
                state.closing -= u32::from(self.going);
            }
            for budget in &self.budgets {
                budget.wake_starved(&pool, self.worker);
            }
            pool.grow_soon(self.worker);
        }
    }
}

/// Figures of a pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolFigures {
    /// Connections that wait for use.
    pub idle: u32,
    /// Connections on loan.
    pub active: u32,
    /// Connections being opened.
    pub connecting: u32,
    /// Clients that wait.
    pub waiting: u32,
    /// Clients that keep a connection outside of a transaction.
    pub pinned: u32,
}

impl Pool {
    /// A pool that opens connections to `target` when they are asked for.
    #[must_use]
    pub fn new(
        settings: Arc<PoolSettings>,
        target: Arc<Target>,
        budgets: Vec<Arc<Budget>>,
        workers: usize,
        clock: Arc<Clock>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            user: settings.user.clone(),
            database: settings.database.clone(),
            stats: PoolStats::default(),
            counters: PoolCounters::new(workers),
            clock,
            mode: AtomicU8::new(settings.mode as u8),
            starved: AtomicBool::new(false),
            pinned: AtomicU32::new(0),
            asks_sequences: AtomicBool::new(false),
            deposed: AtomicU64::new(0),
            plans: Plans::default(),
            listener: Listener::default(),
            host: OnceLock::new(),
            state: Mutex::new(State {
                settings,
                target,
                budgets: budgets.clone(),
                limited: false,
                idle: (0..workers).map(|_| Vec::new()).collect(),
                leaving: (0..workers).map(|_| Vec::new()).collect(),
                waiting: (0..workers).map(|_| VecDeque::new()).collect(),
                waiters: 0,
                total: 0,
                connecting: 0,
                closing: 0,
                ticket: 0,
                generation: 0,
                gate: Gate::default(),
                resumed: 0,
                last_error: None,
                failures: 0,
                retry_at: 0,
                servers: Vec::new(),
                counted: None,
            }),
        });
        for budget in budgets {
            budget.join(&pool);
        }
        pool.mind_limits();
        pool
    }

    /// Finds out which of the limits above it do more than count, and takes idle connections out of use that are too many; their
    /// workers close them. After it has joined the limits: so none is set unnoticed.
    pub(crate) fn mind_limits(&self) {
        let mut state = self.lock();
        state.limited = state.budgets.iter().any(|budget| budget.limits());
        for worker in 0..state.idle.len() {
            let surplus = state.surplus(worker);
            state.leaving[worker].extend(surplus);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it the host that its servers are on; where that is one of several, connections on loan are counted there.
    pub(crate) fn attach(&self, host: &Arc<HostState>, one_of_many: bool) {
        // A pool never moves to another host.
        let _ = self.host.set(host.clone());
        self.lock().counted = one_of_many.then(|| host.clone());
    }

    /// The host that its servers are on.
    #[must_use]
    pub fn host(&self) -> Option<&Arc<HostState>> {
        self.host.get()
    }

    /// The budget of its host: the last one, after those that its settings name.
    #[must_use]
    pub fn host_budget(&self) -> Option<Arc<Budget>> {
        self.lock().budgets.last().cloned()
    }

    /// Its host answers again: what has failed before does not keep clients from trying.
    pub fn forgive(&self) {
        let mut state = self.lock();
        let passing = |e: &ServerError| !e.is_permanent() && !crate::host::is_full(e);
        if state.last_error.as_ref().is_some_and(passing) {
            state.failures = 0;
            state.retry_at = 0;
            state.last_error = None;
        }
    }

    /// Tells the host that a connection to it could not be had or was lost.
    pub(crate) fn tell_failure(&self, error: &ServerError) {
        if let Some(host) = self.host.get() {
            host.failed(error);
        }
    }

    /// When servers of those who log in now go back to the pool.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> PoolerMode {
        match self.mode.load(Ordering::Relaxed) {
            m if m == PoolerMode::Session as u8 => PoolerMode::Session,
            m if m == PoolerMode::Statement as u8 => PoolerMode::Statement,
            _ => PoolerMode::Transaction,
        }
    }

    /// Its settings now.
    #[must_use]
    pub fn settings(&self) -> Arc<PoolSettings> {
        self.lock().settings.clone()
    }

    /// How its servers are reached, for cancel requests.
    #[must_use]
    pub fn target(&self) -> Arc<Target> {
        self.lock().target.clone()
    }

    /// New sizes and timeouts for the same servers; connections stay.
    pub fn configure(
        self: &Arc<Self>,
        settings: Arc<PoolSettings>,
        target: Arc<Target>,
        budgets: &[Arc<Budget>],
    ) {
        if self.mode.swap(settings.mode as u8, Ordering::Relaxed) != settings.mode as u8 {
            // Sessions of one mode begin otherwise than those of another. Clients that are here keep their mode, and the servers of
            // their own.
            self.reconnect();
        }
        for budget in budgets {
            budget.join(self);
        }
        let mut state = self.lock();
        state.settings = settings;
        state.target = target;
        state.budgets = budgets.to_vec();
        state.limited = budgets.iter().any(|budget| budget.limits());
        // What has failed may succeed now.
        state.failures = 0;
        state.retry_at = 0;
        state.last_error = None;
    }

    /// Figures at this moment.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let state = self.lock();
        let idle = state.idle.iter().map(Vec::len).sum::<usize>() as u32;
        PoolFigures {
            idle,
            active: state.staying().saturating_sub(idle + state.connecting),
            connecting: state.connecting,
            waiting: state.waiters as u32,
            pinned: self.pinned.load(Ordering::Relaxed),
        }
    }

    /// Makes a new connection known to those who look at the pool.
    pub fn list(&self, server: &mut Server) {
        let pid = server.key.as_ref().map_or(0, |k| k.pid);
        let mut handle = ServerHandle::new(pid, server.address.clone(), self.clock.now());
        handle.tls = server.stream.is_tls();
        handle.generation = server.generation;
        handle.prepared = server.prepared.shared_count();
        server.handle = Arc::new(handle);
        let mut state = self.lock();
        if state.servers.len() >= 2 * state.total.max(8) as usize {
            state.servers.retain(|s| s.strong_count() > 0);
        }
        state.servers.push(Arc::downgrade(&server.handle));
    }

    /// Its connections.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<ServerHandle>> {
        self.lock()
            .servers
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Since when the client that waits for longest waits, coarse ms.
    #[must_use]
    pub fn oldest_wait(&self) -> Option<u64> {
        self.lock().oldest_wait()
    }

    /// Takes an idle connection that is ready for use, when there is one and nobody was here before.
    /// `None`: [`Pool::wait`] for one.
    #[inline]
    pub fn take(self: &Arc<Self>, worker: usize, cx: &mut Context<'_>) -> Option<Box<Server>> {
        loop {
            let mut server = {
                let mut state = self.lock();
                if state.waiters > 0 || state.gate.shut() {
                    return None;
                }
                let now = self.clock.now();
                let check_before = state
                    .settings
                    .healthcheck_interval
                    .map(|i| now.saturating_sub(i.as_millis() as u64));
                let top = state.idle[worker].last()?;
                if check_before.is_some_and(|before| top.used <= before && now != top.used) {
                    return None;
                }
                let mut server = state.idle[worker].pop()?;
                state.lend(&mut server);
                server
            };
            if server.still_idle(cx) && server.expires.is_none_or(|at| at > self.clock.now()) {
                return Some(server);
            }
            self.stats.discards.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues up for a connection.
    #[must_use]
    pub fn wait(self: &Arc<Self>, worker: usize) -> Waiting {
        let waiter = {
            let mut state = self.lock();
            if state.gate.has(Gate::CLOSED) {
                return Waiting {
                    pool: self.clone(),
                    waiter: Waiter::failed(CheckoutError::Closed),
                };
            }
            if let Some(error) = state.known_in_vain(self.clock.now()) {
                return Waiting {
                    pool: self.clone(),
                    waiter: Waiter::failed(CheckoutError::Server(error)),
                };
            }
            state.ticket += 1;
            let waiter = Waiter::new(state.ticket, worker, self.clock.now());
            // An idle one of a neighbour, or one that needs a check first, is as good as a free one.
            let idle = (0..state.idle.len())
                .map(|i| (worker + i) % state.idle.len())
                .find(|&w| !state.idle[w].is_empty());
            if state.waiters == 0
                && !state.gate.shut()
                && let Some(owner) = idle
                && let Some(mut server) = state.idle[owner].pop()
            {
                state.lend(&mut server);
                drop(state);
                if waiter.grant(server).is_err() {
                    unreachable!("nobody else knows the waiter yet");
                }
                return Waiting {
                    pool: self.clone(),
                    waiter,
                };
            }
            state.waiting[worker].push_back(waiter.clone());
            state.waiters += 1;
            waiter
        };
        self.stats.waits.fetch_add(1, Ordering::Relaxed);
        self.grow(worker);
        Waiting {
            pool: self.clone(),
            waiter,
        }
    }

    /// Whether a connection was in use a moment ago, so that it needs no check.
    #[must_use]
    pub fn is_fresh(&self, server: &Server) -> bool {
        let now = self.clock.now();
        let interval = self.lock().settings.healthcheck_interval;
        let limit = interval.map_or(FRESH, |i| FRESH.min(i.as_millis() as u64));
        now == server.used || now.saturating_sub(server.used) < limit
    }

    /// Gives a connection back. It must be at rest, and nobody's: the next client gets it as it is.
    #[inline]
    pub fn release(self: &Arc<Self>, mut server: Box<Server>) {
        debug_assert!(server.owed.at_rest() && !server.tainted);
        server.notifications.clear();
        let mut state = self.lock();
        server.used = self.clock.now();
        server.handle.does(ServerState::Idle, 0, server.used);
        let surplus = state.staying() > state.settings.size && state.waiters == 0;
        let spent = state.gate.keeps_none()
            || surplus
            || server.generation != state.generation
            || server.expires.is_some_and(|at| at <= server.used);
        let owes = |b: &Arc<Budget>| b.owes(state.staying(), server.used, server.handle.opened);
        if spent || state.limited && state.budgets.iter().any(owes) {
            // Counted out under the same lock: of two that come back at once, only one is above the size.
            if let Some(permit) = &mut server.permit {
                permit.going_from(&mut state);
            }
            drop(state);
            server.close();
            return;
        }
        while let Some(waiter) = state.next_waiter(server.worker) {
            state.lend(&mut server);
            match waiter.grant(server) {
                Ok(()) => return,
                Err(back) => server = back,
            }
        }
        if let Some(permit) = &mut server.permit {
            permit.take_back();
        }
        let worker = server.worker;
        state.idle[worker].push(server);
    }

    /// Fails all waiters: nothing will come.
    pub(crate) fn fail_waiters(&self, error: &CheckoutError) {
        let waiters: Vec<_> = {
            let mut state = self.lock();
            state.waiters = 0;
            state.waiting.iter_mut().flat_map(std::mem::take).collect()
        };
        for waiter in waiters {
            waiter.fail(error.clone());
        }
    }

    /// Takes the pool out of use: idle connections are closed, those on loan when they come back.
    pub fn close(&self) {
        let idle: Vec<_> = {
            let mut state = self.lock();
            state.gate.put(Gate::CLOSED, true);
            let State { idle, leaving, .. } = &mut *state;
            let all = idle.iter_mut().chain(leaving);
            all.flat_map(std::mem::take).collect()
        };
        self.fail_waiters(&CheckoutError::Closed);
        self.listener.close();
        idle.into_iter().for_each(|s| s.close());
    }

    /// Closes all idle connections now and those on loan when they come back; new ones take their place.
    pub fn reconnect(&self) {
        let idle: Vec<_> = {
            let mut state = self.lock();
            state.generation += 1;
            state.idle.iter_mut().flat_map(std::mem::take).collect()
        };
        self.listener.reconnect();
        idle.into_iter().for_each(|s| s.close());
    }

    /// Its host is the primary no more: as [`Pool::reconnect`], and clients that keep a connection are to let it go.
    pub(crate) fn depose(&self) {
        self.reconnect();
        self.deposed.store(self.generation(), Ordering::Release);
    }

    /// Whether a connection was made while its host was the primary, which it is no more.
    #[inline]
    #[must_use]
    pub fn is_deposed(&self, server: &Server) -> bool {
        server.generation < self.deposed.load(Ordering::Acquire)
    }

    /// Closes the connection idle for longest, so that another pool under the same limit may open one.
    pub(crate) fn evict_idle(&self) -> bool {
        let evicted = {
            let mut state = self.lock();
            let oldest = state
                .idle
                .iter()
                .enumerate()
                .filter_map(|(w, s)| s.first().map(|s| (s.used, w)))
                .min();
            oldest.map(|(_, worker)| {
                let server = state.idle[worker].remove(0);
                state.sent_away(server)
            })
        };
        evicted.map(|s| s.close()).is_some()
    }
}

impl State {
    /// Whether there are other hosts to choose.
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.counted.is_some()
    }

    /// Since when the client that waits for longest waits, coarse ms.
    pub(crate) fn oldest_wait(&self) -> Option<u64> {
        let fronts = self.waiting.iter().filter_map(|q| q.front());
        fronts.map(|w| w.since).min()
    }

    /// A connection that is about to be closed: it counts among those that are going.
    fn sent_away(&mut self, mut server: Box<Server>) -> Box<Server> {
        if let Some(permit) = &mut server.permit {
            permit.going_from(self);
        }
        server
    }

    /// Takes out idle connections of a worker that are too many for a limit that sank.
    #[allow(clippy::vec_box, reason = "as the pool keeps them")]
    pub(crate) fn surplus(&mut self, worker: usize) -> Vec<Box<Server>> {
        let mut surplus = Vec::new();
        while self.limited
            && !self.idle[worker].is_empty()
            && self.budgets.iter().any(|budget| budget.is_over())
        {
            let server = self.idle[worker].remove(0);
            surplus.push(self.sent_away(server));
        }
        surplus
    }

    /// Connections open or being opened, without those that are going.
    pub(crate) fn staying(&self) -> u32 {
        self.total.saturating_sub(self.closing)
    }

    /// Counts a connection as on loan, where somebody counts.
    #[inline]
    fn lend(&self, server: &mut Server) {
        if let Some(host) = &self.counted
            && let Some(permit) = &mut server.permit
        {
            permit.lend(host);
        }
    }

    /// A waiter and an idle connection for it, as long as there are both.
    pub(crate) fn next_served(&mut self) -> Option<(Arc<Waiter>, Box<Server>)> {
        let worker = self.idle.iter().position(|s| !s.is_empty())?;
        let waiter = self.next_waiter(worker)?;
        let mut server = self.idle[worker].pop()?;
        self.lend(&mut server);
        Some((waiter, server))
    }

    /// The waiter whose turn it is, given the worker that the connection belongs to.
    fn next_waiter(&mut self, worker: usize) -> Option<Arc<Waiter>> {
        if self.waiters == 0 || self.gate.shut() {
            return None;
        }
        let ticket = |q: &VecDeque<Arc<Waiter>>| q.front().map(|w| w.ticket);
        let (oldest, owner) = self
            .waiting
            .iter()
            .enumerate()
            .filter_map(|(i, q)| Some((ticket(q)?, i)))
            .min()?;
        let local = ticket(&self.waiting[worker]).is_some_and(|t| t - oldest <= LOCAL_PREFERENCE);
        let waiter = self.waiting[if local { worker } else { owner }].pop_front();
        self.waiters -= usize::from(waiter.is_some());
        waiter
    }
}

/// A place in the queue. Dropping it leaves the queue, and gives a connection back that came too late.
#[derive(Debug)]
pub struct Waiting {
    pool: Arc<Pool>,
    waiter: Arc<Waiter>,
}

impl Waiting {
    /// Ready with a connection, which may still need [`Pool::prepare`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`CheckoutError`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> std::task::Poll<Result<Box<Server>, CheckoutError>> {
        self.waiter.poll(cx)
    }

    /// Coarse time since when it waits, ms.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.waiter.since
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match self.waiter.leave() {
            crate::wait::Left::Waiting => {
                let mut state = self.pool.lock();
                let queue = &mut state.waiting[self.waiter.worker];
                let before = queue.len();
                queue.retain(|w| !Arc::ptr_eq(w, &self.waiter));
                let gone = before - queue.len();
                state.waiters -= gone;
            }
            crate::wait::Left::With(server) => {
                if server.owed.at_rest() && !server.tainted {
                    self.pool.release(server);
                }
            }
            crate::wait::Left::Done => {}
        }
    }
}

impl Pool {
    /// Makes a connection from the queue fit for this worker: moves it here, and checks it when it has not been used for
    /// `healthcheck_interval`. `None`: it was no good, try again. Not cancel safe (the connection is lost, its place is not).
    pub async fn prepare(&self, mut server: Box<Server>, worker: usize) -> Option<Box<Server>> {
        let idle = std::future::poll_fn(|cx| std::task::Poll::Ready(server.still_idle(cx))).await;
        if !idle || server.expires.is_some_and(|at| at <= self.clock.now()) {
            self.stats.discards.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if server.worker != worker {
            server = server.moved_to(worker)?;
            // What has come meanwhile shows when this worker's reactor has looked, which it does before a task that yields.
            tokio::task::yield_now().await;
            if !std::future::poll_fn(|cx| std::task::Poll::Ready(server.still_idle(cx))).await {
                self.stats.discards.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        let (interval, timeout) = {
            let state = self.lock();
            (
                state.settings.healthcheck_interval,
                state.settings.healthcheck_timeout,
            )
        };
        let now = self.clock.now();
        if interval.is_some_and(|i| {
            Duration::from_millis(now.saturating_sub(server.used)) >= i && now != server.used
        }) {
            if let Err(error) = server.query(";", timeout).await {
                self.tell_failure(&error);
                self.stats.discards.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            server.used = now;
        }
        Some(server)
    }
}
