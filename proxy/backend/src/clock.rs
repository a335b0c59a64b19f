//! Time as coarse as pooling needs it: read without a system call, moved on by whoever keeps the process' rhythm. And the
//! exact time, for what is measured.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Time since the process began.
#[derive(Debug)]
pub struct Clock {
    /// The system's clock at the start, ns.
    zero: u64,
    /// Milliseconds, as of the last tick.
    now: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        // Not zero, so that zero can mean "never".
        Self {
            zero: system(),
            now: AtomicU64::new(1),
        }
    }
}

/// The system's monotonic clock, ns. As std's `Instant`, without the arithmetic that it makes of it.
#[inline]
fn system() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Clock {
    /// The time of the last tick, ms.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the process began, exactly.
    #[inline]
    #[must_use]
    pub fn precise(&self) -> u64 {
        system() - self.zero
    }

    /// Stands at a time of a test's choice.
    #[cfg(test)]
    pub(crate) fn set(&self, ms: u64) {
        self.now.store(ms, Ordering::Relaxed);
    }

    /// Moves the time on.
    pub fn tick(&self) {
        self.now
            .store(self.precise() / 1_000_000 + 1, Ordering::Relaxed);
    }
}
