//! What is known of one host of one database: shared by the pools of all users, kept across reloads, and read without locks
//! wherever a host is chosen.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use pgdog_config::Role as Configured;
use pgdog_net::Address;

use crate::clock::Clock;
use crate::database::DatabaseState;
use crate::error::ServerError;
use crate::pool::Pool;

/// Failures in a row that make a healthy host an unhealthy one. One that does not answer in time has failed often enough.
pub const FALL: u32 = 2;
/// Good checks in a row that make an unhealthy host a healthy one.
pub const RISE: u32 = 2;
/// The whole share of a host, see [`HostState::share`].
pub const WHOLE: u32 = 256;
/// The share that a host begins with that is back.
const FIRST_SHARE: u64 = 16;
/// A ban without an end.
const FOR_EVER: u64 = (1 << 56) - 1;

/// What a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Role {
    /// Nobody has found out yet, or it says that it is a primary and is not the one.
    #[default]
    Unknown = 0,
    /// It takes writes.
    Primary = 1,
    /// It takes reads only.
    Replica = 2,
}

impl Role {
    /// Its name in views and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Why a host gets no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// An administrator said so, and has to take it back.
    Manual = 1,
    /// Its checks, or attempts to connect to it, failed.
    Failed = 2,
    /// It has replayed too little.
    Lag = 3,
    /// It is new and has not passed a check yet.
    Unchecked = 4,
}

impl Reason {
    /// Its name in views and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Failed => "failed",
            Self::Lag => "replication lag",
            Self::Unchecked => "initial health check",
        }
    }

    /// Whether reads may go there all the same where every other host is banned too. A host that lags gives old answers, and
    /// an administrator has reasons.
    pub(crate) fn yields(self) -> bool {
        matches!(self, Self::Failed | Self::Unchecked)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A ban as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Why.
    pub reason: Reason,
    /// Coarse time until when at least, ms; `None` is until what caused it is over.
    pub until: Option<u64>,
}

impl Ban {
    fn read(word: u64) -> Option<Self> {
        let reason = match word as u8 {
            1 => Reason::Manual,
            2 => Reason::Failed,
            3 => Reason::Lag,
            4 => Reason::Unchecked,
            _ => return None,
        };
        let until = word >> 8;
        Some(Self {
            reason,
            until: (until != FOR_EVER).then_some(until),
        })
    }

    fn word(self) -> u64 {
        self.until.unwrap_or(FOR_EVER).min(FOR_EVER) << 8 | self.reason as u64
    }
}

/// What has happened to a host, since the process knows it.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Bans.
    pub bans: AtomicU64,
    /// Checks and looks.
    pub probes: AtomicU64,
    /// Those that failed.
    pub failed_probes: AtomicU64,
    /// Failures that pools told of.
    pub failures: AtomicU64,
}

/// The state of one host.
#[derive(Debug)]
pub struct HostState {
    /// Its number, for as long as the process lives.
    pub id: u32,
    /// The database that clients ask for.
    pub database: String,
    /// Where it is.
    pub address: Arc<Address>,
    /// The database on the server.
    pub dbname: String,
    /// What has happened to it.
    pub counters: HostCounters,
    pub(crate) clock: Arc<Clock>,
    home: OnceLock<Weak<DatabaseState>>,
    configured: AtomicU8,
    role: AtomicU8,
    weight: AtomicU8,
    near: AtomicBool,
    zone: Mutex<Option<String>>,
    /// The pools of all users to it, for their logins and to have them renew their connections.
    pools: Mutex<Vec<Weak<Pool>>>,
    pub(crate) retired: AtomicBool,
    health: Mutex<Health>,
    healthy: AtomicBool,
    /// Nobody can log in to look after it.
    locked: AtomicBool,
    /// What went wrong last.
    trouble: Mutex<String>,
    ban: AtomicU64,
    detail: Mutex<String>,
    /// Servers on loan, over all pools.
    pub(crate) active: AtomicU32,
    latency: AtomicU32,
    slow_since: AtomicU64,
    slow_start: AtomicU64,
    pub(crate) lsn: AtomicU64,
    pub(crate) timeline: AtomicU32,
    pub(crate) lag_bytes: AtomicU64,
    pub(crate) lag_ms: AtomicU64,
    pub(crate) seen: AtomicU64,
    pub(crate) recovers: AtomicBool,
    pub(crate) replayed_until: AtomicU64,
}

