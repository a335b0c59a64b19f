//! Mirroring: what clients of one database do is repeated in another one, and they do not notice.

mod leaving;
mod sessions;
mod trouble;
mod which;

use std::collections::HashMap;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Activity, Database, Http, Message, Postgres, Proxy, ProxyConfig, wait};

/// What both databases have.
const TABLE: &str = "create table t (id serial primary key, v text)";

/// A database and its mirror, on the same server.
struct Pair {
    source: Database<'static>,
    mirror: Database<'static>,
}

impl Pair {
    fn new() -> Self {
        let shared = Postgres::shared();
        let pair = Self {
            source: shared.fresh_database(),
            mirror: shared.fresh_database(),
        };
        pair.source.run(TABLE);
        pair.mirror.run(TABLE);
        pair
    }

    /// Both databases, and the endpoint that tells the counters.
    fn bare(&self) -> ProxyConfig {
        ProxyConfig::transaction(Postgres::shared())
            .general("openmetrics_port", "0")
            .database(self.source.name())
            .database(self.mirror.name())
            .user("pgdog", "pgdog")
    }

    /// The one mirrored in the other, with more keys of `[[mirroring]]`.
    fn config(&self, more: &str) -> ProxyConfig {
        mirrored(self.bare(), self.source.name(), self.mirror.name(), more)
    }

    /// The rows of both, in the order of their ids.
    fn rows(&self) -> (String, String) {
        (rows(&self.source), rows(&self.mirror))
    }

    fn same_rows(&self) {
        let (source, mirror) = self.rows();
        assert_eq!(source, mirror);
    }
}

fn mirrored(config: ProxyConfig, source: &str, mirror: &str, more: &str) -> ProxyConfig {
    config.append(&format!(
        "[[mirroring]]\nsource_db = \"{source}\"\ndestination_db = \"{mirror}\"\n{more}"
    ))
}

fn rows(database: &Database<'_>) -> String {
    Postgres::shared().value(
        database.name(),
        "select coalesce(string_agg(id || ' ' || coalesce(v, '-'), ', ' order by id), '') from t",
    )
}

/// The counters of the only mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counters {
    total: u64,
    mirrored: u64,
    dropped: u64,
    errors: u64,
    queued: u64,
}

fn counters(metrics: &Http) -> Counters {
    let text = metrics.get("/metrics").expect(200).body;
    let values: HashMap<_, _> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("mirror_")?.split_once('{')?;
            Some((name, rest.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    Counters {
        total: values["total_count"],
        mirrored: values["mirrored_count"],
        dropped: values["dropped_count"],
        errors: values["error_count"],
        queued: values["queue_length"],
    }
}

fn metrics(proxy: &Proxy) -> Http {
    Http::new(proxy.http_port("general.openmetrics_port"))
}

/// Waits until something is true of the counters.
fn wait_for(metrics: &Http, what: impl Fn(Counters) -> bool) -> Counters {
    let mut last = None;
    let came = wait::until(PATIENCE, || {
        let now = counters(metrics);
        last = Some(now);
        what(now)
    });
    assert!(came, "{last:?}");
    last.expect("it was looked at")
}

/// Waits until so many transactions have been repeated, dropped or failed.
fn wait_for_done(metrics: &Http, count: u64) -> Counters {
    wait_for(metrics, |c| c.mirrored + c.dropped + c.errors >= count)
}

#[test]
fn what_clients_write_arrives_in_order() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("insert into t (v) values ('simple')");
    client.run("begin");
    client.run("insert into t (v) values ('in a transaction')");
    client.run("update t set v = v || '!'");
    client.run("commit");
    let insert = "insert into t (v) values ($1)";
    let mut batch = |messages: &[Message]| {
        client.transcript(&[messages, &[Message::Sync]].concat());
    };
    batch(&[
        Message::parse("", insert),
        Message::bind("", &["extended"]),
        Message::execute(),
    ]);
    batch(&[Message::parse("s", insert)]);
    for value in ["prepared", "prepared again"] {
        batch(&[Message::bind("s", &[value]), Message::execute()]);
    }
    client.run("begin; insert into t (v) values ('never'); rollback");
    client.run("begin");
    client.run("insert into t (v) values ('nor this')");
    client.query_error("select 1/0");
    client.run("rollback");
    client.run("insert into t (v) values ('last'); delete from t where id = 1");
    let metrics = metrics(&proxy);
    let done = wait_for_done(&metrics, 9);
    assert_eq!(
        (
            done.total,
            done.mirrored,
            done.dropped,
            done.errors,
            done.queued
        ),
        (9, 8, 0, 1, 0),
        "the error that the client has seen counts on the mirror too"
    );
    let (source, mirror) = pair.rows();
    assert_eq!(source, mirror);
    assert!(source.ends_with("prepared again, 8 last"), "{source}");
}

#[test]
fn many_clients_have_their_transactions_mirrored_whole() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("queue_length = 1000"));
    let count = "select count(*) || ' ' || count(distinct v) || ' ' || sum(length(v)) from t";
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (proxy, pair) = (&proxy, &pair);
            scope.spawn(move || {
                let mut client = proxy.client("pgdog", pair.source.name());
                for round in 0..20 {
                    client.run("begin");
                    client.run(&format!("insert into t (v) values ('{number} {round}')"));
                    client.run(&format!(
                        "update t set v = v || '!' where v = '{number} {round}'"
                    ));
                    client.run("commit");
                }
            });
        }
    });
    let done = wait_for_done(&metrics(&proxy), 160);
    assert_eq!((done.mirrored, done.dropped, done.errors), (160, 0, 0));
    let value = |database: &Database<'_>| Postgres::shared().value(database.name(), count);
    assert_eq!(value(&pair.source), value(&pair.mirror));
}

#[test]
fn pauses_within_a_transaction_are_kept() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    let insert = "insert into t (v) values (extract(epoch from clock_timestamp())::text)";
    client.run("begin");
    client.run(insert);
    std::thread::sleep(std::time::Duration::from_millis(400));
    client.run(insert);
    client.run("commit");
    wait_for_done(&metrics(&proxy), 1);
    let passed = Postgres::shared().value(
        pair.mirror.name(),
        "select (max(v::numeric) - min(v::numeric)) * 1000 from t",
    );
    let passed: f64 = passed.parse().expect("it is a number");
    assert!((300.0..5_000.0).contains(&passed), "{passed} ms");
}

#[test]
fn a_mirror_is_seen_by_its_name_and_counts_against_no_limit() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let config = pair.config("").general("max_client_conn", "1");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("set application_name = 'mine'");
    client.run("insert into t (v) values (current_setting('application_name'))");
    wait_for_done(&metrics(&proxy), 2);
    assert_eq!(
        pair.rows(),
        ("1 mine".to_owned(), "1 pgdog mirror".to_owned())
    );
    let mut mirror = Activity::of(Postgres::shared(), &pair.mirror);
    mirror.wait(1, "application_name = 'pgdog mirror'");
    client.goodbye();
    let mut next = None;
    assert!(wait::until(PATIENCE, || {
        next = pgdog_tests::RawClient::try_login(proxy.port(), "pgdog", pair.source.name()).ok();
        next.is_some()
    }));
}
