//! A replica that is behind answers nobody.

use std::time::Instant;

use pgdog_tests::{Ledger, Load, Postgres, Proxy, Replicated};

use super::{CHECK, CHECK_TIMEOUT, Roles, config, wait_readers};

fn a_replica_over_its_limit_answers_nobody(key: &str, limit: &str, enough: impl Fn(&Replicated)) {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    database.run("create table filler (a text)");
    cluster.settle();
    let config = config(&cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"")
        .general(key, limit);
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
    let ledger = Ledger::start(proxy.port(), database.name(), Load::default());
    ledger.wait_reads(50);
    cluster.pause_replay(1);
    database.run("insert into filler select repeat('x', 1000) from generate_series(1, 5000)");
    enough(&cluster);
    // It is over its limit. One look at the hosts later nobody may be answered by it.
    let over = Instant::now() + CHECK + CHECK_TIMEOUT;
    while Instant::now() < over {
        ledger.wait_reads(1);
    }
    ledger.wait_reads(300);
    let resumed = Instant::now();
    cluster.resume_replay(1);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
    let book = ledger.stop();
    let text = book.summary();
    let behind = book.reads_between(Some(over), Some(resumed));
    assert!(!behind.contains_key(&cluster.port(1)), "{behind:?}: {text}");
    assert!(behind.contains_key(&cluster.port(2)), "{behind:?}: {text}");
    assert_eq!(book.failed_reads().len(), 0, "{text}");
    assert_eq!(book.failed_writes().len(), 0, "{text}");
}

#[test]
fn a_replica_too_many_bytes_behind_answers_nobody() {
    a_replica_over_its_limit_answers_nobody("ban_replica_lag_bytes", "1000000", |cluster| {
        assert!(cluster.lsn(0) - cluster.lsn(1) > 1_000_000);
    });
}

#[test]
fn a_replica_too_long_behind_answers_nobody() {
    a_replica_over_its_limit_answers_nobody("ban_replica_lag", "500", |cluster| {
        let behind =
            "select extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) > 0.5";
        let late = || cluster.host(1).value("postgres", behind) == "t";
        assert!(pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, late));
    });
}

#[test]
fn a_replica_of_an_idle_primary_is_not_behind() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    let config = config(&cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"")
        .general("ban_replica_lag", "300");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, database.name(), &[1]);
    // Nothing is written, so the last replayed transaction grows old.
    let old = "select extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) > 2";
    let aged = || cluster.host(1).value("postgres", old) == "t";
    assert!(pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, aged));
    for _ in 0..5 {
        assert_eq!(super::readers(&cluster, &proxy, database.name()), [1]);
    }
}
