//! A client reads what it has written itself.

use pgdog_tests::{Book, Ledger, Load, Postgres, Proxy, Replicated};

use super::{Roles, config, wait_readers};

/// The book of a load, the last part of which ran while no replica replayed.
fn book(option: &str) -> (Book, Vec<u16>) {
    let cluster = Replicated::start(2);
    let database = cluster.fresh_database();
    Ledger::prepare(cluster.primary(), database.name());
    cluster.settle();
    let config = config(&cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"")
        .general("read_your_writes", &format!("\"{option}\""))
        .general("read_your_writes_timeout", "100");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, database.name(), &[1, 2]);
    let load = Load {
        own_reads: 3,
        ..Load::default()
    };
    let ledger = Ledger::start(proxy.port(), database.name(), load);
    ledger.wait_writes(100);
    cluster.pause_replay(1);
    cluster.pause_replay(2);
    ledger.wait_writes(60);
    cluster.resume_replay(1);
    ledger.wait_writes(60);
    cluster.resume_replay(2);
    ledger.wait_writes(60);
    let book = ledger.stop();
    let text = book.summary();
    assert_eq!(book.failed_reads().len(), 0, "{option}: {text}");
    assert_eq!(book.failed_writes().len(), 0, "{option}: {text}");
    assert_eq!(book.acknowledged_but_missing(cluster.primary()), []);
    (book, vec![cluster.port(1), cluster.port(2)])
}

#[test]
fn without_the_option_a_read_may_be_behind() {
    if !Postgres::installed() {
        return;
    }
    let (book, _) = book("off");
    // This is what the other two must not have.
    assert!(!book.stale_reads().is_empty(), "{}", book.summary());
}

#[test]
fn reads_after_an_own_write_stay_on_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let (book, replicas) = book("primary");
    assert_eq!(book.stale_reads().len(), 0, "{}", book.summary());
    // Who writes nothing still reads from replicas.
    let reads = book.reads_by_host();
    assert!(
        replicas.iter().all(|port| reads.contains_key(port)),
        "{reads:?}"
    );
}

#[test]
fn reads_after_an_own_write_go_to_a_replica_that_has_replayed_it() {
    if !Postgres::installed() {
        return;
    }
    let (book, replicas) = book("replayed");
    assert_eq!(book.stale_reads().len(), 0, "{}", book.summary());
    let own = book.answered().filter(|e| e.own.is_some_and(|own| own > 0));
    let host = |e: &&pgdog_tests::ledger::Entry| match e.outcome {
        pgdog_tests::ledger::Outcome::Answered { host, .. } => replicas.contains(&host),
        _ => false,
    };
    assert!(own.filter(host).count() > 0, "{}", book.summary());
}
