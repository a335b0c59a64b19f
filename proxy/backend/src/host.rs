//! What is known of one host.

use std::sync::atomic::{AtomicBool, Ordering};

/// One host of one database.
#[derive(Debug, Default)]
pub struct HostState {
    primary: AtomicBool,
}

impl HostState {
    /// Of a host with a fixed role.
    #[must_use]
    pub fn fixed(primary: bool) -> Self {
        Self {
            primary: AtomicBool::new(primary),
        }
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.primary.load(Ordering::Relaxed)
    }

    /// A connection to it could not be had, or was lost.
    pub fn failed(&self, reason: &str) {
        tracing::debug!("a host failed: {reason}");
    }
}
