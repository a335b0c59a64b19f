//! The webhook's certificate: read from its Secret by every replica, and swapped without a pause.
//!
//! Where the operator makes it, every replica looks whether it is due, for all of them have the same authority: one that waits to
//! lead is not ready without a certificate, and a rollout would wait for it forever. Of two that renew it at the same time one is
//! refused (the version of the Secret that it read is a former one), and reads what the other has made.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::apply::MANAGER;
use crate::args::Run;
use crate::authorities;
use crate::authority::{self, Authority, Pair, Purpose};
use crate::metrics::Metrics;

/// How often the Secret is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The certificate in use.
#[derive(Debug, Clone, Default)]
pub struct Certificate(Arc<RwLock<Option<Arc<rustls::ServerConfig>>>>);

impl Certificate {
    /// The one that the next connection gets.
    #[must_use]
    pub fn current(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Another one from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be read; the one before stays.
    pub fn renew(&self, pair: &Pair) -> anyhow::Result<()> {
        let config = Arc::new(config(pair)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
        Ok(())
    }
}

fn config(pair: &Pair) -> anyhow::Result<rustls::ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("read tls.crt")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("read tls.key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    builder
        .with_single_cert(chain, key)
        .context("use the certificate")
}

/// Where the certificate stands, and who makes it.
#[derive(Clone)]
pub struct Keeper {
    client: Client,
    namespace: String,
    secret: String,
    /// The Service that it is for, where the operator makes it.
    service: Option<String>,
    /// The configuration that names its authority, where the operator writes that.
    configuration: Option<String>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({})", self.place())
    }
}

impl Keeper {
    /// As it is run.
    #[must_use]
    pub fn new(client: Client, run: &Run) -> Self {
        Self {
            client,
            namespace: run.own_namespace.clone(),
            secret: run.webhook_secret.clone(),
            service: run.webhook_service.clone(),
            configuration: run.webhook_configuration.clone(),
        }
    }

    /// Keeps the certificate as it is in the Secret, until the process ends.
    pub async fn keep(self, certificate: Certificate, metrics: Arc<Metrics>) {
        let mut used = None;
        loop {
            if let Err(error) = self.look(&certificate, &mut used).await {
                tracing::warn!("failed to keep the webhook's certificate: {error:#}");
            }
            if certificate.current().is_some() {
                metrics.webhook_ready();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(
        &self,
        certificate: &Certificate,
        used: &mut Option<String>,
    ) -> anyhow::Result<()> {
        if let Some(service) = &self.service {
            let all = authorities::present(&self.client, &self.namespace).await?;
            let authority = Authority::among(&all)?;
            self.make(service, &authority).await?;
            self.read(certificate, used).await?;
            return self.tell(authority.bundle()).await;
        }
        let secret = self.read(certificate, used).await?;
        if self.configuration.is_none() {
            return Ok(());
        }
        let authority = text(&secret, "ca.crt").filter(|text| {
            let mut all = CertificateDer::pem_slice_iter(text.as_bytes());
            matches!(all.next(), Some(Ok(_)))
        });
        let authority = authority.with_context(|| {
            let place = self.place();
            format!("{place} has no certificate under ca.crt: that of the authority that signed its tls.crt")
        })?;
        self.tell(&authority).await
    }

    fn place(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.secret)
    }

    /// Uses what is in the Secret.
    async fn read(
        &self,
        certificate: &Certificate,
        used: &mut Option<String>,
    ) -> anyhow::Result<Secret> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let place = self.place();
        let secret = api
            .get_opt(&self.secret)
            .await
            .with_context(|| format!("read {place}"))?;
        let secret = secret.with_context(|| format!("{place} is not there yet"))?;
        let key =
            |key: &str| text(&secret, key).with_context(|| format!("{place} has no key {key}"));
        let pair = Pair {
            certificate: key("tls.crt")?,
            key: key("tls.key")?,
        };
        if used.as_ref() != Some(&pair.certificate) {
            certificate.renew(&pair).with_context(|| place.clone())?;
            tracing::info!("the webhook uses the certificate in {place}");
            *used = Some(pair.certificate);
        }
        Ok(secret)
    }

    /// Makes the Secret, or renews what is in it when that is due.
    async fn make(&self, service: &str, authority: &Authority) -> anyhow::Result<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let present = api
            .get_opt(&self.secret)
            .await
            .context("read the webhook's certificate")?;
        if let Some(secret) = &present {
            let certificate = text(secret, "tls.crt").unwrap_or_default();
            if !authority::is_due(&certificate, authority.certificate(), Timestamp::now()) {
                return Ok(());
            }
        }
        let names = names(service, &self.namespace);
        let pair = authority.issue(&names[0], &names, Purpose::Server)?;
        let data = BTreeMap::from(
            [
                ("tls.crt", pair.certificate),
                ("tls.key", pair.key),
                ("ca.crt", authority.certificate().to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))),
        );
        let how = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match present {
            // With the version that was read.
            Some(mut secret) => {
                secret.data = Some(data);
                api.replace(&self.secret, &how, &secret).await
            }
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.secret.clone()),
                        ..ObjectMeta::default()
                    },
                    type_: Some("kubernetes.io/tls".to_owned()),
                    data: Some(data),
                    ..Secret::default()
                };
                api.create(&how, &secret).await
            }
        };
        match written {
            // Another replica was faster.
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
            Err(error) => Err(error).context("write the webhook's certificate"),
            Ok(_) => {
                tracing::info!("made the webhook's certificate: {}", self.place());
                Ok(())
            }
        }
    }

    /// Tells the API server which authority to believe.
    async fn tell(&self, authority: &str) -> anyhow::Result<()> {
        let Some(name) = &self.configuration else {
            return Ok(());
        };
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let reading = || format!("read MutatingWebhookConfiguration {name}");
        let present = api.get_opt(name).await.with_context(reading)?;
        let present =
            present.with_context(|| format!("there is no MutatingWebhookConfiguration {name}"))?;
        let Some(patch) = bundles(&present, authority) else {
            return Ok(());
        };
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .with_context(|| {
                format!(
                    "write caBundle into MutatingWebhookConfiguration {}",
                    present.name_any()
                )
            })?;
        tracing::info!("wrote caBundle into MutatingWebhookConfiguration {name}");
        Ok(())
    }
}

