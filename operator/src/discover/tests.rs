//! Hosts from objects as the providers make them.

#![allow(
    clippy::needless_pass_by_value,
    reason = "a JSON value reads best where it is used"
)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use pgdog_config::Role;
use pgdog_operator_api::{PgDogClusterSpec, Source};
use serde_json::{Value, json};

use super::{Found, Trouble, discover};
use crate::world::World;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, ip: &str, ready: bool, labels: Value) -> Arc<Pod> {
    object(json!({
        "metadata": {"name": name, "labels": labels},
        "status": {
            "podIP": ip,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }))
}

fn spec(source: Value) -> PgDogClusterSpec {
    serde_json::from_value(json!({"source": source, "databases": [{"name": "app"}]})).unwrap()
}

fn found(source: Value, world: &World) -> Found {
    discover(&spec(source), world)
}

fn cnpg(pods: &[(&str, &str, bool, &str)]) -> World {
    World {
        pods: pods
            .iter()
            .map(|(name, ip, ready, role)| {
                let labels = json!({"cnpg.io/cluster": "main", "cnpg.io/podRole": "instance", "cnpg.io/instanceRole": role});
                pod(name, ip, *ready, labels)
            })
            .collect(),
        ..World::default()
    }
}

const CNPG: fn() -> Value = || json!({"provider": "CloudNativePG", "clusterRef": {"name": "main"}});

fn hints(found: &Found) -> Vec<(&str, Role)> {
    found
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.hint))
        .collect()
}

#[test]
fn each_provider_is_known_by_its_labels() {
    let cases = [
        (
            CNPG(),
            json!({"cnpg.io/cluster": "main", "cnpg.io/podRole": "instance"}),
            "cnpg.io/instanceRole",
            "primary",
            5432,
        ),
        (
            json!({"provider": "Zalando", "clusterRef": {"name": "main"}}),
            json!({"application": "spilo", "cluster-name": "main"}),
            "spilo-role",
            "master",
            5432,
        ),
        (
            json!({"provider": "CrunchyPGO", "clusterRef": {"name": "main"}}),
            json!({"postgres-operator.crunchydata.com/cluster": "main", "postgres-operator.crunchydata.com/data": "postgres"}),
            "postgres-operator.crunchydata.com/role",
            "master",
            5432,
        ),
        (
            json!({"provider": "Percona", "clusterRef": {"name": "main"}}),
            json!({"postgres-operator.crunchydata.com/cluster": "main", "postgres-operator.crunchydata.com/data": "postgres"}),
            "postgres-operator.crunchydata.com/role",
            "primary",
            5432,
        ),
        (
            json!({"provider": "StackGres", "clusterRef": {"name": "main"}}),
            json!({"app": "StackGresCluster", "stackgres.io/cluster-name": "main", "stackgres.io/cluster": "true"}),
            "role",
            "primary",
            7433,
        ),
        (
            json!({"provider": "Patroni", "selector": {"matchLabels": {"cluster-name": "main"}}}),
            json!({"cluster-name": "main"}),
            "role",
            "leader",
            5432,
        ),
    ];
    for (source, labels, key, primary, port) in cases {
        let with = |role: &str| {
            let mut labels = labels.clone();
            labels[key] = role.into();
            labels
        };
        let world = World {
            pods: vec![
                pod("a", "10.0.0.1", true, with(primary)),
                pod("b", "10.0.0.2", true, with("replica")),
                pod("other", "10.0.0.3", true, json!({key: primary})),
            ],
            ..World::default()
        };
        let found = found(source.clone(), &world);
        assert_eq!(
            hints(&found),
            [("a", Role::Primary), ("b", Role::Replica)],
            "{source}"
        );
        assert!(found.hosts.iter().all(|host| host.port == port), "{source}");
        assert!(found.troubles.is_empty(), "{source}: {:?}", found.troubles);
    }
}

#[test]
fn a_primary_that_is_not_ready_stays_a_host_and_a_replica_does_not() {
    let world = cnpg(&[
        ("a", "10.0.0.1", false, "primary"),
        ("b", "10.0.0.2", false, "replica"),
        ("c", "", true, "replica"),
    ]);
    let found = found(CNPG(), &world);
    assert_eq!(hints(&found), [("a", Role::Primary)]);
    let reasons: Vec<_> = found
        .excluded
        .iter()
        .map(|e| (e.name.as_str(), e.reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("b", "the pod is not ready"),
            ("c", "the pod has no address yet")
        ]
    );
}

