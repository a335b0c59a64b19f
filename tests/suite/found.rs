//! Defects that a reading of the code has found, each in front of a real Postgres.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Database, Message, Postgres, Proxy, ProxyConfig, RawClient, wait};

fn config(database: &Database<'_>, pool_size: usize) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(pool_size)
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// Binds and executes one of the client's statements.
fn bound(statement: &str) -> [Message; 3] {
    [
        Message::bind(statement, &[]),
        Message::execute(),
        Message::Sync,
    ]
}

/// Parses, binds and executes.
fn parsed(statement: &str, sql: &str) -> Vec<Message> {
    let mut messages = vec![Message::parse(statement, sql)];
    messages.extend(bound(statement));
    messages
}

fn has_line(told: &[String], start: &str) -> bool {
    told.iter().any(|line| line.starts_with(start))
}

/// Has `other` take the server that `client` used last, so that the next one of `client` is not the same.
fn take_server(client: &mut RawClient, other: &mut RawClient) {
    let used = client.query_value("select pg_backend_pid()");
    other.run("begin");
    assert_eq!(other.query_value("select pg_backend_pid()"), used);
}

#[test]
fn an_unnamed_statement_too_large_to_keep_gives_its_own_answer() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2));
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    let large = format!("select length('{}')", "x".repeat(1_500_000));
    let answer = "D (\"1500000\")";

    let told = client.transcript(&parsed("", &large));
    assert!(has_line(&told, answer), "{told:?}");

    // An older one, in a transaction that another server has seen.
    let older = client.transcript(&parsed("", "select 'older'"));
    assert!(has_line(&older, "D (\"older\")"), "{older:?}");
    other.run("begin");
    let told = client.transcript(&parsed("", &large));
    assert!(has_line(&told, answer), "{told:?}");

    // In two pieces.
    client.send(&[Message::parse("", &large), Message::Flush]);
    assert_eq!(lines(&client.take(1)), ["1"]);
    let told = client.transcript(&bound(""));
    assert!(has_line(&told, answer), "{told:?}");

    // It may be gone with its transaction; the older one must not be back.
    let told = client.transcript(&bound(""));
    assert!(has_line(&told, answer) || has_line(&told, "E "), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("Z I"), "{told:?}");
    assert!(!has_line(&told, "D (\"older\")"), "{told:?}");
    other.run("commit");
    assert_eq!(client.query_value("select 1"), "1");
}

#[test]
fn a_comment_behind_a_setting_does_not_swallow_the_next_one() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create role found_plain");
    let proxy = Proxy::start(&config(&database, 2));
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    client.run("set work_mem = '64MB' -- a comment");
    client.run("set role found_plain");
    take_server(&mut client, &mut other);
    let held = "select current_setting('work_mem'), current_user";
    assert_eq!(client.query_rows(held), [["64MB", "found_plain"]]);
    other.run("commit");
    // Nor is it the other client's.
    assert_eq!(other.query_rows(held), [["4MB", "pgdog"]]);
}

#[test]
fn settings_that_are_refused_leave_no_wrong_encoding() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    let login = |more: &[(&str, &str)]| {
        let mut parameters = vec![("user", "pgdog"), ("database", database.name())];
        parameters.extend(more);
        RawClient::login_with(proxy.port(), &parameters).expect("the proxy accepts")
    };
    let letter = |client: &mut RawClient| {
        let frames = client.query("select chr(233)");
        let row = frames.iter().find(|frame| frame.tag == b'D');
        row.map(pgdog_tests::Frame::columns)
            .unwrap_or_else(|| panic!("{:?}", lines(&frames)))
    };
    let (latin, utf) = (
        vec![Some(b"\xe9".to_vec())],
        vec![Some(b"\xc3\xa9".to_vec())],
    );

    let (mut first, _) = login(&[("client_encoding", "LATIN1")]);
    assert_eq!(letter(&mut first), latin);
    first.goodbye();

    // Refused with the login, or with its first query.
    let (mut bad, mut frames) = login(&[("options", "-c work_mem=bogus"), ("DateStyle", "German")]);
    if frames.last().is_some_and(|frame| frame.tag == b'Z') {
        frames = bad.query("select 1");
    }
    let told = lines(&frames);
    assert!(has_line(&told, "E FATAL 22023"), "{told:?}");

    let (mut second, _) = login(&[("client_encoding", "LATIN1")]);
    assert_eq!(letter(&mut second), latin);
    let (mut third, _) = login(&[("client_encoding", "UTF8")]);
    assert_eq!(letter(&mut third), utf);
    assert_eq!(letter(&mut proxy.client("pgdog", database.name())), utf);
    assert_eq!(letter(&mut second), latin);
}

