//! The console's session: the protocol of a server, simple and extended, with commands in place of SQL.
//!
//! Flow: messages are read whole and served one after the other; while a command runs, its client is listened to, so that
//! one that has gone, or has sent a cancel request, does not keep it waiting. An idle console waits for its socket alone.

mod extended;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pgdog_net::Stream;
use pgdog_session::registry::Registered;
use pgdog_session::{Console, Doing, Ended, Signal};
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::frame::split;
use pgdog_wire::{ErrorResponse, Header, frontend, sqlstate};
use tokio_util::io::poll_read_buf;

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, syntax};
use crate::command::{Args, Running};
use crate::console::extended::{Portal, Prepared};
use crate::lexer;
use crate::statement::{self, Run, Statement, Transaction};
use crate::table::{self, Column, Format, Value};

/// Longest message that is read, bytes.
const MESSAGE_MAX: usize = 1024 * 1024;
/// Bytes that a client may send while its command runs.
const AHEAD_MAX: usize = 64 * 1024;
/// Room for one read.
const READ: usize = 4096;

/// Serves a console to its end, and tells how it ended.
pub async fn run(console: Console, admin: Arc<Admin>) -> Ended {
    let Console {
        stream,
        input,
        registered,
        parameters,
    } = console;
    poll_fn(|cx| {
        registered.handle.listen(cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut session = Session {
        admin,
        stream,
        input,
        out: Vec::new(),
        registered,
        parameters,
        status: TransactionStatus::Idle,
        skipping: false,
        statements: HashMap::new(),
        portals: HashMap::new(),
    };
    let ended = match session.serve().await {
        Err(ended) => ended,
        Ok(never) => match never {},
    };
    if let Ended::Refused(error) = &ended {
        error.write(&mut session.out);
        let told = session.flush();
        let _ = pgdog_net::timer::timeout(std::time::Duration::from_secs(1), told).await;
    }
    ended
}

/// Nothing: a session ends by an error only.
#[derive(Debug)]
enum Never {}

/// One console.
struct Session {
    admin: Arc<Admin>,
    stream: Stream,
    /// What the client has said and nobody has looked at yet.
    input: Buffer,
    /// What it is to be told with the next flush.
    out: Vec<u8>,
    registered: Registered,
    /// Settings that it was told of.
    parameters: Vec<(String, String)>,
    status: TransactionStatus,
    /// After an error of the extended protocol: messages are skipped up to a Sync.
    skipping: bool,
    statements: HashMap<Vec<u8>, Arc<Prepared>>,
    portals: HashMap<Vec<u8>, Portal>,
}

/// What is told of a command that went well.
#[derive(Debug, Default)]
struct Told {
    notices: Vec<ErrorResponse>,
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    tag: String,
}

impl Session {
    async fn serve(&mut self) -> Result<Never, Ended> {
        loop {
            while let Some((kind, body)) = self.next_message()? {
                self.message(kind, &body).await?;
            }
            self.listen().await?;
        }
    }

    /// The next whole message, when it is there.
    fn next_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, Ended> {
        let header = Header::peek(self.input.data()).map_err(|e| violation(e.to_string()))?;
        if header.is_some_and(|h| h.len > MESSAGE_MAX) {
            return Err(violation(format!(
                "the message is longer than {MESSAGE_MAX} bytes"
            )));
        }
        let found = split(self.input.data()).map_err(|e| violation(e.to_string()))?;
        let Some((frame, len)) = found else {
            return Ok(None);
        };
        let message = (frame.kind, frame.body.to_vec());
        self.input.consume(len);
        Ok(Some(message))
    }

    /// Waits until the client says something more, or is to go.
    async fn listen(&mut self) -> Result<(), Ended> {
        if self.input.is_empty() {
            self.input.shrink();
        }
        let read = poll_fn(|cx| {
            if let Poll::Ready(signal) = self.poll_signal() {
                return Poll::Ready(signal.map(|_| 0));
            }
            self.poll_read(cx).map(|read| read.map(|_| 1))
        });
        read.await.map(|_| ())
    }

    /// What the client was told from outside: `Ok` is a cancel request.
    fn poll_signal(&self) -> Poll<Result<(), Ended>> {
        let signals = self.registered.handle.take_signals();
        if signals.has(Signal::DRAIN) || signals.has(Signal::TERMINATE) {
            let text = "terminating connection due to administrator command";
            let error = ErrorResponse::fatal(sqlstate::ADMIN_SHUTDOWN, text);
            return Poll::Ready(Err(Ended::Refused(Box::new(error))));
        }
        if signals.has(Signal::CANCEL) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.input.reserve(READ);
        let stream = Pin::new(&mut self.stream);
        poll_read_buf(stream, cx, &mut self.input.bytes).map(|read| match read {
            Ok(0) => Err(Ended::Left),
            Ok(count) => {
                self.registered.handle.counters.received.add(count as u64);
                Ok(())
            }
            Err(error) => Err(Ended::Broke(error)),
        })
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let out = std::mem::take(&mut self.out);
        let mut sent = 0;
        while sent < out.len() {
            let written = poll_fn(|cx| self.stream.poll_write_slice(cx, &out[sent..])).await;
            match written.map_err(Ended::Broke)? {
                0 => return Err(Ended::Left),
                count => sent += count,
            }
        }
        self.registered.handle.counters.sent.add(sent as u64);
        poll_fn(|cx| self.stream.poll_flush_all(cx))
            .await
            .map_err(Ended::Broke)
    }

    async fn message(&mut self, kind: u8, body: &[u8]) -> Result<(), Ended> {
        match kind {
            b'Q' => {
                self.skipping = false;
                self.simple(body).await?;
                self.ready().await
            }
            b'S' => {
                self.skipping = false;
                // A portal lives as long as its transaction.
                if self.status == TransactionStatus::Idle {
                    self.portals.clear();
                }
                self.ready().await
            }
            b'H' => self.flush().await,
            b'X' => Err(Ended::Left),
            // What is left of a COPY that was refused.
            b'd' | b'c' | b'f' => Ok(()),
            b'P' | b'B' | b'D' | b'E' | b'C' if self.skipping => Ok(()),
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                let done = self.extended(kind, body).await?;
                if let Err(error) = done {
                    self.fail(&error);
                    self.skipping = true;
                }
                Ok(())
            }
            b'F' => {
                self.fail(&crate::answer::unsupported(
                    "the admin console has no functions to call",
                ));
                self.ready().await
            }
            other => Err(violation(format!("invalid frontend message type {other}"))),
        }
    }

    async fn ready(&mut self) -> Result<(), Ended> {
        backend::ready(&mut self.out, self.status);
        self.flush().await
    }

    fn fail(&mut self, error: &Refusal) {
        error.write(&mut self.out);
        self.registered.handle.counters.errors.add(1);
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    /// A string of commands: those behind one that fails are not run.
    async fn simple(&mut self, body: &[u8]) -> Result<(), Ended> {
        let commands = match text(frontend::query_text(body)).and_then(lexer::commands) {
            Ok(commands) => commands,
            Err(error) => {
                self.fail(&error);
                return Ok(());
            }
        };
        let alone = commands.len() == 1;
        for tokens in commands {
            let done = match statement::parse(&tokens) {
                Ok(Statement::Empty) => {
                    if alone {
                        backend::bare(&mut self.out, b'I');
                    }
                    continue;
                }
                Ok(statement) => self.execute(&statement).await?,
                Err(error) => Err(error),
            };
            let told = match done {
                Ok(told) => told,
                Err(error) => {
                    self.fail(&error);
                    return Ok(());
                }
            };
            let columns: Vec<_> = told.columns.iter().map(|c| (c, Format::Text)).collect();
            told.notices.iter().for_each(|n| n.write(&mut self.out));
            if !columns.is_empty() {
                table::describe(&mut self.out, &columns);
            }
            for row in &told.rows {
                table::data_row(&mut self.out, &columns, row);
            }
            backend::command_complete(&mut self.out, &told.tag);
        }
        Ok(())
    }

    /// Does what a statement asks for.
    async fn execute(&mut self, statement: &Statement) -> Result<Result<Told, Refusal>, Ended> {
        if self.status == TransactionStatus::Failed
            && !matches!(statement, Statement::Transaction(..) | Statement::Empty)
        {
            let text =
                "current transaction is aborted, commands ignored until end of transaction block";
            return Ok(Err(Refusal::new(sqlstate::IN_FAILED_TRANSACTION, text)));
        }
        let mut told = Told {
            columns: columns(statement),
            ..Told::default()
        };
        match statement {
            Statement::Empty => {}
            Statement::Run(run) => match self.command(run).await? {
                Ok(answer) => {
                    told.notices = answer.notices;
                    told.tag = tag(run);
                    let pick = |row: &Vec<Value>| {
                        let value = |at: &usize| row[*at].clone();
                        run.picked.iter().map(value).collect()
                    };
                    told.rows = answer.rows.iter().map(pick).collect();
                }
                Err(error) => return Ok(Err(error)),
            },
            Statement::Value { value, tag, .. } => {
                told.rows = vec![vec![value.clone()]];
                (*tag).clone_into(&mut told.tag);
            }
            Statement::Setting(name) => {
                told.rows = vec![vec![self.setting(name).into()]];
                "SHOW".clone_into(&mut told.tag);
            }
            Statement::Transaction(change, tag) => {
                let failed = self.status == TransactionStatus::Failed;
                self.status = match change {
                    Transaction::Begin if failed => TransactionStatus::Failed,
                    Transaction::Begin | Transaction::Back => TransactionStatus::InTransaction,
                    Transaction::End => TransactionStatus::Idle,
                };
                let tag = if failed && *change == Transaction::End {
                    "ROLLBACK"
                } else {
                    tag
                };
                tag.clone_into(&mut told.tag);
            }
            Statement::Accepted(tag) => (*tag).clone_into(&mut told.tag),
        }
        self.registered.handle.counters.queries.add(1);
        Ok(Ok(told))
    }

    /// The value of a setting of the session.
    fn setting(&self, name: &str) -> String {
        let told = self.parameters.iter();
        let told = told.clone().find(|(n, _)| n.eq_ignore_ascii_case(name));
        match (told, name) {
            (Some((_, value)), _) => value.clone(),
            (None, "transaction_isolation" | "default_transaction_isolation") => {
                "read committed".to_owned()
            }
            (None, "server_version_num") => "150000".to_owned(),
            (None, "search_path") => "\"$user\", public".to_owned(),
            (None, "transaction_read_only") => "off".to_owned(),
            (None, _) => String::new(),
        }
    }

    /// Runs a command, while the client is listened to.
    async fn command(&mut self, run: &Run) -> Result<Result<Answer, Refusal>, Ended> {
        let clock = self.admin.runtime.clock.clone();
        self.registered.handle.does(Doing::Active, clock.now());
        let admin = self.admin.clone();
        let mut running: Running<'_> = run.command.run(&admin, Args(&run.args));
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = running.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if let Poll::Ready(signal) = self.poll_signal() {
                let text = "canceling statement due to user request";
                let cancelled = Refusal::new(sqlstate::QUERY_CANCELED, text);
                return Poll::Ready(signal.map(|()| Err(cancelled)));
            }
            while self.input.len() < AHEAD_MAX {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(ended)) => return Poll::Ready(Err(ended)),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await;
        self.registered.handle.does(Doing::Idle, clock.now());
        done
    }
}

/// The columns of what a statement gives.
fn columns(statement: &Statement) -> Vec<Column> {
    match statement {
        Statement::Run(run) => {
            let columns = run.command.columns();
            run.picked.iter().map(|at| columns[*at]).collect()
        }
        Statement::Value { column, .. } => vec![*column],
        Statement::Setting(name) => vec![Column::text(name, "A setting of the session.")],
        _ => Vec::new(),
    }
}

/// The tag of a command's answer: its first word.
fn tag(run: &Run) -> String {
    let name = run.command.name();
    name.split(' ').next().unwrap_or(name).to_owned()
}

/// The text of a query.
fn text(bytes: Option<&[u8]>) -> Result<&str, Refusal> {
    let bytes = bytes.ok_or_else(|| syntax("the text of the command does not end"))?;
    std::str::from_utf8(bytes).map_err(|_| {
        let text = "invalid byte sequence for encoding \"UTF8\"";
        Refusal::new(INVALID_ENCODING, text)
    })
}

/// `character_not_in_repertoire`.
const INVALID_ENCODING: &str = "22021";

fn violation(text: impl Into<String>) -> Ended {
    Ended::Refused(Box::new(ErrorResponse::fatal(
        sqlstate::PROTOCOL_VIOLATION,
        text,
    )))
}
