//! Cancel requests: they reach what they mean, or nothing.

use std::time::Instant;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{
    Activity, Database, Message, Postgres, Proxy, ProxyConfig, RawClient, Received, wait,
};

const SLEEP: &str = "select pg_sleep(60)";

fn config(database: &Database<'_>, pool_size: usize) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(pool_size)
        .database(database.name())
        .user("pgdog", "pgdog")
}

fn key_of(client: &RawClient) -> (i32, Vec<u8>) {
    match client.cancel_request() {
        Some(Message::CancelRequest { pid, secret }) => (pid, secret),
        other => panic!("no key: {other:?}"),
    }
}

/// Sends a cancel request and waits until the other side has closed, without a word.
fn cancel(port: u16, key: &(i32, Vec<u8>)) {
    let mut canceller = RawClient::open(port).expect("the proxy accepts");
    canceller.send(&[Message::CancelRequest {
        pid: key.0,
        secret: key.1.clone(),
    }]);
    assert_eq!(canceller.until_eof(), Some(Vec::new()));
}

fn was_cancelled(client: &mut RawClient, status: char) {
    let told = lines(&client.until_ready());
    let error = told
        .iter()
        .find(|line| line.starts_with('E'))
        .unwrap_or_else(|| panic!("no error: {told:?}"));
    assert!(error.starts_with("E ERROR 57014"), "{told:?}");
    assert_eq!(told.last(), Some(&format!("Z {status}")));
}

#[test]
fn what_runs_is_cancelled() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    for mode in ["transaction", "session", "statement"] {
        let proxy =
            Proxy::start(&config(&database, 2).general("pooler_mode", &format!("\"{mode}\"")));
        let mut activity = Activity::of(Postgres::shared(), &database);
        let mut client = proxy.client("pgdog", database.name());
        let key = key_of(&client);
        client.send(&[Message::query(SLEEP)]);
        activity.wait(1, "state = 'active'");
        cancel(proxy.port(), &key);
        was_cancelled(&mut client, 'I');
        assert_eq!(client.query_value("select 1"), "1");

        client.send(&[
            Message::parse("", SLEEP),
            Message::bind("", &[]),
            Message::execute(),
            Message::Sync,
        ]);
        activity.wait(1, "state = 'active'");
        cancel(proxy.port(), &key);
        was_cancelled(&mut client, 'I');

        client.send(&[Message::query("copy t from stdin")]);
        activity.wait(1, "state = 'active' and query like 'copy%'");
        cancel(proxy.port(), &key);
        // Postgres looks at the request when the next piece of data is there.
        client.send(&[Message::CopyData(b"1\n".to_vec())]);
        was_cancelled(&mut client, 'I');
        if mode != "statement" {
            client.run("begin");
            client.send(&[Message::query(SLEEP)]);
            activity.wait(1, "state = 'active'");
            cancel(proxy.port(), &key);
            was_cancelled(&mut client, 'E');
            client.run("rollback");
        }
        assert_eq!(client.query_value("select 1"), "1");
    }
}

#[test]
fn who_waits_for_a_server_stops_waiting() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1).general("checkout_timeout", "30000"));
    let mut holder = proxy.client("pgdog", database.name());
    let mut simple = proxy.client("pgdog", database.name());
    let mut extended = proxy.client("pgdog", database.name());
    let mut behind = proxy.client("pgdog", database.name());
    holder.run("begin");
    simple.send(&[Message::query("select 1")]);
    extended.send(&[
        Message::parse("", "select 1"),
        Message::bind("", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    behind.send(&[Message::query("select 'behind'")]);
    for client in [&mut simple, &mut extended] {
        let key = key_of(client);
        // A request that came before the query was read means nothing, so it may take more than one.
        let mut first = Received::Silence;
        assert!(wait::until(PATIENCE, || {
            cancel(proxy.port(), &key);
            first = client.receive(std::time::Duration::from_millis(100));
            first != Received::Silence
        }));
        assert!(
            matches!(&first, Received::Frame(frame) if frame.line().starts_with("E ERROR 57014")),
            "{first:?}"
        );
        assert_eq!(lines(&client.until_ready()), ["Z I"]);
    }
    assert_eq!(holder.query_value("select 1"), "1");
    holder.run("commit");
    assert!(lines(&behind.until_ready()).contains(&"D (\"behind\")".to_owned()));
    assert_eq!(simple.query_value("select 1"), "1");
    assert_eq!(extended.query_value("select 1"), "1");
}

#[test]
fn who_runs_nothing_notices_nothing() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    let mut client = proxy.client("pgdog", database.name());
    let key = key_of(&client);
    for _ in 0..5 {
        cancel(proxy.port(), &key);
    }
    // The signal is delivered by now: the proxy answers others after it.
    proxy.client("pgdog", database.name()).run("select 1");
    assert_eq!(client.query_value("select 1"), "1");
    client.run("begin");
    for _ in 0..5 {
        cancel(proxy.port(), &key);
    }
    assert_eq!(
        lines(&client.query("select 1")).last().map(String::as_str),
        Some("Z T")
    );
    client.run("commit");
    client.run("set statement_timeout = 0; listen x");
    cancel(proxy.port(), &key);
    assert_eq!(client.query_value("select 1"), "1", "pinned and idle");
}

#[test]
fn a_wrong_key_reaches_nobody() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut client = proxy.client("pgdog", database.name());
    let (pid, secret) = key_of(&client);
    client.send(&[Message::query(SLEEP)]);
    activity.wait(1, "state = 'active'");
    let other = |index: usize| {
        let mut secret = secret.clone();
        secret[index] ^= 1;
        secret
    };
    let long = [secret.clone(), vec![0, 0]].concat();
    let wrong = [
        (pid, other(0)),
        (pid, other(3)),
        (pid, secret[..3].to_vec()),
        (pid, long),
        (pid, vec![7; 32]),
        (pid ^ 1, secret.clone()),
        (0, vec![0; 4]),
        (-1, vec![0xff; 4]),
    ];
    for key in &wrong {
        cancel(proxy.port(), key);
    }
    // The servers' own keys mean nothing here either.
    let server_pid = activity.pids("state = 'active'")[0]
        .parse()
        .expect("a pid is a number");
    cancel(proxy.port(), &(server_pid, secret.clone()));
    // Requests without any secret, or cut short, do no harm.
    for bytes in [
        &[0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 1][..],
        &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0],
    ] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send_bytes(bytes.to_vec());
    }
    assert_eq!(activity.count("state = 'active'"), 1);
    assert_eq!(
        client.receive(std::time::Duration::from_millis(1)),
        Received::Silence
    );
    cancel(proxy.port(), &(pid, secret));
    was_cancelled(&mut client, 'I');
    assert_eq!(client.query_value("select 1"), "1");
}

