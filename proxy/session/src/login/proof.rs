//! The client proves that it is who it says: by password, by certificate, as a user of this machine, or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_config::AuthType;
use pgdog_config::hba::Method;
use pgdog_net::{Peer, Stream};
use pgdog_wire::startup::Startup;
use pgdog_wire::{ErrorResponse, sqlstate};

use super::password::Shown;
use super::rules::Demand;
use super::{Fail, Session};
use crate::runtime::{Account, Secrets};

/// The accounts that a client may mean.
struct Found {
    /// That of the user in the database.
    exact: Option<Arc<Account>>,
    /// The same, or one in another database of the user: its password serves to tell that the database is not there.
    account: Option<Arc<Account>>,
}

impl Session {
    /// Finds the account and has the client prove that it is its own. Who is unknown looks and times like who errs.
    pub(super) async fn authenticate(&mut self, startup: &Startup) -> Result<Arc<Account>, Fail> {
        let demand = self.demand(startup)?;
        let Found {
            mut exact,
            mut account,
        } = self.find(startup);
        let mut looked_up = None;
        if exact.is_none() {
            looked_up = self.look_up(startup).await?;
            if let Some(guest) = &looked_up {
                exact = Some(guest.clone());
                account = Some(guest.clone());
            }
        }
        if account.is_none() && self.passes_through(startup, demand.as_ref())? {
            return self.pass_through(startup).await;
        }
        let shown = match &demand {
            None => self.prove_as_usual(account.as_ref(), &startup.user).await?,
            Some(demand) => {
                self.prove_by_rule(demand, account.as_ref(), &startup.user)
                    .await?
            }
        };
        let Some(shown) = shown else {
            self.runtime.guests.doubt(&startup.user, &startup.database);
            return Err(self.wrong(startup, secrets(account.as_ref()).as_deref()));
        };
        self.right();
        if let Some(guest) = looked_up {
            return Ok(self.admit(startup, guest, shown));
        }
        exact.ok_or_else(|| no_database(startup))
    }

    fn find(&self, startup: &Startup) -> Found {
        let of_user = self.live.accounts.get(&startup.user);
        let exact = of_user
            .and_then(|a| {
                a.get(&startup.database)
                    .or_else(|| only_server(a).filter(|_| is_physical(startup)))
            })
            .cloned();
        let account = exact.clone().or_else(|| {
            of_user
                .and_then(|a| {
                    a.values()
                        .min_by(|x, y| x.user.database.cmp(&y.user.database))
                })
                .cloned()
        });
        Found { exact, account }
    }

    /// The method that the configuration has for this user, or for all.
    async fn prove_as_usual(
        &mut self,
        account: Option<&Arc<Account>>,
        user: &str,
    ) -> Result<Option<Shown>, Fail> {
        let auth = account
            .and_then(|a| a.user.auth)
            .unwrap_or(self.live.settings.auth);
        if self.certificate_fits(account.map(Arc::as_ref)) {
            return Ok(Some(Shown::Nothing));
        }
        self.certificate_is_not_needed(account.map(Arc::as_ref), user)?;
        match auth {
            AuthType::Trust => Ok(account.map(|_| Shown::Nothing)),
            AuthType::Scram => self.scram(secrets(account), user).await,
            // Of a user who was looked up; the configuration has none such.
            AuthType::Md5 if account.is_some_and(|a| a.secrets.has_only_a_verifier()) => {
                self.scram(secrets(account), user).await
            }
            AuthType::Md5 => self.md5(secrets(account).as_deref(), user).await,
            AuthType::Plain => {
                self.plain_is_safe()?;
                self.plain(secrets(account).as_deref(), user).await
            }
        }
    }

