//! Guessing of passwords is slow, and disturbs nobody else.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Message, Postgres, Proxy, ProxyConfig, RawClient, Received, wait};

use super::{logs, users};

const MINE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn config() -> ProxyConfig {
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"md5\"")
        .general("log_dedup_threshold", "5")
        .general("log_dedup_window", "60000")
        .database("postgres");
    users(config, &["alice"])
}

/// A client that has answered, wrongly, what it was asked.
fn guess(proxy: &Proxy, from: Ipv4Addr, user: &str) -> RawClient {
    let mut client = asked(proxy, from, user);
    client.send(&[Message::Password(
        b"md500000000000000000000000000000000\0".to_vec(),
    )]);
    client
}

/// A client that has been asked for its password. The place of one that has just left may be taken for a moment yet.
fn asked(proxy: &Proxy, from: Ipv4Addr, user: &str) -> RawClient {
    let mut asked = None;
    wait::until(PATIENCE, || {
        let mut client = RawClient::open_from(from, proxy.port()).expect("the proxy accepts");
        client.send(&[Message::startup(&[
            ("user", user),
            ("database", "postgres"),
        ])]);
        if matches!(client.receive(PATIENCE), Received::Frame(frame) if frame.tag == b'R') {
            asked = Some(client);
        }
        asked.is_some()
    });
    asked.unwrap_or_else(|| panic!("{user} is not asked"))
}

/// The time until a wrong guess is answered.
fn answered(proxy: &Proxy, from: Ipv4Addr, user: &str) -> Duration {
    let start = Instant::now();
    let frames = guess(proxy, from, user).until_eof().expect("it is closed");
    let code = frames.last().and_then(|frame| frame.field(b'C'));
    assert_eq!(code.as_deref(), Some("28P01"), "{frames:?}");
    start.elapsed()
}

fn resident(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse().ok())
        .expect("a number of KiB")
}

#[test]
fn after_some_failures_answers_come_late_for_this_address_only() {
    if !Postgres::installed() {
        return;
    }
    let config = config()
        .general("auth_failure_free", "2")
        .general("auth_failure_delay", "200")
        .general("auth_failure_delay_max", "60000");
    let proxy = Proxy::start(&config);
    for (user, least) in [
        ("alice", 0),
        ("nobody", 0),
        ("alice", 200),
        ("nobody", 400),
        ("alice", 800),
    ] {
        let time = answered(&proxy, MINE, user);
        assert!(time >= Duration::from_millis(least), "{user}: {time:?}");
    }
    // The next one waits for 1600 ms, and meanwhile nobody else does, nor who knows the password.
    let mut late = guess(&proxy, MINE, "alice");
    for from in [MINE, OTHER] {
        let mut client = log_in(&proxy, from);
        client.run("select 1");
    }
    assert!(answered(&proxy, OTHER, "alice") < Duration::from_millis(1_600));
    assert!(
        matches!(late.receive(Duration::from_millis(1)), Received::Silence),
        "it still waits"
    );
    late.until_eof().expect("it is answered at last");
    // A reload switches the delays off.
    proxy.write_config(&config.general("auth_failure_delay", "0"));
    proxy.reload();
    logs(&proxy, "configuration reloaded", 1);
    for _ in 0..20 {
        answered(&proxy, MINE, "alice");
    }
    logs(&proxy, "the password is wrong", 1);
    logs(&proxy, "there is no such user", 1);
}

/// Logs in with the right password.
fn log_in(proxy: &Proxy, from: Ipv4Addr) -> RawClient {
    let mut client = RawClient::open_from(from, proxy.port()).expect("the proxy accepts");
    client.send(&[Message::startup(&[
        ("user", "alice"),
        ("database", "postgres"),
    ])]);
    let Received::Frame(frame) = client.receive(PATIENCE) else {
        panic!("it is asked");
    };
    let salt: [u8; 4] = frame.body[4..8].try_into().expect("a salt");
    let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    // Postgres does the arithmetic.
    let sql =
        format!("select 'md5' || md5(convert_to(md5('alicealice'), 'UTF8') || '\\x{salt}'::bytea)");
    let answer = Postgres::shared().value("postgres", &sql);
    client.send(&[Message::Password(format!("{answer}\0").into_bytes())]);
    let frames = client.until_ready();
    assert!(
        frames.last().is_some_and(|frame| frame.tag == b'Z'),
        "{frames:?}"
    );
    client
}

#[test]
fn so_many_clients_of_an_address_log_in_at_once_and_leaving_early_frees_no_place() {
    if !Postgres::installed() {
        return;
    }
    let config = config()
        .general("max_logins_per_address", "2")
        .general("auth_failure_free", "0")
        .general("auth_failure_delay", "600000")
        .general("auth_failure_delay_max", "600000");
    let proxy = Proxy::start(&config);
    let full = |from: Ipv4Addr| {
        let mut client = RawClient::open_from(from, proxy.port()).expect("the proxy accepts");
        match client.receive(Duration::from_millis(300)) {
            Received::Frame(frame) => frame.field(b'C').as_deref() == Some("53300"),
            _ => false,
        }
    };
    let first = asked(&proxy, MINE, "alice");
    let second = asked(&proxy, MINE, "nobody");
    assert!(full(MINE) && !full(OTHER));
    drop(first);
    drop(second);
    assert!(wait::until(PATIENCE, || !full(MINE)), "places come back");
    // Whoever has guessed wrong keeps its place for as long as it should wait, here or not.
    drop((guess(&proxy, MINE, "alice"), guess(&proxy, MINE, "alice")));
    assert!(wait::until(PATIENCE, || full(MINE)));
    assert!(full(MINE) && !full(OTHER));
    log_in(&proxy, OTHER).run("select 1");
}

#[test]
fn ten_thousand_wrong_logins_cost_neither_memory_nor_others() {
    if !Postgres::installed() {
        return;
    }
    let config = config()
        .general("auth_failure_free", "100")
        .general("auth_failure_delay", "30000")
        .general("auth_failure_delay_max", "30000");
    let proxy = Proxy::start(&config);
    drop(log_in(&proxy, OTHER));
    let before = resident(&proxy);
    let threads = 4;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let proxy = &proxy;
            scope.spawn(move || {
                // From many addresses, and most of them too late to be answered at once: these clients leave.
                for number in 0..10_000 / u16::from(threads) {
                    let from = Ipv4Addr::new(127, 1, thread, (number % 20) as u8 + 1);
                    drop(guess(
                        proxy,
                        from,
                        if number % 2 == 0 { "alice" } else { "nobody" },
                    ));
                }
            });
        }
        for _ in 0..5 {
            let start = Instant::now();
            log_in(&proxy, OTHER).run("select 1");
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{:?}",
                start.elapsed()
            );
        }
    });
    let grown = || resident(&proxy).saturating_sub(before);
    assert!(
        wait::until(PATIENCE, || grown() < 20 * 1024),
        "{} KiB more",
        grown()
    );
    let log = proxy.log();
    assert!(log.len() < 1024 * 1024, "{} bytes of log", log.len());
    log_in(&proxy, OTHER).run("select 1");
}
