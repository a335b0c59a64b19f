//! The client's side: its messages are copied while they are dealt with, and handed over when it is at rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::Params;
use pgdog_backend::statements::Statement;
use pgdog_config::{Mirror, MirrorLevel, PoolerMode};
use pgdog_net::Part;
use pgdog_sql::{Effects, Kinds, effects, kinds, names};
use pgdog_wire::frontend::{BindNames, Parse, Target, query_text};
use pgdog_wire::{Header, frame};

use super::queue::{Feed, queue};
use super::replay::Replay;
use super::{Counters, Held, Memory, TRANSACTION_MAX, Transaction};
use crate::client::Client;
use crate::handle::ClientKind;
use crate::runtime::{Account, Live, Runtime};
use crate::statements::{Statements, Unnamed};

/// Silence within a transaction that is too short to be kept.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Copies what a client says, for the mirrors of its database.
#[derive(Debug)]
pub(crate) struct Tap {
    lines: Vec<Line>,
    state: State,
    /// Something was said since the last rest.
    begun: bool,
    offered: Offered,
}

/// One mirror of one client.
#[derive(Debug)]
struct Line {
    mirror: Mirror,
    counters: Arc<Counters>,
    /// The way to its task, which begins with the first transaction.
    feed: Option<Feed>,
    /// The transaction that is going on is among those that `exposure` lets through.
    wanted: bool,
}

#[derive(Debug)]
enum State {
    /// At rest.
    Between,
    /// Messages are copied.
    Taking(Box<Draft>),
    /// They are not, up to the next rest.
    LeftOut,
}

/// What has been done with the message that is being dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// Nothing, and nothing is to be done.
    No,
    /// It was copied, as far as it is there; these bytes.
    Copied(usize),
    /// It was not: there is not enough of it to look at.
    Unread,
}

/// A transaction that is being copied.
#[derive(Debug)]
struct Draft {
    parts: Vec<Part>,
    params: Arc<Params>,
    names: HashMap<Box<[u8]>, Option<Arc<Statement>>>,
    unnamed: Before,
    kinds: Kinds,
    held: Held,
    /// There was no room for something.
    full: bool,
}

/// The unnamed statement from before the transaction.
#[derive(Debug)]
enum Before {
    /// The transaction has not come to it yet.
    Open,
    /// It made one itself.
    Replaced,
    /// It uses this one.
    Used(Box<Unnamed>),
}

impl Tap {
    /// One for a client of this account; `None` when nothing of it is mirrored.
    pub(crate) fn of(
        runtime: &Runtime,
        live: &Live,
        account: &Account,
        mode: PoolerMode,
    ) -> Option<Box<Self>> {
        Self::with(runtime, live, account, mode, Vec::new())
    }

    fn with(
        runtime: &Runtime,
        live: &Live,
        account: &Account,
        mode: PoolerMode,
        mut before: Vec<Line>,
    ) -> Option<Box<Self>> {
        let user = &account.user;
        let of_this = |mirror: &&Mirror| mirror.source == user.database;
        if !live.settings.mirrors.iter().any(|m| of_this(&m)) || mode == PoolerMode::Session {
            return None;
        }
        let mirrors = live.settings.mirrors.iter().filter(of_this);
        let lines = mirrors.map(|mirror| {
            // Its task stays, so that what is new comes after what waits.
            let known = before
                .iter()
                .position(|line| line.mirror.destination == mirror.destination)
                .map(|at| before.swap_remove(at));
            let (counters, feed) = match known {
                Some(line) => (line.counters, line.feed),
                None => {
                    let key = (
                        mirror.source.clone(),
                        mirror.destination.clone(),
                        user.name.clone(),
                    );
                    (runtime.mirrors.counters(key), None)
                }
            };
            Line {
                mirror: mirror.clone(),
                counters,
                feed,
                wanted: false,
            }
        });
        Some(Box::new(Self {
            lines: lines.collect(),
            state: State::Between,
            begun: false,
            offered: Offered::No,
        }))
    }

    /// The message that was offered is dealt with, or waits. What is left of it comes with [`Tap::more`].
    pub(crate) fn settle(&mut self, dealt_with: bool) {
        match (
            std::mem::replace(&mut self.offered, Offered::No),
            dealt_with,
        ) {
            (Offered::No, _) | (Offered::Unread, false) => {}
            (Offered::Copied(_), true) => self.begun = true,
            (Offered::Copied(count), false) => {
                if let State::Taking(draft) = &mut self.state {
                    draft.take_back(count);
                }
            }
            (Offered::Unread, true) => {
                self.begun = true;
                self.give_up();
            }
        }
    }

    /// The next bytes of a message that passes by in parts.
    pub(crate) fn more(&mut self, bytes: &[u8]) {
        if let State::Taking(draft) = &mut self.state
            && !draft.copy(bytes)
        {
            self.give_up();
        }
    }

