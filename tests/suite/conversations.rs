//! Random conversations, several at a time through few servers: each must be answered as PostgreSQL answers it alone.
//!
//! `CONVERSATIONS` says how many, `CONVERSATION` repeats one. Tame ones keep to what drivers do: names are given once, and
//! an unnamed statement is used in the batch that parsed it. Wild ones do not.

use std::env;
use std::thread::{self, sleep};
use std::time::Duration;

use pgdog_tests::message::encode_all;
use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Message, Postgres, PostgresOptions, Proxy, ProxyConfig, RawClient, Received, wait,
};

const AT_ONCE: u64 = 6;
const SERVERS: usize = 2;
/// The end of a conversation in which a COPY was broken into.
const BROKE_COPY: &str = "closed in a copy";

const QUERIES: &[&str] = &[
    "select 1",
    "",
    "begin",
    "begin",
    "commit",
    "rollback",
    "select 1/0",
    "select 1; select 2",
    "begin; select 1/0",
    "select 1; commit; select 2",
    "copy (select 1) to stdout",
    "copy t from stdin",
    "savepoint a",
    "rollback to a",
    "set work_mem = '1MB'",
    "set local work_mem = '2MB'",
    "reset work_mem",
    "show work_mem",
    "select set_config('work_mem', '3MB', false)",
    "prepare q as select 7",
    "execute q",
    "execute a(1)",
    "deallocate a",
    "deallocate q",
    "deallocate all",
];

const TEXTS: &[&str] = &[
    "select 10",
    "select 10",
    "select $1::int",
    "select 1/0",
    "begin",
    "commit",
    "rollback",
    "insert into t values (1)",
    "copy t from stdin",
    "selec",
    "set work_mem = '4MB'",
    "select current_setting('work_mem')",
    "",
    "select n from generate_series(1, 3) n",
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn bind(portal: &str, statement: &str, dice: &mut Dice) -> Message {
    let values = if dice.below(4) == 0 {
        vec![Some(b"5".to_vec())]
    } else {
        Vec::new()
    };
    Message::Bind {
        portal: portal.into(),
        statement: statement.into(),
        formats: Vec::new(),
        values,
        results: Vec::new(),
    }
}

/// One message, or those that tame clients send together.
fn messages(dice: &mut Dice, wild: bool) -> Vec<Message> {
    let statement = dice.pick(&["", "a", "b"]);
    let portal = dice.pick(&["", "", "p"]);
    let query = Message::query(dice.pick(QUERIES));
    let parse = Message::parse(if wild { statement } else { "" }, dice.pick(TEXTS));
    vec![match dice.below(32) {
        0..6 if wild => query,
        0..6 if matches!(&query, Message::Query(sql) if sql.starts_with(b"deallocate")) => {
            Message::Sync
        }
        0..6 => return vec![Message::Sync, query],
        6..11 if wild => parse,
        6..11 => return vec![parse, bind(portal, "", dice)],
        11..16 if wild || !statement.is_empty() => bind(portal, statement, dice),
        11..16 => return vec![parse, bind(portal, "", dice)],
        16..21 => Message::Execute {
            portal: portal.into(),
            limit: dice.pick(&[0, 0, 1]),
        },
        // A server that lacks the statement cannot be given it in a failed transaction, where PostgreSQL describes it.
        21 if wild => Message::DescribeStatement(statement.into()),
        22 => Message::DescribePortal(portal.into()),
        23 if wild => Message::CloseStatement(statement.into()),
        21 | 23 | 24 => Message::ClosePortal(portal.into()),
        25 => Message::Flush,
        26 if dice.below(3) == 0 => Message::CopyFail(b"no".to_vec()),
        26 => Message::CopyDone,
        27 => Message::CopyData(b"1\n".to_vec()),
        _ => Message::Sync,
    }]
}

/// Messages in writes, with a pause in ms before each.
fn conversation(seed: u64, wild: bool) -> Vec<(u64, Vec<Message>)> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut writes = Vec::new();
    if !wild {
        // Two names for one text: an error may name the other.
        let a = dice.pick(TEXTS);
        let others: Vec<_> = TEXTS.iter().copied().filter(|text| *text != a).collect();
        let b = dice.pick(&others);
        writes.push((
            0,
            vec![
                Message::parse("a", a),
                Message::Sync,
                Message::parse("b", b),
                Message::Sync,
            ],
        ));
    }
    for _ in 0..dice.below(10) + 1 {
        let pause = dice.pick(&[0, 0, 1, 5]);
        let count = dice.below(8) + 1;
        writes.push((
            pause,
            (0..count).flat_map(|_| messages(&mut dice, wild)).collect(),
        ));
    }
    // Whatever it has come to ends here.
    let copy_end = [Message::CopyFail(b"end".to_vec()), Message::Sync];
    writes.push((20, copy_end.to_vec()));
    writes.push((20, copy_end.to_vec()));
    writes.push((
        5,
        vec![
            Message::query("rollback"),
            Message::query("show work_mem"),
            Message::query("select 'the end'"),
        ],
    ));
    writes
}

