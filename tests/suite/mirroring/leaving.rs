//! Clients that leave, configurations that change, and the end of the proxy.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Activity, Message, Postgres, Proxy, ProxyConfig, wait};

use super::{Pair, metrics, rows, wait_for, wait_for_done};

fn reload(proxy: &Proxy, config: &ProxyConfig) {
    let done = || proxy.log().matches("configuration reloaded").count();
    let before = done();
    proxy.write_config(config);
    proxy.reload();
    assert!(
        wait::until(PATIENCE, || done() > before),
        "no reload:\n{}",
        proxy.log()
    );
}

#[test]
fn what_a_client_did_before_it_left_arrives_and_what_it_left_open_does_not() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("insert into t (v) values ('done')");
    client.send(&[
        Message::query("insert into t (v) values ('in one breath')"),
        Message::Terminate,
    ]);
    client.until_eof();
    let mut other = proxy.client("pgdog", pair.source.name());
    other.run("begin");
    other.run("insert into t (v) values ('open')");
    drop(other);
    wait_for_done(&metrics(&proxy), 2);
    assert_eq!(rows(&pair.mirror), "1 done, 2 in one breath");
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(0, "state <> 'idle'");
}

#[test]
fn mirrors_follow_the_configuration() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.bare());
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("insert into t (v) values ('not yet')");
    reload(&proxy, &pair.config(""));
    client.run("insert into t (v) values ('first')");
    client.run("insert into t (v) values ('second')");
    wait_for_done(&metrics(&proxy), 2);
    reload(&proxy, &pair.config("level = \"ddl\""));
    client.run("insert into t (v) values ('no ddl')");
    client.run("alter table t add w text");
    let seen = wait_for_done(&metrics(&proxy), 3);
    assert_eq!((seen.total, seen.mirrored), (4, 3));
    reload(&proxy, &pair.bare());
    client.run("alter table t drop w");
    client.run("insert into t (v) values ('no more')");
    reload(&proxy, &pair.config(""));
    client.run("insert into t (v) values ('last')");
    let seen = wait_for_done(&metrics(&proxy), 4);
    assert_eq!((seen.total, seen.mirrored, seen.errors), (5, 4, 0));
    assert_eq!(rows(&pair.mirror), "1 first, 2 second, 3 last");
}

#[test]
fn a_drain_does_not_wait_for_a_mirror() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let mut proxy = Proxy::start(&pair.config(""));
    let mut locked = pair.mirror.client();
    locked.run("begin");
    locked.run("lock table t");
    let mut client = proxy.client("pgdog", pair.source.name());
    for _ in 0..5 {
        client.run("insert into t (v) values ('x')");
    }
    wait_for(&metrics(&proxy), |c| c.queued == 4);
    let begun = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{begun:?}");
    locked.run("commit");
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(1, "true");
}

#[test]
fn a_mirror_that_hangs_is_left_some_time_after_its_client() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("").general("rollback_timeout", "500"));
    let mut locked = pair.mirror.client();
    locked.run("begin");
    locked.run("lock table t");
    let mut client = proxy.client("pgdog", pair.source.name());
    for _ in 0..5 {
        client.run("insert into t (v) values ('x')");
    }
    client.goodbye();
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(1, "wait_event_type = 'Lock'");
    let limit = Duration::from_secs(30);
    let metrics = metrics(&proxy);
    let gone = || {
        let now = super::counters(&metrics);
        (now.queued, now.dropped, now.errors) == (0, 4, 1)
    };
    assert!(wait::until(limit, gone), "{:?}", super::counters(&metrics));
    mirror.wait(0, "wait_event_type = 'Lock'");
    locked.run("rollback");
    assert_eq!(rows(&pair.mirror), "");
}
