//! Prepared statements on their way to a server: the client's names become ours, and what a server lacks is put in first.

use pgdog_backend::probe::Reasons;
use pgdog_backend::statements::Statement;
use pgdog_backend::{Expect, Owed};
use pgdog_config::{PoolerMode, PreparedLevel};
use pgdog_sql::{Effects, effects};
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::frontend::{BindNames, Parse, Target};
use pgdog_wire::{frame, frontend};

use crate::active::{Active, Event};
use crate::client::Client;
use crate::named::Source;
use crate::naming::{executed, stores_names};
use crate::notify::Fetch;
use crate::requests::{NAMES_MAX, READ_MAX, Step, no_transactions};
use crate::sequences::Values;

impl Active {
    pub(crate) fn parse(
        &mut self,
        client: &mut Client,
        len: usize,
        whole: bool,
    ) -> Result<Step, Event> {
        if self.mode == PoolerMode::Session {
            return Ok(self.as_it_is(b'P', len));
        }
        if let Some(limit) = self.query_limit(client, len) {
            return limit;
        }
        if !whole {
            if len <= READ_MAX {
                return Ok(Step::More);
            }
            return Ok(self.parse_large(client, len));
        }
        let level = client.live.settings.prepared;
        let Some(parse) = Parse::read(&self.cin.data()[frame::HEADER..len]) else {
            return Ok(self.as_it_is(b'P', len));
        };
        let named = !parse.name.is_empty();
        match level {
            PreparedLevel::Disabled if named => {
                let found = effects(parse.query);
                if self.sequences(client, found)? == Values::Mixed {
                    return Ok(self.refuse_sequences(client, len, false));
                }
                client.reasons.put(Reasons::FOREVER, true);
                self.note_effects(client, found)?;
                Ok(self.as_it_is(b'P', len))
            }
            PreparedLevel::Extended | PreparedLevel::Full if !named => {
                self.parse_unnamed(client, len)
            }
            PreparedLevel::Disabled => self.parse_unnamed(client, len),
            _ => self.parse_stored(client, len),
        }
    }

    /// A Parse that is too large to keep: a named one stays on this server, and so does the client; an unnamed one is gone
    /// with the next transaction, and asking for it then is an error.
    fn parse_large(&mut self, client: &mut Client, len: usize) -> Step {
        let there = self.cin.len().min(NAMES_MAX);
        let Some((name, _)) = frame::cstr(&self.cin.data()[frame::HEADER..there]) else {
            return if there < NAMES_MAX {
                Step::More
            } else {
                self.as_it_is(b'P', len)
            };
        };
        if name.is_empty() {
            let token = client.next_token();
            self.mark_unnamed(client);
            let statements = client.statements();
            statements.set_unnamed(&[], Effects::UNKNOWN.bits(), token);
            if let Some(server) = &mut self.server {
                server.unnamed = token;
            }
        } else {
            client.reasons.put(Reasons::FOREVER, true);
        }
        self.effects = self.effects.with(Effects::UNKNOWN);
        self.retire_server();
        self.as_it_is(b'P', len)
    }

    /// What a text that nobody has read left in the server's session is not known: it is closed when the client gives it back.
    pub(crate) fn retire_server(&mut self) {
        if let Some(server) = &mut self.server {
            server.expires = Some(0);
        }
    }

    fn note_effects(&mut self, client: &mut Client, found: Effects) -> Result<(), Event> {
        if found == Effects::NONE {
            return Ok(());
        }
        if found.any(Effects::BEGINS) && self.mode == PoolerMode::Statement {
            return Err(Event::Refuse(Box::new(no_transactions())));
        }
        self.pin_now(client, found);
        let found = if found.any(Effects::ONE_SETTING) {
            found.with(Effects::SETTINGS)
        } else {
            found
        };
        self.effects = self.effects.with(found);
        Ok(())
    }

