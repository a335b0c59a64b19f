//! Users who are not in the configuration: their secret is looked up, or their server is asked.

use std::sync::Arc;

use pgdog_backend::{CheckoutError, Params, Rows, ServerError};
use pgdog_config::hba::Method;
use pgdog_config::{AuthQuery, AuthType, Credentials, Secret};
use pgdog_net::Peer;
use pgdog_wire::scram::Verifier;
use pgdog_wire::startup::Startup;
use pgdog_wire::{ClientError, ErrorResponse, sqlstate};
use subtle::ConstantTimeEq;

use super::password::Shown;
use super::rules::Demand;
use super::welcome::borrow;
use super::{Fail, Session};
use crate::guests::Origin;
use crate::runtime::Account;

/// What a verifier of SCRAM begins with. Nothing that does is ever taken for a password.
const SCRAM: &str = "SCRAM-SHA-256$";

impl Session {
    /// The account of a user whom `auth_query` finds.
    pub(super) async fn look_up(
        &mut self,
        startup: &Startup,
    ) -> Result<Option<Arc<Account>>, Fail> {
        let live = self.live.clone();
        let Some(entrance) = live.entrances.get(&startup.database) else {
            return Ok(None);
        };
        let Some(query) = &entrance.query else {
            return Ok(None);
        };
        let (guests, now) = (&self.runtime.guests, self.runtime.clock.now());
        let known = guests.known(&startup.user, &startup.database, Origin::Query, now);
        if known.is_some() {
            return Ok(known);
        }
        let rows = match self.rows(query, &startup.user).await {
            Ok(rows) => rows,
            Err(cause) => {
                self.why = Some(format!("auth_query failed: {cause}"));
                let text = "could not look up the password";
                return Err(ErrorResponse::fatal(sqlstate::CANNOT_CONNECT, text).into());
            }
        };
        match credentials(&rows, &startup.user) {
            Ok(Some(credentials)) => {
                let guests = &self.runtime.guests;
                Ok(Some(guests.candidate(entrance, &startup.user, credentials)))
            }
            Ok(None) => Ok(None),
            Err(wrong) => {
                self.why = Some(format!("auth_query: {wrong}"));
                Ok(None)
            }
        }
    }

    /// What the query gives for a user.
    async fn rows(&self, query: &AuthQuery, user: &str) -> Result<Rows, String> {
        let AuthQuery {
            user: runs_as,
            runs_in,
            query: sql,
            ..
        } = query;
        let account = self.live.account(runs_as, runs_in).ok_or_else(|| {
            format!("user \"{runs_as}\", who runs it, is not a user of database \"{runs_in}\"")
        })?;
        let mut server = borrow(&account.pool, self.worker)
            .await
            .map_err(|error| error.to_string())?;
        let timeout = account.user.pool.connect_timeout;
        // Without the settings of the client that had it last: the query must not follow its search_path.
        let plain = self.runtime.interner.intern(Params::default());
        let rows = match server.set_params(&plain, timeout).await {
            Ok(()) => server.query_with(sql, &[user], timeout).await,
            Err(error) => Err(error),
        };
        if server.owed.at_rest() {
            account.pool.release(server);
        }
        rows.map_err(|error| error.to_string())
    }

    /// Whether a user who is not known is asked for a password that its server is tried with.
    pub(super) fn passes_through(
        &mut self,
        startup: &Startup,
        demand: Option<&Demand>,
    ) -> Result<bool, Fail> {
        let stream = self.stream.as_ref().ok_or(Fail::Io)?;
        let secure = stream.is_tls() || self.peer == Peer::Unix;
        let entrance = self.live.entrances.get(&startup.database);
        let asks = entrance.is_some_and(|entrance| entrance.passthrough.asks(secure));
        // A rule is taken at its word; a method for all is that of the users who are known.
        let method = match demand {
            Some(demand) => demand.method == Method::Password,
            None => self.live.settings.auth != AuthType::Trust,
        };
        let would = entrance.is_some_and(|entrance| entrance.passthrough.asks(true));
        if would && !asks {
            let why =
                "there is no such user, and passthrough_auth asks for passwords over TLS only";
            self.why.get_or_insert_with(|| why.to_owned());
        }
        Ok(asks && method)
    }

