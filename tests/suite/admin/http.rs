//! The same by HTTP: views as JSON, orders, and figures for Prometheus.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Database, Http, Message, Postgres, Proxy, ProxyConfig, RawClient, Received, wait,
};
use serde_json::Value;

use super::{PASSWORD, console, row, trusted, until, view};
use crate::exposition::{Exposition, read};

/// How long nothing may happen to count as nothing.
const SHORT: Duration = Duration::from_millis(300);

/// As [`super::config`], with the admin API and metrics.
pub(super) fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"plain\"")
        .general("plain_without_tls", "true")
        .general("openmetrics_host", "\"127.0.0.1\"")
        .general("openmetrics_port", "0")
        .general("openmetrics_namespace", "\"pgdog_\"")
        .general("stats_period", "300")
        .pool_size(4)
        .database(database.name())
        .append(&format!(
            "[admin]\npassword = \"{PASSWORD}\"\nhttp_port = 0"
        ))
        .append_users(&trusted("pgdog", database.name()))
}

pub(super) fn api(proxy: &Proxy) -> Http {
    Http::new(proxy.http_port("admin.http_port"))
}

pub(super) fn metrics(proxy: &Proxy) -> Exposition {
    let answer = Http::new(proxy.http_port("general.openmetrics_port")).get("/metrics");
    read(&answer.expect(200).body)
}

/// A value as the console writes it.
fn as_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "t" } else { "f" }.to_owned(),
        other => other.to_string(),
    }
}

#[test]
fn console_json_and_metrics_tell_the_same_figures() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    database.run("create table t (a int)");
    let proxy = Proxy::start(&config(&database).append_users(&trusted("other", name)));
    let mut console = console(&proxy);
    load(&proxy, name);
    until(
        &mut console,
        "SHOW STATS",
        ("user", "pgdog"),
        "total_query_count",
        "45",
    );
    until(
        &mut console,
        "SHOW POOLS",
        ("user", "pgdog"),
        "sv_active",
        "0",
    );
    until(
        &mut console,
        "SHOW LISTS",
        ("list", "used_clients"),
        "items",
        "0",
    );
    // Whatever is asked more than once in between stands still.
    let http = api(&proxy);
    for (sql, path) in [
        ("SHOW POOLS", "/v1/pools"),
        ("SHOW STATS", "/v1/stats"),
        ("SHOW USERS", "/v1/users"),
        ("SHOW DATABASES", "/v1/databases"),
        ("SHOW PREPARED", "/v1/prepared"),
        ("SHOW LISTS", "/v1/lists"),
    ] {
        let rows = view(&mut console, sql);
        let json = http.get(path).expect(200).json();
        let json = json.as_array().expect("a list");
        assert_eq!(rows.len(), json.len(), "{path}");
        for (row, object) in rows.iter().zip(json) {
            let object = object.as_object().expect("an object for each row");
            assert_eq!(row.len(), object.len(), "{path}");
            for (column, value) in object {
                assert_eq!(as_text(value), row[column], "{path}: {column}");
            }
        }
    }
    let found = metrics(&proxy);
    for user in ["pgdog", "other"] {
        agree(&mut console, &found, name, user);
    }
    let code = |code: &str| found.value("pgdog_client_errors_total", &[("sqlstate", code)]);
    assert_eq!((code("42703"), code("22012")), (Some(3.0), Some(1.0)));
    assert_eq!(found.value("pgdog_logins_total", &[]), Some(3.0));
    let statements =
        |what: &str| found.value(&format!("pgdog_prepared_statement_{what}_total"), &[]);
    assert_eq!(
        (statements("misses"), statements("hits")),
        (Some(1.0), Some(1.0))
    );
}

/// What two users do: 45 queries of one and none of the other.
fn load(proxy: &Proxy, database: &str) {
    let mut client = proxy.client("pgdog", database);
    for _ in 0..30 {
        client.run("insert into t values (1), (2)");
    }
    for _ in 0..3 {
        client.run("begin");
        client.run("update t set a = 3");
        client.run("commit");
    }
    for _ in 0..3 {
        client.query_error("select nonsense");
    }
    client.query_error("select 1 / 0");
    for name in ["a", "b"] {
        client.transcript(&[
            Message::parse(name, "select 1"),
            Message::bind(name, &[]),
            Message::execute(),
            Message::Sync,
        ]);
    }
    drop(proxy.client("other", database));
}

