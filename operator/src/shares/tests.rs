//! What proxies are told and believed over time.

use super::*;

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name}})).unwrap()
}

fn terms() -> Terms {
    Terms {
        total: 60,
        distribution: pgdog_operator_api::Distribution::Equal,
        start: 1,
        aside: 8,
        checks: 1,
        fleet: Fleet {
            proxies: 9,
            surge: 1,
            replacing: 2,
        },
    }
}

/// With a budget of so many connections and so many databases.
fn cluster(total: i32, databases: usize, more: &Value) -> PgDogCluster {
    let databases: Vec<_> = (0..databases)
        .map(|number| json!({"name": format!("db{number}")}))
        .collect();
    let mut spec = json!({
        "databases": databases,
        "pooling": {"budget": {"maxServerConnections": total}},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1",
        "kind": "PgDogCluster",
        "metadata": {"name": "shop"},
        "spec": spec,
    }))
    .unwrap()
}

fn seen(pod: &Pod, share: Share, starts: bool) -> Seen<'_> {
    Seen {
        pod,
        share,
        demand: 0,
        starts,
    }
}

fn limit(ledger: &Ledger, pod: &str) -> (Value, u64) {
    let document = ledger.document(pod, 1).unwrap();
    (document.config["default"].clone(), document.revision)
}

#[test]
fn a_fleet_grows_as_fast_as_the_others_give_back() {
    let pods = [pod("a"), pod("b"), pod("c")];
    let mut ledger = Ledger::default();
    for pod in &pods[..2] {
        let entry = Entry {
            bound: Bound::AtMost(25),
            told: None,
        };
        ledger.proxies.insert(pod.uid().unwrap(), entry);
    }
    // Two have 50 and 2 for looking after the hosts; one that starts has 1 and 1, and one may come to replace another.
    let of = |pods: &[Pod], share: Share| -> Vec<Share> { pods.iter().map(|_| share).collect() };
    let shares = of(&pods[..2], Share::Pending);
    let two: Vec<_> = pods
        .iter()
        .zip(shares)
        .map(|(pod, share)| seen(pod, share, false))
        .collect();
    let standing = ledger.settle(Some(&terms()), &two, Instant::now()).unwrap();
    assert_eq!(standing.room, Some(4));
    assert_eq!(hold(2, &standing).unwrap().most, 5);
    let mut three = two;
    three.push(seen(&pods[2], Share::Pending, true));
    let standing = ledger
        .settle(Some(&terms()), &three, Instant::now())
        .unwrap();
    assert_eq!(standing.room, Some(3));
    // Two have given back what is above their share of a third.
    let held = |pod: &Pod, ledger: &Ledger| Share::Held(limit(ledger, &pod.uid().unwrap()).1);
    let two = [held(&pods[0], &ledger), held(&pods[1], &ledger)];
    for (seen, share) in three.iter_mut().zip(two) {
        seen.share = share;
    }
    let standing = ledger
        .settle(Some(&terms()), &three, Instant::now())
        .unwrap();
    let bounds: u32 = ledger
        .proxies
        .values()
        .map(|entry| match entry.bound {
            Bound::AtMost(bound) => bound,
            Bound::Unknown => u32::MAX,
        })
        .sum();
    assert!(
        bounds + 3 + standing.room.unwrap() * 2 <= 60,
        "{standing:?}"
    );
}

#[test]
fn a_fleet_without_limits_comes_under_a_budget_and_the_status_tells_what_may_be() {
    let (a, b) = (pod("a"), pod("b"));
    let mut ledger = Ledger::default();
    let first = [
        seen(&a, Share::Pending, false),
        seen(&b, Share::Pending, false),
    ];
    assert!(
        !ledger
            .settle(Some(&terms()), &first, Instant::now())
            .unwrap()
            .held
    );
    let (told, of_a) = limit(&ledger, "a");
    let (_, of_b) = limit(&ledger, "b");
    assert_eq!(told, 25);
    assert!(ledger.written(&first).is_empty(), "any number is no number");
    let second = [
        seen(&a, Share::Held(of_a), false),
        seen(&b, Share::Over(of_b), false),
    ];
    assert!(
        !ledger
            .settle(Some(&terms()), &second, Instant::now())
            .unwrap()
            .held
    );
    assert_eq!(
        ledger.written(&second),
        BTreeMap::from([("a".to_owned(), 25)])
    );
    let third = [
        seen(&a, Share::Held(of_a), false),
        seen(&b, Share::Held(of_b), false),
    ];
    assert!(
        ledger
            .settle(Some(&terms()), &third, Instant::now())
            .unwrap()
            .held
    );
    assert_eq!(
        limit(&ledger, "a"),
        (json!(25), of_a),
        "nobody is told the same twice"
    );
}

