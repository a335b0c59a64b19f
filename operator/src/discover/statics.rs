//! Hosts that the resource names, or the URI in a Secret.

use pgdog_config::Config;
use pgdog_operator_api::Source;

use super::{Found, Host, Trouble};
use crate::world::World;

/// The hosts of the source.
pub(super) fn discover(source: &Source, shard: u16, world: &World) -> Found {
    let mut found = Found::default();
    for host in source.hosts.iter().flatten() {
        found.hosts.push(Host {
            shard,
            name: host.host.clone(),
            address: host.host.clone(),
            port: u16::try_from(host.port).unwrap_or(5432),
            hint: host.role,
            zone: host.zone.clone(),
            weight: u8::try_from(host.weight).unwrap_or(u8::MAX),
        });
    }
    if let Some(secret) = &source.uri_secret_ref {
        let key = secret.key.as_deref().unwrap_or("uri");
        match uri_hosts(world, &secret.name, key) {
            Ok(hosts) => found
                .hosts
                .extend(hosts.into_iter().map(|(address, port)| Host {
                    shard,
                    name: address.clone(),
                    address,
                    port,
                    hint: pgdog_config::Role::Auto,
                    zone: None,
                    weight: u8::MAX,
                })),
            Err(error) => found
                .troubles
                .push(Trouble::NotFound(format!("shard {shard}: {error}"))),
        }
    }
    found
}

/// The hosts of a URI as libpq knows it, read by the proxy's own reader.
fn uri_hosts(world: &World, secret: &str, key: &str) -> Result<Vec<(String, u16)>, String> {
    let uri = world
        .secret_text(secret, key)
        .ok_or_else(|| format!("Secret {secret} has no key {key}, or does not exist"))?;
    // Its words may hold the password: only that it is wrong is told.
    let config = Config::from_urls(&[uri.trim().to_owned()])
        .map_err(|_| format!("key {key} of Secret {secret} is no URI of a Postgres"))?;
    Ok(config
        .databases
        .into_iter()
        .map(|database| (database.host, database.port))
        .collect())
}
