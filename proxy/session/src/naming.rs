//! Queries and Parses that name prepared statements in SQL: what goes to the server instead, and what its answers tell.

use std::sync::Arc;

use pgdog_backend::probe::Reasons;
use pgdog_backend::statements::Statement;
use pgdog_backend::{Expect, Server};
use pgdog_config::{PoolerMode, PreparedLevel};
use pgdog_sql::names::{Site, Use, sites};
use pgdog_sql::{Effects, effects, effects_but_prepare};
use pgdog_wire::frontend::{Parse, query_text};
use pgdog_wire::{error, frame, frontend};

use crate::active::{Active, Event, Pending};
use crate::client::Client;
use crate::named::{Done, Naming, Rewriter, Rewritten, Source, rewrite_one, rewrite_prepare};
use crate::prepare::evict;
use crate::requests::{Step, no_transactions};
use crate::sequences::Values;
use crate::statements::Making;

/// The statement and portal by which a PREPARE goes to the server within a batch.
const CARRIER: &[u8] = b"__pgdog_sql";

impl Active {
    /// A Query that names prepared statements. `None`: it goes on as it is.
    pub(crate) fn named_query(
        &mut self,
        client: &mut Client,
        len: usize,
    ) -> Result<Option<Step>, Event> {
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        if !server.owed.is_empty() && !server.owed.copy_in {
            // What is still to be answered may make or end statements.
            return Ok(Some(self.wait_for_answers()));
        }
        let text = query_text(&self.cin.data()[frame::HEADER..len])
            .unwrap_or_default()
            .to_vec();
        let Ok(sites) = sites(&text) else {
            self.keep_here(client);
            return Ok(None);
        };
        let names = client.statements.as_deref();
        let passes = names.is_some_and(|s| s.passes_prepare);
        let keeps = client.live.settings.prepared == PreparedLevel::Full && !passes;
        let scope = client.params.scope();
        let rewritten = Rewriter::new(
            names,
            &mut server.prepared,
            Source::of(client, scope.as_deref()),
            keeps,
        )
        .rewrite(&text, &sites);
        if rewritten.passes_prepare {
            client.statements().passes_prepare = true;
        }
        if !rewritten.changed {
            return Ok(None);
        }
        let found = if rewritten.passes_prepare {
            effects(&text)
        } else {
            effects_but_prepare(&text)
        };
        if self.note_named(client, &text, found, &rewritten.runs)? == Values::Mixed {
            return Ok(Some(self.refuse_sequences(client, len, true)));
        }
        self.cin.consume(len);
        self.send_named(client, rewritten);
        Ok(Some(Step::Next))
    }

    /// What the text and the statements that it executes may change, and whose sequence values they may see.
    fn note_named(
        &mut self,
        client: &mut Client,
        text: &[u8],
        found: Effects,
        runs: &[Arc<Statement>],
    ) -> Result<Values, Event> {
        let all = runs.iter().fold(found, |all, statement| {
            all.with(Effects::from_bits(statement.effects).of_execute())
        });
        if all.any(Effects::BEGINS) && self.mode == PoolerMode::Statement {
            return Err(Event::Refuse(Box::new(no_transactions())));
        }
        if self.sequences(client, all)? == Values::Mixed {
            return Ok(Values::Mixed);
        }
        self.note_custom(text, found);
        for statement in runs {
            self.note_custom(&statement.text, Effects::from_bits(statement.effects));
        }
        self.effects = self.effects.with(all);
        self.pin_now(client, all);
        Ok(Values::Fine)
    }

