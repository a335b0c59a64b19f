//! A mirror in trouble is no trouble of the client's.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::free_port;
use pgdog_tests::{
    Activity, Message, Postgres, PostgresOptions, Proxy, ProxyConfig, StopMode, wait,
};

use super::{Pair, TABLE, metrics, mirrored, rows, wait_for, wait_for_done};

#[test]
fn a_full_queue_drops_and_the_client_goes_on() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("queue_length = 3"));
    let mut locked = pair.mirror.client();
    locked.run("begin");
    locked.run("lock table t");
    let mut client = proxy.client("pgdog", pair.source.name());
    let metrics = metrics(&proxy);
    client.run("insert into t (v) values ('0')");
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(1, "wait_event_type = 'Lock'");
    for number in 1..50 {
        client.run(&format!("insert into t (v) values ('{number}')"));
    }
    let full = wait_for(&metrics, |c| c.total == 50);
    assert_eq!(
        (full.queued, full.dropped, full.mirrored, full.errors),
        (3, 46, 0, 0)
    );
    locked.run("commit");
    let done = wait_for_done(&metrics, 50);
    assert_eq!((done.mirrored, done.dropped, done.errors), (4, 46, 0));
    assert_eq!(rows(&pair.mirror), "1 0, 2 1, 3 2, 4 3");
    client.run("insert into t (v) values ('again')");
    wait_for_done(&metrics, 51);
    assert!(rows(&pair.mirror).ends_with("5 again"));
}

#[test]
fn a_mirror_that_cannot_be_reached_costs_errors_only() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("openmetrics_port", "0")
        .general("connect_timeout", "200")
        .general("checkout_timeout", "400")
        .database(pair.source.name())
        .database_at("gone", free_port(), &[])
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&mirrored(config, pair.source.name(), "gone", ""));
    let mut client = proxy.client("pgdog", pair.source.name());
    let begun = Instant::now();
    for number in 0..20 {
        client.run("begin");
        client.run(&format!("insert into t (v) values ('{number}')"));
        client.run("commit");
    }
    // One wait for a mirror's connection takes 400 ms.
    assert!(begun.elapsed() < Duration::from_secs(6), "{begun:?}");
    let metrics = metrics(&proxy);
    let seen = wait_for(&metrics, |c| c.errors >= 2);
    assert_eq!((seen.mirrored, seen.dropped), (0, 0));
    assert_eq!(
        Postgres::shared().value(pair.source.name(), "select count(*) from t"),
        "20"
    );
}

#[test]
fn a_mirror_that_comes_back_is_served_again() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let other = Postgres::start(&PostgresOptions::default());
    other.run("postgres", "create database other");
    other.run("other", TABLE);
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("openmetrics_port", "0")
        .general("connect_timeout", "500")
        .general("checkout_timeout", "500")
        .database(pair.source.name())
        .database_at("other", other.port(), &[])
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&mirrored(config, pair.source.name(), "other", ""));
    let metrics = metrics(&proxy);
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("insert into t (v) values ('before')");
    wait_for_done(&metrics, 1);
    other.stop(StopMode::Fast);
    client.run("insert into t (v) values ('lost')");
    wait_for(&metrics, |c| c.errors == 1);
    other.start_again();
    let mut tries = 0;
    assert!(
        wait::until(PATIENCE, || {
            client.run("insert into t (v) values ('after')");
            tries += 1;
            let done = wait_for(&metrics, |c| c.total == tries + 2 && c.queued == 0);
            done.mirrored > 1
        }),
        "it is served again"
    );
    assert_eq!(
        other.value("other", "select v from t order by id limit 1"),
        "before"
    );
}

#[test]
fn what_fails_on_the_mirror_only_leaves_nothing_behind() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    pair.mirror
        .run("alter table t add constraint refuses check (v <> 'bad')");
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    // On the mirror the block stays open, and failed.
    client.run("begin; insert into t (v) values ('bad'); commit");
    client.run("begin");
    client.run("insert into t (v) values ('bad')");
    client.run("insert into t (v) values ('with it')");
    client.run("commit");
    client.transcript(&[
        Message::parse("", "insert into t (v) values ($1)"),
        Message::bind("", &["bad"]),
        Message::execute(),
        Message::bind("", &["with it"]),
        Message::execute(),
        Message::Sync,
    ]);
    client.run("insert into t (v) values ('good')");
    let done = wait_for_done(&metrics(&proxy), 4);
    assert_eq!((done.mirrored, done.dropped, done.errors), (1, 0, 3));
    assert!(rows(&pair.mirror).ends_with(" good"));
    assert_eq!(
        Postgres::shared().value(pair.mirror.name(), "select count(*) from t"),
        "1"
    );
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(0, "state like 'idle in transaction%'");
}

#[test]
fn a_table_that_only_the_mirror_has_does_not_make_it_wait_for_copied_rows() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    pair.mirror.run("create table only_here (v text)");
    pair.mirror
        .run("create function here() returns int language sql begin atomic select 1; end");
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    client.query_error("copy only_here from stdin");
    client.query_error("begin; select here()");
    client.run("rollback");
    client.run("insert into t (v) values ('good')");
    let done = wait_for_done(&metrics(&proxy), 3);
    assert_eq!((done.mirrored, done.dropped, done.errors), (2, 1, 0));
    pair.same_rows();
}
