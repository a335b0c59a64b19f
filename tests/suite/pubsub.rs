//! LISTEN in transaction mode over one server connection for all clients.

use std::time::Duration;

use pgdog_tests::transcript::lines;
use pgdog_tests::{
    Activity, Database, Message, Postgres, Proxy, ProxyConfig, Psql, RawClient, Received, raw, wait,
};

mod limits;
mod semantics;

/// The condition over `pg_stat_activity` that finds the connection that listens.
const LISTENER: &str = "application_name = 'pgdog listener'";

fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(1)
        .general("checkout_timeout", "2000")
        .general("client_connection_recovery", "\"recover\"")
        .general("pub_sub_channel_size", "100")
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// A proxy with one server connection, and Postgres itself to speak from.
struct Stage<'a> {
    database: Database<'a>,
    proxy: Proxy,
    speaker: RawClient,
}

impl Stage<'_> {
    fn set() -> Self {
        Self::set_with(|config| config)
    }

    fn set_with(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let database = Postgres::shared().fresh_database();
        let proxy = Proxy::start(&change(config(&database)));
        let speaker = Postgres::shared().client(database.name());
        Self {
            database,
            proxy,
            speaker,
        }
    }

    fn client(&self) -> RawClient {
        self.proxy.client("pgdog", self.database.name())
    }

    fn activity(&self) -> Activity {
        Activity::of(Postgres::shared(), &self.database)
    }
}

/// The next message, as a line of a transcript.
fn next(client: &mut RawClient) -> String {
    match client.receive(raw::PATIENCE) {
        Received::Frame(frame) => frame.line(),
        other => format!("{other:?}"),
    }
}

/// Whether nothing has come: a query is answered, with nothing before it.
fn hears_nothing(client: &mut RawClient) -> bool {
    let told = lines(&client.query("select 1"));
    !told.iter().any(|line| line.starts_with('A'))
}

#[test]
fn fifty_clients_listen_over_one_connection() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut clients: Vec<_> = (0..50).map(|_| stage.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.run(&format!("listen everybody; listen only_{number}"));
    }
    // One listens, one serves.
    let mut activity = stage.activity();
    activity.wait(1, LISTENER);
    assert_eq!(activity.count("application_name <> 'pgdog listener' and query not like '%datname%' and pid <> pg_backend_pid()") , 2, "the pool's, and the speaker");
    stage.speaker.run("notify everybody, 'hello'");
    for client in &mut clients {
        assert_eq!(next(client), "A everybody \"hello\"");
    }
    stage.speaker.run("notify only_7, 'you'");
    assert_eq!(next(&mut clients[7]), "A only_7 \"you\"");
    for client in &mut clients {
        assert!(hears_nothing(client));
    }
    drop(clients);
    // Nobody listens to them any more.
    activity.wait(
        0,
        "query like 'LISTEN%' and application_name = 'pgdog listener'",
    );
}

#[test]
fn a_notification_right_after_listen_is_not_missed() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set_with(|c| c.pool_size(4));
    for round in 0..20 {
        let mut client = stage.client();
        client.run("listen now");
        stage.speaker.run(&format!("notify now, '{round} a'"));
        stage.speaker.run(&format!("notify now, '{round} b'"));
        assert_eq!(next(&mut client), format!("A now \"{round} a\""));
        assert_eq!(next(&mut client), format!("A now \"{round} b\""));
        assert!(hears_nothing(&mut client));
    }
}

