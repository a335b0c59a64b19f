use pgdog_config::LoadBalancingStrategy as Strategy;
use proptest::prelude::*;

use super::*;

const ALL: [Strategy; 5] = [
    Strategy::Random,
    Strategy::RoundRobin,
    Strategy::LeastActiveConnections,
    Strategy::WeightedRoundRobin,
    Strategy::LeastLatency,
];

const PLAIN: View = View {
    weight: 255,
    active: 0,
    latency: 100,
    share: WHOLE,
    near: false,
};

/// How often each of the hosts was chosen in so many turns.
fn counts(strategy: Strategy, hosts: &[View], turns: usize) -> Vec<usize> {
    let among: HostSet = (0..hosts.len()).collect();
    let counter = Turns::from(7);
    let mut counts = vec![0; hosts.len()];
    for _ in 0..turns {
        counts[choose(strategy, among, |i| hosts[i], &counter).unwrap()] += 1;
    }
    counts
}

#[test]
fn round_robin_is_exact_and_chance_is_fair() {
    assert_eq!(counts(Strategy::RoundRobin, &[PLAIN; 3], 300), [100; 3]);
    for count in counts(Strategy::Random, &[PLAIN; 4], 4000) {
        assert!((900..1100).contains(&count), "{count}");
    }
}

#[test]
fn the_least_busy_host_is_taken_and_equals_share() {
    let busy = View { active: 3, ..PLAIN };
    assert_eq!(
        counts(Strategy::LeastActiveConnections, &[busy, PLAIN, busy], 10),
        [0, 10, 0]
    );
    for count in counts(Strategy::LeastActiveConnections, &[PLAIN; 2], 1000) {
        assert!((420..580).contains(&count), "{count}");
    }
}

#[test]
fn of_two_the_faster_and_less_busy_one_is_taken() {
    let slow = View {
        latency: 900,
        ..PLAIN
    };
    let busy = View {
        active: 20,
        ..PLAIN
    };
    assert_eq!(counts(Strategy::LeastLatency, &[slow, PLAIN], 50), [0, 50]);
    assert_eq!(counts(Strategy::LeastLatency, &[busy, slow], 50), [0, 50]);
    // The worst of three is never the better of two.
    let three = counts(Strategy::LeastLatency, &[PLAIN, slow, busy], 900);
    assert!(
        three[2] == 0 && three[0] > three[1] && three[1] > 0,
        "{three:?}"
    );
    // A host that nothing is known of yet gets its part.
    let new = View {
        latency: 0,
        ..PLAIN
    };
    assert!(
        counts(Strategy::LeastLatency, &[PLAIN, new], 100)
            .iter()
            .all(|c| *c > 20)
    );
}

#[test]
fn the_own_zone_comes_first_and_a_weight_of_zero_last() {
    let near = View {
        near: true,
        ..PLAIN
    };
    let spare = View {
        weight: 0,
        near: true,
        ..PLAIN
    };
    for strategy in ALL {
        assert_eq!(
            counts(strategy, &[PLAIN, near, spare], 20),
            [0, 20, 0],
            "{strategy:?}"
        );
        assert_eq!(
            counts(strategy, &[PLAIN, spare], 20),
            [20, 0],
            "{strategy:?}"
        );
        assert_eq!(counts(strategy, &[spare], 20), [20], "{strategy:?}");
        let both: usize = counts(strategy, &[spare, spare], 20).iter().sum();
        assert_eq!(both, 20, "{strategy:?}");
    }
}

#[test]
fn a_host_that_is_back_gets_a_small_share_whatever_the_strategy() {
    let back = View { share: 16, ..PLAIN };
    for strategy in ALL {
        let counts = counts(strategy, &[PLAIN, back, PLAIN], 3000);
        assert!(counts[1] < 150, "{strategy:?}: {counts:?}");
        // By load it gets its first when the others have some.
        if !matches!(
            strategy,
            Strategy::LeastActiveConnections | Strategy::LeastLatency
        ) {
            assert!(counts[1] > 20, "{strategy:?}: {counts:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_choice_is_one_of_those_there_are(
        bits in any::<u64>(), turn in any::<u64>(), strategy in 0usize..5,
        views in prop::collection::vec((0u8..3, 0u32..4, 0u32..3, 1u32..=WHOLE, any::<bool>()), 64),
    ) {
        let among: HostSet = (0..64).filter(|i| bits >> i & 1 == 1).collect();
        let view = |i: usize| {
            let (weight, active, latency, share, near) = views[i];
            View { weight, active, latency, share, near }
        };
        let chosen = choose(ALL[strategy], among, view, &Turns::from(turn));
        prop_assert_eq!(chosen.is_some(), !among.is_empty());
        if let Some(chosen) = chosen {
            prop_assert!(among.has(chosen));
            let weighty = among.iter().any(|i| view(i).weight > 0);
            prop_assert!(!weighty || view(chosen).weight > 0);
            let near = among.iter().any(|i| view(i).near && (view(i).weight > 0 || !weighty));
            prop_assert!(!near || view(chosen).near);
        }
    }

    #[test]
    fn weights_are_kept_smoothly(weights in prop::collection::vec(1u8..=255, 2..8), start in any::<u64>()) {
        let among: HostSet = (0..weights.len()).collect();
        let view = |i: usize| View { weight: weights[i], ..PLAIN };
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let counter = Turns::from(start);
        let mut counts = vec![0f64; weights.len()];
        for turn in 1..=2000u32 {
            counts[choose(Strategy::WeightedRoundRobin, among, view, &counter).unwrap()] += 1.0;
            for (count, weight) in counts.iter().zip(&weights) {
                let due = f64::from(turn) * f64::from(*weight) / total;
                prop_assert!((count - due).abs() < 6.0, "after {} turns {} instead of {}", turn, count, due);
            }
        }
    }

    #[test]
    fn sets_hold_what_was_put_in(indexes in prop::collection::btree_set(0usize..64, 0..64)) {
        let set: HostSet = indexes.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), indexes.iter().copied().collect::<Vec<_>>());
        for (n, index) in indexes.iter().enumerate() {
            prop_assert_eq!(set.nth(n as u32), *index);
            prop_assert!(set.has(*index) && !set.without(*index).has(*index));
        }
    }
}
