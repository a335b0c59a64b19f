//! Configurations and children of whole resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use pgdog_config::Config;
use pgdog_operator_api::PgDogCluster;
use serde_json::{Value, json};

use super::children::{Children, Hold};
use super::config::{Lack, Missing, Rendered, Unrenderable, render};
use super::{children, snapshot};
use crate::authority::Authority;
use crate::discover::discover;
use crate::render::users::Former;
use crate::world::World;

fn cluster(spec: &Value) -> PgDogCluster {
    let mut all = json!({
        "source": {"provider": "Static", "hosts": [{"host": "db.example"}]},
        "databases": [{"name": "app"}],
        "users": [{"secretRef": {"name": "login"}}],
    });
    if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(spec.clone());
    }
    serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1",
        "kind": "PgDogCluster",
        "metadata": {"name": "shop", "namespace": "demo", "uid": "u-1"},
        "spec": all,
    }))
    .unwrap()
}

fn world() -> World {
    // username: app, password: secret
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "login", "resourceVersion": "7"},
        "data": {"username": "YXBw", "password": "c2VjcmV0"},
    }))
    .unwrap();
    let mut world = World::default();
    world.secrets.insert("login".to_owned(), Arc::new(secret));
    world
}

fn rendered(spec: &Value) -> Result<Rendered, Unrenderable> {
    let (cluster, world) = (cluster(spec), world());
    render(
        &cluster,
        &discover(&cluster.spec, &world),
        &world,
        &Former::new(),
    )
}

#[test]
fn a_small_resource_makes_a_configuration_that_the_proxy_takes() {
    let rendered = rendered(&json!({})).unwrap();
    assert_eq!(
        rendered.topology["databases"],
        json!([{"name": "app", "host": "db.example", "port": 5432, "role": "auto", "shard": 0}])
    );
    assert_eq!(
        rendered.settings["users"],
        json!([{"name": "app", "all_databases": true, "password": "secret"}])
    );
    assert_eq!(rendered.settings["general"]["hold_timeout"], 30_000);
    assert_eq!(rendered.process["general"]["port"], 6432);
    assert_eq!(rendered.secrets[0].resource_version, "7");
}

#[test]
fn proxies_listen_where_pods_have_addresses() {
    let hosts = |ipv6: bool| {
        let world = World { ipv6, ..world() };
        let cluster = cluster(&json!({}));
        let found = discover(&cluster.spec, &world);
        let rendered = render(&cluster, &found, &world, &Former::new()).unwrap();
        let config = Config::from_json(&Value::Object(rendered.process), "test").unwrap();
        let general = config.general;
        [
            general.host,
            general.openmetrics_host,
            config.admin.http_host,
        ]
    };
    assert_eq!(hosts(false), ["0.0.0.0"; 3]);
    assert_eq!(hosts(true), ["::"; 3]);
}

#[test]
fn keys_of_the_proxy_go_where_they_count() {
    let spec = json!({"config": {"general": {"query_timeout": 5000, "workers": 4}, "tcp": {"time": 1000}}});
    let rendered = rendered(&spec).unwrap();
    assert_eq!(rendered.settings["general"]["query_timeout"], 5000);
    assert_eq!(rendered.settings["tcp"]["time"], 1000);
    // Its change needs a restart: it belongs to the process.
    assert_eq!(rendered.process["general"]["workers"], 4);
    assert_eq!(rendered.settings["general"].get("workers"), None);
}

#[test]
fn keys_of_the_operator_and_wrong_ones_are_refused_by_name() {
    for (config, path) in [
        (json!({"general": {"port": 1}}), "config.general.port"),
        (json!({"admin": {}}), "config.admin"),
        (
            json!({"general": {"query_timeout": "x"}}),
            "general.query_timeout",
        ),
        (
            json!({"general": {"query_timeou": 1}}),
            "general.query_timeou",
        ),
    ] {
        let Err(Unrenderable::Invalid(findings)) = rendered(&json!({"config": config})) else {
            panic!("{config} is taken");
        };
        assert_eq!(findings[0].path, path, "{findings:?}");
    }
}

fn children(spec: &Value) -> Children {
    let process = rendered(&json!({})).unwrap().process;
    children::render(&cluster(spec), "pgdog:1", &process, BTreeMap::default())
}

