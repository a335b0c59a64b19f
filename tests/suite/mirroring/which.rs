//! Which transactions are mirrored.

use pgdog_tests::{Message, Postgres, Proxy};

use super::{Pair, metrics, mirrored, wait_for, wait_for_done};

#[test]
fn with_no_exposure_nothing_is_mirrored() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("exposure = 0.0"));
    let mut client = proxy.client("pgdog", pair.source.name());
    for _ in 0..20 {
        client.run("insert into t (v) values ('x')");
    }
    let done = wait_for(&metrics(&proxy), |c| c.total == 20);
    assert_eq!(
        (done.mirrored, done.dropped, done.errors, done.queued),
        (0, 0, 0, 0)
    );
    assert_eq!(pair.rows().1, "");
}

#[test]
fn half_of_the_exposure_is_about_half_of_the_transactions() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let config = mirrored(
        pair.bare().general("mirror_exposure", "0.5"),
        pair.source.name(),
        pair.mirror.name(),
        "queue_length = 1000",
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", pair.source.name());
    for number in 0..300 {
        client.run("begin");
        client.run(&format!("insert into t (v) values ('{number}')"));
        client.run(&format!("insert into t (v) values ('{number} too')"));
        client.run("commit");
    }
    let metrics = metrics(&proxy);
    let done = wait_for(&metrics, |c| c.total == 300 && c.queued == 0);
    // Seven times the standard deviation to both sides.
    assert!((90..=210).contains(&done.mirrored), "{done:?}");
    assert_eq!((done.dropped, done.errors), (0, 0));
    let of_mirror = |sql: &str| Postgres::shared().value(pair.mirror.name(), sql);
    let done = wait_for(&metrics, |c| {
        of_mirror("select count(*) from t") == (2 * c.mirrored).to_string()
    });
    assert_eq!(
        of_mirror("select count(distinct split_part(v, ' ', 1)) from t"),
        done.mirrored.to_string(),
        "each of them whole"
    );
}

#[test]
fn a_level_lets_through_what_changes_data_or_the_schema() {
    if !Postgres::installed() {
        return;
    }
    let statements: &[(&str, bool, bool)] = &[
        ("select count(*) from t", false, false),
        ("create table u (v text)", false, true),
        ("insert into t (v) values ('x')", true, false),
        ("/* why */ alter table t add w text", false, true),
        ("with x as (update t set v = 'y') select 1", true, false),
        ("set statement_timeout = 60000", false, false),
        (
            "begin; create table w (v text); insert into w values ('x'); commit",
            true,
            true,
        ),
    ];
    for (level, dml) in [("dml", true), ("ddl", false)] {
        let pair = Pair::new();
        let proxy = Proxy::start(&pair.config(&format!("level = \"{level}\"")));
        let mut client = proxy.client("pgdog", pair.source.name());
        let mut expected = 0;
        for (sql, is_dml, is_ddl) in statements {
            client.run(sql);
            expected += u64::from(if dml { *is_dml } else { *is_ddl });
        }
        let metrics = metrics(&proxy);
        wait_for_done(&metrics, expected);
        let done = wait_for(&metrics, |c| c.total == statements.len() as u64);
        assert_eq!(
            (done.mirrored, done.dropped, done.errors),
            (expected, 0, 0),
            "{level}"
        );
        let tables = Postgres::shared().value(
            pair.mirror.name(),
            "select string_agg(relname, ' ' order by relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
        );
        assert_eq!(tables, if dml { "t w" } else { "t u w" }, "{level}");
    }
}

#[test]
fn the_level_of_a_prepared_statement_is_known_when_it_is_executed() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("level = \"dml\""));
    let mut client = proxy.client("pgdog", pair.source.name());
    let insert = "insert into t (v) values ($1)";
    let mut batch = |messages: &[Message]| {
        client.transcript(&[messages, &[Message::Sync]].concat());
    };
    batch(&[Message::parse("read", "select $1")]);
    batch(&[Message::parse("write", insert)]);
    batch(&[Message::bind("read", &["x"]), Message::execute()]);
    batch(&[Message::bind("write", &["x"]), Message::execute()]);
    batch(&[Message::parse("", insert)]);
    batch(&[Message::bind("", &["y"]), Message::execute()]);
    let done = wait_for_done(&metrics(&proxy), 4);
    // A Parse of an insert is one of those, too.
    assert_eq!((done.total, done.mirrored, done.errors), (6, 4, 0));
    pair.same_rows();
}

#[test]
fn what_is_no_text_of_the_client_is_dropped_and_counted() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    client.send(&[Message::query("copy t (v) from stdin")]);
    client.take(1);
    client.send(&[Message::CopyData(b"copied\n".to_vec()), Message::CopyDone]);
    client.until_ready();
    client.query_error("copy nothing from stdin");
    client.run("listen x");
    client.run("unlisten x");
    let large = "x".repeat(600 * 1024);
    client.run("begin");
    client.run(&format!("insert into t (v) select length('{large}')"));
    client.run(&format!("insert into t (v) select length('{large}')"));
    client.run("commit");
    let huge = "x".repeat(3 * 1024 * 1024);
    client.run(&format!("insert into t (v) select length('{huge}')"));
    client.transcript(&[
        Message::parse("", "insert into t (v) select length($1)"),
        Message::bind("", &[&huge]),
        Message::execute(),
        Message::Sync,
    ]);
    client.run(&format!(
        "insert into t (v) select 'all of ' || length('{large}')"
    ));
    let done = wait_for_done(&metrics(&proxy), 8);
    assert_eq!((done.mirrored, done.dropped, done.errors), (1, 7, 0));
    assert_eq!(pair.rows().1, "1 all of 614400");
}
