//! Which state of a server session a query string may change.

use std::cell::OnceCell;

use memchr::memchr2_iter;

use crate::lexer::{Lexer, Token, is_word, skip_blank, statements};
use crate::set::{self, Setting};

/// A set of effects, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects(u16);

impl Effects {
    /// Nothing outlives the transaction.
    pub const NONE: Self = Self(0);
    /// Settings of the session may change in a way that must be asked of the server.
    pub const SETTINGS: Self = Self(1);
    /// The text is one SET or RESET that [`set::read`] understands.
    pub const ONE_SETTING: Self = Self(1 << 1);
    /// Something may come into being that keeps the session on its server: a temporary object, a cursor WITH HOLD, an
    /// advisory lock, a statement prepared in SQL, a channel listened to.
    pub const HOLDS: Self = Self(1 << 2);
    /// Something of that kind may end.
    pub const RELEASES: Self = Self(1 << 3);
    /// A transaction block is opened.
    pub const BEGINS: Self = Self(1 << 4);
    /// Forgets all prepared statements (DEALLOCATE ALL, DISCARD ALL).
    pub const FORGETS: Self = Self(1 << 5);
    /// A DEALLOCATE, EXECUTE or PREPARE names a prepared statement, see [`crate::names::sites`].
    pub const NAMES_STATEMENT: Self = Self(1 << 6);
    /// Reads sequence values of this session (currval, lastval).
    pub const SEQUENCES: Self = Self(1 << 7);
    /// Loads a library or changes the session in a way that never ends.
    pub const FOREVER: Self = Self(1 << 8);
    /// Makes a temporary object.
    pub const CREATES_TEMP: Self = Self(1 << 9);
    /// No text has it: a mark among those of a session, that its server knows no sequence values of other sessions.
    pub const OWN_SEQUENCES: Self = Self(1 << 10);

    /// Asks for the channels that are listened to, or leaves some.
    pub const CHANNELS: Self = Self(1 << 11);

    /// Besides: asks for them.
    pub const ASKS_CHANNELS: Self = Self(1 << 12);

    /// Everything that an unknown text may do.
    pub const UNKNOWN: Self = Self(Self::SETTINGS.0 | Self::HOLDS.0 | Self::RELEASES.0);

    /// Whether any of `other` is among them.
    #[inline]
    #[must_use]
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that the EXECUTE of a statement with these has.
    #[must_use]
    pub fn of_execute(self) -> Self {
        let settings = if self.any(Self::ONE_SETTING) {
            self.with(Self::SETTINGS)
        } else {
            self
        };
        settings
            .without(Self::ONE_SETTING)
            .without(Self::NAMES_STATEMENT)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// From stored bits.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits, for storing.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// What the whole query string may change. Cheap for the usual statements: one pass over the bytes.
#[must_use]
pub fn effects(text: &[u8]) -> Effects {
    let start = skip_blank(text, 0);
    match first_word(text, start) {
        Kind::Plain if !suspicious(&text[start..]) => Effects::NONE,
        Kind::Update
            if !suspicious(&text[start..]) && !contains(&text[start..], b"pg_settings") =>
        {
            Effects::NONE
        }
        Kind::Begin if !suspicious(&text[start..]) => Effects::BEGINS,
        _ => slow(text),
    }
}

enum Kind {
    Plain,
    /// As `Plain`, but an update of `pg_settings` is a SET.
    Update,
    Begin,
    Other,
}

/// `select` in the lowest bytes of a word.
const SELECT: u64 = u64::from_le_bytes(*b"select\0\0");

#[inline]
fn first_word(text: &[u8], start: usize) -> Kind {
    // What most texts begin with, in one look.
    if let Some(first) = text[start..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*first) & 0xffff_ffff_ffff | 0x2020_2020_2020;
        if word == SELECT && !is_word(first[6]) {
            return Kind::Plain;
        }
    }
    let mut word = [0u8; 8];
    let mut len = 0;
    for &b in &text[start..] {
        if !is_word(b) {
            break;
        }
        if len == word.len() {
            return match &word {
                b"savepoin" | b"rollback" | b"truncate" | b"checkpoi" | b"refresh " => Kind::Plain,
                _ => Kind::Other,
            };
        }
        word[len] = b | 0x20;
        len += 1;
    }
    match &word[..len] {
        b"select" | b"insert" | b"delete" | b"values" | b"table" | b"merge" | b"commit"
        | b"end" | b"rollback" | b"abort" | b"show" | b"copy" | b"fetch" | b"move" | b"lock"
        | b"analyze" | b"vacuum" | b"release" | b"truncate" | b"notify" | b"grant" | b"revoke"
        | b"comment" | b"cluster" | b"reindex" | b"refresh" | b"" => Kind::Plain,
        b"begin" | b"start" => Kind::Begin,
        b"update" | b"with" => Kind::Update,
        _ => Kind::Other,
    }
}

/// Whether a body sets something with a dot in its name.
fn dotted_set(statement: &[u8]) -> bool {
    Lexer::new(statement).any(|t| match t {
        Token::Literal(body) => {
            let quote = if body.first() == Some(&b'$') {
                body.iter()
                    .skip(1)
                    .position(|b| *b == b'$')
                    .map_or(1, |at| at + 2)
            } else {
                1
            };
            !set::custom_names(&body[quote.min(body.len())..]).is_empty()
        }
        _ => false,
    })
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len())
        .any(|w| w.eq_ignore_ascii_case(word))
}

