//! Bytes that no PostgreSQL client or server would send: whoever sends them gets an error or a closed connection in
//! time, and nobody else notices.

mod fake;
mod servers;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgdog_tests::message::encode_all;
use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Database, Frame, Message, Postgres, Proxy, ProxyConfig, RawClient, Received, wait,
};

/// A protocol violation.
const VIOLATION: &str = "08P01";

fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog")
        .pool_size(2)
}

fn startup(database: &Database<'_>) -> Message {
    Message::startup(&[("user", "pgdog"), ("database", database.name())])
}

/// The proxy serves as if nothing had happened, and everybody's server is free again.
fn still_serves(proxy: &Proxy, database: &Database<'_>) {
    let mut clients: Vec<_> = (0..2)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    for client in &mut clients {
        client.run("begin");
    }
    for client in &mut clients {
        assert_eq!(client.query_value("select 7"), "7");
        client.run("commit");
    }
}

fn message(kind: u8, length: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// What came until the proxy closed the connection, which it must do.
fn ended(mut client: RawClient, what: &str) -> Vec<Frame> {
    client
        .until_eof()
        .unwrap_or_else(|| panic!("{what}: neither an error nor a close"))
}

fn codes(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .filter(|f| f.tag == b'E')
        .filter_map(|f| f.field(b'C'))
        .collect()
}

/// Bytes that look random and are the same each time.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(step).collect()
}

#[test]
fn noise_instead_of_a_login_is_refused_or_closed() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("client_login_timeout", "1000"));
    for seed in 0..100 {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send_bytes(noise(seed, 1 + seed as usize * 3));
        ended(client, &format!("noise {seed}"));
    }
    still_serves(&proxy, &database);
}

#[test]
fn first_packets_of_impossible_lengths_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for length in [i32::MIN, -1, 0, 1, 4, 7, 10_001, 1 << 20, i32::MAX] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0, 3, 0, 0]);
        client.send_bytes(bytes);
        let frames = ended(client, &format!("length {length}"));
        assert_eq!(codes(&frames), [VIOLATION], "length {length}");
    }
    // A right length around wrong contents.
    for body in [
        &b""[..],
        b"user",
        b"user\0",
        b"user\0pgdog",
        b"user\0pgdog\0",
        b"user\0pgdog\0\0more",
        b"\0",
        b"user\0\xff\0\0",
    ] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        let mut bytes = (8 + body.len() as i32).to_be_bytes().to_vec();
        bytes.extend([0, 3, 0, 0]);
        bytes.extend(body);
        client.send_bytes(bytes);
        let frames = ended(client, &format!("{body:?}"));
        assert_eq!(codes(&frames).len(), 1, "{body:?}: {frames:?}");
    }
    still_serves(&proxy, &database);
}

#[test]
fn a_login_cut_off_at_any_byte_leaves_nothing() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let bytes = encode_all(&[
        startup(&database),
        Message::query("select 1"),
        Message::parse("a", "select 2"),
        Message::Sync,
    ]);
    for cut in 0..bytes.len() {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send_bytes(bytes[..cut].to_vec());
    }
    still_serves(&proxy, &database);
}

#[test]
fn messages_of_impossible_lengths_are_protocol_violations() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for kind in *b"QPBEDCSHFXdcfp" {
        for length in [i32::MIN, -1, 0, 3, 0x4000_0000, i32::MAX] {
            let mut client = proxy.client("pgdog", database.name());
            client.send_bytes(message(kind, length, b"abc"));
            let what = format!("{} of length {length}", kind as char);
            assert_eq!(codes(&ended(client, &what)), [VIOLATION], "{what}");
        }
    }
    // The small kinds have a small limit.
    for kind in *b"EDCSHXcf" {
        let mut client = proxy.client("pgdog", database.name());
        client.send_bytes(message(kind, 1 << 20, b"abc"));
        let what = format!("large {}", kind as char);
        assert_eq!(codes(&ended(client, &what)), [VIOLATION], "{what}");
    }
    // In a Flush there is nothing at all.
    let mut client = proxy.client("pgdog", database.name());
    client.send_bytes(message(b'H', 7, b"abc"));
    assert_eq!(
        codes(&ended(client, "a Flush with something in it")),
        [VIOLATION]
    );
    still_serves(&proxy, &database);
}

#[test]
fn unknown_kinds_of_messages_are_protocol_violations() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for kind in (0..=255u8).filter(|kind| !b"QPBEDCSHFXdcf".contains(kind)) {
        let mut client = proxy.client("pgdog", database.name());
        client.send_bytes(message(kind, 4, b""));
        assert_eq!(
            codes(&ended(client, &format!("kind {kind}"))),
            [VIOLATION],
            "kind {kind}"
        );
    }
    // Also in the middle of a transaction: what the client did is undone.
    database.run("create table t (a int)");
    let mut client = proxy.client("pgdog", database.name());
    client.run("begin; insert into t values (1)");
    client.send_bytes(message(b'y', 4, b""));
    assert_eq!(codes(&ended(client, "in a transaction")), [VIOLATION]);
    still_serves(&proxy, &database);
    assert_eq!(database.client().query_value("select count(*) from t"), "0");
}

