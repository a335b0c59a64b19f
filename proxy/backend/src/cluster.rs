//! One account's pools over the hosts of its database, and which of them a transaction goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::HostState;
use crate::pool::Pool;

/// A host, as one account reaches it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The account's connections to it.
    pub pool: Arc<Pool>,
    /// What is known of it.
    pub host: Arc<HostState>,
}

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPrimary {
    /// None is known now; one may come.
    Unknown,
    /// Several hosts say that they are it.
    Split,
}

/// What a read asks of the host that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadNeed {
    /// The primary is not to answer it.
    pub replica_only: bool,
    /// Coarse time, ms, of the client's last write: what it wrote must be there.
    pub after: Option<u64>,
}

/// One account's pools.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    next: AtomicUsize,
}

impl Cluster {
    /// Pools over hosts, in the order they were written.
    #[must_use]
    pub fn new(members: Vec<Member>) -> Arc<Self> {
        Arc::new(Self {
            members,
            next: AtomicUsize::new(0),
        })
    }

    /// A pool of the only host.
    #[must_use]
    pub fn alone(pool: Arc<Pool>) -> Arc<Self> {
        let host = Arc::new(HostState::fixed(true));
        Self::new(vec![Member { pool, host }])
    }

    /// The hosts.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether there is nothing to choose.
    #[inline]
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.members.len() == 1
    }

    /// The host that takes writes.
    ///
    /// # Errors
    ///
    /// [`NoPrimary`].
    pub fn for_write(&self) -> Result<usize, NoPrimary> {
        self.members
            .iter()
            .position(|m| m.host.is_primary())
            .ok_or(NoPrimary::Unknown)
    }

    /// A host that answers a read; `None` when none may.
    #[must_use]
    pub fn for_read(&self, need: ReadNeed) -> Option<usize> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.members.len();
        (0..count)
            .map(|i| (start + i) % count)
            .find(|&i| !need.replica_only || !self.members[i].host.is_primary())
    }

    /// Ready when another host takes writes, or hosts have come or gone.
    pub async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}