#[test]
fn notifications_for_a_client_that_left_reach_nobody() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    let mut direct = database.client();
    let mut other = proxy.client("pgdog", database.name());
    for orderly in [true, false, true, false] {
        let mut listener = proxy.client("pgdog", database.name());
        listener.run("listen found");
        if orderly {
            listener.send(&[Message::Terminate]);
        } else {
            drop(listener);
        }
        // It comes while the server is cleaned, or before, or after.
        direct.run("notify found, 'not for you'");
        for sql in [
            "create temp table found (a int)",
            "drop table found",
            "select 1",
        ] {
            let told = lines(&other.query(sql));
            assert!(!has_line(&told, "A "), "{sql}: {told:?}");
            assert!(!has_line(&told, "E "), "{sql}: {told:?}");
        }
    }
}

/// What `ask` is answered by a server from whose sequence another client has drawn.
fn asked_after_another(ask: &[Message]) -> Vec<String> {
    let database = Postgres::shared().fresh_database();
    database.run("create sequence s");
    let proxy = Proxy::start(&config(&database, 1));
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    assert_eq!(other.query_value("select nextval('s')"), "1");
    client.transcript(ask)
}

/// What the extended protocol answers under this name of the statement.
fn gives_no_value_of_another(statement: &str) {
    for sql in ["select currval('s')", "select lastval()"] {
        let told = asked_after_another(&parsed(statement, sql));
        assert!(has_line(&told, "E ERROR 55000"), "{sql}: {told:?}");
    }
}

#[test]
fn an_unnamed_statement_gives_no_sequence_value_of_another_client() {
    if Postgres::installed() {
        gives_no_value_of_another("");
    }
}

#[test]
fn a_named_statement_gives_no_sequence_value_of_another_client() {
    if Postgres::installed() {
        gives_no_value_of_another("named");
    }
}

/// A pool of one server, from whose sequence `other` has drawn.
struct Drawn<'a> {
    _database: Database<'a>,
    _proxy: Proxy,
    client: RawClient,
    other: RawClient,
}

fn drawn_by_another() -> Drawn<'static> {
    let database = Postgres::shared().fresh_database();
    database.run("create sequence s; create table t (id serial, a int)");
    let proxy = Proxy::start(&config(&database, 1));
    let client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    other.run("select nextval('s'); insert into t (a) values (1)");
    Drawn {
        _database: database,
        _proxy: proxy,
        client,
        other,
    }
}

const ASKS: [&str; 2] = ["select currval('s')", "select lastval()"];

#[test]
fn a_pipeline_gives_no_sequence_value_of_another_client() {
    if !Postgres::installed() {
        return;
    }
    for ask in ASKS {
        for name in ["", "named"] {
            let mut drawn = drawn_by_another();
            // Prepared on its own it asks nothing of anybody; as a part of the pipeline it comes too late.
            let mut pipeline = vec![
                Message::parse("first", "select 1"),
                Message::bind("first", &[]),
                Message::execute(),
            ];
            pipeline.extend(parsed(name, ask));
            let told = drawn.client.transcript(&pipeline);
            assert!(has_line(&told, "E ERROR 40001"), "{ask}: {told:?}");
            // From then on the server is the client's own.
            let close = [
                Message::CloseStatement(b"first".to_vec()),
                Message::CloseStatement(name.into()),
            ];
            pipeline.splice(..0, close);
            let told = drawn.client.transcript(&pipeline);
            assert!(has_line(&told, "E ERROR 55000"), "{ask}: {told:?}");
            pipeline[2] = Message::parse("first", "select nextval('s')");
            let told = drawn.client.transcript(&pipeline);
            let values = told.iter().filter(|line| *line == "D (\"2\")");
            assert_eq!(values.count(), 2, "{ask}: {told:?}");
        }
    }
}

#[test]
fn a_statement_prepared_before_gives_no_sequence_value_of_another_client() {
    if !Postgres::installed() {
        return;
    }
    for ask in ASKS {
        let mut drawn = drawn_by_another();
        drawn
            .client
            .transcript(&[Message::parse("a", ask), Message::Sync]);
        drawn.client.run("discard sequences");
        drawn.other.run("select nextval('s')");
        let told = drawn.client.transcript(&bound("a"));
        assert!(has_line(&told, "E ERROR 55000"), "{ask}: {told:?}");
        drawn.client.run("discard sequences");
        for execute in [true, false] {
            drawn.other.run("select nextval('s')");
            drawn.client.run("begin");
            let told = if execute {
                lines(&drawn.client.query("execute a"))
            } else {
                drawn.client.transcript(&bound("a"))
            };
            let code = if execute { "40001" } else { "55000" };
            assert!(
                has_line(&told, &format!("E ERROR {code}")),
                "{ask}: {told:?}"
            );
            drawn.client.run("rollback");
            drawn.client.run("discard sequences");
        }
    }
}