    /// What was said will not be answered by a server.
    pub(crate) fn leave_out(&mut self) {
        self.state = State::LeftOut;
        self.begun = true;
    }

    /// The transaction cannot be mirrored, though it should.
    fn give_up(&mut self) {
        if matches!(self.state, State::Taking(_)) {
            let wanted = self.lines.iter().filter(|line| line.wanted);
            wanted.for_each(|line| line.counters.count(|c| &c.dropped));
        }
        self.state = State::LeftOut;
    }

    /// A transaction begins: which mirrors want it?
    fn begin(&mut self, memory: &Arc<Memory>, params: &Arc<Params>) {
        for line in &mut self.lines {
            let share = line.mirror.exposure;
            line.wanted = share >= 1.0 || rand::random::<f64>() < share;
        }
        self.state = if self.lines.iter().any(|line| line.wanted) {
            State::Taking(Box::new(Draft::new(memory, params)))
        } else {
            State::LeftOut
        };
    }

    /// The transaction is over.
    fn finish(&mut self) -> Option<Box<Draft>> {
        if !std::mem::take(&mut self.begun) {
            // Somebody waits with the first message of the next one.
            return None;
        }
        for line in &self.lines {
            line.counters.count(|c| &c.total);
        }
        match std::mem::replace(&mut self.state, State::Between) {
            State::Taking(draft) => Some(draft),
            State::Between | State::LeftOut => None,
        }
    }
}

impl Line {
    fn wants(&self, kinds: Kinds) -> bool {
        self.wanted
            && match self.mirror.level {
                MirrorLevel::All => true,
                MirrorLevel::Dml => kinds.any(Kinds::DML),
                MirrorLevel::Ddl => kinds.any(Kinds::DDL),
            }
    }
}

/// Offers the client's message to its mirrors, before it is dealt with. `anew`: the client has no server and is not in the
/// midst of anything.
pub(crate) fn offer(
    client: &mut Client,
    header: Header,
    there: &[u8],
    anew: bool,
    pause: Option<Duration>,
) {
    let Some(tap) = &mut client.tap else { return };
    let statements = client.statements.as_deref();
    if anew {
        tap.finish();
        if let State::Taking(draft) = &mut tap.state {
            // It has waited: what is so when it goes on, counts.
            **draft = Draft::new(&client.runtime.mirrors.memory, &client.params);
        }
    }
    if matches!(tap.state, State::Between) {
        // What begins nothing is nothing.
        if matches!(header.kind, b'S' | b'H' | b'X' | b'd' | b'c' | b'f') {
            return;
        }
        tap.begin(&client.runtime.mirrors.memory, &client.params);
    }
    tap.offered = match &mut tap.state {
        State::Taking(_) if header.len > TRANSACTION_MAX => Offered::Unread,
        State::Taking(draft) => draft.offer(header, there, statements, pause),
        State::Between | State::LeftOut => Offered::Copied(0),
    };
}

/// What was offered last was taken, or waits to be offered again.
#[cold]
#[inline(never)]
pub(crate) fn settle(client: &mut Client, taken: bool) {
    if let Some(tap) = &mut client.tap {
        tap.settle(taken);
    }
}

/// The client is at rest: what it has said goes to its mirrors.
#[inline(never)]
pub(crate) fn end(client: &mut Client) {
    let Some(tap) = &mut client.tap else { return };
    let Some(draft) = tap.finish() else { return };
    let kinds = draft.kinds;
    let transaction = (!kinds.any(Kinds::UNREPEATABLE)).then(|| Arc::new(draft.finish()));
    for line in tap.lines.iter_mut().filter(|line| line.wants(kinds)) {
        let Some(transaction) = &transaction else {
            line.counters.count(|c| &c.dropped);
            continue;
        };
        let feed = line.feed.get_or_insert_with(|| {
            let (feed, outlet) = queue(line.counters.clone());
            let identity = (
                client.account.user.name.clone(),
                line.mirror.destination.clone(),
            );
            let replay = Replay::new(
                client.runtime.clone(),
                (outlet, line.counters.clone()),
                identity,
                (client.registered.handle.peer, client.worker),
                client.startup.clone(),
            );
            tokio::spawn(replay.run());
            feed
        });
        if !feed.put(transaction.clone(), line.mirror.queue_length) {
            line.counters.count(|c| &c.dropped);
        }
    }
}

/// Another configuration is in force.
pub(crate) fn renew(client: &mut Client) {
    let before = client.tap.take().map_or_else(Vec::new, |tap| tap.lines);
    // What a mirror does is not mirrored again.
    if client.registered.handle.kind == ClientKind::Normal {
        let (live, account) = (&client.live, &client.account);
        client.tap = Tap::with(&client.runtime, live, account, client.mode, before);
    }
}