/// The figures of one pool, in the views and in the metrics.
fn agree(console: &mut RawClient, found: &Exposition, database: &str, user: &str) {
    let number = |text: &String| text.parse::<f64>().expect("a number");
    let stats = row(console, "SHOW STATS", "user", user);
    let pool = row(console, "SHOW POOLS", "user", user);
    let own = [("database", database), ("user", user)];
    let is = |name: &str, labels: &[(&str, &str)], wanted: f64| {
        let value = found.value(name, labels);
        assert_eq!(value, Some(wanted), "{name} {labels:?}");
    };
    for (metric, column) in [
        ("pgdog_pool_queries_total", "total_query_count"),
        ("pgdog_pool_transactions_total", "total_xact_count"),
        ("pgdog_pool_received_bytes_total", "total_received"),
        ("pgdog_pool_sent_bytes_total", "total_sent"),
        ("pgdog_pool_errors_total", "total_errors"),
        (
            "pgdog_pool_assignments_total",
            "total_server_assignment_count",
        ),
        ("pgdog_pool_binds_total", "total_bind_count"),
        (
            "pgdog_pool_connect_duration_seconds_count",
            "total_connect_count",
        ),
    ] {
        is(metric, &own, number(&stats[column]));
    }
    let seconds = found.value("pgdog_pool_query_duration_seconds_sum", &own);
    let micros = number(&stats["total_query_time"]);
    assert!(
        (seconds.expect("a sum") * 1e6 - micros).abs() < 1.5,
        "{seconds:?} and {micros} µs"
    );
    let counted = found.value("pgdog_pool_query_duration_seconds_count", &own);
    assert!(
        counted >= Some(number(&stats["total_query_count"])),
        "{counted:?}"
    );
    for (operation, column) in [
        ("insert", "total_rows_inserted"),
        ("update", "total_rows_updated"),
    ] {
        let labels = [own[0], own[1], ("operation", operation)];
        is("pgdog_pool_rows_total", &labels, number(&stats[column]));
    }
    for (state, column) in [("idle", "sv_idle"), ("active", "sv_active")] {
        let labels = [own[0], own[1], ("state", state)];
        is("pgdog_pool_servers", &labels, number(&pool[column]));
    }
    let port = pool["port"].as_str();
    let role = pool["role"].as_str();
    let theirs = [
        own[0],
        own[1],
        ("host", "127.0.0.1"),
        ("port", port),
        ("shard", "0"),
        ("role", role),
    ];
    is(
        "pgdog_total_query_count",
        &theirs,
        number(&stats["total_query_count"]),
    );
    is(
        "pgdog_total_query_time",
        &theirs,
        number(&stats["total_query_time"]) / 1e3,
    );
    is("pgdog_sv_idle", &theirs, number(&pool["sv_idle"]));
    is("pgdog_max_connections", &theirs, 4.0);
    is("pgdog_pool_login_duration_seconds_count", &own, 1.0);
}

#[test]
fn metrics_tell_the_process_the_configuration_and_certificates() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let authority = pgdog_tests::Authority::new();
    let pair = authority.issue("localhost", &["localhost"]);
    let config = config(&database)
        .general("tls_certificate", &format!("{:?}", pair.certificate))
        .general("tls_private_key", &format!("{:?}", pair.key));
    let proxy = Proxy::start(&config);
    let found = metrics(&proxy);
    let value = |name: &str| {
        found
            .value(name, &[])
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(
        value("process_open_fds") > 3.0 && value("process_max_fds") > value("process_open_fds")
    );
    assert!(value("process_threads") > 1.0);
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-1.0..600.0).contains(&age), "{age}");
    assert_eq!(value("pgdog_config_last_change_applied"), 1.0);
    let expiry = |of| {
        found.value(
            "pgdog_certificate_expiry_timestamp_seconds",
            &[("certificate", of)],
        )
    };
    assert!(
        expiry("clients").expect("it is known") > now,
        "{expiry:?}",
        expiry = expiry("clients")
    );
    assert_eq!(expiry("admin"), None, "the admin API has none");
    // A file that is wrong changes nothing, and shows.
    std::fs::write(proxy.path("pgdog.toml"), "nonsense").expect("it can be written");
    api(&proxy).post("/v1/reload").expect(422);
    let found = metrics(&proxy);
    assert_eq!(
        found.value("pgdog_config_last_change_applied", &[]),
        Some(0.0)
    );
    assert_eq!(
        found.value("pgdog_config_changes_total", &[("outcome", "refused")]),
        Some(1.0)
    );
}

