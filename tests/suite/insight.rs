//! Statistics of queries and the log of slow ones.

mod slow;

use std::collections::HashMap;
use std::time::Instant;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Database, Message, Postgres, Proxy, ProxyConfig, RawClient, wait};

use super::admin;

type Row = HashMap<String, String>;

const VIEW: &str = "SHOW QUERY_STATS";

/// A proxy with a console that keeps statistics.
fn config(database: &Database<'_>) -> ProxyConfig {
    admin::config(database).append("[query_stats]\nenabled = true")
}

/// Waits until a query whose text begins so was counted that often: a client has its answer a moment before.
fn counted(console: &mut RawClient, begins: &str, calls: u64) -> Row {
    let mut rows = Vec::new();
    let found = |row: &&Row| row["query"].starts_with(begins) && number(row, "calls") >= calls;
    let came = wait::until(PATIENCE, || {
        rows = admin::view(console, VIEW);
        rows.iter().any(|row| found(&row))
    });
    assert!(came, "no {begins:?} with {calls} calls: {rows:#?}");
    let row = rows.iter().find(found).expect("it was found").clone();
    assert_eq!(number(&row, "calls"), calls, "{row:?}");
    row
}

fn number(row: &Row, column: &str) -> u64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column} is no number: {row:?}"))
}

/// Parse, Bind, Execute and Sync of a statement without a name.
fn unnamed(sql: &str) -> Vec<Message> {
    let mut messages = one(sql);
    messages.push(Message::Sync);
    messages
}

fn one(sql: &str) -> Vec<Message> {
    vec![
        Message::parse("", sql),
        Message::bind("", &[]),
        Message::execute(),
    ]
}

#[test]
fn spellings_that_differ_in_constants_are_one_query() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    for sql in [
        "select n from generate_series(1, 5) n",
        "SELECT n /* seven */ FROM generate_series(11,17)\n n",
        "select n from generate_series(101, 107) n -- the same",
    ] {
        client.run(sql);
    }
    let mut console = admin::console(&proxy);
    let row = counted(&mut console, "select n from generate_series(", 3);
    assert_eq!((number(&row, "rows"), number(&row, "errors")), (19, 0));
    assert_eq!(
        (&*row["user"], &*row["database"]),
        ("pgdog", database.name())
    );
    assert_eq!((row["fingerprint"].len(), &*row["error_codes"]), (16, ""));
    let times = ["min_time", "p50_time", "p99_time", "max_time", "total_time"];
    let times = times.map(|column| number(&row, column));
    assert!(times.is_sorted() && times[4] > 0, "{row:?}");
    assert_eq!(number(&row, "mean_time"), times[4] / 3);
    assert!(row["last_seen"].ends_with(" UTC"), "{row:?}");
}

#[test]
fn failures_are_counted_with_their_sqlstates() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(client.query_error("select 5 / 0"), "22012");
    client.run("select 6 / 2");
    assert_eq!(client.query_error("select 7 / 0"), "22012");
    assert_eq!(client.query_error("select x from nowhere"), "42P01");
    client.transcript(&unnamed("selec 1"));
    client.transcript(&unnamed("select 8 / 0"));
    let mut console = admin::console(&proxy);
    let row = counted(&mut console, "select $1 / $2", 4);
    assert_eq!((number(&row, "errors"), number(&row, "rows")), (3, 1));
    assert_eq!(row["error_codes"], "22012: 3");
    let row = counted(&mut console, "select x from nowhere", 1);
    assert_eq!(row["error_codes"], "42P01: 1");
    let row = counted(&mut console, "selec $1", 1);
    assert_eq!(row["error_codes"], "42601: 1");
}

