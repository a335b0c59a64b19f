//! The primary changes: a pause, and not an outage.

use std::thread::sleep;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Book, Fence, Http, Ledger, Load, Postgres, Proxy, Replicated, wait};

use super::{Roles, behind_cuts, config, wait_readers};
use crate::exposition::read;

/// By how much more than the servers themselves need a write may be held.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// A cluster with the ledger's table, and a proxy that finds out who is who.
fn stage(replicas: usize) -> (Replicated, String, Proxy) {
    let cluster = Replicated::start(replicas);
    // The database lives as long as its cluster.
    cluster.primary().run("postgres", "create database app");
    Ledger::prepare(cluster.primary(), "app");
    cluster.settle();
    let proxy =
        Proxy::start(&config(&cluster, "app", Roles::Auto).general("hold_timeout", "20000"));
    let all: Vec<usize> = (0..cluster.len()).collect();
    wait_readers(&cluster, &proxy, "app", &all);
    (cluster, "app".to_owned(), proxy)
}

fn nothing_is_lost(book: &Book, cluster: &Replicated, proxy: &Proxy) {
    let text = format!("{}\n{}", book.summary(), proxy.log());
    let primary = cluster.primary();
    assert_eq!(book.acknowledged_but_missing(primary), [], "{text}");
    assert_eq!(book.refused_but_present(primary), [], "{text}");
}

/// How long the hold may be: what the servers took, and the allowance.
fn bounded(book: &Book, gap: Duration, proxy: &Proxy) {
    let most = gap + ALLOWANCE;
    let text = format!("{}\n{}", book.summary(), proxy.log());
    assert!(book.longest_stall() <= most, "more than {most:?}: {text}");
    assert!(book.slowest_write() <= most, "more than {most:?}: {text}");
}

#[test]
fn a_switchover_under_load_is_a_pause() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, database, proxy) = stage(3);
    let ledger = Ledger::start(proxy.port(), &database, Load::default());
    ledger.wait_writes(100);
    let switchover = cluster.switch_over(1, Fence::ReadOnly);
    ledger.wait_writes(100);
    let book = ledger.stop();
    let text = format!("{}\n{}", book.summary(), proxy.log());
    assert_eq!(book.failed_reads().len(), 0, "{text}");
    assert_eq!(
        book.writes_on_after(cluster.port(0), switchover.fenced),
        0,
        "{text}"
    );
    assert!(book.writes_on(cluster.port(1)) >= 100, "{text}");
    nothing_is_lost(&book, &cluster, &proxy);
    bounded(&book, switchover.gap(), &proxy);
    // Single statements are held or done again; transactions whose server was terminated are not.
    let failed = book.failed_writes();
    assert!(failed.len() <= Load::default().writers as usize, "{text}");
}

#[test]
fn a_switchover_by_shutdown_is_a_pause() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, database, proxy) = stage(2);
    let ledger = Ledger::start(proxy.port(), &database, Load::default());
    ledger.wait_writes(100);
    let switchover = cluster.switch_over(2, Fence::Stop);
    ledger.wait_writes(100);
    cluster.rejoin(0);
    wait_readers(&cluster, &proxy, &database, &[0, 1, 2]);
    ledger.wait_writes(50);
    let book = ledger.stop();
    nothing_is_lost(&book, &cluster, &proxy);
    bounded(&book, switchover.gap(), &proxy);
    let after = book.writes_on_after(cluster.port(0), switchover.fenced);
    assert_eq!(after, 0, "{}", book.summary());
}

#[test]
fn there_and_back_again_several_times() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, database, proxy) = stage(2);
    let ledger = Ledger::start(proxy.port(), &database, Load::default());
    let mut fences = Vec::new();
    for to in [1, 2, 0] {
        ledger.wait_writes(50);
        let old = cluster.primary_number();
        let switchover = cluster.switch_over(to, Fence::ReadOnly);
        ledger.wait_writes(20);
        let back = Instant::now();
        cluster.rejoin(old);
        fences.push((old, switchover.fenced, back));
    }
    ledger.wait_writes(50);
    let book = ledger.stop();
    nothing_is_lost(&book, &cluster, &proxy);
    for (old, fenced, back) in fences {
        let port = cluster.port(old);
        let meanwhile = book.acknowledged().filter(|e| {
            e.sent > fenced
                && e.ended < back
                && e.outcome == pgdog_tests::ledger::Outcome::Acknowledged { host: port }
        });
        assert_eq!(meanwhile.count(), 0, "host {old}: {}", book.summary());
    }
}

#[test]
fn a_killed_primary_is_replaced_without_losing_what_was_acknowledged() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, database, proxy) = stage(3);
    cluster.make_synchronous();
    let ledger = Ledger::start(proxy.port(), &database, Load::default());
    ledger.wait_writes(100);
    let killed = Instant::now();
    cluster.kill(0);
    let next = cluster.most_advanced();
    cluster.promote(next);
    let gap = killed.elapsed();
    ledger.wait_writes(100);
    let book = ledger.stop();
    nothing_is_lost(&book, &cluster, &proxy);
    bounded(&book, gap, &proxy);
    assert_eq!(book.failed_connects().len(), 0, "{}", book.summary());
    // What was under way on it is lost, and only that.
    let load = Load::default();
    let most = (load.writers + load.readers) as usize;
    let failed = book.failed_reads().len() + book.failed_writes().len();
    assert!(failed <= most, "{failed}: {}", book.summary());
}

