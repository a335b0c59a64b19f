//! Clients towards the proxy.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Authority, Message, Postgres, PostgresOptions, Proxy, Psql, RawClient};

use super::{asking, refusal, secret};

#[test]
fn each_kind_of_password_lets_in_who_knows_it_and_nobody_else() {
    if !Postgres::installed() {
        return;
    }
    for auth in ["scram", "md5", "plain"] {
        let config = asking(Postgres::shared(), auth)
            .general("plain_without_tls", "true")
            .database("postgres")
            .append_users("[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"sécret \\\\'\\\"$1\"");
        let proxy = Proxy::start(&config);
        let psql = Psql::new(proxy.port(), "pgdog", "postgres");
        let right = psql
            .clone()
            .password("sécret \\'\"$1")
            .run("select current_user");
        assert_eq!(right.expect(auth), "pgdog");
        let wrong = psql.clone().password("secret").run("select 1");
        let told = wrong.expect_error(auth);
        assert!(
            told.contains("password authentication failed for user \"pgdog\""),
            "{auth}: {told}"
        );
        let none = psql.run("select 1");
        assert!(
            none.expect_error(auth).contains("password"),
            "{auth}: {}",
            none.stderr
        );
    }
}

#[test]
fn every_password_of_a_rotation_is_right() {
    if !Postgres::installed() {
        return;
    }
    for auth in ["scram", "md5", "plain"] {
        let config = asking(Postgres::shared(), auth).general("plain_without_tls", "true").database("postgres").append_users(
            "[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"new\"\npasswords = [\"old\", \"older\"]",
        );
        let proxy = Proxy::start(&config);
        let psql = Psql::new(proxy.port(), "pgdog", "postgres");
        for password in ["new", "old", "older"] {
            let output = psql.clone().password(password).run("select 1");
            assert_eq!(output.expect(&format!("{auth} {password}")), "1");
        }
        psql.clone()
            .password("oldest")
            .run("select 1")
            .expect_error(auth);
    }
}

#[test]
fn a_plain_password_is_asked_for_over_tls_only() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let config = with_tls(secret("plain"), &authority);
    let proxy = Proxy::start(&config);
    let psql = Psql::new(proxy.port(), "pgdog", "postgres").password("secret");
    let refused = psql.run("select 1");
    assert!(
        refused.expect_error("without TLS").contains("without TLS"),
        "{}",
        refused.stderr
    );
    let (_, frames) =
        RawClient::login_with(proxy.port(), &[("user", "pgdog"), ("database", "postgres")])
            .expect("it answers");
    assert!(
        frames.iter().all(|frame| frame.tag != b'R'),
        "a password was asked for: {frames:?}"
    );
    assert_eq!(
        psql.with("sslmode", "require")
            .run("select 1")
            .expect("over TLS"),
        "1"
    );
}

#[test]
fn trusted_users_need_no_password_and_unknown_ones_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let config = secret("trust");
    let proxy = Proxy::start(&config);
    assert_eq!(
        proxy.client("pgdog", "postgres").query_value("select 1"),
        "1"
    );
    let told = RawClient::try_login(proxy.port(), "stranger", "postgres")
        .expect_err("nobody knows the stranger");
    assert!(told.starts_with("E FATAL 28"), "{told}");
}

#[test]
fn a_users_own_way_wins_over_the_general_one() {
    if !Postgres::installed() {
        return;
    }
    let config = asking(Postgres::shared(), "trust").database("postgres").user("postgres", "x").append_users(
        "[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"secret\"\nauth_type = \"scram\"",
    );
    let proxy = Proxy::start(&config);
    assert_eq!(
        proxy.client("postgres", "postgres").query_value("select 1"),
        "1"
    );
    Psql::new(proxy.port(), "pgdog", "postgres")
        .run("select 1")
        .expect_error("no password");
    let output = Psql::new(proxy.port(), "pgdog", "postgres")
        .password("secret")
        .run("select 1");
    assert_eq!(output.expect("the right password"), "1");
}

