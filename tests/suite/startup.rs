//! What a login meets before Postgres is asked, where Postgres itself is no oracle.

use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, RawClient, Received};

fn proxy(postgres: &Postgres) -> Proxy {
    Proxy::start(
        &ProxyConfig::transaction(postgres)
            .database("postgres")
            .user("pgdog", "pgdog"),
    )
}

fn startup() -> Message {
    Message::startup(&[("user", "pgdog"), ("database", "postgres")])
}

#[test]
fn encryption_is_declined_and_the_login_goes_on() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(Postgres::shared());
    let orders = [
        vec![Message::GssRequest],
        vec![Message::GssRequest, Message::SslRequest],
        vec![Message::SslRequest, Message::GssRequest],
    ];
    for order in orders {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        for request in &order {
            client.send(std::slice::from_ref(request));
            assert_eq!(client.receive_byte(PATIENCE), Some(b'N'), "{order:?}");
        }
        client.send(&[startup()]);
        assert_eq!(
            client
                .until_ready()
                .last()
                .and_then(pgdog_tests::Frame::status),
            Some('I'),
            "{order:?}"
        );
        assert_eq!(client.query_value("select 1"), "1");
    }
}

#[test]
fn a_login_that_says_nothing_hurts_nobody() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(Postgres::shared());
    let mut silent: Vec<RawClient> = (0..20)
        .map(|_| RawClient::open(proxy.port()).expect("the proxy accepts"))
        .collect();
    assert_eq!(
        proxy.client("pgdog", "postgres").query_value("select 1"),
        "1"
    );
    for client in &mut silent {
        assert_eq!(client.receive(Duration::from_millis(1)), Received::Silence);
    }
    drop(silent);
    assert_eq!(
        proxy.client("pgdog", "postgres").query_value("select 2"),
        "2"
    );
}

#[test]
fn an_unknown_database_is_named_in_the_refusal() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(Postgres::shared());
    let refusal = RawClient::try_login(proxy.port(), "pgdog", "nowhere")
        .expect_err("there is no such database");
    assert!(
        refusal.starts_with("E FATAL 3D000") || refusal.starts_with("E FATAL 28"),
        "{refusal}"
    );
}
