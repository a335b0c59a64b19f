//! Who is the primary: from what the configuration says and what the hosts say of themselves to a verdict. Pure.
//!
//! - A fixed primary is the primary, unless it says that it is in recovery: then nobody is.
//! - A fixed replica is never the primary.
//! - Among hosts with `role = "auto"` it is the one that is not in recovery. Of several the one with the highest timeline:
//!   a promotion begins a new one. Where that does not tell them apart there are two primaries, and neither takes writes.
//! - A host on a lower timeline than a primary before it, or than a replica, is an old primary that has missed its demotion, and
//!   takes no writes, also when the newer one is gone or out of sight.
//! - Fixed and `auto` together: where there is a fixed primary, `auto` hosts are its replicas; else they are detected as if
//!   the fixed replicas were not there.

use pgdog_config::Role as Configured;

use crate::balance::HostSet;

/// What a host said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    /// Whether it follows another one.
    pub in_recovery: bool,
    /// Its timeline; 0 where it does not tell.
    pub timeline: u32,
    /// Its position in the log; 0 where it does not tell.
    pub lsn: u64,
}

/// What is known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was not asked yet, or has not answered yet.
    Pending,
    /// It does not answer; what it said last, if it ever said something.
    Gone(Option<Observation>),
    /// It said so.
    Said(Observation),
}

/// One host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What the configuration says.
    pub configured: Configured,
    /// What it says of itself.
    pub seen: Seen,
}

/// Who takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This one.
    Primary(usize),
    /// Nobody for now.
    Nobody,
    /// Nobody: these say that they are the primary, and nothing tells them apart.
    Split(HostSet),
    /// Nobody ever: all hosts are fixed replicas.
    ReplicasOnly,
}

/// Gives the verdict. `floor` is the highest timeline that a primary of this database had.
#[must_use]
pub fn judge(hosts: &[Candidate], floor: u32) -> Verdict {
    let fixed = |role| hosts.iter().position(|h| h.configured == role);
    if let Some(primary) = fixed(Configured::Primary) {
        return match hosts[primary].seen {
            Seen::Said(said) if said.in_recovery => Verdict::Nobody,
            _ => Verdict::Primary(primary),
        };
    }
    if fixed(Configured::Auto).is_none() {
        return Verdict::ReplicasOnly;
    }
    let auto = || {
        let hosts = hosts.iter().enumerate();
        hosts.filter(|(_, h)| h.configured == Configured::Auto)
    };
    // The one that has not answered yet may be the newer primary.
    if auto().any(|(_, h)| h.seen == Seen::Pending) {
        return Verdict::Nobody;
    }
    let claims = || {
        auto().filter_map(|(index, host)| match host.seen {
            Seen::Said(said) if !said.in_recovery => Some((index, said.timeline)),
            _ => None,
        })
    };
    let Some(highest) = claims().map(|(_, timeline)| timeline).max() else {
        return Verdict::Nobody;
    };
    // A replica on a later timeline follows a newer primary, which may be out of sight from here.
    let followed = auto().filter_map(|(_, host)| match host.seen {
        Seen::Said(said) | Seen::Gone(Some(said)) if said.in_recovery => Some(said.timeline),
        _ => None,
    });
    // One that tells no timeline is not below any.
    let outdated = highest != 0 && followed.max().is_some_and(|followed| highest < followed);
    if highest < floor || outdated {
        return Verdict::Nobody;
    }
    let newest: HostSet = claims()
        .filter(|(_, timeline)| *timeline == highest)
        .map(|(index, _)| index)
        .collect();
    let mut all = newest.iter();
    match (all.next(), all.next()) {
        (Some(primary), None) => Verdict::Primary(primary),
        _ => Verdict::Split(newest),
    }
}

