//! The requests of one client that its server works on: which answer ends which, and how long each took.
//!
//! A server does one thing after the other. So of several requests in flight each is taken to begin when the one before has
//! ended, or when it was handed over, if that was later; what they took adds up to the time in which the server was busy for
//! this client. The last Execute of a batch ends with the ReadyForQuery of its Sync, since that is where the server commits.
//! Several statements in one query string are one request.
//!
//! Time is asked for with `now` only where the caller has no reading of its own yet: the last request before the client
//! has to wait ends with [`Flight::turn`], which is given one.

use std::collections::VecDeque;
use std::sync::Arc;

use pgdog_backend::statements::Shape;
use pgdog_wire::{ErrorResponse, error};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To prepare a statement. That counts only when it fails.
    Parse,
    /// To run a portal, up to so many rows; 0 is all.
    Execute(u32),
    /// To run a query string.
    Query,
}

/// A request whose answer is not complete.
#[derive(Debug)]
struct Asked {
    kind: Kind,
    shape: Arc<Shape>,
    /// How many ReadyForQuery come before its own.
    batch: u64,
    /// When it was handed to the server at the earliest, ns.
    since: u64,
    rows: u64,
    error: Option<[u8; 5]>,
}

/// A request that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) shape: Arc<Shape>,
    /// ns.
    pub(crate) elapsed: u64,
    pub(crate) rows: u64,
    /// The SQLSTATE, when it failed.
    pub(crate) error: Option<[u8; 5]>,
}

/// A message of the server that the client is to get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
    /// The error that the client gets instead of this one.
    pub(crate) instead: Option<&'a ErrorResponse>,
    /// Nothing else is owed.
    pub(crate) last: bool,
}

/// The requests.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    queue: VecDeque<Asked>,
    /// One that is answered, but whose end is the ReadyForQuery behind it, or the next turn.
    ended: Option<Asked>,
    /// How many ReadyForQuery were asked for.
    asked: u64,
    /// How many of these have come.
    answered: u64,
    /// When the oldest request of those now with the server was handed over, ns.
    handed: u64,
    /// When the server was done with the one before, ns.
    free: u64,
}

impl Flight {
    /// A message that runs or prepares something is about to be handed over. `since`: when the client began to wait for what
    /// it now waits for. `settled`: the server owes nothing and is in no batch; `idle`: it owes nothing.
    pub(crate) fn begins(
        &mut self,
        since: u64,
        (settled, idle): (bool, bool),
        now: impl FnOnce() -> u64,
    ) -> Option<Done> {
        if !idle {
            return None;
        }
        if settled && self.ended.is_none() && since >= self.free {
            self.handed = since;
            return None;
        }
        // In the middle of a batch the client may have thought for long.
        let now = now();
        let done = self.ended.take().map(|ended| self.finish(ended, now));
        self.handed = now;
        done
    }

    /// It was handed over.
    pub(crate) fn ask(&mut self, kind: Kind, shape: Arc<Shape>) {
        self.queue.push_back(Asked {
            kind,
            shape,
            batch: self.asked,
            since: self.handed,
            rows: 0,
            error: None,
        });
        if kind == Kind::Query {
            self.asked += 1;
        }
    }

    /// A Sync was handed over.
    pub(crate) fn sync(&mut self) {
        self.asked += 1;
    }

    /// The server has answered something. What that ends, if it does and the time has to be asked for.
    pub(crate) fn answer(&mut self, answer: Answer<'_>, now: impl FnOnce() -> u64) -> Option<Done> {
        match answer.kind {
            b'1' => {
                self.queue.pop_front_if(|asked| asked.kind == Kind::Parse);
                None
            }
            b'C' => {
                let front = self.queue.front_mut()?;
                front.rows += rows(answer.body);
                self.executed(now)
            }
            b'I' => self.executed(now),
            b's' => {
                let front = self.queue.front_mut()?;
                if let Kind::Execute(most) = front.kind {
                    front.rows += u64::from(most);
                }
                self.executed(now)
            }
            b'E' => self.failed(answer, now),
            b'Z' => self.ready(answer.last, now),
            _ => None,
        }
    }