#[test]
fn a_template_is_laid_over_the_pods_and_a_wrong_one_leaves_them_as_they_are() {
    let good = json!({"pod": {"template": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}]}}}});
    rendered(&good).unwrap();
    let deployment = children(&good).deployment.unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.host_aliases.unwrap()[0].ip, "10.0.0.1");
    assert_eq!(pod.containers[0].image.as_deref(), Some("pgdog:1"));

    let wrong = json!({"pod": {"template": {"spec": {"hostAlias": []}}}});
    let Err(Unrenderable::Invalid(findings)) = rendered(&wrong) else {
        panic!("{wrong} is taken");
    };
    assert_eq!(findings[0].path, "spec.pod.template.spec.hostAlias");
    let children = children(&wrong);
    assert_eq!(children.deployment, None, "nothing is applied");
    assert!(children.service.is_some());
}

#[test]
fn proxies_know_their_zone_where_reads_shall_stay_within_it() {
    let zone = |spec: Value| {
        let deployment = children(&spec).deployment.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let env = pod.containers[0].env.clone().unwrap();
        let zone = env.into_iter().find(|one| one.name == "PGDOG_POD_ZONE")?;
        Some(zone.value_from?.field_ref?.field_path)
    };
    assert_eq!(zone(json!({})), None);
    assert_eq!(
        zone(json!({"routing": {"preferSameZone": true}})).as_deref(),
        Some("metadata.labels['topology.kubernetes.io/zone']")
    );
}

#[test]
fn a_pod_monitor_is_made_where_it_is_asked_for() {
    assert_eq!(children(&json!({})).monitor, None);
    let asked = json!({"enabled": true, "labels": {"release": "prometheus"}, "interval": "15s"});
    let monitor = children(&json!({"monitoring": {"podMonitor": asked}})).monitor;
    let monitor = serde_json::to_value(monitor.unwrap()).unwrap();
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(
        (&endpoint["port"], &endpoint["interval"]),
        (&json!("metrics"), &json!("15s"))
    );
    let pods = &monitor["spec"]["selector"]["matchLabels"];
    assert_eq!(pods["pgdog.dev/cluster"], "shop");
    let sidecars = json!({"mode": "Sidecar", "monitoring": {"podMonitor": {"enabled": true}}});
    let monitor = serde_json::to_value(children(&sidecars).monitor.unwrap()).unwrap();
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        json!({"pgdog.dev/inject": "shop"})
    );
}

#[test]
fn a_secret_that_is_missing_is_named_with_its_place() {
    let spec = json!({"users": [{"secretRef": {"name": "gone"}}, {"secretRef": {"name": "login", "keys": {"password": "pw"}}}]});
    assert_eq!(
        rendered(&spec),
        Err(Unrenderable::Secrets(vec![
            missing(
                Lack::Secret,
                "spec.users[0].secretRef: there is no Secret gone"
            ),
            missing(
                Lack::Key,
                "spec.users[1].secretRef: Secret login has no key pw"
            ),
        ]))
    );
}

fn missing(what: Lack, message: &str) -> Missing {
    Missing {
        what,
        mounted: message.contains("spec.tls"),
        message: message.to_owned(),
    }
}

/// A Secret of this text, which is there beside the login.
fn with(name: &str, key: &str, text: &str) -> World {
    let mut world = world();
    let text = k8s_openapi::ByteString(text.as_bytes().to_vec());
    let secret = Secret {
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..Secret::default()
    };
    world.secrets.insert(name.to_owned(), Arc::new(secret));
    world
}

#[test]
fn a_password_of_no_letters_is_none() {
    let cluster = cluster(&json!({"users": [{"name": "app", "secretRef": {"name": "blank"}}]}));
    let world = with("blank", "password", "");
    let found = discover(&cluster.spec, &world);
    let wrong = missing(
        Lack::Value,
        "spec.users[0].secretRef: key password of Secret blank is empty",
    );
    assert_eq!(
        render(&cluster, &found, &world, &Former::new()),
        Err(Unrenderable::Secrets(vec![wrong]))
    );
}

