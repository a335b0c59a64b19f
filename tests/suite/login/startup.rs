//! The startup packet: versions, options, settings.

use pgdog_tests::message::encode_all;
use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, RawClient};

use super::refusal;

fn proxy(pool_size: usize) -> Proxy {
    let config = ProxyConfig::transaction(Postgres::shared()).pool_size(pool_size);
    Proxy::start(&config.database("postgres").user("pgdog", "pgdog"))
}

fn start(proxy: &Proxy, version: (u16, u16), more: &[(&str, &str)]) -> (RawClient, Vec<String>) {
    let parameters = [("user", "pgdog"), ("database", "postgres")]
        .iter()
        .chain(more);
    let parameters = parameters
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::Startup {
        version,
        parameters,
    }]);
    let frames = client.until_ready();
    (client, lines(&frames))
}

fn key(transcript: &[String]) -> &str {
    transcript
        .iter()
        .find(|line| line.starts_with("K "))
        .map_or("no key", |line| line.as_str())
}

/// A version with further parameters; the answer to what is unknown, and the key.
type Case<'a> = (
    (u16, u16),
    &'a [(&'a str, &'a str)],
    Option<&'a str>,
    &'a str,
);

#[test]
fn newer_protocols_are_negotiated_and_get_long_keys() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(2);
    let cases: [Case<'_>; 5] = [
        ((3, 0), &[], None, "K pid 4-byte key"),
        ((3, 2), &[], None, "K pid 32-byte key"),
        ((3, 9999), &[], Some("v 3.2 []"), "K pid 32-byte key"),
        (
            (3, 9999),
            &[("_pq_.test_protocol_negotiation", "")],
            Some("v 3.2 [\"_pq_.test_protocol_negotiation\"]"),
            "K pid 32-byte key",
        ),
        (
            (3, 0),
            &[("_pq_.a", "1"), ("_pq_.b", "2")],
            Some("v 3.0 [\"_pq_.a\", \"_pq_.b\"]"),
            "K pid 4-byte key",
        ),
    ];
    for (version, more, negotiated, expected_key) in cases {
        let (mut client, transcript) = start(&proxy, version, more);
        assert_eq!(
            transcript
                .iter()
                .find(|line| line.starts_with("v "))
                .map(String::as_str),
            negotiated,
            "{version:?} {more:?}"
        );
        assert!(
            negotiated.is_none_or(|line| transcript[0] == line),
            "first of all: {transcript:?}"
        );
        assert_eq!(key(&transcript), expected_key, "{version:?} {more:?}");
        assert_eq!(client.query_value("select 1"), "1");
    }
    for version in [(2, 0), (4, 0)] {
        let (_, transcript) = start(&proxy, version, &[]);
        assert!(
            transcript
                .last()
                .is_some_and(|line| line.starts_with("E FATAL 0A000")),
            "{version:?}: {transcript:?}"
        );
    }
}

#[test]
fn settings_of_the_startup_packet_hold_on_every_server() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(1);
    let options = "-c work_mem=7MB -c my.text=a\\ b\\\\c --statement-timeout=12345 -cgeqo=off";
    let (mut client, transcript) = start(
        &proxy,
        (3, 0),
        &[
            ("options", options),
            ("DateStyle", "German, DMY"),
            ("application_name", "it's me"),
        ],
    );
    assert!(
        transcript.contains(&"S DateStyle=German, DMY".to_owned()),
        "{transcript:?}"
    );
    assert!(
        transcript.contains(&"S application_name=it's me".to_owned()),
        "{transcript:?}"
    );
    let sql = "select current_setting('work_mem'), current_setting('my.text'), current_setting('statement_timeout'), \
        current_setting('geqo'), current_setting('datestyle'), current_setting('application_name')";
    let (mut other, _) = start(&proxy, (3, 0), &[]);
    let expected = ["7MB", "a b\\c", "12345ms", "off", "German, DMY", "it's me"];
    for _ in 0..3 {
        assert_eq!(client.query_rows(sql), [expected]);
        other.run("set datestyle = 'SQL, MDY'");
        assert_eq!(other.query_value("show work_mem"), "4MB");
    }
    client.run("set work_mem = '9MB'");
    client.run("reset work_mem");
    assert_eq!(client.query_value("show work_mem"), "7MB");
    client.run("set datestyle = 'ISO'; reset all");
    other.run("select 1");
    assert_eq!(client.query_rows(sql), [expected]);
}