    fn send_named(&mut self, client: &mut Client, rewritten: Rewritten) {
        let Some(server) = &mut self.server else {
            return;
        };
        let used = rewritten.called.len() + 1;
        for _ in 0..rewritten.prepares {
            evict(server, client, used as u64, &mut self.sout.bytes);
        }
        let clean = !server.owed.unsynced || rewritten.parse_first.is_empty();
        let before = self.sout.bytes.len();
        for statement in &rewritten.parse_first {
            self.ensure(client, statement);
        }
        let Some(server) = &mut self.server else {
            return;
        };
        if clean && !rewritten.parse_first.is_empty() && self.sout.bytes.len() > before {
            // Were our Parse to fail without a Sync, the server would skip the Query, and its ReadyForQuery.
            frontend::bare(&mut self.sout.bytes, b'S');
            server.owed.push(Expect::OwnSync);
        }
        frontend::query(&mut self.sout.bytes, &rewritten.text);
        server.owed.push(Expect::Query);
        server.unnamed = 0;
        self.pending = Some(Pending::Named(Box::new(rewritten)));
        self.barrier = true;
    }

    /// A PREPARE or DEALLOCATE has been answered. Whether it was of our own: the answer is not for the client.
    pub(crate) fn named_done(&mut self, client: &mut Client) -> bool {
        let (Some(Pending::Named(rewritten)), Some(server)) = (&mut self.pending, &mut self.server)
        else {
            return false;
        };
        let Some(done) = rewritten.done.pop_front() else {
            return false;
        };
        let own = done.is_own();
        match done {
            Done::Nothing | Done::OwnNothing => {}
            Done::Prepared(name, statement) => {
                made_by_sql(server, &statement);
                client.statements().set(&name, statement);
            }
            Done::Forgot(name) => client.statements().remove(&name),
            Done::Dropped(name, id) => {
                client.statements().remove(&name);
                server.prepared.remove(id);
            }
            Done::OwnPrepared(statement) => made_by_sql(server, &statement),
            Done::OwnDropped(id) => {
                server.prepared.remove(id);
            }
        }
        own
    }

    /// An error ends a query string with names: what it tells, and how the client's own text would have had it.
    pub(crate) fn named_failed(&mut self, client: &Client, body: &[u8]) -> Option<Vec<u8>> {
        let Some(Pending::Named(rewritten)) = &mut self.pending else {
            return None;
        };
        // The rest of the string is not run.
        rewritten.done.clear();
        let code = error::field(body, b'C');
        if code == Some(b"26000")
            && let Some(server) = &mut self.server
        {
            // It was taken from the server behind our back.
            let message = error::field(body, b'M').unwrap_or_default();
            let named = |s: &&Arc<Statement>| {
                let name = s.identifier();
                message.windows(name.len()).any(|w| w == name)
            };
            for statement in rewritten.runs.iter().filter(named) {
                server.prepared.remove(statement.id);
            }
        }
        if code == Some(b"0A000") && error::field(body, b'R') == Some(b"RevalidateCachedQuery") {
            // Of several, nobody knows which: each may be prepared anew.
            for statement in &rewritten.runs {
                client.pool().plans.outdated(statement.id);
            }
        }
        let moved = moved(body, |at| rewritten.position(at));
        let names = client.statements.as_ref();
        let unmasked = names.and_then(|names| {
            let body = moved.as_deref().unwrap_or(body);
            names.unmask(body, &rewritten.called)
        });
        unmasked.or(moved)
    }

    /// An unnamed Parse of a text that names prepared statements. `None`: it goes on as it is.
    pub(crate) fn parse_naming(
        &mut self,
        client: &mut Client,
        len: usize,
    ) -> Result<Option<Step>, Event> {
        let Some(parse) = Parse::read(&self.cin.data()[frame::HEADER..len]) else {
            return Ok(None);
        };
        let (text, types) = (parse.query.to_vec(), parse.types.to_vec());
        let names = client.statements.as_deref();
        let Some(naming) = names.and_then(|names| rewrite_one(names, &text)) else {
            return Ok(self.parse_prepare(client, &text, &types, len));
        };
        if naming.what == Use::Execute {
            // Whose sequence values it may see is looked at with its Bind.
            let found = Effects::from_bits(naming.statement.effects);
            self.note_custom(&naming.statement.text, found);
        }
        self.cin.consume(len);
        self.send_naming(client, &naming, &types, Expect::Parse(None));
        if naming.what == Use::Deallocate {
            self.pending = Some(Pending::Forget(naming.name, naming.statement.id));
        }
        Ok(Some(Step::Next))
    }

