//! PAUSE, RESUME, MAINTENANCE, DISABLE: clients wait or are told, and none fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Activity, Message, Postgres, Proxy, RawClient, Received, wait};

use super::{config, console, refused, row, trusted, until};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn nobody_notices_pauses_under_load_but_by_the_clock() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    // A wait for a pause is not a wait for a server: it has no limit.
    let proxy = Proxy::start(&config(&database).general("checkout_timeout", "1000"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..12 {
            let (proxy, done, answered, database) = (&proxy, &done, &answered, &database);
            scope.spawn(move || {
                let mut client = proxy.client("pgdog", database.name());
                while !done.load(Ordering::Relaxed) {
                    if number % 3 == 0 {
                        client.run("begin");
                        client.run("select 1");
                        client.run("commit");
                    } else {
                        client.run("select pg_sleep(0.002)");
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut console = console(&proxy);
        for round in 0..6 {
            let before = answered.load(Ordering::Relaxed);
            let goes_on = wait::until(PATIENCE, || answered.load(Ordering::Relaxed) > before + 24);
            if !goes_on {
                done.store(true, Ordering::Relaxed);
            }
            assert!(goes_on, "round {round}");
            let (pause, resume) = match round % 3 {
                0 => ("PAUSE".to_owned(), "RESUME".to_owned()),
                1 => (
                    format!("PAUSE {}", database.name()),
                    format!("RESUME {}", database.name()),
                ),
                _ => ("MAINTENANCE ON".to_owned(), "MAINTENANCE OFF".to_owned()),
            };
            console.run(&pause);
            if round % 3 < 2 {
                assert_eq!(
                    activity.count("true"),
                    0,
                    "all server connections are closed"
                );
            }
            until(
                &mut console,
                "SHOW POOLS",
                ("user", "pgdog"),
                "cl_waiting",
                "12",
            );
            let stopped = answered.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1200));
            assert_eq!(answered.load(Ordering::Relaxed), stopped, "{pause}");
            console.run(&resume);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 100);
}

#[test]
fn pause_waits_for_transactions_and_resume_ends_it() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut second = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    client.run("begin");
    admin.send(&[Message::query("PAUSE")]);
    assert_eq!(
        admin.receive(SHORT),
        Received::Silence,
        "a transaction runs"
    );
    assert_eq!(
        row(&mut second, "SHOW STATE", "key", "paused")["value"],
        "yes"
    );
    assert_eq!(refused(&mut second, "PAUSE").0, "55000");
    client.run("select 1");
    client.run("commit");
    assert_eq!(admin.until_ready()[0].line(), "C PAUSE");
    client.send(&[Message::query("select 1")]);
    assert_eq!(client.receive(SHORT), Received::Silence);
    let databases = row(&mut second, "SHOW DATABASES", "name", database.name());
    assert_eq!(databases["paused"], "1");
    second.run("RESUME");
    assert_eq!(
        client
            .until_ready()
            .last()
            .and_then(pgdog_tests::Frame::status),
        Some('I')
    );
    assert_eq!(refused(&mut second, "RESUME").0, "55000");
}

#[test]
fn a_pause_that_somebody_ends_says_so_and_leaves_the_next_one_alone() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let (mut first, mut second, mut third) = (console(&proxy), console(&proxy), console(&proxy));
    let mut holder = proxy.client("pgdog", database.name());
    holder.run("begin");
    first.send(&[Message::query("PAUSE")]);
    until(&mut third, "SHOW STATE", ("key", "paused"), "value", "yes");
    third.run("RESUME");
    let told = first.until_ready();
    assert_eq!(told[0].field(b'C').as_deref(), Some("55000"), "{told:?}");

    // Another pause of the same: the end of the first one is not its end.
    first.send(&[Message::query("PAUSE")]);
    until(&mut third, "SHOW STATE", ("key", "paused"), "value", "yes");
    third.run("RESUME");
    second.send(&[Message::query("PAUSE")]);
    first.until_ready();
    until(&mut third, "SHOW STATE", ("key", "paused"), "value", "yes");
    assert_eq!(second.receive(SHORT), Received::Silence);
    holder.run("commit");
    assert_eq!(second.until_ready()[0].line(), "C PAUSE");
    third.run("RESUME");
}

#[test]
fn a_pause_that_does_not_end_is_taken_back_when_its_console_gives_up() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut watcher = console(&proxy);
    let mut holder = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    holder.run("begin");
    let mut cancelled = console(&proxy);
    cancelled.send(&[Message::query("PAUSE")]);
    until(
        &mut watcher,
        "SHOW STATE",
        ("key", "paused"),
        "value",
        "yes",
    );
    let mut request = RawClient::open(proxy.port()).expect("the proxy listens");
    request.send(&[cancelled.cancel_request().expect("a console has a key")]);
    let told = cancelled.until_ready();
    assert_eq!(told[0].field(b'C').as_deref(), Some("57014"));
    assert_eq!(other.query_value("select 1"), "1");
    let mut gone = console(&proxy);
    gone.send(&[Message::query("PAUSE")]);
    until(
        &mut watcher,
        "SHOW STATE",
        ("key", "paused"),
        "value",
        "yes",
    );
    drop(gone);
    until(&mut watcher, "SHOW STATE", ("key", "paused"), "value", "no");
    assert_eq!(other.query_value("select 1"), "1");
}

#[test]
fn pauses_hold_for_what_they_name_and_over_reloads() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let base = config(&database).append_users(&trusted("other", name));
    let proxy = Proxy::start(&base);
    let mut admin = console(&proxy);
    let mut paused = proxy.client("pgdog", name);
    let mut free = proxy.client("other", name);
    admin.run(&format!("PAUSE pgdog {name}"));
    assert_eq!(free.query_value("select 1"), "1");
    paused.send(&[Message::query("select 1")]);
    assert_eq!(paused.receive(SHORT), Received::Silence);
    // Other TLS means other servers: the reload makes new pools.
    let replaced = config(&database)
        .append_users(&trusted("other", name))
        .general("tls_verify", "\"disabled\"");
    proxy.write_config(&replaced);
    admin.run("RELOAD");
    assert_eq!(free.query_value("select 1"), "1");
    assert_eq!(
        paused.receive(SHORT),
        Received::Silence,
        "it is paused still"
    );
    assert_eq!(
        row(&mut admin, "SHOW POOLS", "user", "pgdog")["paused"],
        "t"
    );
    admin.run("RESUME");
    assert!(paused.until_ready().iter().any(|f| f.tag == b'D'));
}

