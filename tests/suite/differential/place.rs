//! Where a conversation takes place, and how scripts name it.

use pgdog_tests::{Message, Postgres};

/// What scripts write for the name of the database in Postgres.
const STAGE: &str = "$stage";

/// Where the clients of a conversation connect to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) port: u16,
    pub(super) database: &'a str,
    /// The Postgres behind it, for what a script does there directly.
    pub(super) postgres: &'a Postgres,
    /// The name of the database there.
    pub(super) behind: &'a str,
}

impl Place<'_> {
    /// Puts the names of this place where a script says `$database` (for logins) and `$stage` (in SQL).
    pub(super) fn fill_in(&self, message: &Message) -> Message {
        match message {
            Message::Startup {
                version,
                parameters,
            } => {
                let fill = |(name, value): &(String, String)| {
                    let value = if value == "$database" {
                        self.database
                    } else {
                        value
                    };
                    (name.clone(), value.to_owned())
                };
                Message::Startup {
                    version: *version,
                    parameters: parameters.iter().map(fill).collect(),
                }
            }
            Message::Query(sql) => match std::str::from_utf8(sql) {
                Ok(text) if text.contains(STAGE) => {
                    Message::query(&text.replace(STAGE, self.behind))
                }
                _ => message.clone(),
            },
            _ => message.clone(),
        }
    }

    /// Takes them out of an answer.
    pub(super) fn clear(&self, line: String) -> String {
        if line.contains(self.behind) {
            line.replace(self.behind, STAGE)
        } else {
            line
        }
    }
}
