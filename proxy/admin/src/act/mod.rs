//! Commands that change something, one subject a file.

pub(crate) mod ban;
pub(crate) mod disable;
pub(crate) mod healthcheck;
pub(crate) mod kill;
pub(crate) mod maintenance;
pub(crate) mod pause;
pub(crate) mod probe;
pub(crate) mod reconnect;
pub(crate) mod reload;
pub(crate) mod reset;
pub(crate) mod set;
pub(crate) mod shutdown;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pgdog_session::{Account, Scope};
use pgdog_wire::sqlstate;

use crate::answer::Refusal;

use crate::admin::Admin;
use crate::command::{Args, Command, usage};
use crate::lexer::Token;

/// How often a command that waits looks whether it may go on.
const STEP: Duration = Duration::from_millis(20);

/// Waits until something is so. Cancel safe.
async fn until(so: impl Fn() -> bool) {
    while !so() {
        pgdog_net::timer::sleep(STEP).await;
    }
}

/// The accounts of a scope.
fn within(admin: &Admin, scope: &Scope) -> Vec<Arc<Account>> {
    let mut accounts = admin.accounts();
    accounts.retain(|a| scope.covers(&a.identity.user, &a.identity.database));
    accounts
}

/// A scope written as `[[user] database]`.
fn scope(admin: &Admin, command: &dyn Command, args: Args<'_>) -> Result<Scope, Refusal> {
    let (user, database) = match args.words(command)?[..] {
        [] => return Ok(Scope::default()),
        [database] => (None, database),
        [user, database] => (Some(user), database),
        _ => return Err(usage(command)),
    };
    let database = find_database(admin, database)?;
    let user = user.map(|user| find_user(admin, user, &database));
    Ok(Scope {
        database: Some(database),
        user: user.transpose()?,
    })
}

/// The database that a name stands for.
fn find_database(admin: &Admin, name: &Token) -> Result<String, Refusal> {
    let accounts = admin.accounts();
    let known: BTreeSet<_> = accounts.iter().map(|a| &*a.identity.database).collect();
    find(&known, name).ok_or_else(|| {
        let text = format!(
            "database \"{}\" does not exist",
            name.content().unwrap_or_default()
        );
        near(
            Refusal::new(sqlstate::UNDEFINED_DATABASE, text),
            &known,
            name,
        )
    })
}

/// The user of a database that a name stands for.
fn find_user(admin: &Admin, name: &Token, database: &str) -> Result<String, Refusal> {
    let mut accounts = admin.accounts();
    accounts.retain(|a| a.identity.database == database);
    let known: BTreeSet<_> = accounts.iter().map(|a| &*a.identity.user).collect();
    find(&known, name).ok_or_else(|| {
        let name_of = name.content().unwrap_or_default();
        let text = format!("user \"{name_of}\" does not exist in database \"{database}\"");
        near(Refusal::new(UNDEFINED_USER, text), &known, name)
    })
}

/// `undefined_object`, which is what PostgreSQL calls a role that there is not.
const UNDEFINED_USER: &str = "42704";

/// A name as it stands, and without quotes in small letters too, as PostgreSQL takes it.
fn find(known: &BTreeSet<&str>, name: &Token) -> Option<String> {
    let exact = name.content()?;
    let folded = match name {
        Token::Word(word) => word.to_lowercase(),
        _ => exact.to_owned(),
    };
    let found = known.get(exact).or_else(|| known.get(&*folded));
    found.map(|name| (*name).to_owned())
}

fn near(error: Refusal, known: &BTreeSet<&str>, name: &Token) -> Refusal {
    let meant = pgdog_config::nearest(name.content().unwrap_or_default(), known.iter().copied());
    match meant {
        Some(meant) => error.hint(format!("Perhaps you meant \"{meant}\".")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_written_and_folded_only_without_quotes() {
        let known = BTreeSet::from(["app", "Shop"]);
        let word = |name: &str| find(&known, &Token::Word(name.to_owned()));
        let quoted = |name: &str| find(&known, &Token::Quoted(name.to_owned()));
        assert_eq!(word("Shop").as_deref(), Some("Shop"));
        assert_eq!(word("APP").as_deref(), Some("app"));
        assert_eq!(quoted("APP"), None);
        assert_eq!(quoted("Shop").as_deref(), Some("Shop"));
    }
}
