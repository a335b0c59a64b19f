//! A stream has no end of its own: a drain ends it between two messages, and never waits for it.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, PostgresOptions, Proxy, RawClient, Received, wait};

use super::{config, walsender};

const START: &str = "START_REPLICATION SLOT s LOGICAL 0/0 (\"skip-empty-xacts\" '1')";

/// A Postgres with a slot whose changes are long, and more of them to come than any buffer takes.
fn busy() -> Postgres {
    let postgres = Postgres::start(&PostgresOptions::default());
    postgres.run("postgres", "create table t (a text)");
    postgres.run(
        "postgres",
        "select pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    postgres.run(
        "postgres",
        "insert into t select repeat(md5(i::text), 10000) from generate_series(1, 200) i",
    );
    postgres
}

fn stream(proxy: &Proxy) -> RawClient {
    let mut client = walsender(proxy);
    client.send(&[Message::query(START)]);
    assert!(
        matches!(client.receive(PATIENCE), Received::Frame(frame) if frame.tag == b'W'),
        "it streams"
    );
    client
}

#[test]
fn it_is_told_between_two_messages() {
    if !Postgres::installed() {
        return;
    }
    let postgres = busy();
    let mut proxy = Proxy::start(&config(&postgres));
    let mut busy = stream(&proxy);
    let mut idle = walsender(&proxy);
    let begun = Instant::now();
    proxy.terminate();
    // Whole messages up to the last one: a reader that is cut short would see something else.
    for (client, what) in [(&mut idle, "idle"), (&mut busy, "busy")] {
        let frames = client.until_eof().expect("it is closed");
        let last = frames.last().map(pgdog_tests::Frame::line);
        assert!(
            last.as_ref()
                .is_some_and(|line| line.starts_with("E FATAL 57P01")),
            "{what}: {last:?}"
        );
        let tags: Vec<_> = frames.iter().map(|frame| frame.tag).collect();
        assert!(
            tags[..tags.len() - 1].iter().all(|tag| *tag == b'd'),
            "{what}: {tags:?}"
        );
    }
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn one_that_does_not_listen_is_cut_off_when_the_time_is_over() {
    if !Postgres::installed() {
        return;
    }
    let postgres = busy();
    let mut proxy = Proxy::start(&config(&postgres).general("shutdown_timeout", "500"));
    let _deaf = stream(&proxy);
    // The sockets are full when the server waits for its client.
    assert!(wait::until(PATIENCE, || {
        postgres.value(
            "postgres",
            "select count(*) from pg_stat_activity where backend_type = 'walsender' and wait_event = 'WalSenderWriteData'",
        ) == "1"
    }));
    let begun = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(6),
        "{took:?}"
    );
}
