//! Requests that are sent again, to another host: each takes place once, and the client sees nothing of it.

use std::thread;
use std::time::{Duration, Instant};

use pgdog_tests::{
    Message, Postgres, PostgresOptions, Proxy, RawClient, Replicated, StopMode, transcript, wait,
};

use super::{Roles, WHO, config, host_of, wait_readers};

/// A host that is restarted, stopped or out of reach costs a read no more than this.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// How long the old primary is fenced before there is a new one.
const FENCED: Duration = Duration::from_secs(1);
/// What is not held takes less than this.
const NOT_HELD: Duration = Duration::from_secs(5);

/// Parse, Bind, Execute and Sync of a text.
fn batch(name: &str, sql: &str) -> Vec<Message> {
    let mut messages = vec![Message::parse(name, sql)];
    messages.extend(bound(name));
    messages
}

/// Bind, Execute and Sync of a statement.
fn bound(name: &str) -> Vec<Message> {
    vec![Message::bind(name, &[]), Message::execute(), Message::Sync]
}

/// Sends messages that must succeed; gives the first column of the first row of the answer, if there is one.
fn answer(client: &mut RawClient, messages: &[Message]) -> Option<String> {
    client.send(messages);
    let frames = client.until_ready();
    let lines = transcript::lines(&frames);
    assert!(
        frames.iter().all(|frame| frame.tag != b'E'),
        "{messages:?}: {lines:?}"
    );
    assert!(
        frames.last().is_some_and(|frame| frame.tag == b'Z'),
        "{messages:?}: {lines:?}"
    );
    let row = frames.iter().find(|frame| frame.tag == b'D')?;
    let value = row.columns().into_iter().next()??;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// Sends messages that must fail; gives the SQLSTATE, and the status of the session behind it.
fn refused(client: &mut RawClient, messages: &[Message]) -> (String, Option<char>) {
    client.send(messages);
    let frames = client.until_ready();
    let error = frames.iter().find(|frame| frame.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("{messages:?}: {:?}", transcript::lines(&frames)));
    let status = frames.last().and_then(pgdog_tests::Frame::status);
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"), "{messages:?}");
    (error.field(b'C').unwrap_or_default(), status)
}

/// Fences the primary by its setting alone, has clients write, and promotes the replica a moment later: each is held for as
/// long, and what it has written is there once.
fn are_held_and_done_once(writes: &[fn(&mut RawClient)]) {
    let cluster = Replicated::start(1);
    cluster.primary().run("postgres", "create table t (a int)");
    cluster.settle();
    let config = config(&cluster, "postgres", Roles::Auto).general("hold_timeout", "20000");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    // Each has had a server, and a statement that it knows.
    let mut clients: Vec<_> = writes
        .iter()
        .map(|write| (write, proxy.client("pgdog", "postgres")))
        .collect();
    for (_, client) in &mut clients {
        client.run("insert into t values (0)");
        client.send(&[
            Message::parse("known", "insert into t values (1)"),
            Message::Sync,
        ]);
        assert_eq!(
            client.until_ready().last().and_then(|f| f.status()),
            Some('I')
        );
    }
    let old = cluster.primary();
    old.run(
        "postgres",
        "alter system set default_transaction_read_only = on",
    );
    old.reload();
    let known = || old.value("postgres", "show default_transaction_read_only") == "on";
    assert!(wait::until(Duration::from_secs(10), known));
    // Servers that are there already hear of it about now.
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let held: Vec<Duration> = thread::scope(|scope| {
        let writing: Vec<_> = clients
            .iter_mut()
            .map(|(write, client)| {
                scope.spawn(move || {
                    write(client);
                    begun.elapsed()
                })
            })
            .collect();
        thread::sleep(FENCED);
        cluster.wait_replayed(1);
        cluster.promote(1);
        writing
            .into_iter()
            .map(|thread| thread.join().expect("the write succeeds"))
            .collect()
    });
    assert!(held.iter().all(|held| *held >= FENCED), "{held:?}");
    for host in [cluster.primary(), cluster.host(0)] {
        let count = host.value("postgres", "select count(*) from t where a = 1");
        let wanted = if host.port() == cluster.primary().port() {
            writes.len()
        } else {
            0
        };
        assert_eq!(count, wanted.to_string(), "{}", proxy.log());
    }
    // And the sessions go on where they are now.
    for (_, client) in &mut clients {
        answer(client, &bound("known"));
        assert_eq!(host_of(&cluster, client, &format!("begin; {WHO}")), 1);
        client.run("commit");
    }
}

#[test]
fn transactions_that_begin_behind_a_fence_are_held_and_done_once() {
    if !Postgres::installed() {
        return;
    }
    are_held_and_done_once(&[
        |client| {
            client.run("begin");
            client.run("insert into t values (1)");
            client.run("commit");
        },
        |client| {
            client.run("begin");
            answer(client, &batch("", "insert into t values (1)"));
            client.run("commit");
        },
        |client| {
            client.run("begin");
            answer(client, &bound("known"));
            client.run("commit");
        },
    ]);
}

#[test]
fn single_writes_behind_a_fence_are_held_and_done_once() {
    if !Postgres::installed() {
        return;
    }
    are_held_and_done_once(&[
        |client| client.run("insert into t values (1)"),
        |client| {
            answer(client, &batch("", "insert into t values (1)"));
        },
        |client| {
            answer(client, &batch("new", "insert into t values (1)"));
            client.run("delete from t where a = 2");
        },
        |client| {
            answer(client, &bound("known"));
        },
    ]);
}

#[test]
fn a_read_that_writes_is_answered_by_the_primary_and_its_name_works_on_both() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run(
        // What the function is marked as is not what it does.
        "create table writes (yes bool); insert into writes values (true); create sequence numbers; \
         create function drawn() returns bigint language plpgsql stable as 'begin return nextval(''numbers''); end'; \
         create view ports as select current_setting('port') as port, \
         case when (select yes from writes) then drawn() end as number",
    );
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let primary = Some(cluster.port(0).to_string());
    let sql = "select port, number from ports";
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(answer(&mut client, &batch("name", sql)), primary);
    for _ in 0..10 {
        assert_eq!(answer(&mut client, &bound("name")), primary);
    }
    assert_eq!(
        cluster
            .primary()
            .value(database.name(), "select last_value from numbers"),
        "11"
    );
    database.run("update writes set yes = false");
    cluster.settle();
    for _ in 0..10 {
        assert_ne!(answer(&mut client, &bound("name")), primary);
    }
    client.run("begin");
    assert_eq!(answer(&mut client, &bound("name")), primary);
    client.run("commit");
    database.run("update writes set yes = true");
    cluster.settle();
    assert_eq!(answer(&mut client, &bound("name")), primary);
    // Another client has the same text under the same name.
    let mut other = proxy.client("pgdog", database.name());
    assert_eq!(answer(&mut other, &batch("name", sql)), primary);
    // A name that is taken stays taken.
    assert_eq!(
        refused(&mut client, &batch("name", sql)),
        ("42P05".into(), Some('I'))
    );
}

