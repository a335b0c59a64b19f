//! What the rest of the process sees of a client, and how it speaks to it: a few bits and a wake-up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use pgdog_wire::startup::CancelKey;

/// What a client may be told. Bits, because several may come before it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u32);

impl Signal {
    /// Cancel the running query.
    pub const CANCEL: Self = Self(1);
    /// Leave when outside of a transaction: the proxy shuts down.
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

/// One client, as others see it.
#[derive(Debug)]
pub struct ClientHandle {
    /// Its number; also the process id in its cancel key.
    pub pid: u32,
    /// The rest of its cancel key.
    pub secret: Box<[u8]>,
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
    pub fn new(key: CancelKey, now: u64) -> Self {
        Self {
            pid: key.pid,
            secret: key.secret.into(),
            signals: AtomicU32::new(0),
            waker: Mutex::new(None),
            doing: AtomicU8::new(Doing::Idle as u8),
            since: AtomicU64::new(now),
            transaction_since: AtomicU64::new(0),
        }
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

/// All clients of the process, by the process id in their cancel keys.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<HashMap<u32, Arc<ClientHandle>>>,
    counts: Mutex<HashMap<Who, u32>>,
    total: AtomicU32,
    draining: AtomicBool,
}

/// Whose clients are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// All of one user.
    User(Box<str>),
    /// All of one database.
    Database(Box<str>),
}

/// A client's place in the registry; dropping it takes the client out.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    /// The client.
    pub handle: Arc<ClientHandle>,
    counted: Box<[Who; 2]>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.total.fetch_sub(1, Ordering::AcqRel);
        self.registry.clients().remove(&self.handle.pid);
        let mut counts = self
            .registry
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for who in self.counted.iter() {
            if let Some(count) = counts.get_mut(who) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(who);
                }
            }
        }
    }
}

/// Which limit a client would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitHit {
    /// `max_client_conn`.
    Process,
    /// `max_user_client_connections`.
    User,
    /// `max_db_client_connections`.
    Database,
}

impl Registry {
    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<ClientHandle>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a logged-in client in, under a fresh cancel key made by `key`, unless it would be one too many.
    ///
    /// # Errors
    ///
    /// The limit that stands against it.
    pub fn register(
        self: &Arc<Self>,
        limit: Option<u32>,
        (user, user_limit): (&str, Option<u32>),
        (database, database_limit): (&str, Option<u32>),
        now: u64,
        mut key: impl FnMut() -> CancelKey,
    ) -> Result<Registered, LimitHit> {
        let counted = Box::new([Who::User(user.into()), Who::Database(database.into())]);
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if limit.is_some_and(|limit| self.len() >= limit) {
                return Err(LimitHit::Process);
            }
            for (who, limit, hit) in [
                (&counted[0], user_limit, LimitHit::User),
                (&counted[1], database_limit, LimitHit::Database),
            ] {
                if limit.is_some_and(|limit| counts.get(who).copied().unwrap_or(0) >= limit) {
                    return Err(hit);
                }
            }
            for who in counted.iter() {
                *counts.entry(who.clone()).or_default() += 1;
            }
            self.total.fetch_add(1, Ordering::AcqRel);
        }
        let mut clients = self.clients();
        let handle = loop {
            let key = key();
            if !clients.contains_key(&key.pid) {
                break Arc::new(ClientHandle::new(key, now));
            }
        };
        clients.insert(handle.pid, handle.clone());
        drop(clients);
        if self.draining.load(Ordering::Acquire) {
            handle.signal(Signal::DRAIN);
        }
        Ok(Registered {
            registry: self.clone(),
            handle,
            counted,
        })
    }

    /// Clients logged in.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.total.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes a cancel request on. Says whether the key was right; its time does not.
    pub fn cancel(&self, key: &CancelKey) -> bool {
        let found = self.clients().get(&key.pid).cloned();
        let Some(handle) = found else { return false };
        let equal = handle.secret.len() == key.secret.len()
            && handle
                .secret
                .iter()
                .zip(&key.secret)
                .fold(0, |d, (a, b)| d | (a ^ b))
                == 0;
        if equal {
            handle.signal(Signal::CANCEL);
        }
        equal
    }

    /// Tells all clients something, and those to come when it is [`Signal::DRAIN`].
    pub fn signal_all(&self, signal: Signal) {
        if signal.has(Signal::DRAIN) {
            self.draining.store(true, Ordering::Release);
        }
        for handle in self.all() {
            handle.signal(signal);
        }
    }

    /// All clients.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ClientHandle>> {
        self.clients().values().cloned().collect()
    }

    /// Whether the proxy shuts down.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl FnMut() -> CancelKey {
        let mut pid = 0;
        move || {
            pid += 1;
            CancelKey {
                pid,
                secret: vec![1, 2, 3, 4],
            }
        }
    }

    #[test]
    fn only_the_right_key_cancels() {
        let registry = Arc::new(Registry::default());
        let client = registry
            .register(None, ("u", None), ("d", None), 1, keys())
            .unwrap();
        assert!(!registry.cancel(&CancelKey {
            pid: 1,
            secret: vec![1, 2, 3, 5]
        }));
        assert!(!registry.cancel(&CancelKey {
            pid: 1,
            secret: vec![1, 2, 3]
        }));
        assert_eq!(client.handle.take_signals(), Signal(0));
        assert!(registry.cancel(&CancelKey {
            pid: 1,
            secret: vec![1, 2, 3, 4]
        }));
        assert_eq!(client.handle.take_signals(), Signal::CANCEL);
    }

    #[test]
    fn limits_count_those_who_are_there() {
        let registry = Arc::new(Registry::default());
        let mut key = keys();
        let first = registry
            .register(None, ("u", Some(1)), ("d", None), 1, &mut key)
            .unwrap();
        assert_eq!(
            registry
                .register(Some(1), ("v", None), ("d", None), 1, &mut key)
                .unwrap_err(),
            LimitHit::Process
        );
        assert_eq!(
            registry
                .register(None, ("u", Some(1)), ("d", None), 1, &mut key)
                .unwrap_err(),
            LimitHit::User
        );
        assert_eq!(
            registry
                .register(None, ("v", Some(1)), ("d", Some(1)), 1, &mut key)
                .unwrap_err(),
            LimitHit::Database
        );
        drop(first);
        assert!(registry.is_empty());
        assert!(
            registry
                .register(None, ("u", Some(1)), ("d", Some(1)), 1, &mut key)
                .is_ok()
        );
    }
}