/// Whether a plain statement must be looked at closely: it may be several, call a function that changes the session, or
/// make a temporary table. Each query pays for this, so the bytes between are passed over by the vector search of `memchr`.
#[inline]
fn suspicious(text: &[u8]) -> bool {
    memchr2_iter(b'(', b';', text).any(|at| match text[at] {
        b'(' => calls_session_function(&text[..at]),
        // Looked at closely even when a comment is all that follows: here nobody knows what is quoted.
        _ => !text[at + 1..].trim_ascii_start().is_empty(),
    }) || has_temp(text)
}

/// Whether `temp` stands anywhere, in whatever case.
#[inline]
fn has_temp(text: &[u8]) -> bool {
    match text.len() {
        0..19 => contains(text, b"temp"),
        19..35 => has_temp_by::<16>(text),
        _ => has_temp_by::<32>(text),
    }
}

/// The same for a text of `PLACES` + 3 bytes or more: so many places are looked at together.
#[inline(always)]
fn has_temp_by<const PLACES: usize>(text: &[u8]) -> bool {
    let last = text.len() - (PLACES + 3);
    // The last look overlaps the one before, rather than going byte by byte over the rest.
    (0..last)
        .step_by(PLACES)
        .chain([last])
        .any(|at| temp_begins::<PLACES>(&text[at..at + PLACES + 3]))
}

/// Whether `temp` begins at one of the first places. Without a branch, so that the compiler looks at all of them at once.
#[inline(always)]
fn temp_begins<const PLACES: usize>(text: &[u8]) -> bool {
    let (t, e, m, p) = (
        &text[..PLACES],
        &text[1..][..PLACES],
        &text[2..][..PLACES],
        &text[3..][..PLACES],
    );
    let differs = |at: u8, letter: u8| (at | 0x20) ^ letter;
    let mut found = 0u8;
    for i in 0..PLACES {
        let here =
            differs(t[i], b't') | differs(e[i], b'e') | differs(m[i], b'm') | differs(p[i], b'p');
        found |= u8::from(here == 0);
    }
    found != 0
}

/// How much of a quoted name is looked at for escapes, bytes: five times what PostgreSQL keeps of a name.
const QUOTED_MAX: usize = 320;

