//! Watching what a client asks and how long it takes, where the configuration wants statistics or a log of slow queries.
//!
//! [`Active::look`] sees each message before it is dealt with, [`Active::handed_over`] when it was. `relay.rs` shows each
//! answer, and `Active::turn` tells the time. What is shown of a text is what it is without its constants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::statements::{Shape, Statement};
use pgdog_backend::{Expect, Server, Value, Verdict};
use pgdog_config::PoolerMode;
use pgdog_wire::frontend::{BindNames, Parse, Target, query_text};
use pgdog_wire::{Header, frame};

use crate::active::Active;
use crate::client::Client;
use crate::insight::flight::{Answer, Done, Flight, Kind};
use crate::insight::{Described, Odd, QueryKey, Run};
use crate::requests::{NAMES_MAX, READ_MAX};

/// So many portals and statements with names are known; a client that has more runs texts that are not known.
const NAMES: usize = 4096;

/// What is known of the requests of the client that is being served.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    flight: Flight,
    looked: Looked,
    /// The last unnamed statement of this transaction.
    unnamed: Option<Arc<Shape>>,
    /// What the portals of this transaction run.
    portal: Option<Arc<Shape>>,
    portals: HashMap<Box<[u8]>, Arc<Shape>>,
}

/// The message that is being dealt with.
#[derive(Debug, Default)]
enum Looked {
    /// One that runs nothing.
    #[default]
    Other,
    Query(Arc<Shape>),
    Parse(Box<[u8]>, Arc<Shape>),
    Bind(Box<[u8]>, Arc<Shape>),
    Execute(u32, Arc<Shape>),
    CloseStatement(Box<[u8]>),
    Sync,
}

impl Active {
    /// Watches, or stops to, as the client's configuration wants it.
    #[inline]
    pub(crate) fn watches(&mut self, client: &Client) {
        if client.watched != self.watch.is_some() {
            self.watch = client.watched.then(Box::default);
        }
    }

    /// Looks at a message of the client. `false`: more of it has to be there first.
    #[cold]
    #[inline(never)]
    pub(crate) fn look(&mut self, client: &Client, header: Header, whole: bool) -> bool {
        let Header { kind, len } = header;
        let there = &self.cin.data()[frame::HEADER..self.cin.len().min(len)];
        let large = !whole && len > READ_MAX;
        let looked = match kind {
            b'Q' | b'P' if !whole && !large => return false,
            b'Q' if large => Looked::Query(client.runtime.insight.odd(Odd::TooLarge)),
            b'Q' => Looked::Query(self.shape(client, query_text(there).unwrap_or_default())),
            b'F' => Looked::Query(client.runtime.insight.odd(Odd::FunctionCall)),
            b'P' => match (Parse::read(there), frame::cstr(there)) {
                (Some(parse), _) => {
                    Looked::Parse(parse.name.into(), self.shape(client, parse.query))
                }
                (None, Some((name, _))) if large => {
                    Looked::Parse(name.into(), client.runtime.insight.odd(Odd::TooLarge))
                }
                _ => Looked::Other,
            },
            b'B' => match BindNames::read(there) {
                Some(names) => {
                    Looked::Bind(names.portal.into(), self.prepared(client, names.statement))
                }
                None if !whole && there.len() < NAMES_MAX => return false,
                None => Looked::Other,
            },
            b'E' => self.execute(client, there),
            b'C' => match Target::read(there) {
                Some(Target::Statement(name)) => Looked::CloseStatement(name.into()),
                _ => Looked::Other,
            },
            b'S' => Looked::Sync,
            _ => Looked::Other,
        };
        let (Some(watch), Some(server)) = (&mut self.watch, &self.server) else {
            return true;
        };
        watch.looked = looked;
        let (settled, idle) = (server.owed.settled(), server.owed.is_empty());
        let since = self.tally.since();
        let now = || client.runtime.clock.precise();
        if let Some(done) = watch.flight.begins(since, (settled, idle), now) {
            count(client, server, &done);
        }
        true
    }

