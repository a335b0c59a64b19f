//! The proxy's container and its volumes: the same in a pod of its own and as a sidecar.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use pgdog_operator_api::{ClientTlsMode, Mode, PgDogCluster, Resources};

use super::process::{
    ADMIN_DIR, CLIENT_CA_DIR, CLIENT_TLS_DIR, Ports, SERVER_CA_DIR, SERVER_TLS_DIR, SNAPSHOT_DIR,
    STATE_DIR, TOKEN_DIR,
};
use super::snapshot;
use crate::world::ZONE;

/// The name of the proxy's container.
pub const CONTAINER: &str = "pgdog";
/// The user the proxy runs as; a number, so that kubelet can tell that it is not root.
pub const UID: i64 = 65_532;

/// Names of the objects that a cluster's pods mount.
#[must_use]
pub fn config_secret(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// The Secret with the certificates of the admin API.
#[must_use]
pub fn admin_secret(cluster: &str) -> String {
    format!("{cluster}-admin-tls")
}

/// The Secret with the certificate that clients see, where none is named.
#[must_use]
pub fn client_tls_secret(cluster: &str) -> String {
    format!("{cluster}-client-tls")
}

/// The proxy's container.
#[must_use]
pub fn container(cluster: &PgDogCluster, image: &str) -> Container {
    let spec = &cluster.spec;
    let ports = Ports::of(cluster);
    let sidecar = spec.mode == Mode::Sidecar;
    let pull = spec.image.as_ref().and_then(|image| image.pull_policy);
    let own = if sidecar {
        spec.sidecar.clone().unwrap_or_default().resources
    } else {
        spec.pod.clone().unwrap_or_default().resources
    };
    let defaults = if sidecar {
        resources(&[("cpu", "20m"), ("memory", "32Mi")], "128Mi")
    } else {
        resources(&[("cpu", "250m"), ("memory", "128Mi")], "512Mi")
    };
    let sleep = std::time::Duration::from(spec.drain.clone().unwrap_or_default().pre_stop_sleep);
    let seconds = i64::try_from(sleep.as_secs()).unwrap_or(5);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: pull.map(|policy| format!("{policy:?}")),
        args: Some(vec![
            "run".to_owned(),
            format!("--config={SNAPSHOT_DIR}/{}", snapshot::FILE),
            "--wait-for-config".to_owned(),
        ]),
        env: Some(env(cluster)),
        ports: Some(vec![
            port("postgres", ports.clients),
            port("admin", ports.admin),
            port("metrics", ports.plain),
        ]),
        resources: Some(requirements(own.unwrap_or(defaults))),
        security_context: Some(restricted()),
        startup_probe: Some(probe("/startupz", ports.plain, 1, 120)),
        readiness_probe: Some(probe("/readyz", ports.plain, 2, 2)),
        liveness_probe: Some(probe("/livez", ports.plain, 10, 6)),
        // A sidecar is told to stop when the application has gone; before that it must go on as it is.
        lifecycle: (!sidecar && seconds > 0).then(|| Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        restart_policy: sidecar.then(|| "Always".to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            mounted(cluster)
                .into_iter()
                .map(|volume| VolumeMount {
                    name: volume.name.to_owned(),
                    mount_path: volume.path.to_owned(),
                    read_only: (volume.path != STATE_DIR).then_some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

/// The volumes of this container.
#[must_use]
pub fn volumes(cluster: &PgDogCluster) -> Vec<Volume> {
    // The pod of an application has a group of its own or none: the user of the proxy reads as everybody.
    let mode = match cluster.spec.mode {
        Mode::Deployment => 0o440,
        Mode::Sidecar => 0o444,
    };
    mounted(cluster)
        .into_iter()
        .map(|volume| match volume.secret {
            Some(name) => Volume {
                name: volume.name.to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(name),
                    default_mode: Some(mode),
                    items: (volume.path == SNAPSHOT_DIR).then(|| {
                        vec![KeyToPath {
                            key: snapshot::FILE.to_owned(),
                            path: snapshot::FILE.to_owned(),
                            mode: None,
                        }]
                    }),
                    optional: volume.optional.then_some(true),
                }),
                ..Volume::default()
            },
            // Passwords stand in what was pushed last: it never reaches a disk.
            None => Volume {
                name: volume.name.to_owned(),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".to_owned()),
                    size_limit: Some(Quantity("16Mi".to_owned())),
                }),
                ..Volume::default()
            },
        })
        .collect()
}

/// The names of all volumes that a proxy may have.
pub const VOLUMES: [&str; 8] = [
    "pgdog-snapshot",
    "pgdog-admin-tls",
    "pgdog-state",
    "pgdog-no-token",
    "pgdog-client-tls",
    "pgdog-client-ca",
    "pgdog-server-ca",
    "pgdog-server-tls",
];

struct Mounted {
    name: &'static str,
    path: &'static str,
    /// The Secret it comes from; memory where there is none.
    secret: Option<String>,
    optional: bool,
}

fn mounted(cluster: &PgDogCluster) -> Vec<Mounted> {
    let name = cluster.name_any();
    let volume = |name, path, secret: Option<String>, optional| Mounted {
        name,
        path,
        secret,
        optional,
    };
    let mut volumes = vec![
        volume(
            "pgdog-snapshot",
            SNAPSHOT_DIR,
            Some(config_secret(&name)),
            false,
        ),
        volume(
            "pgdog-admin-tls",
            ADMIN_DIR,
            Some(admin_secret(&name)),
            false,
        ),
        volume("pgdog-state", STATE_DIR, None, false),
    ];
    if cluster.spec.mode == Mode::Sidecar {
        // Where something is mounted, no token of the application's account is.
        volumes.push(volume("pgdog-no-token", TOKEN_DIR, None, false));
    }
    let tls = cluster.spec.tls.clone().unwrap_or_default();
    let client = tls.client.unwrap_or_default();
    if client.mode != ClientTlsMode::Disabled && cluster.spec.mode == Mode::Deployment {
        let secret = client
            .secret_ref
            .unwrap_or_else(|| client_tls_secret(&name));
        volumes.push(volume(
            "pgdog-client-tls",
            CLIENT_TLS_DIR,
            Some(secret),
            false,
        ));
        if client.ca_secret_ref.is_some() {
            volumes.push(volume(
                "pgdog-client-ca",
                CLIENT_CA_DIR,
                client.ca_secret_ref,
                false,
            ));
        }
    }
    let server = tls.server.unwrap_or_default();
    if server.ca_secret_ref.is_some() {
        volumes.push(volume(
            "pgdog-server-ca",
            SERVER_CA_DIR,
            server.ca_secret_ref,
            false,
        ));
    }
    if server.client_secret_ref.is_some() {
        volumes.push(volume(
            "pgdog-server-tls",
            SERVER_TLS_DIR,
            server.client_secret_ref,
            false,
        ));
    }
    volumes
}

/// Whether reads shall stay within the zone of the proxy.
#[must_use]
pub fn wants_zone(cluster: &PgDogCluster) -> bool {
    let routing = cluster.spec.routing.as_ref();
    routing.and_then(|routing| routing.prefer_same_zone) == Some(true)
}

fn env(cluster: &PgDogCluster) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    let uid = cluster.uid().map(|uid| value("PGDOG_CLUSTER_UID", uid));
    let mut env: Vec<_> = uid.into_iter().collect();
    let field = |name: &str, path: String| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path,
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    env.push(field("PGDOG_POD_UID", "metadata.uid".to_owned()));
    if wants_zone(cluster) {
        env.push(field(
            "PGDOG_POD_ZONE",
            format!("metadata.labels['{ZONE}']"),
        ));
    }
    env.extend(cluster.spec.pod.clone().unwrap_or_default().env);
    env
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(if period > 2 { 5 } else { 1 }),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// What the Pod Security Standard "restricted" asks for.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(UID),
        run_as_group: Some(UID),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn resources(requests: &[(&str, &str)], memory: &str) -> Resources {
    let quantity = |value: &str| Quantity(value.to_owned());
    Resources {
        requests: requests
            .iter()
            .map(|(name, value)| ((*name).to_owned(), quantity(value)))
            .collect(),
        limits: BTreeMap::from([("memory".to_owned(), quantity(memory))]),
    }
}

fn requirements(resources: Resources) -> ResourceRequirements {
    let some = |map: BTreeMap<String, Quantity>| (!map.is_empty()).then_some(map);
    ResourceRequirements {
        requests: some(resources.requests),
        limits: some(resources.limits),
        ..ResourceRequirements::default()
    }
}
