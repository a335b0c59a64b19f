//! What the server answers: forwarded by header, looked into only where its state or the client's depends on it.

use pgdog_backend::Verdict;
use pgdog_backend::probe::Reasons;
use pgdog_sql::Effects;
use pgdog_wire::backend::{self, read_parameter_status};
use pgdog_wire::{ErrorResponse, Header, error, frame};

use crate::active::{Active, Event, Holding, Passing, Pending};
use crate::client::Client;
use crate::naming::moved;
use crate::statements::unmask_as;
use pgdog_config::PoolerMode;

/// Largest message that must be looked at whole; servers' errors and settings are far below it.
const WHOLE_MAX: usize = 64 * 1024 * 1024;

impl Active {
    /// Deals with the server's messages as far as they are there.
    pub(crate) fn relay(&mut self, client: &mut Client) -> Result<(), Event> {
        // Bytes before `done` are dealt with; of these, those from `kept` on go to the client unchanged.
        let (mut kept, mut done) = (0, 0);
        loop {
            let data = self.sin.data();
            if self.from_server.left > 0 {
                let count = self.from_server.left.min(data.len() - done);
                if count == 0 {
                    break;
                }
                self.from_server.left -= count;
                done += count;
                continue;
            }
            let Some(header) = Header::peek(&data[done..]).map_err(|_| broken(data[done]))? else {
                break;
            };
            let available = data.len() - done;
            if matches!(header.kind, b'D' | b'd' | b'V') {
                // Rows are the bulk: they pass whatever their size.
                let count = header.len.min(available);
                self.from_server = Passing {
                    left: header.len - count,
                    kept: true,
                };
                done += count;
                continue;
            }
            if available < header.len {
                if header.len > WHOLE_MAX {
                    return Err(broken(header.kind));
                }
                break;
            }
            let body = &data[done + frame::HEADER..done + header.len];
            if header.kind == b'E' && self.only_lent(client) && is_fatal(body) {
                // Behind its last answer it says that it goes: the next client is served by another.
                let end = self.sin.start + done;
                self.sin.bytes.truncate(end);
                if let Some(server) = &mut self.server {
                    server.expires = Some(0);
                }
                break;
            }
            let Some(server) = &mut self.server else {
                break;
            };
            let verdict = server
                .owed
                .answer(header.kind, body)
                .map_err(Event::OutOfSync)?;
            if header.kind == b'Z' && verdict == Verdict::Forward {
                self.tally.answered(server.owed.status);
            }
            if let Some(watch) = &mut self.watch {
                watch.answered(client, server, (header.kind, body), &verdict);
            }
            let special = matches!(header.kind, b'E' | b'S' | b'C' | b'N' | b'A')
                || verdict != Verdict::Forward
                || self.holding != Holding::No;
            if special {
                let body_start = self.sin.start + done + frame::HEADER;
                let forward = self.special(
                    client,
                    header.kind,
                    body_start..self.sin.start + done + header.len,
                    verdict,
                )?;
                if let Some(instead) = forward {
                    let from = self.sin.start + kept;
                    self.cout
                        .bytes
                        .extend_from_slice(&self.sin.bytes[from..self.sin.start + done]);
                    self.cout.bytes.extend_from_slice(&instead);
                    kept = done + header.len;
                }
            }
            done += header.len;
            kept = self.due(client, header.kind, kept, done);
        }
        self.hand_over(kept, done);
        self.trial.heard = true;
        Ok(())
    }

    /// Gives the client the bytes from `kept` to `done`, and spends those before `done`.
    fn hand_over(&mut self, kept: usize, done: usize) {
        if done == 0 {
            return;
        }
        if kept < done {
            if kept == 0 && done == self.sin.len() {
                self.sin.move_to(&mut self.cout);
                return;
            }
            self.cout
                .bytes
                .extend_from_slice(&self.sin.data()[kept..done]);
        }
        self.sin.consume(done);
        if !self.sin.is_empty()
            && let Ok(Some(header)) = Header::peek(self.sin.data())
        {
            // The rest of a message that must be whole needs room.
            self.sin
                .reserve(header.len.saturating_sub(self.sin.len()).min(WHOLE_MAX));
        }
    }

