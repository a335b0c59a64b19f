//! Commands that change something at once.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Activity, Frame, Message, Postgres, Proxy, RawClient, Received, wait};

use super::{config, console, refused, row, until, view};

/// The notices in an answer that is none of an error.
fn notices(console: &mut RawClient, sql: &str) -> String {
    let told = lines(&console.query(sql));
    assert!(!told.iter().any(|l| l.starts_with("E ")), "{sql}: {told:?}");
    let notices: Vec<_> = told.into_iter().filter(|l| l.starts_with("N ")).collect();
    notices.join("\n")
}

fn told_to_go(client: &mut RawClient) {
    let told = lines(&client.until_eof().expect("it is closed"));
    let last = told.last().map(String::as_str).unwrap_or_default();
    assert!(last.starts_with("E FATAL 57P01"), "{told:?}");
}

#[test]
fn kill_disconnects_everybody_and_those_who_come_wait_for_resume() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut admin = console(&proxy);
    let mut idle = proxy.client("pgdog", database.name());
    let mut inside = proxy.client("pgdog", database.name());
    let mut running = proxy.client("pgdog", database.name());
    inside.run("begin");
    running.send(&[Message::query("select pg_sleep(60)")]);
    activity.wait(1, "state = 'active'");
    let said = notices(&mut admin, &format!("KILL {}", database.name()));
    assert!(said.contains("3 clients"), "{said}");
    for client in [&mut idle, &mut inside, &mut running] {
        told_to_go(client);
    }
    activity.wait(0, "true");
    let mut new = RawClient::open(proxy.port()).expect("the proxy listens");
    new.send(&[
        Message::startup(&[("user", "pgdog"), ("database", database.name())]),
        Message::query("select 1"),
    ]);
    until(
        &mut admin,
        "SHOW POOLS",
        ("user", "pgdog"),
        "cl_waiting",
        "1",
    );
    admin.run("RESUME");
    assert!(wait::until(PATIENCE, || match new.receive(PATIENCE) {
        Received::Frame(frame) => frame.tag == b'D',
        _ => false,
    }));
    assert_eq!(view(&mut admin, "SHOW CLIENTS").len(), 2);
}

#[test]
fn kill_client_ends_one_client_and_what_it_runs() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut admin = console(&proxy);
    let mut stays = proxy.client("pgdog", database.name());
    stays.run("select 1");
    let mut goes = proxy.client("pgdog", database.name());
    goes.send(&[Message::query("select pg_sleep(60)")]);
    activity.wait(1, "state = 'active'");
    until(
        &mut admin,
        "SHOW SERVERS",
        ("state", "active"),
        "user",
        "pgdog",
    );
    let id = row(&mut admin, "SHOW SERVERS", "state", "active")["client_id"].clone();
    admin.run(&format!("KILL_CLIENT {id}"));
    told_to_go(&mut goes);
    activity.wait(0, "state = 'active'");
    assert_eq!(stays.query_value("select 1"), "1");
    assert_eq!(refused(&mut admin, &format!("KILL_CLIENT {id}")).0, "22023");
    assert_eq!(refused(&mut admin, "KILL_CLIENT everybody").0, "22023");
    assert_eq!(refused(&mut admin, "KILL_CLIENT").0, "42601");
}

#[test]
fn reconnect_replaces_server_connections_and_wait_close_waits_for_that() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    admin.run("RECONNECT");
    admin.run("WAIT_CLOSE");
    let next = client.query_value("select pg_backend_pid()");
    assert_ne!(next, pid);
    client.run("begin");
    admin.run(&format!("RECONNECT {}", database.name()));
    let server = row(&mut admin, "SHOW SERVERS", "remote_pid", &next);
    assert_eq!(server["close_needed"], "1");
    let mut waits = console(&proxy);
    waits.send(&[Message::query("WAIT_CLOSE")]);
    let silence = waits.receive(std::time::Duration::from_millis(300));
    assert_eq!(silence, Received::Silence, "a transaction runs on it");
    client.run("commit");
    assert_eq!(waits.until_ready()[0].line(), "C WAIT_CLOSE");
    assert_ne!(client.query_value("select pg_backend_pid()"), next);
}

#[test]
fn reload_puts_a_right_configuration_in_force_and_explains_a_wrong_one() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    proxy.write_config(&config(&database).pool_size(7));
    admin.run("RELOAD");
    let shown = row(&mut admin, "SHOW DATABASES", "name", database.name());
    assert_eq!(shown["pool_size"], "7");
    proxy.write_config(&config(&database).general("defaul_pool_size", "1"));
    let (code, line) = refused(&mut admin, "RELOAD");
    assert!(code == "F0000" && line.contains("did you mean"), "{line}");
    let shown = row(&mut admin, "SHOW CONFIG", "key", "default_pool_size");
    assert_eq!(shown["value"], "7");
}

