//! What a server still owes: one entry for each message it was sent, taken off as its answers come.
//!
//! Pure: bytes of a server's message in, a verdict out. The rules are those of `src/backend/tcop/postgres.c`:
//! after an error in an extended-protocol message the server ignores everything until Sync, after one in a Query it does not;
//! in COPY FROM STDIN it ignores Sync and Flush until the copy ends.

use std::collections::VecDeque;

use pgdog_wire::ErrorResponse;
use pgdog_wire::backend::TransactionStatus;
use thiserror::Error;

use crate::statements::StatementId;

/// What one message sent to the server will be answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Query or FunctionCall: anything up to a ReadyForQuery.
    Query,
    /// Parse: ParseComplete. The id is set when the statement is one of the store's.
    Parse(Option<StatementId>),
    /// Bind: BindComplete. The id is set when the statement is one of the store's.
    Bind(Option<StatementId>),
    /// Describe: a RowDescription or NoData ends it. Of this statement, where it is one of the store.
    Describe(Option<StatementId>),
    /// Execute: CommandComplete, EmptyQueryResponse or PortalSuspended ends it.
    Execute,
    /// Close: CloseComplete.
    Close,
    /// Sync: ReadyForQuery.
    Sync,
    /// A Parse that the proxy put in: its ParseComplete is not for the client. No id: the unnamed statement.
    OwnParse(Option<StatementId>),
    /// A Close that the proxy put in. No id: the unnamed statement.
    OwnClose(Option<StatementId>),
    /// A Bind that the proxy put in.
    OwnBind,
    /// An Execute of a PREPARE that the proxy put in. No id: one under the client's own name for it.
    OwnExecute(Option<StatementId>),
    /// A Sync that the proxy put in: its ReadyForQuery is not for the client.
    OwnSync,
    /// Nothing was sent; the client gets this ParseComplete or CloseComplete (`b'1'`, `b'3'`) when its turn comes.
    /// A Parse only where the transaction cannot have failed by then, see [`Owed::awaits_status`].
    /// 0: there is no answer, but a change of the client's unnamed statement that an error before it takes back.
    Fake(u8),
    /// A Parse that the server must refuse, because the client has this name in use.
    Taken(Box<[u8]>),
    /// A message that is bound to fail was sent; the client gets this error instead of the server's.
    Instead(Box<ErrorResponse>),
    /// CopyDone or CopyFail was sent: where a copy ends, if there is one.
    CopyEnd,
}

impl Expect {
    /// Stands before what changes the client's unnamed statement while answers are still to come.
    pub const MARK: Self = Self::Fake(0);

    /// Whether the server may be left with another unnamed statement than it seems, when this is skipped.
    fn changes_unnamed(&self) -> bool {
        matches!(
            self,
            Self::Fake(0) | Self::OwnParse(None) | Self::OwnClose(None)
        )
    }

    /// Whether an error before it does not skip what comes behind it.
    fn ends_batch(&self) -> bool {
        matches!(self, Self::Query | Self::Sync | Self::OwnSync)
    }

    /// The stored statement that comes into being on the server, or ends there.
    fn changes(&self) -> Option<StatementId> {
        match self {
            Self::Parse(id) | Self::OwnParse(id) | Self::OwnClose(id) | Self::OwnExecute(id) => *id,
            _ => None,
        }
    }

    /// Whether the client does not know of it.
    fn is_own(&self) -> bool {
        matches!(
            self,
            Self::OwnParse(_) | Self::OwnClose(_) | Self::OwnBind | Self::OwnExecute(_)
        )
    }
}

/// What to do with a message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the client.
    Forward,
    /// Keep it from the client.
    Swallow,
    /// Hand the client this error instead.
    Instead(Box<ErrorResponse>),
}

/// The server said something that no sent message accounts for. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("server sent an unexpected message of type {kind:?}", kind = *kind as char)]
pub struct OutOfSync {
    /// The message's type.
    pub kind: u8,
}