fn transcript(port: u16, database: &str, seed: u64, wild: bool) -> Vec<String> {
    let Ok(mut client) = RawClient::try_login(port, "pgdog", database) else {
        return vec!["no login".to_owned()];
    };
    for (pause, messages) in conversation(seed, wild) {
        sleep(Duration::from_millis(pause));
        client.send_bytes(encode_all(&messages));
    }
    let mut lines = Vec::new();
    loop {
        match client.receive(PATIENCE) {
            Received::Frame(frame) => lines.push(frame.line()),
            Received::Eof => lines.push("closed".to_owned()),
            Received::Silence => lines.push("silence".to_owned()),
        }
        let last = lines.last().map_or("", String::as_str);
        if matches!(last, "closed" | "silence")
            || last.starts_with('Z') && lines.iter().any(|line| line.contains("the end"))
        {
            // Notices tell how, not what; a rollback without a transaction is one.
            lines.retain(|line| !line.starts_with("N "));
            // Which message breaks into a COPY may be one of the proxy's own; what matters is that the session ends.
            if let Some(at) = lines
                .iter()
                .position(|line| line.contains("during COPY from stdin"))
            {
                lines.truncate(at);
                lines.push(BROKE_COPY.to_owned());
            }
            return lines;
        }
    }
}

/// The conversation and both answers, when they differ.
fn difference(seed: u64, wild: bool, direct: u16, proxy: u16, database: &str) -> Option<String> {
    let before = checkpointer(direct, database);
    let (expected, seen) = (
        transcript(direct, database, seed, wild),
        transcript(proxy, database, seed, wild),
    );
    if all_the_same(&expected, &seen) {
        return None;
    }
    // PostgreSQL 15 has sequences of messages in a failed transaction that crash it (SIGSEGV), by itself as through the proxy.
    let crashed = || before.is_none() || before != checkpointer(direct, database);
    // The postmaster needs a moment to notice.
    let ended = [&expected, &seen]
        .iter()
        .any(|lines| lines.last().is_some_and(|line| line == "no login") || has_closed(lines));
    if crashed() || ended && wait::until(Duration::from_secs(2), crashed) {
        eprintln!("conversation {seed}: skipped, PostgreSQL itself has crashed");
        return None;
    }
    let mut text = format!("CONVERSATION={seed}\n");
    for (pause, messages) in conversation(seed, wild) {
        text.push_str(&format!("  {pause} ms: {messages:?}\n"));
    }
    for i in 0..expected.len().max(seen.len()) {
        let (e, s) = (
            expected.get(i).map_or("", String::as_str),
            seen.get(i).map_or("", String::as_str),
        );
        text.push_str(&format!(
            "  {} {e:60} | {s}\n",
            if same(e, s) { ' ' } else { '!' }
        ));
    }
    Some(text)
}

/// Whether both answers are. Who closes a connection with unread bytes in it takes from the other side what that has not
/// read yet: where both have closed, the end of either may be missing.
fn all_the_same(expected: &[String], seen: &[String]) -> bool {
    let mut pairs = expected.iter().zip(seen);
    if expected.last().is_some_and(|line| line == BROKE_COPY) {
        // A message that the proxy answers itself breaks no COPY.
        return pairs
            .take(expected.len() - 1)
            .all(|(e, s)| same(e, s) || lost(s));
    }
    if has_closed(expected) && has_closed(seen) {
        let shorter = expected.len().min(seen.len()) - 1;
        return pairs.take(shorter).all(|(e, s)| same(e, s) || lost(s));
    }
    expected.len() == seen.len() && pairs.all(|(e, s)| same(e, s))
}

fn has_closed(lines: &[String]) -> bool {
    lines
        .last()
        .is_some_and(|line| line == "closed" || line == BROKE_COPY)
}