    /// The method of the rule that fits.
    async fn prove_by_rule(
        &mut self,
        demand: &Demand,
        account: Option<&Arc<Account>>,
        user: &str,
    ) -> Result<Option<Shown>, Fail> {
        self.has_certificate(demand)?;
        let fits = self.certificate_fits(account.map(Arc::as_ref));
        if !fits {
            self.certificate_is_not_needed(account.map(Arc::as_ref), user)?;
        }
        let nothing = account.map(|_| Shown::Nothing);
        let shown = match demand.method {
            Method::Trust => nothing,
            Method::ScramSha256 => self.scram(secrets(account), user).await?,
            Method::Md5 if account.is_some_and(|a| a.secrets.has_only_a_verifier()) => {
                self.scram(secrets(account), user).await?
            }
            Method::Md5 => self.md5(secrets(account).as_deref(), user).await?,
            Method::Password => self.plain(secrets(account).as_deref(), user).await?,
            // The identity that the user is configured with is as good as a line of a map.
            Method::Cert if fits => nothing,
            Method::Cert => {
                self.is_named_by_certificate(demand, user)?;
                nothing
            }
            Method::Peer => {
                self.is_user_of_machine(demand, user).await?;
                nothing
            }
            // Was heeded before anything else.
            Method::Reject => None,
        };
        if shown.is_some() && !fits {
            self.is_named_as_demanded(demand, user)?;
        }
        Ok(shown)
    }

    fn certificate_fits(&self, account: Option<&Account>) -> bool {
        let identity = account.and_then(|a| a.user.identity.as_deref());
        let presented = self.stream.as_ref().and_then(Stream::peer_identity);
        match (identity, presented) {
            (Some(identity), Some(presented)) => presented.is(identity),
            _ => false,
        }
    }

    /// What is told to a client that can only get in by a certificate, in PostgreSQL's words.
    fn certificate_is_not_needed(
        &mut self,
        account: Option<&Account>,
        user: &str,
    ) -> Result<(), Fail> {
        if !account.is_some_and(|account| account.user.certificate_required) {
            return Ok(());
        }
        let presented = self
            .stream
            .as_ref()
            .is_some_and(|s| s.peer_identity().is_some());
        let text = if presented {
            format!("certificate authentication failed for user \"{user}\"")
        } else {
            "connection requires a valid client certificate".to_owned()
        };
        self.why = Some("the certificate does not name the user's identity".to_owned());
        Err(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into())
    }

    pub(super) fn plain_is_safe(&mut self) -> Result<(), Fail> {
        let secure = self.stream()?.is_tls()
            || self.peer == Peer::Unix
            || self.live.settings.plain_without_tls;
        if secure {
            return Ok(());
        }
        let error = ErrorResponse::fatal(
            sqlstate::INVALID_AUTHORIZATION,
            "a plain password is not asked for without TLS",
        );
        Err(error
            .hint("Connect with sslmode=require, or set plain_without_tls.")
            .into())
    }
}

/// Physical replication is of a whole server: its clients name no database, or one that does not matter.
pub(super) fn is_physical(startup: &Startup) -> bool {
    startup
        .replication
        .as_ref()
        .is_some_and(|v| v != "database")
}

fn no_database(startup: &Startup) -> Fail {
    let error = ErrorResponse::fatal(
        sqlstate::UNDEFINED_DATABASE,
        format!("database \"{}\" does not exist", startup.database),
    );
    if is_physical(startup) {
        let hint = format!(
            "The databases of this user are on several servers. Add one named \"{}\" on the server to replicate.",
            startup.database
        );
        return error.hint(hint).into();
    }
    error.into()
}

/// Any of a user's databases, when all of them are on one server.
fn only_server(accounts: &HashMap<String, Arc<Account>>) -> Option<&Arc<Account>> {
    let mut accounts: Vec<_> = accounts.values().collect();
    accounts.sort_by(|x, y| x.user.database.cmp(&y.user.database));
    let first = accounts.first()?.pool.target();
    accounts
        .iter()
        .all(|a| a.pool.target().address == first.address)
        .then(|| accounts[0])
}

fn secrets(account: Option<&Arc<Account>>) -> Option<Arc<Secrets>> {
    account.map(|account| account.secrets.clone())
}
