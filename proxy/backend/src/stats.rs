//! What happens in a pool, counted where it happens.
//!
//! Each worker has counters of its own, in its own cache lines, and is the only one that writes them: to add is a load and a
//! store. Who asks for the figures adds up the workers'.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the worker whose counter it is may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// What it stands at.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Finite buckets of a [`Histogram`]: their upper bounds are 64 µs and each twice the one before, the last 67 s.
pub const BUCKETS: usize = 21;
/// Upper bound of the first bucket, ns.
const FIRST: u64 = 64_000;

/// Durations, counted in buckets that double.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is above the last.
    counts: [Count; BUCKETS + 1],
    /// Sum of all, ns.
    sum: Count,
}

impl Histogram {
    /// Counts one duration, ns.
    #[inline]
    pub fn record(&self, ns: u64) {
        let index = (u64::BITS - (ns.saturating_sub(1) / FIRST).leading_zeros()) as usize;
        self.counts[index.min(BUCKETS)].add(1);
        self.sum.add(ns);
    }
}

/// A histogram's figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    /// How many there were in each bucket; the last is what is above all bounds.
    pub counts: [u64; BUCKETS + 1],
    /// Sum of all, ns.
    pub sum: u64,
}

impl Durations {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds of the finite buckets, seconds.
    pub fn bounds() -> impl Iterator<Item = f64> {
        (0..BUCKETS).map(|i| (FIRST << i) as f64 / 1e9)
    }

    /// Adds those of another place.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    fn of(&mut self, histogram: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&histogram.counts) {
            *mine += theirs.get();
        }
        self.sum += histogram.sum.get();
    }
}

macro_rules! counters {
    (
        counts { $($(#[$count_doc:meta])* $count:ident,)* }
        durations { $($(#[$duration_doc:meta])* $duration:ident,)* }
    ) => {
        /// One worker's counters in one pool.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct WorkerStats {
            $($(#[$count_doc])* pub $count: Count,)*
            $($(#[$duration_doc])* pub $duration: Histogram,)*
        }

        /// The counters of a pool at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Totals {
            $($(#[$count_doc])* pub $count: u64,)*
            $($(#[$duration_doc])* pub $duration: Durations,)*
        }

        impl Totals {
            fn of(&mut self, worker: &WorkerStats) {
                $(self.$count += worker.$count.get();)*
                $(self.$duration.of(&worker.$duration);)*
            }

            /// Adds those of another pool.
            pub fn add(&mut self, other: &Self) {
                $(self.$count += other.$count;)*
                $(self.$duration.add(&other.$duration);)*
            }
        }
    };
}

counters! {
    counts {
        /// Transactions that ended, with one statement or several.
        transactions,
        /// Queries that were answered: simple ones, and batches up to a Sync.
        queries,
        /// Times a client was given a connection.
        assignments,
        /// Bytes from clients.
        received,
        /// Bytes to clients.
        sent,
        /// Errors that clients were told.
        errors,
        /// Parse messages of clients.
        parses,
        /// Bind messages of clients.
        binds,
        /// Close messages of clients.
        closes,
        /// Rows inserted, as the servers tell it.
        rows_inserted,
        /// Rows updated.
        rows_updated,
        /// Rows deleted.
        rows_deleted,
        /// Time that clients were idle in a transaction, ns.
        idle_in_transaction,
    }
    durations {
        /// Time from a query's first message to the end of its answer.
        query_time,
        /// Time from the first message of a transaction to the end of its last answer, waiting for a connection included.
        transaction_time,
        /// Time that clients waited for a connection, those that had to.
        wait_time,
        /// Time that opening a connection took, login included.
        connect_time,
        /// Time that clients took to log in, from the first byte to the first ReadyForQuery.
        login_time,
    }
}

/// The counters of all workers in one pool.
#[derive(Debug)]
pub struct PoolCounters(Box<[WorkerStats]>);

impl PoolCounters {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(
            (0..workers.max(1))
                .map(|_| WorkerStats::default())
                .collect(),
        )
    }

    /// Those of one worker, for this worker to write.
    #[inline]
    #[must_use]
    pub fn of(&self, worker: usize) -> &WorkerStats {
        &self.0[worker]
    }

    /// The sum over all workers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.0.iter().for_each(|w| totals.of(w));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let bounds: Vec<u64> = (0..BUCKETS).map(|i| FIRST << i).collect();
        for ns in [
            0,
            1,
            FIRST,
            FIRST + 1,
            2 * FIRST,
            2 * FIRST + 1,
            1_000_000,
            FIRST << 20,
            u64::MAX / 2,
        ] {
            let histogram = Histogram::default();
            histogram.record(ns);
            let mut found = Durations::default();
            found.of(&histogram);
            let expected = bounds.iter().position(|b| ns <= *b).unwrap_or(BUCKETS);
            assert_eq!(found.counts[expected], 1, "{ns}");
            assert_eq!((found.count(), found.sum), (1, ns));
        }
    }

    #[test]
    fn the_workers_add_up() {
        let counters = PoolCounters::new(2);
        counters.of(0).queries.add(2);
        counters.of(1).queries.add(3);
        counters.of(1).wait_time.record(5);
        let mut totals = counters.totals();
        assert_eq!((totals.queries, totals.wait_time.count()), (5, 1));
        totals.add(&counters.totals());
        assert_eq!((totals.queries, totals.wait_time.sum), (10, 10));
    }
}
