//! Servers that break the protocol: their client gets an error or a close, and the next one is not served from their remains.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgdog_tests::{Frame, Postgres, Proxy, ProxyConfig, RawClient, Received};

use super::fake::{FakeServer, frame, next, one_row, say, welcome};
use super::{codes, noise};

/// Longer than all timeouts below together.
const DEADLINE: Duration = Duration::from_secs(8);

fn proxy(server: &FakeServer) -> Proxy {
    // The entry for Postgres itself is there for the builder only.
    let config = ProxyConfig::transaction(Postgres::shared())
        .database_at("fake", server.port(), &[])
        .user("pgdog", "pgdog")
        .pool_size(1)
        .general("connect_timeout", "800")
        .general("checkout_timeout", "1500")
        .general("rollback_timeout", "500")
        .general("query_timeout", "1500");
    Proxy::start(&config)
}

/// Logs in and asks; what comes until an answer is complete, the session ends, or time is up.
fn ask(proxy: &Proxy, what: &str) -> Vec<Frame> {
    let started = Instant::now();
    let mut frames = Vec::new();
    let Ok((mut client, greeting)) =
        RawClient::login_with(proxy.port(), &[("user", "pgdog"), ("database", "fake")])
    else {
        panic!("{what}: the proxy does not accept connections");
    };
    frames.extend(greeting);
    if frames.last().is_some_and(|f| f.tag == b'Z') {
        client.send(&[pgdog_tests::Message::query("select 1")]);
        loop {
            match client.receive(DEADLINE) {
                Received::Frame(frame) => {
                    let over = frame.tag == b'Z';
                    frames.push(frame);
                    if over {
                        break;
                    }
                }
                Received::Eof => break,
                Received::Silence => panic!("{what}: silence after {frames:?}"),
            }
        }
    }
    assert!(
        started.elapsed() < DEADLINE,
        "{what}: took {:?}",
        started.elapsed()
    );
    frames
}

/// Plays `broken` for the first `times` connections, and a right server after that.
fn broken_then_right(
    times: usize,
    broken: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> FakeServer {
    let count = AtomicUsize::new(0);
    FakeServer::start(move |stream| {
        if count.fetch_add(1, Ordering::Relaxed) < times {
            return broken(stream);
        }
        say(stream, &welcome());
        right(stream);
    })
}

fn right(stream: &mut TcpStream) {
    while let Some(kind) = next(stream) {
        if kind == b'Q' {
            say(stream, &one_row());
        }
    }
}

/// After what was broken the proxy still serves from the same server.
fn recovers(proxy: &Proxy, what: &str) {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if ask(proxy, what).iter().any(|f| f.tag == b'D') {
            return;
        }
    }
    panic!("{what}: the proxy does not serve any more");
}

#[test]
fn a_login_that_a_server_breaks_off_at_any_byte_is_an_error_to_the_client() {
    if !Postgres::installed() {
        return;
    }
    let whole = welcome();
    // Every byte of the headers, and some of the rest.
    for cut in (0..whole.len()).filter(|cut| *cut < 16 || cut % 9 == 0) {
        let bytes = whole[..cut].to_vec();
        let server = broken_then_right(1, move |stream| say(stream, &bytes));
        let proxy = proxy(&server);
        let what = format!("closed after {cut} bytes of the login");
        ask(&proxy, &what);
        recovers(&proxy, &what);
    }
}

#[test]
fn noise_from_a_server_is_an_error_to_the_client() {
    if !Postgres::installed() {
        return;
    }
    for seed in 0..12 {
        let server = broken_then_right(2, move |stream| {
            if seed % 2 == 1 {
                say(stream, &welcome());
                next(stream);
            }
            say(stream, &noise(seed, 300));
            next(stream);
        });
        let proxy = proxy(&server);
        let what = format!("noise {seed}");
        let frames = ask(&proxy, &what);
        // Where the login was noise, the proxy has tried again; a query is not asked twice.
        assert!(
            seed % 2 == 0 || !frames.iter().any(|f| f.tag == b'D'),
            "{what}: {frames:?}"
        );
        recovers(&proxy, &what);
    }
}

