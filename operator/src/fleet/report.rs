//! How a proxy stands to what it was given.

use std::collections::BTreeMap;

use pgdog_config::api::{HostBudget, HostStatus};
use pgdog_operator_api::Rejection;

use super::Hold;

/// How a proxy stands to one half.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Taken {
    /// It has not been asked yet.
    #[default]
    Pending,
    /// It has this one.
    Acked {
        /// Which.
        revision: u64,
        /// SHA-256 of it.
        sha256: String,
    },
    /// It has refused this one, or could not be asked.
    Failed {
        /// Which.
        revision: u64,
        /// Why.
        reason: Rejection,
        /// What it said.
        message: String,
    },
}

impl Taken {
    /// In one word, for metrics.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Acked { .. } => "acked",
            Self::Failed { reason, .. } => match reason {
                Rejection::Nack => "nacked",
                Rejection::Timeout => "timeout",
                Rejection::Unreachable => "unreachable",
            },
        }
    }

    /// Whether it has this one.
    #[must_use]
    pub fn has(&self, sha256: &str) -> bool {
        matches!(self, Self::Acked { sha256: taken, .. } if taken == sha256)
    }
}

/// How a proxy stands to its share of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// It has not acknowledged it.
    #[default]
    Pending,
    /// It has acknowledged the one of this revision, and has more open from before.
    Over(u64),
    /// It has acknowledged the one of this revision, and has no more open.
    Held(u64),
}

impl Share {
    /// Of the revision that it has acknowledged, as it stands with its hosts.
    pub(super) fn of(revision: u64, hosts: &BTreeMap<String, HostBudget>) -> Self {
        let over = |host: &HostBudget| host.limit.is_some_and(|limit| host.open > limit);
        match hosts.values().any(over) {
            true => Self::Over(revision),
            false => Self::Held(revision),
        }
    }

    pub(super) const fn revision(self) -> Option<u64> {
        match self {
            Self::Pending => None,
            Self::Over(revision) | Self::Held(revision) => Some(revision),
        }
    }
}

/// How a proxy stands to its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Uid of its pod.
    pub pod: String,
    /// To the settings.
    pub settings: Taken,
    /// To the topology.
    pub topology: Taken,
    /// To its share of the budget.
    pub share: Share,
    /// What it knows of each host of Postgres, by address and port, where that was asked.
    pub hosts: BTreeMap<String, HostStatus>,
    /// Whether it is paused, where that was asked.
    pub paused: Option<Hold>,
    /// A leader of this later epoch has been there: this one is over.
    pub fenced: Option<u64>,
    /// Revisions of this epoch that it has and that are not lower than what it was sent.
    pub ahead: Ahead,
}

/// The highest revision of each half that a proxy has, where this leader counts from further down: its numbers came from a
/// backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Of the settings.
    pub settings: u64,
    /// Of the topology.
    pub topology: u64,
}

impl Report {
    /// Of a proxy that cannot be asked yet.
    #[must_use]
    pub fn unreachable(why: &str) -> Self {
        let failed = Taken::Failed {
            revision: 0,
            reason: Rejection::Unreachable,
            message: why.to_owned(),
        };
        Self {
            settings: failed.clone(),
            topology: failed,
            ..Self::default()
        }
    }
}

/// Whether nobody answered.
pub(crate) fn is_unreachable(taken: &Taken) -> bool {
    matches!(
        taken,
        Taken::Failed {
            reason: Rejection::Unreachable | Rejection::Timeout,
            ..
        }
    )
}
