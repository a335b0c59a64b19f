//! What was asked how often and how long it took: statistics of queries, as `pg_stat_statements` keeps them.
//!
//! Each worker has a table of its own, so that counting a query takes a lock that nobody else holds. Only who reads looks
//! into all of them. Tables are bounded: a full one forgets what is used least, as `pg_stat_statements` does. A query that
//! every worker sees has an entry in each table, so the memory is that of `max_entries` times the workers:
//! about 1 kB for an entry with a text of ordinary length, [`MAX_TEXT`] more at most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod histogram;

pub use histogram::Histogram;

/// Longest text that is kept, bytes.
pub const MAX_TEXT: usize = 2048;

/// How much of its usage an entry keeps whenever others are forgotten.
const DECAY: f64 = 0.99;

/// The statistics of one query of one user in one database: which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// The number that stands for all texts which differ in their constants only.
    pub fingerprint: u64,
    /// A number for the user and the database. Whoever counts chooses it, and gives one number to one pair.
    pub account: u64,
}

/// What is told of a query when it is counted for the first time.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its text without constants.
    pub text: String,
    /// The client's user.
    pub user: Arc<str>,
    /// The database the client asked for.
    pub database: Arc<str>,
}

/// One run of a query.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Time from the request to the end of its answer, µs.
    pub elapsed_us: u64,
    /// Rows that were returned or changed.
    pub rows: u64,
    /// Whether it failed.
    pub error: bool,
    /// When it ended, ms on whatever clock the caller keeps.
    pub at: u64,
}

/// The statistics of a query, added up over all workers.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryRow {
    /// Which query of whom.
    pub key: QueryKey,
    /// Its text without constants.
    pub text: Arc<str>,
    /// The client's user.
    pub user: Arc<str>,
    /// The database the client asked for.
    pub database: Arc<str>,
    /// Runs, failed ones among them.
    pub calls: u64,
    /// Failed runs.
    pub errors: u64,
    /// Rows that were returned or changed.
    pub rows: u64,
    /// Time of all runs, µs.
    pub total_us: u64,
    /// Shortest run, µs.
    pub min_us: u64,
    /// Longest run, µs.
    pub max_us: u64,
    /// When the last run ended, ms.
    pub last_seen: u64,
    /// How the times are spread.
    pub times: Histogram,
}

impl QueryRow {
    /// The time that this share of the runs (0.5, 0.99) did not exceed, µs; at most 12.5 % off.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        self.times.quantile(share).clamp(self.min_us, self.max_us)
    }

    fn first(key: QueryKey, told: Described, run: Run) -> Self {
        Self {
            key,
            text: cut(told.text).into(),
            user: told.user,
            database: told.database,
            calls: 0,
            errors: 0,
            rows: 0,
            total_us: 0,
            min_us: run.elapsed_us,
            max_us: run.elapsed_us,
            last_seen: run.at,
            times: Histogram::default(),
        }
    }

    fn add(&mut self, run: Run) {
        self.calls += 1;
        self.errors += u64::from(run.error);
        self.rows = self.rows.saturating_add(run.rows);
        self.total_us = self.total_us.saturating_add(run.elapsed_us);
        self.min_us = self.min_us.min(run.elapsed_us);
        self.max_us = self.max_us.max(run.elapsed_us);
        self.last_seen = self.last_seen.max(run.at);
        self.times.add(run.elapsed_us);
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.rows = self.rows.saturating_add(other.rows);
        self.total_us = self.total_us.saturating_add(other.total_us);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.times.merge(&other.times);
    }
}

/// The statistics of all queries.
#[derive(Debug)]
pub struct QueryStats {
    tables: Box<[Table]>,
}

/// The table of one worker, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Table(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    max: usize,
    forgotten: u64,
    rows: HashMap<QueryKey, Entry, BuildHasherDefault<KeyHasher>>,
}

#[derive(Debug)]
struct Entry {
    row: QueryRow,
    /// Runs, older ones for less.
    usage: f64,
}

impl QueryStats {
    /// Statistics for this many workers, of at most `max_entries` queries for each.
    #[must_use]
    pub fn new(workers: usize, max_entries: usize) -> Self {
        let table = || {
            Table(Mutex::new(Entries {
                max: max_entries,
                forgotten: 0,
                rows: HashMap::default(),
            }))
        };
        Self {
            tables: (0..workers.max(1)).map(|_| table()).collect(),
        }
    }

    /// Counts a run. `told` is asked only when the query is new to this worker.
    pub fn record(&self, worker: usize, key: QueryKey, told: impl FnOnce() -> Described, run: Run) {
        let mut entries = self.tables[worker % self.tables.len()].lock();
        if let Some(entry) = entries.rows.get_mut(&key) {
            entry.usage += 1.0;
            entry.row.add(run);
            return;
        }
        if entries.max == 0 {
            return;
        }
        if entries.rows.len() >= entries.max {
            entries.forget_some();
        }
        let mut row = QueryRow::first(key, told(), run);
        row.add(run);
        entries.rows.insert(key, Entry { row, usage: 1.0 });
    }

    /// What is known, added up over the workers: the queries that took most time first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<QueryRow> {
        let mut merged: HashMap<QueryKey, QueryRow> = HashMap::new();
        let mut max = 0;
        for table in &self.tables {
            let entries = table.lock();
            max = max.max(entries.max);
            for entry in entries.rows.values() {
                merged
                    .entry(entry.row.key)
                    .and_modify(|row| row.merge(&entry.row))
                    .or_insert_with(|| entry.row.clone());
            }
        }
        let mut rows: Vec<_> = merged.into_values().collect();
        rows.sort_unstable_by_key(|row| {
            let key = (row.key.fingerprint, row.key.account);
            (Reverse(row.total_us), Reverse(row.calls), key)
        });
        rows.truncate(max);
        rows
    }

    /// Entries that were forgotten for others since the last reset.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.tables.iter().map(|table| table.lock().forgotten).sum()
    }

    /// Begins anew.
    pub fn reset(&self) {
        for table in &self.tables {
            let mut entries = table.lock();
            entries.rows = HashMap::default();
            entries.forgotten = 0;
        }
    }

    /// Changes how many queries each worker keeps.
    pub fn set_max_entries(&self, max: usize) {
        for table in &self.tables {
            let mut entries = table.lock();
            entries.max = max;
            let excess = entries.rows.len().saturating_sub(max);
            entries.forget(excess);
            entries.rows.shrink_to_fit();
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Numbers are complete at each step: a panic leaves none that would be wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Makes room: what was used least goes, and what stays has to be used again to stay for long.
    fn forget_some(&mut self) {
        for entry in self.rows.values_mut() {
            entry.usage *= DECAY;
        }
        self.forget((self.rows.len() / 20).max(1));
    }

    fn forget(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let mut least: Vec<_> = self
            .rows
            .values()
            .map(|entry| (entry.usage, entry.row.last_seen, entry.row.key))
            .collect();
        if count < least.len() {
            least.select_nth_unstable_by(count, |a, b| {
                a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))
            });
            least.truncate(count);
        }
        for (_, _, key) in &least {
            self.rows.remove(key);
        }
        self.forgotten += least.len() as u64;
    }
}

/// The numbers of a key are as good as random already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }
}

/// No more of a text than is kept.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        const DOTS: &str = " …";
        text.truncate(text.floor_char_boundary(MAX_TEXT - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}

#[cfg(test)]
mod tests;
