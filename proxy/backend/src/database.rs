//! What is known of the hosts of one database together: who is the primary, what has been replayed where, and what shall be
//! asked next. Shared by all users and kept across reloads.

mod plan;
mod settle;

use pgdog_config::{Balancing, Checks, LoadBalancingStrategy, ReadWriteSplit};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::error::ServerError;
use crate::host::{HostOptions, HostState, RISE, Reason, Turn};
use crate::monitor::Look;
use crate::replay::Samples;
use crate::roles::{Observation, Seen, Verdict};

pub(crate) use plan::Plan;
use settle::evict;

/// A limit of lag below this, ms, counts at looks only: between two of them a host would be out for no reason.
const STRICT: u64 = 500;
/// How far the coarse clock and an answer may be behind, ms.
const COARSE: u64 = 150;

/// The strategies and splits, by their numbers in [`DatabaseState`].
const STRATEGIES: [LoadBalancingStrategy; 5] = [
    LoadBalancingStrategy::Random,
    LoadBalancingStrategy::RoundRobin,
    LoadBalancingStrategy::LeastActiveConnections,
    LoadBalancingStrategy::WeightedRoundRobin,
    LoadBalancingStrategy::LeastLatency,
];
const SPLITS: [ReadWriteSplit; 4] = [
    ReadWriteSplit::IncludePrimary,
    ReadWriteSplit::ExcludePrimary,
    ReadWriteSplit::IncludePrimaryIfReplicaBanned,
    ReadWriteSplit::PreferPrimary,
];

/// Why there is no primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPrimary {
    /// Nobody is known to be it; there may be one in a moment.
    Unknown,
    /// Several hosts say that they are it, and nothing tells them apart.
    Split,
    /// All hosts are configured as replicas.
    ReplicasOnly,
}

/// Who takes writes, by the number of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// This host.
    Host(u32),
    /// Nobody.
    None(NoPrimary),
}

impl Writer {
    #[inline]
    fn read(word: u64) -> Self {
        match word & 3 {
            1 => Self::Host((word >> 8) as u32),
            2 => Self::None(NoPrimary::Split),
            3 => Self::None(NoPrimary::ReplicasOnly),
            _ => Self::None(NoPrimary::Unknown),
        }
    }

    fn word(self) -> u64 {
        match self {
            Self::Host(id) => u64::from(id) << 8 | 1,
            Self::None(NoPrimary::Split) => 2,
            Self::None(NoPrimary::ReplicasOnly) => 3,
            Self::None(NoPrimary::Unknown) => 0,
        }
    }
}

/// The hosts of one database.
#[derive(Debug)]
pub struct DatabaseState {
    /// Its name, as clients know it.
    pub name: String,
    clock: Arc<Clock>,
    writer: AtomicU64,
    /// Moves on whenever another host becomes the primary, or the primary says that it is none.
    epoch: AtomicU64,
    strategy: AtomicU8,
    split: AtomicU8,
    /// The lag that no read may meet, ms; 0 where there is no limit.
    max_lag: AtomicU64,
    changes: watch::Sender<u64>,
    /// Moves on with each reason to look at once.
    alarms: AtomicU64,
    pub(crate) alarmed: Notify,
    /// A client waits until a replica has replayed its write.
    awaited: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    members: Vec<Known>,
    samples: Samples,
    /// The highest timeline of a primary so far.
    floor: u32,
    /// The last primary, which has not been demoted yet.
    reigning: Option<u32>,
    verdict: Verdict,
    balancing: Balancing,
    checks: Checks,
}

/// One of its hosts.
#[derive(Debug)]
struct Known {
    host: Arc<HostState>,
    seen: Seen,
    /// Coarse time before it was asked for that, ms.
    asked: u64,
    /// Coarse time since when it belongs to the database, ms.
    since: u64,
    /// Looks in a row at which its lag was within the limits.
    in_time: u32,
    /// A task watches it.
    watched: bool,
}

