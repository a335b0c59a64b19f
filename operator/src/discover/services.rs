//! The hosts behind Services: EndpointSlices joined with the pods they name.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use pgdog_config::Role;
use pgdog_operator_api::{ServiceSource, Source};

use super::{Excluded, Found, Host, Trouble};
use crate::world::{World, is_leaving};

/// The label that ties slices to their Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The hosts behind all Services of the source.
pub(super) fn discover(source: &Source, shard: u16, world: &World) -> Found {
    let mut found = Found::default();
    for service in source.services.iter().flatten() {
        behind(service, shard, world, &mut found);
    }
    found
}

fn behind(of: &ServiceSource, shard: u16, world: &World, found: &mut Found) {
    let service = world.services.iter().find(|s| s.name_any() == of.name);
    let Some(service) = service else {
        found.troubles.push(Trouble::NotFound(format!(
            "shard {shard}: there is no Service {}",
            of.name
        )));
        return;
    };
    let slices = world
        .slices
        .iter()
        .filter(|slice| slice.labels().get(SERVICE_NAME) == Some(&of.name));
    let mut empty = true;
    for slice in slices {
        let Some(port) = port(of, slice) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            match host(endpoint, world) {
                Ok((name, address)) => {
                    empty = false;
                    let host = Host {
                        shard,
                        name,
                        address,
                        port,
                        hint: of.role,
                        zone: endpoint.zone.clone(),
                        weight: u8::MAX,
                    };
                    add(host, &mut found.hosts);
                }
                Err(excluded) => found.excluded.push(excluded),
            }
        }
    }
    if empty {
        external(of, service, shard, found);
    }
}

/// Adds a host. One may stand in several slices while these are rearranged, and behind several Services: a primary may answer
/// reads too.
fn add(host: Host, hosts: &mut Vec<Host>) {
    let is_same = |other: &&mut Host| {
        (other.shard, other.port) == (host.shard, host.port)
            && (other.address == host.address || other.name == host.name)
    };
    match hosts.iter_mut().find(is_same) {
        Some(known) if known.hint == Role::Auto || host.hint == Role::Primary => {
            known.hint = host.hint;
        }
        Some(_) => {}
        None => hosts.push(host),
    }
}

/// A Service that stands for a name outside of the cluster is that host.
fn external(of: &ServiceSource, service: &Service, shard: u16, found: &mut Found) {
    let spec = service.spec.as_ref();
    let name = spec.and_then(|spec| spec.external_name.clone());
    let Some(name) = name else {
        return;
    };
    let port = of.port.as_deref().map_or(Ok(5432), str::parse);
    found.hosts.push(Host {
        shard,
        name: name.clone(),
        address: name,
        port: port.unwrap_or(5432),
        hint: of.role,
        zone: None,
        weight: u8::MAX,
    });
}

/// The port of Postgres in a slice: by its name, by its number, or the only one there is.
fn port(of: &ServiceSource, slice: &EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let numbers = |name: &str| name.parse::<i32>().ok();
    let chosen = match of.port.as_deref() {
        Some(wanted) => ports
            .iter()
            .find(|p| {
                p.name.as_deref() == Some(wanted)
                    || (numbers(wanted).is_some() && p.port == numbers(wanted))
            })
            .or_else(|| (ports.len() == 1).then(|| &ports[0])),
        None => ports
            .iter()
            .find(|p| p.port == Some(5432))
            .or_else(|| ports.first()),
    };
    u16::try_from(chosen?.port?).ok()
}

fn host(endpoint: &Endpoint, world: &World) -> Result<(String, String), Excluded> {
    let address = endpoint.addresses.first().cloned().unwrap_or_default();
    let target = endpoint.target_ref.as_ref();
    let pod = target.and_then(|target| target.name.clone());
    let name = pod.clone().unwrap_or_else(|| address.clone());
    let excluded = |reason: &str| Excluded {
        name: name.clone(),
        reason: reason.to_owned(),
    };
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|c| c.terminating) == Some(true) {
        return Err(excluded("the pod is terminating"));
    }
    // Nobody says that it is not ready: it is.
    if conditions.and_then(|c| c.ready) == Some(false) {
        return Err(excluded("the pod is not ready"));
    }
    let leaving = pod.is_some_and(|pod| {
        world
            .pods
            .iter()
            .any(|one| one.name_any() == pod && is_leaving(one))
    });
    if leaving {
        return Err(excluded("the pod is terminating"));
    }
    Ok((name, address))
}