#[test]
fn a_stream_of_notifications_comes_whole_while_clients_come_and_go() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set_with(|c| c.pool_size(3).general("pub_sub_channel_size", "10000"));
    let (port, name) = (stage.proxy.port(), stage.database.name().to_owned());
    let listeners: Vec<_> = (0..4)
        .map(|_| {
            let name = name.clone();
            std::thread::spawn(move || {
                for _ in 0..5 {
                    let mut client = RawClient::login(port, "pgdog", &name);
                    client.run("listen stream");
                    let mut last: Option<u32> = None;
                    for _ in 0..20 {
                        let line = next(&mut client);
                        let number = line
                            .strip_prefix("A stream \"")
                            .and_then(|l| l.strip_suffix('"'));
                        let number: u32 = number
                            .and_then(|n| n.parse().ok())
                            .unwrap_or_else(|| panic!("{line}"));
                        assert!(
                            last.is_none_or(|last| number == last + 1),
                            "{number} after {last:?}"
                        );
                        last = Some(number);
                    }
                    client.goodbye();
                }
            })
        })
        .collect();
    let mut number = 0;
    while !listeners.iter().all(std::thread::JoinHandle::is_finished) {
        number += 1;
        stage.speaker.run(&format!("notify stream, '{number}'"));
    }
    for listener in listeners {
        listener.join().expect("it heard each one once, in order");
    }
}

#[test]
fn a_killed_listener_is_replaced_and_clients_are_told() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let (mut first, mut second) = (stage.client(), stage.client());
    // What is said next waits until the channels are handed over.
    for (client, channel) in [(&mut first, "a"), (&mut second, "b")] {
        client.run(&format!("listen {channel}"));
        client.run("select 1");
    }
    let mut activity = stage.activity();
    activity.wait(1, LISTENER);
    activity.terminate(LISTENER);
    for client in [&mut first, &mut second] {
        let told = next(client);
        assert!(told.starts_with("N WARNING 01000"), "{told}");
    }
    activity.wait(1, LISTENER);
    stage.speaker.run("notify a, '1'; notify b, '2'");
    assert_eq!(next(&mut first), "A a \"1\"");
    assert_eq!(next(&mut second), "A b \"2\"");
    first.run("unlisten a");
    stage.speaker.run("notify a");
    assert!(hears_nothing(&mut first));
}

#[test]
fn a_client_that_does_not_read_loses_some_and_is_told_how_many() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set_with(|c| {
        c.general("pub_sub_channel_size", "10")
            .append("[admin]\npassword = \"open sesame\"")
    });
    let mut client = stage.client();
    client.run("listen flood");
    // More than sockets take: 2000 times 7000 bytes.
    let count = 2000;
    stage.speaker.run(&format!(
        "select pg_notify('flood', n || repeat('x', 7000)) from generate_series(1, {count}) n"
    ));
    stage.speaker.run("notify flood, 'end'");
    // What comes while the client reads may all find room.
    let console = Psql::new(stage.proxy.port(), "admin", "admin").password("open sesame");
    let all_came = || {
        let shown = console.run("show listeners");
        shown
            .expect("the console answers")
            .contains(&format!("|{}|", count + 1))
    };
    assert!(wait::until(raw::PATIENCE, all_came));
    let (mut heard, mut lost) = (0, 0);
    while heard + lost < count + 1 {
        let Received::Frame(frame) = client.receive(raw::PATIENCE) else {
            panic!("{heard} heard, {lost} lost, and no more");
        };
        match frame.tag {
            b'A' => heard += 1,
            b'N' => {
                let text = frame.field(b'M').expect("a notice has a text");
                assert_eq!(frame.field(b'C').as_deref(), Some("01000"));
                let number = text.split(' ').next().and_then(|n| n.parse::<usize>().ok());
                lost += number.unwrap_or_else(|| panic!("{text}"));
            }
            _ => panic!("{}", frame.line()),
        }
    }
    assert!(lost > 0, "all {heard} were taken");
    assert_eq!(client.query_value("select 1"), "1");
}

#[test]
fn whoever_says_something_meanwhile_is_served() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    let (mut heard, mut said) = (0, 0);
    for _ in 0..50 {
        stage.speaker.send(&[Message::query("notify x")]);
        let told = lines(&client.query("select 1"));
        assert!(told.iter().any(|l| l == "C SELECT 1"), "{told:?}");
        heard += told.iter().filter(|l| l.starts_with('A')).count();
        stage.speaker.until_ready();
        said += 1;
    }
    while heard < said {
        assert_eq!(next(&mut client), "A x \"\"");
        heard += 1;
    }
    assert!(wait::until(Duration::from_secs(5), || hears_nothing(
        &mut client
    )));
}
