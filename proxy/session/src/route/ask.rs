//! What the messages of a request ask for, as far as their texts tell.

use std::sync::atomic::Ordering;

use pgdog_backend::statements::Statement;
use pgdog_backend::{ReadNeed, Value};
use pgdog_config::{PoolerMode, PreparedLevel, ReadWriteStrategy, ReadYourWrites};
use pgdog_sql::lexer::{Lexer, Token};
use pgdog_sql::{Begins, Functions, Place, RoleHint, Route, Why};
use pgdog_wire::frontend::{BindNames, Parse, query_text};
use pgdog_wire::{Header, frame};

use super::guard::insists;
use super::{READ_ONLY, Wish};
use crate::active::{Active, HIGH};
use crate::client::Client;

/// The setting by which a client says where it wants to go.
const ROLE: &str = "pgdog.role";
/// Settings with which a request goes to the primary: no replica is serializable, and where backslashes escape, texts are not
/// what they look like.
const ODD: [&str; 2] = [
    "default_transaction_isolation",
    "standard_conforming_strings",
];
/// A request that is not whole when it is as large as this goes to the primary.
const LARGE: usize = HIGH / 2;

/// What the messages up to the end of a request ask for.
pub(super) struct Asked {
    pub(super) wish: Wish,
    /// The client itself has said where it wants to go.
    pub(super) told: bool,
    /// It is one transaction, or the beginning of one, which nothing has taken place of when it fails.
    pub(super) alone: bool,
    /// It is within a transaction that goes on.
    pub(super) begins: bool,
    /// It is a BEGIN and nothing else.
    pub(super) opens: bool,
    /// Such a one, that waits for what comes next.
    pub(super) defers: bool,
    /// Where the request ends; `None` when it may go on.
    pub(super) end: Option<usize>,
    /// Why an EXPLAIN goes where it goes, where that is to be told.
    pub(super) why: Option<String>,
}

/// What the texts so far ask for together.
struct Sum<'a> {
    client: &'a Client,
    functions: &'a Functions,
    aggressive: bool,
    place: Place,
    hint: Option<RoleHint>,
    begins: Option<Begins>,
    alone: bool,
    /// The unnamed statement is parsed anew: what it was before does not matter.
    parsed: bool,
    why: Option<String>,
}

/// Whether what has run before a failure is undone with it: CALL and DO may commit before they fail, and so may one of
/// several statements.
fn is_alone(route: &Route) -> bool {
    route.lone && !matches!(route.why, Why::Transaction | Why::Writes("CALL" | "DO"))
}

/// By their numbers in [`Statement::place`].
const PLACES: [Place; 3] = [Place::Primary, Place::Read, Place::Anywhere];

