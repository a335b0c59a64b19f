//! `userlist.txt`: `"name" "secret"`, one user a line.

use std::rc::Rc;

use pgdog_config::{Problem, ProblemCode};
use pgdog_wire::md5;

use super::ini::unquote;
use crate::import::Place;

/// A user of the list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) secret: Secret,
    pub(super) place: Place,
}

/// What stands in place of a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// An empty one, with which nobody can log in.
    Missing,
    Plain(String),
    /// `md5` and 32 digits.
    Md5(String),
    /// A verifier.
    Scram(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        if text.is_empty() {
            Self::Missing
        } else if md5::Secret::parse(&text).is_some() {
            Self::Md5(text)
        } else if text.starts_with("SCRAM-SHA-256$") {
            Self::Scram(text)
        } else {
            Self::Plain(text)
        }
    }
}

/// Reads the list. A user that comes twice is the one of its last line.
pub(super) fn read(text: &str, file: &str) -> (Vec<Listed>, Vec<Problem>) {
    let file: Rc<str> = file.into();
    let (mut users, mut problems): (Vec<Listed>, _) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let place = Place {
            file: file.clone(),
            line: number,
        };
        let line = line.trim();
        // PgBouncer itself skips every line that does not begin with a quote.
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        match fields(line) {
            Some((name, secret)) => {
                users.retain(|user| user.name != name);
                users.push(Listed {
                    name,
                    secret: secret.into(),
                    place,
                });
            }
            None => {
                let message = "expected \"user\" \"password\"";
                problems.push(place.error("", ProblemCode::Syntax, message));
            }
        }
    }
    (users, problems)
}

/// The first two fields; PgBouncer ignores what is behind them.
fn fields(line: &str) -> Option<(String, String)> {
    let (name, rest) = unquote(line.strip_prefix('"')?, '"')?;
    let (secret, _) = unquote(rest.trim_start().strip_prefix('"')?, '"')?;
    (!name.is_empty()).then_some((name, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_secret_is_told_apart() {
        let text = "; comment\n\"a\" \"p\"\n\"b\" \"md5d41d8cd98f00b204e9800998ecf8427e\" more\n\
            \"c\" \"SCRAM-SHA-256$4096:x$y:z\"\n\"d\" \"\"\n\"e\"\"f\"  \"q\"\"r\"\n\"a\" \"md5x\"\n";
        let (users, problems) = read(text, "u");
        assert!(problems.is_empty());
        let kinds: Vec<_> = users
            .iter()
            .map(|user| (user.name.as_str(), user.place.line, user.secret.clone()))
            .collect();
        let md5 = "md5d41d8cd98f00b204e9800998ecf8427e".to_owned();
        assert!(
            kinds
                == [
                    ("b", 3, Secret::Md5(md5)),
                    ("c", 4, Secret::Scram("SCRAM-SHA-256$4096:x$y:z".to_owned())),
                    ("d", 5, Secret::Missing),
                    ("e\"f", 6, Secret::Plain("q\"r".to_owned())),
                    ("a", 7, Secret::Plain("md5x".to_owned())),
                ]
        );
    }

    #[test]
    fn a_broken_line_is_told_without_its_secret() {
        let (users, problems) = read("\"a\" secret\n\"\" \"b\"\nuser\n", "u");
        assert!(users.is_empty());
        assert_eq!(problems.len(), 3);
        assert_eq!(
            problems[0].to_string(),
            "u:1: expected \"user\" \"password\""
        );
    }
}
