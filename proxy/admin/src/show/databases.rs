//! `SHOW DATABASES`.

use std::collections::BTreeSet;

use pgdog_net::Address;
use pgdog_session::Account;

use super::place;
use crate::admin::{Admin, pool_key};
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW DATABASES",
    help: "Databases that clients may ask for, with this console's own.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::text("name", "Name that clients ask for."),
    Column::text("host", "Addresses of the servers, with commas in between."),
    Column::int("port", "Port of the servers; NULL where they differ."),
    Column::text("database", "Name on the servers; NULL where they differ."),
    Column::text(
        "force_user",
        "User on the server, where it is not the client's.",
    ),
    Column::int(
        "pool_size",
        "Most server connections of one pool; the largest where users or hosts differ.",
    ),
    Column::int("min_pool_size", "Server connections that are kept open."),
    Column::int(
        "reserve_pool_size",
        "Server connections above pool_size when clients wait too long.",
    ),
    Column::int(
        "server_lifetime",
        "Age at which server connections are closed, s.",
    ),
    Column::text(
        "pool_mode",
        "When server connections come back; NULL where users differ.",
    ),
    Column::text(
        "load_balance_hosts",
        "How a host is chosen for a read; NULL where there is one.",
    ),
    Column::int(
        "max_connections",
        "Most server connections over all users; 0 is no limit.",
    ),
    Column::int("current_connections", "Server connections now."),
    Column::int("max_client_connections", "Most clients; 0 is no limit."),
    Column::int("current_client_connections", "Clients now."),
    Column::int(
        "paused",
        "1 when clients wait because of PAUSE, KILL or MAINTENANCE.",
    ),
    Column::int("disabled", "1 when nobody may log in because of DISABLE."),
];

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let clients = admin.runtime.registry.all();
    let counted = |name: &str| {
        let of = clients.iter().filter(|c| c.identity.database == name);
        of.count()
    };
    let mut rows: Vec<_> = accounts
        .chunk_by(|a, b| a.identity.database == b.identity.database)
        .map(|of| {
            let of: Vec<_> = of.iter().map(|a| &**a).collect();
            row(admin, &of, counted(&of[0].identity.database))
        })
        .collect();
    let live = admin.runtime.live();
    let own = &live.settings.admin;
    rows.push(row![
        own.name.as_str(),
        Value::Null,
        live.settings.listen.port,
        own.name.as_str(),
        own.user.as_str(),
        0u32,
        0u32,
        0u32,
        0u32,
        "statement",
        Value::Null,
        0u32,
        0u32,
        0u32,
        counted(&own.name),
        0u32,
        0u32,
    ]);
    rows
}

/// The same value of all, if it is.
pub(crate) fn common<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|v| v == first).then_some(first)
}

/// The addresses, ports and names of a database's hosts, each host once.
fn servers(accounts: &[&Account]) -> (Vec<String>, Vec<u16>, Vec<String>) {
    let (mut hosts, mut ports, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for account in accounts {
        let (_, host) = pool_key(account);
        if !seen.insert(host) {
            continue;
        }
        let target = account.pool.target();
        let (host, port) = match &*target.address {
            Address::Tcp { host, port } => (host.clone(), *port),
            Address::Unix { dir, port } => (dir.display().to_string(), *port),
        };
        hosts.push(host);
        ports.push(port);
        names.push(target.database.clone());
    }
    (hosts, ports, names)
}

fn row(admin: &Admin, accounts: &[&Account], clients: usize) -> Vec<Value> {
    let name = accounts[0].identity.database.as_str();
    let (hosts, ports, names) = servers(accounts);
    let settings: Vec<_> = accounts.iter().map(|a| a.pool.settings()).collect();
    let most = |of: fn(&pgdog_config::PoolSettings) -> u32| settings.iter().map(|s| of(s)).max();
    let other_user = |a: &&Account| {
        let user = a.pool.target().user.clone();
        (user != a.identity.user).then_some(user)
    };
    let connections = accounts.iter().map(|a| a.pool.connections()).sum::<u32>();
    let lifetime = settings[0].lifetime.map_or(0, |l| l.as_secs());
    let paused = accounts
        .iter()
        .any(|a| a.pool.is_paused() || a.pool.is_held());
    row![
        name,
        hosts.join(","),
        common(ports.into_iter()),
        common(names.into_iter()),
        common(accounts.iter().map(other_user)).flatten(),
        most(|s| s.size),
        most(|s| s.min_size),
        most(|s| s.reserve_size),
        lifetime,
        common(settings.iter().map(|s| s.mode)).map(place::mode),
        place::strategy(accounts[0]),
        settings[0].database_max.unwrap_or(0),
        connections,
        settings[0].database_max_clients.unwrap_or(0),
        clients,
        u32::from(paused),
        u32::from(admin.runtime.gates.is_disabled(name)),
    ]
}
