//! What PostgreSQL's grammar says of a query string, as far as routing asks: all of its statements, and all of each.

mod statement;
mod walk;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::functions::{Functions, Mention, Name, Verdict};
use crate::route::{Begins, Lock, Place, Why};

/// Longer texts are not parsed: the parser would hold up everything else for too long.
pub const LONGEST: usize = 1 << 20;

/// What one statement does to the transaction it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// It opens one.
    Begins(Begins),
    /// It ends one.
    Ends,
    /// It ends one and opens the next.
    Chains,
    /// A savepoint, or a setting of the transaction.
    Within,
}

/// What is known of one statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its command, as `SELECT` or `CREATE TABLE`.
    pub command: &'static str,
    /// Where it may run, functions left out of account.
    pub place: Place,
    /// Why there.
    pub why: Why,
    /// What it does to the transaction.
    pub control: Option<Control>,
    /// The functions it calls, in no order.
    pub functions: Vec<Name>,
    /// The tables and views it names.
    pub tables: Vec<Name>,
    /// Its strongest locking clause.
    pub lock: Option<Lock>,
    /// What may call functions by itself; once all statements are known, [`Facts`] has it.
    mentions: Vec<Mention>,
}

/// What is known of a query string.
#[derive(Debug, Clone)]
pub struct Facts {
    statements: Vec<Statement>,
    error: Option<Box<str>>,
    /// The answer for the whole string, functions left out of account.
    place: Place,
    why: Why,
    begins: Option<Begins>,
    /// The functions of all statements.
    functions: Vec<Name>,
    /// What all statements mention that may call functions by itself.
    mentions: Vec<Mention>,
}

/// What keeps a query string from replicas: a function, and what calls it where it is not the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Culprit<'a> {
    /// The function.
    pub function: &'a Name,
    /// What calls it.
    pub through: Option<&'a Mention>,
    /// What may come of it.
    pub verdict: Verdict,
}

impl Culprit<'_> {
    /// The reason, without names.
    #[must_use]
    pub fn why(self) -> Why {
        match self.through {
            None => Why::Calls(self.verdict),
            Some(_) => Why::Reaches(self.verdict),
        }
    }
}

impl fmt::Display for Culprit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.through {
            None => write!(f, "function {} {}", self.function, self.verdict),
            Some(through) => write!(
                f,
                "{through} calls {}, which {}",
                self.function, self.verdict
            ),
        }
    }
}

