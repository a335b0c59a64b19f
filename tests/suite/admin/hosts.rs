//! A primary and its replicas in the views, in what bans them, and in the metrics.

use std::collections::HashMap;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Cut, Database, Message, Postgres, Proxy, ProxyConfig, RawClient, Replicated, wait,
};

use super::http::{api, metrics};
use super::{PASSWORD, console, refused, row, trusted, until, view};

/// A read that tells who answers it.
const WHO: &str = "select current_setting('port')";

/// A proxy in front of the hosts of a cluster behind these ports, for two users.
fn at(cluster: &Replicated, ports: &[u16], database: &Database<'_>, roles: Roles) -> ProxyConfig {
    let name = database.name();
    let base = ProxyConfig::transaction(cluster.primary())
        .general("auth_type", "\"plain\"")
        .general("plain_without_tls", "true")
        .general("openmetrics_host", "\"127.0.0.1\"")
        .general("openmetrics_port", "0")
        .general("openmetrics_namespace", "\"pgdog_\"")
        .general("stats_period", "300")
        .general("lsn_check_delay", "0")
        .general("lsn_check_interval", "100")
        .general("idle_healthcheck_delay", "0")
        .general("idle_healthcheck_interval", "100")
        .general("ban_timeout", "1000")
        .general("load_balancing_strategy", "\"round_robin\"")
        .general("read_write_split", "\"exclude_primary\"")
        .pool_size(4)
        .append(&format!(
            "[admin]\npassword = \"{PASSWORD}\"\nhttp_port = 0"
        ))
        .append_users(&trusted("pgdog", name))
        .append_users(&trusted("other", name));
    let hosts = ports.iter().enumerate();
    hosts.fold(base, |config, (number, port)| {
        let role = match (roles, number) {
            (Roles::Auto, _) => "role = \"auto\"",
            (Roles::Fixed, 0) => "role = \"primary\"",
            (Roles::Fixed, _) => "role = \"replica\"",
        };
        config.database_at(name, *port, &[role])
    })
}

/// How the proxy is told who is who.
#[derive(Clone, Copy)]
enum Roles {
    Fixed,
    Auto,
}

/// The ports of a primary and two replicas.
fn ports(cluster: &Replicated) -> [u16; 3] {
    [0, 1, 2].map(|number| cluster.port(number))
}

/// Rows of one user, by port.
fn by_port(
    console: &mut RawClient,
    sql: &str,
    user: &str,
) -> HashMap<u16, HashMap<String, String>> {
    let mut rows = view(console, sql);
    rows.retain(|row| row["user"] == user);
    let port = |row: &HashMap<String, String>| row["port"].parse().expect("a port");
    rows.into_iter().map(|row| (port(&row), row)).collect()
}

/// Waits until all hosts were looked at and are what they are.
fn settled(console: &mut RawClient, ports: &[u16]) {
    for (number, port) in ports.iter().enumerate() {
        let role = if number == 0 { "primary" } else { "replica" };
        let sql = "SHOW REPLICATION";
        until(console, sql, ("port", &port.to_string()), "role", role);
        let recovers = if number == 0 { "f" } else { "t" };
        let at = ("port", &*port.to_string());
        until(console, sql, at, "pg_is_in_recovery", recovers);
    }
}

/// The ports that answer so many reads.
fn readers(client: &mut RawClient, reads: usize) -> Vec<u16> {
    let mut seen: Vec<u16> = (0..reads)
        .map(|_| client.query_value(WHO).parse().expect("a port"))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

fn wait_readers(client: &mut RawClient, wanted: &[u16]) {
    let came = wait::until(PATIENCE, || readers(client, 6) == wanted);
    assert!(came, "{wanted:?} answer");
}

fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
    ports.sort_unstable();
    ports
}

