//! Which of several hosts answers a read.

use std::time::Duration;

use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, Replicated};

use super::{Roles, WHO, base, behind_cuts, config, host_of, spread, wait_readers};

/// Only replicas answer, chosen so.
fn strategy(config: ProxyConfig, name: &str) -> ProxyConfig {
    config
        .general("read_write_split", "\"exclude_primary\"")
        .general("load_balancing_strategy", &format!("\"{name}\""))
}

/// Three replicas with a further line each.
fn lined(cluster: &Replicated, database: &str, lines: [&str; 3]) -> ProxyConfig {
    let config =
        base(cluster.primary()).database_at(database, cluster.port(0), &[Roles::Fixed.line(0)]);
    let replicas = lines.iter().enumerate();
    replicas.fold(config, |config, (index, line)| {
        let number = index + 1;
        let lines = [Roles::Fixed.line(number), line];
        config.database_at(database, cluster.port(number), &lines)
    })
}

#[test]
fn round_robin_gives_each_the_same() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = strategy(
        config(cluster, database.name(), Roles::Fixed),
        "round_robin",
    );
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    let counts = spread(cluster, &mut client, 300);
    assert!(
        counts.values().all(|n| (95..=105).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn chance_gives_each_about_the_same() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = strategy(config(cluster, database.name(), Roles::Fixed), "random");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    let counts = spread(cluster, &mut client, 600);
    assert!(
        counts.values().all(|n| (140..=260).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn weights_are_shares_and_none_is_none() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let weights = ["lb_weight = 50", "lb_weight = 150", "lb_weight = 0"];
    let config = strategy(
        lined(cluster, database.name(), weights),
        "weighted_round_robin",
    );
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2]);
    let mut client = proxy.client("pgdog", database.name());
    let counts = spread(cluster, &mut client, 200);
    assert!((45..=55).contains(&counts[&1]), "{counts:?}");
    assert!((145..=155).contains(&counts[&2]), "{counts:?}");
}

#[test]
fn the_least_busy_is_asked() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = strategy(
        config(cluster, database.name(), Roles::Fixed),
        "least_active_connections",
    );
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    // Each transaction in turn keeps the host busy that was the least so.
    let mut busy: Vec<_> = (0..5)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    let mut hosts = Vec::new();
    for client in &mut busy {
        client.run("begin read only");
        hosts.push(host_of(cluster, client, WHO));
    }
    let mut first: Vec<usize> = hosts[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3], "{hosts:?}");
    assert_ne!(hosts[3], hosts[4]);
    let free = 6 - hosts[3] - hosts[4];
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(spread(cluster, &mut client, 20).len(), 1);
    assert_eq!(host_of(cluster, &mut client, WHO), free, "{hosts:?}");
}

#[test]
fn a_slow_host_is_asked_less() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    let proxy = Proxy::start(&strategy(config, "least_latency"));
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    ways[2].delay(Duration::from_millis(20));
    let mut client = proxy.client("pgdog", database.name());
    // What it measures changes with time.
    spread(cluster, &mut client, 60);
    let counts = spread(cluster, &mut client, 200);
    let slow = counts.get(&2).copied().unwrap_or(0);
    assert!(slow * 3 < counts[&1] && slow * 3 < counts[&3], "{counts:?}");
}

#[test]
fn hosts_of_the_same_zone_come_first() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let zones = ["zone = \"a\"", "zone = \"b\"", "zone = \"a\""];
    let config = strategy(lined(cluster, database.name(), zones), "round_robin");
    let told = Proxy::start(&config.clone().general("zone", "\"a\""));
    wait_readers(cluster, &told, database.name(), &[1, 3]);
    // What its pod says counts where the configuration says nothing.
    let of_pod = Proxy::start_with(&config, &["--pod-zone", "b"]);
    wait_readers(cluster, &of_pod, database.name(), &[2]);
    let both = Proxy::start_with(&config.general("zone", "\"a\""), &["--pod-zone", "b"]);
    wait_readers(cluster, &both, database.name(), &[1, 3]);
}

#[test]
fn prepared_statements_work_on_whichever_host() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = config(cluster, database.name(), Roles::Fixed);
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    client.transcript(&[
        Message::parse("mine", "select current_setting('port') || $1"),
        Message::Sync,
    ]);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..40 {
        let lines = client.transcript(&[
            Message::bind("mine", &[&format!("/{round}")]),
            Message::execute(),
            Message::Sync,
        ]);
        let row = lines.iter().find(|line| line.starts_with('D'));
        let row = row.unwrap_or_else(|| panic!("{lines:?}")).clone();
        assert!(row.contains(&format!("/{round}")), "{row}");
        seen.insert(row.split('/').next().map(str::to_owned));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}
