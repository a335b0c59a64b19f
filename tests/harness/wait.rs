//! Waiting for conditions, never for time alone.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Asks `condition` every few milliseconds until it holds; false when it still does not after `limit`.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
}