    /// Emits the answers that are due without the server, and keeps the client's names in step. Mostly there are none.
    #[inline(always)]
    pub(crate) fn due(&mut self, client: &mut Client, kind: u8, kept: usize, done: usize) -> usize {
        match &self.server {
            Some(server) if kind == b'1' || server.owed.has_silent() => {
                self.emit_due(client, kind, kept, done)
            }
            _ => kept,
        }
    }

    #[inline(never)]
    fn emit_due(&mut self, client: &mut Client, kind: u8, mut kept: usize, done: usize) -> usize {
        let Some(server) = &mut self.server else {
            return kept;
        };
        if kind == b'1' && std::mem::take(&mut server.owed.confirmed) {
            client.statements().confirm();
        }
        if !server.owed.has_silent() {
            return kept;
        }
        let (sin, cout, names) = (&self.sin, &mut self.cout, &mut client.statements);
        server.owed.due(|answer| {
            if kept < done {
                cout.bytes.extend_from_slice(&sin.data()[kept..done]);
                kept = done;
            }
            if answer != 0 {
                backend::bare(&mut cout.bytes, answer);
            }
            if let Some(names) = names {
                names.confirm();
            }
        });
        kept
    }

    /// A message that must be understood. `Some`: what the client gets instead of it.
    fn special(
        &mut self,
        client: &mut Client,
        kind: u8,
        body: std::ops::Range<usize>,
        verdict: Verdict,
    ) -> Result<Option<Vec<u8>>, Event> {
        let body = &self.sin.bytes[body];
        if kind == b'C'
            && let Some(changed) = backend::read_changed(body)
        {
            self.tally.changed(changed);
        }
        let instead = match (kind, verdict) {
            (b'E', verdict) => {
                let body = body.to_vec();
                if self.trial.routed {
                    self.may_try_again(client, &body)?;
                }
                return Ok(self.error(client, &body, verdict));
            }
            (_, Verdict::Swallow | Verdict::Instead(_)) => Some(Vec::new()),
            (b'S', Verdict::Forward) => {
                let body = body.to_vec();
                self.parameter(&body);
                (self.holding != Holding::No).then(Vec::new)
            }
            (b'Z', Verdict::Forward) if self.holding == Holding::Waiting => {
                self.holding = Holding::Ready;
                // A COPY in between has let the client go on.
                self.barrier = true;
                Some(Vec::new())
            }
            (b'C', Verdict::Forward) if body == b"EXPLAIN\0" && self.trial.explained.is_some() => {
                let lines = self.trial.explained.take().unwrap_or_default();
                let mut out = Vec::new();
                for line in lines.lines() {
                    backend::text_row(&mut out, &[line]);
                }
                out.extend_from_slice(&framed(b'C', body));
                Some(out)
            }
            (b'C', Verdict::Forward) if matches!(body.first(), Some(b'D' | b'P')) => {
                let tag = body.strip_suffix(b"\0").unwrap_or(body).to_vec();
                self.completed(client, &tag).then(Vec::new)
            }
            (b'A', Verdict::Forward) => self.heard_twice(client, body).then(Vec::new),
            (b'N', Verdict::Forward) => client
                .statements
                .as_ref()
                .and_then(|s| s.unmask(body, &[]))
                .map(|text| framed(b'N', &text)),
            _ => None,
        };
        Ok(instead)
    }

    /// The server reports a setting. One that ends up other than it began was changed by something that no text showed.
    fn parameter(&mut self, body: &[u8]) {
        let (Some(server), Some((name, value))) = (&mut self.server, read_parameter_status(body))
        else {
            return;
        };
        let old = server.reported(name).map(Box::from).unwrap_or_default();
        match self.reverts.iter().position(|(n, _)| &**n == name) {
            Some(at) if &*self.reverts[at].1 == value => {
                self.reverts.swap_remove(at);
            }
            Some(_) => {}
            None => self.reverts.push((name.into(), old)),
        }
        server.note_parameter(body);
    }

