//! A connection without another end: what it says was written down before, and nobody hears what it is told.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

/// What is said in one go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The silence before it.
    pub pause: Duration,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Says its parts one after the other, each after its pause. Then it is silent, until it is given others.
///
/// Caveat: [`Script::load`] wakes nobody. It is for the task that reads.
#[derive(Default)]
pub struct Script {
    parts: Arc<[Part]>,
    /// The part that is being said, and how much of it was.
    at: (usize, usize),
    pause: Option<Pin<Box<Sleep>>>,
    paused: bool,
}

impl Script {
    /// Begins with these parts. What was not said of those before is forgotten.
    pub fn load(&mut self, parts: Arc<[Part]>) {
        *self = Self {
            parts,
            ..Self::default()
        };
    }

    /// Whether everything has been said.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.at.0 >= self.parts.len()
    }

    /// Ready when it has something to say.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(part) = self.parts.get(self.at.0) else {
            return Poll::Pending;
        };
        if self.paused || part.pause.is_zero() {
            return Poll::Ready(());
        }
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(crate::timer::sleep(part.pause)));
        ready!(pause.as_mut().poll(cx));
        self.pause = None;
        self.paused = true;
        Poll::Ready(())
    }

    /// Reads some of it into `dst`.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<usize> {
        loop {
            ready!(self.poll_ready(cx));
            let (part, from) = self.at;
            let bytes = &self.parts[part].bytes[from..];
            let count = bytes.len().min(dst.len());
            dst[..count].copy_from_slice(&bytes[..count]);
            self.at.1 += count;
            if count == bytes.len() {
                self.at = (part + 1, 0);
                self.paused = false;
            }
            // Nothing read would say that it has closed.
            if count > 0 || dst.is_empty() {
                return Poll::Ready(count);
            }
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they are what clients say.
        f.debug_struct("Script")
            .field("parts", &self.parts.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Stream;

    fn part(pause: u64, text: &str) -> Part {
        Part {
            pause: Duration::from_millis(pause),
            bytes: text.as_bytes().to_vec(),
        }
    }

    #[tokio::test]
    async fn it_says_its_parts_after_their_pauses_and_then_nothing() {
        let mut stream = Stream::Script(Box::default());
        let Stream::Script(script) = &mut stream else {
            panic!("it is one");
        };
        script.load([part(0, "ab"), part(20, ""), part(30, "cde")].into());
        let begun = std::time::Instant::now();
        let mut read = [0; 5];
        stream.read_exact(&mut read[..1]).await.unwrap();
        stream.read_exact(&mut read[1..2]).await.unwrap();
        stream.readable().await.unwrap();
        stream.read_exact(&mut read[2..]).await.unwrap();
        assert_eq!(&read, b"abcde");
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert!(matches!(&stream, Stream::Script(script) if script.is_spent()));
        stream.write_all(b"into the void").await.unwrap();
        stream.shutdown().await.unwrap();
        let silent = poll_fn(|cx| Poll::Ready(stream.poll_read_slice(cx, &mut read).is_pending()));
        assert!(silent.await);
    }
}
