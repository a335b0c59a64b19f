//! A replication connection: a server of its own, and bytes that pass both ways until one side closes or the proxy ends it.
//!
//! Nothing that passes is looked at, but for the lengths of the server's messages: the proxy's last word must stand between
//! two of them. Such a stream has no end of its own, so a drain does not wait for one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pgdog_backend::{Places, Server, Target};
use pgdog_net::Stream;
use pgdog_wire::buffer::{self, Buffer};
use pgdog_wire::frame::{FrameError, HEADER};
use pgdog_wire::{Header, sqlstate};
use tokio::io::AsyncWriteExt;
use tokio_util::io::poll_read_buf;
use tokio_util::task::TaskTracker;

use crate::active::{HIGH, poll_out};
use crate::client::{Ended, shutting_down};
use crate::handle::Signal;
use crate::registry::Registered;
use crate::runtime::Account;

/// How long the client's socket may take to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// A logged-in replication connection.
#[derive(Debug)]
pub struct Replication {
    pub(crate) stream: Stream,
    pub(crate) server: Server,
    /// How the server is reached, for cancel requests.
    pub(crate) target: Arc<Target>,
    pub(crate) account: Arc<Account>,
    /// What the process waits for before it ends.
    pub(crate) tidying: TaskTracker,
    pub(crate) registered: Registered,
    /// Its places in the limits on server connections.
    pub(crate) places: Places,
    /// From the client to the server.
    pub(crate) up: Buffer,
    /// From the server to the client.
    pub(crate) down: Buffer,
    pub(crate) boundary: Boundary,
    pub(crate) flow: Flow,
}

/// Whether bytes still pass.
#[derive(Debug, Default)]
pub(crate) enum Flow {
    /// Both ways.
    #[default]
    Open,
    /// The client has closed; what it said last goes to the server.
    Left,
    /// The proxy ends it when the message that passes by is whole.
    Ending,
    /// No more is read; what is left goes to the client, and so it ended.
    Closing(Ended),
}

impl Replication {
    /// The user that it logged in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.account.user.name
    }

    /// The database whose server it has.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.account.user.database
    }

    /// Serves the connection to its end, and tells how it ended.
    pub async fn run(mut self) -> Ended {
        poll_fn(|cx| {
            self.registered.handle.listen(cx.waker());
            Poll::Ready(())
        })
        .await;
        let ended = poll_fn(|cx| self.poll(cx)).await;
        let _ = pgdog_net::timer::timeout(GOODBYE, self.stream.shutdown()).await;
        // The server learns it by its closed socket: a goodbye might come to stand within a message of the client's.
        let Self {
            server,
            places,
            tidying,
            ..
        } = self;
        tidying.spawn(async move {
            server.gone(false).await;
            drop(places);
        });
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let signals = self.registered.handle.take_signals();
        if signals.has(Signal::CANCEL) {
            self.cancel();
        }
        if signals.has(Signal::DRAIN) || signals.has(Signal::TERMINATE) {
            self.end();
        }
        loop {
            match self.pass(cx) {
                Err(ended) => return Poll::Ready(ended),
                Ok(true) => {}
                Ok(false) if signals.has(Signal::TERMINATE) => {
                    return Poll::Ready(Ended::Refused(Box::new(shutting_down())));
                }
                Ok(false) => return Poll::Pending,
            }
        }
    }

    /// Moves what can be moved now; says whether that was anything.
    fn pass(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let mut moved = self.read_server(cx);
        let before = self.down.len();
        let (written, flushed) =
            poll_out(&mut self.stream, &mut self.down, cx).map_err(Ended::Broke)?;
        let sent = (before - self.down.len()) as u64;
        self.registered.handle.counters.sent.add(sent);
        moved |= written;
        if matches!(self.flow, Flow::Closing(_))
            && flushed
            && self.down.is_empty()
            && let Flow::Closing(ended) = std::mem::take(&mut self.flow)
        {
            return Err(ended);
        }
        moved |= self.read_client(cx)?;
        match poll_out(&mut self.server.stream, &mut self.up, cx) {
            Ok((_, true)) if matches!(self.flow, Flow::Left) && self.up.is_empty() => {
                Err(Ended::Left)
            }
            Ok((written, _)) => Ok(moved | written),
            // A server that closes says why before: reading comes to the end of it.
            Err(_) => {
                self.up.clear();
                Ok(moved)
            }
        }
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.flow, Flow::Closing(_)) || self.down.len() >= HIGH {
            return false;
        }
        let before = self.down.len();
        match self.server.poll_fill(cx, &mut self.down) {
            Poll::Pending => false,
            Poll::Ready(Ok(1..)) => {
                let came = &self.down.data()[before..];
                match (&self.flow, self.boundary.finish(came)) {
                    (Flow::Ending, Ok(Some(rest))) => {
                        self.down.bytes.truncate(self.down.bytes.len() - rest);
                        self.end();
                    }
                    (_, Ok(Some(rest))) => {
                        let rest = &came[came.len() - rest..];
                        if let Err(error) = self.boundary.pass(rest) {
                            self.out_of_sync(&error);
                        }
                    }
                    (_, Ok(None)) => {}
                    (_, Err(error)) => self.out_of_sync(&error),
                }
                true
            }
            Poll::Ready(_) => {
                self.flow = Flow::Closing(Ended::ServerLost);
                true
            }
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if !matches!(self.flow, Flow::Open) || self.up.len() >= HIGH {
            return Ok(false);
        }
        self.up.reserve(buffer::SIZE / 4);
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.up.bytes) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => self.flow = Flow::Left,
            Poll::Ready(Ok(n)) => self.registered.handle.counters.received.add(n as u64),
            Poll::Ready(Err(error)) => return Err(Ended::Broke(error)),
        }
        Ok(true)
    }

    /// Has the last word, now or when the message that passes by is whole.
    fn end(&mut self) {
        if matches!(self.flow, Flow::Closing(_)) {
            return;
        }
        if !self.boundary.between() {
            self.flow = Flow::Ending;
            return;
        }
        let error = shutting_down();
        error.write(&mut self.down.bytes);
        self.flow = Flow::Closing(Ended::Refused(Box::new(error)));
    }

    /// What passes by are no messages: nothing can be said between them.
    fn out_of_sync(&mut self, error: &FrameError) {
        tracing::warn!(
            user = self.user(),
            database = self.database(),
            code = sqlstate::PROTOCOL_VIOLATION,
            "server broke the protocol of a replication connection: {error}"
        );
        self.flow = Flow::Closing(Ended::ServerLost);
    }

    /// The server is this client's alone, so a request that comes late hits nobody else.
    fn cancel(&self) {
        let Some(key) = self.server.key.clone() else {
            return;
        };
        let target = self.target.clone();
        self.tidying.spawn(async move {
            if let Err(error) = pgdog_backend::cancel::cancel(&target, &key).await {
                tracing::warn!("failed to cancel what a replication connection runs: {error}");
            }
        });
    }
}

