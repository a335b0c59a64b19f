//! All clients of the process: found by their cancel keys, counted against limits, told to go. Mirrors of clients are here
//! too, but count nowhere, and no drain waits for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgdog_wire::startup::CancelKey;

use crate::handle::{ClientHandle, ClientKind, Identity, Newcomer, Signal};

/// All clients of the process, by the process id in their cancel keys.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<HashMap<u32, Arc<ClientHandle>>>,
    counts: Mutex<Counts>,
    total: AtomicU32,
    /// Those of `total` that are on the admin console.
    consoles: AtomicU32,
    draining: AtomicBool,
}

/// How many clients there are of each user and of each database.
#[derive(Debug, Default)]
struct Counts {
    users: HashMap<String, u32>,
    databases: HashMap<String, u32>,
}

impl Counts {
    fn leave(counts: &mut HashMap<String, u32>, of: &str) {
        if let Some(count) = counts.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(of);
            }
        }
    }
}

/// A client's place in the registry; dropping it takes the client out.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    /// The client.
    pub handle: Arc<ClientHandle>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let identity = &self.handle.identity;
        self.registry.clients().remove(&self.handle.pid);
        if self.handle.kind == ClientKind::Mirror {
            return;
        }
        self.registry.total.fetch_sub(1, Ordering::AcqRel);
        if self.handle.kind == ClientKind::Admin {
            self.registry.consoles.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let mut counts = self.registry.counts();
        Counts::leave(&mut counts.users, &identity.user);
        Counts::leave(&mut counts.databases, &identity.database);
    }
}

/// How many clients there may be at once; `None` means any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of the whole process: `max_client_conn`.
    pub process: Option<u32>,
    /// Of the user: `max_user_client_connections`.
    pub user: Option<u32>,
    /// Of the database: `max_db_client_connections`.
    pub database: Option<u32>,
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
    fn clients(&self) -> MutexGuard<'_, HashMap<u32, Arc<ClientHandle>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a logged-in client in, under a fresh cancel key made by `key`, unless it would be one too many. Those on the
    /// admin console count for no limit: somebody must get in when the proxy is full.
    ///
    /// # Errors
    ///
    /// The limit that stands against it.
    pub fn register(
        self: &Arc<Self>,
        limits: Limits,
        newcomer: &Newcomer<'_>,
        now: u64,
        mut key: impl FnMut() -> CancelKey,
    ) -> Result<Registered, LimitHit> {
        let Identity { user, database } = &**newcomer.identity;
        if newcomer.kind == ClientKind::Admin {
            self.consoles.fetch_add(1, Ordering::AcqRel);
            self.total.fetch_add(1, Ordering::AcqRel);
        } else if newcomer.kind != ClientKind::Mirror {
            let mut counts = self.counts();
            let full = |count: Option<&u32>, limit: Option<u32>| {
                limit.is_some_and(|limit| count.copied().unwrap_or(0) >= limit)
            };
            if full(Some(&self.served()), limits.process) {
                return Err(LimitHit::Process);
            }
            if full(counts.users.get(user), limits.user) {
                return Err(LimitHit::User);
            }
            if full(counts.databases.get(database), limits.database) {
                return Err(LimitHit::Database);
            }
            *counts.users.entry(user.clone()).or_default() += 1;
            *counts.databases.entry(database.clone()).or_default() += 1;
            self.total.fetch_add(1, Ordering::AcqRel);
        }
        let mut clients = self.clients();
        let handle = loop {
            let key = key();
            if !clients.contains_key(&key.pid) {
                break Arc::new(ClientHandle::new(key, newcomer, now));
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
        })
    }

    /// The client with this process id.
    #[must_use]
    pub fn find(&self, pid: u32) -> Option<Arc<ClientHandle>> {
        self.clients().get(&pid).cloned()
    }

    /// Clients logged in.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.total.load(Ordering::Acquire)
    }

    /// Clients logged in, without those on the admin console.
    #[must_use]
    pub fn served(&self) -> u32 {
        let consoles = self.consoles.load(Ordering::Acquire);
        self.len().saturating_sub(consoles)
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
            self.close();
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

    /// From now on nobody else is let in.
    pub fn close(&self) {
        self.draining.store(true, Ordering::Release);
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

    fn register(
        registry: &Arc<Registry>,
        limits: Limits,
        user: &str,
        key: impl FnMut() -> CancelKey,
    ) -> Result<Registered, LimitHit> {
        let kind = ClientKind::Normal;
        register_as(registry, limits, user, kind, key)
    }

    fn register_as(
        registry: &Arc<Registry>,
        limits: Limits,
        user: &str,
        kind: ClientKind,
        key: impl FnMut() -> CancelKey,
    ) -> Result<Registered, LimitHit> {
        let newcomer = Newcomer {
            identity: &Arc::new(Identity {
                user: user.to_owned(),
                database: "d".to_owned(),
            }),
            peer: pgdog_net::Peer::Unix,
            kind,
            tls: false,
            params: &Arc::default(),
        };
        registry.register(limits, &newcomer, 1, key)
    }

    #[test]
    fn only_the_right_key_cancels() {
        let registry = Arc::new(Registry::default());
        let client = register(&registry, Limits::default(), "u", keys()).unwrap();
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
    fn the_admin_console_is_open_when_the_proxy_is_full() {
        let registry = Arc::new(Registry::default());
        let mut key = keys();
        let one = Limits {
            process: Some(1),
            ..Limits::default()
        };
        let admin = ClientKind::Admin;
        let _first = register_as(&registry, one, "admin", admin, &mut key).unwrap();
        let _client = register(&registry, one, "u", &mut key).unwrap();
        assert_eq!(
            register(&registry, one, "u", &mut key).unwrap_err(),
            LimitHit::Process
        );
        let second = register_as(&registry, one, "admin", admin, &mut key).unwrap();
        assert_eq!((registry.len(), registry.served()), (3, 1));
        drop(second);
        assert_eq!((registry.len(), registry.served()), (2, 1));
    }

    #[test]
    fn limits_count_those_who_are_there() {
        let registry = Arc::new(Registry::default());
        let mut key = keys();
        let limits = |process, user, database| Limits {
            process,
            user,
            database,
        };
        let none = Limits::default();
        let first = register(&registry, none, "u", &mut key).unwrap();
        let process = limits(Some(1), None, None);
        let user = limits(None, Some(1), None);
        let database = limits(None, None, Some(1));
        let mut refused = |limits, name| register(&registry, limits, name, &mut key).unwrap_err();
        assert_eq!(refused(process, "v"), LimitHit::Process);
        assert_eq!(refused(user, "u"), LimitHit::User);
        assert_eq!(refused(database, "v"), LimitHit::Database);
        drop(first);
        assert!(registry.is_empty());
        let all = limits(Some(1), Some(1), Some(1));
        assert!(register(&registry, all, "u", &mut key).is_ok());
    }
}