/// Failures and good checks in a row.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    good: u32,
}

/// What a failure or a good check has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing.
    None,
    /// It was healthy and is not any more.
    Fell,
    /// It is healthy again.
    Rose,
}

/// What the configuration says of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// What it is, or that it is to be asked.
    pub role: Configured,
    /// Its share, 0 to 255.
    pub weight: u8,
    /// Where it is.
    pub zone: Option<String>,
}

/// A gap in a report of numbers.
const NONE: u64 = u64::MAX;

impl HostState {
    pub(crate) fn new(
        id: u32,
        database: &str,
        address: Arc<Address>,
        dbname: &str,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            id,
            database: database.to_owned(),
            address,
            dbname: dbname.to_owned(),
            counters: HostCounters::default(),
            clock,
            home: OnceLock::new(),
            configured: AtomicU8::new(Configured::Primary as u8),
            role: AtomicU8::new(Role::Unknown as u8),
            weight: AtomicU8::new(255),
            near: AtomicBool::new(false),
            zone: Mutex::default(),
            pools: Mutex::default(),
            retired: AtomicBool::new(false),
            health: Mutex::default(),
            healthy: AtomicBool::new(true),
            locked: AtomicBool::new(false),
            trouble: Mutex::default(),
            ban: AtomicU64::new(0),
            detail: Mutex::default(),
            active: AtomicU32::new(0),
            latency: AtomicU32::new(0),
            slow_since: AtomicU64::new(0),
            slow_start: AtomicU64::new(0),
            lsn: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            lag_bytes: AtomicU64::new(NONE),
            lag_ms: AtomicU64::new(NONE),
            seen: AtomicU64::new(0),
            recovers: AtomicBool::new(false),
            replayed_until: AtomicU64::new(0),
        }
    }

    pub(crate) fn belongs_to(&self, database: &Weak<DatabaseState>) {
        // Hosts never change their database.
        let _ = self.home.set(database.clone());
    }

    /// The database that it belongs to.
    #[must_use]
    pub fn home(&self) -> Option<Arc<DatabaseState>> {
        self.home.get().and_then(Weak::upgrade)
    }

    /// Makes a pool to it known; says whether there was none before.
    pub(crate) fn join(&self, pool: &Arc<Pool>) -> bool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|p| p.strong_count() > 0);
        if !pools
            .iter()
            .any(|p| std::ptr::eq(p.as_ptr(), Arc::as_ptr(pool)))
        {
            pools.push(Arc::downgrade(pool));
        }
        pools.len() == 1
    }

    /// The pools to it that are in use.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = pools.iter().filter_map(Weak::upgrade);
        pools.filter(|pool| !pool.is_closed()).collect()
    }

    pub(crate) fn configure(
        &self,
        options: &HostOptions,
        own_zone: Option<&str>,
        slow_start: Option<Duration>,
    ) {
        self.configured.store(options.role as u8, Ordering::Relaxed);
        self.weight.store(options.weight, Ordering::Relaxed);
        let near = own_zone.is_some() && own_zone == options.zone.as_deref();
        self.near.store(near, Ordering::Relaxed);
        let slow_start = slow_start.map_or(0, |t| t.as_millis() as u64);
        self.slow_start.store(slow_start, Ordering::Relaxed);
        self.zone_slot().clone_from(&options.zone);
    }

    /// What the configuration says of its role.
    #[must_use]
    pub fn configured(&self) -> Configured {
        match self.configured.load(Ordering::Relaxed) {
            r if r == Configured::Replica as u8 => Configured::Replica,
            r if r == Configured::Auto as u8 => Configured::Auto,
            _ => Configured::Primary,
        }
    }

    /// What it is.
    #[inline]
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Relaxed) {
            1 => Role::Primary,
            2 => Role::Replica,
            _ => Role::Unknown,
        }
    }

    pub(crate) fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::Relaxed);
    }

    /// Its share when hosts are chosen by weight; 0 is no reads while there are others.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> u8 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Whether it is in the zone of the proxy.
    #[inline]
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.near.load(Ordering::Relaxed)
    }

    /// The zone that it is in.
    #[must_use]
    pub fn zone(&self) -> Option<String> {
        self.zone_slot().clone()
    }

    fn zone_slot(&self) -> MutexGuard<'_, Option<String>> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its checks pass.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Its ban, if there is one.
    #[inline]
    #[must_use]
    pub fn ban(&self) -> Option<Ban> {
        Ban::read(self.ban.load(Ordering::Relaxed))
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.ban.load(Ordering::Relaxed) == 0
    }

    /// What was told when it was banned, for people.
    #[must_use]
    pub fn ban_detail(&self) -> Option<String> {
        self.ban().map(|_| self.detail_slot().clone())
    }

    fn detail_slot(&self) -> MutexGuard<'_, String> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bans it until [`HostState::unban`], as an administrator. The primary still takes writes.
    pub fn ban_manually(&self, why: &str) {
        self.put_ban(Reason::Manual, None, why);
    }

    /// Ends its ban, whatever the reason.
    pub fn unban(&self) {
        self.lift("an administrator has ended the ban");
    }

    pub(crate) fn put_ban(&self, reason: Reason, until: Option<u64>, why: &str) {
        // What an administrator has said stands.
        if self.ban().is_some_and(|ban| ban.reason == Reason::Manual) {
            return;
        }
        let before = self.ban();
        why.clone_into(&mut self.detail_slot());
        self.ban
            .store(Ban { reason, until }.word(), Ordering::Relaxed);
        if before.is_some_and(|before| before.reason == reason) {
            return;
        }
        self.counters.bans.fetch_add(1, Ordering::Relaxed);
        if reason != Reason::Unchecked {
            tracing::warn!(database = %self.database, host = %self.address, reason = reason.as_str(), "host banned: {why}");
        }
        if let Some(home) = self.home() {
            home.tell();
        }
    }

    pub(crate) fn lift(&self, why: &str) {
        let Some(before) = Ban::read(self.ban.swap(0, Ordering::Relaxed)) else {
            return;
        };
        if before.reason != Reason::Unchecked {
            self.slow_since
                .store(self.clock.now().max(1), Ordering::Relaxed);
            tracing::info!(database = %self.database, host = %self.address, reason = before.reason.as_str(), "host is back: {why}");
        }
        if let Some(home) = self.home() {
            home.tell();
        }
    }

    /// Tells that a connection to it could not be had or was lost. All hosts of the database are looked at at once, and this
    /// one is banned when it has failed often enough. What only one user's login has to do with says nothing of the host.
    pub fn failed(&self, error: &ServerError) {
        if error.is_permanent() {
            return;
        }
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let Some(home) = self.home() else { return };
        if !is_full(error) {
            home.failed(self, error);
        }
        home.alarm();
    }

    /// Tells that it refused a write as a server in recovery does: its role has changed. All hosts are looked at at once.
    pub fn refused_write(&self) {
        if let Some(home) = self.home() {
            home.alarm();
        }
    }

    fn trouble_slot(&self) -> MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it cannot be used: it does not answer, or nobody can log in to look after it.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let up = self.is_healthy() && !self.locked.load(Ordering::Relaxed);
        (!up).then(|| self.trouble_slot().clone())
    }

    /// Whether it takes writes though it is not the one that writes go to.
    #[must_use]
    pub fn is_rival(&self) -> bool {
        let takes_writes = self.seen().is_some() && !self.recovers.load(Ordering::Relaxed);
        takes_writes && self.is_healthy() && self.role() == Role::Unknown
    }

    /// No login can look after it.
    pub(crate) fn lock_out(&self, error: &ServerError) {
        *self.trouble_slot() = error.to_string();
        self.locked.store(true, Ordering::Relaxed);
    }

    /// Counts a failure.
    pub(crate) fn bad(&self, error: &ServerError) -> Turn {
        *self.trouble_slot() = error.to_string();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.good = 0;
        health.failures += if is_silence(error) { FALL } else { 1 };
        if health.failures >= FALL && self.healthy.swap(false, Ordering::Relaxed) {
            return Turn::Fell;
        }
        Turn::None
    }

    /// Counts a good check.
    pub(crate) fn good(&self) -> Turn {
        self.locked.store(false, Ordering::Relaxed);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failures = 0;
        health.good += 1;
        if health.good >= RISE && !self.healthy.swap(true, Ordering::Relaxed) {
            return Turn::Rose;
        }
        Turn::None
    }

    /// Takes a measured latency, of a query or of a check, into the average. Two that come at once may count as one.
    #[inline]
    pub fn record_latency(&self, ns: u64) {
        let us = u32::try_from(ns / 1_000).unwrap_or(u32::MAX).max(1);
        let before = self.latency.load(Ordering::Relaxed);
        let after = if before == 0 {
            us
        } else {
            before - before / 8 + us / 8
        };
        self.latency.store(after.max(1), Ordering::Relaxed);
    }

    /// Its average latency, µs; 0 where nothing was measured yet.
    #[inline]
    #[must_use]
    pub fn latency(&self) -> u32 {
        self.latency.load(Ordering::Relaxed)
    }

    /// Servers on loan, over the pools of all users.
    #[inline]
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How much of its share it gets: [`WHOLE`], or less while it is back for less than `slow_start`.
    #[inline]
    #[must_use]
    pub fn share(&self) -> u32 {
        let since = self.slow_since.load(Ordering::Relaxed);
        if since == 0 {
            return WHOLE;
        }
        share_after(
            self.clock.now().saturating_sub(since),
            self.slow_start.load(Ordering::Relaxed),
        )
    }

    /// Its position in the log: replayed, or on a primary inserted. 0 where it is not known.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }

    /// Its timeline; 0 where it is not known.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline.load(Ordering::Relaxed)
    }

    /// How much of the log it has not replayed, bytes.
    #[must_use]
    pub fn lag_bytes(&self) -> Option<u64> {
        known(&self.lag_bytes)
    }

    /// For how long it has not replayed what there is to replay, ms.
    #[must_use]
    pub fn lag_ms(&self) -> Option<u64> {
        known(&self.lag_ms)
    }

    /// Coarse time of the last look that succeeded, ms.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        Some(self.seen.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Whether it was in recovery, as a replica is, at that look.
    #[must_use]
    pub fn in_recovery(&self) -> Option<bool> {
        self.seen().map(|_| self.recovers.load(Ordering::Relaxed))
    }

    /// Whether it has replayed everything that was committed on the primary before `ms`, coarse time of the process' clock:
    /// a position that was read from the primary later than that.
    #[inline]
    #[must_use]
    pub fn has_replayed_since(&self, ms: u64) -> bool {
        self.replayed_until.load(Ordering::Acquire) > ms
    }
}

