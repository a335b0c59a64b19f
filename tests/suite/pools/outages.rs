//! Postgres goes away and comes back.

use std::net::TcpListener;
use std::path::Path;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{
    Activity, Message, Postgres, PostgresOptions, Proxy, ProxyConfig, RawClient, StopMode, wait,
};

use super::{millis, timed};

fn config(postgres: &Postgres) -> ProxyConfig {
    ProxyConfig::transaction(postgres)
        .general("client_connection_recovery", "\"recover\"")
        .general("checkout_timeout", "1200")
        .database("postgres")
        .user("pgdog", "pgdog")
}

#[test]
fn clients_outlive_a_restart_of_postgres() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let proxy = Proxy::start(&config(&postgres));
    let mut client = proxy.client("pgdog", "postgres");
    let mut other = proxy.client("pgdog", "postgres");
    assert_eq!(client.query_value("select 1"), "1");
    for mode in [StopMode::Fast, StopMode::Kill] {
        let backends = Activity::new(&postgres, "postgres").pids("usename = 'pgdog'");
        postgres.stop(mode);
        // They outlive a postmaster that was killed for a moment.
        let alive = |pid: &String| Path::new("/proc").join(pid).exists();
        assert!(wait::until(PATIENCE, || !backends.iter().any(alive)));
        // At its deadline the client is told what is wrong with the server, not that the pool is small.
        client.send(&[Message::query("select 1")]);
        let (told, waited) = timed(|| lines(&client.until_ready()));
        assert_eq!(told.len(), 2, "{told:?}");
        let cause = format!(
            "E ERROR 08001: cannot connect to server 127.0.0.1:{}: Connection refused",
            postgres.port()
        );
        assert!(told[0].starts_with(&cause), "{told:?}");
        assert_eq!(told[1], "Z I");
        assert!(waited >= millis(900) && waited < millis(4000), "{waited:?}");
        // Attempts are spaced out.
        let attempts = proxy.log().matches("failed to connect").count();
        assert!((2..40).contains(&attempts), "{attempts} attempts");
        // One who waits while Postgres comes back is served.
        other.send(&[Message::query("select 2")]);
        postgres.start_again();
        let frames = lines(&other.until_ready());
        if frames.first().is_some_and(|line| line.starts_with('E')) {
            // It took Postgres longer than the wait.
            assert!(frames[0].starts_with("E ERROR 08001"), "{frames:?}");
        }
        assert!(wait::until(PATIENCE, || client
            .query("select 1")
            .iter()
            .any(|frame| frame.tag == b'D')));
        assert_eq!(client.query_value("select 3"), "3");
        other.run("select 1");
    }
}

#[test]
fn what_is_lost_with_its_server_is_told() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let proxy = Proxy::start(&config(&postgres));
    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Kill] {
        let mut inside = proxy.client("pgdog", "postgres");
        let mut running = proxy.client("pgdog", "postgres");
        let idle = proxy.client("pgdog", "postgres");
        inside.run("begin");
        running.send(&[Message::query("select pg_sleep(60)")]);
        let mut activity = Activity::new(&postgres, "postgres");
        activity.wait(1, "query like 'select pg_sleep%'");
        drop(activity);
        postgres.stop(mode);
        for (what, client) in [("running", &mut running), ("in a transaction", &mut inside)] {
            client.send(&[Message::query("select 1")]);
            let told = lines(&client.until_eof().expect("it is closed"));
            let last = told.last().map_or("", String::as_str);
            let code_fits = ["08006", "57P01", "57P02", "57P03"]
                .iter()
                .any(|code| last.starts_with(&format!("E FATAL {code}")));
            let warned = told.iter().any(|line| line.contains("57P02")) || code_fits;
            assert!(warned, "{mode:?} {what}: {told:?}");
        }
        postgres.start_again();
        let mut idle = idle;
        assert!(
            wait::until(PATIENCE, || idle
                .query("select 1")
                .iter()
                .any(|frame| frame.tag == b'D')),
            "{mode:?}"
        );
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    if !Postgres::installed() {
        return;
    }
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("connect_timeout", "300")
        .general("checkout_timeout", "1000")
        .database_at("silent", port, &[])
        .database("postgres")
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let (told, waited) = timed(|| {
        RawClient::try_login(proxy.port(), "pgdog", "silent").expect_err("nobody answers")
    });
    assert!(
        told.starts_with("E FATAL 08001") && told.contains("did not answer"),
        "{told}"
    );
    assert!(waited >= millis(700) && waited < millis(4000), "{waited:?}");
    // Others do not suffer.
    let (_, waited) = timed(|| proxy.client("pgdog", "postgres").query_value("select 1"));
    assert!(waited < millis(2000), "{waited:?}");
}