    /// Tries the password of a user who is not known on its server.
    pub(super) async fn pass_through(&mut self, startup: &Startup) -> Result<Arc<Account>, Fail> {
        let live = self.live.clone();
        let entrance = live.entrances.get(&startup.database).ok_or(Fail::Io)?;
        let Some(password) = self.ask_for_password().await? else {
            return Err(self.wrong(startup, None));
        };
        let (user, database) = (&startup.user, &startup.database);
        let runtime = self.runtime.clone();
        let now = runtime.clock.now();
        let before = runtime.guests.known(user, database, Origin::Server, now);
        if let Some(before) = before {
            let fits = |known: &String| known.as_bytes().ct_eq(password.as_bytes()).into();
            if before.user.credentials.passwords.iter().any(fits) {
                self.right();
                let shown = Shown::Password(password);
                let guests = &runtime.guests;
                let account = guests.admit(entrance, &before, shown, Origin::Server);
                runtime.recheck_guests(&live, &account);
                return Ok(account);
            }
            if !entrance.passthrough.allows_change() {
                return Err(self.wrong(startup, Some(&before.secrets)));
            }
        }
        let target = entrance.own_target(user, vec![password.clone()], None);
        let budget = entrance.budgets.of_host(&target.address.to_string());
        let waited = entrance.pool.checkout_timeout;
        let Some(_place) = budget.place(waited).await else {
            let full = CheckoutError::Timeout { waited, last: None };
            return Err(full.response().into_fatal().into());
        };
        match target.connect().await {
            Ok(server) if server.asked => server.gone(true).await,
            Ok(server) => {
                server.gone(true).await;
                self.why =
                    Some("the server asks for no password, so that it proves nothing".to_owned());
                let text = "passthrough_auth needs a server that asks for the password";
                let error = ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text);
                return Err(error
                    .hint("Have pg_hba.conf of the server ask this proxy for passwords.")
                    .into());
            }
            Err(ServerError::Refused(error)) if error.code.starts_with("28") => {
                let fail = self.wrong(startup, None);
                self.why = Some(format!("the server said: {}", error.message));
                return Err(fail);
            }
            Err(error) => return Err(error.response().into_fatal().into()),
        }
        self.right();
        let credentials = Credentials {
            passwords: vec![password.clone()],
            verifier: None,
        };
        let account = runtime.guests.candidate(entrance, user, credentials);
        let shown = Shown::Password(password);
        let guests = &runtime.guests;
        let account = guests.admit(entrance, &account, shown, Origin::Server);
        runtime.recheck_guests(&live, &account);
        Ok(account)
    }

    /// Takes in a user who was looked up and has proven to be that user. Gives the account to use.
    pub(super) fn admit(
        &self,
        startup: &Startup,
        account: Arc<Account>,
        shown: Shown,
    ) -> Arc<Account> {
        let Some(entrance) = self.live.entrances.get(&startup.database) else {
            return account;
        };
        let guests = &self.runtime.guests;
        let account = guests.admit(entrance, &account, shown, Origin::Query);
        self.runtime.recheck_guests(&self.live, &account);
        account
    }
}

/// The secret in the answer of the query; `None` when it knows no such user.
fn credentials(rows: &Rows, user: &str) -> Result<Option<Credentials>, &'static str> {
    let row = match rows.as_slice() {
        [] => return Ok(None),
        [row] => row,
        _ => return Err("more than one row"),
    };
    let [name, secret, ..] = row.as_slice() else {
        return Err("expected two columns, the name and the password");
    };
    // As PgBouncer's queries may, it can say by NULL that there is nobody.
    let Some(name) = name else {
        return Ok(None);
    };
    if name != user {
        return Err("the row is of another user");
    }
    let secret = secret.clone().map(Secret);
    let mut credentials = Credentials::default();
    match secret {
        Some(secret) if secret.reveal().starts_with(SCRAM) => {
            Verifier::parse(secret.reveal()).map_err(|_| "the SCRAM verifier is malformed")?;
            credentials.verifier = Some(secret.reveal().to_owned());
        }
        Some(secret) if !secret.reveal().is_empty() => {
            credentials.passwords.push(secret.reveal().to_owned());
        }
        _ => {}
    }
    Ok(Some(credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:QSXCR+Q6sek8bf92$FO+9jBb3MUukt6jJnzjPZOWc5ow/Pu6JtPyju0aqaE8=:qxWRkN1uVrcbVxlSVW7bLMdVjCzsVaZ9CxpT/G9mU5s=";

    fn of(rows: &[&[Option<&str>]]) -> Result<Option<Credentials>, &'static str> {
        let owned = |row: &&[Option<&str>]| {
            let columns = row.iter();
            columns.map(|c| c.map(str::to_owned)).collect::<Vec<_>>()
        };
        credentials(&rows.iter().map(owned).collect(), "a")
    }

    #[test]
    fn an_answer_is_a_password_a_hash_or_a_verifier() {
        let plain = of(&[&[Some("a"), Some("p")]]).unwrap().unwrap();
        assert_eq!(
            (plain.passwords, plain.verifier),
            (vec!["p".to_owned()], None)
        );
        let scram = of(&[&[Some("a"), Some(VERIFIER)]]).unwrap().unwrap();
        assert_eq!(
            (scram.passwords, scram.verifier.as_deref()),
            (vec![], Some(VERIFIER))
        );
        for none in [None, Some("")] {
            assert_eq!(of(&[&[Some("a"), none]]), Ok(Some(Credentials::default())));
        }
    }

    #[test]
    fn an_answer_that_is_not_about_the_user_lets_nobody_in() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[&[None, None]]), Ok(None));
        for wrong in [
            &[&[Some("b"), Some("p")][..]][..],
            &[&[Some("a"), Some("p")], &[Some("a"), Some("q")]],
            &[&[Some("p")]],
            &[&[Some("a"), Some("SCRAM-SHA-256$4096:cut")]],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
