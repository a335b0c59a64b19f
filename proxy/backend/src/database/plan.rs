//! When a host is asked next, and what.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pgdog_config::{ReadYourWrites, Role as Configured};

use super::DatabaseState;
use crate::host::HostState;
use crate::roles::Verdict;

/// Time between two looks while nobody is known to be the primary.
pub(super) const URGENT: Duration = Duration::from_millis(100);
/// The same while a client waits for a replica to replay its write.
pub(super) const AWAITED: Duration = Duration::from_millis(20);
/// The longest time between two checks of a host that is out because they failed.
pub(super) const RECHECK: Duration = Duration::from_secs(1);
/// What a host's task does next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Whether it asks for role and position, or only whether the server answers.
    pub(crate) look: bool,
    /// Time until the next time; `None` is until there is a reason.
    pub(crate) interval: Option<Duration>,
    /// Time before the first time.
    pub(crate) delay: Duration,
    /// Time for an answer.
    pub(crate) timeout: Duration,
    /// Time between look-ups of its name.
    pub(crate) dns_ttl: Option<Duration>,
}

impl DatabaseState {
    /// What the task of a host does next.
    pub(crate) fn plan(&self, host: &HostState) -> Plan {
        let inner = self.lock();
        let (checks, many) = (&inner.checks, inner.members.len() > 1);
        let auto = || {
            let mut members = inner.members.iter();
            members.any(|m| m.host.configured() == Configured::Auto)
        };
        let needed = || {
            auto()
                || checks.max_lag.is_some()
                || checks.max_lag_bytes.is_some()
                || inner.balancing.read_your_writes == ReadYourWrites::Replayed
        };
        let look = many && (checks.look_delay.is_some() || needed());
        let mut interval = if look {
            // Twice within the time that a replica may lag, so that none is over it for long.
            let lag = checks.max_lag.map(|lag| (lag / 2).max(AWAITED));
            let shortest = [Some(checks.look_interval), checks.interval, lag];
            shortest.into_iter().flatten().min()
        } else {
            checks.interval
        };
        let nobody = look && !matches!(inner.verdict, Verdict::Primary(_) | Verdict::ReplicasOnly);
        let limits = [
            (!host.is_healthy() && many).then_some(RECHECK),
            nobody.then_some(URGENT),
            (look && self.awaited.load(Ordering::Acquire)).then_some(AWAITED),
        ];
        for limit in limits.into_iter().flatten() {
            interval = interval.map(|i| i.min(limit));
        }
        Plan {
            look,
            interval,
            delay: match checks.look_delay {
                Some(delay) if look && !needed() => delay,
                _ if look => Duration::ZERO,
                _ => checks.delay,
            },
            timeout: if look {
                checks.look_timeout
            } else {
                checks.timeout
            },
            dns_ttl: checks.dns_ttl,
        }
    }
}
