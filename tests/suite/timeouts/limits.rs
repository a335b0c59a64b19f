//! Limits on the time of clients.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{
    Activity, Database, Frame, Message, Postgres, Proxy, ProxyConfig, RawClient, Received,
};

fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(2)
        .database(database.name())
        .user("pgdog", "pgdog")
}

fn last_words(client: &mut RawClient) -> (String, Duration) {
    let start = Instant::now();
    let frames = client.until_eof().expect("it is closed");
    (
        frames
            .last()
            .map_or_else(|| "nothing".to_owned(), Frame::line),
        start.elapsed(),
    )
}

fn assert_in_time(what: &str, took: Duration, limit: u64) {
    assert!(
        took >= Duration::from_millis(limit / 2),
        "{what}: after {took:?} already"
    );
    assert!(
        took < Duration::from_millis(limit + 3000),
        "{what}: only after {took:?}"
    );
}

#[test]
fn a_query_that_takes_too_long_ends_with_its_client() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("query_timeout", "500"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut client = proxy.client("pgdog", database.name());
    client.run("select pg_sleep(0.1)");
    client.run("begin");
    std::thread::sleep(Duration::from_millis(700));
    client.run("select 1");
    client.run("commit");
    client.send(&[Message::query("select pg_sleep(60)")]);
    let (told, took) = last_words(&mut client);
    assert!(
        told.starts_with("E FATAL 57014") && told.contains("query_timeout"),
        "{told}"
    );
    assert_in_time("query", took, 500);
    activity.wait(0, "state = 'active'");
    assert_eq!(
        proxy
            .client("pgdog", database.name())
            .query_value("select 1"),
        "1"
    );
}

#[test]
fn an_idle_client_is_sent_away_and_a_busy_one_is_not() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("client_idle_timeout", "500"));
    let mut inside = proxy.client("pgdog", database.name());
    let mut running = proxy.client("pgdog", database.name());
    inside.run("begin");
    running.send(&[Message::query("select pg_sleep(1.5)")]);
    let mut idle = proxy.client("pgdog", database.name());
    let (told, took) = last_words(&mut idle);
    assert!(told.starts_with("E FATAL 57P05"), "{told}");
    assert_in_time("idle", took, 500);
    assert_eq!(
        lines(&running.until_ready()).last().map(String::as_str),
        Some("Z I")
    );
    assert_eq!(
        inside.query_value("select 1"),
        "1",
        "idle in a transaction is another limit"
    );
    inside.run("commit");
}

#[test]
fn a_client_idle_in_a_transaction_is_sent_away_and_its_work_undone() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let proxy =
        Proxy::start(&config(&database).general("client_idle_in_transaction_timeout", "500"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut idle = proxy.client("pgdog", database.name());
    let mut running = proxy.client("pgdog", database.name());
    let mut client = proxy.client("pgdog", database.name());
    client.run("begin; insert into t values (1)");
    running.send(&[Message::query("begin; select pg_sleep(1.2); commit")]);
    let (told, took) = last_words(&mut client);
    assert!(told.starts_with("E FATAL 25P03"), "{told}");
    assert_in_time("idle in transaction", took, 500);
    activity.wait(0, "state like 'idle in transaction%'");
    assert_eq!(
        lines(&running.until_ready()).last().map(String::as_str),
        Some("Z I")
    );
    assert_eq!(idle.query_value("select count(*) from t"), "0");
}

#[test]
fn a_transaction_that_takes_too_long_is_ended_even_when_it_is_busy() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let proxy = Proxy::start(&config(&database).general("transaction_timeout", "700"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut client = proxy.client("pgdog", database.name());
    for _ in 0..10 {
        client.run("select pg_sleep(0.1)");
    }
    let start = Instant::now();
    client.run("begin; insert into t values (1)");
    let error = loop {
        let frames = client.query("select pg_sleep(0.02)");
        match frames.into_iter().find(|frame| frame.tag == b'E') {
            Some(error) => break error.line(),
            None => assert!(start.elapsed() < PATIENCE, "it is never ended"),
        }
    };
    assert!(
        error.starts_with("E FATAL 25P04") || error.starts_with("E ERROR 57014"),
        "{error}"
    );
    assert_in_time("transaction", start.elapsed(), 700);
    activity.wait(0, "state <> 'idle'");
    assert_eq!(
        proxy
            .client("pgdog", database.name())
            .query_value("select count(*) from t"),
        "0"
    );
}

#[test]
fn a_login_that_takes_too_long_is_ended_at_every_stage() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database)
        .general("auth_type", "\"scram\"")
        .general("client_login_timeout", "500");
    let proxy = Proxy::start(&config);
    let startup = Message::startup(&[("user", "pgdog"), ("database", database.name())]);
    let stages: [&[Message]; 4] = [
        &[],
        &[Message::Raw(vec![0, 0])],
        &[Message::SslRequest],
        &[startup],
    ];
    let mut clients = stages.map(|messages| {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send(messages);
        client
    });
    assert_eq!(clients[2].receive_byte(PATIENCE), Some(b'N'));
    assert!(matches!(clients[3].receive(PATIENCE), Received::Frame(frame) if frame.tag == b'R'));
    for (stage, client) in clients.iter_mut().enumerate() {
        let (told, took) = last_words(client);
        assert!(
            told.starts_with("E FATAL") && told.contains("client_login_timeout"),
            "stage {stage}: {told}"
        );
        assert!(took < Duration::from_secs(4), "stage {stage}: {took:?}");
    }
}
