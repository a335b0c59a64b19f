//! `pgdog import`: the configuration of another pooler → one of ours that does the same.
//!
//! Text in, text out: [`pgbouncer::import`] and [`pgcat::import`] open no files themselves; [`command`] does. Every key that
//! the other pooler documents is known here: it has a counterpart, has one that differs (a comment says how), or has none
//! (a comment says why). A key that nobody knows is an error, since a setting that is lost in silence is worse.

pub mod command;
pub mod pgbouncer;
pub mod pgcat;

mod emit;
mod keys;

use std::fmt;
use std::rc::Rc;

use pgdog_config::{Config, Problem, ProblemCode, Problems, Settings, Severity};

use self::emit::{Table, document, remarks};

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The text of `pgdog.toml`.
    pub toml: String,
    /// The text of `users.toml`.
    pub users: String,
    /// The comments in both: what has no counterpart, or one that differs.
    pub notes: Vec<String>,
}

impl Imported {
    /// Writes both documents. Keys that have no effect yet are named at the top, since the other pooler has them in force.
    fn new(file: &str, toml: &[Table], users: &[Table]) -> Self {
        let from = format!("Made from {file} by pgdog import.");
        let secret = format!("{from} There are passwords in here: keep it private.");
        let mut imported = Self {
            toml: document(&[&from], toml),
            users: document(&[&secret], users),
            notes: remarks(toml.iter().chain(users)),
        };
        let idle = imported.without_effect();
        if !idle.is_empty() {
            let note = format!(
                "Without effect in this version of pgdog: {}.",
                idle.join(", ")
            );
            imported.toml = document(&[&from, &note], toml);
            imported.notes.push(note);
        }
        imported
    }

    fn without_effect(&self) -> Vec<String> {
        let built =
            Config::from_toml(&self.toml, &self.users).and_then(|config| Settings::build(&config));
        let warnings = built.map(|(_, warnings)| warnings).unwrap_or_default();
        warnings
            .into_iter()
            .filter(|warning| warning.code == ProblemCode::NotImplemented)
            .map(|warning| warning.path)
            .collect()
    }

    /// The errors that keep the proxy from starting with it. Some files cannot be taken over without a decision.
    pub fn errors(&self) -> Option<Problems> {
        Config::from_toml(&self.toml, &self.users)
            .and_then(|config| Settings::build(&config))
            .err()
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    file: Rc<str>,
    line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    fn error(&self, path: &str, code: ProblemCode, message: impl Into<String>) -> Problem {
        Problem {
            file: Some(self.file.to_string()),
            line: Some(self.line),
            path: path.to_owned(),
            code,
            severity: Severity::Error,
            message: message.into(),
        }
    }
}

/// A key and its value as they were written. Values may be secrets: remarks never repeat them.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    key: String,
    value: String,
    /// `None` for a default of the other pooler that nobody wrote.
    place: Option<Place>,
}

impl Written {
    /// A remark about this line: where it is, which key, what is to be said.
    fn remark(&self, text: &str) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}: {text}", self.key),
            None => format!("{} (default): {text}", self.key),
        }
    }

    /// A remark, but only where somebody wrote this: nobody asks about a default.
    fn explain(&self, text: &str) -> Option<String> {
        self.place.as_ref().map(|_| self.remark(text))
    }

    fn error(&self, code: ProblemCode, message: impl Into<String>) -> Problem {
        match &self.place {
            Some(place) => place.error(&self.key, code, message),
            // Defaults are constants of ours; a test reads all of them.
            None => Problem {
                file: None,
                line: None,
                path: self.key.clone(),
                code,
                severity: Severity::Error,
                message: message.into(),
            },
        }
    }
}
