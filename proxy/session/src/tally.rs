//! What a client and its server have done since it was last counted: plain numbers on the way of each query, handed on to
//! the counters that others read when the client begins to wait for somebody.

use std::time::Duration;

use pgdog_backend::ServerHandle;
use pgdog_backend::stats::WorkerStats;
use pgdog_wire::backend::{Changed, TransactionStatus};

use crate::handle::{ClientHandle, Doing};

/// The numbers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) errors: u64,
    parses: u64,
    binds: u64,
    closes: u64,
    queries: u64,
    transactions: u64,
    inserted: u64,
    updated: u64,
    deleted: u64,
    /// When the client began to do what it does, ns.
    since: u64,
    /// When its transaction began, ns.
    began: u64,
}

impl Tally {
    /// A message of this kind was passed on.
    #[inline]
    pub(crate) fn asked(&mut self, kind: u8) {
        match kind {
            b'P' => self.parses += 1,
            b'B' => self.binds += 1,
            b'C' => self.closes += 1,
            _ => {}
        }
    }

    /// Whether prepared statements may have come or gone.
    #[inline]
    pub(crate) fn prepares(&self) -> bool {
        self.parses + self.closes > 0
    }

    /// How long the client has been doing what it does at `now` (ns).
    pub(crate) fn lasts(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.since))
    }

    /// A query, or a batch, is answered.
    #[inline]
    pub(crate) fn answered(&mut self, status: TransactionStatus) {
        self.queries += 1;
        self.transactions += u64::from(status == TransactionStatus::Idle);
    }

    /// A command was completed that changed rows.
    pub(crate) fn changed(&mut self, changed: Changed) {
        match changed {
            Changed::Inserted(rows) => self.inserted += rows,
            Changed::Updated(rows) => self.updated += rows,
            Changed::Deleted(rows) => self.deleted += rows,
        }
    }

    /// When the client began to do what it does, ns.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// The client stops doing one thing and does another from `now` (ns) on.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        from: Doing,
        to: Doing,
        now: u64,
        client: &ClientHandle,
        pool: &WorkerStats,
    ) {
        let spent = now.saturating_sub(self.since);
        self.since = now;
        match from {
            Doing::Idle => self.began = now,
            Doing::Active => {
                pool.query_time.record(spent);
                client.counters.query_time.add(spent);
            }
            Doing::Waiting => {
                pool.wait_time.record(spent);
                client.counters.wait_time.add(spent);
            }
            Doing::IdleInTransaction => pool.idle_in_transaction.add(spent),
        }
        if to == Doing::Idle {
            let took = now.saturating_sub(self.began);
            pool.transaction_time.record(took);
            client.counters.transaction_time.add(took);
        }
    }

    /// Adds the numbers to those that others see, and begins anew.
    #[inline]
    pub(crate) fn hand_on(
        &mut self,
        client: &ClientHandle,
        server: Option<&ServerHandle>,
        pool: &WorkerStats,
    ) {
        let all = &client.counters;
        all.transactions.add(self.transactions);
        all.queries.add(self.queries);
        all.received.add(self.received);
        all.sent.add(self.sent);
        if let Some(server) = server {
            server.transactions.add(self.transactions);
            server.queries.add(self.queries);
            server.received.add(self.received);
            server.sent.add(self.sent);
        }
        pool.transactions.add(self.transactions);
        pool.queries.add(self.queries);
        pool.received.add(self.received);
        pool.sent.add(self.sent);
        if self.errors > 0 {
            pool.errors.add(self.errors);
            all.errors.add(self.errors);
            if let Some(server) = server {
                server.errors.add(self.errors);
            }
        }
        if self.parses + self.binds + self.closes > 0 {
            pool.parses.add(self.parses);
            pool.binds.add(self.binds);
            pool.closes.add(self.closes);
        }
        if self.inserted + self.updated + self.deleted > 0 {
            pool.rows_inserted.add(self.inserted);
            pool.rows_updated.add(self.updated);
            pool.rows_deleted.add(self.deleted);
        }
        *self = Self {
            since: self.since,
            began: self.began,
            ..Self::default()
        };
    }
}
