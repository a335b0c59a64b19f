//! The hosts behind Services: EndpointSlices joined with the pods they name.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use pgdog_config::Role;
use pgdog_operator_api::{ServiceSource, Source};

use super::{Excluded, Found, Host, Trouble};
use crate::world::{World, is_leaving};

/// The label that ties slices to their Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The port of Postgres where the source names none.
const PORT: u16 = 5432;

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
    let (slices, others) = slices(service, world);
    let mut empty = true;
    for slice in slices {
        let Some(port) = port(of, service, slice) else {
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
    for endpoint in others.iter().flat_map(|slice| &slice.endpoints) {
        let name = named(endpoint);
        let mut known = found.hosts.iter().map(|host| &host.name);
        let mut told = found.excluded.iter().map(|excluded| &excluded.name);
        if !known.any(|known| *known == name) && !told.any(|told| *told == name) {
            found.excluded.push(Excluded {
                name,
                reason: "the Service has hosts of the other address family".to_owned(),
            });
        }
    }
}

/// The slices of a Service, in a stable order: those of the one address family by which its hosts are reached, and the others. A
/// host of both families would else be reached by the one today and by the other tomorrow, or be two.
fn slices<'w>(
    service: &Service,
    world: &'w World,
) -> (Vec<&'w EndpointSlice>, Vec<&'w EndpointSlice>) {
    let name = service.name_any();
    let of_service = |slice: &&EndpointSlice| slice.labels().get(SERVICE_NAME) == Some(&name);
    let all = world.slices.iter().map(AsRef::as_ref);
    let mut all: Vec<_> = all.filter(of_service).collect();
    all.sort_by_key(|slice| slice.name_any());
    let spec = service.spec.as_ref();
    let own = spec.and_then(|spec| spec.ip_families.as_ref()?.first());
    let first = own.map_or(if world.ipv6 { "IPv6" } else { "IPv4" }, String::as_str);
    // Who is ready does not count: a family stays the same while hosts come and go.
    let filled = all.iter().filter(|slice| !slice.endpoints.is_empty());
    let family = filled
        .map(|slice| slice.address_type.as_str())
        .min_by_key(|family| (*family != first, *family))
        .unwrap_or(first);
    all.into_iter()
        .partition(|slice| slice.address_type == family)
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
    let port = of.port.as_deref().map_or(Ok(PORT), str::parse);
    found.hosts.push(Host {
        shard,
        name: name.clone(),
        address: name,
        port: port.unwrap_or(PORT),
        hint: of.role,
        zone: None,
        weight: u8::MAX,
    });
}

/// The port of Postgres in a slice: the Service's port may have another number there, but has the same name. Where the Service
/// does not say, the slice does.
fn port(of: &ServiceSource, service: &Service, slice: &EndpointSlice) -> Option<u16> {
    let wanted = of.port.clone().unwrap_or_else(|| PORT.to_string());
    let is_wanted = |name: Option<&str>, number: Option<i32>| {
        name == Some(&wanted) || number.is_some_and(|number| number.to_string() == wanted)
    };
    let spec = service.spec.as_ref();
    let all: &[ServicePort] = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let there: &[EndpointPort] = slice.ports.as_deref().unwrap_or_default();
    let of_service = all
        .iter()
        .find(|port| is_wanted(port.name.as_deref(), Some(port.port)))
        .or_else(|| only(all));
    let chosen = match of_service {
        Some(port) => {
            let named = |name: &Option<String>| name.clone().unwrap_or_default();
            // A slice that a person wrote may know one port by no name, or by its own.
            let free = |other: &&EndpointPort| all.len() == 1 || named(&other.name).is_empty();
            there
                .iter()
                .find(|other| named(&other.name) == named(&port.name))
                .or_else(|| only(there).filter(free))
        }
        None => there
            .iter()
            .find(|port| is_wanted(port.name.as_deref(), port.port))
            .or_else(|| only(there)),
    };
    u16::try_from(chosen?.port?).ok()
}

fn only<T>(all: &[T]) -> Option<&T> {
    match all {
        [one] => Some(one),
        _ => None,
    }
}

/// The pod of an endpoint, or its address where it names none.
fn named(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let pod = target.and_then(|target| target.name.clone());
    pod.or_else(|| endpoint.addresses.first().cloned())
        .unwrap_or_default()
}

fn host(endpoint: &Endpoint, world: &World) -> Result<(String, String), Excluded> {
    let address = endpoint.addresses.first().cloned().unwrap_or_default();
    let target = endpoint.target_ref.as_ref();
    let pod = target.and_then(|target| target.name.as_ref());
    let name = named(endpoint);
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
            .any(|one| one.name_any() == *pod && is_leaving(one))
    });
    if leaving {
        return Err(excluded("the pod is terminating"));
    }
    Ok((name, address))
}
