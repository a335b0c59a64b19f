//! What the client says: each message is looked at by its header, and by as much of its body as a decision needs.

use std::task::Context;

use pgdog_backend::Expect;
use pgdog_backend::probe::Reasons;
use pgdog_config::{PoolerMode, QuerySizeAction};
use pgdog_sql::{Effects, effects};
use pgdog_wire::backend::{self, TransactionStatus};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::frontend::query_text;
use pgdog_wire::{ErrorResponse, Header, frame, frontend, sqlstate};

use crate::active::{Active, Checkout, Event, Leaving, Passing, Pending};
use crate::client::Client;
use crate::handle::Doing;
use crate::mirror;
use crate::notify::Fetch;
use crate::sequences::Values;

/// A Query or Parse up to this size is looked at whole; a larger one passes by unread, and counts as one that may do anything.
pub(crate) const READ_MAX: usize = 1024 * 1024;
/// The names at the start of a Bind must lie within this much of it.
pub(crate) const NAMES_MAX: usize = 8 * 1024;
/// Largest message of the kinds that are always small (PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`).
const SMALL_MAX: usize = 10_000;
/// Largest message at all (`PQ_LARGE_MESSAGE_LIMIT`).
const LARGE_MAX: usize = 0x3fff_ffff;
/// A statement name that no statement has: a Bind to it fails, whatever the session holds.
pub(crate) const NO_STATEMENT: &[u8] = b"__pgdog_none";

/// What became of one message.
pub(crate) enum Step {
    /// It is dealt with; the next.
    Next,
    /// More of it must come first.
    More,
    /// It waits for a connection, or for answers.
    Wait,
}

impl Active {
    /// Deals with the client's messages as far as they are there. Says whether any was.
    pub(crate) fn requests(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
    ) -> Result<bool, Event> {
        let mut moved = false;
        while !self.cin.is_empty() && !self.barrier && self.waiting.is_none() {
            if self.from_client.left > 0 {
                if let Some(tap) = &mut client.tap {
                    let count = self.from_client.left.min(self.cin.len());
                    tap.more(&self.cin.data()[..count]);
                }
                self.pass_on();
                moved = true;
                continue;
            }
            let header = Header::peek(self.cin.data()).map_err(|e| violation(e.to_string()))?;
            let Some(header) = header else { break };
            let (tapped, before) = (client.tap.is_some(), self.cin.len());
            if tapped {
                self.offer(client, header);
            }
            let step = self.request(client, header, cx);
            if tapped {
                mirror::settle(client, self.cin.len() < before);
            }
            match step? {
                Step::Next => moved = true,
                Step::More => {
                    let missing = header.len.saturating_sub(self.cin.len());
                    self.cin.reserve(missing.min(READ_MAX));
                    break;
                }
                Step::Wait => {
                    moved |= self.waiting.is_none();
                    break;
                }
            }
        }
        // Answers that need nothing of the server are due now, if all before them were given.
        self.due(client, 0, 0, 0);
        Ok(moved)
    }

    /// Offers a message to the client's mirrors.
    #[cold]
    #[inline(never)]
    fn offer(&self, client: &mut Client, header: Header) {
        let there = &self.cin.data()[..header.len.min(self.cin.len())];
        let anew = self.server.is_none() && !self.skipping;
        let pause = (self.doing == Doing::IdleInTransaction)
            .then(|| self.tally.lasts(client.runtime.clock.precise()));
        mirror::offer(client, header, there, anew, pause);
    }

    /// Passes on, or drops, what is there of the message that is passing by.
    fn pass_on(&mut self) {
        let count = self.from_client.left.min(self.cin.len());
        self.from_client.left -= count;
        if !self.from_client.kept {
            self.cin.consume(count);
        } else if count == self.cin.len() {
            self.cin.move_to(&mut self.sout);
        } else {
            self.sout.bytes.extend_from_slice(&self.cin.data()[..count]);
            self.cin.consume(count);
        }
    }

    /// Lets a message pass: what is there of it now, the rest as it comes.
    #[inline]
    pub(crate) fn pass(&mut self, len: usize, kept: bool) {
        if !kept || len > self.cin.len() {
            self.from_client = Passing { left: len, kept };
            return self.pass_on();
        }
        // All of it is there, as mostly.
        if len == self.cin.len() {
            return self.cin.move_to(&mut self.sout);
        }
        let Buffer { bytes, start } = &mut self.cin;
        let end = *start + len;
        self.sout.bytes.extend_from_slice(&bytes[*start..end]);
        *start = end;
    }