#[test]
fn prepared_statements_count_by_their_text_at_every_level_and_in_every_mode() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let levels = ["extended", "extended_anonymous", "full", "disabled"];
    let kinds = levels.map(|level| ("transaction", level));
    for (mode, level) in kinds.into_iter().chain([("session", "extended")]) {
        let config = config(&database)
            .general("pooler_mode", &format!("\"{mode}\""))
            .general("prepared_statements", &format!("\"{level}\""));
        let proxy = Proxy::start(&config);
        let mut console = admin::console(&proxy);
        for round in 1..=2 {
            let mut client = proxy.client("pgdog", database.name());
            for (name, column) in [("named", "a"), ("", "b")] {
                let text = format!("select $1::int + 1 as {column}");
                let before = client.transcript(&[Message::parse(name, &text), Message::Sync]);
                assert!(!before.join(" ").contains("E "), "{before:?}");
                for value in ["10", "20", "30"] {
                    let run = [
                        Message::bind(name, &[value]),
                        Message::execute(),
                        Message::Sync,
                    ];
                    let told = client.transcript(&run);
                    assert!(told.iter().any(|line| line.starts_with('D')), "{told:?}");
                }
                let text = text.replace("+ 1", "+ $2");
                let row = counted(&mut console, &text, 3 * round);
                assert_eq!(number(&row, "rows"), 3 * round, "{mode} {level}");
                assert_eq!(number(&row, "errors"), 0, "{mode} {level}");
            }
        }
    }
}

#[test]
fn each_query_of_a_pipeline_counts_and_their_times_do_not_overlap() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 'warm'");
    let began = Instant::now();
    let sleeps = "select pg_sleep(0.05), 1";
    client.send(&[
        Message::query(sleeps),
        Message::query("select 'quick'::text"),
        Message::query(sleeps),
    ]);
    (0..3).for_each(|_| drop(client.until_ready()));
    let mut batches = one("select 'first' as a");
    batches.extend(one("select 1 / (1 - 1) as b"));
    batches.extend(one("select 'skipped' as c"));
    batches.push(Message::Sync);
    batches.extend(unnamed("select pg_sleep(0.02) as d"));
    client.send(&batches);
    (0..2).for_each(|_| drop(client.until_ready()));
    let most = began.elapsed().as_micros() as u64;
    let mut console = admin::console(&proxy);
    let rows = [
        counted(&mut console, "select pg_sleep($1), $2", 2),
        counted(&mut console, "select $1::text", 1),
        counted(&mut console, "select $1 as a", 1),
        counted(&mut console, "select $1 / ($2 - $3) as b", 1),
        counted(&mut console, "select pg_sleep($1) as d", 1),
    ];
    // The server may be in the middle of the next one by the time that the proxy sees the end of the one before.
    assert!(number(&rows[0], "max_time") >= 50_000, "{rows:?}");
    let errors = rows.each_ref().map(|row| number(row, "errors"));
    assert_eq!(errors, [0, 0, 0, 1, 0]);
    let sum: u64 = rows.iter().map(|row| number(row, "total_time")).sum();
    assert!(sum >= 119_000, "all sleeps are in it: {rows:?}");
    // The last turn of each batch comes after its answer. An overlap would be twice as long as this.
    assert!(sum <= most + 20_000, "{sum} µs in {most} µs: {rows:?}");
    let all = admin::view(&mut console, VIEW);
    let skipped = all.iter().find(|row| row["query"].contains("as c"));
    assert_eq!(skipped, None, "it was not run");
}

#[test]
fn copies_and_portals_read_in_parts_have_their_rows() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table copied (n int)");
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    let data = [Message::CopyData(b"1\n2\n3\n".to_vec()), Message::CopyDone];
    client.send(&[Message::query("copy copied from stdin")]);
    client.take(1);
    client.transcript(&data);
    client.send(&unnamed("copy copied from stdin"));
    client.take(3);
    let mut more = data.to_vec();
    more.push(Message::Sync);
    client.transcript(&more);
    client.run("copy copied to stdout");
    let fetch = |limit| Message::Execute {
        portal: b"p".to_vec(),
        limit,
    };
    client.transcript(&[
        Message::parse("", "select n from copied"),
        Message::Bind {
            portal: b"p".to_vec(),
            statement: Vec::new(),
            formats: Vec::new(),
            values: Vec::new(),
            results: Vec::new(),
        },
        fetch(4),
        fetch(0),
        Message::Sync,
    ]);
    let mut console = admin::console(&proxy);
    for (begins, calls) in [
        ("copy copied from stdin", 2),
        ("copy copied to stdout", 1),
        ("select n from copied", 2),
    ] {
        let row = counted(&mut console, begins, calls);
        assert_eq!(
            (number(&row, "rows"), number(&row, "errors")),
            (6, 0),
            "{row:?}"
        );
    }
}

