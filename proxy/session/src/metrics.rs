//! Counters of what clients do. Plain relaxed atomics; the ones on the path of every query live with the worker.

use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl Metrics {
    /// Counts one.
    pub(crate) fn count(&self, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }
}