#[test]
fn set_changes_a_key_until_reload() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    let said = notices(&mut admin, "SET query_timeout = 500");
    assert!(said.contains("until RELOAD"), "{said}");
    let mut late = proxy.client("pgdog", database.name());
    late.send(&[Message::query("select pg_sleep(60)")]);
    let told = lines(&late.until_eof().expect("it is ended"));
    assert!(told.iter().any(|l| l.contains("query_timeout")), "{told:?}");
    notices(&mut admin, "set default_pool_size to '9'");
    let shown = row(&mut admin, "SHOW CONFIG", "key", "default_pool_size");
    assert_eq!(shown["value"], "9");
    assert_eq!(
        client.query_value("select pg_backend_pid()"),
        pid,
        "pools stay"
    );
    admin.run("RELOAD");
    for (key, value) in [("default_pool_size", "4"), ("query_timeout", "NULL")] {
        assert_eq!(row(&mut admin, "SHOW CONFIG", "key", key)["value"], value);
    }
    notices(&mut admin, "SET default_pool_size = DEFAULT");
    let shown = row(&mut admin, "SHOW CONFIG", "key", "default_pool_size");
    assert_eq!(shown["value"], "10");
    for (sql, hint) in [
        ("SET defaul_pool_size = 5", "default_pool_size"),
        ("SET default_pool_size = many", "default_pool_size"),
        ("SET pooler_mode = sometimes", "pooler_mode"),
        ("SET port = 5", "restart"),
    ] {
        let (code, line) = refused(&mut admin, sql);
        assert!(code == "22023" && line.contains(hint), "{sql}: {line}");
    }
    assert_eq!(refused(&mut admin, "SET default_pool_size").0, "42601");
}

#[test]
fn health_checks_and_probes_tell_how_servers_are() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let config = config(&database)
        .general("connect_timeout", "1000")
        .database_at("nowhere", 1, &[])
        .append_users(&super::trusted("lost", "nowhere"));
    let proxy = Proxy::start(&config);
    let mut admin = console(&proxy);
    let rows = view(&mut admin, "HEALTHCHECK");
    let found = |database: &str| {
        rows.iter()
            .find(|r| r["database"] == database)
            .expect("a row")
    };
    assert_eq!(
        (&*found(name)["healthy"], &*found(name)["error"]),
        ("t", "NULL")
    );
    assert_eq!(found("nowhere")["healthy"], "f");
    assert!(found("nowhere")["error"].contains("connect"), "{rows:?}");
    let id = row(&mut admin, "SHOW POOLS", "database", name)["id"].clone();
    assert_eq!(view(&mut admin, &format!("HEALTHCHECK {id}")).len(), 1);
    assert_eq!(refused(&mut admin, "HEALTHCHECK 999").0, "22023");
    let port = Postgres::shared().port();
    let probe = format!("PROBE postgres://pgdog:pgdog@127.0.0.1:{port}/{name}");
    let latency: f64 = admin.query_value(&probe).parse().expect("milliseconds");
    assert!(latency > 0.0);
    assert_eq!(
        refused(&mut admin, "PROBE 'postgres://pgdog@127.0.0.1:1/x'").0,
        "08001"
    );
    assert_eq!(refused(&mut admin, "PROBE nonsense").0, "22023");
    assert_eq!(refused(&mut admin, "PROBE").0, "42601");
}

#[test]
fn what_is_not_there_is_refused_with_the_reason() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    for sql in [
        "SUSPEND",
        "SHOW REPLICATION_SLOTS",
        "SHOW FDS",
        "SHOW DNS_HOSTS",
        "SHOW DNS_ZONES",
        "SHOW PEER_POOLS",
        "SHOW SERVER MEMORY",
        "RESHARD a b c",
    ] {
        let (code, line) = refused(&mut admin, sql);
        assert!(
            code == "0A000" && line.contains("is not supported: "),
            "{line}"
        );
    }
    for (sql, near) in [
        ("SHOW POLS", "SHOW POOLS"),
        ("PAUZE", "PAUSE"),
        ("SHTUDOWN", "SHUTDOWN"),
    ] {
        let (code, line) = refused(&mut admin, sql);
        assert!(code == "42601" && line.contains(near), "{line}");
    }
    let said = notices(&mut admin, "RESET PREPARED");
    assert!(said.contains("0 statements"), "{said}");
    let last = admin.query("SHOW VERSION").last().map(Frame::line);
    assert_eq!(last.as_deref(), Some("Z I"), "the console lives on");
}