/// What the proxy says of a server that has closed so.
fn lost(seen: &str) -> bool {
    seen.starts_with("E FATAL 08006") || seen == "closed" || seen == BROKE_COPY
}

/// In a failed transaction a server that lacks the statement refuses to be given it, before it could find another error.
fn same(expected: &str, seen: &str) -> bool {
    expected == seen || expected.starts_with("E ERROR") && seen.starts_with("E ERROR 25P02")
}

/// Which checkpointer the server has: another one after each crash.
fn checkpointer(port: u16, database: &str) -> Option<Vec<u8>> {
    let mut client = RawClient::try_login(port, "pgdog", database).ok()?;
    let answer =
        client.query("select pid from pg_stat_activity where backend_type = 'checkpointer'");
    let row = answer.into_iter().find(|frame| frame.tag == b'D');
    row.map(|row| row.body)
}

#[test]
fn random_tame_conversations_are_answered_as_postgres_answers_them() {
    converse(false);
}

#[test]
fn random_wild_conversations_are_answered_as_postgres_answers_them() {
    converse(true);
}

fn converse(wild: bool) {
    if !Postgres::installed() {
        return;
    }
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds: Vec<u64> = number("CONVERSATION").map_or_else(
        || (0..number("CONVERSATIONS").unwrap_or(400)).collect(),
        |one| vec![one],
    );
    // Its own: see above.
    let postgres = Postgres::start(&PostgresOptions::default());
    let database = postgres.fresh_database();
    database.run("create table t (a int)");
    let config = ProxyConfig::transaction(&postgres)
        .database(database.name())
        .user("pgdog", "pgdog")
        .pool_size(SERVERS);
    let proxy = Proxy::start(&config.general("checkout_timeout", "30000"));
    let (direct, through, name) = (postgres.port(), proxy.port(), database.name());
    let mine = |index: u64| {
        seeds
            .iter()
            .copied()
            .filter(move |seed| seed % AT_ONCE == index)
    };
    let differences: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|index| {
                let mine = mine(index);
                scope.spawn(move || {
                    mine.filter_map(|seed| difference(seed, wild, direct, through, name))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().expect("a conversation does not panic"))
            .collect()
    });
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        seeds.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

#[test]
fn a_set_followed_by_an_error_in_the_same_write_stays_with_its_client() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog")
        .pool_size(1);
    let proxy = Proxy::start(&config);
    let (mut one, mut other) = (
        proxy.client("pgdog", database.name()),
        proxy.client("pgdog", database.name()),
    );
    one.send(&[
        Message::query("set work_mem = '1MB'"),
        Message::bind("none", &[]),
        Message::Sync,
    ]);
    one.until_ready();
    one.until_ready();
    assert_eq!(other.query_value("show work_mem"), "4MB");
    assert_eq!(one.query_value("show work_mem"), "1MB");
}

#[test]
fn a_text_that_does_not_parse_fails_each_time_in_one_pipeline() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    client.send(&[
        Message::parse("a", "selec"),
        Message::Sync,
        Message::parse("b", "selec"),
        Message::Sync,
    ]);
    for _ in 0..2 {
        assert_eq!(
            client
                .until_ready()
                .first()
                .and_then(|f| f.field(b'C'))
                .as_deref(),
            Some("42601")
        );
    }
}

#[test]
fn a_copy_behind_what_forgets_statements_gets_its_data() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let config = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    let copy = Message::query("deallocate all; copy t from stdin");
    client.send(&[copy, Message::CopyData(b"1\n".to_vec()), Message::CopyDone]);
    assert_eq!(
        client
            .until_ready()
            .last()
            .and_then(pgdog_tests::Frame::status),
        Some('I')
    );
    assert_eq!(client.query_value("select count(*) from t"), "1");
}

#[test]
fn execute_of_a_statement_in_a_failed_transaction_on_another_server_is_answered() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = ProxyConfig::transaction(Postgres::shared())
        .database(database.name())
        .user("pgdog", "pgdog")
        .pool_size(2);
    let proxy = Proxy::start(&config);
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    client.send(&[Message::parse("a", "select 1"), Message::Sync]);
    client.until_ready();
    // The server that has the statement is taken: the client gets the other one.
    other.run("begin");
    client.run("begin");
    assert_eq!(client.query_error("select 1/0"), "22012");
    assert_eq!(client.query_error("execute a"), "25P02");
    client.run("rollback");
    assert_eq!(client.query_value("execute a"), "1");
}
