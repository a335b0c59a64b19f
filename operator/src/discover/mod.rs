//! From what other operators say of their Postgres to hosts. Pure: objects in, hosts out.
//!
//! Labels are a hint. Unless the resource says that they decide, every host goes to the proxies with the role `auto`, and the
//! proxies ask it.

mod labelled;
mod services;
mod statics;
#[cfg(test)]
mod tests;

use pgdog_config::Role;
use pgdog_operator_api::{PgDogClusterSpec, Provider, RoleDetection, Source};

use crate::world::World;

/// A host that a proxy may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Number of its shard.
    pub shard: u16,
    /// Name of the pod, or of the host.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// What its label says, or what the resource says; `Auto` where nobody says anything.
    pub hint: Role,
    /// Zone that it is in.
    pub zone: Option<String>,
    /// Its share of the reads.
    pub weight: u8,
}

/// A host that gets nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// Name of the pod, or of the host.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Why a source cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// What the resource names is not there, or has no hosts.
    NotFound(String),
    /// No host is said to be the primary.
    NoPrimary(String),
    /// Several hosts are.
    SplitBrain(String),
}

/// The hosts of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Hosts, in a stable order.
    pub hosts: Vec<Host>,
    /// Hosts that get nothing.
    pub excluded: Vec<Excluded>,
    /// What is wrong, shard by shard.
    pub troubles: Vec<Trouble>,
}

impl Found {
    /// Whether a shard has no host at all: then the topology in force stays.
    #[must_use]
    pub fn has_gap(&self, spec: &PgDogClusterSpec) -> bool {
        let found = |shard: u16| self.hosts.iter().any(|host| host.shard == shard);
        shards(spec).iter().any(|(shard, _)| !found(*shard))
    }
}

/// Finds the hosts of all shards.
#[must_use]
pub fn discover(spec: &PgDogClusterSpec, world: &World) -> Found {
    let mut found = Found::default();
    for (shard, source) in shards(spec) {
        let mut of = discover_source(source, shard, world);
        judge(&mut of, shard, source);
        found.hosts.extend(of.hosts);
        found.excluded.extend(of.excluded);
        found.troubles.extend(of.troubles);
    }
    found.hosts.sort_by(|a, b| {
        (a.shard, &a.name, &a.address, a.port).cmp(&(b.shard, &b.name, &b.address, b.port))
    });
    found.hosts.dedup();
    found
}

/// The source of each shard.
pub fn shards(spec: &PgDogClusterSpec) -> Vec<(u16, &Source)> {
    match (&spec.source, &spec.shards) {
        (Some(source), _) => vec![(0, source)],
        (None, Some(shards)) => shards
            .iter()
            .map(|shard| {
                (
                    u16::try_from(shard.number).unwrap_or_default(),
                    &shard.source,
                )
            })
            .collect(),
        (None, None) => Vec::new(),
    }
}

fn discover_source(source: &Source, shard: u16, world: &World) -> Found {
    match source.provider {
        Provider::Static => statics::discover(source, shard, world),
        Provider::Service => services::discover(source, shard, world),
        _ => labelled::discover(source, shard, world),
    }
}

/// What the hints add up to.
fn judge(found: &mut Found, shard: u16, source: &Source) {
    if found.hosts.is_empty() {
        if found.troubles.is_empty() {
            found.troubles.push(Trouble::NotFound(format!(
                "shard {shard}: no pod of {} is running",
                describe(source)
            )));
        }
        return;
    }
    let primaries: Vec<_> = found
        .hosts
        .iter()
        .filter(|host| host.hint == Role::Primary)
        .map(|host| host.name.as_str())
        .collect();
    let asked = source.role_detection == RoleDetection::Probe
        || found.hosts.iter().any(|host| host.hint == Role::Auto);
    match primaries.len() {
        1 => {}
        0 if asked => {}
        0 => found.troubles.push(Trouble::NoPrimary(format!(
            "shard {shard}: no pod of {} is labelled as the primary",
            describe(source)
        ))),
        _ => found.troubles.push(Trouble::SplitBrain(format!(
            "shard {shard}: labelled as the primary are {}: the proxies write to the one with the highest timeline, or to none",
            primaries.join(", ")
        ))),
    }
}

/// The source in words.
#[must_use]
pub fn describe(source: &Source) -> String {
    match (&source.cluster_ref, &source.services) {
        (Some(cluster), _) => format!("{:?} cluster {}", source.provider, cluster.name),
        (None, Some(services)) => {
            let names: Vec<_> = services.iter().map(|s| s.name.as_str()).collect();
            format!("Service {}", names.join(", "))
        }
        (None, None) => format!("{:?} source", source.provider),
    }
}
