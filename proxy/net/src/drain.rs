//! Draining: tell everyone to finish, and know when everyone has.
//!
//! [`DrainTrigger`] belongs to the one who shuts down. [`Drain`] is cloned to whoever must hear of it. Work that must
//! end first holds a [`DrainGuard`].

use std::sync::Arc;

use tokio::sync::watch;

/// Starts a drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    started: watch::Sender<bool>,
    guards: Arc<watch::Sender<usize>>,
}

/// Hears of a drain. Clones are independent and cheap.
#[derive(Debug, Clone)]
pub struct Drain {
    started: watch::Receiver<bool>,
    guards: Arc<watch::Sender<usize>>,
}

/// Holds up the end of a drain until dropped.
#[derive(Debug)]
pub struct DrainGuard {
    guards: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// A fresh pair.
    #[must_use]
    pub fn new() -> (DrainTrigger, Self) {
        let (sender, started) = watch::channel(false);
        let guards = Arc::new(watch::Sender::new(0));
        (
            DrainTrigger {
                started: sender,
                guards: Arc::clone(&guards),
            },
            Self { started, guards },
        )
    }

    /// Counts one more piece of work that must end before the drain does.
    #[must_use]
    pub fn guard(&self) -> DrainGuard {
        self.guards.send_modify(|count| *count += 1);
        DrainGuard {
            guards: Arc::clone(&self.guards),
        }
    }

    /// Whether the drain has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        *self.started.borrow()
    }

    /// Resolves once the drain has started, also when the trigger was dropped without starting it. Cancel safe.
    ///
    /// Each call takes a lock shared by all workers, so a loop should pin one future and keep it.
    pub async fn started(&mut self) {
        // An error means that the trigger is gone: whoever owned the process is ending it.
        drop(self.started.wait_for(|started| *started).await);
    }
}

impl DrainTrigger {
    /// Starts the drain. A second call does nothing.
    pub fn start(&self) {
        self.started
            .send_if_modified(|started| !std::mem::replace(started, true));
    }

    /// A handle to hear of this drain.
    #[must_use]
    pub fn handle(&self) -> Drain {
        Drain {
            started: self.started.subscribe(),
            guards: Arc::clone(&self.guards),
        }
    }

    /// Guards alive now.
    #[must_use]
    pub fn active(&self) -> usize {
        *self.guards.borrow()
    }

    /// Resolves when no guard is alive. Cancel safe. Says nothing of guards taken later: stop accepting first.
    pub async fn finished(&self) {
        let mut count = self.guards.subscribe();
        // Cannot fail: this value owns a sender.
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.guards.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Drain;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_guard_is_dropped() {
        let (trigger, drain) = Drain::new();
        trigger.finished().await;
        let first = drain.guard();
        let second = drain.clone().guard();
        assert_eq!(trigger.active(), 2);
        assert!(!drain.is_started());
        trigger.start();
        assert!(drain.is_started());
        drop(first);
        assert!(
            crate::timer::timeout(Duration::from_millis(20), trigger.finished())
                .await
                .is_err()
        );
        drop(second);
        trigger.finished().await;
    }

    #[tokio::test]
    async fn handles_hear_of_the_start_before_and_after_it() {
        let (trigger, mut early) = Drain::new();
        let waiting = tokio::spawn(async move { early.started().await });
        tokio::task::yield_now().await;
        trigger.start();
        waiting.await.unwrap();
        trigger.handle().started().await;
    }
}
