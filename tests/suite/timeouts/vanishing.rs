//! A client that is suddenly gone leaves nothing to the next one, whatever it was doing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use pgdog_tests::message::encode_all;
use pgdog_tests::{
    Activity, Database, Message, Postgres, Proxy, ProxyConfig, RawClient, Received, raw,
};

/// What a client was doing when it vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Transaction,
    FailedTransaction,
    LongQuery,
    LargeResult,
    CopyIn,
    CopyOut,
    BatchWithoutSync,
    HalfAQuery,
    HalfACopyData,
}

const ALL: [Doing; 9] = [
    Doing::Transaction,
    Doing::FailedTransaction,
    Doing::LongQuery,
    Doing::LargeResult,
    Doing::CopyIn,
    Doing::CopyOut,
    Doing::BatchWithoutSync,
    Doing::HalfAQuery,
    Doing::HalfACopyData,
];

/// Rows that no socket buffer takes.
const ROWS: &str = "select repeat('x', 1000) from generate_series(1, 300000)";

impl Doing {
    /// Whether the server is at rest as far as the protocol goes, so that a ROLLBACK is enough.
    fn at_rest(self) -> bool {
        matches!(
            self,
            Self::Transaction | Self::FailedTransaction | Self::HalfAQuery
        )
    }

    /// Begins to do it, far enough that the server is at it.
    fn begin(self, client: &mut RawClient, activity: &mut Activity) {
        client.run("begin; set work_mem = '77MB'; insert into t values (1)");
        let expect = |tag: u8, client: &mut RawClient| {
            let frame = client.receive(raw::PATIENCE);
            assert!(
                matches!(&frame, Received::Frame(frame) if frame.tag == tag),
                "{self:?}: {frame:?}"
            );
        };
        match self {
            Self::Transaction => {}
            Self::FailedTransaction => drop(client.query_error("select 1/0")),
            Self::LongQuery => {
                client.send(&[Message::query("select pg_sleep(60)")]);
                activity.wait(1, "query like 'select pg_sleep%' and state = 'active'");
            }
            Self::LargeResult => {
                client.send(&[Message::query(ROWS)]);
                expect(b'T', client);
                expect(b'D', client);
            }
            Self::CopyIn | Self::HalfACopyData => {
                client.send(&[Message::query("copy t from stdin")]);
                expect(b'G', client);
                client.send(&[Message::CopyData(b"1\n".to_vec())]);
                if self == Self::HalfACopyData {
                    client.send_bytes([&[b'd', 0, 1, 0, 0][..], &b"2\n".repeat(20_000)].concat());
                }
            }
            Self::CopyOut => {
                client.send(&[Message::query(&format!("copy ({ROWS}) to stdout"))]);
                expect(b'H', client);
                expect(b'd', client);
            }
            Self::BatchWithoutSync => {
                client.send(&[
                    Message::parse("", "insert into t values (2)"),
                    Message::bind("", &[]),
                    Message::execute(),
                    Message::Flush,
                ]);
                expect(b'1', client);
            }
            Self::HalfAQuery => client.send_bytes(b"Q\0\0\0\x1fselect".to_vec()),
        }
    }
}

fn config(database: &Database<'_>, recovery: &str) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(1)
        .general("connection_recovery", &format!("\"{recovery}\""))
        .general("rollback_timeout", "1500")
        .general("checkout_timeout", "9000")
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// Lets a client vanish in each situation; `kept` says whether the server connection is expected to survive.
fn with(recovery: &str, kept: impl Fn(Doing) -> Option<bool>) {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let proxy = Proxy::start(&config(&database, recovery));
    let mut activity = Activity::of(Postgres::shared(), &database);
    for doing in ALL {
        let mut client = proxy.client("pgdog", database.name());
        let pid = client.query_value("select pg_backend_pid()");
        doing.begin(&mut client, &mut activity);
        drop(client);
        let mut next = proxy.client("pgdog", database.name());
        let row = next
            .query_rows(
                "select pg_backend_pid(), current_setting('work_mem'), (select count(*) from t)",
            )
            .remove(0);
        assert_eq!(row[1..], ["4MB", "0"], "{recovery} {doing:?}");
        if let Some(kept) = kept(doing) {
            assert_eq!(
                row[0] == pid,
                kept,
                "{recovery} {doing:?}: was the server connection kept?"
            );
        }
        activity.wait(0, "state <> 'idle'");
        activity.wait(1, "true");
    }
}

#[test]
fn with_recovery() {
    // A message that was cut off in the middle cannot be taken back from the server.
    with("recover", |doing| Some(doing != Doing::HalfACopyData));
}

#[test]
fn with_rollback_only() {
    with("rollback_only", |doing| Some(doing.at_rest()));
}

#[test]
fn with_drop() {
    with("drop", |_| Some(false));
}

#[test]
fn a_session_ends_with_its_client() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database, "recover").general("pooler_mode", "\"session\"");
    let proxy = Proxy::start(&config);
    let mut activity = Activity::of(Postgres::shared(), &database);
    for orderly in [true, false] {
        let mut client = proxy.client("pgdog", database.name());
        client.run("set work_mem = '77MB'");
        client.run("create temp table x (a int)");
        client.run("prepare p as select 1");
        client.run("listen x");
        client.run("select pg_advisory_lock(77)");
        if orderly {
            client.goodbye()
        } else {
            drop(client)
        }
        let mut next = proxy.client("pgdog", database.name());
        let left = "select current_setting('work_mem'), pg_my_temp_schema() <> 0 and exists (select 1 from pg_class where relnamespace = pg_my_temp_schema()), \
            (select count(*) from pg_prepared_statements where from_sql), (select count(*) from pg_listening_channels()), \
            (select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()))";
        assert_eq!(
            next.query_rows(left),
            [["4MB", "f", "0", "0", "0"]],
            "orderly: {orderly}"
        );
    }
    activity.wait(0, "state <> 'idle'");
}

#[test]
fn who_only_stops_talking_gets_the_answer() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, "recover"));
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy accepts");
    stream
        .set_read_timeout(Some(raw::PATIENCE))
        .expect("it is a socket");
    let login = Message::startup(&[("user", "pgdog"), ("database", database.name())]);
    let query = Message::query("select pg_sleep(0.3), 'the answer'");
    stream
        .write_all(&encode_all(&[login, query]))
        .expect("it is sent");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("it is closed in the end");
    assert!(
        answer.windows(10).any(|window| window == b"the answer"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Activity::of(Postgres::shared(), &database).wait(0, "state <> 'idle'");
}

#[test]
fn many_that_vanish_at_once_leave_a_pool_at_rest() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let proxy = Proxy::start(&config(&database, "recover").pool_size(4));
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..24)
            .map(|_| proxy.client("pgdog", database.name()))
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            match number % 4 {
                0 => client.send(&[Message::query("begin; insert into t values (1)")]),
                1 => client.send(&[Message::query("select pg_sleep(60)")]),
                2 => client.send(&[Message::query(ROWS)]),
                _ => client.send(&[Message::query("copy t from stdin")]),
            }
        }
    }
    let mut activity = Activity::of(Postgres::shared(), &database);
    activity.wait(0, "state <> 'idle'");
    assert!(activity.count("true") <= 4);
    assert_eq!(
        proxy
            .client("pgdog", database.name())
            .query_value("select count(*) from t"),
        "0"
    );
}
