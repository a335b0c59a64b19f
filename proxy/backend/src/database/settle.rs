//! From what hosts have said to a verdict, and what follows from it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use pgdog_config::Role as Configured;

use super::{DatabaseState, Inner, Known, NoPrimary, Writer};
use crate::host::{HostState, Role};
use crate::pool::Pool;
use crate::roles::{Candidate, Seen, Verdict, judge, readers};

/// How long a host that has never answered is waited for before somebody else may be the primary, ms.
const PATIENCE: u64 = 1_000;

impl DatabaseState {
    /// Gives the verdict anew, and does what follows from it once the lock is free.
    pub(super) fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let evicted = self.evaluate(&mut inner);
        drop(inner);
        evict(&evicted);
    }

    /// Gives the verdict anew; the pools whose host has been demoted.
    pub(super) fn evaluate(&self, inner: &mut Inner) -> Vec<Arc<Pool>> {
        let now = self.clock.now();
        let candidates: Vec<Candidate> = inner.members.iter().map(|m| m.candidate(now)).collect();
        let verdict = match inner.members.len() {
            1 => Verdict::Primary(0),
            _ => judge(&candidates, inner.floor),
        };
        let readers = readers(&candidates, verdict);
        for (index, member) in inner.members.iter().enumerate() {
            member.host.set_role(match verdict {
                Verdict::Primary(primary) if primary == index => Role::Primary,
                _ if readers.has(index) => Role::Replica,
                _ => Role::Unknown,
            });
        }
        let primary = match verdict {
            Verdict::Primary(index) => Some(inner.members[index].host.id),
            _ => None,
        };
        if let Verdict::Primary(index) = verdict
            && let Seen::Said(said) = candidates[index].seen
            && candidates[index].configured == Configured::Auto
        {
            inner.floor = inner.floor.max(said.timeline);
        }
        let before = self.writer();
        let writer = match (verdict, primary) {
            (_, Some(id)) => Writer::Host(id),
            (Verdict::Split(_), _) => Writer::None(NoPrimary::Split),
            (Verdict::ReplicasOnly, _) => Writer::None(NoPrimary::ReplicasOnly),
            _ => Writer::None(NoPrimary::Unknown),
        };
        let demoted = inner.demoted(primary, &candidates);
        if demoted.is_some() {
            inner.samples.clear();
            for member in &inner.members {
                member.host.replayed_until.store(0, Ordering::Release);
            }
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        // Its position counts from when it was read, though others had to be asked before it was known to be the primary's.
        if let Verdict::Primary(index) = verdict
            && let Seen::Said(said) = inner.members[index].seen
        {
            let asked = inner.members[index].asked;
            inner.samples.add(asked, said.lsn, said.timeline);
        }
        if primary.is_some() {
            inner.reigning = primary;
        }
        self.writer.store(writer.word(), Ordering::Release);
        if verdict != inner.verdict {
            report(&self.name, inner, verdict);
        }
        inner.verdict = verdict;
        let pools = demoted.map_or_else(Vec::new, |host| host.pools());
        if writer != before || !pools.is_empty() {
            self.tell();
        }
        pools
    }
}

impl Inner {
    /// The host that was the primary and is none any more: another one is, or it says so itself.
    fn demoted(
        &mut self,
        primary: Option<u32>,
        candidates: &[Candidate],
    ) -> Option<Arc<HostState>> {
        let reigning = self.reigning?;
        let index = self.members.iter().position(|m| m.host.id == reigning);
        let abdicated = index.is_none_or(|index| match candidates[index].seen {
            Seen::Said(said) => said.in_recovery,
            _ => false,
        });
        let replaced = primary.is_some_and(|id| id != reigning);
        if !replaced && (!abdicated || primary == Some(reigning)) {
            return None;
        }
        self.reigning = None;
        index.map(|index| self.members[index].host.clone())
    }
}

impl Known {
    fn candidate(&self, now: u64) -> Candidate {
        let waited = now.saturating_sub(self.since) > PATIENCE;
        Candidate {
            configured: self.host.configured(),
            seen: match self.seen {
                Seen::Pending if waited => Seen::Gone(None),
                seen => seen,
            },
        }
    }
}

/// Closes the connections to a host that has been demoted: those that are idle at once, the others when they come back, which
/// clients are made to do that would go on writing.
pub(super) fn evict(pools: &[Arc<Pool>]) {
    pools.iter().for_each(|pool| pool.depose());
}

/// Says who the primary is from now on.
fn report(database: &str, inner: &Inner, verdict: Verdict) {
    let address = |index: usize| inner.members[index].host.address.to_string();
    match verdict {
        _ if inner.members.len() < 2 => {}
        Verdict::Primary(index) => {
            let timeline = inner.members[index].host.timeline();
            tracing::info!(database, timeline, "the primary is {}", address(index));
        }
        Verdict::Split(hosts) => {
            let hosts: Vec<String> = hosts.iter().map(address).collect();
            tracing::error!(
                database,
                "several hosts say that they are the primary, on the same timeline: {}; writes are refused until one of them is stopped or follows the other",
                hosts.join(", ")
            );
        }
        Verdict::Nobody => {
            let fixed = inner
                .members
                .iter()
                .position(|m| m.host.configured() == Configured::Primary);
            match fixed {
                Some(index) => tracing::error!(
                    database,
                    "{} is configured as the primary and is in recovery: writes wait",
                    address(index)
                ),
                None => match outdated(inner) {
                    Some((index, timeline)) => tracing::error!(
                        database,
                        timeline,
                        "{} says that it is the primary and is on an older timeline than another one was, or is still followed: writes wait",
                        address(index)
                    ),
                    None => {
                        tracing::warn!(database, "no host is known to be the primary: writes wait");
                    }
                },
            }
        }
        Verdict::ReplicasOnly => {}
    }
}

/// A host that takes itself for the primary where nobody is.
fn outdated(inner: &Inner) -> Option<(usize, u32)> {
    let mut members = inner.members.iter().enumerate();
    members.find_map(|(index, member)| match member.seen {
        Seen::Said(said) if !said.in_recovery => Some((index, said.timeline)),
        _ => None,
    })
}
