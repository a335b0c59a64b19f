//! What the rest of the process sees of a client, and how it speaks to it: a few bits and a wake-up.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use pgdog_backend::Params;
use pgdog_backend::stats::Count;
use pgdog_net::Peer;
use pgdog_wire::startup::CancelKey;

/// What a client may be told. Bits, because several may come before it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u32);

impl Signal {
    /// Cancel the running query.
    pub const CANCEL: Self = Self(1);
    /// Leave with the next answer that ends a transaction, or when idle for a moment: the proxy shuts down.
    pub const DRAIN: Self = Self(1 << 1);
    /// Leave now: the proxy has waited long enough.
    pub const TERMINATE: Self = Self(1 << 2);
    /// Idle for too long.
    pub const IDLE_TIMEOUT: Self = Self(1 << 3);
    /// Idle in a transaction for too long.
    pub const IDLE_IN_TRANSACTION_TIMEOUT: Self = Self(1 << 4);
    /// A query takes too long.
    pub const QUERY_TIMEOUT: Self = Self(1 << 5);
    /// A transaction takes too long.
    pub const TRANSACTION_TIMEOUT: Self = Self(1 << 6);
    /// Look at the configuration again.
    pub const CONFIG: Self = Self(1 << 7);
    /// There are notifications. Heeded when idle, and left in its place until then.
    pub const NOTIFIED: Self = Self(1 << 8);
    /// A host of its database has come or gone, or is something else now.
    pub const HOSTS: Self = Self(1 << 9);

    /// Whether any of `other` is in it.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a client is doing, for timeouts and views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Waits for its user.
    Idle = 0,
    /// A query runs.
    Active = 1,
    /// Waits for its user within a transaction.
    IdleInTransaction = 2,
    /// Waits for a server connection.
    Waiting = 3,
}

/// Who a client is: shared by all clients of one user in one database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The user that it logged in as.
    pub user: String,
    /// The database that it asked for.
    pub database: String,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Queries, over the pool.
    Normal,
    /// A replication connection, with a server of its own.
    Replication,
    /// Nobody: it repeats what a client of another database does.
    Mirror,
    /// The admin console.
    Admin,
}

/// What a client has done since it logged in. Written by its own task only.
#[derive(Debug, Default)]
pub struct ClientCounters {
    /// Transactions that ended.
    pub transactions: Count,
    /// Queries that were answered.
    pub queries: Count,
    /// Errors that it was told.
    pub errors: Count,
    /// Bytes from it.
    pub received: Count,
    /// Bytes to it.
    pub sent: Count,
    /// Time that it waited for server connections, ns.
    pub wait_time: Count,
    /// Time in which its queries ran, ns.
    pub query_time: Count,
    /// Time of its transactions, ns.
    pub transaction_time: Count,
}

/// What is known of a client when it logs in.
#[derive(Debug)]
pub struct Newcomer<'a> {
    /// Who it is.
    pub identity: &'a Arc<Identity>,
    /// Where it is.
    pub peer: Peer,
    /// What its connection is for.
    pub kind: ClientKind,
    /// Whether its connection is encrypted.
    pub tls: bool,
    /// The settings that it gave.
    pub params: &'a Arc<Params>,
}

/// One client, as others see it.
#[derive(Debug)]
pub struct ClientHandle {
    /// Its number; also the process id in its cancel key.
    pub pid: u32,
    /// The rest of its cancel key.
    pub secret: Box<[u8]>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Where it is.
    pub peer: Peer,
    /// What its connection is for.
    pub kind: ClientKind,
    /// Whether its connection is encrypted.
    pub tls: bool,
    /// Coarse time when it logged in, ms.
    pub connected: u64,
    /// What it has done.
    pub counters: ClientCounters,
    /// Prepared statements that it has.
    pub prepared: AtomicU32,
    pinned: AtomicBool,
    params: Mutex<Arc<Params>>,
    signals: AtomicU32,
    waker: Mutex<Option<Waker>>,
    doing: AtomicU8,
    /// Coarse time since when it does so, ms.
    since: AtomicU64,
    /// Coarse time since when it is in a transaction, ms; 0 outside of one.
    transaction_since: AtomicU64,
}

impl ClientHandle {
    /// A client with this cancel key.
    #[must_use]
    pub fn new(key: CancelKey, newcomer: &Newcomer<'_>, now: u64) -> Self {
        Self {
            pid: key.pid,
            secret: key.secret.into(),
            identity: newcomer.identity.clone(),
            peer: newcomer.peer,
            kind: newcomer.kind,
            tls: newcomer.tls,
            connected: now,
            counters: ClientCounters::default(),
            prepared: AtomicU32::new(0),
            pinned: AtomicBool::new(false),
            params: Mutex::new(newcomer.params.clone()),
            signals: AtomicU32::new(0),
            waker: Mutex::new(None),
            doing: AtomicU8::new(Doing::Idle as u8),
            since: AtomicU64::new(now),
            transaction_since: AtomicU64::new(0),
        }
    }

    /// Notes the settings that its session has now.
    pub fn has_params(&self, params: &Arc<Params>) {
        *self.params.lock().unwrap_or_else(PoisonError::into_inner) = params.clone();
    }

    /// The settings of its session.
    #[must_use]
    pub fn params(&self) -> Arc<Params> {
        self.params
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes whether it keeps a server outside of transactions.
    pub fn is_pinned_now(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// Whether it keeps a server outside of transactions.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Tells the client something.
    pub fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal.0, Ordering::AcqRel);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// What it was told since the last look. One load when there is nothing.
    #[inline]
    #[must_use]
    pub fn take_signals(&self) -> Signal {
        if self.signals.load(Ordering::Acquire) == 0 {
            return Signal(0);
        }
        Signal(self.signals.swap(0, Ordering::AcqRel))
    }

    /// Whether it was told anything that does not wait until it is idle.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.signals.load(Ordering::Acquire) & !Signal::NOTIFIED.0 != 0
    }

    /// As [`ClientHandle::take_signals`], without what waits until the client is idle.
    #[inline]
    #[must_use]
    pub fn take_urgent(&self) -> Signal {
        if self.signals.load(Ordering::Acquire) == 0 {
            return Signal(0);
        }
        let all = self.signals.fetch_and(Signal::NOTIFIED.0, Ordering::AcqRel);
        Signal(all & !Signal::NOTIFIED.0)
    }

    /// Whom to wake; once for each task.
    pub fn listen(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// Notes what it does from now on.
    #[inline]
    pub fn does(&self, doing: Doing, now: u64) {
        self.doing.store(doing as u8, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// Notes when its transaction began, or that it has none.
    #[inline]
    pub fn in_transaction(&self, since: Option<u64>) {
        self.transaction_since
            .store(since.unwrap_or(0), Ordering::Relaxed);
    }

    /// What it does, and since when.
    #[must_use]
    pub fn doing(&self) -> (Doing, u64) {
        let doing = match self.doing.load(Ordering::Relaxed) {
            1 => Doing::Active,
            2 => Doing::IdleInTransaction,
            3 => Doing::Waiting,
            _ => Doing::Idle,
        };
        (doing, self.since.load(Ordering::Relaxed))
    }

    /// Since when it is in a transaction.
    #[must_use]
    pub fn transaction_since(&self) -> Option<u64> {
        Some(self.transaction_since.load(Ordering::Relaxed)).filter(|t| *t > 0)
    }
}