fn known(number: &AtomicU64) -> Option<u64> {
    Some(number.load(Ordering::Relaxed)).filter(|n| *n != NONE)
}

/// Whether a server did not answer at all, which takes as long as several failures.
fn is_silence(error: &ServerError) -> bool {
    match error {
        ServerError::Timeout(_) | ServerError::LoginTimeout { .. } => true,
        ServerError::Dial { source, .. } => {
            matches!(**source, pgdog_net::NetError::ConnectTimeout { .. })
        }
        _ => false,
    }
}

/// Whether a server has no connection to spare: it is alive, and busy.
pub(crate) fn is_full(error: &ServerError) -> bool {
    matches!(error, ServerError::Refused(e) if e.code == pgdog_wire::sqlstate::TOO_MANY_CONNECTIONS)
}

/// The share of a host that is back for `since`, both in ms.
fn share_after(since: u64, slow_start: u64) -> u32 {
    if since >= slow_start {
        return WHOLE;
    }
    let grown = (u64::from(WHOLE) - FIRST_SHARE) * since / slow_start;
    (FIRST_SHARE + grown) as u32
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn host(id: u32) -> Arc<HostState> {
        let address = Arc::new(Address::new("h", 5432 + id as u16));
        Arc::new(HostState::new(id, "d", address, "d", Arc::default()))
    }

    fn closed() -> ServerError {
        ServerError::Closed
    }

    #[test]
    fn silence_is_enough_and_a_refused_login_is_nothing() {
        let one = host(0);
        assert_eq!(one.bad(&closed()), Turn::None);
        assert_eq!(one.good(), Turn::None);
        assert_eq!(one.bad(&ServerError::Timeout(Duration::ZERO)), Turn::Fell);
        assert!(!one.is_healthy());
        let error = pgdog_wire::ErrorResponse::error("28P01", "wrong password");
        let other = host(1);
        other.failed(&ServerError::Refused(Box::new(error)));
        assert_eq!(other.counters.failures.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_administrator_s_ban_stands_until_it_is_taken_back() {
        let host = host(0);
        host.ban_manually("maintenance");
        host.put_ban(Reason::Failed, Some(5), "gone");
        assert_eq!(
            host.ban(),
            Some(Ban {
                reason: Reason::Manual,
                until: None
            })
        );
        assert_eq!(host.ban_detail().as_deref(), Some("maintenance"));
        host.unban();
        assert!(host.is_free() && host.ban().is_none() && host.ban_detail().is_none());
        assert_eq!(host.counters.bans.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_host_that_is_back_starts_slowly() {
        assert_eq!(share_after(0, 0), WHOLE);
        assert_eq!(share_after(0, 1000), FIRST_SHARE as u32);
        assert_eq!(share_after(500, 1000), 136);
        assert_eq!(share_after(1000, 1000), WHOLE);
    }

    #[test]
    fn latency_follows_what_is_measured() {
        let host = host(0);
        assert_eq!(host.latency(), 0);
        host.record_latency(800_000);
        assert_eq!(host.latency(), 800);
        for _ in 0..100 {
            host.record_latency(80_000);
        }
        assert!((80..100).contains(&host.latency()), "{}", host.latency());
    }

    proptest! {
        #[test]
        fn health_changes_only_after_enough_in_a_row(outcomes in prop::collection::vec(any::<bool>(), 1..60)) {
            let host = host(0);
            let (mut healthy, mut run, mut last) = (true, 0, None);
            for good in outcomes {
                run = if last == Some(good) { run + 1 } else { 1 };
                last = Some(good);
                let turn = if good { host.good() } else { host.bad(&closed()) };
                let expected = match (good, healthy) {
                    (false, true) if run >= FALL => Turn::Fell,
                    (true, false) if run >= RISE => Turn::Rose,
                    _ => Turn::None,
                };
                prop_assert_eq!(turn, expected);
                healthy = match turn { Turn::Fell => false, Turn::Rose => true, Turn::None => healthy };
                prop_assert_eq!(host.is_healthy(), healthy);
            }
        }

        #[test]
        fn bans_survive_their_word(reason in 0usize..4, until in prop::option::of(0u64..1 << 50)) {
            let reason = [Reason::Manual, Reason::Failed, Reason::Lag, Reason::Unchecked][reason];
            let ban = Ban { reason, until };
            prop_assert_eq!(Ban::read(ban.word()), Some(ban));
        }
    }
}
