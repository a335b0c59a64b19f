//! SIGHUP: another configuration without losing anybody.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{
    Activity, Database, Message, Postgres, Proxy, ProxyConfig, Psql, RawClient, wait,
};

use super::config;

/// Puts a configuration in force, and waits for it.
fn reload(proxy: &Proxy, config: &ProxyConfig) {
    let done = || proxy.log().matches("configuration reloaded").count();
    let before = done();
    proxy.write_config(config);
    proxy.reload();
    assert!(
        wait::until(PATIENCE, || done() > before),
        "no reload:\n{}",
        proxy.log()
    );
}

fn most_at_once(proxy: &Proxy, database: &Database<'_>, wanted: usize) -> usize {
    let mut clients: Vec<_> = (0..wanted)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    clients
        .iter_mut()
        .for_each(|client| client.send(&[Message::query("begin")]));
    clients
        .iter_mut()
        .filter_map(|client| client.until_ready().last()?.status())
        .filter(|status| *status == 'T')
        .count()
}

#[test]
fn sizes_change_and_connections_stay() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let small = config(&database)
        .pool_size(1)
        .general("checkout_timeout", "500")
        .general("rollback_timeout", "100");
    let proxy = Proxy::start(&small);
    let mut client = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    assert_eq!(most_at_once(&proxy, &database, 3), 1);
    reload(&proxy, &small.clone().pool_size(3));
    assert_eq!(
        client.query_value("select pg_backend_pid()"),
        pid,
        "the connection is kept"
    );
    assert_eq!(most_at_once(&proxy, &database, 4), 3);
    reload(&proxy, &small);
    let mut activity = Activity::of(Postgres::shared(), &database);
    assert!(
        wait::until(PATIENCE, || {
            client.run("select 1");
            activity.count("true") == 1
        }),
        "what is too much is closed"
    );
}

#[test]
fn users_and_passwords_change() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let with = |users: &[(&str, &str)]| {
        let config = ProxyConfig::transaction(Postgres::shared())
            .general("auth_type", "\"scram\"")
            .database(database.name());
        users.iter().fold(config, |config, (user, password)| {
            config.append_users(&format!(
                "[[users]]\nname = \"{user}\"\ndatabase = \"{}\"\npassword = \"{password}\"\nserver_user = \"pgdog\"\nserver_password = \"pgdog\"",
                database.name()
            ))
        })
    };
    let proxy = Proxy::start(&with(&[("alice", "old"), ("bob", "bob")]));
    let login = |user: &str, password: &str| {
        Psql::new(proxy.port(), user, database.name())
            .password(password)
            .run("select 1")
            .success
    };
    assert!(login("alice", "old") && login("bob", "bob") && !login("carol", "carol"));
    reload(&proxy, &with(&[("alice", "new"), ("carol", "carol")]));
    assert!(login("alice", "new") && login("carol", "carol"));
    assert!(!login("alice", "old") && !login("bob", "bob"));
}

#[test]
fn a_client_whose_user_is_gone_may_finish_and_is_told() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let both = config(&database).user("postgres", "x");
    let proxy = Proxy::start(&both);
    let mut inside = proxy.client("pgdog", database.name());
    let mut idle = proxy.client("pgdog", database.name());
    let mut stays = proxy.client("postgres", database.name());
    inside.run("begin");
    let without = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("postgres", "x");
    reload(&proxy, &without);
    inside.run("select 1");
    inside.run("commit");
    for client in [&mut inside, &mut idle] {
        client.send(&[Message::query("select 1")]);
        let told = lines(&client.until_eof().expect("it is closed"));
        assert!(
            told.last()
                .is_some_and(|line| line.starts_with("E FATAL 57P01")),
            "{told:?}"
        );
    }
    assert_eq!(stays.query_value("select 1"), "1");
    assert!(RawClient::try_login(proxy.port(), "pgdog", database.name()).is_err());
    Activity::of(Postgres::shared(), &database).wait(0, "usename = 'pgdog'");
}

#[test]
fn nobody_notices_that_pools_are_replaced_under_load() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let with = |limit: usize| {
        ProxyConfig::transaction(Postgres::shared())
            .pool_size(2)
            .database_with(database.name(), &[&format!("statement_timeout = {limit}")])
            .user("pgdog", "pgdog")
    };
    let proxy = Proxy::start(&with(50_000));
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = proxy.client("pgdog", database.name());
                while !done.load(Ordering::Relaxed) {
                    client.run("select pg_sleep(0.001)");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=12 {
            reload(&proxy, &with(50_000 + round));
            let before = answered.load(Ordering::Relaxed);
            // A client that failed has panicked: then nobody is left to count.
            let goes_on = wait::until(PATIENCE, || answered.load(Ordering::Relaxed) > before + 16);
            if !goes_on {
                done.store(true, Ordering::Relaxed);
            }
            assert!(goes_on, "round {round}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(client.query_value("show statement_timeout"), "50012ms");
    let mut activity = Activity::of(Postgres::shared(), &database);
    assert!(
        wait::until(PATIENCE, || activity.count("true") <= 2),
        "old connections are closed"
    );
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_explained() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let right = config(&database).pool_size(1);
    let proxy = Proxy::start(&right);
    let mut client = proxy.client("pgdog", database.name());
    let pid = client.query_value("select pg_backend_pid()");
    let wrong = [
        (
            right.clone().general("defaul_pool_size", "3"),
            "did you mean \"default_pool_size\"",
        ),
        (
            right.clone().general("default_pool_size", "\"three\""),
            "default_pool_size",
        ),
        (right.clone().append("[[databases"), "pgdog.toml:"),
        (
            right.clone().append_users(
                "[[users]]\nname = \"x\"\ndatabase = \"no_such_database\"\npassword = \"x\"",
            ),
            "no_such_database",
        ),
        (
            right
                .clone()
                .general("tls_certificate", "\"/nonexistent/cert\"")
                .general("tls_private_key", "\"/nonexistent/key\""),
            "/nonexistent/",
        ),
    ];
    for (number, (config, hint)) in wrong.iter().enumerate() {
        proxy.write_config(config);
        proxy.reload();
        let failed = || proxy.log().matches("failed to reload").count();
        assert!(
            wait::until(PATIENCE, || failed() > number),
            "{hint}: not refused"
        );
        assert!(proxy.log().contains(hint), "{hint}:\n{}", proxy.log());
        assert_eq!(client.query_value("select pg_backend_pid()"), pid, "{hint}");
        proxy.client("pgdog", database.name()).run("select 1");
    }
    fs::remove_file(proxy.path("pgdog.toml")).expect("the file is there");
    proxy.reload();
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .matches("failed to reload")
        .count()
        > wrong.len()));
    assert_eq!(
        client.query_value("select pg_backend_pid()"),
        pid,
        "no file"
    );
    reload(&proxy, &right);
    assert_eq!(client.query_value("select pg_backend_pid()"), pid);
}

#[test]
fn what_needs_a_restart_says_so() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    reload(&proxy, &config(&database).general("workers", "3"));
    assert!(
        wait::until(PATIENCE, || proxy.log().contains("at the next start")),
        "{}",
        proxy.log()
    );
}