#[test]
fn a_request_that_lands_on_another_proxy_is_passed_on() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let with = |id: u16, peers: &[(u16, u16)]| {
        let config = config(&database, 4).general("peer_id", &id.to_string());
        peers.iter().fold(config, |config, (id, port)| {
            config.append(&format!(
                "[[peers]]\nid = {id}\nhost = \"127.0.0.1\"\nport = {port}\n"
            ))
        })
    };
    let first = Proxy::start(&with(1, &[]));
    // A third that is a member nowhere: each believes that the other is it.
    let second = Proxy::start(&with(2, &[(1, first.port()), (3, first.port())]));
    first.write_config(&with(1, &[(2, second.port()), (3, second.port())]));
    first.reload();
    assert!(
        wait::until(PATIENCE, || first.log().contains("configuration reloaded")),
        "{}",
        first.log()
    );
    let mut activity = Activity::of(Postgres::shared(), &database);
    for (home, other) in [(&first, &second), (&second, &first)] {
        for version in [(3, 0), (3, 2)] {
            let mut client = RawClient::open(home.port()).expect("the proxy accepts");
            let parameters = vec![
                ("user".to_owned(), "pgdog".to_owned()),
                ("database".to_owned(), database.name().to_owned()),
            ];
            client.send(&[Message::Startup {
                version,
                parameters,
            }]);
            client.until_ready();
            let (pid, mut secret) = key_of(&client);
            client.send(&[Message::query(SLEEP)]);
            activity.wait(1, "state = 'active'");
            secret[0] ^= 1;
            cancel(other.port(), &(pid, secret.clone()));
            assert_eq!(
                activity.count("state = 'active'"),
                1,
                "a wrong key, passed on"
            );
            secret[0] ^= 1;
            cancel(other.port(), &(pid, secret));
            was_cancelled(&mut client, 'I');
            assert_eq!(client.query_value("select 1"), "1");
        }
    }
    // One hop at most: this would go in circles.
    let start = Instant::now();
    cancel(first.port(), &(3 << 17 | 5, vec![1, 2, 3, 4]));
    assert!(start.elapsed() < std::time::Duration::from_secs(2));
    drop(second);
    let mut client = first.client("pgdog", database.name());
    cancel(first.port(), &(2 << 17 | 5, vec![1, 2, 3, 4]));
    assert_eq!(client.query_value("select 1"), "1", "a peer that is gone");
}

#[test]
fn a_late_request_never_hits_the_next_client_of_the_server() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1).general("checkout_timeout", "30000"));
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut cancelled, mut finished) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut bystander = proxy.client("pgdog", database.name());
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    bystander.run("select pg_sleep(0.001)");
                }
            });
        }
        let mut victim = proxy.client("pgdog", database.name());
        let key = key_of(&victim);
        for _ in 0..250 {
            victim.send(&[Message::query("select pg_sleep(0.002)")]);
            let mut canceller = RawClient::open(proxy.port()).expect("the proxy accepts");
            canceller.send(&[Message::CancelRequest {
                pid: key.0,
                secret: key.1.clone(),
            }]);
            let frames = victim.until_ready();
            match frames.iter().find(|frame| frame.tag == b'E') {
                Some(error) => {
                    assert_eq!(
                        error.field(b'C').as_deref(),
                        Some("57014"),
                        "{:?}",
                        lines(&frames)
                    );
                    cancelled += 1;
                }
                None => finished += 1,
            }
            assert_eq!(
                frames.last().and_then(pgdog_tests::Frame::status),
                Some('I')
            );
            canceller.until_eof();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(cancelled > 0, "{cancelled} cancelled, {finished} finished");
}

#[test]
fn a_full_pool_and_a_full_proxy_still_cancel() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(
        &config(&database, 1)
            .general("max_client_conn", "3")
            .general("checkout_timeout", "30000"),
    );
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut running = proxy.client("pgdog", database.name());
    let mut waiting = [
        proxy.client("pgdog", database.name()),
        proxy.client("pgdog", database.name()),
    ];
    running.send(&[Message::query(SLEEP)]);
    activity.wait(1, "state = 'active'");
    waiting
        .iter_mut()
        .for_each(|client| client.send(&[Message::query("select 'served'")]));
    assert!(RawClient::try_login(proxy.port(), "pgdog", database.name()).is_err());
    let start = Instant::now();
    cancel(proxy.port(), &key_of(&running));
    was_cancelled(&mut running, 'I');
    for client in &mut waiting {
        assert!(lines(&client.until_ready()).contains(&"D (\"served\")".to_owned()));
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}
