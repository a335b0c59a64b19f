//! Users who are not in the configuration: those whose secret `auth_query` finds, and those whom their server lets in.
//!
//! Each has an account as the users of the configuration have, made when it first logs in and taken out when it has had
//! neither client nor connection in use for as long as its connections may be idle. A new configuration keeps those that
//! it still lets in to the same servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgdog_backend::{
    Budgets, Clock, Cluster, DatabaseState, HostState, Member, Passed, Pool, Role, Target,
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
    /// Its hosts: the primary first, where one is configured. There is at least one.
    pub hosts: Vec<EntranceHost>,
    /// How their secrets are found.
    pub query: Option<AuthQuery>,
    /// Whether their servers are asked.
    pub passthrough: PassthroughAuth,
    /// The database as it is known to the pools of all users.
    pub database: Arc<DatabaseState>,
    /// Clients of each at once, over all databases.
    pub max_clients: Option<u32>,
    /// Limits over several pools.
    pub budgets: Arc<Budgets>,
    /// Threads that serve clients.
    pub workers: usize,
    /// Coarse time.
    pub clock: Arc<Clock>,
}

/// One of the hosts that guests are served by.
#[derive(Debug)]
pub struct EntranceHost {
    /// What pools to it are like; the names of the user are empty.
    pub pool: PoolSettings,
    /// How it is reached.
    pub target: Target,
    /// What is known of it.
    pub host: Arc<HostState>,
}

/// References to a pool that an account itself has.
const OWN: usize = 2;

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
        let known = |index: usize| Some(before?.cluster.members().get(index)?.pool.clone());
        let member = |(index, at): (usize, &EntranceHost)| {
            let new = || {
                let settings = settings_of(&at.pool, user);
                Pool::new(
                    Arc::new(settings.clone()),
                    Arc::new(self.target_of(at, user, Vec::new(), None)),
                    self.budgets.set(&settings),
                    self.workers,
                    self.clock.clone(),
                )
            };
            Member {
                pool: known(index).unwrap_or_else(new),
                host: at.host.clone(),
            }
        };
        let members = self.hosts.iter().enumerate().map(member).collect();
        let cluster = Cluster::new(members, self.database.clone());
        let user = User {
            name: user.to_owned(),
            database: self.pool.database.clone(),
            credentials,
            identity: None,
            certificate_required: false,
            auth: None,
            max_clients: self.max_clients,
            pool: settings_of(&self.pool, user),
        };
        let account = Account::new(&user, &cluster);
        if let Some(before) = before {
            account.adopt(before);
        }
        account
    }

    /// How a host is reached for a user: by the login of the database, if it has one, else by the user's own.
    fn target_of(
        &self,
        at: &EntranceHost,
        user: &str,
        passwords: Vec<String>,
        passed: Option<Passed>,
    ) -> Target {
        if self.pool.server_user.is_empty() {
            return at.target.of_user(user, passwords, passed);
        }
        at.target.clone()
    }

    /// The host that is asked whether a user's password is right: the one that takes writes, as far as one is known.
    fn asked(&self) -> &EntranceHost {
        let primary = |at: &&EntranceHost| at.host.role() == Role::Primary;
        self.hosts.iter().find(primary).unwrap_or(&self.hosts[0])
    }

    /// How the servers are reached by the user itself.
    pub(crate) fn own_target(
        &self,
        user: &str,
        passwords: Vec<String>,
        passed: Option<Passed>,
    ) -> Target {
        self.asked().target.of_user(user, passwords, passed)
    }

    /// Has what a user has shown, or what is known of its secret, log in to the servers.
    fn pass_on(&self, account: &Account, shown: Shown) {
        let User {
            name, credentials, ..
        } = &account.user;
        let (passwords, passed) = match shown {
            Shown::Password(password) => (vec![password], None),
            Shown::Keys(params, keys) if credentials.passwords.is_empty() => {
                (Vec::new(), Some(Passed { params, keys }))
            }
            Shown::Keys(..) | Shown::Nothing => (credentials.passwords.clone(), None),
        };
        for (at, member) in self.hosts.iter().zip(account.cluster.members()) {
            let target = self.target_of(at, name, passwords.clone(), passed.clone());
            let before = member.pool.target();
            let same = before.passwords == target.passwords && before.passed == target.passed;
            // What has logged in before is better than nothing.
            let nothing = target.passwords.is_empty() && target.passed.is_none();
            if !same && !nothing {
                let settings = settings_of(&at.pool, name);
                let budgets = self.budgets.set(&settings);
                let (settings, target) = (Arc::new(settings), Arc::new(target));
                member.pool.configure(settings, target, &budgets);
            }
        }
    }

    /// Whether the pools of an account are what they would be if they were made now.
    fn fits(&self, account: &Account) -> bool {
        let members = account.cluster.members();
        let same = |(at, member): (&EntranceHost, &Member)| {
            let now = settings_of(&at.pool, &account.user.name);
            member.pool.settings().same_servers(&now)
        };
        members.len() == self.hosts.len() && self.hosts.iter().zip(members).all(same)
    }

    fn admits(&self, origin: Origin) -> bool {
        match origin {
            Origin::Query => self.query.is_some(),
            Origin::Server => self.passthrough != PassthroughAuth::Disabled,
        }
    }
}

/// The settings of a user's pool, of those without a user.
fn settings_of(pool: &PoolSettings, user: &str) -> PoolSettings {
    let mut settings = pool.clone();
    // A pool that keeps connections of its own accord would never be unused.
    settings.min_size = 0;
    user.clone_into(&mut settings.user);
    if settings.server_user.is_empty() {
        user.clone_into(&mut settings.server_user);
    }
    settings
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
        let all = self.all();
        let accounts = all.values().flat_map(|g| g.account.everywhere());
        accounts.cloned().collect()
    }

    /// The upkeep of their pools, as one worker does it several times a second. Under the lock, so that whoever does it is
    /// not taken for a client that holds the account.
    pub fn tick(&self, worker: usize) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let all = self.all();
        let accounts = all.values().flat_map(|g| g.account.everywhere());
        accounts.for_each(|account| account.pool.tick(worker));
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
            let mut accounts = guest.account.everywhere();
            let here =
                accounts.any(|a| Arc::strong_count(a) > 1 || Arc::strong_count(&a.pool) > OWN);
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
                gone.extend(guest.account.everywhere().map(|a| a.pool.clone()));
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
            let stays = entrance.filter(|entrance| !listed && entrance.fits(before));
            let Some(entrance) = stays else {
                gone.extend(before.everywhere().map(|a| a.pool.clone()));
                return false;
            };
            let credentials = before.user.credentials.clone();
            let account = entrance.account(user, credentials, Some(before));
            for (at, member) in entrance.hosts.iter().zip(account.cluster.members()) {
                let secrets = member.pool.target();
                let (passwords, passed) = (secrets.passwords.clone(), secrets.passed.clone());
                let target = entrance.target_of(at, user, passwords, passed);
                let settings = Arc::new(settings_of(&at.pool, user));
                let budgets = entrance.budgets.set(&settings);
                member.pool.configure(settings, Arc::new(target), &budgets);
            }
            guest.account = Arc::new(account);
            guest.checked = 0;
            true
        });
        self.count.store(all.len(), Ordering::Release);
        gone
    }
}
