//! Functions that no text names: behind views, policies, operators, casts and domains; and locks in transactions that only read.

use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Database, Message, Postgres, Proxy, RawClient, Replicated, transcript, wait};

use super::{Roles, WHO, config, host_of, wait_readers};

/// What calls functions that write, and what does not.
const SCHEMA: &str = "create table t (a int); insert into t values (1); create sequence numbers; create schema app; \
    create function app.reads(int) returns bool language plpgsql stable as 'begin return true; end'; \
    create function app.writes(int) returns bool language plpgsql volatile as 'begin return true; end'; \
    create view drawn as select nextval('numbers') as n; \
    create view app.over_drawn as select * from drawn; \
    create view over_all as select a from t where a in (select n from app.over_drawn); \
    create view locked as select pg_advisory_lock(1) is null as locked; \
    create view called as select app.writes(1); \
    create view looked as select app.reads(1), now(), current_setting('port') from t where a > 0 order by a; \
    create view columns as select * from information_schema.columns; \
    create view locks as select * from pg_locks; \
    create materialized view kept as select app.writes(1); \
    create table guarded (a int); insert into guarded values (1); \
    create policy p on guarded for select using (app.writes(a)); alter table guarded enable row level security; \
    create table open (a int); create policy p on open for insert with check (app.writes(a)); alter table open enable row level security; \
    create function app.less(int, int) returns bool language plpgsql volatile as 'begin return true; end'; \
    create operator <<<! (leftarg = int, rightarg = int, function = app.less); \
    create function app.more(int, int) returns bool language plpgsql stable as 'begin return true; end'; \
    create operator >>>! (leftarg = int, rightarg = int, function = app.more); \
    create type pair as (x int, y int); \
    create function app.paired(text) returns pair language plpgsql volatile as 'begin return row(1, 2)::pair; end'; \
    create cast (text as pair) with function app.paired(text); \
    create domain checked as int check (app.writes(value)); create domain small as int check (value < 100); \
    create function app.step(int, int) returns int language plpgsql volatile as 'begin return 1; end'; \
    create aggregate stepped(int) (sfunc = app.step, stype = int, initcond = '0'); \
    create function given(i int default nextval('numbers')) returns int language sql stable as 'select i'";

/// Queries, and whether a replica may answer them.
const QUERIES: &[(&str, bool)] = &[
    ("select from looked", true),
    ("select from columns", true),
    ("select from kept", true),
    ("select from open", true),
    ("select from information_schema.tables", true),
    ("select from pg_class, pg_settings", true),
    ("select where 1 >>>! 2", true),
    ("select where 1 operator(public.>>>!) 2 and 1 = 1", true),
    ("select where 5::small > 1", true),
    ("select from drawn", false),
    ("select from public.drawn", false),
    ("select from app.over_drawn", false),
    ("select from over_all", false),
    ("with drawn as (select from drawn) select from drawn", false),
    ("select where exists (select from over_all)", false),
    ("table locked", false),
    ("select from called", false),
    ("select from locks", false),
    ("select from pg_locks", false),
    ("select from pg_sequences", false),
    ("select last_value from numbers", false),
    ("select from guarded", false),
    ("select where 1 <<<! 2", false),
    ("select where 1 operator(public.<<<!) any (array[2])", false),
    ("select where ('x'::text)::pair is null", false),
    ("select where cast(5 as checked) > 1", false),
    ("select stepped(a) from t group by a", false),
    ("select given()", false),
];

fn stage(database: &Database<'_>, cluster: &Replicated, strategy: &str) -> Proxy {
    database.run(SCHEMA);
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"")
        .general("read_write_strategy", &format!("\"{strategy}\""))
        .general("expanded_explain", "true");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    // What the database says of its functions may be known a moment later than who is who.
    let mut client = proxy.client("pgdog", database.name());
    let known = || route(&mut client, "select app.reads(1)").contains("Route: read");
    assert!(wait::until(PATIENCE, known), "{}", proxy.log());
    proxy
}

/// What EXPLAIN says of the way of a query.
fn route(client: &mut RawClient, sql: &str) -> String {
    let rows = client.query_rows(&format!("explain {sql}"));
    let text: Vec<_> = rows.into_iter().flatten().collect();
    let from = text.iter().position(|line| line.contains("PgDog Routing"));
    text[from.unwrap_or_else(|| panic!("{sql}: {text:?}"))..].join(" ")
}