#[test]
fn views_have_a_row_for_each_host_and_count_clients_once() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let name = database.name();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Auto));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let mut client = proxy.client("pgdog", name);
    let _idle = proxy.client("pgdog", name);
    client.run("create table t (a int)");
    assert_eq!(
        readers(&mut client, 6),
        sorted(vec![ports[1], ports[2]]),
        "the replicas answer"
    );
    client.run("begin");
    client.run("insert into t values (1)");

    let pools = by_port(&mut console, "SHOW POOLS", "pgdog");
    assert_eq!(pools.len(), 3);
    let of = |number: usize, column: &str| pools[&ports[number]][column].clone();
    let roles = [0, 1, 2].map(|n| of(n, "role"));
    assert_eq!(roles, ["primary", "replica", "replica"]);
    let clients = [0, 1, 2].map(|n| of(n, "cl_active"));
    assert_eq!(clients, ["2", "0", "0"], "each client is counted once");
    assert_eq!([0, 1, 2].map(|n| of(n, "sv_active")), ["1", "0", "0"]);
    for number in 0..3 {
        assert_eq!(
            (&*of(number, "banned"), &*of(number, "healthy")),
            ("f", "t")
        );
        assert_eq!(of(number, "load_balance_hosts"), "round_robin");
    }
    let mut ids: Vec<_> = view(&mut console, "SHOW POOLS id");
    assert_eq!(ids.len(), 6);
    ids.dedup();
    assert_eq!(ids.len(), 6, "each pool has a number of its own: {ids:?}");

    let row_of = row(&mut console, "SHOW DATABASES", "name", name);
    assert_eq!(row_of["host"], "127.0.0.1,127.0.0.1,127.0.0.1");
    assert_eq!((&*row_of["port"], &*row_of["database"]), ("NULL", name));
    assert_eq!(row_of["current_client_connections"], "2");
    let servers = view(&mut console, "SHOW SERVERS").len();
    assert_eq!(row_of["current_connections"], servers.to_string());
    let user = row(&mut console, "SHOW USERS", "name", "pgdog");
    assert_eq!(user["current_client_connections"], "2");
    let list = |console: &mut _, list| row(console, "SHOW LISTS", "list", list)["items"].clone();
    assert_eq!(list(&mut console, "databases"), "2");
    assert_eq!(list(&mut console, "pools"), "6");
    assert_eq!(list(&mut console, "used_clients"), "2");

    client.run("commit");
    let stats = by_port(&mut console, "SHOW STATS", "pgdog");
    let queries = |n: usize| -> u32 {
        let count = &stats[&ports[n]]["total_query_count"];
        count.parse().expect("a number")
    };
    assert_eq!([queries(1), queries(2)], [3, 3]);
    let sum = row(&mut console, "SHOW STATS_TOTALS", "database", name);
    let all: u32 = [0, 1, 2].map(queries).iter().sum();
    assert_eq!(sum["query_count"], all.to_string());

    let checks = view(&mut console, "HEALTHCHECK");
    assert_eq!(checks.len(), 6, "two users at three hosts");
    assert!(
        checks.iter().all(|check| check["healthy"] == "t"),
        "{checks:?}"
    );
}

#[test]
fn replication_shows_positions_and_lag() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let rows = by_port(&mut console, "SHOW REPLICATION", "other");
    for row in rows.values() {
        let (high, low) = row["pg_lsn"].split_once('/').expect("a position");
        let hex = |part: &str| u64::from_str_radix(part, 16).expect("a number");
        assert!(hex(high) << 32 | hex(low) > 0);
        assert_eq!(row["timeline"], "1");
        let age: u64 = row["lsn_age"].parse().expect("a number");
        assert!(age < 30_000, "{age}");
        assert_eq!((&*row["healthy"], &*row["banned"]), ("t", "f"));
    }
    assert_eq!(rows[&ports[0]]["replica_lag_bytes"], "0");
    let port = ports[1].to_string();
    let sql = "SHOW REPLICATION";
    until(&mut console, sql, ("port", &port), "replica_lag_bytes", "0");
    until(&mut console, sql, ("port", &port), "replica_lag", "0");
}