impl Sum<'_> {
    fn text(&mut self, text: &[u8]) {
        let planner = &self.client.runtime.planner;
        let explains = self.client.live.settings.balancing.expanded_explain;
        if explains && self.why.is_none() && is_explain(text) {
            self.why = Some(planner.facts(text).explain(self.functions));
        }
        self.route(text, planner.route(text, self.functions));
    }

    /// The text of a stored statement. Where it may run is kept there together with the functions that were known: in the
    /// upper half these, then the place, then whether it is alone.
    fn stored(&mut self, statement: &Statement) {
        let balancing = &self.client.live.settings.balancing;
        if balancing.expanded_explain {
            return self.text(&statement.text);
        }
        let kept = statement.place.load(Ordering::Relaxed);
        if kept >> 32 == u64::from(self.functions.id())
            && let Some(place) = PLACES.get((kept as u32 >> 1) as usize)
        {
            self.alone &= kept & 1 != 0;
            return self.place(*place);
        }
        let planner = &self.client.runtime.planner;
        let route = planner.route(&statement.text, self.functions);
        // What a comment asks for, and how a transaction begins, has no place there.
        if route.hint.is_none()
            && route.begins.is_none()
            && let Some(place) = PLACES.iter().position(|place| *place == route.place)
        {
            let functions = u64::from(self.functions.id()) << 32;
            let kept = functions | (place as u64) << 1 | u64::from(is_alone(&route));
            statement.place.store(kept, Ordering::Relaxed);
        }
        self.route(&statement.text, route);
    }

    fn route(&mut self, text: &[u8], route: Route) {
        self.hint = self.hint.or(route.hint);
        self.alone &= is_alone(&route);
        let Some(how) = route.begins else {
            return self.place(route.place);
        };
        self.hint = self.hint.or_else(|| set_within(text));
        self.begins = self.begins.or(Some(how));
        self.place(match how {
            Begins::ReadOnly if insists(self.client, text).is_some() => Place::Primary,
            Begins::ReadOnly => Place::Read,
            Begins::Unsaid if self.aggressive => Place::Anywhere,
            Begins::Unsaid | Begins::ReadWrite => Place::Primary,
        });
    }

    fn place(&mut self, here: Place) {
        self.place = match (self.place, here) {
            (Place::Primary, _) | (_, Place::Primary) => Place::Primary,
            (Place::Read, _) | (_, Place::Read) => Place::Read,
            (Place::Anywhere, Place::Anywhere) => Place::Anywhere,
        };
    }

    /// One message.
    fn message(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'Q' => self.text(query_text(body).unwrap_or_default()),
            b'P' => {
                let Some(parse) = Parse::read(body) else {
                    return;
                };
                let level = self.client.live.settings.prepared;
                if level == PreparedLevel::Disabled && !parse.name.is_empty() {
                    // It keeps its server from then on.
                    self.place(Place::Primary);
                }
                self.parsed |= parse.name.is_empty();
                self.text(parse.query);
            }
            b'B' => {
                let Some(names) = BindNames::read(body) else {
                    return;
                };
                let client = self.client;
                let statements = client.statements.as_deref();
                if !names.statement.is_empty() {
                    // One that nobody knows is unknown everywhere, or was parsed just before.
                    if let Some(statement) = statements.and_then(|s| s.get(names.statement)) {
                        self.stored(statement);
                    }
                } else if let Some(statements) = statements
                    && !self.parsed
                {
                    match (statements.unnamed_stored(), statements.unnamed_text()) {
                        (Some(stored), _) => self.stored(stored),
                        (None, Some(text)) => self.text(text),
                        (None, None) if statements.has_unnamed() => self.place(Place::Primary),
                        (None, None) => {}
                    }
                }
            }
            b'F' => self.place(Place::Primary),
            _ => {}
        }
    }

    fn wish(&self, mode: PoolerMode, told: Option<RoleHint>) -> Wish {
        let client = self.client;
        let follows = client.live.settings.balancing.read_your_writes;
        match (told, self.place) {
            (Some(RoleHint::Primary), _) => Wish::Write,
            (Some(RoleHint::Replica), _) => Wish::Read { replica: true },
            (None, _) if mode == PoolerMode::Session || client.reasons.any() => Wish::Write,
            (None, Place::Primary) => Wish::Write,
            (None, Place::Read) if client.wrote > 0 && follows == ReadYourWrites::Primary => {
                Wish::Write
            }
            (None, Place::Read) => Wish::Read { replica: false },
            // A transaction that has not said what it is for.
            (None, Place::Anywhere) if self.begins.is_some() => Wish::Write,
            (None, Place::Anywhere) => Wish::Any,
        }
    }
}

impl Active {
    /// What the client's messages up to the end of its request ask for; `None` when more must come first.
    pub(super) fn asked(&self, client: &Client) -> Option<Asked> {
        let data = self.cin.data();
        let balancing = &client.live.settings.balancing;
        let aggressive = balancing.transactions == ReadWriteStrategy::Aggressive;
        let deferred = self.trial.deferred;
        let mut sum = Sum {
            client,
            functions: &self.trial.functions,
            aggressive,
            place: Place::Anywhere,
            hint: None,
            // What comes behind a BEGIN that waits decides.
            begins: deferred.then_some(Begins::Unsaid),
            alone: true,
            parsed: false,
            why: None,
        };
        if deferred && !aggressive {
            sum.place(Place::Primary);
        }
        let (mut at, mut end, mut executes, mut flushed) = (0, None, false, false);
        while end.is_none() {
            let Ok(Some(Header { kind, len })) = Header::peek(&data[at..]) else {
                break;
            };
            let Some(body) = data.get(at + frame::HEADER..at + len) else {
                break;
            };
            sum.message(kind, body);
            at += len;
            executes |= kind == b'E';
            flushed = kind == b'H';
            if matches!(kind, b'Q' | b'F' | b'S' | b'H' | b'X') {
                end = Some(at);
            }
        }
        if executes && flushed {
            // What follows is of the same transaction.
            sum.place(Place::Primary);
            sum.alone = false;
        }
        if end.is_none() {
            // A message that is larger than what is kept of one may do anything.
            let large = matches!(Header::peek(data), Ok(Some(h)) if h.len >= LARGE);
            if data.len() < LARGE && !large {
                return None;
            }
            sum.place(Place::Primary);
        }
        if ODD.iter().any(|name| steering(client, name).is_some()) {
            sum.place(Place::Primary);
        }
        let told = sum.hint.or_else(|| told_by(client));
        let lone = sum.alone && !flushed && data.first() == Some(&b'Q');
        Some(Asked {
            wish: sum.wish(self.mode, told),
            told: told.is_some(),
            // What a transaction has begun with is sent again with it.
            alone: sum.alone && !flushed && !deferred,
            begins: sum.begins.is_some(),
            opens: lone && !deferred && sum.begins.is_some(),
            defers: aggressive
                && !deferred
                && lone
                && sum.begins == Some(Begins::Unsaid)
                && self.mode == PoolerMode::Transaction
                && client.tap.is_none(),
            end,
            why: sum.why,
        })
    }
}

