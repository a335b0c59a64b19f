//! Where a query string may go, and why.

use std::fmt;

use crate::functions::Verdict;
use crate::hints::RoleHint;

/// The answer for one query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Which servers may run it.
    pub place: Place,
    /// What decided that.
    pub why: Why,
    /// What a comment asks for. It is not applied to the place: that is the caller's decision.
    pub hint: Option<RoleHint>,
    /// The string's first statement begins a transaction that the string does not end.
    pub begins: Option<Begins>,
    /// It is one statement, or none, as far as can be told.
    pub lone: bool,
}

/// Whether a text is one statement, or none, as far as can be told without reading it.
#[must_use]
pub fn is_one(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text);
    !text.contains(&b';')
}

/// Which servers may run a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The primary alone.
    Primary,
    /// Any server that may be read from.
    Read,
    /// Whatever server is at hand: the answer does not depend on it (`SET`, `COMMIT`, nothing at all).
    Anywhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Read => "read",
            Self::Anywhere => "anywhere",
        })
    }
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Begins {
    /// It asks to write, or for `SERIALIZABLE`, which no replica has.
    ReadWrite,
    /// It only reads.
    ReadOnly,
    /// It does not say.
    Unsaid,
}

/// How strongly rows are locked, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// `FOR KEY SHARE`.
    KeyShare,
    /// `FOR SHARE`.
    Share,
    /// `FOR NO KEY UPDATE`.
    NoKeyUpdate,
    /// `FOR UPDATE`.
    Update,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyShare => "FOR KEY SHARE",
            Self::Share => "FOR SHARE",
            Self::NoKeyUpdate => "FOR NO KEY UPDATE",
            Self::Update => "FOR UPDATE",
        })
    }
}

/// What decided a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Nothing in it writes.
    OnlyReads,
    /// There is no statement in it.
    Empty,
    /// `SET` and `RESET`.
    Sets,
    /// `SHOW`.
    Shows,
    /// `COMMIT`, `ROLLBACK` and what goes on within a transaction.
    Transaction,
    /// `DEALLOCATE`, `DISCARD`, `CLOSE`, `FETCH`: about what the session has on its server.
    Session,
    /// A transaction begins that may write.
    Begins,
    /// A transaction begins that only reads.
    BeginsReadOnly,
    /// `READ WRITE` is asked for.
    ReadWrite,
    /// `SERIALIZABLE` is asked for.
    Serializable,
    /// The statement writes, or may do so: its command.
    Writes(&'static str),
    /// A part of a query writes: its command.
    WritesInside(&'static str),
    /// `EXPLAIN` of a statement that writes.
    Explains(&'static str),
    /// A locking clause.
    Locks(Lock),
    /// `SELECT … INTO`.
    Into,
    /// A function is called that may write. [`crate::facts::Facts::explain`] names it.
    Calls(Verdict),
    /// Something is mentioned that calls a function which may write: a view, an operator, a cast.
    Reaches(Verdict),
    /// A temporary object is read, which one session has.
    Temporary,
    /// A view is read, or a setting shown, that tells of the server itself.
    OneServer,
    /// `COPY … FROM`.
    CopyFrom,
    /// `COPY … TO` a file or a program of the server.
    CopyToFile,
    /// `PREPARE`: what it makes is on one server.
    Prepares,
    /// `DECLARE … WITH HOLD`: the cursor is on one server, beyond its transaction.
    Holds,
    /// `EXECUTE`: what it runs is not in the text.
    Executes,
    /// `SET TRANSACTION SNAPSHOT`.
    Snapshot,
    /// It does not parse: an error, or grammar that is too new.
    Unknown,
    /// It is too long to look at.
    TooLong,
    /// It is not UTF-8: in some encodings a byte of a letter looks like a backslash, and names are not what they are elsewhere.
    Encoding,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyReads => "only reads",
            Self::Empty => "no statement",
            Self::Sets => "changes settings of the session",
            Self::Shows => "shows settings of the session",
            Self::Transaction => "transaction control",
            Self::Session => "concerns the session",
            Self::Begins => "begins a transaction that may write",
            Self::BeginsReadOnly => "begins a read-only transaction",
            Self::ReadWrite => "READ WRITE is asked for",
            Self::Serializable => "SERIALIZABLE is asked for, which no replica has",
            Self::Writes(command) => return write!(f, "{command} writes"),
            Self::WritesInside(command) => return write!(f, "{command} within the query"),
            Self::Explains(command) => return write!(f, "EXPLAIN of {command}"),
            Self::Locks(lock) => return write!(f, "locking clause {lock}"),
            Self::Into => "SELECT INTO makes a table",
            Self::Calls(verdict) => return write!(f, "a function {verdict}"),
            Self::Reaches(verdict) => {
                return write!(f, "what it mentions calls a function that {verdict}");
            }
            Self::Temporary => "reads a temporary object",
            Self::OneServer => "tells of the server itself",
            Self::CopyFrom => "COPY FROM writes",
            Self::CopyToFile => "COPY to a file or program of the server",
            Self::Encoding => "is not in UTF-8",
            Self::Prepares => "PREPARE leaves a statement on its server",
            Self::Holds => "a cursor WITH HOLD stays on its server",
            Self::Executes => "what EXECUTE runs is not in the text",
            Self::Snapshot => "a snapshot of one server",
            Self::Unknown => "does not parse",
            Self::TooLong => "too long to parse",
        })
    }
}
