//! Views: figures against traffic that is known.

use pgdog_tests::{Activity, Message, Postgres, Proxy};

use super::{config, console, refused, row, trusted, until, view};

#[test]
fn every_view_answers_with_a_value_for_each_column() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut client = proxy.client("pgdog", database.name());
    client.run("select 1");
    let mut console = console(&proxy);
    let help = view(&mut console, "SHOW HELP");
    let mut views = 0;
    for line in &help {
        let Some(sql) = line["command"].strip_suffix(" [column, …]") else {
            continue;
        };
        views += 1;
        let rows = view(&mut console, sql);
        let may_be_empty = [
            "SHOW PREPARED",
            "SHOW BANS",
            "SHOW QUERY_CACHE",
            "SHOW PEERS",
            "SHOW MIRRORS",
            "SHOW QUERY_STATS",
            "SHOW LISTENERS",
            "SHOW ACTIVE_SOCKETS",
        ]
        .contains(&sql);
        assert!(!rows.is_empty() || may_be_empty, "{sql} is empty");
        let lower = view(&mut console, &sql.to_lowercase());
        assert_eq!(rows.len(), lower.len(), "{sql} has no case");
    }
    assert_eq!(views, 26, "{help:?}");
}

#[test]
fn pools_clients_and_servers_tell_what_goes_on() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    let config = config(&database)
        .pool_size(1)
        .general("checkout_timeout", "60000")
        .append_users(&trusted("other", name));
    let proxy = Proxy::start(&config);
    let mut console = console(&proxy);
    let mut holder = proxy.client("pgdog", name);
    let mut waiter = proxy.client("pgdog", name);
    let mut idle = proxy.client("other", name);
    idle.run("select 1");
    holder.run("begin");
    waiter.send(&[Message::query("select 1")]);
    until(
        &mut console,
        "SHOW POOLS",
        ("user", "pgdog"),
        "cl_waiting",
        "1",
    );
    until(
        &mut console,
        "SHOW SERVERS",
        ("user", "pgdog"),
        "state",
        "idle in transaction",
    );

    let pool = row(&mut console, "SHOW POOLS", "user", "pgdog");
    let figures = [
        "sv_total",
        "sv_active",
        "sv_idle_xact",
        "sv_idle",
        "cl_active",
    ];
    assert_eq!(figures.map(|f| &*pool[f]), ["1", "1", "1", "0", "1"]);
    assert_eq!(
        (&*pool["database"], &*pool["pool_mode"], &*pool["paused"]),
        (name, "transaction", "f")
    );
    assert_eq!(pool["port"], Postgres::shared().port().to_string());
    let other = row(&mut console, "SHOW POOLS", "user", "other");
    assert_eq!((&*other["sv_idle"], &*other["cl_waiting"]), ("1", "0"));

    let states: Vec<_> = view(&mut console, "SHOW CLIENTS user, state")
        .into_iter()
        .map(|row| (row["user"].clone(), row["state"].clone()))
        .collect();
    for (user, state) in [
        ("admin", "active"),
        ("pgdog", "idle in transaction"),
        ("pgdog", "waiting"),
        ("other", "idle"),
    ] {
        let wanted = (user.to_owned(), state.to_owned());
        assert!(states.contains(&wanted), "{wanted:?} in {states:?}");
    }
    let server = row(&mut console, "SHOW SERVERS", "user", "pgdog");
    let client = row(&mut console, "SHOW CLIENTS", "state", "idle in transaction");
    assert_eq!(server["client_id"], client["id"]);
    assert_eq!(
        (&client["link"], &server["link"]),
        (&server["ptr"], &client["ptr"])
    );
    let own = row(&mut console, "SHOW CLIENTS", "user", "admin");
    assert_eq!(own["application_name"], "the tests");

    holder.run("commit");
    assert!(!waiter.until_ready().is_empty());
    let databases = row(&mut console, "SHOW DATABASES", "name", name);
    assert_eq!(
        [
            "current_connections",
            "current_client_connections",
            "paused",
            "disabled",
            "force_user"
        ]
        .map(|c| &*databases[c]),
        ["2", "3", "0", "0", "NULL"]
    );
    let user = row(&mut console, "SHOW USERS", "name", "pgdog");
    assert_eq!(
        (&*user["pool_size"], &*user["current_client_connections"]),
        ("1", "2")
    );
    let count = |console: &mut _, list| row(console, "SHOW LISTS", "list", list)["items"].clone();
    assert_eq!(count(&mut console, "used_clients"), "3");
    assert_eq!(count(&mut console, "pools"), "2");
    assert_eq!(count(&mut console, "databases"), "2");
    assert_eq!(view(&mut console, "SHOW SOCKETS").len(), 4 + 2);
}

