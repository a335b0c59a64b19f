//! The Secrets with certificates that a cluster names and its proxies mount.

use kube::ResourceExt;
use pgdog_config::documents;
use pgdog_operator_api::{ClientTlsMode, Mode, PgDogCluster};
use serde_json::{Value, json};

use super::config::{Lack, Missing};
use crate::authority;
use crate::world::World;

/// A certificate that stands in a Secret.
struct Named {
    /// Which field names it.
    place: &'static str,
    secret: String,
    key: &'static str,
}

/// The certificates that are read; our own are made where there are none.
fn named(cluster: &PgDogCluster) -> impl Iterator<Item = Named> {
    let tls = cluster.spec.tls.clone().unwrap_or_default();
    let (client, server) = (
        tls.client.unwrap_or_default(),
        tls.server.unwrap_or_default(),
    );
    let shown = client.mode != ClientTlsMode::Disabled && cluster.spec.mode == Mode::Deployment;
    let of_client = [
        ("spec.tls.client.secretRef", client.secret_ref, "tls.crt"),
        (
            "spec.tls.client.caSecretRef",
            client.ca_secret_ref,
            "ca.crt",
        ),
    ];
    let of_server = [
        (
            "spec.tls.server.caSecretRef",
            server.ca_secret_ref,
            "ca.crt",
        ),
        (
            "spec.tls.server.clientSecretRef",
            server.client_secret_ref,
            "tls.crt",
        ),
    ];
    let of_client = of_client.into_iter().filter(move |_| shown);
    of_client
        .chain(of_server)
        .filter_map(|(place, secret, key)| {
            Some(Named {
                place,
                secret: secret?,
                key,
            })
        })
}

/// What is not there, or is no certificate: no pod could be started with it, and proxies would refuse it.
#[must_use]
pub fn missing(cluster: &PgDogCluster, world: &World) -> Vec<Missing> {
    let lack = |named: Named| {
        let Named { place, secret, key } = named;
        let there = world.secrets.get(&secret);
        let value = there.map(|there| there.data.as_ref().and_then(|data| data.get(key)));
        let (what, message) = match value {
            None => (
                Lack::Secret,
                format!("{place}: there is no Secret {secret}"),
            ),
            Some(None) => (
                Lack::Key,
                format!("{place}: Secret {secret} has no key {key}"),
            ),
            Some(Some(value)) if !authority::is_certificate(&value.0) => (
                Lack::Certificate,
                format!("{place}: key {key} of Secret {secret} is no certificate in PEM"),
            ),
            Some(Some(_)) => return None,
        };
        Some(Missing {
            what,
            mounted: true,
            message,
        })
    };
    named(cluster).filter_map(lack).collect()
}

/// Which versions of these Secrets there are; `None` where none is named. Keys are seen by their Secret's version only.
#[must_use]
pub fn sha256(cluster: &PgDogCluster, world: &World) -> Option<String> {
    let version = |named: Named| {
        let secret = world.secrets.get(&named.secret);
        json!([
            named.place,
            named.secret,
            secret.and_then(|secret| secret.uid()),
            secret.and_then(|secret| secret.resource_version()),
        ])
    };
    let versions: Vec<_> = named(cluster).map(version).collect();
    (!versions.is_empty()).then(|| documents::sha256(&Value::Array(versions)))
}
