//! Start and end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Run;
use crate::authorities;
use crate::authority::{Authority, Purpose};
use crate::controller::{Leader, Watches, lead};
use crate::http::Identity;
use crate::inject::DefaultImage;
use crate::leader::Leadership;
use crate::metrics::{self, Metrics};
use crate::render::process::OPERATOR_NAME;
use crate::webhook::certificate::{Certificate, Keeper};
use crate::webhook::{self, Known};

/// How often the operator's own certificate is renewed.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// How often it is looked after the authority: whoever misses its Secret waits for the leader to make it again.
const LOOK: Duration = Duration::from_secs(10);

/// Time that what is being done has to come to its end.
const ENDING: Duration = Duration::from_secs(5);

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
    // Whoever leads next has one to begin with.
    authorities::load(&client, &run.own_namespace, false).await?;
    webhook(&client, &run, &watches, &metrics).await?;
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
    let present = authorities::load(&client, &run.own_namespace, true).await?;
    let authority = Arc::new(Authority::among(&present)?);
    let own = authority.issue(OPERATOR_NAME, &[], Purpose::Client)?;
    let identity = Identity::new(&own, authority.bundle())?;
    tokio::spawn(renew(identity.clone(), authority.clone()));
    let leader = Leader {
        authority,
        identity,
        epoch,
        term: leadership.term(),
        metrics,
    };
    let leading = lead(client.clone(), &run, watches, leader, stopping);
    tokio::pin!(leading);
    let ended = tokio::select! {
        ended = &mut leading => {
            if let Some(seen) = ended? {
                leadership.rise_above(seen).await;
            }
            Err(anyhow::anyhow!("this leader is over"))
        }
        () = leadership.keep(epoch) => Err(anyhow::anyhow!("the lease {} is lost", run.lease_name)),
        () = authorities::superseded(&client, &run.own_namespace, &present, LOOK) => {
            Err(anyhow::anyhow!("there is another authority: the next life of this process takes it"))
        }
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

/// Answers the API server's questions from now on, where there is a webhook.
async fn webhook(
    client: &Client,
    run: &Run,
    watches: &Watches,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<()> {
    if run.webhook_port == 0 {
        return Ok(());
    }
    metrics.expect_webhook();
    let known = Known {
        client: client.clone(),
        clusters: watches.clusters.clone(),
        image: DefaultImage {
            name: run.proxy_image.clone(),
            upgrade: run.upgrade_proxies,
        },
    };
    let certificate = Certificate::default();
    let everywhere = match run.pod_ip.is_some_and(|address| address.is_ipv6()) {
        true => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        false => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    let address = SocketAddr::from((everywhere, run.webhook_port));
    webhook::start(address, certificate.clone(), known)
        .await
        .with_context(|| format!("listen on {address}"))?;
    tokio::spawn(Keeper::new(client.clone(), run).keep(certificate, metrics.clone()));
    Ok(())
}

/// Proves itself with a new certificate each day: a process may live longer than a certificate.
async fn renew(identity: Identity, authority: Arc<Authority>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let renewed = authority
            .issue(OPERATOR_NAME, &[], Purpose::Client)
            .and_then(|own| identity.renew(&own, authority.bundle()));
        if let Err(error) = renewed {
            tracing::warn!("failed to renew the operator's certificate: {error:#}");
        }
    }
}