#[test]
fn a_server_that_breaks_the_order_is_left_and_its_client_told() {
    if !Postgres::installed() {
        return;
    }
    let plays: Vec<(&str, Vec<u8>)> = vec![
        ("an answer to nothing", frame(b'1', b"")),
        (
            "two ReadyForQuery",
            [frame(b'Z', b"I"), frame(b'Z', b"I")].concat(),
        ),
        ("a ReadyForQuery of unknown state", frame(b'Z', b"Q")),
        ("a ReadyForQuery without state", frame(b'Z', b"")),
        (
            "a BindComplete in a query",
            [frame(b'2', b""), frame(b'Z', b"I")].concat(),
        ),
        (
            "an unknown message",
            [frame(b'y', b"abc"), frame(b'Z', b"I")].concat(),
        ),
        ("a late authentication request", frame(b'R', &[0, 0, 0, 3])),
        ("a negative length", vec![b'C', 255, 255, 255, 255]),
        ("a zero length", vec![b'Z', 0, 0, 0, 0]),
        (
            "an error of a gigabyte",
            vec![b'E', 0x3f, 255, 255, 255, b'S'],
        ),
        ("a tag of a gigabyte", vec![b'C', 0x3f, 255, 255, 255, b'S']),
        ("half a row", vec![b'D', 0, 0, 1, 0, 1, 2]),
        ("half an error", vec![b'E', 0, 0, 0, 50, b'S', b'E']),
    ];
    for (what, bytes) in plays {
        let server = broken_then_right(1, move |stream| {
            say(stream, &welcome());
            // The proxy's own questions at the login are answered; then the client's is.
            if next(stream).is_some() {
                say(stream, &bytes);
            }
        });
        let proxy = proxy(&server);
        let frames = ask(&proxy, what);
        assert!(
            !frames.iter().any(|f| f.tag == b'D' && f.body.len() == 7),
            "{what}: {frames:?}"
        );
        recovers(&proxy, what);
    }
}

#[test]
fn errors_without_fields_are_still_errors() {
    if !Postgres::installed() {
        return;
    }
    for body in [
        &b""[..],
        b"\0",
        b"S",
        b"Mno end",
        b"\0\0\0",
        b"C\0\0",
        b"SFATAL\0\0",
        b"\xff\xfe\0\0",
    ] {
        let server = FakeServer::start(move |stream| {
            say(stream, &welcome());
            while next(stream).is_some() {
                say(stream, &[frame(b'E', body), frame(b'Z', b"I")].concat());
            }
        });
        let frames = ask(&proxy(&server), &format!("{body:?}"));
        assert!(frames.iter().any(|f| f.tag == b'E'), "{body:?}: {frames:?}");

        let server = FakeServer::start(move |stream| say(stream, &frame(b'E', body)));
        let frames = ask(&proxy(&server), &format!("{body:?} at login"));
        assert_eq!(codes(&frames).len(), 1, "{body:?} at login: {frames:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    if !Postgres::installed() {
        return;
    }
    let silent = |stream: &mut TcpStream| while next(stream).is_some() {};
    let server = FakeServer::start(silent);
    let frames = ask(&proxy(&server), "silent at login");
    assert_eq!(codes(&frames).len(), 1, "{frames:?}");

    let server = FakeServer::start(move |stream| {
        say(stream, &welcome());
        silent(stream);
    });
    let frames = ask(&proxy(&server), "silent after login");
    assert!(!codes(&frames).is_empty(), "{frames:?}");
}

#[test]
fn a_server_that_goes_behind_its_answer_is_not_the_client_s_affair() {
    if !Postgres::installed() {
        return;
    }
    let goes = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0";
    let server = FakeServer::start(move |stream| {
        say(stream, &welcome());
        if next(stream) == Some(b'Q') {
            say(stream, &[one_row(), frame(b'E', goes)].concat());
        }
    });
    let proxy = proxy(&server);
    let (mut client, _) =
        RawClient::login_with(proxy.port(), &[("user", "pgdog"), ("database", "fake")])
            .expect("the proxy accepts");
    for round in 0..20 {
        let told: Vec<u8> = client.query("select 1").iter().map(|f| f.tag).collect();
        assert_eq!(told, b"TDCZ", "round {round}");
    }
    assert_eq!(
        client.receive(std::time::Duration::from_micros(1)),
        Received::Silence
    );
    client.goodbye();
}

#[test]
fn a_server_that_speaks_unasked_is_not_handed_to_a_client() {
    if !Postgres::installed() {
        return;
    }
    // The answer to the first query brings another one with it, which must not be taken for that of the second.
    let server = FakeServer::start(|stream| {
        say(stream, &welcome());
        while let Some(kind) = next(stream) {
            if kind == b'Q' {
                say(
                    stream,
                    &[one_row(), frame(b'D', b"\0\x01\0\0\0\x06secret")].concat(),
                );
            }
        }
    });
    let proxy = proxy(&server);
    for round in 0..5 {
        let frames = ask(&proxy, "unasked");
        let secret = frames
            .iter()
            .any(|f| f.tag == b'D' && f.body.ends_with(b"secret"));
        let rest = frames.iter().skip_while(|f| f.tag != b'T').count();
        assert!(
            !(secret && round > 0 && rest > 4),
            "round {round}: {frames:?}"
        );
        let first = frames.iter().find(|f| f.tag == b'D');
        assert!(
            first.is_none_or(|f| f.body.ends_with(b"1")),
            "round {round}: {frames:?}"
        );
    }
}
