//! Transactions that have begun and of which nothing else has taken place: they begin again on another host.

use pgdog_backend::{CheckoutError, ServerError};
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::frontend::query_text;
use pgdog_wire::{ClientError as _, Header, Severity, frame};

use super::ask::is_one;
use super::{AGAIN_MAX, Handed};
use crate::active::Active;
use crate::client::{Client, Ended};
use crate::settle::ASK_TIMEOUT;

impl Active {
    /// Answers a BEGIN, which the server is told before the next statement.
    pub(super) fn defer(&mut self) {
        let len = Header::peek(self.cin.data())
            .ok()
            .flatten()
            .map_or(0, |h| h.len);
        let text = query_text(&self.cin.data()[frame::HEADER..len]).unwrap_or_default();
        let starts = text.trim_ascii_start().get(..5);
        let starts = starts.is_some_and(|word| word.eq_ignore_ascii_case(b"start"));
        self.trial.begin.clear();
        self.trial.begin.extend_from_slice(text);
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
                self.trial.mark = self.cout.len();
                Ok(())
            }
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                self.drop_server(client);
                self.refuse(client, error.into_fatal()).await
            }
            Err(error) => {
                self.drop_server(client);
                let why = CheckoutError::Server(error);
                match self.host_failed(client, &why).await {
                    Some(held) => held,
                    None => self.refuse(client, why.response().into_fatal()).await,
                }
            }
        }
    }

    /// The first request of a transaction that nothing has taken place of: it can be sent again, behind its BEGIN.
    pub(crate) fn arm(&mut self, client: &Client) {
        self.trial.first = false;
        let data = self.cin.data();
        let mut at = 0;
        while let Ok(Some(Header { kind, len })) = Header::peek(&data[at..]) {
            let Some(body) = data.get(at + frame::HEADER..at + len) else {
                break;
            };
            at += len;
            let ends = matches!(kind, b'Q' | b'S');
            let one = kind != b'Q' || is_one(query_text(body).unwrap_or_default());
            if ends && one && at <= AGAIN_MAX && client.tap.is_none() {
                self.trial.bytes.clear();
                self.trial.bytes.extend_from_slice(&data[..at]);
                self.trial.mark = self.cout.len();
                self.trial.handed = Handed::None;
                return;
            }
            if ends {
                break;
            }
        }
        self.trial.begin.clear();
    }

    /// The server is at rest within a transaction.
    #[cold]
    #[inline(never)]
    pub(crate) fn routed_within(&mut self) {
        let bytes = std::mem::take(&mut self.trial.bytes);
        if bytes.is_empty() {
            return;
        }
        // That was its BEGIN, if it came alone.
        let text = bytes.get(frame::HEADER..).and_then(query_text);
        let text = text.filter(|_| bytes[0] == b'Q' && !self.failed);
        self.trial.begin.clear();
        if let Some(text) = text.filter(|text| begins(text)) {
            self.trial.begin.extend_from_slice(text);
            self.trial.first = true;
        }
    }
}

/// Whether a text is one statement that begins a transaction.
fn begins(text: &[u8]) -> bool {
    let word = text
        .trim_ascii_start()
        .split(|b| !b.is_ascii_alphabetic())
        .next();
    let word = word.unwrap_or_default();
    is_one(text) && (word.eq_ignore_ascii_case(b"begin") || word.eq_ignore_ascii_case(b"start"))
}