#[test]
fn a_verifier_serves_clients_and_another_password_the_server() {
    if !Postgres::installed() {
        return;
    }
    let postgres =
        Postgres::start(&PostgresOptions::default().hba("host all hashed all scram-sha-256"));
    postgres.run(
        "postgres",
        "create role hashed login password 'for the server'",
    );
    // A verifier as Postgres itself makes it.
    postgres.run("postgres", "create role maker password 'for clients'");
    let verifier = postgres.value(
        "postgres",
        "select rolpassword from pg_authid where rolname = 'maker'",
    );
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "{verifier}");
    for auth in ["scram", "plain"] {
        let config = asking(&postgres, auth).general("plain_without_tls", "true").database("postgres").append_users(&format!(
            "[[users]]\nname = \"hashed\"\ndatabase = \"postgres\"\npassword_hash = \"{verifier}\"\nserver_password = \"for the server\""
        ));
        let proxy = Proxy::start(&config);
        let psql = Psql::new(proxy.port(), "hashed", "postgres");
        assert_eq!(
            psql.clone()
                .password("for clients")
                .run("select current_user")
                .expect(auth),
            "hashed"
        );
        psql.clone()
            .password("for the server")
            .run("select 1")
            .expect_error(auth);
    }
}

#[test]
fn passwords_are_prepared_as_postgres_does() {
    if !Postgres::installed() {
        return;
    }
    // RFC 4013: a soft hyphen is mapped to nothing, a roman numeral to its letters.
    for auth in ["scram", "plain"] {
        let config = asking(Postgres::shared(), auth)
            .general("plain_without_tls", "true")
            .database("postgres")
            .user("pgdog", "I\u{ad}X");
        let proxy = Proxy::start(&config);
        for password in ["IX", "\u{2168}", "I\u{ad}X"] {
            let output = Psql::new(proxy.port(), "pgdog", "postgres")
                .password(password)
                .run("select 1");
            assert_eq!(output.expect(&format!("{auth} {password:?}")), "1");
        }
        Psql::new(proxy.port(), "pgdog", "postgres")
            .password("ix")
            .run("select 1")
            .expect_error(auth);
    }
}

#[test]
fn a_certificate_stands_for_its_user() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let config = with_tls(asking(Postgres::shared(), "scram"), &authority)
        .general("tls_client_ca_certificate", &quoted(&authority.certificate()))
        .database("postgres")
        .append_users("[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"secret\"\nidentity = \"alice\"")
        .append_users("[[users]]\nname = \"postgres\"\ndatabase = \"postgres\"\npassword = \"secret\"\nidentity = \"bob\"\ntls_client_certificate_required = false");
    let proxy = Proxy::start(&config);
    let (alice, bob) = (authority.issue("alice", &[]), authority.issue("bob", &[]));
    let only_certificate = Psql::new(proxy.port(), "pgdog", "postgres");
    let either = Psql::new(proxy.port(), "postgres", "postgres");

    let welcome = only_certificate
        .clone()
        .certificate(&alice.certificate, &alice.key)
        .run("select current_user");
    assert_eq!(welcome.expect("alice is pgdog"), "pgdog");
    let other = only_certificate
        .clone()
        .certificate(&bob.certificate, &bob.key)
        .password("secret")
        .run("select 1");
    other.expect_error("bob is not pgdog");
    let none = only_certificate
        .clone()
        .with("sslmode", "require")
        .password("secret")
        .run("select 1");
    assert!(
        none.expect_error("a certificate is the only way")
            .contains("certificate"),
        "{}",
        none.stderr
    );
    only_certificate
        .password("secret")
        .run("select 1")
        .expect_error("a certificate is the only way");

    let welcome = either
        .clone()
        .certificate(&bob.certificate, &bob.key)
        .run("select current_user");
    assert_eq!(welcome.expect("bob is postgres"), "postgres");
    let password = either
        .clone()
        .with("sslmode", "require")
        .password("secret")
        .run("select 1");
    assert_eq!(password.expect("a password does too"), "1");
    let password = either
        .clone()
        .certificate(&alice.certificate, &alice.key)
        .password("secret")
        .run("select 1");
    assert_eq!(
        password.expect("a password beside a certificate that does not matter"),
        "1"
    );
    either
        .with("sslmode", "require")
        .password("wrong")
        .run("select 1")
        .expect_error("a wrong password");

    let stranger = Authority::new().issue("alice", &[]);
    let psql = Psql::new(proxy.port(), "pgdog", "postgres")
        .certificate(&stranger.certificate, &stranger.key);
    psql.run("select 1")
        .expect_error("an authority that is not trusted");
}

