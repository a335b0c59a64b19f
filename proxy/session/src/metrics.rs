//! Counters of what clients do. Plain relaxed atomics; the ones on the path of every query live with the worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// So many different SQLSTATEs are told apart: PostgreSQL has fewer, but functions can make up their own.
const CODES_MAX: usize = 512;
/// What the others are counted under.
const OTHER: [u8; 5] = *b"other";

/// Since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Clients that logged in.
    pub logins: AtomicU64,
    /// Logins that were refused.
    pub login_failures: AtomicU64,
    /// Cancel requests that reached a client.
    pub cancels: AtomicU64,
    /// Clients that came to keep a server outside of a transaction.
    pub pins: AtomicU64,
    /// Times a server was asked what its session holds.
    pub probes: AtomicU64,
    /// Times a server's settings had to be changed for the next client.
    pub param_syncs: AtomicU64,
    /// Servers that were brought back into order after their client had gone.
    pub recoveries: AtomicU64,
    /// Requests that were held back because no host could take them.
    pub holds: AtomicU64,
    /// Requests that were sent again to another host.
    pub retries: AtomicU64,
    /// Errors that clients were told, by SQLSTATE.
    errors: Mutex<BTreeMap<[u8; 5], u64>>,
}

impl Metrics {
    /// Counts one.
    pub(crate) fn count(&self, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error that a client was told.
    pub(crate) fn error(&self, code: &[u8]) {
        let code = code.try_into().unwrap_or(OTHER);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let known = errors.len() < CODES_MAX || errors.contains_key(&code);
        *errors.entry(if known { code } else { OTHER }).or_default() += 1;
    }

    /// Errors that clients were told, by SQLSTATE.
    #[must_use]
    pub fn errors(&self) -> Vec<(String, u64)> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |code: &[u8; 5]| String::from_utf8_lossy(code).into_owned();
        errors.iter().map(|(code, n)| (text(code), *n)).collect()
    }
}
