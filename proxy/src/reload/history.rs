//! The last attempts to change the configuration.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use pgdog_config::api::Attempt;

/// So many are remembered.
const ATTEMPTS: usize = 16;
/// So many problems of each.
const PROBLEMS: usize = 20;

/// The last attempts, and how many there were.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    attempts: VecDeque<Attempt>,
    applied: u64,
    refused: u64,
}

impl History {
    pub(super) fn add(&self, mut attempt: Attempt) {
        attempt.problems.truncate(PROBLEMS);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempt.applied {
            inner.applied += 1;
        } else {
            inner.refused += 1;
        }
        inner.attempts.push_front(attempt);
        inner.attempts.truncate(ATTEMPTS);
    }

    /// The latest first.
    pub(super) fn latest(&self) -> Vec<Attempt> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.attempts.iter().cloned().collect()
    }

    /// Those that were applied, and those that were not, since the start.
    pub(super) fn counts(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.applied, inner.refused)
    }
}
