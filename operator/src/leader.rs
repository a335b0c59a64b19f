//! Who leads: the replica that holds the Lease. Each change of hands is a new epoch, by which proxies refuse what a former
//! leader still says.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

/// For how long a Lease counts that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed. Its holder gives up when it could not for two thirds of its duration.
pub const RENEWAL: Duration = Duration::from_secs(3);

/// The Lease as one replica sees it.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
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
        }
    }

    /// Waits until this replica leads. Returns the epoch. Cancel safe.
    pub async fn acquire(&self) -> u64 {
        loop {
            match tokio::time::timeout(RENEWAL * 2, self.attempt()).await {
                Ok(Ok(Attempt::Held(epoch))) => return epoch,
                Ok(Ok(Attempt::Foreign)) => {}
                Ok(Err(error)) => {
                    tracing::warn!("failed to take the lease {}: {error:#}", self.name);
                }
                Err(_) => tracing::warn!("failed to take the lease {}: no answer", self.name),
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Keeps the Lease; returns when it is lost or could not be renewed in time. Cancel safe.
    pub async fn keep(&self, epoch: u64) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            // A process that stood still does not know what happened meanwhile.
            match tokio::time::timeout(RENEWAL, self.attempt()).await {
                Ok(Ok(Attempt::Held(now))) if now == epoch => renewed = tokio::time::Instant::now(),
                Ok(Ok(_)) => return,
                Ok(Err(error)) => {
                    tracing::warn!("failed to renew the lease {}: {error:#}", self.name)
                }
                Err(_) => tracing::warn!("failed to renew the lease {}: no answer", self.name),
            }
            if renewed.elapsed() > DURATION * 2 / 3 {
                return;
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
        if !mine && !is_over(&before, now) {
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

/// Whether nobody holds it, or its holder has not been heard of for too long.
fn is_over(spec: &LeaseSpec, now: Timestamp) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let Some(renewed) = &spec.renew_time else {
        return true;
    };
    let duration = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    holder.is_empty() || renewed.0 + duration < now
}
