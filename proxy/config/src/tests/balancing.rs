//! Hosts of one database: their pools, their roles, and how they are watched.

use std::time::Duration;

use super::{errors, settings, warnings};
use crate::{Balancing, Checks, LoadBalancingStrategy, ReadYourWrites};

const USER: &str = "[[users]]\nname = \"a\"\npassword = \"p\"\n";

fn host(host: &str, more: &str) -> String {
    format!("[[databases]]\nname = \"a\"\nhost = \"{host}\"\n{more}\n")
}

fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[test]
fn each_host_has_a_pool_of_its_own_size() {
    let pgdog = [
        "[general]\ndefault_pool_size = 7\n".to_owned(),
        host("r", "role = \"replica\"\npool_size = 3\npool_size_replica = 20\nidle_timeout_replica = 9\nuser = \"reader\"\npassword = \"x\"\nstatement_timeout = 5"),
        host("p", "pool_size = 4\npool_size_primary = 5"),
        host("s", "role = \"auto\"\nzone = \"z\"\nlb_weight = 3"),
    ]
    .concat();
    let pool = settings(&pgdog, USER).users.remove(0).pool;
    assert_eq!((pool.size, pool.members.len()), (5, 3));
    assert_eq!(pool.serving(), [0, 1, 2]);
    let [replica, primary, auto] = [0, 1, 2].map(|index| pool.of_host(index));
    assert_eq!((replica.size, primary.size, auto.size), (20, 5, 7));
    assert_eq!(replica.idle_timeout, Some(millis(9)));
    assert_eq!(
        (replica.server_user.as_str(), &replica.server_passwords[..]),
        ("reader", &["x".to_owned()][..])
    );
    assert_eq!(replica.parameters.len(), 1);
    assert_eq!(
        (primary.server_user.as_str(), primary.parameters.len()),
        ("a", 0)
    );
    assert_eq!(
        (auto.hosts[0].zone.as_deref(), auto.hosts[0].weight),
        (Some("z"), 3)
    );
    assert!(auto.hosts.len() == 1 && auto.members.is_empty());
}

#[test]
fn another_host_leaves_the_pools_of_the_others_as_they_are() {
    let one = host("p", "");
    let two = format!("{one}{}", host("r", "role = \"replica\""));
    let (one, two) = (settings(&one, USER), settings(&two, USER));
    let (one, two) = (&one.users[0].pool, &two.users[0].pool);
    assert!(!one.same_servers(two) && one.of_host(0).same_servers(&two.of_host(0)));
}

#[test]
fn the_pool_of_a_host_is_that_of_the_user_who_was_filled_in() {
    let mut pool = settings(&host("p", ""), "").guest_pools.remove(0);
    pool.user = "guest".to_owned();
    pool.server_user = "guest".to_owned();
    let of_host = pool.of_host(0);
    assert_eq!(
        (of_host.user.as_str(), of_host.server_user.as_str()),
        ("guest", "guest")
    );
}

#[test]
fn a_host_kept_for_resharding_and_those_of_other_shards_serve_nobody() {
    let pgdog = [
        host("p", ""),
        host("k", "role = \"replica\"\nresharding_only = true"),
        host("q", "shard = 1"),
    ]
    .concat();
    assert_eq!(settings(&pgdog, USER).users[0].pool.serving(), [0]);
}

#[test]
fn an_empty_pool_of_a_replica_is_an_error_of_its_host() {
    let pgdog = [
        host("p", ""),
        host("r", "role = \"replica\"\npool_size_replica = 0"),
    ]
    .concat();
    let problems = errors(&pgdog, USER);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("databases[1].pool_size"),
        "{problems:?}"
    );
}

#[test]
fn fixed_and_detected_roles_together_are_a_warning() {
    let roles = |roles: &[&str]| {
        let hosts = roles.iter().enumerate();
        let hosts = hosts.map(|(i, role)| host(&format!("h{i}"), &format!("role = \"{role}\"")));
        let warnings = warnings(&hosts.collect::<String>(), USER);
        warnings.into_iter().map(|w| w.path).collect::<Vec<_>>()
    };
    assert_eq!(roles(&["primary", "auto"]), ["databases[1].role"]);
    assert_eq!(roles(&["replica", "replica"]), ["databases[0].role"]);
    for fine in [
        &["auto", "auto"][..],
        &["replica", "auto"],
        &["primary", "replica"],
        &["replica"],
    ] {
        assert!(roles(fine).is_empty(), "{fine:?}");
    }
}

#[test]
fn more_hosts_than_can_be_chosen_among_are_an_error() {
    let hosts = |n: usize| -> String {
        (0..n)
            .map(|i| host(&format!("h{i}"), "role = \"auto\""))
            .collect()
    };
    settings(&hosts(64), USER);
    assert!(errors(&hosts(65), USER)[0].contains("databases[64].host"));
}

#[test]
fn the_defaults_of_balancing_and_checks() {
    let balancing = Balancing::default();
    assert_eq!(
        (balancing.strategy, balancing.read_your_writes),
        (LoadBalancingStrategy::Random, ReadYourWrites::Off)
    );
    assert_eq!(
        (balancing.hold_timeout, balancing.slow_start),
        (millis(10_000), Some(millis(5_000)))
    );
    let checks = Checks::default();
    assert_eq!(
        (checks.interval, checks.look_delay, checks.look_interval),
        (Some(millis(30_000)), Some(Duration::ZERO), millis(5_000))
    );
    assert_eq!(
        (checks.max_lag, checks.max_lag_bytes, checks.dns_ttl),
        (None, None, None)
    );
}

#[test]
fn the_older_section_of_lag_counts_where_the_keys_are_not_set() {
    let older = "[replica_lag]\ncheck_interval = 11\nmax_age = 12\n";
    let checks = settings(older, "").checks;
    assert_eq!(
        (checks.look_interval, checks.max_lag),
        (millis(11), Some(millis(12)))
    );
    let both = format!("[general]\nlsn_check_interval = 21\nban_replica_lag = 22\n{older}");
    let checks = settings(&both, "").checks;
    assert_eq!(
        (checks.look_interval, checks.max_lag),
        (millis(21), Some(millis(22)))
    );
}

#[test]
fn looks_are_off_only_where_that_is_written() {
    let off = settings(
        "[general]\nlsn_check_delay = 9223372036854775807\nban_replica_lag_bytes = 0\n",
        "",
    );
    assert_eq!(
        (off.checks.look_delay, off.checks.max_lag_bytes),
        (None, None)
    );
    let on = settings(
        "[general]\nlsn_check_delay = 0\nban_replica_lag_bytes = 5\n",
        "",
    );
    assert_eq!(
        (on.checks.look_delay, on.checks.max_lag_bytes),
        (Some(Duration::ZERO), Some(5))
    );
}