    /// An unnamed Parse of a PREPARE under a name that is free, or of anything else. `None`: it goes on as it is.
    fn parse_prepare(
        &mut self,
        client: &mut Client,
        text: &[u8],
        types: &[u8],
        len: usize,
    ) -> Option<Step> {
        let passes = client.statements().passes_prepare;
        let keeps = client.live.settings.prepared == PreparedLevel::Full && !passes;
        let scope = client.params.scope();
        let source = Source::of(client, scope.as_deref());
        let Some(naming) = keeps.then(|| rewrite_prepare(source, text)).flatten() else {
            match sites(text) {
                Ok(sites) => passes_names(client, &sites),
                Err(_) => self.keep_here(client),
            }
            return None;
        };
        let (server, id) = (self.server.as_mut()?, naming.statement.id);
        if server.prepared.remove(id) {
            // Another client's, or another name's: made anew, it is what PostgreSQL would make of the text now.
            frontend::of_statement(&mut self.sout.bytes, b'C', &naming.statement.name);
            server.owed.push(Expect::OwnClose(Some(id)));
        }
        evict(server, client, 1, &mut self.sout.bytes);
        self.cin.consume(len);
        frontend::parse(&mut self.sout.bytes, b"", &naming.text, types);
        server.owed.push(Expect::Parse(None));
        self.naming = Some((server.unnamed, naming.shift));
        client.statements().making = Some(Making {
            token: server.unnamed,
            name: naming.name,
            statement: naming.statement,
        });
        Some(Step::Next)
    }

    /// A PREPARE of the extended protocol has been answered.
    pub(crate) fn making_done(&mut self, client: &mut Client) {
        let (Some(server), Some(names)) = (&mut self.server, &mut client.statements) else {
            return;
        };
        if let Some(making) = names.making.take_if(|m| m.token == server.unnamed) {
            made_by_sql(server, &making.statement);
            names.set(&making.name, making.statement);
        }
    }

    fn send_naming(&mut self, client: &Client, naming: &Naming, types: &[u8], expect: Expect) {
        self.ensure(client, &naming.statement);
        if let Some(server) = &mut self.server {
            frontend::parse(&mut self.sout.bytes, b"", &naming.text, types);
            server.owed.push(expect);
            self.naming = Some((server.unnamed, naming.shift));
        }
    }

    /// The unnamed Parse of a text with names, given whole, again on another server.
    pub(crate) fn parse_naming_again(&mut self, client: &Client, message: &[u8]) {
        let names = client.statements.as_deref();
        let naming = Parse::read(&message[frame::HEADER..])
            .and_then(|parse| Some((rewrite_one(names?, parse.query)?, parse.types)));
        if let Some((naming, types)) = naming {
            self.send_naming(client, &naming, types, Expect::OwnParse(None));
        } else if let Some(server) = &mut self.server {
            self.sout.bytes.extend_from_slice(message);
            server.owed.push(Expect::OwnParse(None));
        }
    }

    /// Makes a statement of SQL on the server within a batch, before what is written next.
    pub(crate) fn ensure_sql(&mut self, statement: &Statement) {
        let (Some(server), Some(text)) = (
            &mut self.server,
            statement.prepare_as(&statement.identifier()),
        ) else {
            return;
        };
        carry(server, &text, Some(statement), &mut self.sout.bytes);
        made_by_sql(server, statement);
    }

    /// As the function of this name.
    pub(crate) fn keep_here(&mut self, client: &mut Client) {
        if let Some(server) = &mut self.server {
            let found = keep_here(server, client, &mut self.sout.bytes);
            self.effects = self.effects.with(found);
        }
    }

