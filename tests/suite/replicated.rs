//! The harness' replication, its faulty network and its ledger keep their promises: without a proxy.

use std::thread;
use std::time::{Duration, Instant};

use pgdog_tests::ledger::{Kind, Outcome};
use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Cut, Fence, Ledger, Load, Message, Postgres, RawClient, Received, Replicated, wait,
};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn replicas_replay_what_the_primary_writes_and_refuse_to_write() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t as select generate_series(1, 1000) as a");
    cluster.settle();
    for number in cluster.others() {
        let mut client = cluster.client(number, database.name());
        assert_eq!(client.query_value("select count(*) from t"), "1000");
        assert_eq!(client.query_error("insert into t values (1)"), "25006");
        let port = client.query_value("select current_setting('port')");
        assert_eq!(port, cluster.port(number).to_string());
    }
}

#[test]
fn a_replica_that_does_not_replay_falls_behind_and_catches_up() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    cluster.pause_replay(1);
    cluster
        .primary()
        .run("postgres", "create table t as select 1 as a");
    let behind = cluster.lsn(0) - cluster.lsn(1);
    assert!(behind > 0, "{behind}");
    assert_eq!(
        cluster
            .host(1)
            .value("postgres", "select to_regclass('t') is null"),
        "t"
    );
    cluster.resume_replay(1);
    cluster.wait_replayed(1);
    assert_eq!(cluster.host(1).value("postgres", "select a from t"), "1");
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    cluster
        .primary()
        .run("postgres", "create table t as select 1 as a");
    cluster.settle();
    cluster.kill(0);
    assert!(RawClient::try_login(cluster.port(0), "pgdog", "postgres").is_err());
    let next = cluster.most_advanced();
    cluster.promote(next);
    let other = 3 - next;
    cluster.follow(other);
    cluster
        .primary()
        .run("postgres", "insert into t values (2)");
    cluster.rejoin(0);
    cluster.settle();
    for number in [0, other] {
        let host = cluster.host(number);
        assert_eq!(host.value("postgres", "select sum(a) from t"), "3");
        assert_eq!(host.value("postgres", "select pg_is_in_recovery()"), "t");
    }
    // A killed host may as well just start again.
    cluster.kill(other);
    cluster.start_again(other);
    cluster.wait_replayed(other);
}

#[test]
fn a_frozen_host_hangs_and_goes_on() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let mut client = cluster.client(1, "postgres");
    cluster.freeze(1);
    client.send(&[Message::query("select 1")]);
    // The kernel takes new connections on its behalf, and nobody answers those either.
    let mut other = RawClient::open(cluster.port(1)).expect("the kernel accepts");
    other.send(&[Message::startup(&[
        ("user", "pgdog"),
        ("database", "postgres"),
    ])]);
    assert_eq!(client.receive(millis(300)), Received::Silence);
    assert_eq!(other.receive(millis(300)), Received::Silence);
    cluster.thaw(1);
    assert_eq!(
        client.until_ready().last().and_then(|f| f.status()),
        Some('I')
    );
    assert_eq!(
        other.until_ready().last().and_then(|f| f.status()),
        Some('I')
    );
}

#[test]
fn a_frozen_cluster_ends_with_its_value() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let data: Vec<_> = [0, 1].map(|n| cluster.host(n).data_directory()).into();
    cluster.freeze(0);
    cluster.freeze(1);
    drop(cluster);
    assert!(data.iter().all(|data| !data.exists()));
}

#[test]
fn a_fenced_primary_writes_nothing_more() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let primary = cluster.primary();
    primary.run("postgres", "create table t (a int)");
    let mut old = cluster.client(0, "postgres");
    old.run("begin; insert into t values (1)");
    cluster.fence(0, Fence::ReadOnly);
    old.send(&[Message::query("commit")]);
    assert!(old.until_eof().is_some(), "it is closed");
    let mut new = cluster.client(0, "postgres");
    assert_eq!(new.query_error("insert into t values (2)"), "25006");
    cluster.unfence(0);
    cluster
        .client(0, "postgres")
        .run("insert into t values (3)");
    assert_eq!(primary.value("postgres", "select sum(a) from t"), "3");
}

#[test]
fn a_primary_whose_disk_is_full_refuses_writes_and_answers_reads() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(0);
    let primary = cluster.primary();
    primary.run("postgres", "create table t (a text)");
    let write = "insert into t select repeat('x', 1000) from generate_series(1, 30000)";
    cluster.fill_disk(0);
    let mut client = cluster.client(0, "postgres");
    let refused = client.query_error(write);
    assert_ne!(refused, "");
    assert_eq!(client.query_value("select 1"), "1");
    cluster.empty_disk(0);
    client.run(write);
}

/// A server and an open way to it.
fn way() -> Cut {
    Cut::before(Postgres::shared().port())
}

#[test]
fn a_way_is_cut_refused_and_opened_again() {
    if !Postgres::installed() {
        return;
    }
    let mut way = way();
    let mut client = RawClient::login(way.port(), "pgdog", "postgres");
    assert_eq!(client.query_value("select 1"), "1");
    assert_eq!((way.connections(), way.accepted()), (1, 1));
    way.cut();
    assert_eq!(client.receive(PATIENCE), Received::Eof);
    assert!(wait::until(PATIENCE, || way.connections() == 0));
    assert_eq!(
        RawClient::login(way.port(), "pgdog", "postgres").query_value("select 2"),
        "2"
    );
    way.refuse();
    assert!(RawClient::open(way.port()).is_err());
    way.open();
    assert_eq!(
        RawClient::login(way.port(), "pgdog", "postgres").query_value("select 3"),
        "3"
    );
}

