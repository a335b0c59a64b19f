//! `passthrough_auth`: the server is asked whether the password is right.

use pgdog_tests::{Authority, Postgres, PostgresOptions, Proxy, ProxyConfig, Psql, RawClient};

use super::logs;
use crate::login::clients::with_tls;

fn asking() -> Postgres {
    let options = PostgresOptions::default()
        .hba("host all alice all scram-sha-256")
        .hba("host all bob all md5");
    let postgres = Postgres::start(&options);
    postgres.run(
        "postgres",
        "create role alice login password 'secret'; create role bob login password 'secret'; create role trusted login",
    );
    postgres
}

fn config(postgres: &Postgres, passthrough: &str) -> ProxyConfig {
    ProxyConfig::transaction(postgres)
        .general("auth_type", "\"scram\"")
        .general("auth_failure_delay", "0")
        .general("passthrough_auth", &format!("\"{passthrough}\""))
        .general("log_level", "\"debug\"")
        .database("postgres")
        .append_users("[[users]]\nname = \"listed\"\ndatabase = \"postgres\"\npassword = \"listed\"\nserver_user = \"pgdog\"")
}

fn told(proxy: &Proxy, user: &str, password: &str) -> String {
    let output = Psql::new(proxy.port(), user, "postgres")
        .password(password)
        .run("select current_user");
    if output.success {
        output.stdout.trim().to_owned()
    } else {
        output.stderr
    }
}

#[test]
fn who_knows_the_servers_password_comes_in_and_nobody_else() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let proxy = Proxy::start(&config(&postgres, "enabled_plain"));
    for user in ["alice", "bob"] {
        for _ in 0..2 {
            assert_eq!(told(&proxy, user, "secret"), user);
            let wrong = told(&proxy, user, "wrong");
            let expected = format!("password authentication failed for user \"{user}\"");
            assert!(wrong.contains(&expected), "{wrong}");
        }
    }
    assert!(told(&proxy, "nobody", "secret").contains("password authentication failed"));
    assert_eq!(told(&proxy, "listed", "listed"), "pgdog", "as ever");
    // A server that lets everybody in proves nothing.
    let refused = told(&proxy, "trusted", "anything");
    assert!(refused.contains("needs a server that asks"), "{refused}");
    logs(&proxy, "guest admitted", 2);
}

#[test]
fn a_password_is_asked_for_where_nobody_can_read_along() {
    if !Postgres::installed() {
        return;
    }
    let (postgres, authority) = (asking(), Authority::new());
    let proxy = Proxy::start(&with_tls(config(&postgres, "enabled"), &authority));
    assert!(
        told(&proxy, "alice", "secret").contains("password authentication failed"),
        "without TLS"
    );
    let over_tls = Psql::new(proxy.port(), "alice", "postgres")
        .password("secret")
        .with("sslmode", "require")
        .run("select current_user");
    assert_eq!(over_tls.expect("with TLS"), "alice");
    let proxy = Proxy::start(&with_tls(config(&postgres, "disabled"), &authority));
    let over_tls = Psql::new(proxy.port(), "alice", "postgres")
        .password("secret")
        .with("sslmode", "require");
    over_tls.run("select 1").expect_error("switched off");
}

#[test]
fn another_password_is_tried_where_changes_are_allowed() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let (strict, lenient) = (
        Proxy::start(&config(&postgres, "enabled_plain")),
        Proxy::start(&config(&postgres, "enabled_plain_allow_change")),
    );
    // Somebody who stays keeps the pools.
    let stay = |proxy: &Proxy| {
        assert_eq!(told(proxy, "alice", "secret"), "alice");
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send(&[pgdog_tests::Message::startup(&[
            ("user", "alice"),
            ("database", "postgres"),
        ])]);
        assert_eq!(client.take(1)[0].tag, b'R');
        client.send(&[pgdog_tests::Message::Password(b"secret\0".to_vec())]);
        assert_eq!(
            client.until_ready().last().map(|frame| frame.tag),
            Some(b'Z')
        );
        client
    };
    let mut clients = [stay(&strict), stay(&lenient)];
    postgres.run("postgres", "alter role alice password 'other'");
    assert!(told(&strict, "alice", "other").contains("password authentication failed"));
    assert_eq!(told(&lenient, "alice", "other"), "alice");
    assert!(told(&lenient, "alice", "wrong").contains("password authentication failed"));
    for client in &mut clients {
        assert_eq!(client.query_value("select 1"), "1", "who is in stays in");
    }
}