#[test]
fn a_server_that_is_full_is_tried_again_until_there_is_room() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    postgres.run("postgres", "create role guest login connection limit 1");
    let config = ProxyConfig::transaction(&postgres)
        .general("checkout_timeout", "8000")
        .general("connect_attempts", "2")
        .general("connect_attempt_delay", "50")
        .database("postgres")
        .user("guest", "guest");
    let proxy = Proxy::start(&config);
    let occupant = RawClient::login(postgres.port(), "guest", "postgres");
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::startup(&[
        ("user", "guest"),
        ("database", "postgres"),
    ])]);
    assert!(
        wait::until(PATIENCE, || proxy
            .log()
            .contains("too many connections for role")),
        "{}",
        proxy.log()
    );
    occupant.goodbye();
    let frames = client.until_ready();
    assert_eq!(
        frames.last().and_then(pgdog_tests::Frame::status),
        Some('I'),
        "{:?}",
        lines(&frames)
    );
}

#[test]
fn a_cause_that_stays_is_told_at_once_and_not_tried_for_each_client() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default().hba("host all rejected all reject"));
    postgres.run("postgres", "create role rejected login");
    let config = ProxyConfig::transaction(&postgres)
        .general("checkout_timeout", "20000")
        .general("min_pool_size", "0")
        .database("gone")
        .database("postgres")
        .user("pgdog", "pgdog")
        .user("nobody", "nobody")
        .user("rejected", "rejected");
    let proxy = Proxy::start(&config);
    for (user, database, code) in [
        ("pgdog", "gone", "3D000"),
        ("nobody", "postgres", "28000"),
        ("rejected", "postgres", "28000"),
    ] {
        for _ in 0..40 {
            let (told, took) = timed(|| {
                RawClient::try_login(proxy.port(), user, database).expect_err("Postgres refuses")
            });
            assert!(
                told.starts_with(&format!("E FATAL {code}")),
                "{user}: {told}"
            );
            assert!(took < millis(8000), "{user}: {took:?}");
        }
    }
    let attempts = proxy.log().matches("failed to connect").count();
    assert!((3..60).contains(&attempts), "{attempts} attempts");
    // What was wrong is put right, and that is found out.
    postgres.run("postgres", "create database gone");
    assert!(
        wait::until(PATIENCE, || RawClient::try_login(
            proxy.port(),
            "pgdog",
            "gone"
        )
        .is_ok()),
        "{}",
        proxy.log()
    );
}

#[test]
fn a_failed_attempt_to_connect_fails_nobody_while_there_are_servers() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let config = ProxyConfig::transaction(&postgres)
        .general("checkout_timeout", "20000")
        .pool_size(2)
        .database("postgres")
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let mut holder = proxy.client("pgdog", "postgres");
    let mut waiting = proxy.client("pgdog", "postgres");
    holder.run("begin");
    // Whoever is in stays in, and nobody else gets in.
    postgres.run("postgres", "alter role pgdog nologin");
    Activity::new(&postgres, "postgres").terminate("usename = 'pgdog' and state = 'idle'");
    waiting.send(&[Message::query("select 1")]);
    let refused = || proxy.log().contains("is not permitted to log in");
    assert!(wait::until(PATIENCE, refused), "{}", proxy.log());
    holder.run("commit");
    let told = lines(&waiting.until_ready());
    assert_eq!(told.last().map(String::as_str), Some("Z I"), "{told:?}");
    assert!(!told.iter().any(|line| line.starts_with('E')), "{told:?}");
}
