//! The state of a session holds on the mirror, whichever of its transactions were mirrored.

use pgdog_tests::{Message, Postgres, Proxy, RawClient};

use super::{Pair, metrics, wait_for, wait_for_done};

fn batch(client: &mut RawClient, messages: &[Message]) {
    let said = client.transcript(&[messages, &[Message::Sync]].concat());
    assert!(!said.iter().any(|line| line.starts_with('E')), "{said:?}");
}

#[test]
fn a_setting_holds_though_its_set_was_not_mirrored() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    // A SET is no DML.
    let proxy = Proxy::start(&pair.config("level = \"dml\""));
    let mut client = proxy.client("pgdog", pair.source.name());
    let note = "insert into t (v) values (current_setting('my.mark', true) || ' ' || current_setting('work_mem'))";
    client.run("set work_mem = '5MB'");
    client.run("set my.mark = 'one'");
    client.run(note);
    client.run("begin");
    client.run("set my.mark = 'never'");
    client.run("rollback");
    client.run(note);
    client.run("set my.mark = 'two'");
    client.run("reset work_mem");
    client.run(note);
    client.run("begin");
    client.run("set local my.mark = 'three'");
    client.run(note);
    client.run("set my.mark = 'four'");
    client.run("commit");
    client.run(note);
    let done = wait_for_done(&metrics(&proxy), 5);
    assert_eq!((done.mirrored, done.errors), (5, 0));
    let (source, mirror) = pair.rows();
    assert_eq!(source, mirror);
    assert!(
        source.starts_with("1 one 5MB, 2 one 5MB, 3 two 4MB, 4 three 4MB, 5 "),
        "{source}"
    );
}

#[test]
fn settings_of_the_login_hold() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let parameters = [
        ("user", "pgdog"),
        ("database", pair.source.name()),
        ("DateStyle", "German"),
    ];
    let (mut client, _) = RawClient::login_with(proxy.port(), &parameters).expect("it logs in");
    client.run("insert into t (v) values ('2024-03-01'::date::text)");
    client.run("set datestyle = 'ISO'");
    client.run("insert into t (v) values ('2024-03-01'::date::text)");
    client.run("reset datestyle");
    client.run("insert into t (v) values ('2024-03-01'::date::text)");
    wait_for_done(&metrics(&proxy), 5);
    let (source, mirror) = pair.rows();
    assert_eq!(source, mirror);
    assert_eq!(source, "1 01.03.2024, 2 2024-03-01, 3 01.03.2024");
}

#[test]
fn prepared_statements_are_what_they_are_for_the_client_though_half_is_left_out() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config("exposure = 0.5\nqueue_length = 2000"));
    let mut client = proxy.client("pgdog", pair.source.name());
    let mut count = 0;
    for round in 0..60 {
        // Another text under the same name, now and then; and names that come and go.
        let text = format!("insert into t (v) values ('{round} ' || $1)");
        let name = ["a", "b"][round % 2];
        batch(
            &mut client,
            &[
                Message::CloseStatement(name.into()),
                Message::parse(name, &text),
            ],
        );
        batch(&mut client, &[Message::parse("", &text)]);
        count += 2;
        for value in ["x", "y"] {
            batch(
                &mut client,
                &[Message::bind("", &[value]), Message::execute()],
            );
            batch(
                &mut client,
                &[Message::bind(name, &[value]), Message::execute()],
            );
            count += 2;
        }
    }
    let metrics = metrics(&proxy);
    let done = wait_for(&metrics, |c| c.total == count && c.queued == 0);
    assert!(
        done.mirrored > count / 3 && done.mirrored < count * 2 / 3,
        "{done:?}"
    );
    assert_eq!((done.dropped, done.errors), (0, 0));
    // Without ids, which depend on how many there are: each row of the mirror is one of the source's, not more often than there.
    let all = |database: &str| {
        let rows = Postgres::shared()
            .client(database)
            .query_rows("select v, count(*)::text from t group by v");
        rows.into_iter()
            .map(|row| (row[0].clone(), row[1].parse().expect("a count")))
            .collect::<std::collections::HashMap<String, u32>>()
    };
    let (source, mirror) = (all(pair.source.name()), all(pair.mirror.name()));
    assert_eq!(source.len(), 120);
    assert!(mirror.len() > 40, "{mirror:?}");
    for (value, count) in mirror {
        assert!(source.get(&value).is_some_and(|n| *n >= count), "{value}");
    }
}

#[test]
fn statements_of_sql_are_known_where_they_are_managed() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let config = pair
        .config("level = \"dml\"")
        .general("prepared_statements", "\"full\"");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("prepare Note (text) as insert into t (v) values ($1)");
    client.run("execute note('one')");
    client.run("deallocate note");
    client.run("prepare note (text) as insert into t (v) values ('second ' || $1)");
    client.run("begin; execute note('two'); commit");
    let metrics = metrics(&proxy);
    wait_for(&metrics, |c| c.total == 5);
    let done = wait_for_done(&metrics, 2);
    assert_eq!(done.errors, 0, "{done:?}");
    pair.same_rows();
}

#[test]
fn temporary_tables_of_mirrored_transactions_are_there() {
    if !Postgres::installed() {
        return;
    }
    let pair = Pair::new();
    let proxy = Proxy::start(&pair.config(""));
    let mut client = proxy.client("pgdog", pair.source.name());
    client.run("create temp table own (v text)");
    client.run("insert into own values ('kept')");
    client.run("set work_mem = '5MB'");
    client.run("insert into t (v) select v || current_setting('work_mem') from own");
    client.run("drop table own");
    let done = wait_for_done(&metrics(&proxy), 5);
    assert_eq!((done.mirrored, done.errors), (5, 0));
    let (source, mirror) = pair.rows();
    assert_eq!(
        (source.as_str(), mirror.as_str()),
        ("1 kept5MB", "1 kept5MB")
    );
}
