//! Users who are not in the configuration: those whose secret `auth_query` finds, and those whom their server lets in.
//!
//! Each has an account as the users of the configuration have, made when it first logs in and taken out when it has had
//! neither client nor connection in use for as long as its connections may be idle. A new configuration keeps those that
//! it still lets in to the same servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgdog_backend::{
    Budgets, Clock, Cluster, DatabaseState, HostState, Member, Passed, Pool, Target,
};
use pgdog_config::{AuthQuery, Credentials, PassthroughAuth, PoolSettings, User};

use crate::login::password::Shown;
use crate::runtime::{Account, Live};

/// How long a secret that was looked up is believed, ms: many clients that come at once cost one query.
const FRESH: u64 = 2_000;
/// How long a guest is kept that nobody is, ms, where its connections may be idle for ever.
const KEPT: u64 = 60_000;

/// How users come into a database who are not in the configuration.
#[derive(Debug)]
pub struct Entrance {
    /// What their pools are like; the names of the user are empty.
    pub pool: PoolSettings,
    /// How the servers are reached.
    pub target: Target,
    /// How their secrets are found.
    pub query: Option<AuthQuery>,
    /// Whether their servers are asked.
    pub passthrough: PassthroughAuth,
    /// The database as it is known to the pools of all users.
    pub database: Arc<DatabaseState>,
    /// The host that guests are served by: the primary, where one is configured.
    pub host: Arc<HostState>,
    /// Clients of each at once, over all databases.
    pub max_clients: Option<u32>,
    /// Limits over several pools.
    pub budgets: Arc<Budgets>,
    /// Threads that serve clients.
    pub workers: usize,
    /// Coarse time.
    pub clock: Arc<Clock>,
}

/// Who has let a guest in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `auth_query`.
    Query,
    /// Its server, by `passthrough_auth`.
    Server,
}

/// The guests of a process.
#[derive(Debug, Default)]
pub struct Guests {
    all: Mutex<HashMap<(String, String), Guest>>,
    /// How many there are, for those who look often.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Guest {
    account: Arc<Account>,
    origin: Origin,
    /// When its secret was looked up, coarse ms; 0 when that is in doubt.
    checked: u64,
    /// When somebody was last seen to be it, coarse ms.
    used: u64,
}

impl Entrance {
    /// An account of a user. It has the pool of the one before, if there was one, else a pool that opens no connection
    /// until the account is admitted.
    fn account(&self, user: &str, credentials: Credentials, before: Option<&Account>) -> Account {
        let settings = self.settings_of(user);
        let pool = before.map_or_else(
            || {
                Pool::new(
                    Arc::new(settings.clone()),
                    Arc::new(self.target_of(user, Vec::new(), None)),
                    self.budgets.set(&settings),
                    self.workers,
                    self.clock.clone(),
                )
            },
            |before| before.pool.clone(),
        );
        let member = Member {
            pool,
            host: self.host.clone(),
        };
        let cluster = Cluster::new(vec![member], self.database.clone());
        let user = User {
            name: user.to_owned(),
            database: self.pool.database.clone(),
            credentials,
            identity: None,
            certificate_required: false,
            auth: None,
            max_clients: self.max_clients,
            pool: settings,
        };
        let account = Account::new(user, cluster);
        if let Some(before) = before {
            account.adopt(before);
        }
        account
    }

    fn settings_of(&self, user: &str) -> PoolSettings {
        let mut settings = self.pool.clone();
        // A pool that keeps connections of its own accord would never be unused.
        settings.min_size = 0;
        user.clone_into(&mut settings.user);
        if settings.server_user.is_empty() {
            user.clone_into(&mut settings.server_user);
        }
        settings
    }

    /// How the servers are reached for a user: by the login of the database, if it has one, else by the user's own.
    fn target_of(&self, user: &str, passwords: Vec<String>, passed: Option<Passed>) -> Target {
        if self.pool.server_user.is_empty() {
            return self.own_target(user, passwords, passed);
        }
        self.target.clone()
    }

    /// How the servers are reached by the user itself.
    pub(crate) fn own_target(
        &self,
        user: &str,
        passwords: Vec<String>,
        passed: Option<Passed>,
    ) -> Target {
        self.target.of_user(user, passwords, passed)
    }

    /// Has what a user has shown, or what is known of its secret, log in to the servers.
    fn pass_on(&self, account: &Account, shown: Shown) {
        let User {
            name,
            credentials,
            pool: settings,
            ..
        } = &account.user;
        let (passwords, passed) = match shown {
            Shown::Password(password) => (vec![password], None),
            Shown::Keys(params, keys) if credentials.passwords.is_empty() => {
                (Vec::new(), Some(Passed { params, keys }))
            }
            Shown::Keys(..) | Shown::Nothing => (credentials.passwords.clone(), None),
        };
        let target = self.target_of(name, passwords, passed);
        let before = account.pool.target();
        let same = before.passwords == target.passwords && before.passed == target.passed;
        // What has logged in before is better than nothing.
        let nothing = target.passwords.is_empty() && target.passed.is_none();
        if !same && !nothing {
            let budgets = self.budgets.set(settings);
            let settings = Arc::new(settings.clone());
            account.pool.configure(settings, Arc::new(target), &budgets);
        }
    }

    fn admits(&self, origin: Origin) -> bool {
        match origin {
            Origin::Query => self.query.is_some(),
            Origin::Server => self.passthrough != PassthroughAuth::Disabled,
        }
    }
}