    // Inlined, as `serve` is: this is the way of each message.
    #[inline(always)]
    fn request(
        &mut self,
        client: &mut Client,
        header: Header,
        cx: &mut Context<'_>,
    ) -> Result<Step, Event> {
        let Header { kind, len } = header;
        let small = matches!(
            kind,
            b'E' | b'D' | b'C' | b'S' | b'H' | b'X' | b'c' | b'f' | b'p'
        );
        let most = match kind {
            // Nothing is in it. PostgreSQL passes over everything up to the next Sync after one that has something, and nobody waits
            // for an answer to a Flush: the server would be lent to the next client like that.
            b'H' => frame::HEADER,
            _ if small => SMALL_MAX,
            _ => LARGE_MAX,
        };
        if len > most {
            return Err(violation(format!(
                "invalid message length {} of message type {:?}",
                len - 1,
                kind as char
            )));
        }
        let whole = self.cin.len() >= len;
        if !whole && small {
            return Ok(Step::More);
        }
        match kind {
            b'X' => {
                self.leaves(client, Leaving::Goodbye, cx);
                self.cin.clear();
                return Ok(Step::Next);
            }
            b'd' | b'c' | b'f' => return Ok(self.copy_data(kind, len)),
            b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'S' | b'H' | b'F' => {}
            _ => return Err(violation(format!("invalid frontend message type {kind}"))),
        }
        if self.ignored(kind, len) {
            return Ok(Step::Next);
        }
        // Sync and Flush without anything before them need no server.
        if let Some(server) = &self.server {
            if client.pool().is_deposed(server) {
                if self.has_only_begun() {
                    return Err(Event::BeginElsewhere);
                }
                if let Some(error) = self.deposed(client) {
                    return Err(Event::Refuse(Box::new(error)));
                }
            }
        } else {
            match kind {
                b'S' if len == frame::HEADER => {
                    self.cin.consume(len);
                    let status = if self.trial.deferred {
                        TransactionStatus::InTransaction
                    } else {
                        TransactionStatus::Idle
                    };
                    backend::ready(&mut self.cout.bytes, status);
                    return Ok(Step::Next);
                }
                b'H' if len == frame::HEADER => {
                    self.cin.consume(len);
                    return Ok(Step::Next);
                }
                _ => match self.checkout(client, cx)? {
                    Checkout::Ready => {}
                    Checkout::Wait => return Ok(Step::Wait),
                    Checkout::More => return Ok(Step::More),
                    Checkout::Answered => return Ok(Step::Next),
                },
            }
        }
        if self.trial.watched() {
            if self.trial.deferred {
                return Err(Event::Begin);
            }
            if let Some(step) = self.guard(client, header, whole)? {
                return Ok(step);
            }
            self.arm(client);
        }
        self.note(client, Doing::Active);
        if self.watch.is_some() && !self.look(client, header, whole) {
            return Ok(Step::More);
        }
        let step = self.serve(client, header, whole)?;
        if matches!(step, Step::Next) {
            self.tally.asked(kind);
            if self.trial.routed {
                self.handed(kind);
            }
            if self.watch.is_some() {
                self.handed_over(client);
            }
        }
        Ok(step)
    }

    /// Passes a message on to the server that the client has, changed where that must be.
    #[inline(always)]
    fn serve(&mut self, client: &mut Client, header: Header, whole: bool) -> Result<Step, Event> {
        let Header { kind, len } = header;
        if self.mode == PoolerMode::Session && kind != b'P' && kind != b'B' {
            return Ok(self.as_it_is(kind, len));
        }
        match kind {
            b'Q' => self.query(client, len, whole),
            b'P' => self.parse(client, len, whole),
            b'B' => self.bind(client, len, whole),
            b'D' | b'C' => Ok(self.describe_or_close(client, kind, len)),
            b'E' if self
                .effects
                .any(Effects::FORGETS.with(Effects::NAMES_STATEMENT)) =>
            {
                // What follows in the batch must see which statements are gone, or there: wait for the answer.
                let step = self.as_it_is(kind, len);
                frontend::bare(&mut self.sout.bytes, b'H');
                self.barrier = true;
                Ok(step)
            }
            b'S' => {
                self.wait_behind_settings(client);
                Ok(self.as_it_is(kind, len))
            }
            _ => Ok(self.as_it_is(kind, len)),
        }
    }

