//! Transactions that have begun and of which nothing else has taken place: they begin again on another host.

use pgdog_backend::ServerError;
use pgdog_sql::route::is_one;
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::frontend::query_text;
use pgdog_wire::{Header, Severity, frame};

use super::{AGAIN_MAX, Handed};
use crate::active::Active;
use crate::client::{Client, Ended};
use crate::settle::ASK_TIMEOUT;

impl Active {
    /// Answers a BEGIN, which the server is told before the next statement.
    pub(super) fn defer(&mut self) {
        let len = self.keep_begin();
        let word = self.trial.begin.trim_ascii_start().get(..5);
        let starts = word.is_some_and(|word| word.eq_ignore_ascii_case(b"start"));
        self.trial.deferred = true;
        self.cin.consume(len);
        let tag = if starts { "START TRANSACTION" } else { "BEGIN" };
        backend::command_complete(&mut self.cout.bytes, tag);
        backend::ready(&mut self.cout.bytes, TransactionStatus::InTransaction);
    }

    /// Has the transaction begin on the server that the client has now.
    pub(crate) async fn begin(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&self.trial.begin).into_owned();
        match server.query(&text, ASK_TIMEOUT).await {
            Ok(_) => {
                self.trial.deferred = false;
                self.trial.first = true;
                Ok(())
            }
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                self.drop_server(client);
                self.refuse(client, error.into_fatal()).await
            }
            Err(error) => self.lost_before_use(client, error).await,
        }
    }

    /// The first request of a transaction that nothing has taken place of: it can be sent again, behind its BEGIN.
    pub(crate) fn arm(&mut self, client: &Client) {
        if !std::mem::take(&mut self.trial.first) {
            return;
        }
        let data = self.cin.data();
        let (mut at, mut executed) = (0, 0);
        while let Ok(Some(Header { kind, len })) = Header::peek(&data[at..]) {
            let Some(body) = data.get(at + frame::HEADER..at + len) else {
                break;
            };
            at += len;
            executed += u32::from(kind == b'E');
            let ends = matches!(kind, b'Q' | b'S');
            // More than one may end the transaction in between.
            let one = match kind {
                b'Q' => is_one(query_text(body).unwrap_or_default()),
                _ => executed <= 1,
            };
            if ends && one && at <= AGAIN_MAX && client.tap.is_none() {
                self.trial.bytes.clear();
                self.trial.bytes.extend_from_slice(&data[..at]);
                self.trial.mark = self.cout.len();
                self.trial.handed = Handed::None;
                self.trial.heard = false;
                return;
            }
            if ends {
                break;
            }
        }
        self.trial.begin.clear();
    }

    /// Whether nothing of the transaction has taken place but its BEGIN, so that it can begin again on another host.
    pub(crate) fn has_only_begun(&self) -> bool {
        self.trial.first && !self.trial.begin.is_empty()
    }

    /// Keeps the text of the BEGIN that the client has said. Gives the length of its message.
    pub(super) fn keep_begin(&mut self) -> usize {
        let header = Header::peek(self.cin.data()).ok().flatten();
        let len = header.map_or(0, |header| header.len);
        let body = self.cin.data().get(frame::HEADER..len);
        let text = body.and_then(query_text).unwrap_or_default();
        self.trial.begin.clear();
        self.trial.begin.extend_from_slice(text);
        len
    }

    /// The server is at rest within a transaction.
    #[cold]
    #[inline(never)]
    pub(crate) fn routed_within(&mut self) {
        if self.trial.first {
            // Nothing has been asked since.
            return;
        }
        self.trial.bytes.clear();
        self.trial.first = std::mem::take(&mut self.trial.opening) && !self.failed;
        if !self.trial.first {
            self.trial.begin.clear();
        }
    }
}