impl DatabaseState {
    pub(crate) fn new(name: &str, clock: Arc<Clock>) -> Self {
        Self {
            name: name.to_owned(),
            clock,
            writer: AtomicU64::new(Writer::None(NoPrimary::Unknown).word()),
            epoch: AtomicU64::new(0),
            max_lag: AtomicU64::new(0),
            strategy: AtomicU8::new(0),
            split: AtomicU8::new(0),
            changes: watch::Sender::new(0),
            alarms: AtomicU64::new(0),
            alarmed: Notify::new(),
            awaited: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                members: Vec::new(),
                samples: Samples::default(),
                floor: 0,
                reigning: None,
                verdict: Verdict::Nobody,
                balancing: Balancing::default(),
                checks: Checks::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who takes writes.
    #[inline]
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::read(self.writer.load(Ordering::Acquire))
    }

    /// Moves on whenever another host becomes the primary, or the primary says that it is none.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How a host is chosen for a read.
    #[inline]
    #[must_use]
    pub fn strategy(&self) -> LoadBalancingStrategy {
        let index = self.strategy.load(Ordering::Relaxed) as usize;
        STRATEGIES.get(index).copied().unwrap_or_default()
    }

    /// Whether the primary serves reads.
    #[inline]
    #[must_use]
    pub fn split(&self) -> ReadWriteSplit {
        let index = self.split.load(Ordering::Relaxed) as usize;
        SPLITS.get(index).copied().unwrap_or_default()
    }

    /// Its hosts.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<HostState>> {
        let inner = self.lock();
        inner.members.iter().map(|m| m.host.clone()).collect()
    }

    /// The host that takes writes.
    #[must_use]
    pub fn primary(&self) -> Option<Arc<HostState>> {
        let Writer::Host(id) = self.writer() else {
            return None;
        };
        self.hosts().into_iter().find(|host| host.id == id)
    }

    /// Whether a replica may lag by more than it may by now: what it lagged by when it was asked last, and the time since.
    #[inline]
    pub(crate) fn may_be_late(&self, host: &HostState) -> bool {
        let limit = self.max_lag.load(Ordering::Relaxed);
        if limit < STRICT {
            return false;
        }
        let since = self.clock.now() + COARSE - host.seen().unwrap_or(0);
        host.lag_ms().is_none_or(|lag| lag + since > limit)
    }

