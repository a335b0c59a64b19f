//! In which order proxies get new settings, and what happens when one refuses them. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgdog_operator_api::{ConfigRollout, OnNack, Rejection, RolloutStrategy};

use crate::fleet::Taken;

/// How far new settings have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// All have them.
    Complete,
    /// The first few have not all acknowledged them yet.
    Canary,
    /// All are getting them.
    Rolling,
    /// One has refused them: the others do not get them.
    Halted,
    /// Nobody gets them yet: the budget has no room for the databases that come with them.
    Waiting,
}

/// Who gets the new settings now, in the order of `proxies` (which is stable), and how far they have come. `taken` is how each
/// proxy stands to its settings.
#[must_use]
pub fn next(
    policy: &ConfigRollout,
    revision: u64,
    sha256: &str,
    taken: &[&Taken],
) -> (Stage, Vec<bool>) {
    let all = taken.len();
    let has = |taken: &Taken| taken.has(sha256);
    let refused = |taken: &Taken| matches!(taken, Taken::Failed { revision: r, reason: Rejection::Nack, .. } if *r == revision);
    if taken.iter().all(|taken| has(taken)) {
        return (Stage::Complete, vec![true; all]);
    }
    if policy.on_nack == OnNack::Halt && taken.iter().any(|taken| refused(taken)) {
        // Who refused it stays asked, which costs nothing: it is not sent again.
        let given = taken
            .iter()
            .map(|taken| has(taken) || refused(taken))
            .collect();
        return (Stage::Halted, given);
    }
    let first = match policy.strategy {
        RolloutStrategy::AllAtOnce => all,
        RolloutStrategy::Canary => canaries(policy.canary.as_ref(), all),
    };
    // Who cannot be reached is no canary: it would hold up all others.
    let answers = |taken: &Taken| {
        !matches!(
            taken,
            Taken::Failed {
                reason: Rejection::Unreachable | Rejection::Timeout,
                ..
            }
        )
    };
    let chosen: Vec<usize> = (0..all)
        .filter(|&i| answers(taken[i]))
        .take(first)
        .collect();
    // A refusal that stops nothing is an answer as well.
    let done = |&i: &usize| has(taken[i]) || refused(taken[i]);
    if chosen.iter().all(done) {
        return (Stage::Rolling, vec![true; all]);
    }
    let given = (0..all)
        .map(|i| chosen.contains(&i) || has(taken[i]))
        .collect();
    (Stage::Canary, given)
}

fn canaries(policy: Option<&IntOrString>, all: usize) -> usize {
    let count = match policy {
        None => 1,
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(1),
        Some(IntOrString::String(text)) => {
            let percent = text.trim_end_matches('%').parse::<usize>().unwrap_or(1);
            all.saturating_mul(percent).div_ceil(100)
        }
    };
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(sha256: &str) -> Taken {
        Taken::Acked {
            revision: 2,
            sha256: sha256.to_owned(),
        }
    }

    fn failed(reason: Rejection) -> Taken {
        Taken::Failed {
            revision: 2,
            reason,
            message: String::new(),
        }
    }

    fn next_of(policy: &ConfigRollout, taken: &[Taken]) -> (Stage, Vec<bool>) {
        next(policy, 2, "new", &taken.iter().collect::<Vec<_>>())
    }

    #[test]
    fn one_is_first_and_the_others_follow_its_acknowledgement() {
        let policy = ConfigRollout::default();
        let old = [acked("old"), acked("old"), acked("old")];
        assert_eq!(
            next_of(&policy, &old),
            (Stage::Canary, vec![true, false, false])
        );
        let one = [acked("new"), acked("old"), acked("old")];
        assert_eq!(next_of(&policy, &one), (Stage::Rolling, vec![true; 3]));
        let all = [acked("new"), acked("new"), acked("new")];
        assert_eq!(next_of(&policy, &all), (Stage::Complete, vec![true; 3]));
    }

    #[test]
    fn a_refusal_stops_it() {
        let policy = ConfigRollout::default();
        let taken = [failed(Rejection::Nack), acked("old"), acked("old")];
        assert_eq!(
            next_of(&policy, &taken),
            (Stage::Halted, vec![true, false, false])
        );
        let policy = ConfigRollout {
            on_nack: OnNack::Continue,
            ..policy
        };
        let taken = [failed(Rejection::Nack), acked("old"), acked("old")];
        assert_eq!(next_of(&policy, &taken), (Stage::Rolling, vec![true; 3]));
    }

    #[test]
    fn who_cannot_be_reached_is_not_waited_for() {
        let policy = ConfigRollout::default();
        let taken = [failed(Rejection::Timeout), acked("old"), acked("old")];
        assert_eq!(
            next_of(&policy, &taken),
            (Stage::Canary, vec![false, true, false])
        );
        let taken = [failed(Rejection::Timeout), acked("new"), acked("old")];
        assert_eq!(next_of(&policy, &taken), (Stage::Rolling, vec![true; 3]));
    }

    #[test]
    fn the_first_are_a_number_or_a_part() {
        for (canary, first) in [
            (None, 1),
            (Some(IntOrString::Int(2)), 2),
            (Some(IntOrString::String("50%".to_owned())), 2),
            (Some(IntOrString::String("1%".to_owned())), 1),
        ] {
            let policy = ConfigRollout {
                canary,
                ..ConfigRollout::default()
            };
            let taken = [acked("old"), acked("old"), acked("old"), acked("old")];
            let given = next_of(&policy, &taken).1;
            assert_eq!(given.iter().filter(|given| **given).count(), first);
        }
    }
}