#[test]
fn users_have_rows_of_their_own_and_a_reset_begins_anew() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database).append_users(&admin::trusted("other", database.name()));
    let proxy = Proxy::start(&config);
    let mut console = admin::console(&proxy);
    for (user, calls) in [("pgdog", 1), ("other", 2)] {
        let mut client = proxy.client(user, database.name());
        (0..calls).for_each(|_| client.run("select 'whose'"));
        client.goodbye();
    }
    counted(&mut console, "select $1", 2);
    let mut rows = admin::view(&mut console, VIEW);
    rows.sort_by_key(|row| number(row, "calls"));
    let users: Vec<_> = rows
        .iter()
        .map(|row| (&*row["user"], &*row["calls"]))
        .collect();
    assert_eq!(users, [("pgdog", "1"), ("other", "2")]);
    console.run("RESET QUERY_STATS");
    assert_eq!(admin::view(&mut console, VIEW), []);
}

#[test]
fn queries_above_the_limit_are_forgotten_and_told_of_in_one_row() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database)
        .append("max_entries = 5")
        .general("workers", "1");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    for number in 0..40 {
        client.run(&format!("select 1 as n{number}"));
    }
    let mut console = admin::console(&proxy);
    counted(&mut console, "select $1 as n39", 1);
    let rows = admin::view(&mut console, VIEW);
    assert_eq!(rows.len(), 6, "{rows:?}");
    let others = rows.last().expect("there are rows");
    assert!(others["query"].ends_with("others, forgotten for these */"));
    assert_eq!(others["user"], "NULL");
    let calls: u64 = rows.iter().map(|row| number(row, "calls")).sum();
    assert_eq!(calls, 40);
}

#[test]
fn a_reload_switches_statistics_on_and_off_for_clients_that_are_there() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let off = admin::config(&database);
    let on = config(&database);
    let proxy = Proxy::start(&off);
    let mut client = proxy.client("pgdog", database.name());
    let mut console = admin::console(&proxy);
    client.run("select 'before'::text");
    assert_eq!(admin::view(&mut console, VIEW), []);
    proxy.write_config(&on);
    console.run("RELOAD");
    client.run("select 'after' || 'wards'");
    counted(&mut console, "select $1 || $2", 1);
    assert_eq!(admin::view(&mut console, VIEW).len(), 1);
    proxy.write_config(&off);
    console.run("RELOAD");
    client.run("select 'after' || 'wards'");
    assert_eq!(admin::view(&mut console, VIEW), []);
}

#[test]
fn no_constant_is_kept_whatever_the_text_looks_like() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database).general("log_min_duration_query", "1");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    let texts = [
        "select 'hunter2', pg_sleep(0.002)",
        "select E'a\\'hunter2', pg_sleep(0.002)",
        "select $$hunter2$$, $tag$hunter2$tag$, pg_sleep(0.002)",
        "select /* hunter2 */ pg_sleep(0.002) -- hunter2",
        "select U&'hunter2' as x, pg_sleep(0.002)",
        "select pg_sleep(0.002), 'unterminated hunter2",
        "create role hunter_of_passwords password 'hunter2'; drop role hunter_of_passwords; select pg_sleep(0.002)",
        "select pg_sleep(0.002); set standard_conforming_strings = off",
    ];
    client.run("begin");
    for text in texts {
        client.query(text);
        client.query("rollback; begin");
    }
    client.run("set standard_conforming_strings = off");
    client.run("select 'a\\' hunter2 \\'b', pg_sleep(0.002)");
    let prepared = [
        Message::parse("", "select $1::text, pg_sleep(0.002)"),
        Message::bind("", &["hunter2"]),
        Message::execute(),
        Message::Sync,
    ];
    client.transcript(&prepared);
    client.run("select 'last'::text");
    let mut console = admin::console(&proxy);
    counted(&mut console, "select $1::text, pg_sleep($2)", 1);
    let rows = admin::view(&mut console, VIEW);
    assert!(rows.len() >= 8, "{rows:#?}");
    let odd = rows.iter().find(|row| row["query"].contains("backslashes"));
    assert!(odd.is_some(), "it cannot be read: {rows:#?}");
    let shown = rows.iter().find(|row| row["query"].contains("hunter2"));
    assert_eq!(shown, None);
    let logged = || proxy.log().contains("slow query");
    assert!(wait::until(PATIENCE, logged), "{}", proxy.log());
    assert!(!proxy.log().contains("hunter2"), "{}", proxy.log());
}
