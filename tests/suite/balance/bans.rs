//! Hosts that die, hang or are cut off are left out, and come back.

use std::time::{Duration, Instant};

use pgdog_tests::{Cut, Ledger, Load, Postgres, Proxy, Replicated};

use super::{
    CHECK, CHECK_TIMEOUT, Roles, WHO, behind_cuts, config, host_of, readers, wait_readers,
};

/// When a host that hangs must have been noticed: a check that has just begun, one more, and a busy machine.
const NOTICED: Duration =
    Duration::from_millis((CHECK.as_millis() as u64 + CHECK_TIMEOUT.as_millis() as u64) * 3 + 1000);

/// What can be wrong with the way to a host.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Refused,
    Black,
    Reset,
}

fn cause(trouble: Trouble, way: &mut Cut) {
    match trouble {
        Trouble::Refused => way.refuse(),
        Trouble::Black => way.blackhole(),
        Trouble::Reset => way.cut(),
    }
}

fn a_replica_in_trouble_is_left_out_until_it_is_back(trouble: Trouble) {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    let proxy = Proxy::start(&config.general("read_write_split", "\"exclude_primary\""));
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let ledger = Ledger::start(proxy.port(), database.name(), Load::default());
    ledger.wait_reads(100);
    let troubled = Instant::now();
    cause(trouble, &mut ways[2]);
    wait_readers(cluster, &proxy, database.name(), &[1, 3]);
    ledger.wait_reads(100);
    let left_out = Instant::now();
    ledger.wait_reads(100);
    let healed = Instant::now();
    ways[2].open();
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    ledger.wait_reads(100);
    let book = ledger.stop();
    let text = book.summary();
    // Writes have nothing to do with it.
    assert_eq!(book.failed_writes().len(), 0, "{trouble:?}: {text}");
    // A read that was under way there may have failed, but no other one.
    let late = book
        .failed_reads()
        .into_iter()
        .find(|e| e.sent > troubled + NOTICED);
    assert!(late.is_none(), "{trouble:?}: {late:?}: {text}");
    let while_out = book.reads_between(Some(left_out), Some(healed));
    assert!(
        !while_out.contains_key(&cluster.port(2)),
        "{trouble:?}: {while_out:?}"
    );
    assert!(
        book.slowest_read() < NOTICED + Duration::from_secs(1),
        "{trouble:?}: {text}"
    );
    assert_eq!(book.acknowledged_but_missing(cluster.primary()), []);
}

#[test]
fn a_replica_that_refuses_is_left_out_until_it_is_back() {
    a_replica_in_trouble_is_left_out_until_it_is_back(Trouble::Refused);
}

#[test]
fn a_replica_that_hangs_is_left_out_until_it_is_back() {
    a_replica_in_trouble_is_left_out_until_it_is_back(Trouble::Black);
}

#[test]
fn connections_that_are_reset_fail_nobody_but_who_was_on_them() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    let proxy = Proxy::start(&config.general("read_write_split", "\"exclude_primary\""));
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let load = Load::default();
    let ledger = Ledger::start(proxy.port(), database.name(), load);
    ledger.wait_reads(100);
    cause(Trouble::Reset, &mut ways[1]);
    ledger.wait_reads(200);
    let book = ledger.stop();
    let text = book.summary();
    let most = (load.readers + load.writers) as usize;
    assert!(book.failed_reads().len() <= most, "{text}");
    assert_eq!(book.failed_writes().len(), 0, "{text}");
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
}

#[test]
fn a_killed_and_a_frozen_replica_are_left_out() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    let database = cluster.fresh_database();
    let config = config(&cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
    cluster.freeze(1);
    wait_readers(&cluster, &proxy, database.name(), &[2]);
    cluster.thaw(1);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
    cluster.kill(2);
    wait_readers(&cluster, &proxy, database.name(), &[1]);
    cluster.start_again(2);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
}

#[test]
fn the_primary_helps_out_when_a_replica_is_banned() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    let split = "\"include_primary_if_replica_banned\"";
    let proxy = Proxy::start(&config.general("read_write_split", split));
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    ways[1].refuse();
    wait_readers(cluster, &proxy, database.name(), &[0, 2, 3]);
    ways[1].open();
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
}

#[test]
fn when_all_are_banned_none_is() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    // Nobody would come back by the time alone.
    let config = config
        .general("read_write_split", "\"exclude_primary\"")
        .general("ban_timeout", "600000")
        .general("checkout_timeout", "1000");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    for way in &mut ways[1..] {
        way.refuse();
    }
    let gone = || readers(cluster, &proxy, database.name()).is_empty();
    assert!(pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, gone));
    // Writes know nothing of it.
    let mut client = proxy.client("pgdog", database.name());
    client.run("create table t (a int)");
    for way in &mut ways[1..] {
        way.open();
    }
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
}

#[test]
fn the_primary_is_never_banned_for_writes() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t (a int)");
    cluster.settle();
    let (mut ways, config) = behind_cuts(cluster, database.name(), Roles::Fixed);
    let config = config
        .general("ban_timeout", "600000")
        .general("checkout_timeout", "1000")
        .general("hold_timeout", "500");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    client.run("insert into t values (1)");
    ways[0].refuse();
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    client.query_error("insert into t values (2)");
    ways[0].open();
    let written = || {
        let frames = client.query("insert into t values (3)");
        !frames.iter().any(|frame| frame.tag == b'E')
    };
    assert!(pgdog_tests::wait::until(
        pgdog_tests::raw::PATIENCE,
        written
    ));
}

#[test]
fn checks_do_not_wait_behind_traffic() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"")
        .pool_size(1);
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    // All servers of all replicas are taken for longer than any check may take.
    let mut busy: Vec<_> = (0..3)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    let mut hosts = Vec::new();
    for client in &mut busy {
        client.run("begin read only");
        hosts.push(host_of(cluster, client, WHO));
    }
    hosts.sort_unstable();
    assert_eq!(hosts, [1, 2, 3]);
    std::thread::sleep(NOTICED);
    busy.iter_mut().for_each(|client| client.run("commit"));
    // Nobody was banned for it, so all are there at once.
    assert_eq!(readers(cluster, &proxy, database.name()), [1, 2, 3]);
}