/// The queue, and what the server's answers have told of its state.
#[derive(Debug)]
pub struct Owed {
    queue: VecDeque<Expect>,
    /// State at the last ReadyForQuery.
    pub status: TransactionStatus,
    /// Messages since the last Sync or Query: the server is within an implicit transaction.
    pub unsynced: bool,
    /// Nothing since the last Sync or Query can have run anything: there were only Parse, Describe and Close.
    pub idle_batch: bool,
    /// The server ignores everything until the next Sync.
    pub ignoring: bool,
    /// The server reads COPY data, and the copy's end was not sent yet.
    pub copy_in: bool,
    /// Entries that no message of the server takes off: [`Expect::Fake`] and [`Expect::CopyEnd`].
    silent: u32,
    /// Parses and Closes of stored statements in the queue.
    changes: u32,
    /// Entries in the queue that change the unnamed statement, other than the client's own while nothing else is owed.
    unnamed_changes: u32,
    /// Statements whose Parse did not take place after all, to be forgotten by whoever keeps track.
    pub lost: Vec<StatementId>,
    /// Statements whose Close did not take place after all.
    pub kept: Vec<StatementId>,
    /// The statement whose Bind or Describe failed last.
    pub failed_bind: Option<StatementId>,
    /// What was to make or close the unnamed statement was skipped: which one the server has is not known.
    pub unnamed_unsure: bool,
    /// The Parse of an unnamed statement has failed: there is none any more.
    pub failed_parse: bool,
    /// The last ParseComplete was for a Parse of a stored statement that the client itself sent.
    pub confirmed: bool,
    /// The oldest of those was itself what failed; what came after it was skipped.
    pub undone_failed: bool,
    /// The name that the client has in use and was to be given again.
    pub taken: Option<Box<[u8]>>,
    /// How many of the client's own Parses of stored statements and faked answers an error has undone.
    pub undone: usize,
}

impl Default for Owed {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            status: TransactionStatus::Idle,
            unsynced: false,
            idle_batch: true,
            ignoring: false,
            copy_in: false,
            silent: 0,
            changes: 0,
            unnamed_changes: 0,
            lost: Vec::new(),
            kept: Vec::new(),
            failed_bind: None,
            unnamed_unsure: false,
            failed_parse: false,
            confirmed: false,
            undone_failed: false,
            taken: None,
            undone: 0,
        }
    }
}

impl Owed {
    /// Whether nothing is owed and no implicit transaction is open.
    #[inline]
    #[must_use]
    pub fn settled(&self) -> bool {
        self.queue.is_empty() && !self.unsynced && !self.copy_in
    }