#[test]
fn what_calls_functions_unseen_goes_to_the_primary_and_nothing_else_does() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let proxy = stage(&database, cluster, "conservative");
    let mut client = proxy.client("pgdog", database.name());
    for (sql, on_replica) in QUERIES {
        let route = route(&mut client, sql);
        assert_eq!(route.contains("Route: read"), *on_replica, "{sql}: {route}");
        assert_eq!(route.contains("(replica)"), *on_replica, "{sql}: {route}");
    }
    let why = route(&mut client, "select from app.over_drawn");
    let wanted = "relation app.over_drawn calls pg_catalog.nextval, which writes";
    assert!(why.contains(wanted), "{why}");
    let why = route(&mut client, "select where 1 <<<! 2");
    let wanted = "operator <<<! calls app.less, which is volatile";
    assert!(why.contains(wanted), "{why}");
    // And they work, by the extended protocol too.
    client.run("select n from drawn");
    client.send(&[
        Message::parse("", "select locked from locked"),
        Message::bind("", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    let frames = client.until_ready();
    assert!(
        frames.iter().any(|frame| frame.tag == b'D'),
        "{:?}",
        transcript::lines(&frames)
    );
    assert_eq!(advisory_locks(cluster, &database), [1, 0, 0, 0]);
}

/// How many advisory locks are held on each host.
fn advisory_locks(cluster: &Replicated, database: &Database<'_>) -> [usize; 4] {
    let sql = "select count(*) from pg_locks where locktype = 'advisory' \
        and database = (select oid from pg_database where datname = current_database())";
    [0, 1, 2, 3].map(|host| {
        let count = cluster.host(host).value(database.name(), sql);
        count.parse().expect("a number")
    })
}

#[test]
fn a_configured_function_is_what_the_configuration_says_behind_a_view_too() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    database.run(SCHEMA);
    cluster.settle();
    let config = config(cluster, database.name(), Roles::Fixed)
        .general("read_write_split", "\"exclude_primary\"")
        .general("read_functions", "[\"app.writes\"]")
        .general("write_functions", "[\"app.reads\"]")
        .general("expanded_explain", "true");
    let proxy = Proxy::start(&config);
    wait_readers(cluster, &proxy, database.name(), &[1, 2, 3]);
    let mut client = proxy.client("pgdog", database.name());
    let known = || route(&mut client, "select app.more(1, 1)").contains("Route: read");
    assert!(wait::until(PATIENCE, known), "{}", proxy.log());
    for sql in ["select from called", "select from guarded"] {
        assert!(route(&mut client, sql).contains("Route: read"), "{sql}");
    }
    let why = route(&mut client, "select from looked");
    assert!(
        why.contains("relation looked calls app.reads, which is configured to write"),
        "{why}"
    );
}

#[test]
fn a_read_only_transaction_that_locks_first_begins_again_on_the_primary() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::start(3);
    let database = cluster.fresh_database();
    let proxy = stage(&database, &cluster, "conservative");
    let mut client = proxy.client("pgdog", database.name());
    for lock in [
        "select pg_advisory_xact_lock(7)",
        "select pg_try_advisory_xact_lock_shared(7)",
        "select txid_current()",
    ] {
        client.run("begin read only");
        client.run(lock);
        assert_eq!(host_of(&cluster, &mut client, WHO), 0, "{lock}");
        assert_eq!(client.query_value("show transaction_read_only"), "on");
        assert_eq!(client.query_error("insert into t values (9)"), "25006");
        client.run("rollback");
    }
    // In one string, and by the extended protocol.
    client.run("begin read only; select pg_advisory_xact_lock(7)");
    assert_eq!(advisory_locks(&cluster, &database), [1, 0, 0, 0]);
    client.run("rollback");
    client.run("begin isolation level repeatable read, read only");
    client.send(&[
        Message::parse("", "select pg_advisory_xact_lock(7)"),
        Message::bind("", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    let frames = client.until_ready();
    assert!(
        frames.iter().any(|frame| frame.tag == b'D'),
        "{:?}",
        transcript::lines(&frames)
    );
    assert_eq!(advisory_locks(&cluster, &database), [1, 0, 0, 0]);
    client.run("commit");
    // Of others it stays where it is.
    for read in [
        "select 1",
        "select app.writes(1)",
        "select set_config('a.b', '1', true)",
    ] {
        client.run("begin read only");
        client.run(read);
        assert_ne!(host_of(&cluster, &mut client, WHO), 0, "{read}");
        client.run("commit");
    }
    assert_ne!(host_of(&cluster, &mut client, WHO), 0);
    assert_eq!(advisory_locks(&cluster, &database), [0; 4]);
}

#[test]
fn a_lock_in_a_transaction_that_has_read_on_a_replica_is_refused() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    for strategy in ["conservative", "aggressive"] {
        if strategy == "aggressive" {
            database.run("drop schema public, app cascade; create schema public");
        }
        let proxy = stage(&database, cluster, strategy);
        let mut client = proxy.client("pgdog", database.name());
        client.send(&[
            Message::parse("lock", "select pg_advisory_lock(8)"),
            Message::Sync,
        ]);
        client.until_ready();
        let begin = match strategy {
            "aggressive" => "begin",
            _ => "begin read only",
        };
        for lock in ["select pg_advisory_lock(8)", "select from locked"] {
            client.run(begin);
            assert_ne!(host_of(cluster, &mut client, WHO), 0, "{strategy}");
            let frames = client.query(lock);
            let error = frames.iter().find(|frame| frame.tag == b'E');
            let error = error.unwrap_or_else(|| panic!("{:?}", transcript::lines(&frames)));
            assert_eq!(error.field(b'C').as_deref(), Some("0A000"), "{lock}");
            assert!(
                error
                    .field(b'H')
                    .is_some_and(|hint| hint.contains("READ WRITE"))
            );
            assert_eq!(client.query_error("select 1"), "25P02", "{lock}");
            client.run("rollback");
        }
        client.run(begin);
        assert_ne!(host_of(cluster, &mut client, WHO), 0, "{strategy}");
        client.send(&[
            Message::bind("lock", &[]),
            Message::execute(),
            Message::Sync,
        ]);
        let frames = client.until_ready();
        assert!(
            transcript::lines(&frames)
                .iter()
                .any(|line| line.contains("0A000")),
            "{:?}",
            transcript::lines(&frames)
        );
        client.run("rollback");
        // Who wants a replica has it.
        client.run("/* pgdog_role: replica */ begin read only");
        assert_ne!(host_of(cluster, &mut client, WHO), 0, "{strategy}");
        client.run("select pg_advisory_xact_lock(8)");
        client.run("rollback");
        assert_eq!(client.query_value("select 1"), "1");
    }
    let free = || advisory_locks(cluster, &database)[1..] == [0; 3];
    assert!(wait::until(Duration::from_secs(5), free));
}
