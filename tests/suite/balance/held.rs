//! Clients whose writes are held because there is no primary: what ends that, beside a primary.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Database, Message, Postgres, Proxy, RawClient, Replicated, StopMode, wait};

use super::{CHECK, Roles, config, wait_readers};

/// A cluster whose primary has gone, and a client whose write is held.
fn held(
    cluster: &Replicated,
    database: &Database<'_>,
    general: &[(&str, &str)],
) -> (Proxy, RawClient) {
    database.run("create table t (a int)");
    cluster.settle();
    let mut config = config(cluster, database.name(), Roles::Auto);
    for (key, value) in general {
        config = config.general(key, value);
    }
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1]);
    let mut client = proxy.client("pgdog", database.name());
    client.run("insert into t values (0)");
    cluster.primary().stop(StopMode::Immediate);
    let mut other = proxy.client("pgdog", database.name());
    let reads = || {
        other
            .query(super::WHO)
            .iter()
            .any(|frame| frame.tag == b'D')
    };
    assert!(wait::until(PATIENCE, reads), "{}", proxy.log());
    client.send(&[Message::query("insert into t values (1)")]);
    assert!(client.receive_byte(CHECK * 5).is_none(), "it is not held");
    (proxy, client)
}

#[test]
fn a_held_write_ends_with_the_time_that_clients_get_after_sigterm() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    let limits = [("hold_timeout", "60000"), ("shutdown_timeout", "1000")];
    let (mut proxy, mut client) = held(&cluster, &database, &limits);
    let begun = Instant::now();
    proxy.signal("TERM");
    let told = lines(&client.until_eof().expect("it is closed"));
    let took = begun.elapsed();
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 57P01")),
        "{told:?}"
    );
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

#[test]
fn a_held_write_ends_with_hold_timeout() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    let (_proxy, mut client) = held(&cluster, &database, &[("hold_timeout", "2000")]);
    let told = lines(&client.until_ready());
    assert!(
        told.first().is_some_and(|line| line.contains("08001")),
        "{told:?}"
    );
    // The next one has all of its time again.
    let begun = Instant::now();
    assert_eq!(client.query_error("insert into t values (1)"), "08001");
    assert!(begun.elapsed() >= Duration::from_millis(1800));
}

#[test]
fn a_cancelled_write_leaves_the_next_one_all_of_its_time() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    let (proxy, mut client) = held(&cluster, &database, &[("hold_timeout", "3000")]);
    let key = client.cancel_request().expect("it has a key");
    RawClient::open(proxy.port())
        .expect("the proxy accepts")
        .send(&[key]);
    let told = lines(&client.until_ready());
    assert!(
        told.first().is_some_and(|line| line.contains("57014")),
        "{told:?}"
    );
    let begun = Instant::now();
    assert_eq!(client.query_error("insert into t values (1)"), "08001");
    assert!(begun.elapsed() >= Duration::from_millis(2800));
}

#[test]
fn a_client_that_leaves_while_its_write_is_held_is_gone_at_once() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(1);
    let database = cluster.fresh_database();
    let limits = [("hold_timeout", "60000"), ("shutdown_timeout", "60000")];
    let (mut proxy, client) = held(&cluster, &database, &limits);
    drop(client);
    // Nobody is there that would have to be waited for.
    proxy.signal("TERM");
    assert_eq!(
        proxy.wait(Duration::from_secs(15)),
        Some(0),
        "{}",
        proxy.log()
    );
}
