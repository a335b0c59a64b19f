//! The language of the scripts.
//!
//! ```text
//! # name: a statement outlives its transaction        begins a script; other lines with # are comments
//! setup: create table t (a int)                       run straight on Postgres before, in the script's database
//! startup: application_name=x                         further startup parameters of every client
//! user: alice                                         the user to log in as (pgdog, a superuser)
//! modes: transaction session statement                where it applies (transaction session)
//! differs transaction: why                            a known difference in a mode, in `all`, when `stirred`, with `shared` LISTEN, in
//!                                                     transaction mode that does (`full`) or does not (`extended`) manage PREPARE
//! mask "text": why                                    transcript lines with this text are left out
//!
//! P s=s1 "select $1::int + 1"; S                      one line, one write; then what it asks for is read
//! B s=s1 "41"; E; S
//! other> Q "select 1"                                 another client, which logs in when first named
//! ```
//!
//! A line is read to its last ReadyForQuery, or to the request for COPY data. Before the messages may stand:
//! `~` read until silence (a line that ends with Flush is read so by itself), `nowait` read nothing,
//! `by N` send in pieces of N bytes. Messages: `Q "sql"`, `P s=name "sql" oid…`,
//! `B p=portal s=statement f=0,1 r=1 "value" NULL x:00ff`, `D s=name`, `D p=name`, `E p=name max=1`, `C s=name`,
//! `C p=name`, `S`, `H`, `d "data"`, `c`, `f "reason"`, `F oid "value"…`, `X`, `raw x:00ff`, `ssl`, `gss`,
//! `startup protocol=3.2 user=$user …`, and `repeat N { … }`.
//!
//! Lines without messages: `open` (connect, no startup), `connect key=value…` (log in and compare the whole answer),
//! `close` (vanish), `wait N` (read N messages), `eof` (read to the end), `sleep MS`,
//! `run "sql"` (straight on Postgres), `check "sql"` (the same, and its answer is compared),
//! `until "sql"` (the same, until it returns true). `$stage` in a simple query is a name no other script has, for what
//! lives outside of databases.

use pgdog_tests::Message;

use super::messages::messages;
use super::mode::Mode;
use super::tokens::{Token, tokens};

/// A conversation.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) name: String,
    pub(super) setup: Vec<String>,
    pub(super) startup: Vec<(String, String)>,
    pub(super) user: String,
    pub(super) modes: Vec<String>,
    pub(super) differs: Vec<(String, String)>,
    pub(super) masks: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// One line of a conversation.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) client: String,
    pub(super) text: String,
    pub(super) action: Action,
}

/// What a line does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Send {
        messages: Vec<Message>,
        pieces: Option<usize>,
        reading: Reading,
    },
    Open,
    Connect(Vec<(String, String)>),
    Close,
    Wait(usize),
    Eof,
    Sleep(u64),
    Run(String),
    Check(String),
    Until(String),
}

/// How much is read after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Answers,
    UntilSilence,
    Nothing,
}

impl Script {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            setup: Vec::new(),
            startup: Vec::new(),
            user: "pgdog".to_owned(),
            modes: vec!["transaction".to_owned(), "session".to_owned()],
            differs: Vec::new(),
            masks: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// How many clients the script uses at the same time, at most.
    pub(super) fn clients(&self) -> usize {
        let mut names: Vec<&str> = self.steps.iter().map(|step| step.client.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.len().max(1)
    }

    /// Whether it is run in this mode.
    pub(super) fn applies_to(&self, mode: Mode) -> bool {
        self.modes.iter().any(|name| name == mode.pooler_mode())
    }

    /// Why another answer is right in this mode, when it is.
    pub(super) fn known_difference(&self, mode: Mode) -> Option<&str> {
        let listed = self.differs.iter().find(|(name, _)| {
            name == "all"
                || name == mode.pooler_mode()
                || (name == "stirred" && mode.has_stranger())
                || (name == "shared" && mode.is_shared())
                || (name == "full" && mode.is_full())
                || (name == "extended" && mode.pooler_mode() == "transaction" && !mode.is_full())
        });
        listed.map(|(_, reason)| reason.as_str())
    }
}

/// Reads a file of scripts.
pub(super) fn parse(text: &str) -> Result<Vec<Script>, String> {
    let mut scripts: Vec<Script> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = |problem: String| format!("line {}: {problem}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("# name:") {
            scripts.push(Script::new(name.trim()));
        } else if !line.is_empty() && !line.starts_with('#') {
            let script = scripts
                .last_mut()
                .ok_or_else(|| at("no script has begun".to_owned()))?;
            add_line(script, line).map_err(at)?;
        }
    }
    for (index, script) in scripts.iter().enumerate() {
        if script.steps.is_empty() {
            return Err(format!("{} is empty", script.name));
        }
        if scripts[..index]
            .iter()
            .any(|other| other.name == script.name)
        {
            return Err(format!("{} is there twice", script.name));
        }
    }
    Ok(scripts)
}