    /// An unnamed Parse is passed on, and remembered in case it is used again on another server.
    fn parse_unnamed(&mut self, client: &mut Client, len: usize) -> Result<Step, Event> {
        let found = Parse::read(&self.cin.data()[frame::HEADER..len]).map_or(Effects::NONE, |p| {
            let found = effects(p.query);
            found.with(executed(client, p.query, found))
        });
        if self.unsure_of_names(found) {
            return Ok(self.wait_for_answers());
        }
        if found != Effects::NONE {
            // Only what can be done before the batch begins: a question that comes too late fails with its Bind.
            self.sequences(client, found)?;
            if self.fetches(client, found, false)? == Fetch::Later {
                return Ok(self.wait_for_answers());
            }
        }
        self.mark_unnamed(client);
        let message = &self.cin.data()[..len];
        let token = client.next_token();
        client
            .statements()
            .set_unnamed(message, found.bits(), token);
        if let Some(server) = &mut self.server {
            server.unnamed = token;
        }
        if found != Effects::NONE {
            let text = Parse::read(&self.cin.data()[frame::HEADER..len])
                .map(|p| p.query.to_vec())
                .unwrap_or_default();
            self.note_custom(&text, found);
            self.note_effects(client, found)?;
            if found.any(Effects::NAMES_STATEMENT)
                && let Some(step) = self.parse_naming(client, len)?
            {
                return Ok(step);
            }
        }
        Ok(self.as_it_is(b'P', len))
    }

    /// A Parse that becomes one of the store's statements.
    fn parse_stored(&mut self, client: &mut Client, len: usize) -> Result<Step, Event> {
        let Some(parse) = Parse::read(&self.cin.data()[frame::HEADER..len]) else {
            return Ok(self.as_it_is(b'P', len));
        };
        let named = !parse.name.is_empty();
        if named && self.unsure_of(client, parse.name) {
            // The name may be free again, or not, when all is answered: an error takes back what it skips.
            return Ok(self.wait_for_answers());
        }
        let Some(server) = &mut self.server else {
            return Ok(Step::Wait);
        };
        if named
            && let Some(existing) = client
                .statements
                .as_ref()
                .and_then(|s| s.get(parse.name))
                .cloned()
        {
            if !server.owed.is_empty() && !server.owed.copy_in {
                // The name may be free again when all is answered: an error takes back what it skips.
                return Ok(self.wait_for_answers());
            }
            // PostgreSQL refuses to replace a statement: let the server say so.
            let (text, types) = (parse.query.to_vec(), parse.types.to_vec());
            let name = parse.name.into();
            self.ensure(client, &existing);
            self.cin.consume(len);
            frontend::parse(&mut self.sout.bytes, &existing.name, &text, &types);
            if let Some(server) = &mut self.server {
                server.owed.push(Expect::Taken(name));
            }
            return Ok(Step::Next);
        }
        let scope = client.params.scope();
        let statement = Source::of(client, scope.as_deref()).parsed(parse.query, parse.types);
        if statement.effects != 0 {
            // Only what can be done before the batch begins: a question that comes too late fails with its Bind.
            let found = Effects::from_bits(statement.effects);
            self.sequences(client, found)?;
            if self.fetches(client, found, false)? == Fetch::Later {
                return Ok(self.wait_for_answers());
            }
        }
        let Some(server) = &mut self.server else {
            return Ok(Step::Wait);
        };
        if Effects::from_bits(statement.effects).any(Effects::NAMES_STATEMENT) {
            let found = stores_names(server, client, &statement.text, &mut self.sout.bytes);
            self.effects = self.effects.with(found);
        }
        let known = server.prepared.touch(statement.id);
        let in_block =
            server.owed.status != TransactionStatus::Idle || self.effects.any(Effects::BEGINS);
        let unsure = server.owed.awaits_change(statement.id)
            || known && in_block && server.owed.awaits_status();
        if unsure && !server.owed.copy_in {
            // Nobody knows yet whether the transaction, or the Parse before, will have failed by then.
            return Ok(self.wait_for_answers());
        }
        if known
            && server.owed.status == TransactionStatus::Failed
            && !ends_transaction(parse.query)
        {
            // The server refuses it in a failed transaction, under any name.
            let name = if named { &*statement.name } else { b"" };
            frontend::parse(&mut self.sout.bytes, name, parse.query, parse.types);
            if named {
                server.owed.push(Expect::Taken(parse.name.into()));
            } else {
                // The unnamed one is gone with that.
                server.owed.push(Expect::Parse(None));
                server.unnamed = 0;
            }
        } else if known {
            server.owed.push(Expect::Fake(b'1'));
            client
                .statements()
                .add_or_set_unnamed(named, parse.name, statement);
        } else {
            evict(server, client, 1, &mut self.sout.bytes);
            frontend::parse(
                &mut self.sout.bytes,
                &statement.name,
                parse.query,
                parse.types,
            );
            server.owed.push(Expect::Parse(Some(statement.id)));
            server.prepared.insert(statement.id);
            client
                .statements()
                .add_or_set_unnamed(named, parse.name, statement);
        }
        self.cin.consume(len);
        Ok(Step::Next)
    }

