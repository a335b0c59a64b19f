//! TLS towards clients.

use std::fs;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::tls::{TlsClient, ask};
use pgdog_tests::{Authority, Frame, Message, Postgres, Proxy, Psql, RawClient};

use super::clients::with_tls;
use super::{asking, refusal, secret};

fn startup() -> Message {
    Message::startup(&[("user", "pgdog"), ("database", "postgres")])
}

fn assert_served(client: &mut TlsClient, what: &str) {
    client.send(&[startup()]);
    assert_eq!(
        client.until_ready().last().and_then(Frame::status),
        Some('I'),
        "{what}"
    );
    client.send(&[
        Message::query("select repeat('x', 100000)"),
        Message::query("select 2"),
    ]);
    assert!(
        client
            .until_ready()
            .iter()
            .any(|frame| frame.tag == b'D' && frame.body.len() > 100_000),
        "{what}"
    );
    assert_eq!(
        client.until_ready().last().and_then(Frame::status),
        Some('I'),
        "{what}"
    );
}

#[test]
fn scram_is_bound_to_the_channel() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let proxy = Proxy::start(&with_tls(secret("scram"), &authority));
    let psql = Psql::new(proxy.port(), "pgdog", "postgres")
        .password("secret")
        .with("channel_binding", "require");
    let output = psql.clone().with("sslmode", "require").run("select 1");
    assert_eq!(output.expect("bound"), "1");
    let verified = psql
        .clone()
        .with("sslmode", "verify-full")
        .with("host", "localhost");
    let output = verified
        .with(
            "sslrootcert",
            &authority.certificate().display().to_string(),
        )
        .run("select 1");
    assert_eq!(output.expect("verified and bound"), "1");
    psql.run("select 1")
        .expect_error("nothing to bind to without TLS");
    psql.with("sslmode", "require")
        .password("wrong")
        .run("select 1")
        .expect_error("a wrong password");
    let unbound = Psql::new(proxy.port(), "pgdog", "postgres")
        .password("secret")
        .with("channel_binding", "disable");
    assert_eq!(
        unbound
            .with("sslmode", "require")
            .run("select 1")
            .expect("not bound"),
        "1"
    );
}

#[test]
fn clients_without_tls_are_refused_where_it_is_required() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let config = with_tls(asking(Postgres::shared(), "scram"), &authority)
        .general("tls_client_required", "true")
        .database("postgres")
        .user("pgdog", "secret");
    let proxy = Proxy::start(&config);
    let psql = Psql::new(proxy.port(), "pgdog", "postgres").password("secret");
    let refused = psql.run("select 1");
    assert!(
        refused
            .expect_error("without TLS")
            .contains("TLS is required"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        psql.with("sslmode", "prefer")
            .run("select 1")
            .expect("over TLS"),
        "1"
    );
}

#[test]
fn encryption_is_found_in_every_order_of_asking() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let proxy = Proxy::start(&with_tls(secret("trust"), &authority));
    let orders: [(&[Message], &[u8]); 2] = [
        (&[Message::SslRequest], b"S"),
        (&[Message::GssRequest, Message::SslRequest], b"NS"),
    ];
    for (requests, expected) in orders {
        let (socket, answers) = ask(proxy.port(), requests).expect("the proxy answers");
        assert_eq!(answers, expected);
        let mut client =
            TlsClient::handshake(socket, &authority.certificate(), &[]).expect("a handshake");
        assert_served(&mut client, &format!("{requests:?}"));
    }
    // What follows SSLRequest in the same packet must not be taken for plain text from inside of TLS (CVE-2021-23214).
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::SslRequest, startup()]);
    let told = refusal(&client.until_eof().expect("it is closed"));
    assert!(
        told.starts_with("E FATAL 08P01") && told.contains("unencrypted data after SSL request"),
        "{told}"
    );
    // Nor what comes when the handshake is awaited already.
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::SslRequest]);
    assert_eq!(client.receive_byte(PATIENCE), Some(b'S'));
    client.send(&[startup()]);
    let after = client.until_eof().expect("it is closed");
    assert!(after.iter().all(|frame| frame.tag != b'Z'), "{after:?}");
}

#[test]
fn tls_may_begin_with_the_first_byte_when_the_protocol_is_named() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let proxy = Proxy::start(&with_tls(secret("trust"), &authority));
    let mut client = TlsClient::direct(proxy.port(), &authority.certificate(), &["postgresql"])
        .expect("a handshake");
    assert_eq!(client.protocol().as_deref(), Some("postgresql"));
    assert_served(&mut client, "direct TLS");

    if let Ok(mut client) = TlsClient::direct(proxy.port(), &authority.certificate(), &[]) {
        client.send(&[startup()]);
        let frames = client.until_ready();
        assert!(
            frames.iter().all(|frame| frame.tag == b'E'),
            "without ALPN: {frames:?}"
        );
    }
    if let Ok(mut client) = TlsClient::direct(proxy.port(), &authority.certificate(), &["http/1.1"])
    {
        client.send(&[startup()]);
        assert!(
            client.until_ready().iter().all(|frame| frame.tag == b'E'),
            "with another protocol"
        );
    }

    let plain = Proxy::start(&secret("trust"));
    assert!(
        TlsClient::direct(plain.port(), &authority.certificate(), &["postgresql"]).is_err(),
        "no certificate is configured"
    );
}

#[test]
fn a_new_certificate_is_shown_after_a_reload_and_a_broken_one_is_not() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let pair = authority.issue("served", &["localhost"]);
    let config = asking(Postgres::shared(), "trust")
        .general(
            "tls_certificate",
            &super::clients::quoted(&pair.certificate),
        )
        .general("tls_private_key", &super::clients::quoted(&pair.key))
        .database("postgres")
        .user("pgdog", "secret");
    let proxy = Proxy::start(&config);
    let shown = || {
        let client = TlsClient::direct(proxy.port(), &authority.certificate(), &["postgresql"])
            .expect("a handshake");
        client.server_certificate()
    };
    let mut old_client = TlsClient::direct(proxy.port(), &authority.certificate(), &["postgresql"])
        .expect("a handshake");
    assert_served(&mut old_client, "before the reload");
    let before = shown();
    authority
        .issue("renewed", &["localhost"])
        .install(&pair.certificate, &pair.key);
    assert_eq!(shown(), before, "not before the reload");
    proxy.reload();
    assert!(pgdog_tests::wait::until(PATIENCE, || shown() != before));
    let renewed = shown();

    fs::write(&pair.certificate, "no certificate").expect("the file is ours");
    proxy.reload();
    assert!(pgdog_tests::wait::until(PATIENCE, || {
        proxy.log().contains("failed to reload")
    }));
    assert!(
        proxy
            .log()
            .contains(&pair.certificate.display().to_string()),
        "the log names the file"
    );
    assert_eq!(shown(), renewed);
    old_client.send(&[Message::query("select 1")]);
    assert_eq!(
        old_client.until_ready().last().and_then(Frame::status),
        Some('I'),
        "clients stay"
    );
}
