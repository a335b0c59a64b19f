//! RESET goes back to what the client's login gave; a server's goes back to what the server's login gave.
//!
//! Where a query string resets such a setting, what comes behind it is kept back until the value is set again: the settings
//! that the server reports, and ReadyForQuery. Then the client is told of each that is not what it was last told.

use pgdog_backend::Params;
use pgdog_sql::lexer::statements;
use pgdog_sql::set::{self, Setting};
use pgdog_wire::ClientError as _;
use pgdog_wire::backend::{self, TransactionStatus};

use crate::active::{Active, Holding};
use crate::client::{Client, Ended};
use crate::settle::ASK_TIMEOUT;

impl Active {
    /// Keeps back the end of the answer to this text, if it resets what the login gave.
    pub(crate) fn hold(&mut self, client: &Client, text: &str) {
        let names = reset_by(text, &client.startup);
        if !names.is_empty() {
            self.hold_all(names);
        }
    }

    /// Keeps back the end of an answer behind which these settings are to be set again.
    pub(crate) fn hold_all(&mut self, names: Vec<Box<str>>) {
        if let Some(server) = &self.server {
            self.restores = names;
            self.told_before = server.reported.clone();
            self.holding = Holding::Waiting;
        }
    }

    /// Within a transaction: sets what was reset to what the login gave. A rollback takes both back.
    pub(crate) async fn restore(&mut self, client: &mut Client) -> Result<(), Ended> {
        self.holding = Holding::No;
        let names = std::mem::take(&mut self.restores);
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let status = server.owed.status;
        if status == TransactionStatus::InTransaction {
            let mut given = Params::default();
            for name in names {
                if let Some(value) = client.startup.get(&name) {
                    given.set(&name, value.clone());
                }
            }
            let sql = Params::default().statements_to(&given);
            if let Err(error) = server.query(&sql, ASK_TIMEOUT).await {
                self.drop_server(client);
                return self.refuse(client, error.response().into_fatal()).await;
            }
        }
        self.release_held(status);
        self.pass_notifications();
        Ok(())
    }

    /// The settings that are not what the client was told before they were kept back, and the end of the answer.
    pub(crate) fn release_held(&mut self, status: TransactionStatus) {
        let before = std::mem::take(&mut self.told_before);
        self.tell(&before);
        backend::ready(&mut self.cout.bytes, status);
    }

    /// Tells the client what the server reports otherwise than before.
    pub(crate) fn tell(&mut self, before: &[pgdog_backend::server::Reported]) {
        let Some(server) = &self.server else { return };
        for reported in &server.reported {
            if !before.contains(reported) {
                backend::parameter_status(&mut self.cout.bytes, &reported.0, &reported.1);
            }
        }
    }
}

/// What the login gave of the settings that this text leaves reset.
fn reset_by(text: &str, startup: &Params) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    if startup.is_empty() {
        return names;
    }
    for statement in statements(text.as_bytes()) {
        match set::read(statement) {
            Some(Setting::ResetAll) => {
                names = startup.iter().map(|(name, _)| name.into()).collect()
            }
            Some(Setting::Reset { name }) if startup.get(&name).is_some() => {
                names.push(name.into());
            }
            Some(Setting::Set { name }) => names.retain(|reset| **reset != *name),
            Some(Setting::Reset { .. } | Setting::Local) | None => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use pgdog_backend::params::Value;

    use super::*;

    #[test]
    fn what_a_text_leaves_reset_is_known() {
        let mut startup = Params::default();
        for name in ["timezone", "work_mem"] {
            startup.set(name, Value::Plain("x".into()));
        }
        for (text, left) in [
            ("reset timezone", "timezone"),
            ("select 1; RESET work_mem; select 2", "work_mem"),
            ("reset timezone; set timezone = 'y'", ""),
            ("set timezone = 'y'; reset all", "timezone work_mem"),
            ("reset search_path", ""),
            ("select 'reset all'", ""),
        ] {
            assert_eq!(reset_by(text, &startup).join(" "), left, "{text}");
        }
        assert!(reset_by("reset all", &Params::default()).is_empty());
    }
}
