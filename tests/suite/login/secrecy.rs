//! Who is unknown looks and times like who errs.

use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, RawClient, Received};

use super::asking;

/// Attempts of each kind; the quickest are compared, since whatever else the machine does only adds to them.
const ROUNDS: usize = 20;
/// Attempts after which a difference is one: on a busy machine it takes more of them until a quick one was among them.
const MOST_ROUNDS: usize = 200;

#[test]
fn with_scram() {
    with("scram", |client| {
        let first = sasl_initial();
        client.send(&[Message::Password(first)]);
        let nonce = server_nonce(client);
        let last = format!("c=biws,r={nonce},p={}=", "A".repeat(43));
        client.send(&[Message::Password(last.into_bytes())]);
    });
}

#[test]
fn with_md5() {
    with("md5", |client| {
        client.send(&[Message::Password(
            b"md500000000000000000000000000000000\0".to_vec(),
        )])
    });
}

#[test]
fn with_plain() {
    with("plain", |client| {
        client.send(&[Message::Password(b"wrong\0".to_vec())])
    });
}

#[test]
fn salts_of_unknown_users_stay_the_same() {
    if !Postgres::installed() {
        return;
    }
    let proxy = Proxy::start(&config("scram"));
    let salt = |user: &str| {
        let mut client = greeted(&proxy, user);
        client.send(&[Message::Password(sasl_initial())]);
        let text = sasl_continue(&mut client);
        text.split(',')
            .find_map(|part| part.strip_prefix("s=").map(str::to_owned))
            .expect("there is a salt")
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    assert_eq!(salt("pgdog"), salt("pgdog"));
    assert_eq!(salt("pgdog").len(), salt("nobody").len());
}

fn config(auth: &str) -> ProxyConfig {
    asking(Postgres::shared(), auth)
        .general("plain_without_tls", "true")
        // What is measured is the proof, and there are many wrong ones.
        .general("auth_failure_delay", "0")
        .database("postgres")
        .user("pgdog", "secret")
}

/// Fails to log in as a known and as an unknown user, and compares.
fn with(auth: &str, answer: impl Fn(&mut RawClient)) {
    if !Postgres::installed() {
        return;
    }
    let proxy = Proxy::start(&config(auth));
    let attempt = |user: &str| {
        let start = Instant::now();
        let mut client = greeted(&proxy, user);
        answer(&mut client);
        let frames = client.until_eof().expect("it is closed");
        (
            start.elapsed(),
            pgdog_tests::transcript::lines(&frames)
                .join("\n")
                .replace(user, "USER"),
        )
    };
    // What is derived once is derived now.
    assert_eq!(attempt("pgdog").1, attempt("nobody").1);
    let mut quickest = [Duration::MAX; 2];
    for round in 1.. {
        for (user, quickest) in ["pgdog", "nobody"].iter().zip(&mut quickest) {
            let (time, told) = attempt(user);
            assert!(
                told.contains("FATAL 28P01: password authentication failed for user \"USER\""),
                "{user}: {told}"
            );
            *quickest = time.min(*quickest);
        }
        let [known, unknown] = quickest;
        let allowed = Duration::from_millis(2).max(known.min(unknown) / 3);
        if round >= ROUNDS && known.abs_diff(unknown) < allowed {
            return;
        }
        assert!(
            round < MOST_ROUNDS,
            "known {known:?}, unknown {unknown:?} after {round} rounds"
        );
    }
}

/// A client that has been asked for its password.
fn greeted(proxy: &Proxy, user: &str) -> RawClient {
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::startup(&[
        ("user", user),
        ("database", "postgres"),
    ])]);
    match client.receive(PATIENCE) {
        Received::Frame(frame) if frame.tag == b'R' => client,
        other => panic!("{user} was not asked: {other:?}"),
    }
}

fn sasl_initial() -> Vec<u8> {
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let mut body = b"SCRAM-SHA-256\0".to_vec();
    body.extend(
        u32::try_from(first.len())
            .expect("it is short")
            .to_be_bytes(),
    );
    body.extend(first);
    body
}

fn sasl_continue(client: &mut RawClient) -> String {
    match client.receive(PATIENCE) {
        Received::Frame(frame) if frame.tag == b'R' => {
            String::from_utf8_lossy(&frame.body[4..]).into_owned()
        }
        other => panic!("no server-first-message: {other:?}"),
    }
}

fn server_nonce(client: &mut RawClient) -> String {
    let text = sasl_continue(client);
    text.split(',')
        .find_map(|part| part.strip_prefix("r=").map(str::to_owned))
        .expect("there is a nonce")
}
