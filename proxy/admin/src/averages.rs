//! What happened in each pool within the last `stats_period`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pgdog_backend::stats::Totals;
use pgdog_session::Runtime;

use crate::admin::{PoolKey, pool_key};

/// The counters of a pool at the beginning and the end of a period.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Period {
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    /// Its length, seconds; 0 as long as none has gone by.
    pub(crate) seconds: f64,
}

/// The last period of each pool.
#[derive(Debug, Default)]
pub(crate) struct Averages(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pools: HashMap<PoolKey, Period>,
    /// When the current period began, ns.
    since: u64,
}

impl Averages {
    /// Ends a period and begins the next.
    pub(crate) fn turn(&self, runtime: &Runtime) {
        let now = runtime.clock.precise();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_sub(inner.since) as f64 / 1e9;
        inner.since = now;
        let accounts = runtime.accounts();
        inner.pools = accounts
            .iter()
            .map(|account| {
                let key = pool_key(account);
                let before = inner.pools.get(&key).copied();
                let period = Period {
                    before: before.unwrap_or_default().after,
                    after: account.pool.counters.totals(),
                    seconds,
                };
                (key, period)
            })
            .collect();
    }

    /// The last period of a pool.
    pub(crate) fn of(&self, pool: &PoolKey) -> Period {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pools.get(pool).copied().unwrap_or_default()
    }
}