    /// Before the unnamed statement changes: what is still owed may make the server skip that.
    pub(crate) fn mark_unnamed(&mut self, client: &mut Client) {
        if let Some(server) = &mut self.server
            && !server.owed.is_empty()
        {
            client.statements().change_unnamed();
            server.owed.push(Expect::MARK);
        }
    }

    /// Whether the server's answers must tell first what is behind a name.
    fn unsure_of(&self, client: &Client, name: &[u8]) -> bool {
        let awaits = |unsure: fn(&Owed) -> bool| {
            let owed = self.server.as_ref().map(|s| &s.owed);
            owed.is_some_and(|owed| !owed.copy_in && unsure(owed))
        };
        if name.is_empty() {
            return awaits(Owed::awaits_unnamed);
        }
        client
            .statements
            .as_ref()
            .is_some_and(|s| s.unconfirmed(name))
            && awaits(Owed::awaits_end)
    }

    /// Whether the server's answers must tell first which names there are, and what the server has: for a text that may speak
    /// of any of them.
    fn unsure_of_names(&self, found: Effects) -> bool {
        found.any(Effects::NAMES_STATEMENT)
            && self
                .server
                .as_ref()
                .is_some_and(|s| !s.owed.copy_in && s.owed.awaits_end())
    }

    /// The message is looked at again when the server has answered all that was sent, which it is asked to do now.
    pub(crate) fn wait_for_answers(&mut self) -> Step {
        frontend::bare(&mut self.sout.bytes, b'H');
        self.barrier = true;
        Step::Wait
    }

    /// Whether the server's answers must tell first whether it has the statement.
    fn unsure(&self, statement: &Statement) -> bool {
        self.server
            .as_ref()
            .is_some_and(|s| s.owed.awaits_change(statement.id) && !s.owed.copy_in)
    }

    /// Makes sure that the server has the statement before what is written next.
    pub(crate) fn ensure(&mut self, client: &Client, statement: &Statement) {
        let Some(server) = &mut self.server else {
            return;
        };
        if server.prepared.touch(statement.id) {
            return;
        }
        evict(server, client, 1, &mut self.sout.bytes);
        if statement.name_at.is_some() {
            return self.ensure_sql(statement);
        }
        frontend::parse(
            &mut self.sout.bytes,
            &statement.name,
            &statement.text,
            &statement.types,
        );
        server.owed.push(Expect::OwnParse(Some(statement.id)));
        server.prepared.insert(statement.id);
    }