#[test]
fn noise_in_a_session_harms_nobody() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let kinds = b"QPBEDCSHFXdcf";
    for seed in 0..150 {
        let mut client = proxy.client("pgdog", database.name());
        let mut bytes = Vec::new();
        for part in 0..5 {
            // Right frames around wrong contents, and at last no frame at all.
            let body = noise(seed * 10 + part, (seed % 40) as usize);
            bytes.extend(message(
                kinds[body.len() % kinds.len()],
                4 + body.len() as i32,
                &body,
            ));
        }
        bytes.extend(noise(seed, 20));
        client.send_bytes(bytes);
        drop(client);
        let mut client = proxy.client("pgdog", database.name());
        client.send_bytes(message(
            kinds[seed as usize % kinds.len()],
            24,
            &noise(seed, 20),
        ));
        client.send(&[
            Message::CopyFail(b"no".to_vec()),
            Message::Sync,
            Message::query("select 1"),
        ]);
        // Whatever it was, it is answered or ends the session.
        let answered = loop {
            match client.receive(PATIENCE) {
                Received::Frame(frame) if frame.tag == b'D' => break true,
                Received::Frame(_) => {}
                Received::Eof => break true,
                Received::Silence => break false,
            }
        };
        assert!(answered, "seed {seed}");
    }
    still_serves(&proxy, &database);
}

#[test]
fn torn_contents_of_messages_are_answered_as_postgres_does() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let bodies: [&[u8]; 8] = [
        b"",
        b"\0",
        b"a",
        b"a\0",
        b"a\0b\0\0\x05",
        b"S",
        b"Zx\0",
        b"\0\0\xff\xff\xff\xff",
    ];
    for kind in *b"QPBDECF" {
        for body in bodies {
            let mut answers = Vec::new();
            for port in [Postgres::shared().port(), proxy.port()] {
                let mut client = RawClient::login(port, "pgdog", database.name());
                client.send_bytes(message(kind, 4 + body.len() as i32, body));
                client.send(&[Message::Sync, Message::query("select 5")]);
                let mut frames = Vec::new();
                // Both forms of answers: with and without a ReadyForQuery of its own.
                while !frames.iter().any(|f: &Frame| f.tag == b'D') {
                    match client.receive(PATIENCE) {
                        Received::Frame(frame) => frames.push(frame),
                        Received::Eof => break,
                        Received::Silence => panic!(
                            "{} {body:?} on port {port}: silence after {frames:?}",
                            kind as char
                        ),
                    }
                }
                answers.push((
                    frames.iter().map(|f| f.tag as char).collect::<String>(),
                    codes(&frames),
                ));
            }
            assert_eq!(answers[0], answers[1], "{} {body:?}", kind as char);
        }
    }
    still_serves(&proxy, &database);
}

/// Memory that the proxy uses, bytes; `None` where the system does not tell.
fn memory(proxy: &Proxy) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[test]
fn messages_that_claim_a_gigabyte_take_no_memory() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("checkout_timeout", "1000"));
    still_serves(&proxy, &database);
    let Some(before) = memory(&proxy) else { return };
    let mut half_open = Vec::new();
    for kind in *b"QPBFd" {
        for _ in 0..40 {
            let mut client = proxy.client("pgdog", database.name());
            client.send_bytes(message(kind, 0x3fff_fff0, b"\0\0select"));
            half_open.push(client);
        }
    }
    for kind in *b"ED" {
        for _ in 0..40 {
            let mut client = proxy.client("pgdog", database.name());
            client.send_bytes(message(kind, 9_000, b"half"));
            half_open.push(client);
        }
    }
    let grew = || memory(&proxy).map_or(0, |now| now.saturating_sub(before));
    // As long as it takes the proxy to have read all of them, and longer.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert!(grew() < 48 << 20, "{} bytes for 280 half messages", grew());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(half_open);
    assert!(wait::until(PATIENCE, || RawClient::try_login(
        proxy.port(),
        "pgdog",
        database.name()
    )
    .is_ok_and(|mut c| c
        .query("select 1")
        .iter()
        .any(|f| f.tag == b'D'))));
    still_serves(&proxy, &database);
}

#[test]
fn a_client_that_does_not_read_does_not_fill_the_memory() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    still_serves(&proxy, &database);
    let Some(before) = memory(&proxy) else { return };
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy accepts");
    let endless = Message::query("select repeat('x', 100000) from generate_series(1, 2000)");
    stream
        .write_all(&encode_all(&[startup(&database), endless]))
        .expect("the proxy reads");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let grew = memory(&proxy).map_or(0, |now| now.saturating_sub(before));
        assert!(
            grew < 16 << 20,
            "{grew} bytes for a client that does not read"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(stream);
    still_serves(&proxy, &database);
}