#[test]
fn maintenance_holds_new_transactions_and_keeps_connections() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    let mut inside = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    admin.run("MAINTENANCE ON");
    client.send(&[Message::query("select pg_backend_pid()")]);
    assert_eq!(client.receive(SHORT), Received::Silence);
    admin.run("MAINTENANCE OFF");
    let frames = client.until_ready();
    let found = frames.iter().find(|f| f.tag == b'D').expect("a row");
    assert_eq!(found.columns(), [Some(pid.into_bytes())]);
    inside.run("begin");
    admin.run(&format!("MAINTENANCE ON {}", database.name()));
    inside.run("select 1");
    inside.run("commit");
    inside.send(&[Message::query("select 1")]);
    assert_eq!(inside.receive(SHORT), Received::Silence);
    admin.run("MAINTENANCE OFF");
    assert!(!inside.until_ready().is_empty());
    assert_eq!(refused(&mut admin, "MAINTENANCE").0, "42601");
    assert_eq!(refused(&mut admin, "MAINTENANCE MAYBE").0, "42601");
}

#[test]
fn a_disabled_database_lets_nobody_new_in() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut there = proxy.client("pgdog", name);
    admin.run(&format!("DISABLE {name}"));
    let refusal = RawClient::try_login(proxy.port(), "pgdog", name).expect_err("it is disabled");
    assert!(
        refusal.contains("57P03") && refusal.contains("is disabled"),
        "{refusal}"
    );
    assert_eq!(there.query_value("select 1"), "1", "who is there stays");
    let shown = row(&mut admin, "SHOW DATABASES", "name", name);
    assert_eq!(shown["disabled"], "1");
    admin.run(&format!("ENABLE {name}"));
    proxy.client("pgdog", name).run("select 1");
    let (code, line) = refused(&mut admin, "DISABLE no_such_database");
    assert!(
        code == "3D000" && line.contains("no_such_database"),
        "{line}"
    );
}
