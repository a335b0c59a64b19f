//! Whether the proxies of a cluster are paused, and what is to be done about it. Pure.

use std::time::Duration;

use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogClusterStatus};

use crate::atomic::Progress;
use crate::status::Finding;

/// Time after which a change that failed is tried again: each attempt holds clients up.
pub const RETRY: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nobody ever asked for a pause.
    Nothing,
    /// All are as they are to be; one that starts comes to be like them.
    Keep(bool),
    /// A change of all of them is to begin.
    Begin,
    /// It is under way.
    Running,
    /// It cannot begin yet, or was tried in vain.
    Wait {
        /// Why, for programs.
        reason: &'static str,
        /// Why, for people.
        message: String,
    },
}

/// What is in force after a restart of the operator: it stands in the status.
#[must_use]
pub fn recall(status: &PgDogClusterStatus) -> Option<bool> {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.kind == ConditionType::Paused)?;
    Some(condition.status == ConditionStatus::True)
}

/// Who has to come or go before all proxies can be paused at one moment: why for programs, and for people.
pub type Obstacle = (&'static str, String);

/// What is to be done, where no change has come to its end. `now` is what is in force.
#[must_use]
pub fn step(
    wanted: bool,
    now: Option<bool>,
    progress: Option<&Progress>,
    obstacle: Option<Obstacle>,
) -> Step {
    match (now, progress) {
        // Also one that is wanted no more: it may still take place.
        (_, Some(Progress::Running)) => Step::Running,
        (None, _) if !wanted => Step::Nothing,
        (Some(now), _) if now == wanted => Step::Keep(now),
        (_, Some(Progress::Failed { message, at, .. })) if at.elapsed() < RETRY => Step::Wait {
            reason: if wanted {
                "PauseFailed"
            } else {
                "ResumeFailed"
            },
            message: format!(
                "no proxy was changed, or not all; it is tried again in {} s: {message}",
                RETRY.as_secs()
            ),
        },
        _ => match obstacle.filter(|_| wanted) {
            Some((reason, message)) => Step::Wait { reason, message },
            None => Step::Begin,
        },
    }
}

/// The condition that tells it.
#[must_use]
pub fn finding(step: &Step, wanted: bool, now: Option<bool>) -> Option<Finding> {
    let is = now.unwrap_or(false);
    let (reason, message) = match step {
        Step::Nothing => return None,
        Step::Keep(true) => (
            "Paused",
            "all proxies hold their clients' next transactions".to_owned(),
        ),
        Step::Keep(false) => ("Resumed", String::new()),
        Step::Begin | Step::Running if wanted => {
            ("Pausing", "transactions that run are waited for".to_owned())
        }
        Step::Begin | Step::Running => ("Resuming", String::new()),
        Step::Wait { reason, message } => (*reason, message.clone()),
    };
    let so = match step {
        Step::Keep(paused) => *paused,
        _ => is,
    };
    Some(Finding::new(ConditionType::Paused, so, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn draining() -> Option<Obstacle> {
        Some((
            "Draining",
            "1 proxies let their last clients finish".to_owned(),
        ))
    }

    #[test]
    fn a_cluster_that_was_never_paused_is_left_alone() {
        assert_eq!(step(false, None, None, draining()), Step::Nothing);
        assert_eq!(finding(&Step::Nothing, false, None), None);
    }

    #[test]
    fn a_pause_begins_when_nobody_drains_and_is_kept_when_all_have_it() {
        assert!(matches!(
            step(true, None, None, draining()),
            Step::Wait {
                reason: "Draining",
                ..
            }
        ));
        assert_eq!(step(true, None, None, None), Step::Begin);
        assert_eq!(
            step(true, None, Some(&Progress::Running), None),
            Step::Running
        );
        assert_eq!(
            step(false, Some(false), Some(&Progress::Running), None),
            Step::Running
        );
        assert_eq!(step(true, Some(true), None, draining()), Step::Keep(true));
        assert_eq!(
            step(false, Some(true), None, draining()),
            Step::Begin,
            "the end waits for nobody"
        );
    }

    #[test]
    fn what_failed_is_told_and_tried_again_later() {
        let failed = |at| Progress::Failed {
            message: "shop-1: transactions that run did not end".to_owned(),
            at,
            times: 1,
        };
        let now = step(true, Some(false), Some(&failed(Instant::now())), None);
        let told = finding(&now, true, Some(false)).unwrap();
        assert_eq!(
            (told.status, told.reason),
            (ConditionStatus::False, "PauseFailed")
        );
        assert!(told.message.contains("shop-1"));
        let before = Instant::now().checked_sub(RETRY).unwrap();
        assert_eq!(
            step(true, Some(false), Some(&failed(before)), None),
            Step::Begin
        );
    }
}
