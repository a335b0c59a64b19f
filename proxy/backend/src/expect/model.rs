//! A small PostgreSQL that knows its protocol and nothing else, after `src/backend/tcop/postgres.c` and
//! `CopyGetData` of `src/backend/commands/copyfromparse.c`: what the queue is checked against.

use std::collections::VecDeque;

/// What a statement does, as far as the protocol shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rows,
    NoRows,
    Empty,
    Suspended,
    Begin,
    Commit,
    CopyIn,
    CopyOut,
    Fails,
    /// Reports a setting and says something besides.
    Chatty,
}

impl Kind {
    fn ends_transaction(self) -> bool {
        matches!(self, Kind::Commit)
    }
}

/// A message to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    Query(Vec<Kind>),
    FunctionCall(bool),
    Parse(Kind),
    Bind(Kind),
    Describe(Kind),
    Execute(Kind),
    Close,
    Sync,
    Flush,
    CopyData,
    CopyDone,
    CopyFail,
}

/// A message of the server: its type, and the status byte of a ReadyForQuery.
pub(super) type Answer = (u8, u8);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Normal,
    /// After an error in an extended message: nothing counts up to the Sync.
    Skip,
    /// In a COPY FROM STDIN of an Execute.
    CopyExtended,
    /// In a COPY FROM STDIN of a query string, with what comes after it in the string.
    CopySimple(VecDeque<Kind>),
    /// The connection was closed.
    Dead,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    mode: Mode,
    status: u8,
    /// Extended messages came since the last Sync.
    implicit: bool,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Normal,
            status: b'I',
            implicit: false,
        }
    }

    pub(super) fn dead(&self) -> bool {
        self.mode == Mode::Dead
    }

    /// Whether another client may have it.
    pub(super) fn at_rest(&self) -> bool {
        self.mode == Mode::Normal && self.status == b'I' && !self.implicit
    }

    /// Takes one message in and gives the answers to it.
    pub(super) fn take(&mut self, sent: &Sent) -> Vec<Answer> {
        let mut out = Vec::new();
        match std::mem::replace(&mut self.mode, Mode::Normal) {
            Mode::Dead => self.mode = Mode::Dead,
            Mode::Skip if *sent != Sent::Sync => self.mode = Mode::Skip,
            Mode::CopyExtended => self.in_copy(sent, None, &mut out),
            Mode::CopySimple(rest) => self.in_copy(sent, Some(rest), &mut out),
            Mode::Normal | Mode::Skip => self.normal(sent, &mut out),
        }
        out
    }

    fn in_copy(&mut self, sent: &Sent, rest: Option<VecDeque<Kind>>, out: &mut Vec<Answer>) {
        match (sent, rest) {
            (Sent::CopyData | Sent::Flush | Sent::Sync, None) => self.mode = Mode::CopyExtended,
            (Sent::CopyData | Sent::Flush | Sent::Sync, Some(rest)) => {
                self.mode = Mode::CopySimple(rest)
            }
            (Sent::CopyDone, None) => out.push((b'C', 0)),
            (Sent::CopyDone, Some(rest)) => {
                out.push((b'C', 0));
                self.run(rest, out);
            }
            (Sent::CopyFail, None) => self.fail(true, out),
            (Sent::CopyFail, Some(_)) => self.fail(false, out),
            _ => {
                // "unexpected message type", and then "protocol synchronization was lost".
                out.extend([(b'E', 0), (b'E', 0)]);
                self.mode = Mode::Dead;
            }
        }
    }

    fn fail(&mut self, extended: bool, out: &mut Vec<Answer>) {
        out.push((b'E', 0));
        if self.status == b'T' {
            self.status = b'E';
        }
        if extended {
            self.mode = Mode::Skip;
        } else {
            self.ready(out);
        }
    }

    fn ready(&mut self, out: &mut Vec<Answer>) {
        self.implicit = false;
        out.push((b'Z', self.status));
    }

    fn normal(&mut self, sent: &Sent, out: &mut Vec<Answer>) {
        let refused = |kind: Kind, this: &Self| {
            kind == Kind::Fails || this.status == b'E' && !kind.ends_transaction()
        };
        self.implicit |= matches!(
            sent,
            Sent::Parse(_) | Sent::Bind(_) | Sent::Describe(_) | Sent::Execute(_) | Sent::Close
        );
        match sent {
            Sent::Query(kinds) => self.run(kinds.iter().copied().collect(), out),
            Sent::FunctionCall(ok) if *ok && self.status != b'E' => {
                out.push((b'V', 0));
                self.ready(out);
            }
            Sent::FunctionCall(_) => self.fail(false, out),
            Sent::Parse(kind) | Sent::Bind(kind) | Sent::Execute(kind) if refused(*kind, self) => {
                self.fail(true, out)
            }
            Sent::Parse(_) => out.push((b'1', 0)),
            Sent::Bind(_) => out.push((b'2', 0)),
            Sent::Describe(Kind::Fails) => self.fail(true, out),
            // A statement that returns rows is not described in a failed transaction.
            Sent::Describe(Kind::Rows) if self.status == b'E' => self.fail(true, out),
            Sent::Describe(kind) => out.extend([
                (b't', 0),
                if *kind == Kind::Rows {
                    (b'T', 0)
                } else {
                    (b'n', 0)
                },
            ]),
            Sent::Execute(kind) => {
                if *kind == Kind::CopyIn {
                    out.push((b'G', 0));
                    self.mode = Mode::CopyExtended;
                } else {
                    self.execute(*kind, out);
                }
            }
            Sent::Close => out.push((b'3', 0)),
            Sent::Sync => self.ready(out),
            Sent::Flush | Sent::CopyData | Sent::CopyDone | Sent::CopyFail => {}
        }
    }

    /// The statements of a query string.
    fn run(&mut self, mut kinds: VecDeque<Kind>, out: &mut Vec<Answer>) {
        while let Some(kind) = kinds.pop_front() {
            if kind == Kind::Fails || self.status == b'E' && !kind.ends_transaction() {
                return self.fail(false, out);
            }
            if kind == Kind::CopyIn {
                out.push((b'G', 0));
                self.mode = Mode::CopySimple(kinds);
                return;
            }
            if matches!(kind, Kind::Rows) {
                out.push((b'T', 0));
            }
            self.execute(kind, out);
        }
        self.ready(out);
    }

    fn execute(&mut self, kind: Kind, out: &mut Vec<Answer>) {
        match kind {
            Kind::Rows => out.extend([(b'D', 0), (b'D', 0), (b'C', 0)]),
            Kind::Empty => out.push((b'I', 0)),
            Kind::Suspended => out.extend([(b'D', 0), (b's', 0)]),
            Kind::CopyOut => out.extend([(b'H', 0), (b'd', 0), (b'c', 0), (b'C', 0)]),
            Kind::Chatty => out.extend([(b'N', 0), (b'S', 0), (b'A', 0), (b'C', 0)]),
            Kind::Begin => {
                self.status = b'T';
                out.push((b'C', 0));
            }
            Kind::Commit => {
                self.status = b'I';
                out.push((b'C', 0));
            }
            Kind::NoRows | Kind::CopyIn | Kind::Fails => out.push((b'C', 0)),
        }
    }
}