    /// Whether a message is dropped because an error came before it in its batch.
    fn ignored(&mut self, kind: u8, len: usize) -> bool {
        let by_server = self.server.as_ref().is_some_and(|s| s.owed.ignoring);
        if !self.skipping && !by_server {
            return false;
        }
        if kind == b'S' {
            if !self.skipping {
                return false;
            }
            self.skipping = false;
            self.cin.consume(len);
            backend::ready(&mut self.cout.bytes, TransactionStatus::Idle);
            return true;
        }
        self.pass(len, false);
        true
    }

    /// COPY data goes where a copy may be going on, and nowhere else: PostgreSQL ignores strays.
    fn copy_data(&mut self, kind: u8, len: usize) -> Step {
        let wanted = match &mut self.server {
            Some(server) if !self.skipping && (server.owed.copy_in || !server.owed.is_empty()) => {
                if kind != b'd' {
                    server.owed.push_copy_end();
                }
                true
            }
            _ => false,
        };
        self.pass(len, wanted);
        Step::Next
    }

    /// Whether a FunctionCall is one of the functions that change the session: `set_config`, and those of advisory locks
    /// (PostgreSQL, `pg_proc.dat`).
    fn changes_session(&self, len: usize) -> bool {
        let function = self.cin.data().get(frame::HEADER..len);
        let function = function.and_then(|body| body.first_chunk::<4>());
        let function = function.map(|number| u32::from_be_bytes(*number));
        matches!(function, Some(2078 | 2880..=2892))
    }

    /// Passes a message on unchanged.
    pub(crate) fn as_it_is(&mut self, kind: u8, len: usize) -> Step {
        if kind == b'F' && self.changes_session(len) {
            self.effects = self.effects.with(Effects::UNKNOWN);
        }
        if let Some(server) = &mut self.server {
            match kind {
                b'Q' | b'F' => {
                    server.owed.push(Expect::Query);
                    server.unnamed = 0;
                }
                b'P' => server.owed.push(Expect::Parse(None)),
                b'B' => server.owed.push(Expect::Bind(None)),
                b'D' => server.owed.push(Expect::Describe(None)),
                b'E' => server.owed.push(Expect::Execute),
                b'C' => server.owed.push(Expect::Close),
                b'S' => server.owed.push_sync(),
                _ => {}
            }
        }
        self.pass(len, true);
        Step::Next
    }

    fn body(&self, len: usize) -> &[u8] {
        &self.cin.data()[frame::HEADER..len]
    }

    fn query(&mut self, client: &mut Client, len: usize, whole: bool) -> Result<Step, Event> {
        if let Some(limit) = self.query_limit(client, len) {
            return limit;
        }
        if !whole && len <= READ_MAX {
            return Ok(Step::More);
        }
        if client.statements.as_ref().is_some_and(|s| s.has_unnamed()) {
            self.mark_unnamed(client);
        }
        if let Some(statements) = &mut client.statements {
            statements.clear_unnamed();
        }
        if !whole {
            self.effects = self.effects.with(Effects::UNKNOWN);
            self.retire_server();
            self.keep_here(client);
            return Ok(self.as_it_is(b'Q', len));
        }
        let found = query_text(self.body(len)).map_or(Effects::NONE, effects);
        if found == Effects::NONE {
            self.wait_behind_settings(client);
            return Ok(self.as_it_is(b'Q', len));
        }
        self.special_query(client, len, found)
    }