#[test]
fn a_pause_by_http_is_that_of_the_console() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let proxy = Proxy::start(&config(&database));
    let (http, mut console) = (api(&proxy), console(&proxy));
    let mut client = proxy.client("pgdog", name);
    client.run("select 1");
    let here = format!("database={name}&user=pgdog");
    let done = http.post(&format!("/v1/pause?{here}")).expect(200).json();
    assert_eq!(done["notices"], serde_json::json!([]));
    assert_eq!(
        row(&mut console, "SHOW POOLS", "user", "pgdog")["paused"],
        "t"
    );
    let paused = [("database", name), ("user", "pgdog")];
    assert_eq!(
        metrics(&proxy).value("pgdog_pool_paused", &paused),
        Some(1.0)
    );
    client.send(&[Message::query("select 2")]);
    assert_eq!(client.receive(SHORT), Received::Silence);
    let again = http.post(&format!("/v1/pause?{here}")).expect(409).json();
    assert_eq!(again["error"], "wrong_state");
    http.post(&format!("/v1/resume?{here}")).expect(200);
    assert!(client.until_ready().iter().any(|f| f.tag == b'D'));
    let none = http.post("/v1/resume").expect(409).json();
    assert_eq!(
        (
            &none["error"],
            none["message"]
                .as_str()
                .is_some_and(|m| m.contains("not paused"))
        ),
        (&"wrong_state".into(), true)
    );
    let unknown = http.post("/v1/pause?database=no_such").expect(404).json();
    assert!(
        unknown["message"]
            .as_str()
            .is_some_and(|m| m.contains("no_such")),
        "{unknown}"
    );
    http.post(&format!("/v1/pause?database={name}&user=nobody"))
        .expect(404);
    http.post("/v1/pause?user=pgdog").expect(400);
    http.post("/v1/resume?timeoutMs=1").expect(400);
}

#[test]
fn a_pause_that_takes_too_long_is_taken_back() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let (http, mut console) = (api(&proxy), console(&proxy));
    let mut inside = proxy.client("pgdog", database.name());
    inside.run("begin");
    let begun = Instant::now();
    let busy = http.post("/v1/pause?timeoutMs=200").expect(409).json();
    assert_eq!(busy["error"], "busy");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        row(&mut console, "SHOW POOLS", "user", "pgdog")["paused"],
        "f"
    );
    inside.run("commit");
    proxy.client("pgdog", database.name()).run("select 1");
}

#[test]
fn a_pause_is_taken_back_when_the_one_who_asked_goes_away() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut console = console(&proxy);
    let mut inside = proxy.client("pgdog", database.name());
    inside.run("begin");
    let port = proxy.http_port("admin.http_port");
    let mut asks = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let request = b"POST /v1/pause?timeoutMs=600000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    asks.write_all(request).expect("it is sent");
    until(&mut console, "SHOW POOLS", ("user", "pgdog"), "paused", "t");
    drop(asks);
    until(&mut console, "SHOW POOLS", ("user", "pgdog"), "paused", "f");
    inside.run("commit");
    inside.run("select 1");
}

#[test]
fn a_reconnect_by_http_replaces_server_connections() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    let before = client.query_value("select pg_backend_pid()");
    api(&proxy)
        .post(&format!("/v1/reconnect?database={}", database.name()))
        .expect(200);
    let other = wait::until(PATIENCE, || {
        client.query_value("select pg_backend_pid()") != before
    });
    assert!(other, "another connection");
}