    /// The message that was looked at last was dealt with.
    #[cold]
    #[inline(never)]
    pub(crate) fn handed_over(&mut self, client: &mut Client) {
        let (Some(watch), Some(server)) = (&mut self.watch, &self.server) else {
            return;
        };
        match std::mem::take(&mut watch.looked) {
            Looked::Other => {}
            Looked::Query(shape) => watch.flight.ask(Kind::Query, shape),
            Looked::Parse(name, shape) => {
                let asked = server.owed.back();
                let known = matches!(asked, Some(Expect::Taken(_)));
                if known || matches!(asked, Some(Expect::Parse(_))) {
                    watch.flight.ask(Kind::Parse, shape.clone());
                }
                let unnamed = name.is_empty();
                if unnamed {
                    watch.unnamed = Some(shape.clone());
                }
                // In session mode nobody else keeps the unnamed one.
                if !known && (!unnamed || self.mode == PoolerMode::Session) {
                    remember(client, name, shape);
                }
            }
            Looked::Bind(name, shape) if name.is_empty() => watch.portal = Some(shape),
            Looked::Bind(name, shape) => {
                if watch.portals.len() < NAMES || watch.portals.contains_key(&name) {
                    watch.portals.insert(name, shape);
                }
            }
            Looked::Execute(most, shape) => watch.flight.ask(Kind::Execute(most), shape),
            Looked::CloseStatement(name) => {
                if let Some(statements) = &mut client.statements {
                    statements.shapes.remove(&name);
                }
            }
            Looked::Sync if server.owed.copy_in => {}
            Looked::Sync => watch.flight.sync(),
        }
    }

    /// What an Execute runs.
    fn execute(&self, client: &Client, body: &[u8]) -> Looked {
        let Some((name, rest)) = frame::cstr(body) else {
            return Looked::Other;
        };
        let known = self.watch.as_ref().and_then(|watch| match name {
            [] => watch.portal.clone(),
            name => watch.portals.get(name).cloned(),
        });
        let shape = known.unwrap_or_else(|| client.runtime.insight.odd(Odd::Unknown));
        let most = rest
            .first_chunk()
            .map_or(0, |most| u32::from_be_bytes(*most));
        Looked::Execute(most, shape)
    }

    /// What the client's statement of this name is.
    fn prepared(&self, client: &Client, name: &[u8]) -> Arc<Shape> {
        let stored = |statement: &Arc<Statement>| {
            let shape = || self.shape(client, &statement.text);
            statement.shape.get_or_init(shape).clone()
        };
        let of_client = |names: &crate::statements::Statements| {
            if !name.is_empty() {
                let stored = names.get(name).map(stored);
                return stored.or_else(|| names.shapes.get(name).cloned());
            }
            let kept = names.unnamed_stored().map(stored).or_else(|| {
                let parse = Parse::read(names.unnamed()?.get(frame::HEADER..)?)?;
                Some(self.shape(client, parse.query))
            });
            kept.or_else(|| names.shapes.get(name).cloned())
        };
        let recent = self.watch.as_ref().and_then(|watch| watch.unnamed.clone());
        recent
            .filter(|_| name.is_empty())
            .or_else(|| client.statements.as_deref().and_then(of_client))
            .unwrap_or_else(|| client.runtime.insight.odd(Odd::Unknown))
    }

    /// What a text is without its constants.
    fn shape(&self, client: &Client, text: &[u8]) -> Arc<Shape> {
        let insight = &client.runtime.insight;
        let escapes = || {
            let reported = |s: &Server| {
                s.reported(b"standard_conforming_strings")
                    .is_some_and(|value| value == b"off")
            };
            self.server.as_deref().is_some_and(reported)
        };
        if text.contains(&b'\\') && escapes() {
            return insight.odd(Odd::Unreadable);
        }
        insight.shape(client.worker, text)
    }

