//! One endpoint for a primary and its replicas: reads spread, writes reach the primary, who is dead or behind is left out, and
//! a failover is a pause.

mod again;
mod balancing;
mod bans;
mod behind;
mod failover;
mod held;
mod kept;
mod lag;
mod listening;
mod names;
mod own_writes;
mod split;

use std::collections::BTreeMap;
use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Cut, Postgres, Proxy, ProxyConfig, RawClient, Replicated, wait};

/// How the proxy is told who is who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roles {
    /// The first host is the primary, the others are replicas.
    Fixed,
    /// It asks the hosts.
    Auto,
}

impl Roles {
    fn line(self, number: usize) -> &'static str {
        match (self, number) {
            (Self::Auto, _) => "role = \"auto\"",
            (Self::Fixed, 0) => "role = \"primary\"",
            (Self::Fixed, _) => "role = \"replica\"",
        }
    }
}

/// How often hosts are looked at, and how long they may take to answer.
const CHECK: Duration = Duration::from_millis(100);
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

fn base(postgres: &Postgres) -> ProxyConfig {
    let check = CHECK.as_millis().to_string();
    let timeout = CHECK_TIMEOUT.as_millis().to_string();
    ProxyConfig::transaction(postgres)
        .pool_size(10)
        .general("lsn_check_delay", "0")
        .general("lsn_check_interval", &check)
        .general("lsn_check_timeout", &timeout)
        .general("idle_healthcheck_delay", "0")
        .general("idle_healthcheck_interval", &check)
        .general("healthcheck_timeout", &timeout)
        .general("connect_timeout", &timeout)
        .general("ban_timeout", "1000")
        .general("checkout_timeout", "10000")
        .general("client_connection_recovery", "\"recover\"")
        .general("load_balancing_strategy", "\"round_robin\"")
        .user("pgdog", "pgdog")
}

/// A proxy in front of all hosts of a cluster, each behind these ports, with further lines for each.
fn at(ports: &[u16], cluster: &Replicated, database: &str, roles: Roles) -> ProxyConfig {
    let hosts = ports.iter().enumerate();
    hosts.fold(base(cluster.primary()), |config, (number, port)| {
        config.database_at(database, *port, &[roles.line(number)])
    })
}

/// A proxy in front of all hosts of a cluster.
fn config(cluster: &Replicated, database: &str, roles: Roles) -> ProxyConfig {
    let ports: Vec<u16> = (0..cluster.len()).map(|n| cluster.port(n)).collect();
    at(&ports, cluster, database, roles)
}

/// A way that can be cut before each host, and a proxy that takes these ways.
fn behind_cuts(cluster: &Replicated, database: &str, roles: Roles) -> (Vec<Cut>, ProxyConfig) {
    let cuts: Vec<Cut> = (0..cluster.len())
        .map(|n| Cut::before(cluster.port(n)))
        .collect();
    let ports: Vec<u16> = cuts.iter().map(Cut::port).collect();
    let config = at(&ports, cluster, database, roles);
    (cuts, config)
}

/// A read that tells who answers it.
const WHO: &str = "select current_setting('port')";

/// The number of the host that answers a query, by the port in the first column of its first row.
fn host_of(cluster: &Replicated, client: &mut RawClient, sql: &str) -> usize {
    let port = client.query_value(sql);
    number_of(cluster, port.parse().expect("a port"))
}

fn number_of(cluster: &Replicated, port: u16) -> usize {
    (0..cluster.len())
        .find(|&number| cluster.port(number) == port)
        .unwrap_or_else(|| panic!("{port} is nobody's port"))
}

/// How many of so many reads each host answers.
fn spread(cluster: &Replicated, client: &mut RawClient, reads: usize) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..reads {
        *counts.entry(host_of(cluster, client, WHO)).or_default() += 1;
    }
    counts
}

/// Waits until exactly these hosts answer reads; a read that fails meanwhile is taken as not there yet.
fn wait_readers(cluster: &Replicated, proxy: &Proxy, database: &str, wanted: &[usize]) {
    let mut seen = Vec::new();
    let as_wanted = || {
        seen = readers(cluster, proxy, database);
        seen == wanted
    };
    let settled = wait::until(PATIENCE, as_wanted);
    assert!(settled, "{seen:?} answer reads and not {wanted:?}");
}

/// The hosts that answer twenty reads; none when one of them fails.
fn readers(cluster: &Replicated, proxy: &Proxy, database: &str) -> Vec<usize> {
    let Ok(mut client) = RawClient::try_login(proxy.port(), "pgdog", database) else {
        return Vec::new();
    };
    let mut seen = Vec::new();
    for _ in 0..20 {
        let frames = client.query(WHO);
        let row = frames.iter().find(|frame| frame.tag == b'D');
        let Some(Some(port)) = row.and_then(|row| row.columns().into_iter().next()) else {
            return Vec::new();
        };
        let port = String::from_utf8_lossy(&port).parse().expect("a port");
        seen.push(number_of(cluster, port));
    }
    seen.sort_unstable();
    seen.dedup();
    seen
}