#[test]
fn an_unknown_database_is_told_to_those_who_proved_who_they_are() {
    if !Postgres::installed() {
        return;
    }
    let proxy = Proxy::start(&secret("scram"));
    let psql = Psql::new(proxy.port(), "pgdog", "nowhere");
    let told = psql.clone().password("secret").run("select 1");
    assert!(
        told.expect_error("no such database")
            .contains("database \"nowhere\" does not exist"),
        "{}",
        told.stderr
    );
    let told = psql.password("wrong").run("select 1");
    assert!(
        told.expect_error("wrong password")
            .contains("password authentication failed"),
        "{}",
        told.stderr
    );
    // Neither is known: as a wrong password, not one word of the database.
    for auth in ["scram", "md5", "plain"] {
        let proxy = Proxy::start(&secret(auth).general("plain_without_tls", "true"));
        let psql = Psql::new(proxy.port(), "nobody", "nowhere").password("secret");
        let told = psql.run("select 1");
        let words = "password authentication failed for user \"nobody\"";
        assert!(
            told.expect_error(auth).contains(words) && !told.stderr.contains("does not exist"),
            "{auth}: {}",
            told.stderr
        );
        for (user, database) in [("nobody", "nowhere"), ("pgdog", "nowhere")] {
            let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
            client.send(&[Message::startup(&[("user", user), ("database", database)])]);
            let asked = client.take(1).first().map(|frame| frame.tag);
            assert_eq!(asked, Some(b'R'), "{auth}: {user} is asked first");
        }
    }

    let proxy = Proxy::start(&secret("trust"));
    let (_, frames) =
        RawClient::login_with(proxy.port(), &[("user", "pgdog"), ("database", "nowhere")])
            .expect("it answers");
    assert!(refusal(&frames).starts_with("E FATAL 3D000"), "{frames:?}");
}

#[test]
fn a_password_message_out_of_place_ends_the_login() {
    if !Postgres::installed() {
        return;
    }
    let proxy = Proxy::start(&secret("md5"));
    for wrong in [
        Message::query("select 1"),
        Message::Raw(vec![b'p', 0, 0, 0, 3]),
        Message::Raw(vec![b'p', 0x7f, 0xff, 0xff, 0xff]),
    ] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send(&[Message::startup(&[
            ("user", "pgdog"),
            ("database", "postgres"),
        ])]);
        assert!(
            matches!(client.receive(PATIENCE), pgdog_tests::Received::Frame(frame) if frame.tag == b'R')
        );
        client.send(std::slice::from_ref(&wrong));
        let frames = client.until_eof().expect("it is closed");
        assert!(
            refusal(&frames).starts_with("E FATAL 08P01"),
            "{wrong:?}: {frames:?}"
        );
    }
}

/// TLS for clients, with a certificate of this authority.
pub(crate) fn with_tls(
    config: pgdog_tests::ProxyConfig,
    authority: &Authority,
) -> pgdog_tests::ProxyConfig {
    let pair = authority.issue("proxy", &["localhost", "127.0.0.1"]);
    config
        .general("tls_certificate", &quoted(&pair.certificate))
        .general("tls_private_key", &quoted(&pair.key))
}

/// A path as TOML.
pub(crate) fn quoted(path: &std::path::Path) -> String {
    format!("\"{}\"", path.display())
}