#[test]
fn a_role_that_nobody_knows_gets_nothing_unless_asked_for() {
    let world = cnpg(&[
        ("a", "10.0.0.1", true, "primary"),
        ("b", "10.0.0.2", true, "unhealthy"),
    ]);
    assert_eq!(hints(&found(CNPG(), &world)), [("a", Role::Primary)]);
    let mut source = CNPG();
    source["unknownRolePolicy"] = "Replica".into();
    assert_eq!(
        hints(&found(source, &world)),
        [("a", Role::Primary), ("b", Role::Replica)]
    );
}

#[test]
fn own_names_of_roles_replace_the_known_ones() {
    let mut source = CNPG();
    source["roleLabel"] = json!({"key": "cnpg.io/instanceRole", "primaryValues": ["boss"]});
    let world = cnpg(&[
        ("a", "10.0.0.1", true, "boss"),
        ("b", "10.0.0.2", true, "replica"),
        ("c", "10.0.0.3", true, "primary"),
    ]);
    assert_eq!(
        hints(&found(source, &world)),
        [("a", Role::Primary), ("b", Role::Replica)]
    );
}

#[test]
fn no_primary_and_two_primaries_are_told() {
    let none = cnpg(&[("a", "10.0.0.1", true, "replica")]);
    assert!(matches!(
        found(CNPG(), &none).troubles.as_slice(),
        [Trouble::NoPrimary(_)]
    ));
    let two = cnpg(&[
        ("a", "10.0.0.1", true, "primary"),
        ("b", "10.0.0.2", true, "primary"),
    ]);
    let told = found(CNPG(), &two);
    assert!(
        matches!(told.troubles.as_slice(), [Trouble::SplitBrain(message)] if message.contains("a, b"))
    );
    assert_eq!(told.hosts.len(), 2, "the proxies decide");
}

#[test]
fn a_source_without_pods_is_a_gap_and_says_what_it_looked_for() {
    let told = found(CNPG(), &World::default());
    assert!(told.has_gap(&spec(CNPG())));
    assert_eq!(
        told.troubles,
        [Trouble::NotFound(
            "shard 0: no pod of CloudNativePG cluster main is running".to_owned()
        )]
    );
}