    /// As the function of this name.
    pub(crate) fn stores_names(&mut self, client: &mut Client, text: &[u8]) {
        if let Some(server) = &mut self.server {
            let found = stores_names(server, client, text, &mut self.sout.bytes);
            self.effects = self.effects.with(found);
        }
    }
}

/// The client says something that names its statements where nobody can see which: they go to the server under the client's
/// own names, and the client stays with it. What that changes.
fn keep_here(server: &mut Server, client: &mut Client, out: &mut Vec<u8>) -> Effects {
    let names = client.statements();
    names.passes_prepare = true;
    let clean = !server.owed.unsynced;
    let kept = names.take_sql();
    for (name, statement) in &kept {
        let Some(text) = statement.prepare_as(&quoted(name)) else {
            continue;
        };
        carry(server, &text, None, out);
        if clean {
            // One that cannot be made leaves the others alone.
            frontend::bare(out, b'S');
            server.owed.push(Expect::OwnSync);
        }
    }
    if kept.is_empty() {
        return Effects::NONE;
    }
    client.reasons.put(Reasons::PREPARE, true);
    Effects::HOLDS
}

/// A statement that will be executed whenever the client likes names another, which is found under its own name only.
/// What that changes.
pub(crate) fn stores_names(
    server: &mut Server,
    client: &mut Client,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Effects {
    let known = |site: &Site| {
        let names = client.statements.as_deref();
        names
            .and_then(|s| s.get(&site.name))
            .is_some_and(|s| s.name_at.is_some())
    };
    match sites(text) {
        Ok(sites) if !sites.iter().any(known) => {
            passes_names(client, &sites);
            Effects::NONE
        }
        _ => keep_here(server, client, out),
    }
}

/// A PREPARE that is passed on makes a statement under the client's own name, which pins.
fn passes_names(client: &mut Client, sites: &[Site]) {
    let prepares = |site: &Site| matches!(site.what, Use::Prepare { .. });
    if sites.iter().any(prepares) {
        client.statements().passes_prepare = true;
    }
}

/// A name as an identifier.
fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in name {
        out.push(byte);
        if byte == b'"' {
            out.push(byte);
        }
    }
    out.push(b'"');
    out
}

/// The error with its position where the client's own text has it.
pub(crate) fn moved(body: &[u8], position: impl FnOnce(usize) -> usize) -> Option<Vec<u8>> {
    let at = std::str::from_utf8(error::field(body, b'P')?).ok()?;
    let at = position(at.parse().ok()?).to_string();
    Some(error::with_field(body, b'P', at.as_bytes()))
}

/// Writes a text that is one PREPARE as a batch of its own messages.
fn carry(server: &mut Server, text: &[u8], statement: Option<&Statement>, out: &mut Vec<u8>) {
    frontend::run_named(out, CARRIER, text);
    for expect in [
        Expect::OwnClose(None),
        Expect::OwnParse(None),
        Expect::OwnBind,
        Expect::OwnExecute(statement.map(|s| s.id)),
        Expect::OwnClose(None),
    ] {
        server.owed.push(expect);
    }
}

fn made_by_sql(server: &mut Server, statement: &Statement) {
    server.prepared.insert(statement.id);
    server.prepared.by_sql = true;
}

/// What a text with these effects changes besides, when it is the EXECUTE of one of the client's statements.
pub(crate) fn executed(client: &Client, text: &[u8], found: Effects) -> Effects {
    if !found.any(Effects::NAMES_STATEMENT) {
        return Effects::NONE;
    }
    let names = client.statements.as_deref();
    match names.and_then(|names| rewrite_one(names, text)) {
        Some(naming) if naming.what == Use::Execute => {
            Effects::from_bits(naming.statement.effects).of_execute()
        }
        _ => Effects::NONE,
    }
}
