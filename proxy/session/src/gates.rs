//! What an administrator has switched off: databases that are paused or disabled, and the whole proxy for maintenance.
//!
//! It is kept apart from the configuration: a reload makes new pools, and those begin as the ones before were.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handle::Identity;
use crate::runtime::{Account, Live};

/// Which pools an order is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Scope {
    /// Those of one database; `None` means of all.
    pub database: Option<String>,
    /// Those of one user; `None` means of all.
    pub user: Option<String>,
}

impl Scope {
    /// Whether a user in a database belongs to it.
    #[must_use]
    pub fn covers(&self, user: &str, database: &str) -> bool {
        self.database.as_deref().is_none_or(|d| d == database)
            && self.user.as_deref().is_none_or(|u| u == user)
    }

    /// Whether it covers all that the other does.
    fn includes(&self, other: &Self) -> bool {
        let all = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        all(&self.database, &other.database) && all(&self.user, &other.user)
    }
}

/// The switches.
#[derive(Debug, Default)]
pub struct Gates(Mutex<Switches>);

#[derive(Debug, Default)]
struct Switches {
    /// Each pause with its number.
    paused: BTreeMap<Scope, u64>,
    /// How many there have been.
    pauses: u64,
    disabled: BTreeSet<String>,
    maintenance: BTreeSet<Scope>,
    /// What a change holds back that is prepared and neither in force nor undone.
    prepared: Option<Scope>,
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, Switches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses pools. The pause's number; `None` when they are all paused already.
    pub fn pause(&self, scope: Scope, accounts: impl FnOnce() -> Vec<Arc<Account>>) -> Option<u64> {
        let mut switches = self.lock();
        if switches.paused.keys().any(|s| s.includes(&scope)) {
            return None;
        }
        let number = switches.begin(scope);
        switches.apply(accounts().iter().map(Arc::as_ref));
        Some(number)
    }

    /// Whether nobody has ended this pause.
    #[must_use]
    pub fn is_paused(&self, pause: u64) -> bool {
        self.lock().paused.values().any(|number| *number == pause)
    }

    /// Ends this pause and no other one.
    pub fn take_back(&self, pause: u64, accounts: impl FnOnce() -> Vec<Arc<Account>>) {
        let mut switches = self.lock();
        switches.paused.retain(|_, number| *number != pause);
        switches.apply(accounts().iter().map(Arc::as_ref));
    }

    /// Ends pauses. Says `false` when there is none that the scope includes.
    pub fn resume(&self, scope: &Scope, accounts: impl FnOnce() -> Vec<Arc<Account>>) -> bool {
        let mut switches = self.lock();
        let before = switches.paused.len();
        switches.paused.retain(|s, _| !scope.includes(s));
        switches.apply(accounts().iter().map(Arc::as_ref));
        switches.paused.len() < before
    }

    /// Holds the next transactions back for a change that is prepared; `None` lets them go on.
    pub fn prepare(&self, scope: Option<Scope>, accounts: impl FnOnce() -> Vec<Arc<Account>>) {
        let mut switches = self.lock();
        switches.prepared = scope;
        switches.apply(accounts().iter().map(Arc::as_ref));
    }

    /// Turns what a prepared pause holds back into the pause itself, so that nobody slips through in between.
    pub fn commit_pause(&self, scope: Scope, accounts: impl FnOnce() -> Vec<Arc<Account>>) {
        let mut switches = self.lock();
        switches.prepared = None;
        switches.begin(scope);
        switches.apply(accounts().iter().map(Arc::as_ref));
    }

    /// Switches maintenance on or off.
    pub fn maintain(&self, scope: Scope, on: bool, accounts: impl FnOnce() -> Vec<Arc<Account>>) {
        let mut switches = self.lock();
        if on {
            switches.maintenance.insert(scope);
        } else {
            switches.maintenance.retain(|s| !scope.includes(s));
        }
        switches.apply(accounts().iter().map(Arc::as_ref));
    }

    /// Whether everything is paused.
    #[must_use]
    pub fn all_paused(&self) -> bool {
        self.lock().paused.contains_key(&Scope::default())
    }

    /// Whether maintenance is on for everything.
    #[must_use]
    pub fn maintenance(&self) -> bool {
        self.lock().maintenance.contains(&Scope::default())
    }

    /// Lets nobody log in to a database, or everybody again.
    pub fn disable(&self, database: &str, on: bool) {
        let mut switches = self.lock();
        if on {
            switches.disabled.insert(database.to_owned());
        } else {
            switches.disabled.remove(database);
        }
    }

    /// Whether nobody may log in to a database.
    #[must_use]
    pub fn is_disabled(&self, database: &str) -> bool {
        self.lock().disabled.contains(database)
    }

    /// Puts pools that are about to be used into the state that they shall have, before `then` makes them known: no order
    /// can come in between.
    pub(crate) fn apply_and<T>(&self, live: Arc<Live>, then: impl FnOnce(Arc<Live>) -> T) -> T {
        let switches = self.lock();
        let accounts = live.accounts.values().flat_map(HashMap::values);
        let accounts = accounts.flat_map(Account::everywhere);
        switches.apply(accounts.map(Arc::as_ref));
        then(live)
    }

    /// The same for an account that came without a configuration, and is known already.
    pub(crate) fn begin(&self, account: &Account) {
        let others = account.others.iter().map(Arc::as_ref);
        self.lock().apply(std::iter::once(account).chain(others));
    }
}

impl Switches {
    /// Another pause, with a number of its own.
    fn begin(&mut self, scope: Scope) -> u64 {
        self.pauses += 1;
        self.paused.insert(scope, self.pauses);
        self.pauses
    }

    fn apply<'a>(&self, accounts: impl IntoIterator<Item = &'a Account>) {
        let covers = |scope: &Scope, account: &Account| {
            let identity = &account.identity;
            scope.covers(&identity.user, &identity.database)
        };
        for account in accounts {
            let paused = self.paused.keys().any(|s| covers(s, account));
            account.pool.pause(paused);
            let Identity { user, database } = &*account.identity;
            let prepared = self.prepared.as_ref();
            let held = prepared.is_some_and(|scope| scope.covers(user, database));
            let maintained = self.maintenance.iter().any(|s| covers(s, account));
            account.pool.hold(held || maintained);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(user: Option<&str>, database: Option<&str>) -> Scope {
        Scope {
            user: user.map(str::to_owned),
            database: database.map(str::to_owned),
        }
    }

    #[test]
    fn a_scope_covers_what_it_names_and_includes_narrower_ones() {
        let all = Scope::default();
        let database = scope(None, Some("d"));
        let one = scope(Some("u"), Some("d"));
        assert!(all.covers("u", "d") && database.covers("u", "d") && one.covers("u", "d"));
        assert!(!database.covers("u", "other") && !one.covers("other", "d"));
        assert!(all.includes(&database) && database.includes(&one) && one.includes(&one));
        assert!(!one.includes(&database) && !database.includes(&all));
    }
}
