//! Drain: who is idle goes, who works may finish and hears it with an answer.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Activity, Message, Postgres, Proxy, RawClient, Received, wait};

use super::config;

fn told_to_go(client: &mut RawClient, what: &str) {
    let told = lines(
        &client
            .until_eof()
            .unwrap_or_else(|| panic!("{what}: not closed")),
    );
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 57P01")),
        "{what}: {told:?}"
    );
}

#[test]
fn idle_clients_go_and_transactions_finish() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    for signal in ["TERM", "INT"] {
        let mut proxy = Proxy::start(&config(&database).general("shutdown_timeout", "30000"));
        let mut activity = Activity::of(Postgres::shared(), &database);
        let mut idle = proxy.client("pgdog", database.name());
        let mut pinned = proxy.client("pgdog", database.name());
        let mut inside = proxy.client("pgdog", database.name());
        let mut running = proxy.client("pgdog", database.name());
        pinned.run("create temp table x (a int)");
        inside.run("begin; insert into t values (1)");
        running.send(&[Message::query("select pg_sleep(1), 'finished'")]);
        activity.wait(1, "state = 'active'");
        proxy.signal(signal);
        told_to_go(&mut idle, "idle");
        told_to_go(&mut pinned, "pinned and idle");
        assert!(
            wait::until(PATIENCE, || TcpStream::connect(("127.0.0.1", proxy.port()))
                .is_err()),
            "{signal}: it still listens"
        );
        // The transaction goes on, over as many queries as it takes.
        inside.run("insert into t values (2)");
        let told = lines(&inside.query("commit"));
        assert_eq!(
            told.first().map(String::as_str),
            Some("C COMMIT"),
            "{signal}: {told:?}"
        );
        told_to_go(&mut inside, "after its transaction");
        let told = lines(&running.until_eof().expect("it is closed"));
        assert!(
            told.iter().any(|line| line.contains("finished")),
            "{signal}: {told:?}"
        );
        assert!(
            told.last()
                .is_some_and(|line| line.starts_with("E FATAL 57P01")),
            "{signal}: {told:?}"
        );
        assert_eq!(proxy.wait(PATIENCE), Some(0), "{signal}");
        activity.wait(0, "true");
    }
    assert_eq!(database.client().query_value("select count(*) from t"), "4");
}

/// Asks again and again until it is told to go, and says how often it was answered.
fn asks_until_told(mut client: RawClient) -> usize {
    for answered in 0.. {
        let told = lines(&client.query("select 1"));
        assert_eq!(
            told.last().map(String::as_str),
            Some("Z I"),
            "after {answered} answers: {told:?}"
        );
        // What comes in one breath with an answer is known before the next question.
        match client.receive(Duration::from_micros(1)) {
            Received::Silence => {}
            Received::Frame(frame) => {
                let told = lines(&[frame]);
                assert!(told[0].starts_with("E FATAL 57P01"), "{told:?}");
                client.until_eof().expect("it is closed");
                return answered + 1;
            }
            Received::Eof => panic!("closed without a word after {answered} answers"),
        }
    }
    unreachable!("it never ends by itself")
}

#[test]
fn who_is_at_work_hears_it_with_an_answer_and_no_question_goes_unanswered() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = proxy.client("pgdog", database.name());
            std::thread::spawn(move || asks_until_told(client))
        })
        .collect();
    proxy.terminate();
    for client in clients {
        assert!(client.join().expect("all is answered") > 0);
    }
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

#[test]
fn what_does_not_finish_in_time_is_ended_in_postgres_too() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    // The second leaves a busy machine the time that a cancellation takes: a connection of its own.
    for termination in [None, Some("5000")] {
        let config = config(&database).general("shutdown_timeout", "500");
        let config = termination.iter().fold(config, |config, limit| {
            config.general("shutdown_termination_timeout", limit)
        });
        let mut proxy = Proxy::start(&config);
        let mut activity = Activity::of(Postgres::shared(), &database);
        let mut inside = proxy.client("pgdog", database.name());
        let mut running = proxy.client("pgdog", database.name());
        inside.run("begin");
        running.send(&[Message::query("select pg_sleep(60)")]);
        activity.wait(1, "state = 'active'");
        let start = Instant::now();
        proxy.terminate();
        told_to_go(&mut inside, "in a transaction");
        let told = lines(&running.until_eof().expect("it is closed"));
        assert!(
            told.last()
                .is_some_and(|line| line.starts_with("E FATAL 57P01")),
            "{termination:?}: {told:?}"
        );
        if termination.is_some() {
            assert!(
                told.iter().any(|line| line.starts_with("E ERROR 57014")),
                "its query is cancelled first: {told:?}"
            );
        }
        assert!(
            start.elapsed() >= Duration::from_millis(400),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(proxy.wait(PATIENCE), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
        activity.wait(0, "true");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    for signals in [["TERM", "TERM"], ["INT", "TERM"], ["TERM", "INT"]] {
        let mut proxy = Proxy::start(&config(&database));
        let mut inside = proxy.client("pgdog", database.name());
        inside.run("begin");
        proxy.signal(signals[0]);
        assert!(
            wait::until(PATIENCE, || proxy.log().contains("shutting down")),
            "{signals:?}"
        );
        assert_eq!(inside.query_value("select 1"), "1");
        assert!(wait::until(PATIENCE, || TcpStream::connect((
            "127.0.0.1",
            proxy.port()
        ))
        .is_err()));
        let start = Instant::now();
        proxy.signal(signals[1]);
        assert_eq!(proxy.wait(PATIENCE), Some(0), "{signals:?}");
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{signals:?}: {:?}",
            start.elapsed()
        );
        inside.until_eof().expect("it is closed");
    }
    Activity::of(Postgres::shared(), &database).wait(0, "true");
}

#[test]
fn without_clients_it_ends_at_once() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database).general("min_pool_size", "2"));
    Activity::of(Postgres::shared(), &database).wait(2, "true");
    // One that is still logging in keeps nobody.
    let _silent = RawClient::open(proxy.port()).expect("the proxy accepts");
    let start = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert!(
        proxy.log().contains("open files"),
        "the limit on open files is reported"
    );
}