#[test]
fn a_ban_takes_a_host_out_of_the_reads_until_unban() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let name = database.name();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let mut client = proxy.client("pgdog", name);
    assert!(view(&mut console, "SHOW BANS").is_empty());
    let replicas = sorted(vec![ports[1], ports[2]]);

    let id = by_port(&mut console, "SHOW POOLS", "pgdog")[&ports[1]]["id"].clone();
    console.run(&format!("BAN {id}"));
    assert_eq!(readers(&mut client, 6), [ports[2]]);
    let bans = view(&mut console, "SHOW BANS");
    assert_eq!(bans.len(), 2, "of both users: {bans:?}");
    for ban in &bans {
        assert_eq!(ban["port"], ports[1].to_string());
        assert_eq!((&*ban["ban_reason"], &*ban["role"]), ("manual", "replica"));
        assert_eq!(ban["ban_time_left"], "NULL");
    }
    let pool = &by_port(&mut console, "SHOW POOLS", "other")[&ports[1]];
    assert_eq!(pool["banned"], "t");
    console.run(&format!("UNBAN {id}"));
    assert!(view(&mut console, "SHOW BANS").is_empty());
    // A host that is back starts slowly.
    wait_readers(&mut client, &replicas);

    // By names, of one host and of all.
    console.run(&format!("BAN {name} 127.0.0.1:{}", ports[2]));
    assert_eq!(readers(&mut client, 6), [ports[1]]);
    console.run(&format!("BAN {name}"));
    assert_eq!(view(&mut console, "SHOW BANS").len(), 6);
    client.run("create table written (a int)");
    console.run("UNBAN");
    assert!(view(&mut console, "SHOW BANS").is_empty());
    wait_readers(&mut client, &replicas);

    for (sql, part) in [
        ("BAN 4711", "there is no pool 4711"),
        (&*format!("BAN {name} nowhere"), "has no host nowhere"),
        (&*format!("BAN {name} a b"), "It is written"),
    ] {
        let (_, line) = refused(&mut console, sql);
        assert!(line.contains(part), "{sql}: {line}");
    }
    let (code, _) = refused(&mut console, "BAN nobody");
    assert_eq!(code, "3D000");
}

#[test]
fn bans_by_http_are_those_of_the_console() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let name = database.name();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let (http, mut console) = (api(&proxy), console(&proxy));
    settled(&mut console, &ports);
    let here = format!("database={name}&host=127.0.0.1:{}", ports[1]);
    let done = http.post(&format!("/v1/ban?{here}")).expect(200).json();
    let notices = done["notices"].to_string();
    assert!(notices.contains(&ports[1].to_string()), "{notices}");
    let bans = http.get("/v1/bans").expect(200).json();
    let bans = bans.as_array().expect("a list");
    assert_eq!(bans.len(), 2);
    assert_eq!(bans[0]["port"], ports[1]);
    assert_eq!(bans[0]["ban_reason"], "manual");
    let replication = http.get("/v1/replication").expect(200).json();
    assert_eq!(replication.as_array().map(Vec::len), Some(6));
    http.post(&format!("/v1/unban?{here}")).expect(200);
    assert_eq!(
        http.get("/v1/bans").expect(200).json(),
        serde_json::json!([])
    );
    for (query, status) in [
        ("host=127.0.0.1", 400),
        ("database=nobody", 404),
        (&*format!("database={name}&user=pgdog"), 400),
        (&*format!("database={name}&host=nowhere"), 400),
    ] {
        http.post(&format!("/v1/ban?{query}")).expect(status);
    }
}

#[test]
fn the_only_host_of_a_database_is_not_banned() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&super::config(&database));
    let mut console = console(&proxy);
    for sql in ["BAN", &*format!("BAN {}", database.name())] {
        let (_, line) = refused(&mut console, sql);
        assert!(line.contains("PAUSE and DISABLE"), "{line}");
    }
    console.run("UNBAN");
}