#[test]
fn another_leader_knows_what_each_may_have_and_tells_it_anew() {
    let (a, b) = (pod("a"), pod("b"));
    let written = BTreeMap::from([("a".to_owned(), 51)]);
    let mut ledger = Ledger::recall(&written, &[&a, &b]);
    let all = [
        seen(&a, Share::Pending, false),
        seen(&b, Share::Pending, true),
    ];
    ledger.settle(Some(&terms()), &all, Instant::now()).unwrap();
    assert_eq!(limit(&ledger, "a").0, 25);
    assert_eq!(
        limit(&ledger, "b").0,
        1,
        "what a has given back is not known yet"
    );
    let given = [
        seen(&a, Share::Held(limit(&ledger, "a").1), false),
        seen(&b, Share::Pending, true),
    ];
    ledger
        .settle(Some(&terms()), &given, Instant::now())
        .unwrap();
    assert_eq!(limit(&ledger, "b").0, 25);
    assert_eq!(
        ledger.written(&given)["b"],
        25,
        "written down before it is told"
    );
}

#[test]
fn without_a_budget_the_limits_are_taken_back_once() {
    let a = pod("a");
    let mut ledger = Ledger::default();
    ledger.settle(
        Some(&terms()),
        &[seen(&a, Share::Pending, true)],
        Instant::now(),
    );
    assert_eq!(
        ledger.settle(None, &[seen(&a, Share::Pending, false)], Instant::now()),
        None
    );
    let (told, revision) = limit(&ledger, "a");
    assert_eq!(told, Value::Null);
    ledger.settle(
        None,
        &[seen(&a, Share::Held(revision), false)],
        Instant::now(),
    );
    assert!(ledger.document("a", 1).is_none());
}

#[test]
fn a_budget_that_comes_back_believes_nothing_of_those_that_were_told_that_there_is_none() {
    let (a, b) = (pod("a"), pod("b"));
    let all = |of_a| [seen(&a, of_a, false), seen(&b, Share::Pending, false)];
    let written = BTreeMap::from([("a".to_owned(), 25), ("b".to_owned(), 1)]);
    let mut ledger = Ledger::recall(&written, &[&a, &b]);
    ledger.settle(Some(&terms()), &all(Share::Pending), Instant::now());
    ledger.settle(None, &all(Share::Pending), Instant::now());
    assert!(ledger.written(&all(Share::Pending)).is_empty());
    let standing = ledger
        .settle(Some(&terms()), &all(Share::Pending), Instant::now())
        .unwrap();
    assert_eq!(standing.room, None, "each may have any number");
    let (told, revision) = limit(&ledger, "a");
    assert_eq!(told, 25);
    ledger.settle(Some(&terms()), &all(Share::Held(revision)), Instant::now());
    let written = ledger.written(&all(Share::Pending));
    assert_eq!(written, BTreeMap::from([("a".to_owned(), 25)]));
}

/// As they are before they are granted anything.
fn nothing_granted() -> Terms {
    Terms {
        aside: 60,
        ..terms()
    }
}

#[test]
fn who_starts_may_have_read_the_file_of_a_while_ago() {
    let files = [(2, 0), (1, 60), (1, 239), (1, 240), (5, 300), (3, 301)];
    let begin = Instant::now();
    let mut ledger = Ledger::default();
    let bounds = files.map(|(start, after)| {
        let terms = Terms {
            start,
            ..nothing_granted()
        };
        let now = begin + Duration::from_secs(after);
        ledger.settle(Some(&terms), &[], now);
        let newcomer = pod("a");
        let standing = ledger.settle(Some(&terms), &[seen(&newcomer, Share::Pending, true)], now);
        (ledger.proxies["a"].bound, standing.unwrap().room.unwrap())
    });
    let most = bounds.map(|(bound, _)| bound);
    assert_eq!(most, [2, 2, 2, 1, 5, 5].map(Bound::AtMost));
    // Those that come next may have read it as well.
    let room = bounds.map(|(_, room)| room);
    assert_eq!(room, [57 / 3, 57 / 3, 57 / 3, 58 / 2, 54 / 6, 54 / 6]);
}