#[test]
fn a_transaction_gives_no_sequence_value_of_another_client_and_its_own_when_it_begins_again() {
    if !Postgres::installed() {
        return;
    }
    for extended in [false, true] {
        let mut drawn = drawn_by_another();
        let run = |client: &mut RawClient, sql: &str| {
            if extended {
                client.transcript(&parsed("", sql))
            } else {
                lines(&client.query(sql))
            }
        };
        // Nothing was drawn by this client; whoever comes first in the pool is asked to begin again.
        for code in ["E ERROR 40001", "E ERROR 55000"] {
            for sql in ["begin", "select 1"] {
                run(&mut drawn.client, sql);
            }
            let told = run(&mut drawn.client, "select lastval()");
            assert!(has_line(&told, code), "{told:?}");
            drawn.client.run("rollback");
        }
        drawn.client.run("discard sequences");
        // What others draw, and what the client itself draws, for each of them.
        for client in [&mut drawn.other, &mut drawn.client] {
            client.run("select nextval('s')");
            run(client, "begin");
            client.run("insert into t (a) values (2)");
            let own = client.query_value("select max(id) from t");
            let told = run(client, "select lastval()");
            assert!(has_line(&told, &format!("D (\"{own}\")")), "{told:?}");
            let told = run(client, "select currval('s')");
            assert!(has_line(&told, "E ERROR 55000"), "{told:?}");
            client.run("rollback");
            client.run("discard sequences");
        }
    }
}

#[test]
fn a_client_that_keeps_its_server_has_its_own_sequence_values_only() {
    if !Postgres::installed() {
        return;
    }
    for pin in [
        "listen found",
        "create temp table x (a int)",
        "set pgdog.pin = on",
        "prepare p as select 1",
        "begin; listen found; commit",
        "do $$ begin perform pg_advisory_lock(1); end $$",
    ] {
        let mut drawn = drawn_by_another();
        drawn.client.run(pin);
        for ask in ASKS {
            assert_eq!(drawn.client.query_error(ask), "55000", "{pin}");
        }
        drawn.client.run("insert into t (a) values (2)");
        let own = drawn.client.query_value("select max(id) from t");
        assert_eq!(drawn.client.query_value("select lastval()"), own, "{pin}");
    }
}

#[test]
fn a_client_that_asked_for_a_server_with_its_login_has_what_its_first_statement_draws() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create sequence s");
    let proxy = Proxy::start(&config(&database, 1));
    let mut other = proxy.client("pgdog", database.name());
    other.run("select nextval('s')");
    let parameters = [
        ("user", "pgdog"),
        ("database", database.name()),
        ("pgdog.pin", "on"),
    ];
    for draws in [true, false] {
        let (mut client, _) =
            RawClient::login_with(proxy.port(), &parameters).expect("the proxy accepts");
        if draws {
            let value = client.query_value("select nextval('s')");
            assert_eq!(client.query_value("select lastval()"), value);
        } else {
            client.run("select 1");
            assert_eq!(client.query_error("select lastval()"), "55000");
        }
        client.goodbye();
    }
}

#[test]
fn a_statement_that_the_server_lacks_is_answered_in_a_failed_transaction() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2));
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    client.transcript(&[Message::parse("a", "select 'kept'"), Message::Sync]);
    take_server(&mut client, &mut other);
    for sql in ["execute a", "deallocate a", "deallocate prepare a"] {
        for extended in [false, true] {
            client.run("begin");
            assert_eq!(client.query_error("select 1/0"), "22012");
            let told = if extended {
                client.transcript(&parsed("", sql))
            } else {
                lines(&client.query(sql))
            };
            assert!(has_line(&told, "E ERROR 25P02"), "{sql}: {told:?}");
            assert_eq!(
                told.last().map(String::as_str),
                Some("Z E"),
                "{sql}: {told:?}"
            );
            client.run("rollback");
        }
    }
    // What failed has taken nothing away.
    assert_eq!(client.query_value("execute a"), "kept");
    let told = client.transcript(&bound("a"));
    assert!(has_line(&told, "D (\"kept\")"), "{told:?}");
}