/// What a client's read asks of the host that answers it.
pub(super) fn need(client: &Client, wish: Wish) -> ReadNeed {
    let follows = client.live.settings.balancing.read_your_writes == ReadYourWrites::Replayed;
    ReadNeed {
        replica_only: wish == Wish::Read { replica: true },
        after: (follows && client.wrote > 0).then_some(client.wrote),
    }
}

/// A setting that has to do with where requests go, where the client has it. All such are among those that
/// [`Params::steer`](pgdog_backend::Params::steer) tells of.
pub(super) fn steering<'a>(client: &'a Client, name: &str) -> Option<&'a Value> {
    let params = &client.params;
    params.steer().then(|| params.get(name)).flatten()
}

/// What the client's session says of where it wants to go.
fn told_by(client: &Client) -> Option<RoleHint> {
    let mut parameters = client.account.user.pool.parameters.iter();
    if parameters.any(|(name, value)| name == READ_ONLY && value == "on") {
        return Some(RoleHint::Replica);
    }
    match steering(client, ROLE)? {
        Value::Plain(value) => role(value.as_bytes()),
        // The statement that has set it ends with the value.
        Value::Statement(text) => {
            let tokens = Lexer::new(text.as_bytes());
            let last = tokens
                .filter(|token| *token != Token::Symbol(b';'))
                .last()?;
            match last {
                Token::Word(value) | Token::Quoted(value) | Token::Literal(value) => role(value),
                _ => None,
            }
        }
    }
}

/// A role by its name, quoted or not.
fn role(name: &[u8]) -> Option<RoleHint> {
    let name = name.trim_ascii();
    let bare = |quote: &[u8]| name.strip_prefix(quote)?.strip_suffix(quote);
    match bare(b"'")
        .or_else(|| bare(b"\""))
        .unwrap_or(name)
        .to_ascii_lowercase()
        .as_slice()
    {
        b"replica" => Some(RoleHint::Replica),
        b"primary" => Some(RoleHint::Primary),
        _ => None,
    }
}

/// Whether a text is an EXPLAIN whose answer is text.
fn is_explain(text: &[u8]) -> bool {
    let mut words = text.split(|b| !b.is_ascii_alphanumeric() && *b != b'_');
    if words.any(|word| word.eq_ignore_ascii_case(b"format")) {
        return false;
    }
    let first = pgdog_sql::lexer::statements(text)
        .next()
        .unwrap_or_default();
    let word = first.trim_ascii_start().get(..7);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"explain"))
}

/// Where a string sends itself that sets the role right behind its BEGIN.
fn set_within(text: &[u8]) -> Option<RoleHint> {
    let second = pgdog_sql::lexer::statements(text).nth(1)?;
    let second = String::from_utf8_lossy(second).to_ascii_lowercase();
    let mut words = second.split(|c: char| c.is_whitespace() || "='\";".contains(c));
    let mut words = words.by_ref().filter(|word| !word.is_empty());
    if words.next() != Some("set") {
        return None;
    }
    let mut words = words.filter(|word| !matches!(*word, "local" | "session" | "to"));
    match (words.next(), words.next()) {
        (Some(ROLE), Some("replica")) => Some(RoleHint::Replica),
        (Some(ROLE), Some("primary")) => Some(RoleHint::Primary),
        _ => None,
    }
}

/// The names of statements that messages parse.
pub(super) fn parsed(mut messages: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    while let Ok(Some(Header { kind, len })) = Header::peek(messages) {
        let Some(body) = messages.get(frame::HEADER..len) else {
            break;
        };
        if kind == b'P'
            && let Some(parse) = Parse::read(body)
            && !parse.name.is_empty()
        {
            names.push(parse.name);
        }
        messages = &messages[len..];
    }
    names
}
