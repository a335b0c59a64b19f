//! A limit on server connections over several pools (all users of a database, all databases of a user, all of a host), shared
//! fairly.
//!
//! Max-min fair: while somebody waits for a place, whoever holds at least two more than they do gives one up as soon as
//! it is free. So one noisy user takes all places while nobody else wants them, and an equal share when others do. Where there
//! are fewer places than pools that want one, they take turns.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pgdog_config::PoolSettings;

use crate::pool::{Pool, State};

/// The limit of a budget that only counts.
const UNLIMITED: u32 = u32::MAX;
/// How long a pool without any connection waits before others give theirs up for it, and keeps the one that it gets, ms: a new
/// connection costs so much that turns should not be short.
const TURN: u64 = 200;
/// How often somebody who belongs to no pool looks for a place.
const STEP: Duration = Duration::from_millis(20);

/// One limit.
#[derive(Debug)]
pub struct Budget {
    /// The limit in the upper half and the connections that count in the lower one: looked at and changed together, so that
    /// from the moment a limit is set nobody takes a place above it.
    word: AtomicU64,
    /// Those that were told to go and have not gone yet.
    going: AtomicU32,
    /// Places that are wanted for connections of no pool.
    asked: AtomicU32,
    /// The pools, by where they lie.
    pools: Mutex<HashMap<usize, Weak<Pool>>>,
    /// Somebody was refused a place since the last look.
    wanted: AtomicBool,
}

/// All limits of a process, by what they limit. They outlive configurations.
#[derive(Debug, Default)]
pub struct Budgets {
    /// Those of databases and users.
    pools: Mutex<HashMap<String, Arc<Budget>>>,
    hosts: Mutex<Hosts>,
}

/// A budget for each host, limited or not: what is open counts from the first connection on.
#[derive(Debug, Default)]
struct Hosts {
    limits: HostLimits,
    budgets: BTreeMap<String, Arc<Budget>>,
}

impl Hosts {
    fn forget_unused(&mut self) {
        self.budgets
            .retain(|_, budget| Arc::strong_count(budget) > 1);
    }
}

/// How many server connections each host may have from this process; `None` is any number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLimits {
    /// For hosts that are not named.
    pub default: Option<u32>,
    /// By address and port.
    pub hosts: BTreeMap<String, u32>,
}

impl HostLimits {
    /// The limit of a host.
    #[must_use]
    pub fn of(&self, host: &str) -> Option<u32> {
        self.hosts.get(host).copied().or(self.default)
    }
}

/// How it stands with the budget of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostBudget {
    /// Connections that there may be; `None` is any number.
    pub limit: Option<u32>,
    /// Connections that there are, with those being opened and those that were told to go and have not gone yet.
    pub open: u32,
    /// Clients that wait because there may be no more.
    pub waiting: u32,
}

impl Budgets {
    /// The limits above a pool that its settings name, and how many connections each shall allow: a limit that is there
    /// already is not changed by this.
    #[must_use]
    pub fn of(&self, pool: &PoolSettings) -> Vec<(Arc<Budget>, u32)> {
        let limits = [
            (format!("database {}", pool.database), pool.database_max),
            (format!("user {}", pool.user), pool.user_max),
        ];
        let mut budgets = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// The limits above a pool, as they shall be from now on, with that of its host.
    #[must_use]
    pub fn set(&self, pool: &PoolSettings) -> Vec<Arc<Budget>> {
        let set = |(budget, limit): (Arc<Budget>, u32)| {
            budget.set_limit(limit);
            budget
        };
        let named = self.of(pool).into_iter().map(set);
        named.chain(self.of_host_of(pool)).collect()
    }

    /// The budget of the host that a pool's servers are on.
    #[must_use]
    pub fn of_host_of(&self, pool: &PoolSettings) -> Option<Arc<Budget>> {
        let host = pool.hosts.first()?;
        Some(self.of_host(&host.address.to_string()))
    }

    /// The budget of a host, given as address and port.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Arc<Budget> {
        let mut hosts = self.hosts();
        if let Some(budget) = hosts.budgets.get(host) {
            return budget.clone();
        }
        hosts.forget_unused();
        let budget = Budget::new(hosts.limits.of(host).unwrap_or(UNLIMITED));
        hosts.budgets.insert(host.to_owned(), budget.clone());
        budget
    }

