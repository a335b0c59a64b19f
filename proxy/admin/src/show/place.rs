//! Where something is, and which pool it belongs to, as several views show it.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_backend::ServerHandle;
use pgdog_config::{PoolerMode, Role};
use pgdog_net::{Address, Peer};
use pgdog_session::Account;

use crate::admin::Admin;
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

/// The shard and the role of a pool's host.
pub(crate) fn shard_and_role(account: &Account) -> (Value, Value) {
    let target = account.pool.target().address.to_string();
    let settings = account.pool.settings();
    let mut hosts = settings.hosts.iter();
    let host = hosts
        .find(|h| h.address.to_string() == target)
        .or(settings.hosts.first());
    let role = host.map(|h| match h.role {
        Role::Primary => "primary",
        Role::Replica => "replica",
        Role::Auto => "auto",
    });
    (host.map_or(0, |h| h.shard).into(), role.into())
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