#[test]
fn an_error_before_the_unnamed_statement_gives_nobody_anothers() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    let mut client = proxy.client("pgdog", database.name());
    let mut other = proxy.client("pgdog", database.name());
    let failures = [
        vec![Message::parse("x", "a mistake")],
        vec![Message::bind("nobody's", &[])],
        vec![
            Message::parse("y", "select 1/0"),
            Message::bind("y", &[]),
            Message::execute(),
        ],
    ];
    for mut pipeline in failures {
        let told = client.transcript(&[Message::parse("", "select 'own'"), Message::Sync]);
        assert_eq!(told, ["1", "Z I"]);
        let told = other.transcript(&parsed("", "select 'other'"));
        assert!(has_line(&told, "D (\"other\")"), "{told:?}");
        pipeline.extend(bound(""));
        let what = format!("{pipeline:?}");
        let told = client.transcript(&pipeline);
        assert!(has_line(&told, "E ERROR"), "{what}: {told:?}");
        assert!(!has_line(&told, "D (\"other\")"), "{what}: {told:?}");
        let told = client.transcript(&bound(""));
        let fine = has_line(&told, "D (\"own\")") || has_line(&told, "E ERROR 26000");
        assert!(fine, "{what}: {told:?}");
        assert!(!has_line(&told, "D (\"other\")"), "{what}: {told:?}");
    }
}

#[test]
fn a_setting_made_up_in_a_do_block_is_nobody_elses() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2));
    let ask = "select coalesce(current_setting('app.x', true), '')";
    for block in [
        "do $$ begin perform set_config('app.x', 'secret', false); end $$",
        "do $$ begin set app.x = 'secret'; end $$",
    ] {
        let [mut client, mut second, mut third] =
            [(); 3].map(|()| proxy.client("pgdog", database.name()));
        client.run(block);
        assert_eq!(client.query_value(ask), "secret");
        for other in [&mut second, &mut third] {
            assert_eq!(other.query_value(ask), "", "{block}");
        }
        assert_eq!(client.query_value(ask), "secret");
        client.goodbye();
        // Both servers at once, whichever they are.
        second.run("begin");
        assert_eq!(second.query_value(ask), "", "{block}");
        assert_eq!(third.query_value(ask), "", "{block}");
        second.run("commit");
        second.goodbye();
        third.goodbye();
    }
}

#[test]
fn what_only_a_role_may_set_does_not_end_other_clients() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create role found_boss superuser; create role found_app login");
    database.run("grant found_boss to found_app");
    let proxy = Proxy::start(&config(&database, 1).user("found_app", "found_app"));
    let mut client = proxy.client("found_app", database.name());
    let mut other = proxy.client("found_app", database.name());
    client.run("set role found_boss");
    client.run("set log_min_messages = 'error'");
    let asked = "select current_user, current_setting('log_min_messages')";
    // Nobody but the role may reset it: the server is of no use for others.
    assert_eq!(other.query_rows(asked), [["found_app", "warning"]]);
    client.goodbye();
    assert!(wait::until(PATIENCE, || {
        other.query_rows(asked) == [["found_app", "warning"]]
    }));
}

#[test]
fn a_statement_means_what_the_settings_of_its_client_make_of_it() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    // Constants are read when a statement is parsed.
    let sql =
        "select extract(hour from timestamptz '2020-01-01 02:00+00' - timestamptz '2020-01-01')";
    for (zone, hour) in [("UTC", "2"), ("Etc/GMT-1", "3"), ("UTC", "2")] {
        let mut client = proxy.client("pgdog", database.name());
        client.run(&format!("set timezone to '{zone}'"));
        client.send(&parsed("named", sql));
        let told = lines(&client.until_ready());
        assert!(
            has_line(&told, &format!("D (\"{hour}\")")),
            "{zone}: {told:?}"
        );
    }
}

#[test]
fn a_table_changed_in_one_database_leaves_the_statements_of_others_alone() {
    if !Postgres::installed() {
        return;
    }
    let [changed, other] = [(); 2].map(|()| Postgres::shared().fresh_database());
    let config = config(&changed, 1).database(other.name());
    let proxy = Proxy::start(&config);
    let mut clients = [&changed, &other].map(|database| {
        database.run("create table t (a int)");
        let mut client = proxy.client("pgdog", database.name());
        // The same text: one statement of the proxy's.
        let told = client.transcript(&parsed("a", "select * from t"));
        assert!(has_line(&told, "C SELECT 0"), "{told:?}");
        client
    });
    changed.run("alter table t add column b int");
    let told = clients[0].transcript(&bound("a"));
    assert!(has_line(&told, "E ERROR 0A000"), "{told:?}");
    let told = clients[1].transcript(&bound("a"));
    assert!(has_line(&told, "C SELECT 0"), "{told:?}");
    changed.run("alter table t drop column b");
    let told = clients[0].transcript(&bound("a"));
    assert!(has_line(&told, "C SELECT 0"), "{told:?}");
}