    /// Sets the limits of all hosts, also of those that are not known yet. When it returns, nobody opens a connection above
    /// them; pools close what is too much at their next ticks, as far as it is idle, and the rest as it comes back.
    pub fn limit_hosts(&self, limits: &HostLimits) {
        let budgets: Vec<_> = {
            let mut hosts = self.hosts();
            hosts.limits = limits.clone();
            for (host, budget) in &hosts.budgets {
                budget.set_limit(limits.of(host).unwrap_or(UNLIMITED));
            }
            hosts.budgets.values().cloned().collect()
        };
        for pool in budgets.iter().flat_map(|budget| budget.pools()) {
            pool.mind_limits();
        }
    }

    /// How it stands with each host that has servers or a limit of its own.
    #[must_use]
    pub fn host_figures(&self) -> BTreeMap<String, HostBudget> {
        let (limits, budgets) = {
            let mut hosts = self.hosts();
            hosts.forget_unused();
            (hosts.limits.clone(), hosts.budgets.clone())
        };
        let named = limits.hosts.iter().map(|(host, limit)| {
            let limit = Some(*limit);
            let figures = HostBudget {
                limit,
                ..HostBudget::default()
            };
            (host.clone(), figures)
        });
        let known = budgets.iter().map(|(host, b)| (host.clone(), b.figures()));
        named.chain(known).collect()
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A place in the budget of a host for a connection that only asks something; dropping it frees the place, which whoever
/// waits finds at its next tick.
#[derive(Debug)]
pub struct HostPlace(Arc<Budget>);

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Somebody who belongs to no pool waits for a place.
#[derive(Debug)]
struct Asking<'a>(&'a Budget);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Budget {
    /// A limit of `limit` connections.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(u64::from(limit) << 32),
            going: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            pools: Mutex::default(),
            wanted: AtomicBool::new(false),
        })
    }

    /// Changes the limit; connections above it are closed as they come back.
    pub fn set_limit(&self, limit: u32) {
        let set = |word: u64| Some(u64::from(limit) << 32 | word & u64::from(u32::MAX));
        // It always succeeds.
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
    }

    /// The limit, and the connections that count against it now.
    fn read(&self) -> (u32, u32) {
        let word = self.word.load(Ordering::Acquire);
        ((word >> 32) as u32, word as u32)
    }

    /// Connections that count against it now.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.read().1
    }

    /// Whether it does more than count.
    pub(crate) fn limits(&self) -> bool {
        self.read().0 != UNLIMITED
    }

    /// Whether nothing may be open at all.
    pub(crate) fn is_none(&self) -> bool {
        self.read().0 == 0
    }

    /// Whether there are more connections than there may be, without those that are going and with those that others want.
    pub(crate) fn is_over(&self) -> bool {
        let (limit, used) = self.read();
        let staying = used.saturating_sub(self.going.load(Ordering::Acquire));
        staying > 0 && staying.saturating_add(self.asked.load(Ordering::Acquire)) > limit
    }

    /// A place for a connection that only asks something and is closed again, of no pool. Waits for one as long as
    /// `patience`; pools give one up at their next tick. For any thread. Cancel safe.
    pub async fn place(self: &Arc<Self>, patience: Duration) -> Option<HostPlace> {
        let begun = Instant::now();
        let mut asking = None;
        loop {
            if self.acquire() {
                return Some(HostPlace(self.clone()));
            }
            asking.get_or_insert_with(|| {
                self.asked.fetch_add(1, Ordering::AcqRel);
                Asking(self)
            });
            if begun.elapsed() >= patience {
                return None;
            }
            pgdog_net::timer::sleep(STEP).await;
        }
    }

    /// A connection that counts was told to go (`on`), or has gone.
    pub(crate) fn going(&self, on: bool) {
        if on {
            self.going.fetch_add(1, Ordering::AcqRel);
        } else {
            self.going.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn figures(&self) -> HostBudget {
        let (limit, open) = self.read();
        let waits = |pool: &Arc<Pool>| pool.starved.load(Ordering::Acquire);
        let waiting = if open < limit {
            0
        } else {
            let starved = self.pools().into_iter().filter(waits);
            starved.map(|pool| pool.lock().waiters as u32).sum()
        };
        HostBudget {
            limit: (limit != UNLIMITED).then_some(limit),
            open,
            waiting,
        }
    }

    pub(crate) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        // Now and then: a configuration may have very many.
        if pools.len() == pools.capacity() {
            pools.retain(|_, pool| pool.strong_count() > 0);
        }
        pools.insert(Arc::as_ptr(pool) as usize, Arc::downgrade(pool));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Weak<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn others(&self, pool: &Pool) -> Vec<Arc<Pool>> {
        let mut others = self.pools();
        others.retain(|p| !std::ptr::eq(&**p, pool));
        others
    }

    pub(crate) fn acquire(&self) -> bool {
        let take = |word: u64| ((word as u32) < (word >> 32) as u32).then_some(word + 1);
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    pub(crate) fn release(&self) {
        self.word.fetch_sub(1, Ordering::AcqRel);
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
    /// `now`, and since when the pool has had the connection in question, are coarse times, ms.
    pub(crate) fn owes(&self, total: u32, now: u64, since: u64) -> bool {
        if self.is_over() {
            return true;
        }
        if !self.wanted.load(Ordering::Acquire) {
            return false;
        }
        let poorer = |state: &State| {
            let turn = || {
                let longest = |since: u64| now.saturating_sub(since) >= TURN;
                longest(since) && state.oldest_wait().is_some_and(longest)
            };
            state.staying() + 1 < total || state.total == 0 && turn()
        };
        let pools = self.lock();
        pools.values().filter_map(Weak::upgrade).any(|p| {
            p.starved.load(Ordering::Acquire) && p.state.try_lock().is_ok_and(|s| poorer(&s))
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
        starved.sort_by_cached_key(|p| {
            let state = p.lock();
            (state.total, state.oldest_wait().unwrap_or(u64::MAX))
        });
        for pool in starved {
            pool.grow_soon(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_a_place_above_a_limit_once_it_is_set() {
        let budget = Budget::new(UNLIMITED);
        assert!(!budget.limits() && (0..4).all(|_| budget.acquire()));
        budget.set_limit(2);
        assert!(budget.limits() && budget.is_over() && !budget.acquire());
        assert_eq!(budget.figures().open, 4);
        budget.release();
        budget.release();
        assert!(!budget.is_over() && !budget.acquire());
        budget.release();
        assert!(budget.acquire() && !budget.acquire());
        budget.set_limit(0);
        budget.release();
        budget.release();
        assert!(!budget.is_over() && !budget.acquire());
        assert_eq!((budget.used(), budget.figures().limit), (0, Some(0)));
    }

    #[test]
    fn what_is_going_is_not_asked_to_go_again() {
        let budget = Budget::new(3);
        assert!((0..3).all(|_| budget.acquire()));
        budget.set_limit(2);
        assert!(budget.is_over());
        budget.going(true);
        assert!(!budget.is_over() && !budget.acquire());
        budget.going(false);
        budget.release();
        assert!(!budget.is_over() && budget.used() == 2);
    }

    #[tokio::test]
    async fn who_belongs_to_no_pool_is_given_a_place_of_theirs() {
        let budget = Budget::new(1);
        let place = budget.place(Duration::ZERO).await;
        assert!(place.is_some());
        assert!(budget.place(Duration::ZERO).await.is_none());
        assert!(!budget.is_over(), "nobody asks any more");
        let waits = {
            let budget = budget.clone();
            tokio::spawn(async move { budget.place(Duration::from_secs(60)).await.is_some() })
        };
        while !budget.is_over() {
            tokio::task::yield_now().await;
        }
        drop(place);
        assert!(waits.await.unwrap());
        assert!(budget.used() == 0 && !budget.is_over());
    }

    #[test]
    fn hosts_have_their_own_limit_or_that_of_all() {
        let budgets = Budgets::default();
        let of = |host: &str| budgets.of_host(host);
        let (named, other) = (of("a:1"), of("b:1"));
        assert!(named.acquire() && other.acquire());
        let limits = HostLimits {
            default: Some(0),
            hosts: BTreeMap::from([("a:1".to_owned(), 5), ("c:1".to_owned(), 7)]),
        };
        budgets.limit_hosts(&limits);
        assert!(named.acquire() && !other.acquire() && !of("later:1").acquire());
        let figures = budgets.host_figures();
        let shown = |host: &str| figures.get(host).map(|f| (f.limit, f.open));
        assert_eq!(shown("a:1"), Some((Some(5), 2)));
        assert_eq!(shown("b:1"), Some((Some(0), 1)));
        assert_eq!(shown("c:1"), Some((Some(7), 0)), "not known yet");
        assert_eq!(shown("later:1"), None, "nobody has it any more");
        budgets.limit_hosts(&HostLimits::default());
        assert!(other.acquire() && !other.limits());
    }
}