/// `before` ends where an opening parenthesis stands: is the name before it one of a function that touches the session?
fn calls_session_function(before: &[u8]) -> bool {
    let name_end = before
        .iter()
        .rposition(|&b| !b.is_ascii_whitespace() && b != 0x0b)
        .map_or(0, |at| at + 1);
    let (before, blank) = before.split_at(name_end);
    if before.ends_with(b"*/")
        || blank.iter().any(|b| matches!(b, b'\n' | b'\r'))
            && last_line(before).windows(2).any(|w| w == b"--")
    {
        // A comment may stand between the name and its parenthesis.
        return true;
    }
    let before = match before.strip_suffix(b"\"") {
        // Which name it is, escapes may hide.
        Some(name) if name[name.len().saturating_sub(QUOTED_MAX)..].contains(&b'\\') => {
            return true;
        }
        Some(name) => name,
        None => before,
    };
    let Some(last) = before.last() else {
        return false;
    };
    match last | 0x20 {
        b'g' => ends_with(before, b"set_config"),
        b's' => ends_with(before, b"pg_listening_channels"),
        b'k' | b'd' | b'l' => {
            let name = before.rsplit(|&b| !is_word(b)).next().unwrap_or_default();
            (name.len() > 12 && name[..12].eq_ignore_ascii_case(b"pg_advisory_"))
                || (name.len() > 16 && name[..16].eq_ignore_ascii_case(b"pg_try_advisory_"))
                || name.eq_ignore_ascii_case(b"currval")
                || name.eq_ignore_ascii_case(b"lastval")
                || name.eq_ignore_ascii_case(b"setseed")
        }
        _ => false,
    }
}

fn last_line(text: &[u8]) -> &[u8] {
    text.rsplit(|b| matches!(b, b'\n' | b'\r'))
        .next()
        .unwrap_or_default()
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text.len() >= end.len() && text[text.len() - end.len()..].eq_ignore_ascii_case(end)
}

fn slow(text: &[u8]) -> Effects {
    sum(text, one)
}

/// As [`effects()`], where the statements that PREPARE makes are kept by the proxy: making one changes nothing. What
/// executing one may change, its own text tells.
#[must_use]
pub fn effects_but_prepare(text: &[u8]) -> Effects {
    sum(text, |statement| {
        let prepares = Lexer::new(statement)
            .next()
            .is_some_and(|t| t.is("prepare"));
        if prepares && one(statement) != Effects::NONE {
            Effects::NAMES_STATEMENT
        } else {
            one(statement)
        }
    })
}

fn sum(text: &[u8], one: impl Fn(&[u8]) -> Effects) -> Effects {
    let mut all = Effects::NONE;
    let mut count = 0;
    for statement in statements(text) {
        count += 1;
        all = all.with(one(statement));
    }
    if count > 1 {
        if all.any(Effects::ONE_SETTING) {
            all = all.with(Effects::SETTINGS);
        }
        all = all.without(Effects::ONE_SETTING);
    }
    all
}

/// Effects of one statement.
fn one(statement: &[u8]) -> Effects {
    let mut tokens = Lexer::new(statement);
    let Some(first) = tokens.next() else {
        return Effects::NONE;
    };
    let Token::Word(word) = first else {
        return words(statement);
    };
    let second = tokens.next();
    let second_is = |keyword| second.is_some_and(|t| t.is(keyword));
    match word.to_ascii_lowercase().as_slice() {
        b"begin" => Effects::BEGINS.with(words(statement)),
        b"start" => Effects::BEGINS,
        b"set" | b"reset" => hiding(statement, false).with(match set::read(statement) {
            Some(Setting::Local) => Effects::NONE,
            Some(_) => Effects::ONE_SETTING,
            None => Effects::SETTINGS,
        }),
        b"discard" => {
            let all = if second_is("all") {
                Effects::FORGETS
            } else {
                Effects::NONE
            };
            all.with(Effects::SETTINGS).with(Effects::RELEASES)
        }
        b"deallocate" => {
            let mut target = second;
            if second_is("prepare") {
                target = tokens.next();
            }
            let all = if target.is_some_and(|t| t.is("all")) {
                Effects::FORGETS
            } else {
                Effects::NAMES_STATEMENT
            };
            all.with(Effects::RELEASES)
        }
        b"prepare"
            if second_is("transaction") && matches!(tokens.next(), Some(Token::Literal(_))) =>
        {
            Effects::NONE
        }
        b"prepare" => {
            let inner = words(statement);
            let forever = match inner == Effects::NONE {
                true => Effects::NONE,
                // What it changes it changes when it is executed, under a name that says nothing of it.
                false => Effects::FOREVER,
            };
            let names = Effects::HOLDS.with(Effects::NAMES_STATEMENT);
            names.with(inner).with(forever)
        }
        b"execute" => Effects::NAMES_STATEMENT.with(words(statement)),
        b"explain" | b"create" if Lexer::new(statement).any(|t| t.is("execute")) => {
            Effects::NAMES_STATEMENT.with(words(statement))
        }
        b"declare" => hold(statement).with(words(statement)),
        b"close" => Effects::RELEASES,
        b"unlisten" => Effects::RELEASES.with(Effects::CHANNELS),
        b"drop" => Effects::RELEASES,
        b"listen" => Effects::HOLDS,
        b"load" => Effects::FOREVER,
        // Settings with dots that are made up in there are in no view of the server.
        b"do" if contains(statement, b"set_config") || dotted_set(statement) => Effects::UNKNOWN
            .with(Effects::FOREVER)
            .with(in_body(statement)),
        b"do" => Effects::UNKNOWN.with(in_body(statement)),
        b"call" => Effects::UNKNOWN.with(words(statement)),
        _ => words(statement),
    }
}