#[test]
fn an_execute_behind_a_failed_batch_finds_its_statement_on_a_server_that_lacks_it() {
    if !Postgres::installed() {
        return;
    }
    for again in [false, true] {
        let database = Postgres::shared().fresh_database();
        let proxy = Proxy::start(&config(&database, 2));
        let [mut client, mut first, mut second] =
            [(); 3].map(|()| proxy.client("pgdog", database.name()));
        first.run("begin");
        client.transcript(&[
            Message::parse("a", "select 'kept'"),
            Message::parse("", "execute a"),
            Message::Sync,
        ]);
        // The one server is taken, the other becomes free.
        second.run("begin");
        first.run("commit");
        // The error skips what gives the server the statement.
        let mut pipeline = vec![
            Message::parse("b", "a mistake"),
            Message::bind("a", &[]),
            Message::Sync,
        ];
        pipeline.extend(if again {
            bound("").to_vec()
        } else {
            parsed("", "execute a")
        });
        client.send(&pipeline);
        let told = lines(&client.until_ready());
        assert!(has_line(&told, "E ERROR 42601"), "{told:?}");
        let told = lines(&client.until_ready());
        assert!(has_line(&told, "D (\"kept\")"), "{told:?}");
    }
}

#[test]
fn a_client_that_says_goodbye_in_the_middle_of_a_query_does_not_keep_its_server() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1).general("rollback_timeout", "200"));
    let mut leaving = proxy.client("pgdog", database.name());
    leaving.send(&[Message::query("select pg_sleep(60)"), Message::Terminate]);
    drop(leaving);
    let mut next = proxy.client("pgdog", database.name());
    assert_eq!(next.query_value("select 1"), "1");
}

#[test]
fn a_role_given_at_login_holds_behind_a_reset_by_the_extended_protocol() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let role = format!("low_{}", database.name());
    database.run(&format!("create role {role}"));
    let proxy = Proxy::start(&config(&database, 1));
    let options = format!("-c role={role}");
    let startup = [
        ("user", "pgdog"),
        ("database", database.name()),
        ("options", &options),
    ];
    let (mut client, _) = RawClient::login_with(proxy.port(), &startup).unwrap();
    for _ in 0..5 {
        client.transcript(&parsed("", "reset role"));
        assert_eq!(client.query_value("select current_user"), role);
    }
    client.goodbye();
    database.run(&format!("drop role {role}"));
}

#[test]
fn a_text_whose_result_has_changed_is_prepared_anew_by_drivers_that_describe_it_first() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table t (a int)");
    let proxy = Proxy::start(&config(&database, 1));
    let prepared = [
        Message::parse("a", "select * from t"),
        Message::DescribeStatement(b"a".to_vec()),
        Message::Sync,
    ];
    let mut client = proxy.client("pgdog", database.name());
    client.transcript(&prepared);
    database.run("alter table t add column b int");
    // The server's own statement is of the old shape, which nobody can know before it is used.
    let mut refused = 0;
    for _ in 0..4 {
        let mut other = proxy.client("pgdog", database.name());
        let told = other.transcript(&prepared);
        refused += usize::from(has_line(&told, "E ERROR 0A000"));
        other.goodbye();
    }
    assert!(refused <= 1, "{refused} of 4 new clients were refused");
    let told = client.transcript(&bound("a"));
    assert!(has_line(&told, "E ERROR 0A000"), "{told:?}");
}

#[test]
fn a_moment_is_that_of_its_own_parse() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let levels = ["extended", "extended_anonymous"];
    for (level, name) in levels.into_iter().zip(["s", ""]) {
        let config = config(&database, 1).general("prepared_statements", &format!("\"{level}\""));
        let proxy = Proxy::start(&config);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut client = proxy.client("pgdog", database.name());
            let told = client.transcript(&parsed(name, "select 'now'::timestamptz::text"));
            seen.extend(told.into_iter().filter(|line| line.starts_with("D ")));
            client.goodbye();
        }
        seen.dedup();
        assert_eq!(seen.len(), 3, "{level}: {seen:?}");
    }
}