#[test]
fn a_certificate_that_is_missing_is_named_with_its_place_and_keeps_the_pods() {
    let of = |spec: &Value, world: &World| {
        let cluster = cluster(&json!({"tls": spec}));
        let found = discover(&cluster.spec, world);
        render(&cluster, &found, world, &Former::new()).map(|_| ())
    };
    let one = |lack: Lack, message: &str| Err(Unrenderable::Secrets(vec![missing(lack, message)]));
    let server = json!({"server": {"mode": "verify_full", "caSecretRef": "ca"}});
    let place = "spec.tls.server.caSecretRef";
    let gone = of(&server, &world());
    assert_eq!(
        gone,
        one(Lack::Secret, &format!("{place}: there is no Secret ca"))
    );
    assert!(gone.unwrap_err().keeps_pods());
    assert_eq!(
        of(&server, &with("ca", "tls.crt", "x")),
        one(Lack::Key, &format!("{place}: Secret ca has no key ca.crt"))
    );
    assert_eq!(
        of(&server, &with("ca", "ca.crt", "rubbish")),
        one(
            Lack::Certificate,
            &format!("{place}: key ca.crt of Secret ca is no certificate in PEM")
        )
    );
    let authority = Authority::generate().unwrap();
    assert_eq!(
        of(&server, &with("ca", "ca.crt", &authority.certificate)),
        Ok(())
    );
    // A bundle may begin with something else.
    let bundle = format!("# ours\n{}{}", authority.key, authority.certificate);
    assert_eq!(of(&server, &with("ca", "ca.crt", &bundle)), Ok(()));
    let both = json!({
        "client": {"mode": "Require", "secretRef": "a", "caSecretRef": "b"},
        "server": {"clientSecretRef": "c"},
    });
    let Err(Unrenderable::Secrets(all)) = of(&both, &world()) else {
        panic!("it is taken");
    };
    assert_eq!(all.len(), 3);
    let unused = json!({"client": {"mode": "Disabled", "secretRef": "a"}});
    assert_eq!(of(&unused, &world()), Ok(()));
}

#[test]
fn only_what_the_process_is_started_with_makes_new_pods() {
    let of = |spec: &Value| {
        let rendered = rendered(spec).unwrap();
        children::hash(&rendered.process)
    };
    let before = of(&json!({}));
    assert_eq!(of(&json!({"pooling": {"defaultPoolSize": 7}})), before);
    assert_eq!(of(&json!({"replicas": 5})), before);
    assert_ne!(of(&json!({"config": {"general": {"workers": 4}}})), before);
    assert_ne!(of(&json!({"service": {"targetPort": 7000}})), before);
}

#[test]
fn the_snapshot_is_a_configuration_that_says_which_push_it_holds() {
    let rendered = rendered(&json!({})).unwrap();
    let versions = snapshot::Versions {
        epoch: 3,
        settings: 4,
        topology: 5,
    };
    let data = snapshot::render(
        &rendered.process,
        &rendered.settings,
        &rendered.topology,
        &[],
        None,
        versions,
        snapshot::Start {
            share: Some(3),
            paused: true,
        },
    );
    let config = pgdog_config::Config::from_yaml(&data[snapshot::FILE]).unwrap();
    assert_eq!(
        (
            config.snapshot.epoch,
            config.snapshot.settings_revision,
            config.snapshot.topology_revision
        ),
        (3, 4, 5)
    );
    assert_eq!(
        (config.budget.default, config.snapshot.paused),
        (Some(3), true)
    );
    assert_eq!(config.databases[0].host, "db.example");
    assert_eq!(config.admin.http_port, Some(6433));
    let settings: Value = serde_json::from_str(&data[snapshot::SETTINGS]).unwrap();
    assert_eq!(settings, Value::Object(rendered.settings));
}

#[test]
fn pods_are_as_the_restricted_standard_asks() {
    let children = children(&json!({}));
    let pod =
        serde_json::to_value(&children.deployment.unwrap().spec.unwrap().template.spec).unwrap();
    let container = &pod["containers"][0];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 90);
    assert_eq!(container["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    assert!(children.pdb.is_some());
    let one = self::children(&json!({"replicas": 1}));
    assert!(
        one.pdb.is_none(),
        "it would only keep nodes from being drained"
    );
}

#[test]
fn pods_are_held_back_in_number_and_from_being_replaced() {
    let held = |most: i32, paused: bool| {
        let mut children = children(&json!({"replicas": 3}));
        children.hold_back(Hold { most, paused });
        let spec = children.deployment.unwrap().spec.unwrap();
        (spec.replicas, spec.paused)
    };
    assert_eq!(held(5, false), (Some(3), None));
    assert_eq!(held(2, true), (Some(2), Some(true)));
}