impl Guests {
    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Guest>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accounts of all.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.all().values().map(|g| g.account.clone()).collect()
    }

    /// The upkeep of their pools, as one worker does it several times a second. Under the lock, so that whoever does it is
    /// not taken for a client that holds the account.
    pub fn tick(&self, worker: usize) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let all = self.all();
        all.values().for_each(|g| g.account.pool.tick(worker));
    }

    /// The account of a user in a database.
    #[must_use]
    pub fn account(&self, user: &str, database: &str) -> Option<Arc<Account>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let all = self.all();
        let guest = all.get(&(user.to_owned(), database.to_owned()))?;
        Some(guest.account.clone())
    }

    /// The same, let in by `origin`; of those who were looked up only if that was a moment ago.
    pub(crate) fn known(
        &self,
        user: &str,
        database: &str,
        origin: Origin,
        now: u64,
    ) -> Option<Arc<Account>> {
        let all = self.all();
        let guest = all.get(&(user.to_owned(), database.to_owned()))?;
        let fresh = origin == Origin::Server
            || guest.checked != 0 && now.saturating_sub(guest.checked) < FRESH;
        (guest.origin == origin && fresh).then(|| guest.account.clone())
    }

    /// The account to check a user against who has this secret. It is no guest before it is admitted.
    pub(crate) fn candidate(
        &self,
        entrance: &Entrance,
        user: &str,
        credentials: Credentials,
    ) -> Arc<Account> {
        let before = self.account(user, &entrance.pool.database);
        match before {
            Some(before) if before.user.credentials == credentials => {
                self.checked(user, &entrance.pool.database, entrance.clock.now());
                before
            }
            before => Arc::new(entrance.account(user, credentials, before.as_deref())),
        }
    }

    /// Takes in who has proven to be this user, and has what was shown log in to the servers. Gives the account to use: of
    /// several clients that come first at once, all get the one pool.
    pub(crate) fn admit(
        &self,
        entrance: &Entrance,
        candidate: &Arc<Account>,
        shown: Shown,
        origin: Origin,
    ) -> Arc<Account> {
        let User { name, database, .. } = &candidate.user;
        let credentials = &candidate.user.credentials;
        let now = entrance.clock.now();
        let mut all = self.all();
        let before = all.get(&(name.clone(), database.clone()));
        let account = match before.map(|guest| &guest.account) {
            Some(before) if before.user.credentials == *credentials => before.clone(),
            Some(before) if !Arc::ptr_eq(&before.pool, &candidate.pool) => {
                Arc::new(entrance.account(name, credentials.clone(), Some(before)))
            }
            _ => candidate.clone(),
        };
        // Who comes in by what is known already makes that no newer: else a changed password would never be seen.
        let checked = before
            .filter(|guest| Arc::ptr_eq(&guest.account, &account))
            .map_or(now, |guest| guest.checked);
        if before.is_none() {
            tracing::debug!(user = %name, database = %database, ?origin, "guest admitted");
        }
        entrance.pass_on(&account, shown);
        let guest = Guest {
            account: account.clone(),
            origin,
            checked,
            used: now,
        };
        all.insert((name.clone(), database.clone()), guest);
        self.count.store(all.len(), Ordering::Release);
        account
    }

    /// Has the secret of a user looked up again: somebody knew another one.
    pub(crate) fn doubt(&self, user: &str, database: &str) {
        self.checked(user, database, 0);
    }

    /// Notes when the secret of a user was looked up.
    fn checked(&self, user: &str, database: &str, at: u64) {
        if let Some(guest) = self.all().get_mut(&(user.to_owned(), database.to_owned())) {
            guest.checked = at;
        }
    }

    /// Takes out who has not been here for a while. Gives their pools, to be closed.
    pub(crate) fn sweep(&self, now: u64) -> Vec<Arc<Pool>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut gone = Vec::new();
        let mut all = self.all();
        all.retain(|_, guest| {
            // Its clients, and whoever is logging in, have the account or one before it with the same pool.
            let here =
                Arc::strong_count(&guest.account) > 1 || Arc::strong_count(&guest.account.pool) > 1;
            if here {
                guest.used = now;
                return true;
            }
            let idle = guest.account.user.pool.idle_timeout;
            let kept = idle.map_or(KEPT, |idle| u64::try_from(idle.as_millis()).unwrap_or(KEPT));
            let stays = now.saturating_sub(guest.used) < kept;
            if !stays {
                let User { name, database, .. } = &guest.account.user;
                tracing::debug!(user = %name, database = %database, "guest forgotten");
                gone.push(guest.account.pool.clone());
            }
            stays
        });
        self.count.store(all.len(), Ordering::Release);
        gone
    }

    /// Follows another configuration. Gives the pools of those whom it does not let in, to be closed.
    pub(crate) fn follow(&self, live: &Live) -> Vec<Arc<Pool>> {
        let mut gone = Vec::new();
        let mut all = self.all();
        all.retain(|(user, database), guest| {
            let before = &guest.account;
            let entrance = live.entrances.get(database);
            let entrance = entrance.filter(|e| e.admits(guest.origin));
            let listed = live.account(user, database).is_some();
            let stays = entrance.filter(|entrance| {
                let now = entrance.settings_of(user);
                !listed && before.pool.settings().same_servers(&now)
            });
            let Some(entrance) = stays else {
                gone.push(before.pool.clone());
                return false;
            };
            let secrets = before.pool.target();
            let target =
                entrance.target_of(user, secrets.passwords.clone(), secrets.passed.clone());
            let credentials = before.user.credentials.clone();
            let account = entrance.account(user, credentials, Some(before));
            let settings = Arc::new(account.user.pool.clone());
            let budgets = entrance.budgets.set(&settings);
            account.pool.configure(settings, Arc::new(target), &budgets);
            guest.account = Arc::new(account);
            guest.checked = 0;
            true
        });
        self.count.store(all.len(), Ordering::Release);
        gone
    }
}