#[test]
fn a_frozen_primary_that_wakes_up_is_no_primary_any_more() {
    if !Postgres::installed() {
        return;
    }
    let (cluster, database, proxy) = stage(2);
    cluster.make_synchronous();
    let ledger = Ledger::start(proxy.port(), &database, Load::default());
    ledger.wait_writes(50);
    cluster.freeze(0);
    let frozen = Instant::now();
    let next = cluster.most_advanced();
    cluster.promote(next);
    cluster.follow(3 - next);
    ledger.wait_writes(50);
    // It still believes that it is the primary, on the older timeline.
    cluster.thaw(0);
    ledger.wait_writes(100);
    let book = ledger.stop();
    nothing_is_lost(&book, &cluster, &proxy);
    let later = book.writes_on_after(cluster.port(0), frozen);
    assert_eq!(later, 0, "{}\n{}", book.summary(), proxy.log());
}

#[test]
fn a_primary_that_is_cut_off_for_a_moment_fails_no_write_that_had_not_begun() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Auto);
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let load = Load::default();
    let ledger = Ledger::start(proxy.port(), database.name(), load);
    ledger.wait_writes(50);
    ways[0].refuse();
    sleep(Duration::from_millis(1500));
    ways[0].open();
    ledger.wait_writes(50);
    let book = ledger.stop();
    nothing_is_lost(&book, cluster, &proxy);
    let most = load.writers as usize;
    assert!(book.failed_writes().len() <= most, "{}", book.summary());
}

#[test]
fn a_write_is_held_no_longer_than_it_may_be() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", "create table t (a int)");
    cluster.settle();
    let config = config(&cluster, "postgres", Roles::Auto).general("hold_timeout", "1500");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    let mut client = proxy.client("pgdog", "postgres");
    client.run("insert into t values (1)");
    cluster.fence(0, Fence::Stop);
    wait_readers(&cluster, &proxy, "postgres", &[1]);
    let start = Instant::now();
    client.query_error("insert into t values (2)");
    let held = start.elapsed();
    let (least, most) = (Duration::from_millis(1200), Duration::from_secs(4));
    assert!(held >= least && held <= most, "{held:?}");
    // Reads go on, and whoever asks when there is a primary again is served.
    client.query_rows("select 1");
    cluster.promote(1);
    client.run("insert into t values (3)");
    assert_eq!(
        cluster.primary().value("postgres", "select sum(a) from t"),
        "4"
    );
}

#[test]
fn two_primaries_of_one_timeline_get_no_writes() {
    if !Postgres::installed() {
        return;
    }
    // Two clusters that know nothing of each other, as after a restore that nobody has told the first one of.
    let one = Replicated::start(0);
    let other = Replicated::start(0);
    for cluster in [&one, &other] {
        cluster.primary().run("postgres", "create table t (a int)");
    }
    let ports = [one.port(0), other.port(0)];
    let config = super::at(&ports, &one, "postgres", Roles::Auto)
        .general("hold_timeout", "300")
        .general("openmetrics_host", "\"127.0.0.1\"")
        .general("openmetrics_port", "0")
        .general("openmetrics_namespace", "\"pgdog_\"");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", "postgres");
    client.query_error("insert into t values (1)");
    for cluster in [&one, &other] {
        let count = cluster
            .primary()
            .value("postgres", "select count(*) from t");
        assert_eq!(count, "0");
    }
    let figures = Http::new(proxy.http_port("general.openmetrics_port"));
    let value = |name: &str, labels: &[(&str, &str)]| {
        let found = read(&figures.get("/metrics").expect(200).body);
        found.value(name, labels)
    };
    let labels = [("database", "postgres"), ("shard", "0")];
    let split = || value("pgdog_database_split_brain", &labels);
    assert_eq!(split(), Some(1.0));
    for port in ports.map(|port| port.to_string()) {
        let labels = [("port", &*port), ("role", "primary")];
        assert_eq!(value("pgdog_host_role", &labels), Some(0.0));
    }
    // The log names both.
    let log = proxy.log();
    for port in ports {
        assert!(log.contains(&port.to_string()), "{log}");
    }
    // One of them is stopped.
    other.kill(0);
    assert!(wait::until(PATIENCE, || split() == Some(0.0)));
    client.run("insert into t values (1)");
}

#[test]
fn a_primary_whose_disk_is_full_still_answers_reads() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", "create table t (a text)");
    cluster.settle();
    let proxy = Proxy::start(&config(&cluster, "postgres", Roles::Auto));
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    let write = "insert into t select repeat('x', 1000) from generate_series(1, 30000)";
    cluster.fill_disk(0);
    let mut client = proxy.client("pgdog", "postgres");
    let told = client.query_error(write);
    // It is the server's word, and neither a hold nor a ban.
    assert!(!told.starts_with("08"), "{told}");
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    cluster.empty_disk(0);
    client.run(write);
}
