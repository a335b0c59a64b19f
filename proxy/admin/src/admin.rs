//! What all consoles of a process share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pgdog_session::{Account, Identity, Runtime};

use crate::averages::{Averages, Period};
use crate::control::Process;
use crate::period::timestamp;

/// The process as its administrator sees it.
pub struct Admin {
    /// What clients share.
    pub runtime: Arc<Runtime>,
    /// The way to the process.
    pub process: Arc<dyn Process>,
    /// Tells this process from others of its fleet.
    pub instance: String,
    averages: Averages,
    /// Numbers of pools, given when a pool is first asked for and kept over reloads.
    ids: Mutex<HashMap<PoolKey, i64>>,
    /// When the process' clock began.
    began: SystemTime,
}

/// What tells one pool from another, over reloads: whose it is, and the number of its host.
pub(crate) type PoolKey = (Arc<Identity>, u32);

/// What tells an account's pool from others.
pub(crate) fn pool_key(account: &Account) -> PoolKey {
    let host = account.pool.host().map_or(0, |host| host.id);
    (account.identity.clone(), host)
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// The administrator's view of a process.
    #[must_use]
    pub fn new(runtime: Arc<Runtime>, process: Arc<dyn Process>) -> Self {
        let up = Duration::from_nanos(runtime.clock.precise());
        let now = SystemTime::now();
        let random = || format!("{:08x}", rand::random::<u32>());
        Self {
            runtime,
            process,
            instance: std::env::var("NODE_ID").unwrap_or_else(|_| random()),
            averages: Averages::default(),
            ids: Mutex::default(),
            began: now.checked_sub(up).unwrap_or(now),
        }
    }

    /// Takes averages for as long as the process lives.
    pub async fn keep_averages(self: Arc<Self>) {
        loop {
            self.averages.turn(&self.runtime);
            let period = self.runtime.live().settings.stats_period;
            pgdog_net::timer::sleep(period).await;
        }
    }

    /// What happened in a pool within the last period.
    pub(crate) fn period(&self, account: &Account) -> Period {
        self.averages.of(&pool_key(account))
    }

    /// The accounts at each of their hosts, in the order of database, user and host.
    pub(crate) fn accounts(&self) -> Vec<Arc<Account>> {
        let mut accounts = self.runtime.accounts();
        accounts.sort_by(|a, b| {
            let key = |a: &Account| (a.identity.database.clone(), a.identity.user.clone());
            key(a).cmp(&key(b))
        });
        accounts
    }

    /// The number of an account's pool.
    pub(crate) fn pool_id(&self, account: &Account) -> i64 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ids.len() as i64 + 1;
        *ids.entry(pool_key(account)).or_insert(next)
    }

    /// A coarse time as text.
    pub(crate) fn time(&self, coarse: u64) -> String {
        timestamp(self.began + Duration::from_millis(coarse))
    }

    /// When the process began.
    pub(crate) const fn began(&self) -> SystemTime {
        self.began
    }

    /// Milliseconds since a coarse time.
    pub(crate) fn since(&self, coarse: u64) -> u64 {
        self.runtime.clock.now().saturating_sub(coarse)
    }
}