/// Whether a SET, or a call of `set_config` as far as it is written out, changes how later texts are to be read, or makes them
/// leave what they do not show. `called`: names of settings are literals.
fn hiding(statement: &[u8], called: bool) -> Effects {
    let text = |token: Token<'_>| match token {
        Token::Literal(text) => Some(String::from_utf8_lossy(text).into_owned()),
        token => token
            .name()
            .map(|name| String::from_utf8_lossy(&name).into_owned()),
    };
    let mut names: Vec<&str> = Vec::new();
    for token in Lexer::new(statement) {
        if called != matches!(token, Token::Literal(_)) {
            continue;
        }
        let name = text(token).and_then(|name| set::hiding_name(name.trim_matches('\'')));
        names.extend(name.filter(|name| !names.contains(name)));
    }
    // What is set back begins again nowhere.
    let hides = names.contains(&"seed")
        || !names.is_empty()
            && Lexer::new(statement)
                .filter_map(text)
                .any(|value| names.iter().any(|name| set::hides(name, &value)));
    match hides {
        true => Effects::FOREVER,
        false => Effects::NONE,
    }
}

/// What words in the body of a DO block may do: read sequence values, leave channels or ask for them.
fn in_body(statement: &[u8]) -> Effects {
    let mut found = Effects::NONE;
    if contains(statement, b"currval") || contains(statement, b"lastval") {
        found = found.with(Effects::SEQUENCES);
    }
    if contains(statement, b"unlisten") || contains(statement, b"pg_listening_channels") {
        found = found.with(Effects::CHANNELS);
    }
    found
}

fn hold(statement: &[u8]) -> Effects {
    let with_hold = Lexer::new(statement).any(|t| t.is("hold"));
    if with_hold {
        Effects::HOLDS
    } else {
        Effects::NONE
    }
}

/// Words that stand for a moment within a literal of a date or time.
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether a literal may stand for the moment in which the text is parsed (PostgreSQL, date/time input: `'now'`, `'today'` …).
#[must_use]
pub fn names_moment(text: &[u8]) -> bool {
    let moment = |literal: &[u8]| {
        let mut words = literal.split(|byte| !byte.is_ascii_alphabetic());
        words.any(|word| MOMENTS.iter().any(|m| word.eq_ignore_ascii_case(m)))
    };
    memchr::memchr2(b'\'', b'$', text).is_some()
        && Lexer::new(text).any(|token| matches!(token, Token::Literal(body) if moment(body)))
}