    /// A Query that changes more than the transaction.
    fn special_query(
        &mut self,
        client: &mut Client,
        len: usize,
        found: Effects,
    ) -> Result<Step, Event> {
        match self.fetches(client, found, true)? {
            Fetch::Fine => {}
            Fetch::Later => return Ok(self.wait_for_answers()),
            Fetch::Late => return Ok(self.refuse_late(len, true)),
        }
        if found.any(Effects::NAMES_STATEMENT)
            && let Some(step) = self.named_query(client, len)?
        {
            return Ok(step);
        }
        if found.any(Effects::BEGINS) && self.mode == PoolerMode::Statement {
            return Err(Event::Refuse(Box::new(no_transactions())));
        }
        let alone = self.server.as_ref().is_some_and(|s| s.owed.at_rest());
        let text =
            String::from_utf8_lossy(query_text(self.body(len)).unwrap_or_default()).into_owned();
        if self.sequences(client, found)? == Values::Mixed {
            return Ok(self.refuse_sequences(client, len, true));
        }
        self.note_custom(text.as_bytes(), found);
        self.effects = self.effects.with(found);
        self.pin_now(client, found);
        let settled = self.server.as_ref().is_some_and(|s| s.owed.settled());
        let readable = text.is_ascii() || client.params.get("client_encoding").is_none();
        if found.any(Effects::ONE_SETTING) && alone && readable && self.pending.is_none() {
            self.hold(client, &text);
            self.pending = Some(Pending::Setting(text.into()));
            self.failed = false;
            self.barrier = true;
            return Ok(self.as_it_is(b'Q', len));
        }
        if found.any(Effects::ONE_SETTING) {
            self.effects = self.effects.with(Effects::SETTINGS);
        }
        if found.any(Effects::FORGETS) {
            self.barrier = true;
            if alone && found.any(Effects::SETTINGS) && !client.startup.is_empty() {
                self.hold_all(Vec::new());
            }
        } else if settled && readable && self.effects.any(Effects::SETTINGS) {
            self.hold(client, &text);
        }
        self.wait_behind_settings(client);
        Ok(self.as_it_is(b'Q', len))
    }

    /// What comes behind a change of settings waits for its end: a RESET goes back to what the client's login gave only then.
    #[inline]
    fn wait_behind_settings(&mut self, client: &Client) {
        if self.effects.any(Effects::SETTINGS) && !client.startup.is_empty() {
            self.barrier = true;
        }
    }

    /// Settings with dots are in no view of the server: their names are kept until it is asked.
    pub(crate) fn note_custom(&mut self, text: &[u8], found: Effects) {
        if found.any(Effects::SETTINGS.with(Effects::ONE_SETTING)) {
            self.custom.extend(pgdog_sql::set::custom_names(text));
        }
    }

    /// Effects that pin from now on, without asking.
    pub(crate) fn pin_now(&mut self, client: &mut Client, found: Effects) {
        if found.any(Effects::SEQUENCES) {
            client.reasons.put(Reasons::SEQUENCE, true);
        }
        if found.any(Effects::FOREVER) {
            client.reasons.put(Reasons::FOREVER, true);
        }
    }

    /// The answer to a query above `query_size_limit`, when it is to be blocked.
    pub(crate) fn query_limit(
        &mut self,
        client: &Client,
        len: usize,
    ) -> Option<Result<Step, Event>> {
        let (limit, action) = client.live.settings.query_size_limit?;
        if len <= limit + frame::HEADER {
            return None;
        }
        tracing::warn!(user = %client.account.user.name, database = %client.account.user.database, bytes = len, "query is larger than query_size_limit");
        if action == QuerySizeAction::Warn {
            return None;
        }
        let error = ErrorResponse::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("query of {len} bytes is larger than query_size_limit ({limit} bytes)"),
        );
        Some(Ok(self.fail_here(error, len, true)))
    }

    /// Fails a message in its place: the server is made to fail too, so that its transaction and its skipping agree.
    pub(crate) fn fail_here(&mut self, error: ErrorResponse, len: usize, is_query: bool) -> Step {
        self.pass(len, false);
        if let Some(server) = &mut self.server {
            frontend::bind_plain(&mut self.sout.bytes, NO_STATEMENT);
            server.owed.push(Expect::Instead(Box::new(error)));
            if is_query {
                frontend::bare(&mut self.sout.bytes, b'S');
                server.owed.push_sync();
            }
        }
        Step::Next
    }
}

fn violation(message: String) -> Event {
    Event::Refuse(Box::new(ErrorResponse::fatal(
        sqlstate::PROTOCOL_VIOLATION,
        message,
    )))
}

pub(crate) fn no_transactions() -> ErrorResponse {
    ErrorResponse::fatal(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "transaction blocks are not allowed in statement pooling mode",
    )
    .hint("Connect to a database whose pooler_mode is transaction or session.")
}