/// Hosts that may answer reads besides the primary: those in recovery, and fixed replicas whatever they say, since a logical
/// replica is not in recovery. An `auto` host that takes itself for a primary and is not the one has another history.
#[must_use]
pub fn readers(hosts: &[Candidate], verdict: Verdict) -> HostSet {
    let alone = hosts.iter().any(|h| h.configured == Configured::Primary);
    let reads = |host: &Candidate| match (host.configured, host.seen) {
        (Configured::Replica, _) => true,
        // What does not answer is banned, and a replica still when all others are banned too.
        (_, Seen::Said(said)) | (Configured::Auto, Seen::Gone(Some(said))) => said.in_recovery,
        // Not asked yet: beside a fixed primary it is a replica until it says something else.
        (Configured::Auto, _) => alone,
        (Configured::Primary, _) => false,
    };
    let hosts = hosts.iter().enumerate().filter(|(_, host)| reads(host));
    hosts
        .map(|(index, _)| index)
        .filter(|index| verdict != Verdict::Primary(*index))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(in_recovery: bool, timeline: u32) -> Seen {
        Seen::Said(Observation {
            in_recovery,
            timeline,
            ..Observation::default()
        })
    }

    fn hosts<const N: usize>(all: [(Configured, Seen); N]) -> Vec<Candidate> {
        let host = |(configured, seen)| Candidate { configured, seen };
        all.map(host).to_vec()
    }

    const AUTO: Configured = Configured::Auto;
    const PRIMARY: Configured = Configured::Primary;
    const REPLICA: Configured = Configured::Replica;

    #[test]
    fn the_one_that_is_not_in_recovery_is_the_primary() {
        let two = hosts([(AUTO, said(true, 1)), (AUTO, said(false, 1))]);
        assert_eq!(judge(&two, 1), Verdict::Primary(1));
        assert_eq!(
            readers(&two, Verdict::Primary(1)),
            [0].into_iter().collect()
        );
        let none = hosts([(AUTO, said(true, 1)), (AUTO, Seen::Gone(None))]);
        assert_eq!(judge(&none, 1), Verdict::Nobody);
        assert_eq!(readers(&none, Verdict::Nobody), [0].into_iter().collect());
    }

    #[test]
    fn nobody_is_chosen_before_all_have_been_asked() {
        let waiting = hosts([(AUTO, said(false, 1)), (AUTO, Seen::Pending)]);
        assert_eq!(judge(&waiting, 0), Verdict::Nobody);
        let asked = hosts([(AUTO, said(false, 1)), (AUTO, Seen::Gone(None))]);
        assert_eq!(judge(&asked, 0), Verdict::Primary(0));
    }

    #[test]
    fn of_two_primaries_the_higher_timeline_wins_and_equals_are_refused() {
        let promoted = hosts([(AUTO, said(false, 1)), (AUTO, said(false, 2))]);
        assert_eq!(judge(&promoted, 1), Verdict::Primary(1));
        // What the old one has written since is in no other history.
        assert!(readers(&promoted, Verdict::Primary(1)).is_empty());
        let split = hosts([
            (AUTO, said(false, 2)),
            (AUTO, said(true, 2)),
            (AUTO, said(false, 2)),
        ]);
        let both: HostSet = [0, 2].into_iter().collect();
        assert_eq!(judge(&split, 2), Verdict::Split(both));
        assert_eq!(
            readers(&split, Verdict::Split(both)),
            [1].into_iter().collect()
        );
    }

    #[test]
    fn an_old_primary_is_none_again_when_the_newer_one_is_gone() {
        let old = hosts([(AUTO, said(false, 1)), (AUTO, Seen::Gone(None))]);
        assert_eq!(judge(&old, 2), Verdict::Nobody);
        assert_eq!(judge(&old, 1), Verdict::Primary(0));
    }

    #[test]
    fn a_primary_whose_replica_follows_a_newer_one_is_an_old_one() {
        let old = hosts([(AUTO, said(false, 1)), (AUTO, said(true, 2))]);
        assert_eq!(judge(&old, 0), Verdict::Nobody);
        let silent = hosts([(AUTO, said(false, 0)), (AUTO, said(true, 2))]);
        assert_eq!(judge(&silent, 0), Verdict::Primary(0));
        let new = hosts([(AUTO, said(false, 2)), (AUTO, said(true, 1))]);
        assert_eq!(judge(&new, 0), Verdict::Primary(0));
    }

    #[test]
    fn a_fixed_primary_is_believed_until_it_says_that_it_is_none() {
        for seen in [Seen::Pending, Seen::Gone(None), said(false, 1)] {
            let fixed = hosts([(REPLICA, said(false, 9)), (PRIMARY, seen)]);
            assert_eq!(judge(&fixed, 5), Verdict::Primary(1));
        }
        let demoted = hosts([(REPLICA, said(false, 2)), (PRIMARY, said(true, 2))]);
        assert_eq!(judge(&demoted, 0), Verdict::Nobody);
        assert_eq!(readers(&demoted, Verdict::Nobody).len(), 2);
    }

    #[test]
    fn detected_hosts_beside_a_fixed_primary_are_its_replicas() {
        let mixed = hosts([
            (PRIMARY, said(false, 1)),
            (AUTO, said(false, 2)),
            (AUTO, Seen::Pending),
        ]);
        assert_eq!(judge(&mixed, 0), Verdict::Primary(0));
        assert_eq!(
            readers(&mixed, Verdict::Primary(0)),
            [2].into_iter().collect()
        );
        let detected = hosts([(REPLICA, Seen::Pending), (AUTO, said(false, 1))]);
        assert_eq!(judge(&detected, 0), Verdict::Primary(1));
        let replicas = hosts([(REPLICA, said(false, 1)), (REPLICA, Seen::Gone(None))]);
        assert_eq!(judge(&replicas, 0), Verdict::ReplicasOnly);
    }

    fn any_host() -> impl Strategy<Value = Candidate> {
        let seen = prop_oneof![
            Just(Seen::Pending),
            Just(Seen::Gone(None)),
            (any::<bool>(), 0u32..4).prop_map(|(r, t)| said(r, t)),
        ];
        (0usize..3, seen).prop_map(|(role, seen)| Candidate {
            configured: [AUTO, REPLICA, PRIMARY][role],
            seen,
        })
    }

    proptest! {
        #[test]
        fn a_detected_primary_has_claimed_it_alone(all in prop::collection::vec(any_host(), 1..8), floor in 0u32..4) {
            let verdict = judge(&all, floor);
            let claims = |host: &Candidate| match host.seen {
                Seen::Said(said) if !said.in_recovery && host.configured == AUTO => Some(said.timeline),
                _ => None,
            };
            if let Verdict::Primary(index) = verdict {
                prop_assert!(all[index].configured != REPLICA);
                if all[index].configured == AUTO {
                    let own = claims(&all[index]);
                    prop_assert!(own.is_some_and(|own| own >= floor));
                    let others = all.iter().enumerate().filter(|(i, _)| *i != index);
                    prop_assert!(others.map(|(_, h)| claims(h)).all(|other| other < own));
                }
                prop_assert!(!readers(&all, verdict).has(index));
            }
            for index in readers(&all, verdict).iter() {
                prop_assert!(all[index].configured == REPLICA || claims(&all[index]).is_none());
            }
        }
    }
}