/// Effects that single words show, wherever they stand.
fn words(statement: &[u8]) -> Effects {
    let mut found = Effects::NONE;
    // Looked at once, however often it is asked.
    let hidden = OnceCell::new();
    let hidden = || *hidden.get_or_init(|| hiding(statement, true));
    let updates = OnceCell::new();
    let updates = || *updates.get_or_init(|| Lexer::new(statement).any(|t| t.is("update")));
    let mut tokens = Lexer::new(statement);
    while let Some(token) = tokens.next() {
        let Some(name) = token.name() else { continue };
        found = found.with(match name.as_slice() {
            b"temp" | b"temporary" => Effects::HOLDS
                .with(Effects::RELEASES)
                .with(Effects::CREATES_TEMP),
            b"set_config"
                if !found.any(Effects::SETTINGS) && set::is_local_call(tokens.clone()) =>
            {
                hidden()
            }
            b"set_config" if set::names_literally(tokens.clone()) => {
                Effects::SETTINGS.with(hidden())
            }
            // Which setting it is, the server cannot be asked.
            b"set_config" => Effects::SETTINGS.with(Effects::FOREVER),
            b"pg_settings" if updates() => Effects::SETTINGS,
            // Where the numbers begin again, the server cannot be asked.
            b"setseed" => Effects::FOREVER,
            b"currval" | b"lastval" => Effects::SEQUENCES,
            // A function's or a schema's name with escapes may be any.
            n if n.contains(&b'\\')
                && matches!(tokens.clone().next(), Some(Token::Symbol(b'(' | b'.'))) =>
            {
                Effects::UNKNOWN.with(Effects::FOREVER)
            }
            b"pg_listening_channels" => Effects::CHANNELS.with(Effects::ASKS_CHANNELS),
            n if n.starts_with(b"pg_temp") => Effects::HOLDS
                .with(Effects::RELEASES)
                .with(Effects::CREATES_TEMP),
            n if n.starts_with(b"pg_advisory_xact") || n.starts_with(b"pg_try_advisory_xact") => {
                Effects::NONE
            }
            n if n.starts_with(b"pg_advisory_unlock") => Effects::RELEASES,
            n if n.starts_with(b"pg_advisory_") || n.starts_with(b"pg_try_advisory_") => {
                Effects::HOLDS
            }
            _ => Effects::NONE,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Effects {
        effects(text.as_bytes())
    }

    #[test]
    fn usual_statements_change_nothing() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
            "insert into t values (1, 'set_config')",
            "/* c */ select count(*) from x; ",
            "with a as (select 1) select * from a",
            "select set_config('a.b', $1, true)",
            "select pg_advisory_xact_lock(1)",
            "set local work_mem = 1",
            "create table t (a int)",
            "with a as (select name from pg_settings) select * from a",
            "",
            ";",
        ] {
            assert_eq!(of(text), Effects::NONE, "{text}");
        }
    }

    #[test]
    fn a_moment_is_one_in_a_literal() {
        for text in [
            "select 'now'::timestamp",
            "select * from t where d = DATE ' Today 12:00'",
            "select $$tomorrow$$::date",
        ] {
            assert!(names_moment(text.as_bytes()), "{text}");
        }
        for text in [
            "select now()",
            "select 'known'",
            "select today from t where a = 'x'",
            "select $1",
        ] {
            assert!(!names_moment(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_changes_the_session_is_seen() {
        for (text, effect) in [
            ("select set_config('a', 'b', false)", Effects::SETTINGS),
            (
                "select pg_catalog.set_config('a', 'b', $1)",
                Effects::SETTINGS,
            ),
            ("select \"set_config\" ('a', 'b', f)", Effects::SETTINGS),
            ("select 1; set work_mem = 1", Effects::SETTINGS),
            ("SET work_mem TO '1MB'", Effects::ONE_SETTING),
            ("reset all;", Effects::ONE_SETTING),
            (
                "update pg_catalog.pg_settings set setting = 1 where name = 'work_mem'",
                Effects::SETTINGS,
            ),
            (
                "set session characteristics as transaction read only",
                Effects::SETTINGS,
            ),
            ("do $$ begin end $$", Effects::SETTINGS),
            ("CREATE TEMP TABLE t (a int)", Effects::HOLDS),
            ("select 1 as a into Temporary t", Effects::HOLDS),
            ("create table pg_temp.x (a int)", Effects::HOLDS),
            ("declare c cursor with hold for select 1", Effects::HOLDS),
            ("select pg_try_advisory_lock(1)", Effects::HOLDS),
            ("SELECT PG_ADVISORY_LOCK (1)", Effects::HOLDS),
            ("prepare a as select 1", Effects::HOLDS),
            ("listen x", Effects::HOLDS),
            ("close all; unlisten *; reset all", Effects::CHANNELS),
            ("select * from PG_listening_channels()", Effects::CHANNELS),
            (
                "do $$ begin execute 'UNLISTEN x'; end $$",
                Effects::CHANNELS,
            ),
            ("select pg_advisory_unlock_all()", Effects::RELEASES),
            ("drop table t", Effects::RELEASES),
            ("deallocate all", Effects::FORGETS),
            ("deallocate prepare all", Effects::FORGETS),
            ("DISCARD ALL", Effects::FORGETS),
            ("do $x$ begin set my.x = 1; end $x$", Effects::FOREVER),
            (
                "do 'begin perform set_config(''a'', ''b'', false); end'",
                Effects::FOREVER,
            ),
            ("deallocate s1", Effects::NAMES_STATEMENT),
            ("select 1; execute a", Effects::NAMES_STATEMENT),
            ("explain execute a", Effects::NAMES_STATEMENT),
            ("create table t as execute a", Effects::NAMES_STATEMENT),
            ("prepare transaction as select 1", Effects::HOLDS),
            ("begin", Effects::BEGINS),
            ("select lastval()", Effects::SEQUENCES),
            ("call p(currval('s'))", Effects::SEQUENCES),
            (
                "do $$ begin raise notice '%', lastval(); end $$",
                Effects::SEQUENCES,
            ),
            ("load 'x'", Effects::FOREVER),
            ("set search_path to pg_temp, public", Effects::FOREVER),
            ("set local search_path = 'pg_temp'", Effects::FOREVER),
            (
                "select set_config('search_path', 'pg_temp', true)",
                Effects::FOREVER,
            ),
            ("set standard_conforming_strings = off", Effects::FOREVER),
            ("set names 'SJIS'", Effects::FOREVER),
            ("set client_encoding to gbk", Effects::FOREVER),
            ("set seed = 0.5", Effects::FOREVER),
            ("select setseed(0.5)", Effects::FOREVER),
            (
                "select U&\"set\\005fconfig\"('work_mem', '7MB', false)",
                Effects::FOREVER,
            ),
            (
                "create table U&\"pg\\005ftemp\".t (a int)",
                Effects::FOREVER,
            ),
            (
                "prepare p as select set_config('a.b', $1, false)",
                Effects::FOREVER,
            ),
            (
                "explain analyze update pg_settings set setting = 1",
                Effects::SETTINGS,
            ),
            (
                "with a as (select 1) update pg_settings set setting = 1",
                Effects::SETTINGS,
            ),
            ("select 1; begin; select 2", Effects::BEGINS),
        ] {
            assert!(of(text).any(effect), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn temp_is_found_wherever_it_stands() {
        for len in 4..60 {
            for at in 0..=len - 4 {
                let mut text = vec![b'm'; len];
                assert!(!has_temp(&text));
                text[at..at + 4].copy_from_slice(b"TemP");
                assert!(has_temp(&text), "{at} of {len}");
            }
        }
        assert!(!has_temp(b"tem") && !has_temp(b""));
    }

    #[test]
    fn a_prepare_that_the_proxy_keeps_holds_nothing() {
        let of = |text: &str| effects_but_prepare(text.as_bytes());
        assert_eq!(
            of("prepare a as select pg_advisory_lock(1)"),
            Effects::NAMES_STATEMENT
        );
        assert!(of("prepare a as select 1; listen x").any(Effects::HOLDS));
        assert_eq!(of("prepare transaction 'x'"), Effects::NONE);
    }

    #[test]
    fn a_plain_cursor_and_a_two_phase_prepare_hold_nothing() {
        assert!(!of("declare c cursor for select 1").any(Effects::HOLDS));
        assert!(!of("prepare transaction 'x'").any(Effects::HOLDS));
    }
}
