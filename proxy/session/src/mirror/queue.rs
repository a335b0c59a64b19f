//! What waits for one mirror of one client: put in by the client's task, taken out by the mirror's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Counters, Transaction};

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    counters: Arc<Counters>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Arc<Transaction>>,
    /// Who takes out.
    reader: Option<Waker>,
    ends: Ends,
}

/// Who is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Both,
    /// The client has gone.
    Mirror,
    /// The mirror has ended: nothing is taken any more.
    None,
}

/// The client's end; dropping it tells the mirror.
#[derive(Debug)]
pub(super) struct Feed(Arc<Queue>);

/// The mirror's end; dropping it drops what waits.
#[derive(Debug)]
pub(super) struct Outlet(Arc<Queue>);

/// An empty queue.
pub(super) fn queue(counters: Arc<Counters>) -> (Feed, Outlet) {
    let queue = Arc::new(Queue {
        counters,
        inner: Mutex::new(Inner {
            waiting: VecDeque::new(),
            reader: None,
            ends: Ends::Both,
        }),
    });
    (Feed(queue.clone()), Outlet(queue))
}

impl Queue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// Puts one in, unless so many wait already; whether it was taken.
    pub(super) fn put(&self, transaction: Arc<Transaction>, limit: usize) -> bool {
        let mut inner = self.0.inner();
        if inner.ends != Ends::Both || inner.waiting.len() >= limit {
            return false;
        }
        inner.waiting.push_back(transaction);
        self.0.counters.count(|c| &c.queued);
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
        true
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        if inner.ends == Ends::Both {
            inner.ends = Ends::Mirror;
        }
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
    }
}

impl Outlet {
    /// The next one; `None` when the client has gone and nothing waits.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Arc<Transaction>>> {
        let mut inner = self.0.inner();
        if let Some(next) = inner.waiting.pop_front() {
            self.0
                .counters
                .queued
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            return Poll::Ready(Some(next));
        }
        if inner.ends != Ends::Both {
            return Poll::Ready(None);
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the client has gone; else the task is woken when it goes.
    pub(super) fn is_left(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.0.inner();
        if inner.ends != Ends::Both {
            return true;
        }
        inner.reader = Some(cx.waker().clone());
        false
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.ends = Ends::None;
        for _ in inner.waiting.drain(..) {
            self.0
                .counters
                .queued
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            self.0.counters.count(|c| &c.dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::{Held, Memory};
    use super::*;

    fn transaction() -> Arc<Transaction> {
        Arc::new(Transaction {
            parts: [].into(),
            params: Arc::default(),
            names: Vec::new(),
            unnamed: None,
            held: Held::new(&Arc::new(Memory::default())),
        })
    }

    #[test]
    fn a_full_queue_takes_no_more_and_what_waits_outlives_the_client() {
        let counters = Arc::new(Counters::default());
        let (feed, outlet) = queue(counters.clone());
        assert!(feed.put(transaction(), 2) && feed.put(transaction(), 2));
        assert!(!feed.put(transaction(), 2));
        assert!(feed.put(transaction(), 3), "the limit may change");
        assert_eq!(counters.queued.load(Ordering::Relaxed), 3);
        drop(feed);
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(outlet.poll_next(&cx), Poll::Ready(Some(_))));
        drop(outlet);
        assert_eq!(
            (
                counters.queued.load(Ordering::Relaxed),
                counters.dropped.load(Ordering::Relaxed)
            ),
            (0, 2)
        );
    }

    #[test]
    fn nothing_is_taken_when_the_mirror_has_ended() {
        let (feed, outlet) = queue(Arc::default());
        let cx = Context::from_waker(Waker::noop());
        assert!(outlet.poll_next(&cx).is_pending() && !outlet.is_left(&cx));
        drop(outlet);
        assert!(!feed.put(transaction(), 9));
    }
}