/// The patch that makes every webhook of a configuration believe an authority; none where they all do.
fn bundles(configuration: &MutatingWebhookConfiguration, authority: &str) -> Option<Value> {
    let wanted = ByteString(authority.as_bytes().to_vec());
    let webhooks = configuration.webhooks.iter().flatten();
    let others: Vec<_> = webhooks
        .filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&wanted))
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": wanted}}))
        .collect();
    (!others.is_empty()).then(|| json!({"webhooks": others}))
}

/// The names that the API server, or somebody who looks into it, calls a Service by.
fn names(service: &str, namespace: &str) -> Vec<String> {
    ["svc", "svc.cluster.local"]
        .map(|suffix| format!("{service}.{namespace}.{suffix}"))
        .to_vec()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let data = secret.data.as_ref()?;
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundle: Option<&str>) -> MutatingWebhookConfiguration {
        let mut client = json!({"service": {"name": "s", "namespace": "n"}});
        if let Some(bundle) = bundle {
            client["caBundle"] = json!(ByteString(bundle.as_bytes().to_vec()));
        }
        serde_json::from_value(json!({
            "metadata": {"name": "x"},
            "webhooks": [{"name": "inject.pgdog.dev", "clientConfig": client, "admissionReviewVersions": ["v1"], "sideEffects": "None"}],
        }))
        .unwrap()
    }

    #[test]
    fn an_authority_is_written_where_another_or_none_stands() {
        for before in [None, Some("former")] {
            let patch = bundles(&configuration(before), "now").unwrap();
            // base64 of "now"
            assert_eq!(patch["webhooks"][0]["clientConfig"]["caBundle"], "bm93");
            assert_eq!(patch["webhooks"][0]["name"], "inject.pgdog.dev");
        }
        assert_eq!(bundles(&configuration(Some("now")), "now"), None);
    }

    #[test]
    fn what_cannot_be_used_leaves_the_certificate_that_is_used() {
        let authority = Authority::of(&Authority::generate().unwrap()).unwrap();
        let names = names("hook", "pgdog-system");
        assert_eq!(names[0], "hook.pgdog-system.svc");
        let pair = authority.issue(&names[0], &names, Purpose::Server).unwrap();
        let certificate = Certificate::default();
        assert!(certificate.current().is_none());
        certificate.renew(&pair).unwrap();
        let before = certificate.current().unwrap();
        let other = authority.issue(&names[0], &names, Purpose::Server).unwrap();
        let mixed = Pair {
            certificate: pair.certificate,
            key: other.key,
        };
        assert!(certificate.renew(&mixed).is_err());
        assert!(Arc::ptr_eq(&before, &certificate.current().unwrap()));
    }
}