fn slice(service: &str, endpoints: Value) -> Arc<EndpointSlice> {
    object(json!({
        "metadata": {"name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "metrics", "port": 9187}, {"name": "postgres", "port": 5432}],
        "endpoints": endpoints,
    }))
}

fn service(name: &str, spec: Value) -> Arc<Service> {
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

#[test]
fn a_service_is_its_pods_once_each_and_none_that_leave() {
    let endpoint = |name: &str, ip: &str, conditions: Value| json!({"addresses": [ip], "conditions": conditions, "zone": "z1", "targetRef": {"kind": "Pod", "name": name}});
    let mut leaving: Pod = (*pod("d", "10.0.0.4", true, json!({}))).clone();
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(leaving.name_any(), "d");
    let world = World {
        services: vec![service("pg", json!({}))],
        pods: vec![Arc::new(leaving)],
        slices: vec![
            slice(
                "pg",
                json!([
                    endpoint("a", "10.0.0.1", json!({"ready": true})),
                    endpoint("b", "10.0.0.2", json!({"ready": false})),
                    endpoint("c", "10.0.0.3", json!({"ready": true, "terminating": true})),
                    endpoint("d", "10.0.0.4", json!({})),
                ]),
            ),
            slice("pg", json!([endpoint("a", "10.0.0.1", json!({}))])),
            slice("other", json!([endpoint("e", "10.0.0.5", json!({}))])),
        ],
        ..World::default()
    };
    let source = json!({"provider": "Service", "services": [{"name": "pg"}]});
    let found = found(source, &world);
    assert_eq!(hints(&found), [("a", Role::Auto)]);
    let host = &found.hosts[0];
    assert_eq!((host.port, host.zone.as_deref()), (5432, Some("z1")));
    let names: Vec<_> = found.excluded.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
}

#[test]
fn a_port_of_a_service_is_found_behind_it_by_its_name() {
    let of = |ports: Value, there: Value, wanted: Option<&str>| {
        let mut slice = (*slice("pg", json!([{"addresses": ["10.0.0.1"]}]))).clone();
        slice.ports = serde_json::from_value(there).unwrap();
        let world = World {
            services: vec![service("pg", json!({"ports": ports}))],
            slices: vec![Arc::new(slice)],
            ..World::default()
        };
        let source = json!({"provider": "Service", "services": [{"name": "pg", "port": wanted}]});
        found(source, &world).hosts.first().map(|host| host.port)
    };
    let two = json!([{"name": "metrics", "port": 9187}, {"name": "pg", "port": 5432}]);
    let behind = json!([{"name": "metrics", "port": 9187}, {"name": "pg", "port": 5433}]);
    for wanted in [None, Some("5432"), Some("pg")] {
        assert_eq!(
            of(two.clone(), behind.clone(), wanted),
            Some(5433),
            "{wanted:?}"
        );
    }
    assert_eq!(of(two.clone(), behind.clone(), Some("metrics")), Some(9187));
    // The number behind the Service, where the Service itself has no such port.
    assert_eq!(of(two.clone(), behind.clone(), Some("5433")), Some(5433));
    assert_eq!(of(two.clone(), behind, Some("mysql")), None);
    // These pods have no port of the name that the Service looks for.
    let metrics = json!([{"name": "metrics", "port": 9187}]);
    assert_eq!(of(two.clone(), metrics, None), None);
    // None is it for sure, and the first one is as good as the second.
    let odd = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    assert_eq!(of(odd.clone(), odd, None), None);
    for unnamed in [Value::Null, "".into()] {
        let behind = json!([{"name": unnamed, "port": 5433}]);
        assert_eq!(
            of(json!([{"port": 6000}]), behind.clone(), None),
            Some(5433)
        );
        assert_eq!(of(two.clone(), behind, None), Some(5433), "written by hand");
    }
}

#[test]
fn a_host_of_both_address_families_is_reached_by_the_same_one_always() {
    let pod = |name: &str, ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}});
    let of = |name: &str, family: &str, endpoints: Value| {
        let mut slice = (*slice("pg", endpoints)).clone();
        slice.metadata.name = Some(name.to_owned());
        family.clone_into(&mut slice.address_type);
        Arc::new(slice)
    };
    let told = |slices: &[Arc<EndpointSlice>], families: Value, ipv6: bool| {
        let mut world = World {
            services: vec![service("pg", json!({"ipFamilies": families}))],
            slices: slices.to_vec(),
            ipv6,
            ..World::default()
        };
        let source = json!({"provider": "Service", "services": [{"name": "pg"}]});
        let one = found(source.clone(), &world);
        world.slices.reverse();
        assert_eq!(found(source, &world), one, "the order of the slices");
        let hosts: Vec<_> = one.hosts.into_iter().map(|host| host.address).collect();
        let out: Vec<_> = one.excluded.into_iter().map(|out| out.name).collect();
        (hosts.join(" "), out.join(" "))
    };
    let answer = |hosts: &str, out: &str| (hosts.to_owned(), out.to_owned());
    let both = [
        of("pg-1", "IPv6", json!([pod("a", "fd00::1", true)])),
        of("pg-2", "IPv4", json!([pod("a", "10.0.0.1", true)])),
    ];
    assert_eq!(told(&both, Value::Null, false), answer("10.0.0.1", ""));
    assert_eq!(told(&both, Value::Null, true), answer("fd00::1", ""));
    let six_first = json!(["IPv6", "IPv4"]);
    assert_eq!(told(&both, six_first.clone(), false), answer("fd00::1", ""));
    // The one of the other slice is told first to be ready.
    let soon = [
        both[0].clone(),
        of("pg-2", "IPv4", json!([pod("a", "10.0.0.1", false)])),
    ];
    assert_eq!(told(&soon, Value::Null, false), answer("", "a"));
    let none = [both[0].clone(), of("pg-2", "IPv4", json!([]))];
    assert_eq!(told(&none, Value::Null, false), answer("fd00::1", ""));
    // Nobody says that these are one host.
    let by_hand = [
        of("pg-1", "IPv6", json!([{"addresses": ["fd00::1"]}])),
        of("pg-2", "IPv4", json!([{"addresses": ["10.0.0.1"]}])),
    ];
    assert_eq!(
        told(&by_hand, Value::Null, false),
        answer("10.0.0.1", "fd00::1")
    );
    assert_eq!(
        told(&by_hand, six_first, false),
        answer("fd00::1", "10.0.0.1")
    );
    // A pod that stands in two slices of a family for a while.
    let twice = [
        of("pg-1", "IPv4", json!([pod("a", "10.0.0.1", true)])),
        of("pg-2", "IPv4", json!([pod("a", "10.0.0.2", true)])),
    ];
    assert_eq!(told(&twice, Value::Null, false), answer("10.0.0.1", ""));
}