#[test]
fn who_waits_for_its_node_reads_the_file_when_it_runs() {
    let a = pod("a");
    let mut ledger = Ledger::default();
    for start in [1, 4] {
        let terms = Terms {
            start,
            ..nothing_granted()
        };
        ledger.settle(
            Some(&terms),
            &[seen(&a, Share::Pending, true)],
            Instant::now(),
        );
    }
    assert_eq!(ledger.proxies["a"].bound, Bound::AtMost(4));
}

#[test]
fn who_starts_while_a_budget_comes_may_know_nothing_of_it() {
    let (a, b) = (pod("a"), pod("b"));
    let begin = Instant::now();
    let later = begin + LATE;
    let all = [
        seen(&a, Share::Pending, false),
        seen(&b, Share::Pending, true),
    ];
    let of_b = |ledger: &mut Ledger, now| {
        ledger.settle(Some(&nothing_granted()), &all, now);
        ledger.proxies["b"].bound
    };
    let mut ledger = Ledger::default();
    ledger.settle(None, &all[..1], begin);
    let mut late = ledger.clone();
    assert_eq!(of_b(&mut ledger, begin), Bound::Unknown);
    late.settle(Some(&nothing_granted()), &all[..1], begin);
    assert_eq!(of_b(&mut late, later), Bound::AtMost(1));
    // A leader that has just come knows it from what the one before has written.
    let mut other = Ledger::recall(&BTreeMap::new(), &[&a]);
    assert_eq!(of_b(&mut other, Instant::now()), Bound::Unknown);
    let mut other = Ledger::recall(&BTreeMap::from([("a".to_owned(), 25)]), &[&a]);
    assert_eq!(of_b(&mut other, Instant::now()), Bound::AtMost(1));
}

/// How many proxies there may be when there is none, and how the budget stands then.
fn at_first(cluster: &PgDogCluster) -> (i32, Finding) {
    let terms = terms_of(cluster);
    let standing = Ledger::default().settle(Some(&terms), &[], Instant::now());
    let standing = standing.unwrap();
    (hold(0, &standing).unwrap().most, finding(&standing))
}

fn terms_of(cluster: &PgDogCluster) -> Terms {
    super::terms(cluster, 0, cluster.spec.databases.len()).unwrap()
}

#[test]
fn a_budget_that_cannot_hold_the_fleet_is_told_and_holds_as_many_as_it_can() {
    // Each has twelve connections to look after the hosts.
    let (most, finding) = at_first(&cluster(20, 12, &json!({})));
    assert_eq!((most, finding.reason), (1, "BudgetTooSmall"));
    assert!(
        finding
            .message
            .contains("maxServerConnections 20 is not enough for 2 proxies")
            && finding.message.contains("so there are 1"),
        "{}",
        finding.message
    );
    let (most, finding) = at_first(&cluster(10, 12, &json!({})));
    assert_eq!((most, finding.reason), (0, "BudgetTooSmall"));
    let one = json!({"replicas": 1, "strategy": {"type": "Recreate"}});
    let (most, finding) = at_first(&cluster(20, 12, &one));
    assert_eq!((most, finding.reason), (1, "Held"));
    let (most, finding) = at_first(&cluster(60, 12, &json!({})));
    assert_eq!((most, finding.reason), (4, "Held"));
}

#[test]
fn one_proxy_has_a_share_where_there_is_something_beside_its_checks() {
    let terms = terms_of(&cluster(20, 12, &json!({})));
    let a = pod("a");
    let mut ledger = Ledger::default();
    ledger.settle(
        Some(&terms),
        &[seen(&a, Share::Pending, true)],
        Instant::now(),
    );
    assert_eq!(limit(&ledger, "a").0, 8);
}

/// What a ledger with these bounds says of pods with these names; those that leave come last.
fn standing_of(bounds: &[(&str, u32)], leaving: usize, terms: &Terms) -> Standing {
    let pods: Vec<_> = bounds.iter().map(|(name, _)| pod(name)).collect();
    let mut ledger = Ledger::default();
    for (name, bound) in bounds {
        let entry = Entry {
            bound: Bound::AtMost(*bound),
            told: None,
        };
        ledger.proxies.insert((*name).to_owned(), entry);
    }
    let mut pods = pods;
    let stay = pods.len() - leaving;
    for pod in &mut pods[stay..] {
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    }
    let seen: Vec<_> = pods
        .iter()
        .map(|pod| seen(pod, Share::Pending, false))
        .collect();
    ledger.settle(Some(terms), &seen, Instant::now()).unwrap()
}