/// Where messages end within bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Boundary {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the body that are to come, once the header is whole.
    left: usize,
}

impl Boundary {
    /// Whether no message has begun.
    fn between(&self) -> bool {
        self.have == 0
    }

    /// Goes on to the end of the message that `bytes` continue or begin; how many of them are behind it, `None` when it
    /// does not end with them.
    fn finish(&mut self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let head = bytes.len().min(HEADER - self.have);
        self.header[self.have..self.have + head].copy_from_slice(&bytes[..head]);
        self.have += head;
        if self.have < HEADER {
            return Ok(None);
        }
        if head > 0 {
            self.left = Header::peek(&self.header)?.map_or(0, |h| h.len - HEADER);
        }
        let body = self.left.min(bytes.len() - head);
        self.left -= body;
        if self.left > 0 {
            return Ok(None);
        }
        self.have = 0;
        Ok(Some(bytes.len() - head - body))
    }

    /// Goes on over all of `bytes`.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty()
            && let Some(rest) = self.finish(bytes)?
        {
            bytes = &bytes[bytes.len() - rest..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &[u8] = b"d\0\0\0\x08abcdS\0\0\0\x04Z\0\0\0\x05I";
    /// Where one ends.
    const ENDS: [usize; 4] = [0, 9, 14, 20];

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        for first in 0..=MESSAGES.len() {
            for second in first..=MESSAGES.len() {
                let mut boundary = Boundary::default();
                for piece in [&MESSAGES[..first], &MESSAGES[first..second]] {
                    boundary.pass(piece).unwrap();
                }
                assert_eq!(
                    boundary.between(),
                    ENDS.contains(&second),
                    "{first} {second}"
                );
                let rest = boundary.finish(&MESSAGES[second..]).unwrap();
                let next = ENDS
                    .iter()
                    .find(|end| **end > second)
                    .map(|end| MESSAGES.len() - end);
                assert_eq!(rest, next, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_length_that_is_none_is_an_error() {
        let mut boundary = Boundary::default();
        assert!(boundary.pass(b"d\0\0\0\x04d\0\0\0\x03").is_err());
    }
}
