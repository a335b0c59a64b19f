//! A limit on server connections over several pools (all users of a database, all databases of a user), shared fairly.
//!
//! Max-min fair: while somebody waits for a place, whoever holds at least two more than they do gives one up as soon as
//! it is free. So one noisy user takes all places while nobody else wants them, and an equal share when others do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pgdog_config::PoolSettings;

use crate::pool::Pool;

/// One limit.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU32,
    used: AtomicU32,
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Somebody was refused a place since the last look.
    wanted: AtomicBool,
}

/// All limits of a process, by what they limit. They outlive configurations.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<HashMap<String, Arc<Budget>>>);

impl Budgets {
    /// The limits above a pool, and how many connections each shall allow: a limit that is there already is not
    /// changed by this.
    #[must_use]
    pub fn of(&self, pool: &PoolSettings) -> Vec<(Arc<Budget>, u32)> {
        let limits = [
            (format!("database {}", pool.database), pool.database_max),
            (format!("user {}", pool.user), pool.user_max),
        ];
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Users come and go without a reload.
        budgets.retain(|_, budget| Arc::strong_count(budget) > 1);
        let of = |(what, limit): (String, Option<u32>)| {
            let limit = limit?;
            let budget = budgets
                .entry(what)
                .or_insert_with(|| Budget::new(limit))
                .clone();
            Some((budget, limit))
        };
        limits.into_iter().filter_map(of).collect()
    }

    /// The limits above a pool, as they shall be from now on.
    #[must_use]
    pub fn set(&self, pool: &PoolSettings) -> Vec<Arc<Budget>> {
        let set = |(budget, limit): (Arc<Budget>, u32)| {
            budget.set_limit(limit);
            budget
        };
        self.of(pool).into_iter().map(set).collect()
    }
}

/// Places in the limits above a pool for a connection that is not one of the pool's; dropping them frees them.
#[derive(Debug)]
pub struct Places {
    pub(crate) budgets: Vec<Arc<Budget>>,
    pub(crate) pool: Arc<Pool>,
    /// The worker that the connection belongs to.
    pub(crate) worker: usize,
}

impl Drop for Places {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.release();
        }
        for budget in &self.budgets {
            budget.wake_starved(&self.pool, self.worker);
        }
        self.pool.grow_soon(self.worker);
    }
}

impl Budget {
    /// A limit of `limit` connections.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            used: AtomicU32::new(0),
            pools: Mutex::default(),
            wanted: AtomicBool::new(false),
        })
    }

    /// Changes the limit; connections above it are closed as they come back.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections that count against it now.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|p| p.upgrade().is_some_and(|p| !Arc::ptr_eq(&p, pool)));
        pools.push(Arc::downgrade(pool));
    }

    fn others(&self, pool: &Pool) -> Vec<Arc<Pool>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|p| !std::ptr::eq(&**p, pool))
            .collect()
    }

    pub(crate) fn acquire(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                (used < limit).then_some(used + 1)
            })
            .is_ok()
    }

    pub(crate) fn release(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }

    /// Makes a place for `pool`, which has waiters and `total` connections: closes another pool's idle connection, else
    /// asks for the next that is released. Either way the pool hears when the place is free.
    pub(crate) fn make_room(&self, pool: &Pool, total: u32) {
        pool.starved.store(true, Ordering::Release);
        self.wanted.store(true, Ordering::Release);
        let mut others = self.others(pool);
        others.sort_by_cached_key(|p| std::cmp::Reverse(p.lock().total));
        for other in others {
            // Idle connections serve nobody: whoever waits may have them, unless they are its only ones.
            let (their_total, their_waiters) = {
                let state = other.lock();
                (state.staying(), state.waiters)
            };
            if (their_waiters == 0 || their_total > total + 1) && other.evict_idle() {
                return;
            }
        }
    }

    /// Whether a pool with `total` connections has to give one up for another that starves, or because the limit sank.
    pub(crate) fn owes(&self, total: u32) -> bool {
        if self.used() > self.limit.load(Ordering::Relaxed) {
            return true;
        }
        if !self.wanted.load(Ordering::Acquire) {
            return false;
        }
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().filter_map(Weak::upgrade).any(|p| {
            p.starved.load(Ordering::Acquire)
                && p.state.try_lock().is_ok_and(|s| s.staying() + 1 < total)
        })
    }

    /// A place is free: whoever starves may try again, the poorest first.
    pub(crate) fn wake_starved(&self, but: &Pool, worker: usize) {
        if !self.wanted.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut starved: Vec<_> = self
            .others(but)
            .into_iter()
            .filter(|p| p.starved.swap(false, Ordering::AcqRel))
            .collect();
        starved.sort_by_cached_key(|p| p.lock().total);
        for pool in starved {
            pool.grow_soon(worker);
        }
    }
}
