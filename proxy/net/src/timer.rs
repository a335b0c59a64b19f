//! Timers that run on another thread's runtime.
//!
//! A tokio runtime with timers of its own reads the clock and looks at its timer wheel each time it goes to sleep and
//! wakes up: some 500 instructions for each query. The workers therefore have none, and what they wait for in time is
//! kept, and woken, by the control thread. Where nothing was installed (tests), the runtime at hand is used.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, Timeout};

thread_local! {
    static KEEPER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// From now on timers of this thread are kept by `keeper`'s runtime, which must have timers and be running.
pub fn install(keeper: Handle) {
    KEEPER.set(Some(keeper));
}

fn kept<T>(make: impl FnOnce() -> T) -> T {
    KEEPER.with_borrow(|keeper| {
        let _guard = keeper.as_ref().map(Handle::enter);
        make()
    })
}

/// As [`tokio::time::sleep`].
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn sleep(duration: Duration) -> Sleep {
    kept(|| tokio::time::sleep(duration))
}

/// As [`tokio::time::timeout`].
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    kept(|| tokio::time::timeout(duration, future))
}

/// As [`tokio::time::timeout_at`].
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    kept(|| tokio::time::timeout_at(deadline, future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_without_timers_waits_by_another_ones() {
        let keeper = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let handle = keeper.handle().clone();
        let (done, finished) = tokio::sync::oneshot::channel();
        let waiting = std::thread::spawn(move || {
            install(handle);
            let plain = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            plain.block_on(async {
                sleep(Duration::from_millis(1)).await;
                let never = std::future::pending::<()>();
                assert!(timeout(Duration::from_millis(1), never).await.is_err());
                assert!(timeout(Duration::from_secs(60), async {}).await.is_ok());
            });
            done.send(()).unwrap();
        });
        keeper.block_on(finished).unwrap();
        waiting.join().unwrap();
    }
}