    /// Makes sure that the server's unnamed statement is the client's.
    fn ensure_unnamed(&mut self, client: &mut Client) {
        let token = client
            .statements
            .as_ref()
            .map_or(0, |s| s.unnamed_token())
            .max(1);
        let Some(server) = &mut self.server else {
            return;
        };
        if server.unnamed == token && token > 1 {
            return;
        }
        server.unnamed = token;
        let found = client
            .statements
            .as_ref()
            .map_or(0, |s| s.unnamed_effects());
        match client.statements.as_ref().and_then(|s| s.unnamed()) {
            Some(message) if Effects::from_bits(found).any(Effects::NAMES_STATEMENT) => {
                let message = message.to_vec();
                self.parse_naming_again(client, &message);
            }
            Some(message) => {
                self.sout.bytes.extend_from_slice(message);
                server.owed.push(Expect::OwnParse(None));
            }
            None => {
                // It has none, and must not get another client's.
                frontend::of_statement(&mut self.sout.bytes, b'C', b"");
                server.owed.push(Expect::OwnClose(None));
            }
        }
    }

    pub(crate) fn bind(
        &mut self,
        client: &mut Client,
        len: usize,
        whole: bool,
    ) -> Result<Step, Event> {
        if self.mode == PoolerMode::Session {
            return Ok(self.as_it_is(b'B', len));
        }
        let there = self.cin.len().min(len);
        let Some(names) = BindNames::read(&self.cin.data()[frame::HEADER..there]) else {
            if !whole && there < NAMES_MAX {
                return Ok(Step::More);
            }
            return Ok(self.as_it_is(b'B', len));
        };
        let spans = (names.portal.len(), names.statement.len());
        if self.unsure_of(client, names.statement) {
            return Ok(self.wait_for_answers());
        }
        let statement = if names.statement.is_empty() {
            match client
                .statements
                .as_ref()
                .and_then(|s| s.unnamed_stored().cloned())
            {
                Some(stored) => stored,
                None => {
                    let found = client
                        .statements
                        .as_ref()
                        .map_or(0, |s| s.unnamed_effects());
                    let found = Effects::from_bits(found);
                    if self.unsure_of_names(found) {
                        return Ok(self.wait_for_answers());
                    }
                    if found != Effects::NONE && self.sequences(client, found)? == Values::Mixed {
                        return Ok(self.refuse_sequences(client, len, false));
                    }
                    match self.fetches(client, found, true)? {
                        Fetch::Fine => {}
                        Fetch::Later => return Ok(self.wait_for_answers()),
                        Fetch::Late => return Ok(self.refuse_late(len, false)),
                    }
                    self.ensure_unnamed(client);
                    self.note_effects(client, found)?;
                    return Ok(self.as_it_is(b'B', len));
                }
            }
        } else {
            match client
                .statements
                .as_ref()
                .and_then(|s| s.get(names.statement))
                .cloned()
            {
                Some(stored) => stored,
                // Unknown here: one that SQL's PREPARE made, or none, as the server will say.
                None => return Ok(self.as_it_is(b'B', len)),
            }
        };
        if self.unsure(&statement) {
            return Ok(self.wait_for_answers());
        }
        if statement.effects != 0 {
            let found = Effects::from_bits(statement.effects);
            if self.sequences(client, found)? == Values::Mixed {
                return Ok(self.refuse_sequences(client, len, false));
            }
            match self.fetches(client, found, true)? {
                Fetch::Fine => {}
                Fetch::Later => return Ok(self.wait_for_answers()),
                Fetch::Late => return Ok(self.refuse_late(len, false)),
            }
            self.note_custom(&statement.text, found);
            self.note_effects(client, found)?;
            if found.any(Effects::NAMES_STATEMENT) {
                self.stores_names(client, &statement.text);
            }
        }
        self.ensure(client, &statement);
        self.write_bind(len, spans, &statement);
        Ok(Step::Next)
    }

