//! Where something is, and which pool it belongs to, as several views show it.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_backend::{HostState, Role as Found, ServerHandle};
use pgdog_config::{PoolSettings, PoolerMode, Role};
use pgdog_net::{Address, Peer};
use pgdog_session::{Account, ClientHandle, Identity};

use crate::admin::{Admin, PoolKey, pool_key};
use crate::table::Value;

/// The address and the port of a server.
pub(crate) fn of_server(address: &Address) -> (Value, Value) {
    match address {
        Address::Tcp { host, port } => (host.as_str().into(), (*port).into()),
        Address::Unix { dir, port } => (dir.display().to_string().into(), (*port).into()),
    }
}

/// The address and the port of a client.
pub(crate) fn of_client(peer: Peer) -> (Value, Value) {
    match peer {
        Peer::Tcp(address) => (address.ip().to_string().into(), address.port().into()),
        Peer::Unix => ("unix".into(), 0u16.into()),
    }
}

/// What views say of the column `role`.
pub(crate) const ROLE: &str = "Role of the server as it was found out: primary, replica or unknown; as configured where nobody has looked yet.";

/// The shard and the role of a pool's host.
pub(crate) fn shard_and_role(account: &Account) -> (Value, Value) {
    let (settings, target) = (account.pool.settings(), account.pool.target());
    let role = account.pool.host().map(|host| role(host));
    (shard(&settings, &target.address).into(), role.into())
}

/// The shard of a pool's host.
pub(crate) fn shard(settings: &PoolSettings, address: &Address) -> usize {
    let address = address.to_string();
    let hosts = &settings.hosts;
    let host = hosts.iter().find(|h| h.address.to_string() == address);
    host.or(hosts.first()).map_or(0, |h| h.shard)
}

/// What a host is, as far as that is known.
pub(crate) fn role(host: &HostState) -> &'static str {
    let role = match (host.role(), host.seen(), host.configured()) {
        (Found::Unknown, None, Role::Primary) => Found::Primary,
        (Found::Unknown, None, Role::Replica) => Found::Replica,
        (role, ..) => role,
    };
    role.as_str()
}

/// How many clients are at each pool, each of them once: at the pool that it has a server connection of, else at the first
/// host of its account.
pub(crate) fn clients(
    admin: &Admin,
    accounts: &[Arc<Account>],
    counts: impl Fn(&ClientHandle) -> bool,
) -> HashMap<PoolKey, usize> {
    let mut homes: HashMap<Arc<Identity>, PoolKey> = HashMap::new();
    let mut lent: HashMap<u32, PoolKey> = HashMap::new();
    for account in accounts {
        let key = pool_key(account);
        let home = homes.entry(account.identity.clone());
        home.or_insert_with(|| key.clone());
        // Where there is one host, nobody can be elsewhere.
        if !account.cluster.is_single() {
            let servers = account.pool.servers();
            lent.extend(
                servers
                    .iter()
                    .filter_map(|s| Some((s.client()?, key.clone()))),
            );
        }
    }
    let mut found: HashMap<PoolKey, usize> = HashMap::new();
    for client in admin.runtime.registry.all() {
        let at = lent
            .get(&client.pid)
            .or_else(|| homes.get(&client.identity));
        if let Some(key) = at.filter(|_| counts(&client)) {
            *found.entry(key.clone()).or_default() += 1;
        }
    }
    found
}

/// How a host is chosen, where there are several.
pub(crate) fn strategy(account: &Account) -> Option<String> {
    if account.cluster.is_single() {
        return None;
    }
    let name = serde_json::to_value(account.cluster.database().strategy()).ok()?;
    name.as_str().map(str::to_owned)
}

/// A pooler mode's name.
pub(crate) fn mode(mode: PoolerMode) -> &'static str {
    match mode {
        PoolerMode::Transaction => "transaction",
        PoolerMode::Session => "session",
        PoolerMode::Statement => "statement",
    }
}

/// The connections that clients have on loan, by the clients' numbers.
pub(crate) fn links(admin: &Admin) -> HashMap<u32, Arc<ServerHandle>> {
    let accounts = admin.accounts();
    let servers = accounts.iter().flat_map(|a| a.pool.servers());
    servers.filter_map(|s| Some((s.client()?, s))).collect()
}

/// How views name a client that another row points to.
pub(crate) fn client_pointer(pid: u32) -> String {
    format!("client-{pid}")
}

/// How views name a server connection that another row points to.
pub(crate) fn server_pointer(server: &ServerHandle) -> String {
    format!("server-{}-{}", server.address, server.remote_pid)
}

/// A waiting time in milliseconds as whole seconds, and the microseconds beyond them.
pub(crate) fn wait(ms: u64) -> (Value, Value) {
    ((ms / 1000).into(), (ms % 1000 * 1000).into())
}