#[test]
fn metrics_tell_roles_lag_bans_and_queries_of_each_host() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let name = database.name();
    let mut ways: Vec<Cut> = (0..3).map(|n| Cut::before(cluster.port(n))).collect();
    let ports: Vec<u16> = ways.iter().map(Cut::port).collect();
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let mut client = proxy.client("pgdog", name);
    for _ in 0..6 {
        client.query_value(WHO);
    }
    let sql = "SHOW POOLS";
    until(&mut console, sql, ("user", "pgdog"), "sv_active", "0");
    let known = || {
        let rows = view(&mut console, "SHOW REPLICATION");
        rows.iter().all(|row| row["replica_lag"] != "NULL")
    };
    assert!(wait::until(PATIENCE, known), "the lag of all is known");
    // Reading it finds series that come twice.
    let found = metrics(&proxy);
    let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
    let host = |found: &crate::exposition::Exposition, metric: &str, number: usize| {
        let port = ("port", &*texts[number]);
        found.value(metric, &[("database", name), port])
    };
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(host(&found, "pgdog_host_up", number), Some(1.0));
        assert_eq!(host(&found, "pgdog_host_banned", number), Some(0.0));
        assert!(host(&found, "pgdog_host_checks_total", number) > Some(0.0));
        assert!(host(&found, "pgdog_host_lsn_bytes", number) > Some(0.0));
        assert!(host(&found, "pgdog_host_latency_seconds", number) > Some(0.0));
        assert_eq!(host(&found, "pgdog_host_timeline", number), Some(1.0));
        let lag = host(&found, "pgdog_host_replication_lag_seconds", number);
        assert!(number > 0 || lag == Some(0.0), "{lag:?}");
        assert!(host(&found, "pgdog_host_replication_lag_bytes", number).is_some());
        let is = if number == 0 { "primary" } else { "replica" };
        for role in ["primary", "replica", "unknown"] {
            let labels = [("port", text.as_str()), ("role", role)];
            let value = found.value("pgdog_host_role", &labels);
            assert_eq!(value, Some(f64::from(role == is)), "{role}");
        }
        let pool = [("port", &*texts[number]), ("user", "pgdog"), ("role", is)];
        let queries = found.value("pgdog_pool_queries_total", &pool);
        let theirs = found.value("pgdog_total_query_count", &pool);
        assert_eq!(queries, Some(if number == 0 { 0.0 } else { 3.0 }));
        assert_eq!(theirs, queries);
        assert!(found.value("pgdog_max_connections", &pool).is_some());
        let clients = found.value("pgdog_pool_clients", &pool);
        assert_eq!(clients, Some(if number == 0 { 1.0 } else { 0.0 }));
    }
    let primary = found.value("pgdog_database_primary_known", &[("database", name)]);
    assert_eq!(primary, Some(1.0));
    let of_shard = [("database", name), ("shard", "0")];
    let split = found.value("pgdog_database_split_brain", &of_shard);
    assert_eq!(split, Some(0.0));
    let plans = |what: &str| found.value(&format!("pgdog_query_plan{what}"), &[]);
    assert_eq!(plans("_hits_total"), Some(5.0));
    assert_eq!(plans("_misses_total"), Some(1.0));
    assert_eq!(plans("s"), Some(1.0));
    assert_eq!(found.value("pgdog_query_cache_hits", &[]), Some(5.0));
    assert!(found.value("pgdog_held_requests_total", &[]).is_some());
    assert!(found.value("pgdog_retried_requests_total", &[]).is_some());

    ways[1].refuse();
    let at = ("port", &*texts[1]);
    until(&mut console, "SHOW BANS", at, "ban_reason", "failed");
    let ban = row(&mut console, "SHOW BANS", "port", &texts[1]);
    assert!(!ban["ban_detail"].is_empty() && ban["ban_time_left"] != "NULL");
    until(&mut console, "SHOW POOLS", at, "healthy", "f");
    let found = metrics(&proxy);
    assert_eq!(host(&found, "pgdog_host_up", 1), Some(0.0));
    assert_eq!(host(&found, "pgdog_host_banned", 1), Some(1.0));
    assert_eq!(host(&found, "pgdog_host_bans_total", 1), Some(1.0));
    assert!(host(&found, "pgdog_host_failed_checks_total", 1) > Some(0.0));
    ways[1].open();
    let back = wait::until(PATIENCE, || view(&mut console, "SHOW BANS").is_empty());
    assert!(back, "the host comes back");
}