#[test]
fn pods_of_a_further_template_wait_for_those_of_two_that_drain() {
    let terms = terms_of(&cluster(60, 1, &json!({})));
    assert_eq!((terms.start, terms.aside), (2, 9));
    assert_eq!(terms.fleet.replacing, 2);
    // In a fleet as it is to be there is always room.
    assert!(!standing_of(&[("a", 24), ("b", 25)], 0, &terms).crowded);
    // Both old ones hold 49 in transactions that do not end, and two have come in their place.
    let crowd = [("c", 2), ("d", 2), ("a", 24), ("b", 25)];
    let standing = standing_of(&crowd, 2, &terms);
    assert_eq!((standing.room, standing.crowded), (Some(1), true));
    let hold = hold(2, &standing).unwrap();
    assert_eq!(
        hold,
        Hold {
            most: 2,
            paused: true
        }
    );
    assert!(
        finding(&standing)
            .message
            .contains("a change of the pods waits")
    );
    let one_gone = standing_of(&crowd[..3], 1, &terms);
    assert!(!one_gone.crowded, "{one_gone:?}");
}

#[test]
fn no_pod_waits_for_room_that_never_comes() {
    let of = |total, databases, more: Value| {
        let terms = terms_of(&cluster(total, databases, &more));
        (terms.fleet.replacing, terms.shortage().is_some(), terms)
    };
    for (replicas, surge, missing, replacing) in [
        (1, json!(1), json!(0), 2),
        (2, json!(1), json!("100%"), 3),
        (1, json!(0), json!(1), 1),
        (9, json!("25%"), json!("25%"), 3 + 2 + 1),
        (4, json!("100%"), json!(0), 5),
    ] {
        let strategy = json!({"maxSurge": surge, "maxUnavailable": missing});
        let more = json!({"replicas": replicas, "strategy": strategy});
        let (of, short, terms) = of(60, 1, more);
        assert_eq!((of, short), (replacing, false), "{replicas} {strategy}");
        // All have their whole shares.
        let pods: Vec<_> = (0..replicas).map(|n| format!("{n}")).collect();
        let each = (terms.total - terms.aside) / replicas - 1;
        let bounds: Vec<_> = pods.iter().map(|pod| (pod.as_str(), each)).collect();
        let standing = standing_of(&bounds, 0, &terms);
        assert!(!standing.crowded, "{replicas} {strategy} {standing:?}");
    }
    // One that goes before another comes never waits, nor does the first.
    let (_, short, terms) = of(20, 12, json!({"replicas": 1}));
    assert!(short && standing_of(&[("a", 8)], 0, &terms).crowded);
    assert!(!standing_of(&[], 0, &terms).crowded);
    let recreate = json!({"replicas": 1, "strategy": {"type": "Recreate"}});
    let (_, short, terms) = of(20, 12, recreate);
    assert!(!short && !standing_of(&[("a", 8)], 0, &terms).crowded);
}

#[test]
fn a_further_database_waits_until_the_shares_leave_room_for_it() {
    let cluster = cluster(60, 2, &json!({}));
    let terms = |databases| super::terms(&cluster, 0, databases).unwrap();
    let (one, two) = (terms(1), terms(2));
    assert_eq!((one.aside, two.aside), (9, 12));
    let all = [("a", 24), ("b", 25)];
    assert!(standing_of(&all, 0, &one).fits);
    // Their bounds are of before: 49 with 4 for looking after the hosts and 12 that are kept are too many.
    let standing = standing_of(&all, 0, &two);
    assert!(!standing.fits);
    let message = finding(&standing).message;
    assert!(
        message.contains("settings with another database wait"),
        "{message}"
    );
    assert_eq!(standing.shares.targets.values().sum::<u32>(), 60 - 12 - 4);
    let standing = standing_of(&[("a", 22), ("b", 22)], 0, &two);
    assert!(standing.fits, "{standing:?}");
    assert!(!finding(&standing).message.contains("another database"));
    // Those on their way out count, and who may have any number.
    assert!(!standing_of(&[("a", 22), ("b", 25)], 1, &two).fits);
    let (a, mut ledger) = (pod("a"), Ledger::default());
    let unknown = [seen(&a, Share::Pending, false)];
    assert!(
        !ledger
            .settle(Some(&one), &unknown, Instant::now())
            .unwrap()
            .fits
    );
    assert!(ledger.settle(Some(&one), &[], Instant::now()).unwrap().fits);
    // With so many databases there is nothing left, whatever the bounds are.
    assert!(!standing_of(&[("a", 0), ("b", 0)], 0, &terms(30)).fits);
}