    /// Follows what changes: bans, roles, and what was waited for with [`DatabaseState::hurry`]. Marked as seen up to now.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells those who wait for a change.
    pub(crate) fn tell(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Has all its hosts looked at now.
    pub fn alarm(&self) {
        self.alarms.fetch_add(1, Ordering::AcqRel);
        self.alarmed.notify_waiters();
    }

    pub(crate) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Acquire)
    }

    /// Has looks follow upon one another until a replica has replayed something new, which is a change then.
    pub fn hurry(&self) {
        if !self.awaited.swap(true, Ordering::AcqRel) {
            self.alarm();
        }
    }

    /// Puts hosts and settings in force; gives the hosts that nobody watches yet.
    pub(crate) fn configure(
        &self,
        hosts: &[(Arc<HostState>, HostOptions)],
        balancing: &Balancing,
        checks: &Checks,
    ) -> Vec<Arc<HostState>> {
        let position = |all: usize| u8::try_from(all).unwrap_or(0);
        let strategy = STRATEGIES.iter().position(|s| *s == balancing.strategy);
        let split = SPLITS.iter().position(|s| *s == balancing.split);
        self.strategy
            .store(position(strategy.unwrap_or(0)), Ordering::Relaxed);
        self.split
            .store(position(split.unwrap_or(0)), Ordering::Relaxed);
        let max_lag = checks.max_lag.unwrap_or_default().as_millis();
        self.max_lag
            .store(u64::try_from(max_lag).unwrap_or(0), Ordering::Relaxed);
        let mut inner = self.lock();
        inner.balancing = balancing.clone();
        inner.checks = checks.clone();
        let mut before = std::mem::take(&mut inner.members);
        for (host, options) in hosts {
            host.configure(options, balancing.zone.as_deref(), balancing.slow_start);
            let known = before.iter().position(|m| Arc::ptr_eq(&m.host, host));
            let member = known.map(|index| before.swap_remove(index));
            inner.members.push(member.unwrap_or_else(|| {
                if checks.required && hosts.len() > 1 {
                    host.put_ban(Reason::Unchecked, None, "it has not passed a check yet");
                }
                Known {
                    host: host.clone(),
                    seen: Seen::Pending,
                    asked: 0,
                    since: self.clock.now(),
                    in_time: 0,
                    watched: false,
                }
            }));
        }
        if before.iter().any(|m| Some(m.host.id) == inner.reigning) {
            // The primary was taken out on purpose: its history counts no more.
            inner.floor = 0;
            inner.reigning = None;
            inner.samples.clear();
            for member in &inner.members {
                member.host.replayed_until.store(0, Ordering::Release);
            }
        }
        for gone in &before {
            gone.host.retired.store(true, Ordering::Release);
        }
        let unwatched = inner.members.iter_mut().filter(|m| !m.watched);
        let unwatched = unwatched.map(|m| {
            m.watched = true;
            m.host.clone()
        });
        let unwatched = unwatched.collect();
        self.settle(inner);
        self.alarm();
        unwatched
    }

    /// Nobody can watch these: the process has no thread for it (yet).
    pub(crate) fn unwatch(&self) {
        self.lock()
            .members
            .iter_mut()
            .for_each(|m| m.watched = false);
    }

    /// Hosts without a task, which are to get one now.
    pub(crate) fn unwatched(&self) -> Vec<Arc<HostState>> {
        let mut inner = self.lock();
        let all = inner.members.iter_mut().filter(|m| !m.watched);
        all.map(|m| {
            m.watched = true;
            m.host.clone()
        })
        .collect()
    }

    /// Takes all hosts out: the database is no longer in the configuration.
    pub(crate) fn retire(&self) {
        for member in std::mem::take(&mut self.lock().members) {
            member.host.retired.store(true, Ordering::Release);
        }
        self.alarm();
        self.tell();
    }

    /// A host has answered a check.
    pub(crate) fn passed(&self, host: &HostState) {
        let mut inner = self.lock();
        self.improve(&mut inner, host);
        self.settle(inner);
    }

    /// A host has told its role and position; `began` is the coarse time before it was asked.
    pub(crate) fn learn(&self, host: &HostState, look: &Look, began: u64) {
        let mut inner = self.lock();
        let Some(index) = inner.position(host) else {
            return;
        };
        self.improve(&mut inner, host);
        let now = self.clock.now();
        host.recovers.store(look.in_recovery, Ordering::Relaxed);
        host.seen.store(now.max(1), Ordering::Relaxed);
        host.lsn.store(look.lsn, Ordering::Relaxed);
        host.timeline.store(look.timeline, Ordering::Relaxed);
        inner.members[index].asked = began;
        inner.members[index].seen = Seen::Said(Observation {
            in_recovery: look.in_recovery,
            timeline: look.timeline,
            lsn: look.lsn,
        });
        let evicted = self.evaluate(&mut inner);
        let mut progress = false;
        if inner.verdict == Verdict::Primary(index) {
            host.lag_bytes.store(0, Ordering::Relaxed);
            host.lag_ms.store(0, Ordering::Relaxed);
        } else if look.in_recovery {
            progress = self.follow(&mut inner, index, look, now);
        }
        drop(inner);
        evict(&evicted);
        if progress && self.awaited.swap(false, Ordering::AcqRel) {
            self.tell();
        }
    }

    /// A host did not answer, or a connection to it could not be had.
    pub(crate) fn failed(&self, host: &HostState, error: &ServerError) {
        let mut inner = self.lock();
        let Some(index) = inner.position(host) else {
            return;
        };
        // After a crash a replica is behind where it was.
        host.replayed_until.store(0, Ordering::Release);
        let fell = host.bad(error) == Turn::Fell;
        let member = &mut inner.members[index];
        match member.seen {
            Seen::Pending => member.seen = Seen::Gone(None),
            Seen::Said(said) if !host.is_healthy() => member.seen = Seen::Gone(Some(said)),
            _ => {}
        }
        let many = inner.members.len() > 1;
        if many && !host.is_healthy() && (fell || host.is_free()) {
            let until = self.clock.now() + inner.checks.ban_timeout.as_millis() as u64;
            host.put_ban(Reason::Failed, Some(until), &error.to_string());
        }
        self.settle(inner);
    }

    /// A check was good: what ends with that.
    fn improve(&self, inner: &mut Inner, host: &HostState) {
        let turn = host.good();
        if turn == Turn::Rose {
            tracing::info!(database = %self.name, host = %host.address, "host answers again");
        }
        let Some(ban) = host.ban() else { return };
        let over = ban.until.is_none_or(|until| self.clock.now() >= until);
        match ban.reason {
            Reason::Unchecked => host.lift("it has passed a check"),
            Reason::Failed if over && host.is_healthy() => host.lift("its checks pass"),
            Reason::Lag
                if inner.checks.max_lag.is_none() && inner.checks.max_lag_bytes.is_none() =>
            {
                host.lift("there is no limit of its lag any more");
            }
            _ => {}
        }
    }

    /// A replica's position: what it has replayed, and how far it is behind. Whether it has replayed something new.
    fn follow(&self, inner: &mut Inner, index: usize, look: &Look, now: u64) -> bool {
        let Inner {
            members,
            samples,
            checks,
            ..
        } = inner;
        let member = &mut members[index];
        let host = &member.host;
        let before = host.replayed_until.load(Ordering::Relaxed);
        let until = samples.replayed(look.lsn, look.timeline).unwrap_or(0);
        host.replayed_until.store(until, Ordering::Release);
        let Some(bytes) = samples.behind(look.lsn) else {
            // There is no primary to compare it with.
            return false;
        };
        // The server's own word is too much where the primary was idle before, and ours by the time between two looks.
        let ours = (until != 0).then(|| now.saturating_sub(until));
        let ms = match (bytes, look.lag_ms) {
            (_, Some(told)) if look.aurora => Some(told),
            (0, _) => Some(0),
            (_, told) => [told, ours].into_iter().flatten().min(),
        };
        host.lag_bytes.store(bytes, Ordering::Relaxed);
        host.lag_ms.store(ms.unwrap_or(u64::MAX), Ordering::Relaxed);
        let late = checks
            .max_lag
            .filter(|max| ms.is_some_and(|ms| u128::from(ms) > max.as_millis()));
        let short = checks.max_lag_bytes.filter(|max| bytes > *max);
        let why = match (late, short) {
            (Some(max), _) => Some(format!(
                "it lags {} ms behind, and {} are allowed",
                ms.unwrap_or_default(),
                max.as_millis()
            )),
            (_, Some(max)) => Some(format!(
                "it lags {bytes} bytes behind, and {max} are allowed"
            )),
            (None, None) => None,
        };
        let lags = host.ban().is_some_and(|ban| ban.reason == Reason::Lag);
        match why {
            Some(why) => {
                member.in_time = 0;
                if host.is_free() || lags {
                    host.put_ban(Reason::Lag, None, &why);
                }
            }
            None => {
                member.in_time += 1;
                if lags && member.in_time >= RISE {
                    host.lift("its lag is within the limits");
                }
            }
        }
        until > before
    }
}

impl Inner {
    fn position(&self, host: &HostState) -> Option<usize> {
        self.members.iter().position(|m| m.host.id == host.id)
    }
}

#[cfg(test)]
pub(crate) mod tests;
