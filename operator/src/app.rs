//! Start and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Run;
use crate::authority::{Authority, Pair, Purpose};
use crate::controller::{Leader, Watches, lead};
use crate::http::Identity;
use crate::leader::Leadership;
use crate::metrics::{self, Metrics};
use crate::render::process::OPERATOR_NAME;

/// How often the operator's own certificate is renewed.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// Time that what is being done has to come to its end.
const ENDING: Duration = Duration::from_secs(5);

/// The Secret with the operator's authority.
const AUTHORITY: &str = "pgdog-operator-ca";

/// Runs until SIGTERM, or until it no longer leads.
///
/// # Errors
///
/// When the API server cannot be reached at the start, or the Lease was lost: the process ends and its next life waits for
/// its turn.
pub async fn run(run: Run) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("find the API server")?;
    let metrics = Arc::new(Metrics::new()?);
    let endpoints = tokio::spawn(metrics::serve(run.metrics_port, metrics.clone()));
    let watches = Watches::start(&client, &run, &metrics);
    let authority = authority(&client, &run.own_namespace).await?;
    let authority = Arc::new(Authority::of(&authority)?);
    let own = authority.issue(OPERATOR_NAME, &[], Purpose::Client)?;
    let identity = Identity::new(&own, authority.certificate())?;
    tokio::spawn(renew(identity.clone(), authority.clone()));
    let leases = Api::namespaced(client.clone(), &run.own_namespace);
    let leadership = Leadership::new(leases, &run.lease_name, &run.identity());
    let (stop, stopping) = watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let asked = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    tokio::pin!(asked);
    tokio::select! {
        ready = watches.ready() => ready?,
        ended = endpoints => ended?.with_context(|| format!("listen on port {}", run.metrics_port))?,
        () = &mut asked => return Ok(()),
    }
    metrics.ready();
    tracing::info!("waiting for the lease {}", run.lease_name);
    let epoch = tokio::select! {
        epoch = leadership.acquire() => epoch,
        () = &mut asked => return Ok(()),
    };
    tracing::info!("leading, epoch {epoch}");
    metrics.leader.set(1);
    let leader = Leader {
        authority,
        identity,
        epoch,
        term: leadership.term(),
        metrics,
    };
    let leading = lead(client, &run, watches, leader, stopping);
    tokio::pin!(leading);
    let ended = tokio::select! {
        ended = &mut leading => {
            if let Some(seen) = ended? {
                leadership.rise_above(seen).await;
            }
            Err(anyhow::anyhow!("this leader is over"))
        }
        () = leadership.keep(epoch) => Err(anyhow::anyhow!("the lease {} is lost", run.lease_name)),
        () = &mut asked => {
            stop.send_replace(true);
            // Nobody renews the lease any more.
            match tokio::time::timeout(ENDING, leading).await {
                Ok(ended) => ended.map(|_| ()),
                Err(_) => Ok(()),
            }
        }
    };
    if ended.is_ok() {
        leadership.release().await;
    }
    ended
}

/// Proves itself with a new certificate each day: a process may live longer than a certificate.
async fn renew(identity: Identity, authority: Arc<Authority>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let renewed = authority
            .issue(OPERATOR_NAME, &[], Purpose::Client)
            .and_then(|own| identity.renew(&own, authority.certificate()));
        if let Err(error) = renewed {
            tracing::warn!("failed to renew the operator's certificate: {error:#}");
        }
    }
}

/// The operator's authority; the first replica makes it.
async fn authority(client: &Client, namespace: &str) -> anyhow::Result<Pair> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        if let Some(secret) = api
            .get_opt(AUTHORITY)
            .await
            .context("read the operator's authority")?
        {
            let data = secret.data.unwrap_or_default();
            let text = |key: &str| {
                let bytes = data.get(key).map(|bytes| bytes.0.clone());
                bytes
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .with_context(|| format!("Secret {namespace}/{AUTHORITY} has no key {key}: delete it, and it is made anew"))
            };
            return Ok(Pair {
                certificate: text("tls.crt")?,
                key: text("tls.key")?,
            });
        }
        let pair = Authority::generate()?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(AUTHORITY.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            string_data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), pair.certificate),
                ("tls.key".to_owned(), pair.key),
            ])),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            // Another replica was faster.
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            Err(error) => return Err(error).context("keep the operator's authority"),
            Ok(_) => {
                tracing::info!("made the operator's authority: Secret {namespace}/{AUTHORITY}")
            }
        }
    }
}