    /// Whether nothing is owed, outside of any transaction: the connection may serve another client.
    #[inline]
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.status == TransactionStatus::Idle && self.settled()
    }

    /// Whether a Sync would change nothing but let the server go: all of an unfinished batch is answered, without an error,
    /// and it has only prepared or described.
    #[inline]
    #[must_use]
    pub fn prepared_only(&self) -> bool {
        self.unsynced
            && self.idle_batch
            && self.queue.is_empty()
            && !self.ignoring
            && !self.copy_in
            && self.status == TransactionStatus::Idle
    }

    /// Whether answers are on their way.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the transaction status may be another one by the time that the next message is looked at by the server.
    #[must_use]
    pub fn awaits_status(&self) -> bool {
        let failed = self.status == TransactionStatus::Failed;
        self.queue
            .iter()
            .any(|e| e.ends_batch() || failed && matches!(e, Expect::Execute))
    }

    /// Whether a Parse or Close of this statement is still to be answered, and may be skipped without what is sent now being
    /// skipped with it: nobody knows whether the server will have the statement then.
    #[must_use]
    pub fn awaits_change(&self, id: StatementId) -> bool {
        let changes = |e: &Expect| e.changes() == Some(id);
        self.changes > 0
            && self
                .queue
                .iter()
                .skip_while(|e| !changes(e))
                .any(Expect::ends_batch)
    }

    /// Whether the end of a batch is still to be answered: what was sent before it may be skipped, and what is sent now not.
    #[must_use]
    pub fn awaits_end(&self) -> bool {
        self.queue.iter().any(Expect::ends_batch)
    }

    /// Whether the last change of the unnamed statement may be skipped without what is sent now being skipped with it: nobody
    /// knows which one the server will have then.
    #[must_use]
    pub fn awaits_unnamed(&self) -> bool {
        self.unnamed_changes > 0
            && self
                .queue
                .iter()
                .rev()
                .take_while(|e| !e.changes_unnamed())
                .any(Expect::ends_batch)
    }

    /// Notes a message that was sent (or, for [`Expect::Fake`], was not).
    // Always inlined: where it is known which message it is, most of this is known too.
    #[inline(always)]
    pub fn push(&mut self, expect: Expect) {
        self.changes += u32::from(expect.changes().is_some());
        self.unnamed_changes += u32::from(expect.changes_unnamed());
        match expect {
            Expect::Query => {
                self.unsynced = false;
                self.idle_batch = true;
            }
            Expect::Sync | Expect::OwnSync => {
                self.unsynced = false;
                self.ignoring = false;
                self.idle_batch = true;
            }
            Expect::Fake(0) | Expect::CopyEnd => self.silent += 1,
            Expect::Fake(_) => {
                self.silent += 1;
                self.unsynced = true;
            }
            Expect::Bind(_) | Expect::Execute | Expect::Instead(_) => {
                self.unsynced = true;
                self.idle_batch = false;
            }
            _ => self.unsynced = true,
        }
        self.queue.push_back(expect);
    }

    /// Notes a Sync. In COPY FROM STDIN the server ignores it.
    #[inline]
    pub fn push_sync(&mut self) {
        if !self.copy_in {
            self.push(Expect::Sync);
        }
    }

    /// Notes a CopyDone or CopyFail.
    pub fn push_copy_end(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if !self.queue.is_empty() {
            self.silent += 1;
            self.queue.push_back(Expect::CopyEnd);
        }
    }

    /// Takes in one message of the server; `body` needs to be whole for `E` and `Z` only.
    ///
    /// # Errors
    ///
    /// [`OutOfSync`] when the message answers nothing that was sent.
    #[inline]
    pub fn answer(&mut self, kind: u8, body: &[u8]) -> Result<Verdict, OutOfSync> {
        let bad = OutOfSync { kind };
        match kind {
            // What a PREPARE has to say was said when the client sent it.
            b'N' if self.queue.front().is_some_and(Expect::is_own) => Ok(Verdict::Swallow),
            b'D' | b'd' | b'N' | b'S' | b'A' | b't' | b'V' | b'H' | b'c' => Ok(Verdict::Forward),
            b'Z' => {
                self.status = TransactionStatus::read(body).ok_or(bad)?;
                match self.queue.pop_front() {
                    Some(Expect::Query | Expect::Sync) => Ok(Verdict::Forward),
                    Some(Expect::OwnSync) => Ok(Verdict::Swallow),
                    _ => Err(bad),
                }
            }
            b'C' if matches!(self.queue.front(), Some(Expect::OwnExecute(_))) => {
                let id = self.queue.pop_front().and_then(|e| e.changes());
                self.changes -= u32::from(id.is_some());
                Ok(Verdict::Swallow)
            }
            b'C' | b'I' | b's' => self.done(bad, |e| matches!(e, Expect::Execute)),
            b'T' => self.done(bad, |e| matches!(e, Expect::Describe(_))),
            b'n' => match self.queue.pop_front() {
                Some(Expect::Describe(_)) => Ok(Verdict::Forward),
                _ => Err(bad),
            },
            b'1' => match self.queue.pop_front() {
                Some(Expect::Parse(id)) => {
                    self.confirmed |= id.is_some();
                    self.changes -= u32::from(id.is_some());
                    Ok(Verdict::Forward)
                }
                Some(Expect::Taken(_)) => Ok(Verdict::Forward),
                Some(Expect::OwnParse(id)) => {
                    self.changes -= u32::from(id.is_some());
                    self.unnamed_changes -= u32::from(id.is_none());
                    Ok(Verdict::Swallow)
                }
                _ => Err(bad),
            },
            b'2' => match self.queue.pop_front() {
                Some(Expect::Bind(_)) => Ok(Verdict::Forward),
                Some(Expect::OwnBind) => Ok(Verdict::Swallow),
                _ => Err(bad),
            },
            b'3' => match self.queue.pop_front() {
                Some(Expect::Close) => Ok(Verdict::Forward),
                Some(Expect::OwnClose(id)) => {
                    self.changes -= u32::from(id.is_some());
                    self.unnamed_changes -= u32::from(id.is_none());
                    Ok(Verdict::Swallow)
                }
                _ => Err(bad),
            },
            b'G' => {
                self.copy_begins();
                Ok(Verdict::Forward)
            }
            b'E' => Ok(self.fail()),
            _ => Err(bad),
        }
    }

    /// Within a Query such a message changes nothing; else it must end the entry at the front.
    fn done(
        &mut self,
        bad: OutOfSync,
        ends: impl Fn(&Expect) -> bool,
    ) -> Result<Verdict, OutOfSync> {
        match self.queue.front() {
            Some(Expect::Query) => Ok(Verdict::Forward),
            Some(front) if ends(front) => {
                self.queue.pop_front();
                Ok(Verdict::Forward)
            }
            // A describe of the portal is answered by T; rows of a FETCH in an Execute bring none.
            _ => Err(bad),
        }
    }

    /// The server reads COPY data now: it ignores the Syncs that were sent before the copy's end.
    fn copy_begins(&mut self) {
        self.copy_in = true;
        let mut index = 1;
        while index < self.queue.len() && self.copy_in {
            match self.queue[index] {
                Expect::Sync => {
                    self.queue.remove(index);
                }
                Expect::CopyEnd => {
                    self.queue.remove(index);
                    self.silent -= 1;
                    self.copy_in = false;
                }
                _ => index += 1,
            }
        }
        // The Syncs that were sent are lost: without another, what follows the copy is still to be synced.
        let synced = self
            .queue
            .iter()
            .any(|e| matches!(e, Expect::Query | Expect::Sync));
        self.unsynced |= !synced;
        self.idle_batch &= synced;
    }

    fn fail(&mut self) -> Verdict {
        self.copy_in = false;
        // A Parse or PREPARE of ours with a Sync of ours is all ours: what follows fails in its own words.
        let ours = self.queue.front().is_some_and(Expect::is_own)
            && matches!(
                self.queue.iter().find(|e| !e.is_own()),
                Some(Expect::OwnSync)
            );
        let instead = match self.queue.front() {
            None | Some(Expect::Query | Expect::Sync | Expect::OwnSync) => return Verdict::Forward,
            Some(Expect::Instead(error)) => Some(error.clone()),
            Some(Expect::Bind(id) | Expect::Describe(id)) => {
                self.failed_bind = *id;
                None
            }
            Some(Expect::Parse(id)) => {
                self.failed_parse = id.is_none();
                self.undone_failed = id.is_some();
                None
            }
            Some(Expect::Taken(name)) => {
                self.taken = Some(name.clone());
                None
            }
            Some(_) => None,
        };
        loop {
            match self.queue.front() {
                Some(Expect::Sync | Expect::OwnSync) => break,
                None => {
                    // A Query among what was ignored ended nothing.
                    self.ignoring = true;
                    self.unsynced = true;
                    break;
                }
                Some(_) => {}
            }
            // Of several that speak of one statement, the first tells what the server was left with.
            let skipped = self.queue.pop_front();
            self.changes -= u32::from(skipped.as_ref().and_then(Expect::changes).is_some());
            self.unnamed_changes -=
                u32::from(skipped.as_ref().is_some_and(Expect::changes_unnamed));
            match skipped {
                Some(Expect::Parse(Some(id))) => {
                    if !self.kept.contains(&id) {
                        self.lost.push(id);
                    }
                    self.undone += 1;
                }
                Some(Expect::OwnParse(Some(id)) | Expect::OwnExecute(Some(id)))
                    if !self.kept.contains(&id) =>
                {
                    self.lost.push(id);
                }
                Some(Expect::OwnClose(Some(id))) if !self.lost.contains(&id) => self.kept.push(id),
                Some(Expect::Parse(None) | Expect::OwnParse(None) | Expect::OwnClose(None)) => {
                    self.unnamed_unsure = true;
                }
                Some(Expect::Fake(_)) => {
                    self.silent -= 1;
                    self.undone += 1;
                }
                Some(Expect::CopyEnd) => self.silent -= 1,
                _ => {}
            }
        }
        match instead {
            _ if ours => Verdict::Swallow,
            Some(error) => Verdict::Instead(error),
            None => Verdict::Forward,
        }
    }

    /// Drops what answers have told of a client's names that nobody keeps any more.
    pub fn forget_client(&mut self) {
        self.failed_bind = None;
        self.unnamed_unsure = false;
        self.failed_parse = false;
        self.confirmed = false;
        self.undone_failed = false;
        self.taken = None;
        self.undone = 0;
    }

    /// Whether there are entries that need no message of the server.
    #[inline]
    #[must_use]
    pub fn has_silent(&self) -> bool {
        self.silent > 0
    }

    /// Takes off entries that need no message of the server: calls `emit` with each answer that is now due to the client.
    #[inline]
    pub fn due(&mut self, mut emit: impl FnMut(u8)) {
        while self.has_silent() {
            match self.queue.front() {
                Some(&Expect::Fake(kind)) => {
                    emit(kind);
                    self.unnamed_changes -= u32::from(kind == 0);
                }
                Some(Expect::CopyEnd) if !self.copy_in => {}
                _ => return,
            }
            self.silent -= 1;
            self.queue.pop_front();
        }
    }

    /// The oldest message that is not answered yet.
    #[must_use]
    pub fn front(&self) -> Option<&Expect> {
        self.queue.front()
    }

    /// The message that was sent last, when it is not answered yet.
    #[must_use]
    pub fn back(&self) -> Option<&Expect> {
        self.queue.back()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