#[test]
fn a_cut_connection_is_reset_and_not_closed_politely() {
    if !Postgres::installed() {
        return;
    }
    use std::io::{ErrorKind, Read};
    let way = way();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", way.port())).expect("it accepts");
    assert!(wait::until(PATIENCE, || way.connections() == 1));
    // Nothing was asked, so a byte or a polite end can only be wrong.
    thread::sleep(millis(50));
    way.cut();
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let error = stream.read(&mut [0]).expect_err("no polite end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_black_hole_swallows_until_it_is_opened() {
    if !Postgres::installed() {
        return;
    }
    let mut way = way();
    let mut client = RawClient::login(way.port(), "pgdog", "postgres");
    way.blackhole();
    client.send(&[Message::query("select 1")]);
    let mut other = RawClient::open(way.port()).expect("it accepts");
    other.send(&[Message::startup(&[
        ("user", "pgdog"),
        ("database", "postgres"),
    ])]);
    assert_eq!(client.receive(millis(200)), Received::Silence);
    assert_eq!(other.receive(millis(200)), Received::Silence);
    way.open();
    for client in [&mut client, &mut other] {
        assert_eq!(
            client.until_ready().last().and_then(|f| f.status()),
            Some('I')
        );
    }
}

#[test]
fn a_slow_way_takes_its_time_in_both_directions() {
    if !Postgres::installed() {
        return;
    }
    let mut way = way();
    let mut client = RawClient::login(way.port(), "pgdog", "postgres");
    way.delay(millis(50));
    let start = Instant::now();
    assert_eq!(client.query_value("select 1"), "1");
    assert!(start.elapsed() >= millis(100), "{:?}", start.elapsed());
}

#[test]
fn the_ledger_finds_what_is_lost_and_what_is_too_much() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    Ledger::prepare(postgres, database.name());
    let ledger = Ledger::start(postgres.port(), database.name(), Load::default());
    ledger.wait_writes(60);
    ledger.wait_reads(60);
    let book = ledger.stop();
    let text = book.summary();
    assert_eq!(book.failed_reads().len(), 0, "{text}");
    assert_eq!(book.failed_writes().len(), 0, "{text}");
    assert_eq!(book.stale_reads().len(), 0, "{text}");
    assert_eq!(book.acknowledged_but_missing(postgres), []);
    let writes = book.acknowledged().count();
    assert_eq!(book.writes_on(postgres.port()), writes);
    assert!(writes >= 60 && book.answered().count() >= 60, "{text}");
    // Of each way to write, one is lost.
    for (client, number) in [(0, 1), (1, 2), (2, 3)] {
        database.run(&format!(
            "delete from ledger where client = {client} and number = {number}"
        ));
    }
    let missing = book.acknowledged_but_missing(postgres);
    assert_eq!(missing.len(), 3, "{missing:?}");
    // And one is there that was refused.
    let mut forged = book;
    let entry = forged
        .entries
        .iter_mut()
        .find(|e| e.client == 0 && e.kind == Kind::Write(2))
        .expect("it was written");
    entry.outcome = Outcome::Failed {
        code: "25006".to_owned(),
        text: String::new(),
    };
    assert_eq!(forged.refused_but_present(postgres), [(0, 2)]);
}

#[test]
fn the_ledger_finds_a_read_that_is_behind_its_own_write() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let load = Load {
        readers: 0,
        ..Load::default()
    };
    let ledger = Ledger::start(cluster.port(0), database.name(), load);
    ledger.wait_writes(20);
    let mut book = ledger.stop();
    assert_eq!(book.stale_reads().len(), 0);
    for entry in &mut book.entries {
        if let Outcome::Answered { seen, .. } = &mut entry.outcome {
            *seen -= 1;
            break;
        }
    }
    assert_eq!(book.stale_reads().len(), 1);
}

#[test]
fn a_switchover_loses_nothing_that_was_acknowledged() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let ledger = Ledger::start(cluster.port(0), database.name(), Load::default());
    ledger.wait_writes(40);
    let switchover = cluster.switch_over(1, Fence::ReadOnly);
    ledger.wait_reads(20);
    let book = ledger.stop();
    let text = book.summary();
    assert_eq!(
        book.writes_on_after(cluster.port(0), switchover.fenced),
        0,
        "{text}"
    );
    assert_eq!(
        book.acknowledged_but_missing(cluster.primary()),
        [],
        "{text}"
    );
    assert_eq!(book.refused_but_present(cluster.primary()), [], "{text}");
    // Nobody sits between, so the clients do see it.
    assert!(!book.failed_writes().is_empty(), "{text}");
    assert!(switchover.gap() < Duration::from_secs(10), "{switchover:?}");
    // The old primary can come back, and the third has followed.
    cluster.rejoin(0);
    cluster.settle();
    for number in [0, 2] {
        assert_eq!(
            book.acknowledged_but_missing(cluster.host(number)),
            [],
            "host {number}"
        );
    }
}

#[test]
fn a_synchronous_cluster_loses_nothing_to_a_kill() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    cluster.make_synchronous();
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let ledger = Ledger::start(cluster.port(0), database.name(), Load::default());
    ledger.wait_writes(40);
    cluster.kill(0);
    let book = ledger.stop();
    let next = cluster.most_advanced();
    cluster.promote(next);
    cluster.follow(3 - next);
    let text = book.summary();
    assert_eq!(
        book.acknowledged_but_missing(cluster.primary()),
        [],
        "{text}"
    );
    assert!(!book.failed_connects().is_empty(), "{text}");
}
