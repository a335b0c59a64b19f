//! Who gets in to the console, and how it ends with the process.

use std::net::TcpStream;
use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Frame, Postgres, Proxy, ProxyConfig, Psql, Received, wait};

use super::{PASSWORD, config, console, login, row};

#[test]
fn only_the_right_user_with_the_right_password_gets_in() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for (user, password) in [
        ("admin", "wrong"),
        ("pgdog", PASSWORD),
        ("nobody", PASSWORD),
        ("admin", ""),
    ] {
        let (_, frames) = login(&proxy, user, password);
        let last = frames.last().map(Frame::line).unwrap_or_default();
        let wanted = format!("E FATAL 28P01: password authentication failed for user \"{user}\"");
        assert_eq!(last, wanted);
    }
    console(&proxy).run("SHOW VERSION");
}

#[test]
fn every_way_to_ask_for_a_password_works_and_trust_is_none() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    for auth in ["scram", "md5", "plain", "trust"] {
        let config = config(&database).general("auth_type", &format!("\"{auth}\""));
        let proxy = Proxy::start(&config);
        let psql = Psql::new(proxy.port(), "admin", "admin");
        let right = psql.clone().password(PASSWORD).run("SHOW STATE");
        assert!(right.expect(auth).contains("paused|no"), "{auth}");
        for wrong in [psql.clone().password("wrong"), psql] {
            let refused = wrong.run("SHOW STATE");
            assert!(!refused.success, "{auth}: {}", refused.stdout);
        }
    }
}

#[test]
fn a_password_is_made_up_and_told_once_where_none_is_configured() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog")
        .append("[admin]\nname = \"control\"\nuser = \"boss\"");
    let proxy = Proxy::start(&config);
    let made = || {
        let log = proxy.log();
        let line = log
            .lines()
            .find(|l| l.contains("admin console: "))?
            .to_owned();
        Some(
            line.split("password \"")
                .nth(1)?
                .split('"')
                .next()?
                .to_owned(),
        )
    };
    assert!(
        wait::until(PATIENCE, || made().is_some()),
        "{}",
        proxy.log()
    );
    let password = made().expect("it is there");
    assert_eq!(password.len(), 32);
    let psql = Psql::new(proxy.port(), "boss", "control").password(&password);
    psql.run("SHOW STATE").expect("the password is right");
    proxy.reload();
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .contains("configuration reloaded")));
    psql.run("SHOW STATE").expect("it stays over a reload");
    assert_eq!(proxy.log().matches(&password).count(), 1);
    let with = Proxy::start(&super::config(&database));
    console(&with).run("SHOW STATE");
    assert!(!with.log().contains("admin console: ") && !with.log().contains(PASSWORD));
}

#[test]
fn the_console_is_open_when_the_proxy_is_full() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("max_client_conn", "1"));
    let mut first = console(&proxy);
    let _client = proxy.client("pgdog", database.name());
    let full = pgdog_tests::RawClient::try_login(proxy.port(), "pgdog", database.name());
    assert!(full.expect_err("it is full").contains("53300"));
    let mut second = console(&proxy);
    second.run("SHOW CLIENTS");
    first.run("SHOW CLIENTS");
}

#[test]
fn a_drain_ends_consoles_and_idle_ones_are_left_alone_before() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database).general("client_idle_timeout", "200"));
    let mut idle = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    assert!(client.until_eof().is_some(), "an idle client is ended");
    assert_eq!(idle.receive(Duration::from_millis(300)), Received::Silence);
    proxy.terminate();
    let told = lines(&idle.until_eof().expect("it is closed"));
    assert!(told[0].starts_with("E FATAL 57P01"), "{told:?}");
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

/// Whether nobody is let in any more.
fn closed(proxy: &Proxy) -> bool {
    wait::until(PATIENCE, || {
        TcpStream::connect(("127.0.0.1", proxy.port())).is_err()
    })
}

#[test]
fn shutdown_drains_as_a_signal_does() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut inside = proxy.client("pgdog", database.name());
    inside.run("begin");
    let told = admin.query("SHUTDOWN");
    assert_eq!(told[0].line(), "C SHUTDOWN");
    assert!(closed(&proxy));
    inside.run("select 1");
    inside.run("commit");
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

#[test]
fn shutdown_waits_for_servers_beyond_the_timeout() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database).general("shutdown_timeout", "100"));
    let mut admin = console(&proxy);
    let mut idle = proxy.client("pgdog", database.name());
    let mut inside = proxy.client("pgdog", database.name());
    inside.run("begin");
    admin.run("SHUTDOWN WAIT_FOR_SERVERS");
    assert!(idle.until_eof().is_some(), "an idle client is told to go");
    assert_eq!(
        inside.receive(Duration::from_millis(500)),
        Received::Silence
    );
    inside.run("commit");
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

#[test]
fn shutdown_waits_for_clients_until_the_last_has_left() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database).general("shutdown_timeout", "100"));
    let mut admin = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    admin.run("SHUTDOWN WAIT_FOR_CLIENTS");
    assert!(closed(&proxy));
    assert_eq!(
        client.receive(Duration::from_millis(400)),
        Received::Silence
    );
    client.run("begin");
    client.run("commit");
    assert_eq!(
        row(&mut admin, "SHOW LISTS", "list", "used_clients")["items"],
        "1"
    );
    let (code, line) = super::refused(&mut admin, "RELOAD");
    assert!(code == "F0000" && line.contains("shutting down"), "{line}");
    client.goodbye();
    assert!(admin.until_eof().is_some(), "the console is told to go");
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}

#[test]
fn a_second_order_shortens_the_wait_for_clients() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let mut proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut client = proxy.client("pgdog", database.name());
    admin.run("SHUTDOWN WAIT_FOR_CLIENTS");
    admin.run("SHUTDOWN");
    assert!(client.until_eof().is_some());
    assert_eq!(proxy.wait(PATIENCE), Some(0));
}