#[test]
fn what_only_looks_like_a_wish_for_a_replica_is_none() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t (a text)");
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"prefer_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0]);
    let port = "current_setting('port')";
    let texts = [
        format!("select {port}, 'pgdog.role = replica'"),
        format!("/* pgdog.role = replica */ select {port}"),
        format!("select {port} -- set pgdog.role = 'replica'"),
        format!("insert into t values ('set pgdog.role = replica') returning {port}"),
        format!("/* set pgdog.role = replica */ insert into t values ('a') returning {port}"),
        format!(
            "begin; insert into t values ('; set local pgdog.role = ''replica''') returning {port}"
        ),
        format!(
            "begin; /* set local pgdog.role = 'replica' */ insert into t values ('b') returning {port}"
        ),
        format!(
            "begin -- ; set local pgdog.role = 'replica'\n; insert into t values ('c') returning {port}"
        ),
        format!(
            "begin /* ; set local pgdog.role = 'replica' */; insert into t values ('d') returning {port}"
        ),
        format!("begin; select {port}, $$; set local pgdog.role = 'replica'$$"),
        format!("begin; select {port} as \"; set local pgdog.role = replica\""),
    ];
    let mut client = proxy.client("pgdog", database.name());
    for text in &texts {
        assert_eq!(host_of(cluster, &mut client, text), 0, "{text}");
        // Nor does it last.
        client.run("insert into t values ('e')");
        client.run("commit");
        assert_eq!(host_of(cluster, &mut client, WHO), 0, "{text}");
    }
    client.run("set application_name = 'pgdog.role = replica'");
    assert_eq!(host_of(cluster, &mut client, WHO), 0);
    client.run("insert into t values ('f')");
    let told = format!("begin; set local pgdog.role = 'replica'; {WHO}");
    assert_ne!(host_of(cluster, &mut client, &told), 0);
    assert_ne!(host_of(cluster, &mut client, WHO), 0);
    client.run("commit");
    assert_eq!(host_of(cluster, &mut client, WHO), 0);
}