#[test]
fn a_host_behind_several_services_is_one_host() {
    let endpoint = |name: &str, ip: &str| json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": name}});
    let world = World {
        services: vec![service("pg-rw", json!({})), service("pg-r", json!({}))],
        slices: vec![
            slice("pg-rw", json!([endpoint("a", "10.0.0.1")])),
            slice(
                "pg-r",
                json!([endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2")]),
            ),
        ],
        ..World::default()
    };
    let (rw, r) = (
        json!({"name": "pg-rw", "role": "primary"}),
        json!({"name": "pg-r", "role": "replica"}),
    );
    for services in [json!([rw, r]), json!([r, rw])] {
        let source = json!({"provider": "Service", "services": services});
        let told = found(source, &world);
        assert_eq!(hints(&told), [("a", Role::Primary), ("b", Role::Replica)]);
        assert!(told.troubles.is_empty(), "{:?}", told.troubles);
    }
}

#[test]
fn a_service_that_is_not_there_and_one_that_is_a_name() {
    let source = json!({"provider": "Service", "services": [{"name": "pg"}]});
    let told = found(source.clone(), &World::default());
    assert_eq!(
        told.troubles,
        [Trouble::NotFound(
            "shard 0: there is no Service pg".to_owned()
        )]
    );
    let world = World {
        services: vec![service(
            "pg",
            json!({"type": "ExternalName", "externalName": "db.example"}),
        )],
        ..World::default()
    };
    assert_eq!(found(source, &world).hosts[0].address, "db.example");
}

#[test]
fn static_hosts_and_those_of_a_uri() {
    let source = json!({"provider": "Static", "hosts": [{"host": "db.example", "role": "primary", "weight": 0, "zone": "z"}]});
    let told = found(source, &World::default());
    assert_eq!(hints(&told), [("db.example", Role::Primary)]);
    assert_eq!(told.hosts[0].weight, 0);
    let secret: Arc<Secret> = object(
        json!({"metadata": {"name": "uri"}, "data": {"uri": "cG9zdGdyZXM6Ly91OnBAaC5leGFtcGxlOjU0MzMvYXBw"}}),
    );
    let mut world = World::default();
    world.secrets.insert("uri".to_owned(), secret);
    let source = json!({"provider": "Static", "uriSecretRef": {"name": "uri"}});
    let told = found(source.clone(), &world);
    assert_eq!(
        (told.hosts[0].address.as_str(), told.hosts[0].port),
        ("h.example", 5433)
    );
    let told = found(source, &World::default());
    assert!(
        matches!(told.troubles.as_slice(), [Trouble::NotFound(message)] if message.contains("Secret uri has no key uri"))
    );
}

#[test]
fn each_shard_has_its_source_and_the_order_is_stable() {
    let shard = |number: i32, host: &str| json!({"number": number, "source": {"provider": "Static", "hosts": [{"host": host}]}});
    let spec: PgDogClusterSpec = serde_json::from_value(json!({
        "shards": [shard(1, "b"), shard(0, "a")],
        "databases": [{"name": "app"}],
    }))
    .unwrap();
    let told = discover(&spec, &World::default());
    let hosts: Vec<_> = told
        .hosts
        .iter()
        .map(|h| (h.shard, h.name.as_str()))
        .collect();
    assert_eq!(hosts, [(0, "a"), (1, "b")]);
    assert!(!told.has_gap(&spec));
    assert!(Found::default().has_gap(&spec));
    let _: Source = serde_json::from_value(CNPG()).unwrap();
}

#[test]
fn the_zone_of_a_host_is_that_of_its_label_or_of_the_slice_that_names_it() {
    let mut world = cnpg(&[
        ("main-1", "10.0.0.1", true, "primary"),
        ("main-2", "10.0.0.2", true, "replica"),
        ("main-3", "10.0.0.3", true, "replica"),
    ]);
    let labelled = json!({"cnpg.io/cluster": "main", "cnpg.io/podRole": "instance", "cnpg.io/instanceRole": "primary", "topology.kubernetes.io/zone": "a"});
    world.pods[0] = pod("main-1", "10.0.0.1", true, labelled);
    let slice: Arc<EndpointSlice> = object(json!({
        "metadata": {"name": "main-r"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.2"], "zone": "b", "targetRef": {"kind": "Pod", "name": "main-2"}}],
    }));
    world.slices.push(slice);
    let found = found(CNPG(), &world);
    let zones: Vec<_> = found
        .hosts
        .iter()
        .map(|host| host.zone.as_deref())
        .collect();
    assert_eq!(zones, [Some("a"), Some("b"), None]);
}
