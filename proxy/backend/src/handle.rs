//! What the rest of the process sees of a server connection, whoever has it on loan.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use pgdog_net::Address;

use crate::stats::Count;

/// What a server connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Nobody has it.
    Idle = 0,
    /// It works for a client, or is being put into order.
    Active = 1,
    /// Its client is idle within a transaction, or keeps it outside of one.
    Held = 2,
}

/// One server connection, as others see it. Its counters are written by whoever has the connection.
#[derive(Debug)]
pub struct ServerHandle {
    /// The process id that the server gave.
    pub remote_pid: u32,
    /// Where it is.
    pub address: Arc<Address>,
    /// Coarse time when it was opened, ms.
    pub opened: u64,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// As [`Server::generation`](crate::Server::generation).
    pub generation: u64,
    /// Transactions that ended on it.
    pub transactions: Count,
    /// Queries that it answered.
    pub queries: Count,
    /// Errors that it gave.
    pub errors: Count,
    /// Bytes that its clients sent.
    pub received: Count,
    /// Bytes that its clients were sent.
    pub sent: Count,
    /// Statements that it has prepared.
    pub prepared: Arc<AtomicU32>,
    state: AtomicU8,
    client: AtomicU32,
    since: AtomicU64,
}

impl ServerHandle {
    /// A connection that nobody has yet.
    #[must_use]
    pub fn new(remote_pid: u32, address: Arc<Address>, now: u64) -> Self {
        Self {
            remote_pid,
            address,
            opened: now,
            tls: false,
            generation: 0,
            transactions: Count::default(),
            queries: Count::default(),
            errors: Count::default(),
            received: Count::default(),
            sent: Count::default(),
            prepared: Arc::default(),
            state: AtomicU8::new(ServerState::Idle as u8),
            client: AtomicU32::new(0),
            since: AtomicU64::new(now),
        }
    }

    /// Notes what it does from now on, and for which client (its process id; 0 for none).
    #[inline]
    pub fn does(&self, state: ServerState, client: u32, now: u64) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.client.store(client, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// What it does, and the coarse time since when, ms.
    #[must_use]
    pub fn state(&self) -> (ServerState, u64) {
        let state = match self.state.load(Ordering::Relaxed) {
            0 => ServerState::Idle,
            1 => ServerState::Active,
            _ => ServerState::Held,
        };
        (state, self.since.load(Ordering::Relaxed))
    }

    /// The process id of the client that has it.
    #[must_use]
    pub fn client(&self) -> Option<u32> {
        Some(self.client.load(Ordering::Relaxed)).filter(|c| *c != 0)
    }
}