fn add_line(script: &mut Script, line: &str) -> Result<(), String> {
    if let Some((key, value)) = line.split_once(": ") {
        let value = value.trim();
        match key.split_once(' ').unwrap_or((key, "")) {
            ("setup", "") => return add(&mut script.setup, value.to_owned()),
            ("startup", "") => return pairs(&tokens(value)?).map(|pairs| script.startup = pairs),
            ("user", "") => {
                value.clone_into(&mut script.user);
                return Ok(());
            }
            ("modes", "") => {
                script.modes = value.split_whitespace().map(str::to_owned).collect();
                return Ok(());
            }
            ("differs", mode) if !mode.contains('"') => {
                return add(&mut script.differs, (mode.to_owned(), value.to_owned()));
            }
            ("mask", text) => return add(&mut script.masks, text.trim_matches('"').to_owned()),
            _ => {}
        }
    }
    add(&mut script.steps, step(line)?)
}

fn add<T>(list: &mut Vec<T>, item: T) -> Result<(), String> {
    list.push(item);
    Ok(())
}

fn step(line: &str) -> Result<Step, String> {
    let (client, rest) = match line.split_once("> ") {
        Some((name, rest)) if name.chars().all(char::is_alphanumeric) => (name, rest),
        _ => ("main", line),
    };
    Ok(Step {
        client: client.to_owned(),
        text: shortened(line),
        action: action(&tokens(rest)?)?,
    })
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= 160 {
        line.to_owned()
    } else {
        line.chars().take(160).chain("…".chars()).collect()
    }
}

fn action(tokens: &[Token]) -> Result<Action, String> {
    let [Token::Word(first), rest @ ..] = tokens else {
        return Err("a word expected".to_owned());
    };
    let sql = || match rest {
        [Token::Text(text)] => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(format!("{first} wants a text")),
    };
    let number = || match rest {
        [Token::Word(digits)] => digits
            .parse::<u64>()
            .map_err(|_| format!("{digits} is no number")),
        _ => Err(format!("{first} wants a number")),
    };
    Ok(match first.as_str() {
        "open" => Action::Open,
        "connect" => Action::Connect(pairs(rest)?),
        "close" => Action::Close,
        "wait" => Action::Wait(usize::try_from(number()?).map_err(|e| e.to_string())?),
        "eof" => Action::Eof,
        "sleep" => Action::Sleep(number()?),
        "run" => Action::Run(sql()?),
        "check" => Action::Check(sql()?),
        "until" => Action::Until(sql()?),
        _ => sending(tokens)?,
    })
}

fn sending(mut tokens: &[Token]) -> Result<Action, String> {
    let mut reading = Reading::Answers;
    let mut pieces = None;
    loop {
        match tokens {
            [Token::Word(word), rest @ ..] if word == "~" => {
                reading = Reading::UntilSilence;
                tokens = rest;
            }
            [Token::Word(word), rest @ ..] if word == "nowait" => {
                reading = Reading::Nothing;
                tokens = rest;
            }
            [Token::Word(word), Token::Word(size), rest @ ..] if word == "by" => {
                pieces = Some(size.parse().map_err(|_| format!("{size} is no size"))?);
                tokens = rest;
            }
            _ => {
                return Ok(Action::Send {
                    messages: messages(tokens)?,
                    pieces,
                    reading,
                });
            }
        }
    }
}

fn pairs(tokens: &[Token]) -> Result<Vec<(String, String)>, String> {
    let pair = |token: &Token| match token {
        Token::Named(key, value) => Ok((key.clone(), String::from_utf8_lossy(value).into_owned())),
        Token::Word(word) => match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{word} is no key=value")),
        },
        other => Err(format!("{other:?} is no key=value")),
    };
    tokens.iter().map(pair).collect()
}