    /// A command whose name begins with D or P is done: is it one that makes or ends prepared statements? Whether it was of
    /// our own.
    fn completed(&mut self, client: &mut Client, tag: &[u8]) -> bool {
        if matches!(tag, b"DISCARD SEQUENCES" | b"DISCARD ALL") {
            client.reasons.put(Reasons::SEQUENCE, false);
            self.effects = self.effects.with(Effects::OWN_SEQUENCES);
        }
        if tag == b"DISCARD ALL" {
            client.channels = None;
        }
        match tag {
            b"DEALLOCATE ALL" | b"DISCARD ALL" if self.mode != PoolerMode::Session => {
                if let Some(server) = &mut self.server {
                    server.prepared.clear();
                    server.unnamed = 0;
                }
                if let Some(statements) = &mut client.statements {
                    statements.forget_all();
                }
            }
            b"PREPARE" | b"DEALLOCATE" if matches!(self.pending, Some(Pending::Named(_))) => {
                return self.named_done(client);
            }
            b"PREPARE" => self.making_done(client),
            b"DEALLOCATE" => {
                if let Some(Pending::Forget(name, id)) = self.pending.take() {
                    client.statements().remove(&name);
                    if let Some(server) = &mut self.server {
                        server.prepared.remove(id);
                    }
                }
            }
            _ => {}
        }
        false
    }

    /// An error: what it undoes, and how the client sees it. `None`: as it is.
    fn error(&mut self, client: &mut Client, body: &[u8], verdict: Verdict) -> Option<Vec<u8>> {
        self.failed = true;
        let fatal = is_fatal(body);
        self.told |= fatal;
        // Whatever it answers, the client is to know why its connection ends.
        let verdict = if fatal { Verdict::Forward } else { verdict };
        let Some(server) = &mut self.server else {
            return None;
        };
        let shift = self
            .naming
            .filter(|(token, _)| *token == server.unnamed)
            .map(|(_, shift)| shift);
        for id in server.owed.lost.drain(..) {
            server.prepared.remove(id);
        }
        for id in server.owed.kept.drain(..) {
            server.prepared.insert(id);
        }
        let undone = std::mem::take(&mut server.owed.undone);
        let failed = std::mem::take(&mut server.owed.undone_failed);
        if undone > 0 {
            client.statements().undo(undone, failed);
        }
        let taken = server.owed.taken.take();
        if std::mem::take(&mut server.owed.unnamed_unsure) {
            server.unnamed = 0;
        }
        if std::mem::take(&mut server.owed.failed_parse) {
            server.unnamed = 0;
            if let Some(statements) = &mut client.statements {
                statements.unnamed_failed();
            }
        }
        if let Some(id) = server.owed.failed_bind
            && error::field(body, b'C') == Some(b"26000")
        {
            // It was taken from the server behind our back.
            server.prepared.remove(id);
        }
        if let Some(id) = server.owed.failed_bind.take()
            && error::field(body, b'C') == Some(b"0A000")
            && error::field(body, b'R') == Some(b"RevalidateCachedQuery")
        {
            client.pool().plans.outdated(id);
        }
        if verdict == Verdict::Swallow {
            return Some(Vec::new());
        }
        self.tally.errors += 1;
        if let Some(code) = error::field(body, b'C') {
            client.runtime.metrics.error(code);
        }
        if let Verdict::Instead(error) = verdict {
            let mut out = Vec::new();
            let mut error = *error;
            if server.owed.status == backend::TransactionStatus::Failed {
                error = ErrorResponse::read(body);
            }
            error.write(&mut out);
            return Some(out);
        }
        if let Some(name) = taken {
            return unmask_as(body, &name).map(|text| framed(b'E', &text));
        }
        if let Some(Pending::Named(_)) = self.pending {
            return self.named_failed(client, body).map(|b| framed(b'E', &b));
        }
        let names = client.statements.as_ref();
        if let Some(shift) = shift {
            let moved = moved(body, |at| shift.position(at));
            let unmasked = names.and_then(|s| s.unmask(moved.as_deref().unwrap_or(body), &[]));
            return unmasked.or(moved).map(|text| framed(b'E', &text));
        }
        names?.unmask(body, &[]).map(|text| framed(b'E', &text))
    }
}

/// Whether the connection ends with this error.
fn is_fatal(body: &[u8]) -> bool {
    let severity = error::field(body, b'V').or_else(|| error::field(body, b'S'));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + frame::HEADER);
    pgdog_wire::write::message(&mut out, kind, |b| b.extend_from_slice(body));
    out
}

fn broken(kind: u8) -> Event {
    Event::OutOfSync(pgdog_backend::expect::OutOfSync { kind })
}

/// Effects that only show at rest.
pub(crate) const ASKS: Effects = Effects::SETTINGS.with(Effects::HOLDS);
