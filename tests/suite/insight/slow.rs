//! The log of slow queries.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, wait};

use super::{admin, counted};

/// Waits for a line of the log that says so.
fn line(proxy: &Proxy, says: &str) -> String {
    let find = || {
        let log = proxy.log();
        log.lines()
            .find(|line| line.contains(says))
            .map(str::to_owned)
    };
    assert!(
        wait::until(PATIENCE, || find().is_some()),
        "{says:?} is not there:\n{}",
        proxy.log()
    );
    find().expect("it was there")
}

#[test]
fn a_slow_query_is_logged_without_its_constants_and_a_quick_one_is_not() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = admin::config(&database).general("log_min_duration_query", "700");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    client.run("set application_name = 'a shop'");
    client.run("select 'quick'::name");
    client.run("select 'hunter2'::text, pg_sleep(0.71)");
    client.transcript(&[
        Message::parse("x", "select $1::text, pg_sleep(0.72) as prepared"),
        Message::bind("x", &["hunter2"]),
        Message::execute(),
        Message::Sync,
    ]);
    let slow = line(&proxy, "query=\"select $1::text, pg_sleep($2)\"");
    let server = format!("server=127.0.0.1:{}", Postgres::shared().port());
    for part in [
        " INFO slow query duration_ms=",
        "user=\"pgdog\"",
        &format!("database=\"{}\"", database.name()),
        "application_name=\"a shop\"",
        "client_addr=127.0.0.1:",
        &server,
        "rows=1",
    ] {
        assert!(slow.contains(part), "{part:?} is not in {slow}");
    }
    let after = |name: &str| {
        slow.split(name)
            .nth(1)
            .and_then(|text| text.split(' ').next())
    };
    let duration: f64 = after("duration_ms=")
        .and_then(|text| text.parse().ok())
        .expect("it has a duration");
    assert!(duration >= 700.0, "{slow}");
    assert_eq!(after("fingerprint=").map(str::len), Some(16), "{slow}");
    line(
        &proxy,
        "query=\"select $1::text, pg_sleep($2) as prepared\"",
    );
    let log = proxy.log();
    assert!(!log.contains("hunter2") && !log.contains("::name"), "{log}");
    let mut console = admin::console(&proxy);
    let rows = admin::view(&mut console, super::VIEW);
    assert_eq!(rows, [], "statistics are a switch of their own");
}

#[test]
fn a_query_that_is_cut_off_has_failed_and_its_time_counts() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = super::config(&database)
        .general("log_min_duration_query", "100")
        .general("query_timeout", "300");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    client.send(&[Message::query("select pg_sleep(30)")]);
    client.until_eof().expect("the proxy ends it");
    let slow = line(&proxy, "query=\"select pg_sleep($1)\"");
    assert!(slow.contains("code=57014"), "{slow}");
    let mut console = admin::console(&proxy);
    let row = counted(&mut console, "select pg_sleep($1)", 1);
    assert_eq!(row["error_codes"], "57014: 1");
    assert!(super::number(&row, "min_time") >= 200_000, "{row:?}");
}

#[test]
fn in_json_its_parts_are_fields_and_a_long_text_is_cut() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = admin::config(&database)
        .general("log_format", "\"json_flattened\"")
        .general("log_query_sample_length", "20")
        .general("log_min_duration_query", "20");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 'hunter2'::text, pg_sleep(0.03) as \"ünicode\"");
    let slow = line(&proxy, "slow query");
    let fields: serde_json::Value = serde_json::from_str(&slow).expect("a line is JSON");
    assert_eq!(fields["message"], "slow query", "{fields}");
    assert_eq!(fields["query"], "select $1::text, pg_", "{fields}");
    assert_eq!(fields["user"], "pgdog", "{fields}");
    assert!(fields["duration_ms"].as_f64() >= Some(20.0), "{fields}");
    assert_eq!(fields.get("code"), None, "{fields}");
}

#[test]
fn a_flood_of_one_slow_query_is_counted_whoever_asks() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = admin::config(&database)
        .general("log_dedup_threshold", "2")
        .general("log_dedup_window", "3600000")
        .general("log_min_duration_query", "2");
    let mut proxy = Proxy::start(&config);
    for number in 0..5 {
        let mut client = proxy.client("pgdog", database.name());
        client.run(&format!("select {number} as n, pg_sleep(0.003)"));
    }
    proxy.terminate();
    assert!(proxy.wait(PATIENCE).is_some(), "it ends");
    let log = proxy.log();
    assert_eq!(log.matches("slow query duration_ms=").count(), 2, "{log}");
    assert!(log.contains("repeated 3 more times"), "{log}");
}
