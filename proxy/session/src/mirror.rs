//! Mirroring: what the clients of one database do is repeated in another one, for nobody to see.
//!
//! Flow: a client of a mirrored database has a `Tap`. It copies the client's messages as they come, with the pauses
//! within a transaction, until the session is at rest: that is one transaction, or several that the client sent without
//! waiting, which count as one. A pause begins on the mirror when what came before it was passed on. Then it is put into the queue of each mirror that wants it, and a task for each client and mirror
//! repeats it through the same code that serves clients, as a client of the destination's pool with the same user. That
//! client is in the registry as [`ClientKind::Mirror`](crate::ClientKind::Mirror); its answers are dropped.
//!
//! Which transactions: `exposure` is decided when one begins. `level` is decided at its end, by the first words of its
//! statements; what has one statement of the level is mirrored whole. What should be mirrored and is not counts as dropped:
//! the queue of `queue_length` is full, the transaction is larger than [`TRANSACTION_MAX`], or it has `COPY … FROM STDIN`,
//! `LISTEN` or `UNLISTEN`. Replication connections and cancel requests are not mirrored.
//!
//! State of the session: because transactions are left out, the session's state is not replayed but handed over. Each
//! transaction carries the settings that its session had when it began, and of each prepared statement that it names, the
//! unnamed one included, what was behind the name when it was first named. The mirror's session is given just these before
//! the transaction is repeated. So a SET or a Parse counts on the mirror whether or not it was mirrored itself. The name of
//! the application is always [`APPLICATION`].
//!
//! Guarantees: transactions of one client reach one mirror in order. The client never waits for a mirror and never hears of
//! one. All that is copied and waits takes no more than [`MEMORY_MAX`] in the process; what would go above is dropped.
//!
//! Caveats: what lives in a server's session and not in its settings or prepared statements (temporary tables, cursors
//! WITH HOLD, advisory locks, sequence values, and with `prepared_statements` other than `full` the statements of SQL's
//! PREPARE) is there on a mirror only where the transaction that made it was mirrored. Databases in session mode are not
//! mirrored: their sessions are not known. A mirror's own traffic is not mirrored further. What a mirror still has to
//! repeat when its client leaves, it repeats for [`GRACE`]; at a drain it drops it at once.

mod queue;
mod replay;
mod tap;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgdog_backend::Params;
use pgdog_backend::statements::Statement;
use pgdog_net::Part;

use crate::runtime::Runtime;
use crate::statements::Unnamed;

pub(crate) use tap::{Tap, end, offer, renew, settle};

/// Bytes of a transaction's messages above which it is not mirrored.
pub const TRANSACTION_MAX: usize = 1024 * 1024;
/// Bytes that all transactions together may take that are being copied or wait.
pub const MEMORY_MAX: usize = 64 * 1024 * 1024;
/// How long what waits is still repeated after its client has left.
pub const GRACE: Duration = Duration::from_secs(10);
/// What mirrors are called in `pg_stat_activity`.
pub const APPLICATION: &str = "pgdog mirror";

/// All mirrors of a process: their counters, and the memory that they share.
#[derive(Debug, Default)]
pub struct Mirrors {
    lines: Mutex<BTreeMap<Key, Arc<Counters>>>,
    memory: Arc<Memory>,
}

/// What one user's transactions are mirrored from and to, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorView {
    /// The database that clients ask for.
    pub database: String,
    /// The one that is the mirror.
    pub destination: String,
    /// The user.
    pub user: String,
    /// Transactions of clients, also those that `exposure` or `level` leave out.
    pub total: u64,
    /// Those that were repeated without an error.
    pub mirrored: u64,
    /// Those that were to be mirrored and were not.
    pub dropped: u64,
    /// Those whose repetition gave an error, or could not be tried. An error that the client got itself counts too.
    pub errors: u64,
    /// Those that wait now.
    pub queued: u64,
}

/// Source, destination, user.
type Key = (String, String, String);

#[derive(Debug, Default)]
struct Counters {
    total: AtomicU64,
    mirrored: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    queued: AtomicU64,
}

impl Mirrors {
    /// All mirrors of the configuration in force, for each user that it knows or that has been here.
    #[must_use]
    pub fn views(&self, runtime: &Runtime) -> Vec<MirrorView> {
        let (live, accounts) = (runtime.live(), runtime.accounts());
        let mut views = Vec::new();
        for mirror in &live.settings.mirrors {
            // An account with several hosts is here more than once.
            let mut users: Vec<_> = accounts.iter().map(|account| &account.user).collect();
            users.retain(|user| user.database == mirror.source);
            users.dedup_by(|a, b| a.name == b.name);
            for user in users {
                let key = (
                    mirror.source.clone(),
                    mirror.destination.clone(),
                    user.name.clone(),
                );
                let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                let of = |which: fn(&Counters) -> &AtomicU64| {
                    lines
                        .get(&key)
                        .map_or(0, |counters| which(counters).load(Ordering::Relaxed))
                };
                views.push(MirrorView {
                    total: of(|c| &c.total),
                    mirrored: of(|c| &c.mirrored),
                    dropped: of(|c| &c.dropped),
                    errors: of(|c| &c.errors),
                    queued: of(|c| &c.queued),
                    database: mirror.source.clone(),
                    destination: mirror.destination.clone(),
                    user: user.name.clone(),
                });
            }
        }
        views.sort_by(|a, b| {
            (&a.database, &a.destination, &a.user).cmp(&(&b.database, &b.destination, &b.user))
        });
        views
    }

    fn counters(&self, key: Key) -> Arc<Counters> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(key).or_default().clone()
    }
}

impl Counters {
    fn count(&self, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory for copies, of which there is only so much.
#[derive(Debug, Default)]
struct Memory(AtomicUsize);

/// A part of it, given back when dropped.
#[derive(Debug)]
struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
    fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: memory.clone(),
            bytes: 0,
        }
    }

    /// Takes more; whether there was so much, for one transaction and for all.
    fn grow(&mut self, bytes: usize) -> bool {
        if bytes > TRANSACTION_MAX - self.bytes.min(TRANSACTION_MAX) {
            return false;
        }
        let before = self.memory.0.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MEMORY_MAX {
            self.memory.0.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Gives some back.
    fn shrink(&mut self, bytes: usize) {
        self.memory.0.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A name, and the statement behind it, if any.
type Named = (Box<[u8]>, Option<Arc<Statement>>);

/// What a client did from one rest to the next, and what its session was when it began.
#[derive(Debug)]
struct Transaction {
    parts: Arc<[Part]>,
    params: Arc<Params>,
    /// What was behind the names that it uses.
    names: Vec<Named>,
    /// The unnamed statement, where it uses one that it has not made.
    unnamed: Option<Unnamed>,
    #[allow(dead_code, reason = "given back with the transaction")]
    held: Held,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_for_one_and_for_all_and_given_back() {
        let memory = Arc::new(Memory::default());
        let mut one = Held::new(&memory);
        assert!(one.grow(TRANSACTION_MAX - 1));
        assert!(!one.grow(2));
        assert!(!one.grow(usize::MAX));
        assert!(one.grow(1));
        let mut all = vec![one];
        while all.len() < MEMORY_MAX / TRANSACTION_MAX {
            let mut next = Held::new(&memory);
            assert!(next.grow(TRANSACTION_MAX));
            all.push(next);
        }
        let mut late = Held::new(&memory);
        assert!(!late.grow(1));
        all[0].shrink(1);
        assert!(late.grow(1));
        drop((all, late));
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }
}