    /// The client is about to wait for nothing, or for something else.
    pub(crate) fn turn(&mut self, now: u64) -> Option<Done> {
        self.ended.take().map(|ended| self.finish(ended, now))
    }

    /// The server is gone, or its client is: what it was doing ends so.
    pub(crate) fn cut_off(&mut self, code: [u8; 5], now: u64) -> Option<Done> {
        let mut cut = self.ended.take();
        if cut.is_none() {
            cut = self.queue.pop_front();
            if let Some(cut) = &mut cut {
                cut.error.get_or_insert(code);
            }
        }
        self.queue.clear();
        cut.map(|cut| self.finish(cut, now))
    }

    /// All is answered: nothing of this client stays.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.ended = None;
        self.asked = 0;
        self.answered = 0;
    }

    /// An Execute is over, if it is one.
    fn executed(&mut self, now: impl FnOnce() -> u64) -> Option<Done> {
        let executes = |asked: &mut Asked| matches!(asked.kind, Kind::Execute(_));
        let asked = self.queue.pop_front_if(executes)?;
        self.over(asked, now)
    }

    /// It ends now, or with the ReadyForQuery that comes next.
    fn over(&mut self, asked: Asked, now: impl FnOnce() -> u64) -> Option<Done> {
        let more = self.queue.front().is_some_and(|n| n.batch == asked.batch);
        if !more && self.asked > asked.batch {
            self.ended = Some(asked);
            return None;
        }
        Some(self.finish(asked, now()))
    }

    fn failed(&mut self, answer: Answer<'_>, now: impl FnOnce() -> u64) -> Option<Done> {
        let code = match answer.instead {
            Some(error) => error.code.as_bytes(),
            None => error::field(answer.body, b'C').unwrap_or_default(),
        };
        let code = code.try_into().unwrap_or(*b"XX000");
        let batch = self.answered;
        if let Some(ended) = &mut self.ended
            && ended.batch == batch
        {
            // A constraint that is looked at with the commit.
            ended.error = Some(code);
            return None;
        }
        let front = self.queue.front_mut().filter(|f| f.batch == batch)?;
        front.error = Some(code);
        let fatal = matches!(error::field(answer.body, b'V'), Some(b"FATAL" | b"PANIC"));
        if front.kind == Kind::Query && !fatal {
            return None;
        }
        let failed = self.queue.pop_front()?;
        while let Some(skipped) = self.queue.pop_front_if(|a| a.batch == batch) {
            // A Query in a batch without its Sync: there is no ReadyForQuery for it now.
            self.answered += u64::from(skipped.kind == Kind::Query);
        }
        if fatal {
            return Some(self.finish(failed, now()));
        }
        self.over(failed, now)
    }

    fn ready(&mut self, last: bool, now: impl FnOnce() -> u64) -> Option<Done> {
        self.answered += 1;
        if last {
            // The Syncs within a COPY are not answered.
            self.answered = self.asked;
        }
        let answered = self.answered;
        while let Some(asked) = self.queue.pop_front_if(|a| a.batch < answered) {
            if asked.kind == Kind::Query {
                self.ended = Some(asked);
            }
        }
        if last {
            return None;
        }
        let ended = self.ended.take()?;
        Some(self.finish(ended, now()))
    }

    fn finish(&mut self, asked: Asked, now: u64) -> Done {
        let began = asked.since.max(self.free);
        self.free = now;
        Done {
            shape: asked.shape,
            elapsed: now.saturating_sub(began),
            rows: asked.rows,
            error: asked.error,
        }
    }
}

/// The rows that a CommandComplete tells of: the number at the end of its tag.
fn rows(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let digits = tag.rsplit(|b| *b == b' ').next().unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
