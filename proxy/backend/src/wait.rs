//! One client's place in a pool's queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::CheckoutError;
use crate::server::Server;

/// A waiting client, shared between it and the queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Its number in the order of arrival.
    pub(crate) ticket: u64,
    /// The worker that the client belongs to.
    pub(crate) worker: usize,
    /// Coarse time of arrival, ms.
    pub(crate) since: u64,
    state: Mutex<WaitState>,
}

#[derive(Debug)]
enum WaitState {
    Waiting(Option<Waker>),
    Granted(Box<Server>),
    Failed(CheckoutError),
    /// Terminal: the client has what it waited for, or has gone.
    Done,
}

/// What a client that leaves the queue leaves behind.
pub(crate) enum Left {
    /// Its place in the queue.
    Waiting,
    /// A connection that it did not take.
    With(Box<Server>),
    /// Nothing.
    Done,
}

impl Waiter {
    pub(crate) fn new(ticket: u64, worker: usize, since: u64) -> Arc<Self> {
        Arc::new(Self {
            ticket,
            worker,
            since,
            state: Mutex::new(WaitState::Waiting(None)),
        })
    }

    pub(crate) fn failed(error: CheckoutError) -> Arc<Self> {
        Arc::new(Self {
            ticket: 0,
            worker: 0,
            since: 0,
            state: Mutex::new(WaitState::Failed(error)),
        })
    }

    fn settle(&self, with: WaitState) -> Result<(), WaitState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            WaitState::Waiting(waker) => {
                let waker = waker.take();
                *state = with;
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Ok(())
            }
            _ => Err(with),
        }
    }

    /// Hands over a connection; gives it back when the client has gone.
    pub(crate) fn grant(&self, server: Box<Server>) -> Result<(), Box<Server>> {
        match self.settle(WaitState::Granted(server)) {
            Err(WaitState::Granted(server)) => Err(server),
            _ => Ok(()),
        }
    }

    pub(crate) fn fail(&self, error: CheckoutError) {
        let _ = self.settle(WaitState::Failed(error));
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Box<Server>, CheckoutError>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, WaitState::Done) {
            WaitState::Granted(server) => Poll::Ready(Ok(server)),
            WaitState::Failed(error) => Poll::Ready(Err(error)),
            WaitState::Waiting(waker) => {
                let waker = waker
                    .filter(|w| w.will_wake(cx.waker()))
                    .unwrap_or_else(|| cx.waker().clone());
                *state = WaitState::Waiting(Some(waker));
                Poll::Pending
            }
            WaitState::Done => Poll::Ready(Err(CheckoutError::Closed)),
        }
    }

    pub(crate) fn leave(&self) -> Left {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, WaitState::Done) {
            WaitState::Waiting(_) => Left::Waiting,
            WaitState::Granted(server) => Left::With(server),
            WaitState::Failed(_) | WaitState::Done => Left::Done,
        }
    }
}