    /// Writes the Bind with our name for the statement; parameters pass as they come.
    fn write_bind(&mut self, len: usize, (portal, name): (usize, usize), statement: &Statement) {
        // The portal's name passes with its NUL, and so does the NUL of the statement's.
        let names = frame::HEADER..frame::HEADER + portal + 1;
        let spent = names.end + name;
        let length = (len - 1 - name + statement.name.len()) as u32;
        let out = &mut self.sout.bytes;
        out.reserve(spent + statement.name.len());
        out.push(b'B');
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.cin.data()[names]);
        out.extend_from_slice(&statement.name);
        self.cin.consume(spent);
        if let Some(server) = &mut self.server {
            server.owed.push(Expect::Bind(Some(statement.id)));
        }
        self.pass(len - spent, true);
    }

    pub(crate) fn describe_or_close(&mut self, client: &mut Client, kind: u8, len: usize) -> Step {
        let Some(Target::Statement(name)) = Target::read(&self.cin.data()[frame::HEADER..len])
        else {
            return self.as_it_is(kind, len);
        };
        if self.unsure_of(client, name) && (kind == b'D' || !name.is_empty()) {
            return self.wait_for_answers();
        }
        let (unnamed, name) = (name.is_empty(), name.to_vec());
        let stored = client
            .statements
            .as_ref()
            .and_then(|s| {
                if unnamed {
                    s.unnamed_stored()
                } else {
                    s.get(&name)
                }
            })
            .cloned();
        match (kind, stored) {
            (b'D', Some(statement)) if self.unsure(&statement) => self.wait_for_answers(),
            (b'D', Some(statement)) => {
                self.ensure(client, &statement);
                self.cin.consume(len);
                frontend::of_statement(&mut self.sout.bytes, b'D', &statement.name);
                if let Some(server) = &mut self.server {
                    server.owed.push(Expect::Describe(Some(statement.id)));
                }
                Step::Next
            }
            (b'D', None) => {
                if unnamed {
                    let names = client.statements.as_ref();
                    let found = names.map_or(0, |s| s.unnamed_effects());
                    if self.unsure_of_names(Effects::from_bits(found)) {
                        return self.wait_for_answers();
                    }
                    self.ensure_unnamed(client);
                }
                self.as_it_is(kind, len)
            }
            (_, Some(_)) => {
                client.statements().close_or_unset_unnamed(unnamed, &name);
                self.cin.consume(len);
                if let Some(server) = &mut self.server {
                    server.owed.push(Expect::Fake(b'3'));
                }
                Step::Next
            }
            (_, None) => {
                if unnamed {
                    self.mark_unnamed(client);
                    client.statements().clear_unnamed();
                }
                self.as_it_is(kind, len)
            }
        }
    }
}

/// Closes the server's oldest statement when it has too many; those that were used within the last `spare` uses stay.
pub(crate) fn evict(
    server: &mut pgdog_backend::Server,
    client: &Client,
    spare: u64,
    out: &mut Vec<u8>,
) {
    let Some(limit) = client.live.settings.prepared_limit else {
        return;
    };
    if let Some(id) = server.prepared.oldest_above(limit.saturating_sub(1), spare) {
        frontend::of_statement(
            out,
            b'C',
            format!("{}{}", pgdog_backend::statements::PREFIX, id.number()).as_bytes(),
        );
        server.owed.push(Expect::OwnClose(Some(id)));
        server.prepared.remove(id);
    }
}

/// Whether a failed transaction still takes this statement: one that ends it, or nothing at all.
fn ends_transaction(text: &[u8]) -> bool {
    let Some(statement) = pgdog_sql::lexer::statements(text).next() else {
        return true;
    };
    let mut tokens = pgdog_sql::lexer::Lexer::new(statement);
    let (Some(first), second) = (tokens.next(), tokens.next()) else {
        return true;
    };
    let then = |word| second.is_some_and(|t| t.is(word));
    if first.is("prepare") {
        return then("transaction");
    }
    let ends = ["rollback", "commit", "end", "abort"];
    ends.iter().any(|word| first.is(word)) && !then("prepared")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_takes_what_ends_it_and_nothing_at_all() {
        for text in [
            "rollback",
            "COMMIT and chain",
            "/* the */ end",
            "rollback to a",
            "prepare transaction 'x'",
            "",
            " -- nothing",
            ";;",
        ] {
            assert!(ends_transaction(text.as_bytes()), "{text}");
        }
        for text in ["select 1", "prepare x as select 1", "rollback prepared 'x'"] {
            assert!(!ends_transaction(text.as_bytes()), "{text}");
        }
    }
}
