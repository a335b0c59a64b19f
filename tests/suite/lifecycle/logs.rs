//! The log: its level changes while it is written, floods are counted, and no secret is ever in it.

use std::fs;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Postgres, Proxy, ProxyConfig, Psql, RawClient, wait};

use super::config;

/// What `users.toml` must keep to itself.
const PASSWORD: &str = "correct-horse-battery";
const SERVER_PASSWORD: &str = "staple-of-the-server";
const WRONG: &str = "wrong-horse-battery";

fn logs(proxy: &Proxy, text: &str, times: usize) {
    assert!(
        wait::until(PATIENCE, || proxy.log().matches(text).count() >= times),
        "{text:?} is not there {times} times:\n{}",
        proxy.log()
    );
}

#[test]
fn a_reload_with_another_level_changes_what_is_logged() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let at = |level: &str| config(&database).general("log_level", &format!("\"{level}\""));
    let proxy = Proxy::start(&at("info"));
    let connect = || drop(proxy.client("pgdog", database.name()));
    connect();
    logs(&proxy, "client connected", 1);
    logs(&proxy, " disconnected", 1);

    // The reload is not logged at this level: another user shows that it is over.
    proxy.write_config(&at("error").user("postgres", "x"));
    proxy.reload();
    let reloaded = || RawClient::try_login(proxy.port(), "postgres", database.name()).is_ok();
    assert!(wait::until(PATIENCE, reloaded), "no reload");
    let before = proxy.log().lines().count();
    (0..3).for_each(|_| connect());
    assert_eq!(proxy.log().lines().count(), before, "{}", proxy.log());

    proxy.write_config(&at("info,pgdog_session=off"));
    proxy.reload();
    logs(&proxy, "configuration reloaded", 1);
    let connected = proxy.log().matches("client connected").count();
    connect();
    logs(&proxy, "client connected", connected + 1);
}

#[test]
fn a_level_that_is_none_is_refused_with_its_name() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let right = config(&database);
    let proxy = Proxy::start(&right);
    proxy.write_config(&right.general("log_level", "\"inof\""));
    proxy.reload();
    logs(&proxy, "failed to reload", 1);
    logs(&proxy, "general.log_level = \"inof\"", 1);
    assert!(proxy.log().contains("error, warn, info"), "{}", proxy.log());
}

#[test]
fn repeated_lines_are_counted_once_a_reload_says_so() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let quiet = config(&database)
        .general("log_connections", "false")
        .general("log_disconnections", "false");
    let proxy = Proxy::start(&quiet);
    let counted = quiet
        .general("log_dedup_threshold", "2")
        .general("log_dedup_window", "500");
    proxy.write_config(&counted);
    proxy.reload();
    logs(&proxy, "configuration reloaded", 1);
    let wrong = counted.general("no_such_key", "1");
    proxy.write_config(&wrong);
    // One signal for each reload: several at once are one.
    let enough = || {
        proxy.reload();
        proxy.log().contains(": repeated ")
    };
    assert!(wait::until(PATIENCE, enough), "{}", proxy.log());
    let line = proxy.log();
    let line = line.split(": repeated ").nth(1).expect("it was seen");
    assert!(line.contains(" more times in "), "{line}");
}

/// A proxy whose clients and servers have passwords, at the level that logs most.
fn talkative(database: &str, hash: &str) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"scram\"")
        .general("log_level", "\"trace\"")
        .database(database)
        .append_users(&format!(
            "[[users]]\nname = \"alice\"\ndatabase = \"{database}\"\npassword = \"{PASSWORD}\"\nserver_user = \"pgdog\"\nserver_password = \"{SERVER_PASSWORD}\"\n\n\
             [[users]]\nname = \"bob\"\ndatabase = \"{database}\"\npassword_hash = \"{hash}\"\nserver_user = \"pgdog\"\nserver_password = \"{SERVER_PASSWORD}\"",
        ))
}

fn hash(password: &str) -> String {
    let out = std::process::Command::new(pgdog_tests::binaries::pgdog())
        .args(["hash", password])
        .output()
        .expect("the proxy runs");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[test]
fn no_password_is_ever_logged() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let hash = hash(PASSWORD);
    assert!(hash.starts_with("SCRAM-SHA-256$"), "{hash}");
    let right = talkative(database.name(), &hash);
    let proxy = Proxy::start(&right);
    let login = |user: &str, password: &str| {
        Psql::new(proxy.port(), user, database.name())
            .password(password)
            .run("select 1")
            .success
    };
    assert!(login("alice", PASSWORD) && login("bob", PASSWORD));
    assert!(!login("alice", WRONG) && !login("bob", WRONG) && !login("carol", WRONG));

    // Whatever is wrong beside a secret, the message must not show the line.
    let users = right.users_toml();
    let broken = [
        users.replace(
            &format!("password = \"{PASSWORD}\""),
            &format!("password = \"{PASSWORD}"),
        ),
        users.replace(
            &format!("password = \"{PASSWORD}\""),
            &format!("password = {PASSWORD}"),
        ),
        users.replace(
            &format!("password = \"{PASSWORD}\""),
            &format!("password = [\"{PASSWORD}\"]"),
        ),
        users.replace(
            &format!("password = \"{PASSWORD}\""),
            &format!("passwrd = \"{PASSWORD}\""),
        ),
        users.replace(&hash, &format!("{hash}x$")),
        users.replace(&hash, &format!("{}\\q", hash)),
    ];
    for (number, users) in broken.iter().enumerate() {
        assert_ne!(*users, right.users_toml(), "{number}");
        fs::write(proxy.path("users.toml"), users).expect("the scratch directory is writable");
        proxy.reload();
        logs(&proxy, "failed to reload", number + 1);
    }
    proxy.write_config(&right.general("log_level", "\"trace,pgdog=trace\""));
    proxy.reload();
    logs(&proxy, "configuration reloaded", 1);
    assert!(login("alice", PASSWORD));

    let log = proxy.log();
    for seen in ["the password is wrong", "client connected", "users.toml:"] {
        assert!(log.contains(seen), "{seen}: {log}");
    }
    let salted: Vec<&str> = hash
        .split(['$', ':'])
        .filter(|part| part.len() > 20)
        .collect();
    assert!(salted.len() >= 2, "{hash}");
    for secret in [PASSWORD, SERVER_PASSWORD, WRONG].iter().chain(&salted) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}