#[test]
fn a_client_in_session_mode_is_greeted_with_its_own_settings_and_not_with_those_of_the_one_before()
{
    if !Postgres::installed() {
        return;
    }
    let config = ProxyConfig::session(Postgres::shared());
    let config = config
        .pool_size(1)
        .database("postgres")
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let german = [("DateStyle", "German, DMY")];
    let (mut before, transcript) = start(&proxy, (3, 0), &german);
    assert!(
        transcript.contains(&"S DateStyle=German, DMY".to_owned()),
        "{transcript:?}"
    );
    assert_eq!(before.query_value("show datestyle"), "German, DMY");
    before.goodbye();
    let (mut after, transcript) = start(&proxy, (3, 0), &[]);
    assert!(
        transcript.contains(&"S DateStyle=ISO, MDY".to_owned()),
        "{transcript:?}"
    );
    assert_eq!(after.query_value("show datestyle"), "ISO, MDY");
}

#[test]
fn wrong_settings_are_refused_at_login_with_postgres_own_words() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(1);
    let cases: [&[(&str, &str)]; 6] = [
        &[("options", "-c work_mem=much")],
        &[("nonsense", "1")],
        &[("client_encoding", "klingon")],
        &[("options", "-c work_mem=7MB"), ("geqo", "perhaps")],
        &[("options", "-c wal_level=minimal")],
        &[("options", "-c role=nobody_has_this_name")],
    ];
    for more in cases {
        let (_, through) = start(&proxy, (3, 0), more);
        let parameters: Vec<(&str, &str)> = [("user", "pgdog"), ("database", "postgres")]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let (_, direct) = RawClient::login_with(Postgres::shared().port(), &parameters)
            .expect("Postgres accepts");
        let code = |line: &str| line.split(':').next().map(str::to_owned);
        assert_eq!(
            through.last().and_then(|line| code(line)),
            code(&refusal(&direct)),
            "{more:?}: {through:?} {direct:?}"
        );
    }
    // The server that refused them is as good as before.
    let (mut client, _) = start(&proxy, (3, 0), &[]);
    assert_eq!(client.query_value("show work_mem"), "4MB");
}

#[test]
fn packets_that_are_no_startup_packets_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(1);
    let packets: [(&[u8], &str); 6] = [
        (&[0, 0, 0, 7, 0, 3, 0], "E FATAL 08P01"),
        (&[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0], "E FATAL 08P01"),
        (&[0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0], "E FATAL 08P01"),
        (&[0, 0, 0, 9, 0, 3, 0, 0, 0], "E FATAL 28000"),
        (
            &[0, 0, 0, 13, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0],
            "E FATAL 08P01",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "E FATAL 08P01"),
    ];
    for (packet, expected) in packets {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send_bytes(packet.to_vec());
        let frames = client.until_eof().expect("it is closed");
        assert!(
            refusal(&frames).starts_with(expected),
            "{packet:?}: {frames:?}"
        );
    }
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::SslRequest]);
    assert_eq!(client.receive_byte(PATIENCE), Some(b'N'));
    client.send(&[Message::SslRequest]);
    let frames = client.until_eof().expect("it is closed");
    assert!(refusal(&frames).starts_with("E FATAL 08P01"), "{frames:?}");
}

#[test]
fn what_is_said_in_one_breath_with_the_login_is_served() {
    if !Postgres::installed() {
        return;
    }
    let proxy = proxy(1);
    let startup = Message::startup(&[("user", "pgdog"), ("database", "postgres")]);
    let said = encode_all(&[
        startup,
        Message::query("select 'early'"),
        Message::parse("", "select 'late'"),
        Message::bind("", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    // At once, cut within a message, and byte by byte.
    for size in [said.len(), said.len() - 60, 7, 1] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send_pieces(&said, size);
        let welcome = lines(&client.until_ready());
        assert!(key(&welcome).starts_with("K "), "{size}: {welcome:?}");
        let told = lines(&client.until_ready());
        assert!(
            told.contains(&"D (\"early\")".to_owned()),
            "{size}: {told:?}"
        );
        let told = lines(&client.until_ready());
        assert!(
            told.contains(&"D (\"late\")".to_owned()),
            "{size}: {told:?}"
        );
        assert_eq!(client.query_value("select 1"), "1", "{size}");
    }
    // A goodbye too.
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    let startup = Message::startup(&[("user", "pgdog"), ("database", "postgres")]);
    client.send(&[startup, Message::Terminate]);
    let told = client.until_eof().expect("it is closed");
    assert_eq!(told.last().map(|frame| frame.tag), Some(b'Z'), "{told:?}");
}