#[test]
fn remembered_queries_are_shown_searched_and_forgotten() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let mut client = proxy.client("pgdog", database.name());
    client.run("create table t (a int)");
    for a in 0..4 {
        client.run(&format!("select {a}"));
    }
    client.run("insert into t values (1)");
    let rows = view(&mut console, "SHOW QUERY_CACHE");
    assert_eq!(rows.len(), 3, "{rows:?}");
    let first = &rows[0];
    assert_eq!((&*first["hits"], &*first["route"]), ("3", "read"));
    assert!(
        !first["query"].contains('0'),
        "without constants: {first:?}"
    );
    for filter in ["'INSERT into'", "insert"] {
        let found = view(&mut console, &format!("SHOW QUERY_CACHE {filter}"));
        assert_eq!(found.len(), 1, "{filter}: {found:?}");
        assert_eq!(found[0]["route"], "primary");
    }
    assert_eq!(view(&mut console, "SHOW QUERY_CACHE hits, query").len(), 3);
    console.run("RESET QUERY_CACHE");
    assert!(view(&mut console, "SHOW QUERY_CACHE").is_empty());
    client.run("select 1");
    assert_eq!(view(&mut console, "SHOW QUERY_CACHE").len(), 1);
}

#[test]
fn balancing_can_be_changed_while_clients_use_it() {
    if !Postgres::installed() {
        return;
    }
    let cluster = Replicated::shared();
    let database = cluster.fresh_database();
    let ports = ports(cluster);
    let proxy = Proxy::start(&at(cluster, &ports, &database, Roles::Fixed));
    let mut console = console(&proxy);
    settled(&mut console, &ports);
    let mut client = proxy.client("pgdog", database.name());
    assert_eq!(readers(&mut client, 6), sorted(vec![ports[1], ports[2]]));
    console.run("SET read_write_split = prefer_primary");
    assert_eq!(readers(&mut client, 6), [ports[0]]);
    console.run("SET read_write_split TO include_primary");
    assert_eq!(readers(&mut client, 9), sorted(ports.to_vec()));
    console.run("SET load_balancing_strategy = least_active_connections");
    let port = ports[0].to_string();
    let pool = row(&mut console, "SHOW POOLS", "port", &port);
    assert_eq!(pool["load_balance_hosts"], "least_active_connections");
    console.run("SET read_write_split = exclude_primary");

    // A transaction that does not say that it only reads belongs on the primary, but for the aggressive strategy.
    let inside = |client: &mut RawClient| {
        let said = ["begin", WHO].map(|sql| {
            [
                Message::parse("", sql),
                Message::bind("", &[]),
                Message::execute(),
            ]
        });
        let mut said: Vec<_> = said.into_iter().flatten().collect();
        said.push(Message::Sync);
        client.send(&said);
        let frames = client.until_ready();
        let row = frames.iter().find(|frame| frame.tag == b'D');
        let port = row.expect("a row").columns().remove(0).expect("a value");
        client.run("commit");
        String::from_utf8_lossy(&port)
            .parse::<u16>()
            .expect("a port")
    };
    assert_eq!(inside(&mut client), ports[0]);
    console.run("SET read_write_strategy = aggressive");
    assert_ne!(inside(&mut client), ports[0]);
    console.run("SET read_write_strategy = conservative");
    assert_eq!(inside(&mut client), ports[0]);
    let (code, _) = refused(&mut console, "SET load_balancing_strategy = nonsense");
    assert_eq!(code, "22023");
}