impl Facts {
    /// Parses a text. One that does not parse, or is too long, is known to be unknown.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        if text.len() > LONGEST {
            let error = format!("{} bytes are more than {LONGEST}", text.len());
            return Self::unknown(Why::TooLong, &error);
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return Self::unknown(Why::Encoding, "bytes that are no UTF-8");
        };
        let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, 0)));
        let tree = match parsed {
            Ok(Ok(tree)) => tree.protobuf,
            Ok(Err(error)) => return Self::unknown(Why::Unknown, &message(&error)),
            Err(_) => return Self::unknown(Why::Unknown, "the parser failed"),
        };
        let statements: Option<Vec<_>> = tree
            .stmts
            .iter()
            .map(|raw| statement::read(raw.stmt.as_deref()?.node.as_ref()?))
            .collect();
        match statements {
            Some(statements) => Self::of(statements),
            None => Self::unknown(Why::Unknown, "a statement that is not known"),
        }
    }

    fn unknown(why: Why, error: &str) -> Self {
        Self {
            statements: Vec::new(),
            error: Some(error.into()),
            place: Place::Primary,
            why,
            begins: None,
            functions: Vec::new(),
            mentions: Vec::new(),
        }
    }

    fn of(mut statements: Vec<Statement>) -> Self {
        let (place, why) = whole(&statements);
        let mut functions: Vec<Name> = Vec::new();
        for name in statements.iter().flat_map(|s| &s.functions) {
            if !functions.contains(name) {
                functions.push(name.clone());
            }
        }
        let mut mentions: Vec<Mention> = Vec::new();
        for statement in &mut statements {
            for mention in std::mem::take(&mut statement.mentions) {
                if !mentions.contains(&mention) {
                    mentions.push(mention);
                }
            }
        }
        Self {
            begins: begins(&statements),
            error: None,
            place,
            why,
            functions,
            mentions,
            statements,
        }
    }

    /// The statements, one after the other.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Why it could not be parsed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// All functions that are called.
    #[must_use]
    pub fn functions(&self) -> &[Name] {
        &self.functions
    }

    /// How the transaction begins that the string opens and does not end; as one that writes where it is not its first
    /// statement that opens it.
    #[must_use]
    pub fn begins(&self) -> Option<Begins> {
        self.begins
    }

    /// The answer, functions left out of account.
    #[must_use]
    pub fn without_functions(&self) -> (Place, Why) {
        (self.place, self.why)
    }

    /// Whether the answer depends on what is known of functions.
    #[inline]
    pub(crate) fn asks(&self, functions: &Functions) -> bool {
        self.place != Place::Primary && self.calls(functions)
    }

    /// Whether it calls or mentions something that may be known.
    fn calls(&self, functions: &Functions) -> bool {
        !self.functions.is_empty() || functions.has_behind() && !self.mentions.is_empty()
    }

    /// The first function that may not be called on a replica; nothing when the place is the primary anyway.
    #[must_use]
    pub fn culprit<'a>(&'a self, functions: &'a Functions) -> Option<Culprit<'a>> {
        self.asks(functions)
            .then(|| self.culprits(functions).next())?
    }

    fn culprits<'a>(&'a self, functions: &'a Functions) -> impl Iterator<Item = Culprit<'a>> {
        let calls = self.functions.iter().map(move |function| Culprit {
            function,
            through: None,
            verdict: functions.verdict(function),
        });
        let behind = self.mentions.iter().flat_map(move |mention| {
            let calls = functions.called_by(mention.kind, &mention.name);
            calls.map(move |(function, verdict)| Culprit {
                function,
                through: Some(mention),
                verdict,
            })
        });
        calls.chain(behind).filter(|c| !c.verdict.reads())
    }

    /// The first function that a replica would do something else for, in a read-only transaction too: it takes locks, or speaks
    /// of the primary.
    #[must_use]
    pub fn insists<'a>(&'a self, functions: &'a Functions) -> Option<Culprit<'a>> {
        let insists = |c: &Culprit<'_>| Functions::insists(c.function, c.verdict);
        // What writes is refused in such a transaction, there as here.
        let runs = self.place != Place::Primary
            || matches!(self.why, Why::OneServer | Why::Writes("LOCK"));
        (runs && self.calls(functions)).then(|| self.culprits(functions).find(insists))?
    }

    /// The answer for a database with these functions.
    #[must_use]
    pub fn place(&self, functions: &Functions) -> (Place, Why) {
        match self.culprit(functions) {
            Some(culprit) => (Place::Primary, culprit.why()),
            None => (self.place, self.why),
        }
    }

    /// The reason in words, with the names that [`Why`] has no room for.
    #[must_use]
    pub fn explain(&self, functions: &Functions) -> String {
        match (self.culprit(functions), &self.error) {
            (Some(culprit), _) => culprit.to_string(),
            (None, Some(error)) => format!("{}: {error}", self.why),
            (None, None) => self.why.to_string(),
        }
    }
}

fn message(error: &pg_query::Error) -> String {
    match error {
        pg_query::Error::Parse(message) => message.clone(),
        pg_query::Error::Decode(_) => "nested too deeply to be looked at".to_owned(),
        other => other.to_string(),
    }
}

/// The first statement that needs the primary decides; then one that reads.
fn whole(statements: &[Statement]) -> (Place, Why) {
    let first = |place| statements.iter().find(|s| s.place == place);
    first(Place::Primary)
        .or_else(|| first(Place::Read))
        .or_else(|| statements.first())
        .map_or((Place::Anywhere, Why::Empty), |s| (s.place, s.why))
}

fn begins(statements: &[Statement]) -> Option<Begins> {
    let (first, rest) = statements.split_first()?;
    let open = statements
        .iter()
        .fold(false, |open, statement| match statement.control {
            Some(Control::Begins(_)) => true,
            Some(Control::Ends) => false,
            _ => open,
        });
    if !open {
        return None;
    }
    let more = |s: &Statement| {
        matches!(
            s.control,
            Some(Control::Begins(_) | Control::Ends | Control::Chains)
        )
    };
    let begins = match first.control {
        Some(Control::Begins(begins)) if !rest.iter().any(more) => begins,
        // What one of several asks for, and which it is in the end, is not worth finding out.
        _ => return Some(Begins::ReadWrite),
    };
    // What is said behind BEGIN counts as if it stood there.
    let asks = |s: &Statement| matches!(s.why, Why::ReadWrite | Why::Serializable);
    if rest.iter().any(asks) {
        return Some(Begins::ReadWrite);
    }
    Some(begins)
}

#[cfg(test)]
mod tests;