#[test]
fn a_write_right_behind_a_described_read_reaches_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t (a int)");
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    for number in 0..100 {
        let name = match number % 4 {
            0 | 1 => String::new(),
            _ => format!("name{number}"),
        };
        let read = [
            Message::parse(&name, "select a from t"),
            Message::DescribeStatement(name.into()),
            Message::Flush,
        ];
        let write = [Message::query("insert into t values (1)")];
        if number % 2 == 0 {
            client.send(&read);
            answer(&mut client, &write);
        } else {
            answer(&mut client, &[&read[..], &write].concat());
        }
    }
    let count = cluster
        .primary()
        .value(database.name(), "select count(*) from t");
    assert_eq!(count, "100");
}

#[test]
fn a_role_that_may_only_read_is_told_so_and_its_session_lives() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run(
        "create table t (a int); create role only_reads superuser login; \
         alter role only_reads set default_transaction_read_only = on",
    );
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Auto).user("only_reads", "any");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let mut client = proxy.client("only_reads", database.name());
    let begun = Instant::now();
    let write = "insert into t values (1)";
    let read = [Message::query("select count(*) from t")];
    for messages in [
        vec![Message::query(write)],
        batch("", write),
        batch("name", write),
    ] {
        let outside = refused(&mut client, &messages);
        assert_eq!(outside, ("25006".into(), Some('I')), "{messages:?}");
        assert_eq!(answer(&mut client, &read).as_deref(), Some("0"));
        if messages == batch("name", write) {
            // A statement whose execution fails stays.
            client.run("deallocate name");
        }
        client.run("begin");
        let within = refused(&mut client, &messages);
        assert_eq!(within, ("25006".into(), Some('E')), "{messages:?}");
        for _ in 0..2 {
            assert_eq!(
                refused(&mut client, &read),
                ("25P02".into(), Some('E')),
                "{messages:?}"
            );
        }
        client.run("rollback");
        assert_eq!(answer(&mut client, &read).as_deref(), Some("0"));
    }
    assert!(begun.elapsed() < NOT_HELD, "{:?}", begun.elapsed());
    // Nobody else is told so.
    proxy.client("pgdog", database.name()).run(write);
}

#[test]
fn a_procedure_that_has_committed_before_it_fails_runs_once() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let body =
        "begin insert into t values (1); commit; raise exception using errcode = '25006'; end";
    database.run(&format!(
        "create table t (a int); create procedure fails() language plpgsql as $$ {body} $$"
    ));
    cluster.settle();
    let proxy = Proxy::start(&config(cluster, database.name(), Roles::Auto));
    wait_readers(cluster, &proxy, database.name(), &[0, 1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    let inline = format!("do $$ {body} $$");
    let texts = ["call fails()", "/* a word */ call public.fails()", &inline];
    let mut count = 0;
    for text in texts {
        let known = [Message::parse("known", text), Message::Sync];
        answer(&mut client, &known);
        for messages in [
            vec![Message::query(text)],
            batch("", text),
            batch("new", text),
            bound("known"),
        ] {
            let told = refused(&mut client, &messages);
            assert_eq!(told, ("25006".into(), Some('I')), "{messages:?}");
            count += 1;
            let rows = client.query_value("begin; select count(*) from t");
            client.run("commit");
            assert_eq!(rows, count.to_string(), "{messages:?}");
        }
        client.run("deallocate all");
    }
}

/// Reads that must be answered, each at once: by a client that is there, and by one that has just come.
fn reads_are_answered_at_once(proxy: &Proxy, client: &mut RawClient, user: &str, database: &str) {
    let read = |client: &mut RawClient, begun: Instant| {
        client.query_value(WHO);
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "{took:?}: {}", proxy.log());
    };
    for _ in 0..10 {
        read(client, Instant::now());
        let begun = Instant::now();
        read(&mut proxy.client(user, database), begun);
    }
}