#[test]
fn statistics_count_what_clients_do() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let name = database.name();
    database.run("create table t (a int)");
    let config = config(&database).general("stats_period", "300");
    let proxy = Proxy::start(&config);
    let mut console = console(&proxy);
    let mut client = proxy.client("pgdog", name);
    for _ in 0..10 {
        client.run("insert into t values (1), (2)");
    }
    client.run("begin; update t set a = 3; commit");
    client.query_error("select nonsense");
    client.transcript(&[
        Message::parse("s", "select 1"),
        Message::bind("s", &[]),
        Message::execute(),
        Message::Sync,
    ]);
    until(
        &mut console,
        "SHOW STATS",
        ("database", name),
        "total_query_count",
        "13",
    );
    let stats = row(&mut console, "SHOW STATS", "database", name);
    for (column, wanted) in [
        ("total_xact_count", "13"),
        ("total_rows_inserted", "20"),
        ("total_rows_updated", "20"),
        ("total_errors", "1"),
        ("total_bind_count", "1"),
        ("total_client_parse_count", "1"),
        ("total_connect_count", "1"),
        ("total_reads", "NULL"),
    ] {
        assert_eq!(stats[column], wanted, "{column}");
    }
    let number = |text: &String| text.parse::<i64>().expect("a number");
    assert!(number(&stats["total_query_time"]) > 0);
    let totals = row(&mut console, "SHOW STATS_TOTALS", "database", name);
    assert_eq!(totals["query_count"], "13");
    let all = row(&mut console, "SHOW TOTALS", "name", "total_rows_inserted");
    assert_eq!(all["value"], "20");
    // Averages follow the traffic, and go back when it ends.
    until(
        &mut console,
        "SHOW STATS",
        ("database", name),
        "avg_query_count",
        "0",
    );
    let busy = pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, || {
        client.run("select 1");
        let averages = row(&mut console, "SHOW STATS_AVERAGES", "database", name);
        number(&averages["query_count"]) > 0 && number(&averages["query_time"]) > 0
    });
    assert!(busy, "averages follow the traffic");
    let client = row(&mut console, "SHOW CLIENTS", "user", "pgdog");
    assert!(number(&client["queries"]) >= 13 && number(&client["bytes_sent"]) > 0);
    let prepared = view(&mut console, "SHOW PREPARED");
    assert_eq!(prepared.len(), 1);
    assert_eq!(
        (&*prepared[0]["statement"], &*prepared[0]["used_by"]),
        ("select 1", "1")
    );
}

#[test]
fn the_configuration_is_shown_with_defaults_and_without_secrets() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut console = console(&proxy);
    let size = row(&mut console, "SHOW CONFIG", "key", "default_pool_size");
    let fields = ["value", "default", "changeable"];
    assert_eq!(fields.map(|f| &*size[f]), ["4", "10", "yes"]);
    let port = row(&mut console, "SHOW CONFIG", "key", "port");
    assert_eq!(
        fields.map(|f| &*port[f]),
        [&*proxy.port().to_string(), "6432", "no"]
    );
    let all = format!("{:?}", view(&mut console, "SHOW CONFIG"));
    assert!(!all.contains(super::PASSWORD));
}

#[test]
fn columns_can_be_chosen_and_wrong_ones_are_named() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut console = console(&proxy);
    let rows = console.query_rows("SHOW CLIENTS user, \"database\", USER");
    assert_eq!(rows, [["admin", "admin", "admin"]]);
    let (code, line) = refused(&mut console, "SHOW CLIENTS usr");
    assert!(code == "42703" && line.contains("\"user\""), "{line}");
}

#[test]
fn listeners_are_shown_and_end_for_a_pause() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("pub_sub_channel_size", "10"));
    let (mut first, mut second) = (
        proxy.client("pgdog", database.name()),
        proxy.client("pgdog", database.name()),
    );
    first.run("listen \"A\"; listen b");
    second.run("listen b");
    // What is said next waits until the channels are handed over.
    first.run("select 1");
    second.run("notify b");
    let mut console = console(&proxy);
    let sql = "SHOW LISTENERS";
    let at = ("channel", "b");
    until(&mut console, sql, at, "received", "1");
    let b = row(&mut console, sql, "channel", "b");
    assert_eq!((&*b["listeners"], &*b["dropped"]), ("2", "0"));
    assert_eq!(b["database"], database.name());
    assert_eq!(row(&mut console, sql, "channel", "A")["listeners"], "1");
    let mut activity = Activity::of(Postgres::shared(), &database);
    let connected = "application_name = 'pgdog listener'";
    activity.wait(1, connected);
    console.run("PAUSE");
    activity.wait(0, connected);
    console.run("RESUME");
    activity.wait(1, connected);
    second.goodbye();
    until(&mut console, sql, at, "listeners", "1");
    let heard = first.take(2);
    let tags: Vec<_> = heard.iter().map(|frame| frame.tag).collect();
    assert_eq!(
        tags,
        [b'A', b'N'],
        "what b was told, and that more may be lost"
    );
}