impl Draft {
    fn new(memory: &Arc<Memory>, params: &Arc<Params>) -> Self {
        Self {
            parts: Vec::new(),
            params: params.clone(),
            names: HashMap::new(),
            unnamed: Before::Open,
            kinds: Kinds::NONE,
            held: Held::new(memory),
            full: false,
        }
    }

    fn offer(
        &mut self,
        Header { kind, len }: Header,
        there: &[u8],
        statements: Option<&Statements>,
        pause: Option<Duration>,
    ) -> Offered {
        let whole = there.len() >= len;
        let body = there.get(frame::HEADER..).unwrap_or_default();
        match kind {
            // It will be looked at when all of it is there.
            b'Q' | b'P' if !whole => return Offered::Unread,
            b'Q' => self.query(query_text(body).unwrap_or_default(), statements),
            b'P' => {
                if let Some(parse) = Parse::read(body) {
                    self.query(parse.query, statements);
                    if parse.name.is_empty() && matches!(self.unnamed, Before::Open) {
                        self.unnamed = Before::Replaced;
                    } else {
                        self.mention(parse.name, statements);
                    }
                }
            }
            b'B' => match BindNames::read(body) {
                Some(names) => self.mention(names.statement, statements),
                None => return Offered::Unread,
            },
            b'D' | b'C' => {
                if let Some(Target::Statement(name)) = Target::read(body) {
                    self.mention(name, statements);
                }
            }
            b'd' | b'c' | b'f' => self.kinds = self.kinds.with(Kinds::UNREPEATABLE),
            b'X' => return Offered::No,
            _ => {}
        }
        if self.kinds.any(Kinds::UNREPEATABLE) {
            self.parts.clear();
            self.held.shrink(self.held.bytes);
            return Offered::Copied(0);
        }
        self.pause(pause);
        if self.copy(there) {
            Offered::Copied(there.len())
        } else {
            Offered::Unread
        }
    }

    /// What a text does, and the prepared statements that it names.
    fn query(&mut self, text: &[u8], statements: Option<&Statements>) {
        self.kinds = self.kinds.with(kinds(text));
        if statements.is_some()
            && effects(text).any(Effects::NAMES_STATEMENT)
            && let Ok(sites) = names::sites(text)
        {
            for site in sites {
                self.mention(&site.name, statements);
            }
        }
    }

    /// The first time that a statement is named, what it is goes with the transaction.
    fn mention(&mut self, name: &[u8], statements: Option<&Statements>) {
        if name.is_empty() {
            if matches!(self.unnamed, Before::Open) {
                let unnamed = statements.map(Statements::copy_unnamed).unwrap_or_default();
                self.kinds = self.kinds.with(unnamed.text().map_or(Kinds::NONE, kinds));
                self.full |= !self.held.grow(unnamed.size());
                self.unnamed = Before::Used(Box::new(unnamed));
            }
            return;
        }
        if self.names.contains_key(name) {
            return;
        }
        let statement = statements.and_then(|s| s.get(name)).cloned();
        // What SQL's PREPARE has made is executed by SQL's EXECUTE, which counts for itself.
        if let Some(statement) = statement.as_ref().filter(|s| s.name_at.is_none()) {
            self.kinds = self.kinds.with(kinds(&statement.text));
        }
        self.names.insert(name.into(), statement);
    }

    /// The client was silent for so long before what comes now.
    fn pause(&mut self, pause: Option<Duration>) {
        let pause = pause.filter(|pause| *pause >= PAUSE_MIN);
        match (pause, self.parts.last_mut()) {
            (Some(pause), Some(part)) if part.bytes.is_empty() => part.pause = pause,
            (None, Some(_)) => {}
            (pause, _) => self.parts.push(Part {
                pause: pause.unwrap_or_default(),
                bytes: Vec::new(),
            }),
        }
    }

    /// Appends to what was copied; `false` when there is no room for it.
    fn copy(&mut self, bytes: &[u8]) -> bool {
        if self.kinds.any(Kinds::UNREPEATABLE) {
            return true;
        }
        if self.full || !self.held.grow(bytes.len()) {
            return false;
        }
        if let Some(part) = self.parts.last_mut() {
            part.bytes.extend_from_slice(bytes);
        }
        true
    }

    /// Forgets the last bytes.
    fn take_back(&mut self, count: usize) {
        if let Some(part) = self.parts.last_mut() {
            part.bytes.truncate(part.bytes.len() - count);
            self.held.shrink(count);
        }
    }

    fn finish(self) -> Transaction {
        Transaction {
            parts: self.parts.into(),
            params: self.params,
            names: self.names.into_iter().collect(),
            unnamed: match self.unnamed {
                Before::Used(unnamed) => Some(*unnamed),
                Before::Open | Before::Replaced => None,
            },
            held: self.held,
        }
    }
}
