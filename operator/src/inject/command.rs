//! `pgdog-operator inject`: reads manifests, prints them with the sidecars in them.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use kube::{Api, Client, ResourceExt};
use pgdog_operator_api::{Mode, PgDogCluster};

use super::manifest::{self, Ask};
use super::{DefaultImage, named};
use crate::args::Inject;

/// Reads, injects, prints.
///
/// # Errors
///
/// Files that cannot be read, clusters that are not found, workloads that can have no sidecar. Nothing is printed then.
pub async fn run(inject: Inject) -> anyhow::Result<()> {
    let mut given = Vec::new();
    let mut names = Vec::new();
    for cluster in &inject.cluster {
        if cluster == "-" || Path::new(cluster).is_file() || cluster.contains(['/', '.']) {
            let inside = manifest::clusters(&read(cluster)?).with_context(|| cluster.clone())?;
            if inside.is_empty() {
                bail!("{cluster} holds no PgDogCluster");
            }
            names.extend(inside.iter().map(ResourceExt::name_any));
            given.extend(inside);
        } else {
            names.push(cluster.clone());
        }
    }
    // Who is labelled chooses; the others get the one that is named, if it is one.
    let default = match names.as_slice() {
        [one] => Some(one.as_str()),
        _ => None,
    };
    let files = inject.file.iter().map(|file| Ok((file, read(file)?)));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    for (file, text) in &files {
        given.extend(manifest::clusters(text).with_context(|| (*file).clone())?);
    }
    let mut server = None;
    for (file, text) in &files {
        for ask in manifest::asks(text, default).with_context(|| (*file).clone())? {
            if find(&given, &inject, &ask).is_err()
                && !given.iter().any(|c| c.name_any() == ask.cluster)
            {
                given.extend(fetch(&mut server, &inject, &ask).await?);
            }
        }
    }
    for cluster in &mut given {
        // A manifest outlives the resource that it was made of.
        cluster.metadata.uid = None;
    }
    let image = default_image(inject.image.as_deref());
    let mut printed = String::new();
    for (file, text) in &files {
        let rendered = manifest::render(text, default, &image, &|ask| find(&given, &inject, ask));
        let rendered = rendered.with_context(|| (*file).clone())?;
        if !printed.is_empty() && !rendered.starts_with("---") {
            printed.push_str("---\n");
        }
        printed.push_str(&rendered);
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
    }
    std::io::stdout().write_all(printed.as_bytes())?;
    Ok(())
}

/// Who says an image wants it; otherwise proxies get the one that others of their cluster have.
fn default_image(said: Option<&str>) -> DefaultImage {
    DefaultImage {
        name: said.unwrap_or("pgdog:latest").to_owned(),
        upgrade: said.is_some(),
    }
}

fn read(file: &str) -> anyhow::Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {file}"))
}

/// The cluster that a workload means: its Secrets are mounted, so it is one of the same namespace.
fn find<'c>(
    given: &'c [PgDogCluster],
    inject: &Inject,
    ask: &Ask,
) -> Result<&'c PgDogCluster, String> {
    let own = ask.namespace.as_deref().or(inject.namespace.as_deref());
    let named_so = || {
        given
            .iter()
            .filter(|cluster| cluster.name_any() == ask.cluster)
    };
    let fits = |cluster: &&PgDogCluster| match (own, cluster.namespace()) {
        (Some(own), Some(namespace)) => own == namespace,
        _ => true,
    };
    named_so().find(fits).ok_or_else(|| match named_so().next() {
        Some(other) => format!(
            "{} is of another namespace: a sidecar mounts its Secrets, so workload and PgDogCluster must be in one",
            named(other)
        ),
        None => format!("PgDogCluster {} is not known: name its file with --cluster", ask.cluster),
    })
}

async fn fetch(
    server: &mut Option<Client>,
    inject: &Inject,
    ask: &Ask,
) -> anyhow::Result<Vec<PgDogCluster>> {
    let client = match server {
        Some(client) => client.clone(),
        None => {
            let found = Client::try_default().await.with_context(|| {
                format!(
                    "PgDogCluster {} is in none of the files, and there is no API server to ask: name its file with --cluster",
                    ask.cluster
                )
            })?;
            server.insert(found).clone()
        }
    };
    let default = client.default_namespace().to_owned();
    let namespace = ask
        .namespace
        .clone()
        .or(inject.namespace.clone())
        .unwrap_or(default);
    let api: Api<PgDogCluster> = Api::namespaced(client, &namespace);
    let found = api
        .get_opt(&ask.cluster)
        .await
        .with_context(|| format!("read PgDogCluster {namespace}/{}", ask.cluster))?;
    match found {
        Some(cluster) => Ok(vec![cluster]),
        None => {
            let others = api
                .list(&kube::api::ListParams::default())
                .await
                .map(|list| list.items);
            let others: Vec<_> = others
                .unwrap_or_default()
                .iter()
                .filter(|cluster| cluster.spec.mode == Mode::Sidecar)
                .map(ResourceExt::name_any)
                .collect();
            bail!(
                "there is no PgDogCluster {namespace}/{}; of mode Sidecar there are: {}. Make it first, or name its file with --cluster",
                ask.cluster,
                if others.is_empty() {
                    "none".to_owned()
                } else {
                    others.join(", ")
                }
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn an_image_that_somebody_says_wins_over_that_of_the_clusters_proxies() {
        let upgrades = |more: &[&str]| {
            let words = ["x", "inject", "-f", "-"].iter().chain(more);
            let Command::Inject(inject) = Cli::parse_from(words).command else {
                panic!("inject was asked for");
            };
            default_image(inject.image.as_deref()).upgrade
        };
        assert!(!upgrades(&[]));
        assert!(upgrades(&["--image", "pgdog:2"]));
    }
}
