//! Opening connections when clients wait, and the pool's housekeeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::budget::{Budget, Places};
use crate::error::{CheckoutError, ServerError};
use crate::gate::Gate;
use crate::pool::{Permit, Pool, State};
use crate::server::Server;

/// Pause after the first failed attempt to connect; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often somebody who needs a place in a limit, and none in the pool, looks whether there is one.
const ROOM_STEP: Duration = Duration::from_millis(20);

impl Pool {
    /// Opens as many connections as there are waiters without one to come, within the limits.
    /// They belong to the calling thread's runtime, which must be that of `worker`.
    pub(crate) fn grow(self: &Arc<Self>, worker: usize) {
        loop {
            let permit = {
                let mut state = self.lock();
                let wanted = state.waiters > state.connecting as usize;
                let oldest = state
                    .waiting
                    .iter()
                    .filter_map(|q| q.front())
                    .map(|w| w.since)
                    .min();
                let waited = oldest.map_or(0, |since| {
                    self.clock.now().saturating_sub(since.max(state.resumed))
                });
                let reserve = if u128::from(waited) >= state.settings.reserve_timeout.as_millis() {
                    state.settings.reserve_size
                } else {
                    0
                };
                let allowed = state.total < state.settings.size + reserve
                    && state.connecting < state.settings.max_connecting.max(1);
                if !wanted || !allowed || state.gate.shut() || self.clock.now() < state.retry_at {
                    return;
                }
                let budgets = state.budgets.clone();
                match acquire(&budgets) {
                    Ok(()) => {
                        state.total += 1;
                        state.connecting += 1;
                        Permit::new(self, budgets, worker)
                    }
                    Err(refused) => {
                        let total = state.staying();
                        drop(state);
                        refused.make_room(self, total);
                        return;
                    }
                }
            };
            tokio::spawn(open(self.clone(), permit, worker));
        }
    }

    /// Places in the limits above this pool for a connection that will not be one of it: a replication connection has its
    /// server for itself, and PostgreSQL counts those apart, so it takes no place of the pool's own. Idle connections make
    /// room; waits as long as a client waits for a connection.
    ///
    /// # Errors
    ///
    /// [`CheckoutError::Timeout`], [`CheckoutError::Closed`].
    pub async fn reserve(self: &Arc<Self>, worker: usize) -> Result<Places, CheckoutError> {
        let mut begun = std::time::Instant::now();
        loop {
            let (budgets, settings, total, shut) = {
                let state = self.lock();
                if state.gate.has(Gate::CLOSED) {
                    return Err(CheckoutError::Closed);
                }
                let (budgets, settings) = (state.budgets.clone(), state.settings.clone());
                (budgets, settings, state.staying(), state.gate.shut())
            };
            if shut {
                pgdog_net::timer::sleep(ROOM_STEP).await;
                begun = std::time::Instant::now();
                continue;
            }
            let Err(full) = acquire(&budgets) else {
                return Ok(Places {
                    budgets,
                    pool: self.clone(),
                    worker,
                });
            };
            if begun.elapsed() >= settings.checkout_timeout {
                return Err(CheckoutError::Timeout {
                    waited: settings.checkout_timeout,
                    last: None,
                });
            }
            if !self.evict_idle() {
                full.make_room(self, total);
            }
            pgdog_net::timer::sleep(ROOM_STEP).await;
        }
    }

    /// As [`Pool::grow`] where a runtime is there to do it; else the next tick does.
    pub(crate) fn grow_soon(self: &Arc<Self>, worker: usize) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.grow(worker);
        }
    }

    /// Housekeeping of one worker, several times a second: waiters past their time, connections idle for too long or too
    /// old, connections that the pool should have in stock.
    pub fn tick(self: &Arc<Self>, worker: usize) {
        let now = self.clock.now();
        let (late, spent, error, short) = {
            let mut state = self.lock();
            let settings = state.settings.clone();
            let deadline = now.saturating_sub(settings.checkout_timeout.as_millis() as u64);
            let mut late = Vec::new();
            while let Some(waiter) = state.waiting[worker].front() {
                if waiter.since.max(state.resumed) >= deadline || state.gate.shut() {
                    break;
                }
                late.extend(state.waiting[worker].pop_front());
            }
            state.waiters -= late.len();
            let spare = state.staying().saturating_sub(settings.min_size);
            let mut spent = spent(&mut state.idle[worker], now, settings.idle_timeout, spare);
            spent.extend(state.surplus(worker));
            spent.append(&mut state.leaving[worker]);
            let short = worker == 0
                && !state.gate.keeps_none()
                && state.total < settings.min_size.min(settings.size)
                && now >= state.retry_at
                && state.connecting == 0;
            let error = (!late.is_empty()).then(|| state.too_late());
            (late, spent, error, short)
        };
        for (waiter, error) in late.into_iter().zip(error.iter().cycle()) {
            self.stats.wait_timeouts.fetch_add(1, Ordering::Relaxed);
            waiter.fail(error.clone());
        }
        spent.into_iter().for_each(|s| s.close());
        if short {
            self.stock(worker);
        }
        self.grow(worker);
    }

    /// Opens one connection that nobody waits for.
    fn stock(self: &Arc<Self>, worker: usize) {
        let permit = {
            let mut state = self.lock();
            let budgets = state.budgets.clone();
            if acquire(&budgets).is_err() {
                return;
            }
            state.total += 1;
            state.connecting += 1;
            Permit::new(self, budgets, worker)
        };
        tokio::spawn(open(self.clone(), permit, worker));
    }
}

