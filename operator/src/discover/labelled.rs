//! Pods whose labels tell their cluster and their role: CloudNativePG, Zalando, Crunchy, Percona, StackGres, Patroni.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use pgdog_config::Role;
use pgdog_operator_api::{Provider, RoleLabel, Source, UnknownRolePolicy};

use super::{Excluded, Found, Host, Trouble};
use crate::world::{World, address, is_leaving, is_ready};

/// Values of a role label that mean the primary: Patroni says `master` up to version 3 and `primary` from version 4 on.
const PRIMARY: &[&str] = &["primary", "master", "leader"];
/// Values that mean a replica. The leader of a standby cluster is one: it takes no writes.
const REPLICA: &[&str] = &["replica", "standby", "sync_standby", "standby_leader"];

/// How a provider labels its pods.
struct Labels {
    /// What its pods carry.
    selector: Selector,
    /// The label that tells the role.
    role: String,
    /// The port of Postgres in the pod.
    port: u16,
}

fn labels(source: &Source) -> Result<Labels, String> {
    let cluster = source.cluster_ref.as_ref().map_or("", |c| c.name.as_str());
    let of = |pairs: &[(&str, &str)], role: &str, port| Labels {
        selector: pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        role: role.to_owned(),
        port,
    };
    Ok(match source.provider {
        Provider::CloudNativePG => of(
            &[
                ("cnpg.io/cluster", cluster),
                ("cnpg.io/podRole", "instance"),
            ],
            "cnpg.io/instanceRole",
            5432,
        ),
        Provider::Zalando => of(
            &[("application", "spilo"), ("cluster-name", cluster)],
            "spilo-role",
            5432,
        ),
        Provider::CrunchyPGO | Provider::Percona => of(
            &[
                ("postgres-operator.crunchydata.com/cluster", cluster),
                ("postgres-operator.crunchydata.com/data", "postgres"),
            ],
            "postgres-operator.crunchydata.com/role",
            5432,
        ),
        // 5432 of the pod is its own pooler's way in; this is Envoy's to Postgres itself.
        Provider::StackGres => of(
            &[
                ("app", "StackGresCluster"),
                ("stackgres.io/cluster-name", cluster),
                ("stackgres.io/cluster", "true"),
            ],
            "role",
            7433,
        ),
        Provider::Patroni => Labels {
            selector: source
                .selector
                .clone()
                .unwrap_or_default()
                .try_into()
                .map_err(|error| format!("selector: {error}"))?,
            role: "role".to_owned(),
            port: 5432,
        },
        Provider::Service | Provider::Static => of(&[], "", 5432),
    })
}

/// The pods that carry the labels of the source.
pub(super) fn discover(source: &Source, shard: u16, world: &World) -> Found {
    let mut found = Found::default();
    let labels = match labels(source) {
        Ok(labels) => labels,
        Err(error) => {
            found
                .troubles
                .push(Trouble::NotFound(format!("shard {shard}: {error}")));
            return found;
        }
    };
    let role = source.role_label.as_ref();
    let key = role.map_or(labels.role.as_str(), |label| label.key.as_str());
    for pod in &world.pods {
        if !labels.selector.matches(pod.labels()) {
            continue;
        }
        let at = (shard, labels.port, world.zone(pod));
        match host(pod, at, hint(pod, key, role), source) {
            Ok(host) => found.hosts.push(host),
            Err(reason) => found.excluded.push(Excluded {
                name: pod.name_any(),
                reason,
            }),
        }
    }
    found
}

/// What the role label of a pod says; `None` when it says nothing that is known.
fn hint(pod: &Pod, key: &str, label: Option<&RoleLabel>) -> Option<Role> {
    let value = pod.labels().get(key)?.as_str();
    let says = |own: Option<&Vec<String>>, known: &[&str]| match own {
        Some(own) if !own.is_empty() => own.iter().any(|one| one == value),
        _ => known.contains(&value),
    };
    if says(label.map(|l| &l.primary_values), PRIMARY) {
        Some(Role::Primary)
    } else if says(label.map(|l| &l.replica_values), REPLICA) {
        Some(Role::Replica)
    } else {
        None
    }
}

fn host(
    pod: &Pod,
    (shard, port, zone): (u16, u16, Option<String>),
    hint: Option<Role>,
    source: &Source,
) -> Result<Host, String> {
    if is_leaving(pod) {
        return Err("the pod is terminating".to_owned());
    }
    let address = address(pod).ok_or("the pod has no address yet")?;
    // A primary that is not ready may still be one: whether it takes writes is for the proxies to find out.
    if !is_ready(pod) && hint != Some(Role::Primary) {
        return Err("the pod is not ready".to_owned());
    }
    let hint = match (hint, source.unknown_role_policy) {
        (Some(hint), _) => hint,
        (None, UnknownRolePolicy::Replica) => Role::Replica,
        (None, UnknownRolePolicy::Exclude) => {
            return Err("its role label is missing or says nothing that is known".to_owned());
        }
    };
    Ok(Host {
        shard,
        name: pod.name_any(),
        address: address.to_owned(),
        port,
        hint,
        zone,
        weight: 255,
    })
}