#[test]
fn reads_are_answered_at_once_while_hosts_that_are_back_are_still_banned() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(2);
    // Nobody comes back by the time alone.
    let config = config(&cluster, "postgres", Roles::Auto).general("ban_timeout", "600000");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1, 2]);
    let mut client = proxy.client("pgdog", "postgres");
    let mut reads = || reads_are_answered_at_once(&proxy, &mut client, "pgdog", "postgres");
    reads();
    cluster.host(1).stop(StopMode::Fast);
    reads();
    wait_readers(&cluster, &proxy, "postgres", &[0, 2]);
    cluster.start_again(1);
    reads();
    cluster.host(0).stop(StopMode::Fast);
    reads();
    cluster.start_again(0);
    reads();
    cluster.host(2).stop(StopMode::Fast);
    reads();
    wait_readers(&cluster, &proxy, "postgres", &[0, 1]);
    reads();
}

#[test]
fn a_password_that_is_wrong_on_one_replica_keeps_nobody_from_the_others() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start_with(2, &PostgresOptions::default());
    cluster.primary().run(
        "postgres",
        "create role other superuser login password 'right'",
    );
    cluster.settle();
    // One replica asks for it, the others trust.
    let file = cluster.host(1).data_directory().join("pg_hba.conf");
    let lines = std::fs::read_to_string(&file).expect("it has one");
    let line = "host all other 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(&file, format!("{line}{lines}")).expect("it can be written");
    cluster.host(1).reload();
    let asked = || RawClient::try_login(cluster.port(1), "other", "postgres").is_err();
    assert!(wait::until(Duration::from_secs(10), asked));
    let config = config(&cluster, "postgres", Roles::Auto)
        .user("other", "wrong")
        .general("ban_timeout", "600000");
    let proxy = Proxy::start(&config);
    wait_readers(&cluster, &proxy, "postgres", &[0, 1, 2]);
    let mut client = proxy.client("other", "postgres");
    for _ in 0..3 {
        reads_are_answered_at_once(&proxy, &mut client, "other", "postgres");
    }
    assert_ne!(host_of(&cluster, &mut client, WHO), 1);
    client.run("create table t (a int)");
    // Who has the right password, or needs none, still reads there.
    wait_readers(&cluster, &proxy, "postgres", &[0, 1, 2]);
}

#[test]
fn reads_after_pinned_work_that_has_written_stay_on_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run("create table t (a int)");
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Auto)
        .general("read_write_split", "\"exclude_primary\"")
        .general("read_your_writes", "\"primary\"");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    assert_ne!(host_of(cluster, &mut client, WHO), 0);
    client.run("select pg_advisory_lock(1)");
    client.run("insert into t values (1)");
    client.run("select pg_advisory_unlock(1)");
    for _ in 0..10 {
        assert_eq!(host_of(cluster, &mut client, WHO), 0);
        let port = answer(&mut client, &batch("", WHO)).expect("a row");
        assert_eq!(port, cluster.port(0).to_string());
    }
    assert_eq!(client.query_value("select count(*) from t"), "1");
    // It is the client that has written, and nobody else.
    let mut other = proxy.client("pgdog", database.name());
    assert_ne!(host_of(cluster, &mut other, WHO), 0);
}
