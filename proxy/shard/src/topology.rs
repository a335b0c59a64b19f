//! Which hosts a database has: an immutable snapshot.

use std::collections::BTreeMap;

use pgdog_config::{Host, Role};

use crate::id::ShardId;

/// The hosts of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// In the order they were written.
    pub hosts: Vec<Host>,
}

impl Shard {
    /// The host that takes writes: the one that is the primary, or may turn out to be it.
    #[must_use]
    pub fn primary(&self) -> Option<&Host> {
        let serves = |host: &&Host| !host.resharding_only;
        let written = self
            .hosts
            .iter()
            .filter(serves)
            .find(|h| h.role == Role::Primary);
        written.or_else(|| {
            self.hosts
                .iter()
                .filter(serves)
                .find(|h| h.role == Role::Auto)
        })
    }
}

/// The shards of one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    shards: BTreeMap<ShardId, Shard>,
}

impl Topology {
    /// Sorts hosts by their shards.
    #[must_use]
    pub fn new(hosts: &[Host]) -> Self {
        let mut shards: BTreeMap<ShardId, Shard> = BTreeMap::new();
        for host in hosts {
            let shard = shards.entry(ShardId::new(host.shard)).or_default();
            shard.hosts.push(host.clone());
        }
        Self { shards }
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    /// All shards, by number.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards.iter().map(|(id, shard)| (*id, shard))
    }
}

#[cfg(test)]
mod tests {
    use pgdog_config::Address;

    use super::*;

    fn host(port: u16, shard: usize, role: Role) -> Host {
        Host {
            address: Address::Tcp {
                host: "h".into(),
                port,
            },
            shard,
            role,
            weight: 1,
            zone: None,
            database: "d".into(),
            resharding_only: false,
        }
    }

    #[test]
    fn hosts_are_found_by_shard_and_role() {
        let hosts = [
            host(1, 0, Role::Replica),
            host(2, 0, Role::Primary),
            host(3, 1, Role::Auto),
        ];
        let topology = Topology::new(&hosts);
        let primary = |shard| topology.shard(ShardId::new(shard)).and_then(Shard::primary);
        assert_eq!(primary(0), Some(&hosts[1]));
        assert_eq!(primary(1), Some(&hosts[2]));
        assert_eq!(primary(2), None);
        assert_eq!(topology.shards().count(), 2);
    }

    #[test]
    fn a_host_kept_for_resharding_takes_no_writes() {
        let kept = Host {
            resharding_only: true,
            ..host(1, 0, Role::Primary)
        };
        assert_eq!(
            Topology::new(&[kept])
                .shard(ShardId::ONLY)
                .and_then(Shard::primary),
            None
        );
    }
}
