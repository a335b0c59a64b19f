//! What is known of one query, and what is left of those that were forgotten.

use std::sync::Arc;

use super::Histogram;

/// So many different SQLSTATEs are told apart for one query; the others are counted as [`OTHER`].
const CODES_MAX: usize = 8;
/// What stands for the SQLSTATEs beyond those.
const OTHER: [u8; 5] = *b"other";

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
    pub text: Arc<str>,
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
    /// The SQLSTATE, when it failed.
    pub error: Option<[u8; 5]>,
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
    /// Failed runs by SQLSTATE, in the order in which they first came.
    pub codes: Vec<([u8; 5], u64)>,
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

    /// Time of one run on average, µs.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        self.total_us / self.calls.max(1)
    }

    pub(super) fn first(key: QueryKey, told: Described, run: Run) -> Self {
        Self {
            key,
            text: told.text,
            user: told.user,
            database: told.database,
            calls: 0,
            errors: 0,
            codes: Vec::new(),
            rows: 0,
            total_us: 0,
            min_us: run.elapsed_us,
            max_us: run.elapsed_us,
            last_seen: run.at,
            times: Histogram::default(),
        }
    }

    pub(super) fn add(&mut self, run: Run) {
        self.calls += 1;
        if let Some(code) = run.error {
            self.errors += 1;
            self.add_code(code, 1);
        }
        self.rows = self.rows.saturating_add(run.rows);
        self.total_us = self.total_us.saturating_add(run.elapsed_us);
        self.min_us = self.min_us.min(run.elapsed_us);
        self.max_us = self.max_us.max(run.elapsed_us);
        self.last_seen = self.last_seen.max(run.at);
        self.times.add(run.elapsed_us);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        for (code, count) in &other.codes {
            self.add_code(*code, *count);
        }
        self.rows = self.rows.saturating_add(other.rows);
        self.total_us = self.total_us.saturating_add(other.total_us);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.times.merge(&other.times);
    }

    fn add_code(&mut self, code: [u8; 5], count: u64) {
        let full = self.codes.len() >= CODES_MAX;
        let known = |code| self.codes.iter().position(|(known, _)| *known == code);
        let (code, place) = match known(code) {
            None if full => (OTHER, known(OTHER)),
            place => (code, place),
        };
        match place {
            Some(place) => self.codes[place].1 += count,
            None => self.codes.push((code, count)),
        }
    }
}

/// What queries came to that were forgotten for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// How many entries it were: one for each worker that forgot the query, one for each time.
    pub queries: u64,
    /// Runs, failed ones among them.
    pub calls: u64,
    /// Failed runs.
    pub errors: u64,
    /// Rows that were returned or changed.
    pub rows: u64,
    /// Time of all runs, µs.
    pub total_us: u64,
}

impl Forgotten {
    pub(super) fn take(&mut self, row: &QueryRow) {
        self.add(&Self {
            queries: 1,
            calls: row.calls,
            errors: row.errors,
            rows: row.rows,
            total_us: row.total_us,
        });
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.calls += other.calls;
        self.errors += other.errors;
        self.rows = self.rows.saturating_add(other.rows);
        self.total_us = self.total_us.saturating_add(other.total_us);
    }
}