    /// The client begins to do something else at this time, ns.
    #[cold]
    #[inline(never)]
    pub(crate) fn watched_turn(&mut self, client: &Client, rests: bool, now: u64) {
        let Some(watch) = &mut self.watch else { return };
        if let Some(done) = watch.flight.turn(now)
            && let Some(server) = &self.server
        {
            count(client, server, &done);
        }
        if rests {
            watch.flight.clear();
            watch.unnamed = None;
            watch.portal = None;
            watch.portals.clear();
        }
    }

    /// What the server works on is not going to be answered.
    pub(crate) fn watched_end(&mut self, client: &Client, code: &str) {
        let (Some(watch), Some(server)) = (&mut self.watch, &self.server) else {
            return;
        };
        let code = code.as_bytes().try_into().unwrap_or(*b"XX000");
        if let Some(done) = watch.flight.cut_off(code, client.runtime.clock.precise()) {
            count(client, server, &done);
        }
    }
}

impl Watch {
    /// The server has answered something.
    #[cold]
    #[inline(never)]
    pub(crate) fn answered(
        &mut self,
        client: &Client,
        server: &Server,
        (kind, body): (u8, &[u8]),
        verdict: &Verdict,
    ) {
        let instead = match verdict {
            Verdict::Forward => None,
            Verdict::Instead(error) => Some(&**error),
            Verdict::Swallow => return,
        };
        let answer = Answer {
            kind,
            body,
            instead,
            last: server.owed.is_empty(),
        };
        let now = || client.runtime.clock.precise();
        if let Some(done) = self.flight.answer(answer, now) {
            count(client, server, &done);
        }
    }
}

/// Keeps what a name of the client stands for, where nothing else does: what passes unchanged is not among its statements.
fn remember(client: &mut Client, name: Box<[u8]>, shape: Arc<Shape>) {
    let statements = client.statements();
    match statements.get(&name) {
        Some(statement) => {
            let _ = statement.shape.set(shape);
        }
        None if statements.shapes.len() < NAMES || statements.shapes.contains_key(&name) => {
            statements.shapes.insert(name, shape);
        }
        None => {}
    }
}

/// Adds one run to the statistics, and to the log if it was slow.
fn count(client: &Client, server: &Server, done: &Done) {
    let settings = &client.live.settings;
    let account = &client.account;
    if settings.query_stats.is_some() {
        let key = QueryKey {
            fingerprint: done.shape.fingerprint,
            account: account.number,
        };
        let told = || Described {
            text: done.shape.text.clone(),
            user: account.user.name.as_str().into(),
            database: account.user.database.as_str().into(),
        };
        let run = Run {
            elapsed_us: done.elapsed / 1000,
            rows: done.rows,
            error: done.error,
            at: client.runtime.clock.now(),
        };
        client.runtime.insight.record(client.worker, key, told, run);
    }
    let limit = settings.log.min_duration_query;
    if limit.is_some_and(|limit| Duration::from_nanos(done.elapsed) >= limit) {
        log(client, server, done);
    }
}

/// Writes a slow query into the log. `duration_ms` and `client_addr` make no other line of it where repetitions are counted.
fn log(client: &Client, server: &Server, done: &Done) {
    let application_name = match client.params.get("application_name") {
        Some(Value::Plain(name)) => &**name,
        Some(Value::Statement(_)) | None => "",
    };
    let length = client.live.settings.log.query_sample_length;
    let text = &*done.shape.text;
    let text = match text.char_indices().nth(length) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    tracing::info!(
        duration_ms = done.elapsed as f64 / 1e6,
        fingerprint = format_args!("{:016x}", done.shape.fingerprint),
        user = client.account.user.name,
        database = client.account.user.database,
        application_name,
        client_addr = %client.registered.handle.peer,
        server = %server.address,
        rows = done.rows,
        code = done.error.as_ref().map(|code| tracing::field::display(String::from_utf8_lossy(code))),
        query = text,
        "slow query"
    );
}
