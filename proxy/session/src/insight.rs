//! What was asked how often and how long it took: statistics of queries, as `pg_stat_statements` keeps them.
//!
//! Each worker has a table of its own, so that counting a query takes a lock that nobody else holds. Only who reads looks
//! into all of them. Tables are bounded: a full one forgets what is used least, as `pg_stat_statements` does. A query that
//! every worker sees has an entry in each table, so the memory is that of `max_entries` times the workers:
//! about 1 kB for an entry with a text of ordinary length, [`MAX_TEXT`] more at most.
//!
//! `flight` tells which answer ends which request and when; `shapes` knows texts without their constants; `watch.rs` ties
//! both to a client.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgdog_backend::statements::Shape;

pub(crate) mod flight;
mod histogram;
mod row;
mod shapes;

pub use histogram::Histogram;
pub use row::{Described, Forgotten, QueryKey, QueryRow, Run};
pub use shapes::MAX_TEXT;
pub(crate) use shapes::Odd;
use shapes::{OddShapes, Shapes};

/// How much of its usage an entry keeps whenever others are forgotten.
const DECAY: f64 = 0.99;

/// The statistics of all queries.
#[derive(Debug)]
pub struct QueryStats {
    tables: Box<[Table]>,
    odd: OddShapes,
}

/// The table of one worker, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Table(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    max: usize,
    forgotten: Forgotten,
    rows: HashMap<QueryKey, Entry, BuildHasherDefault<KeyHasher>>,
    shapes: Shapes,
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
                forgotten: Forgotten::default(),
                rows: HashMap::default(),
                shapes: Shapes::default(),
            }))
        };
        Self {
            tables: (0..workers.max(1)).map(|_| table()).collect(),
            odd: OddShapes::default(),
        }
    }

    /// What a text is without its constants, as this worker knows it.
    pub(crate) fn shape(&self, worker: usize, text: &[u8]) -> Arc<Shape> {
        self.table(worker).lock().shapes.of(text)
    }

    /// What stands for a text that is not known.
    pub(crate) fn odd(&self, which: Odd) -> Arc<Shape> {
        self.odd.of(which)
    }

    fn table(&self, worker: usize) -> &Table {
        &self.tables[worker % self.tables.len()]
    }

    /// Counts a run. `told` is asked only when the query is new to this worker, and must not come back here: entries are
    /// locked.
    pub fn record(&self, worker: usize, key: QueryKey, told: impl FnOnce() -> Described, run: Run) {
        let mut entries = self.table(worker).lock();
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
    pub fn rows(&self) -> Vec<QueryRow> {
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

    /// What was forgotten for other queries since the last reset.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        let mut all = Forgotten::default();
        for table in &self.tables {
            all.add(&table.lock().forgotten);
        }
        all
    }

    /// Begins anew.
    pub fn reset(&self) {
        for table in &self.tables {
            let mut entries = table.lock();
            entries.rows = HashMap::default();
            entries.forgotten = Forgotten::default();
        }
    }

    /// Changes how many queries each worker keeps; with none, what was counted is gone.
    pub fn set_max_entries(&self, max: usize) {
        if max == 0 {
            self.reset();
        }
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
            if let Some(entry) = self.rows.remove(key) {
                self.forgotten.take(&entry.row);
            }
        }
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

#[cfg(test)]
mod tests;