impl State {
    /// Whether there is any connection, idle or on loan.
    fn has_servers(&self) -> bool {
        self.staying() > self.connecting
    }

    /// What the last attempt to connect found out, where there is no connection and the next attempt is not due yet:
    /// a crowd of clients makes one attempt, and not one each.
    pub(crate) fn known_in_vain(&self, now: u64) -> Option<ServerError> {
        let in_vain = now < self.retry_at && self.staying() == 0;
        self.last_error
            .as_ref()
            .filter(|error| in_vain && (error.is_permanent() || self.is_one_of_many()))
            .cloned()
    }

    /// What those hear who have waited for as long as they may.
    fn too_late(&self) -> CheckoutError {
        let waited = self.settings.checkout_timeout;
        let address = self.target.address.to_string();
        match self.last_error.clone() {
            last if self.has_servers() => CheckoutError::Timeout { waited, last },
            Some(cause) => CheckoutError::Unreachable {
                address,
                waited,
                cause,
            },
            // The first attempt is still under way.
            None if self.connecting > 0 => CheckoutError::Unreachable {
                cause: ServerError::LoginTimeout {
                    address: address.clone(),
                    timeout: waited,
                },
                address,
                waited,
            },
            None => CheckoutError::Timeout { waited, last: None },
        }
    }
}

/// A place in each of the limits, or the one that has none.
fn acquire(budgets: &[Arc<Budget>]) -> Result<(), &Arc<Budget>> {
    for (taken, budget) in budgets.iter().enumerate() {
        if !budget.acquire() {
            budgets[..taken].iter().for_each(|b| b.release());
            return Err(budget);
        }
    }
    Ok(())
}

/// Takes out connections that are too old, or idle for too long while there are more than `spare` says must stay.
#[allow(clippy::vec_box, reason = "as the pool keeps them")]
fn spent(
    idle: &mut Vec<Box<Server>>,
    now: u64,
    idle_timeout: Option<Duration>,
    mut spare: u32,
) -> Vec<Box<Server>> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut spent = Vec::new();
    let mut index = 0;
    while index < idle.len() {
        let server = &mut idle[index];
        let old = server.expires.is_some_and(|at| at <= now);
        let unused = spare > 0
            && idle_timeout
                .is_some_and(|t| u128::from(now.saturating_sub(server.used)) >= t.as_millis());
        if old || unused || !server.still_idle(&mut cx) {
            spare = spare.saturating_sub(1);
            spent.push(idle.remove(index));
        } else {
            index += 1;
        }
    }
    spent
}

/// Opens one connection and hands it to whoever waits.
async fn open(pool: Arc<Pool>, permit: Permit, worker: usize) {
    let (settings, target, generation) = {
        let state = pool.lock();
        (
            state.settings.clone(),
            state.target.clone(),
            state.generation,
        )
    };
    let began = pool.clock.precise();
    let mut result = target.connect().await;
    for _ in 1..settings.connect_attempts.max(1) {
        if !result.as_ref().is_err_and(|e| !e.is_permanent()) {
            break;
        }
        pgdog_net::timer::sleep(settings.connect_attempt_delay).await;
        result = target.connect().await;
    }
    match result {
        Ok(mut server) => {
            let now = pool.clock.now();
            server.used = now;
            server.worker = worker;
            server.generation = generation;
            server.expires = settings.lifetime.map(|lifetime| {
                now + jittered(lifetime, settings.lifetime_jitter).as_millis() as u64
            });
            server.permit = Some(permit);
            pool.list(&mut server);
            let took = pool.clock.precise().saturating_sub(began);
            pool.counters.of(worker).connect_time.record(took);
            {
                let mut state = pool.lock();
                state.connecting -= 1;
                state.failures = 0;
                state.retry_at = 0;
                state.last_error = None;
            }
            pool.stats.connects.fetch_add(1, Ordering::Relaxed);
            pool.release(Box::new(server));
        }
        Err(error) => failed(&pool, permit, worker, error).await,
    }
}

async fn failed(pool: &Arc<Pool>, permit: Permit, worker: usize, error: ServerError) {
    pool.stats.connect_errors.fetch_add(1, Ordering::Relaxed);
    let pause = {
        let mut state = pool.lock();
        state.connecting -= 1;
        let now = pool.clock.now();
        // Attempts that ran side by side and failed together are one failure.
        if now >= state.retry_at {
            state.failures += 1;
            let pause = (BACKOFF * 2u32.pow((state.failures - 1).min(10))).min(BACKOFF_MAX);
            state.retry_at = now + pause.as_millis() as u64;
        }
        let pause = Duration::from_millis(state.retry_at - now);
        state.last_error = Some(error.clone());
        pause
    };
    drop(permit);
    tracing::warn!(user = %pool.user, database = %pool.database, "failed to connect to server: {error}");
    pool.tell_failure(&error);
    // Where there are connections, those who wait get one of them.
    let (alone, elsewhere) = {
        let state = pool.lock();
        let alone = error.is_permanent() && !state.has_servers();
        // Where there are other hosts, nobody waits for one that does not answer.
        let elsewhere = state.is_one_of_many() && !crate::host::is_full(&error);
        (alone, elsewhere)
    };
    if alone || elsewhere {
        pool.fail_waiters(&CheckoutError::Server(error));
    }
    pgdog_net::timer::sleep(pause).await;
    pool.grow(worker);
}

fn jittered(lifetime: Duration, jitter: Duration) -> Duration {
    if jitter.is_zero() {
        return lifetime;
    }
    let spread = rand::random_range(0..=2 * jitter.as_millis() as u64);
    (lifetime + Duration::from_millis(spread)).saturating_sub(jitter)
}
