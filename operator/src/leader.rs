//! Who leads: the replica that holds the Lease. Each change of hands is a new epoch, by which proxies refuse what a former
//! leader still says.
//!
//! Clocks of other machines are not believed: a Lease is over when it has not changed for its duration by this machine's own
//! clock. Its holder stops earlier than that, by its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

/// For how long a Lease counts that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub const RENEWAL: Duration = Duration::from_secs(3);
/// For how long its holder leads after it last began to renew it with success.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Until when this replica leads, unless the Lease is renewed before. A process that stood still finds that it is over before
/// it does anything.
#[derive(Debug, Clone, Default)]
pub struct Term(Arc<Mutex<Option<Instant>>>);

impl Term {
    /// Whether it still leads.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.end().is_some_and(|end| Instant::now() < end)
    }

    fn end(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Lease was renewed by what began at this time.
    pub fn renewed(&self, begun: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun + DEADLINE);
    }
}

/// What the Lease was when it was last seen to change, and when that was.
type Sight = Option<(LeaseSpec, Instant)>;

/// The Lease as one replica sees it.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
    term: Term,
    seen: Mutex<Sight>,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leadership({} of {})", self.identity, self.name)
    }
}

/// What came of an attempt to take or renew the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is ours, in this epoch.
    Held(u64),
    /// Somebody else has it.
    Foreign,
}

impl Leadership {
    /// Of the Lease with this name.
    #[must_use]
    pub fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        Self {
            api,
            name: name.to_owned(),
            identity: identity.to_owned(),
            term: Term::default(),
            seen: Mutex::default(),
        }
    }

    /// Until when this replica leads.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term.clone()
    }

    /// Waits until this replica leads. Returns the epoch. Cancel safe.
    pub async fn acquire(&self) -> u64 {
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(RENEWAL * 2, self.attempt()).await {
                Ok(Ok(Attempt::Held(epoch))) => {
                    self.term.renewed(begun);
                    return epoch;
                }
                Ok(Ok(Attempt::Foreign)) => {}
                Ok(Err(error)) => {
                    tracing::warn!("failed to take the lease {}: {error:#}", self.name);
                }
                Err(_) => tracing::warn!("failed to take the lease {}: no answer", self.name),
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Keeps the Lease; returns when it is lost or could not be renewed in time, which is before anybody else may take it.
    /// Cancel safe.
    pub async fn keep(&self, epoch: u64) {
        loop {
            let Some(end) = self.term.end() else { return };
            tokio::time::sleep_until((Instant::now() + RENEWAL).min(end)).await;
            let begun = Instant::now();
            // A process that stood still does not know what happened meanwhile.
            if begun >= end {
                return;
            }
            let latest = (begun + RENEWAL).min(end);
            match tokio::time::timeout_at(latest, self.attempt()).await {
                Ok(Ok(Attempt::Held(now))) if now == epoch => self.term.renewed(begun),
                Ok(Ok(_)) => return,
                Ok(Err(error)) => {
                    tracing::warn!("failed to renew the lease {}: {error:#}", self.name)
                }
                Err(_) => tracing::warn!("failed to renew the lease {}: no answer", self.name),
            }
        }
    }

    /// A proxy has seen a later epoch than that of this Lease, which was deleted or came back from a backup: the next epoch is
    /// above it. Only if the Lease is ours; what no Lease can count is a lie and is ignored.
    pub async fn rise_above(&self, seen: u64) {
        let risen = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return anyhow::Ok(());
            };
            let next = seen
                .checked_add(1)
                .and_then(|next| i32::try_from(next).ok());
            if let (Some(next), Some(spec)) = (next, lease.spec.as_mut())
                && spec.holder_identity.as_deref() == Some(&self.identity)
            {
                spec.lease_transitions = Some(next);
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok(())
        };
        if let Err(error) = risen.await {
            tracing::warn!("failed to write the lease {}: {error:#}", self.name);
        }
    }

    /// Gives it up, so that another replica does not have to wait. Only if it is ours.
    pub async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return anyhow::Ok(());
            };
            if let Some(spec) = lease.spec.as_mut()
                && spec.holder_identity.as_deref() == Some(&self.identity)
            {
                spec.holder_identity = None;
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok(())
        };
        if let Err(error) = released.await {
            tracing::warn!("failed to give up the lease {}: {error:#}", self.name);
        }
    }

    async fn attempt(&self) -> anyhow::Result<Attempt> {
        let now = Timestamp::now();
        let Some(mut lease) = self
            .api
            .get_opt(&self.name)
            .await
            .context("read the lease")?
        else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(now, 1)),
            };
            self.api
                .create(&PostParams::default(), &lease)
                .await
                .context("make the lease")?;
            return Ok(Attempt::Held(1));
        };
        let before = lease.spec.clone().unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        if !mine && !self.is_over(&before) {
            return Ok(Attempt::Foreign);
        }
        let transitions = before.lease_transitions.unwrap_or_default() + i32::from(!mine);
        let mut spec = self.spec(now, transitions);
        if mine {
            spec.acquire_time = before.acquire_time;
        }
        lease.spec = Some(spec);
        // With the version that was read: of two that try, one fails.
        debug_assert!(lease.resource_version().is_some());
        match self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
        {
            Ok(_) => Ok(Attempt::Held(epoch(transitions))),
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(Attempt::Foreign),
            Err(error) => Err(error).context("write the lease"),
        }
    }

    /// Whether nobody holds it, or nothing has been heard of its holder for too long.
    fn is_over(&self, spec: &LeaseSpec) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        is_over(&mut seen, spec, Instant::now())
    }

    fn spec(&self, now: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(15)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn epoch(transitions: i32) -> u64 {
    u64::try_from(transitions).unwrap_or_default()
}

/// Whether nobody holds it, or it has not changed for its duration since it was first seen like this.
fn is_over(seen: &mut Sight, spec: &LeaseSpec, now: Instant) -> bool {
    let since = match seen {
        Some((before, since)) if before == spec => *since,
        _ => {
            *seen = Some((spec.clone(), now));
            now
        }
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let duration = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    holder.is_empty() || since + duration < now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, renewed: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_over_when_it_has_not_changed_for_its_duration() {
        // Its holder's clock is a year behind, or ahead: that says nothing.
        for off in [-1, 1] {
            let of = |second: i64| {
                Timestamp::now() + jiff::SignedDuration::from_secs(off * 31_536_000 + second)
            };
            let (mut seen, begun) = (None, Instant::now());
            let at = |seconds| begun + Duration::from_secs(seconds);
            let (first, second) = (held("a", of(0)), held("a", of(3)));
            assert!(!is_over(&mut seen, &first, at(0)));
            assert!(!is_over(&mut seen, &first, at(14)));
            assert!(!is_over(&mut seen, &second, at(16)), "it was renewed");
            assert!(!is_over(&mut seen, &second, at(30)));
            assert!(is_over(&mut seen, &second, at(32)));
        }
        assert!(is_over(
            &mut None,
            &held("", Timestamp::now()),
            Instant::now()
        ));
    }

    #[test]
    fn a_term_ends_before_anybody_else_may_begin_one() {
        let term = Term::default();
        assert!(!term.lasts(), "nobody leads before it has the lease");
        term.renewed(Instant::now());
        assert!(term.lasts());
        term.renewed(Instant::now() - DEADLINE);
        assert!(!term.lasts());
        assert!(DEADLINE + RENEWAL < DURATION);
    }
}
