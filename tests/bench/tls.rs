//! One certificate for all proxies, and a client configuration that trusts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};

/// Files for the servers, a configuration for the clients.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client: Arc<ClientConfig>,
}

impl Tls {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let mut authority =
            CertificateParams::new(Vec::new()).context("make a certificate authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().context("make a certificate authority")?;
        let root = authority
            .self_signed(&authority_key)
            .context("make a certificate authority")?;
        let issuer = Issuer::new(authority, authority_key);

        let server_key = KeyPair::generate().context("make a certificate")?;
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
            .context("make a certificate")?;
        let server = params
            .signed_by(&server_key, &issuer)
            .context("make a certificate")?;

        let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
        fs::write(&certificate, server.pem()).context("write the certificate")?;
        // Readable by all on purpose: proxies run as different users, and the key lives as long as the bench.
        fs::write(&key, server_key.serialize_pem()).context("write the key")?;

        let mut roots = RootCertStore::empty();
        roots
            .add(root.der().clone())
            .context("trust the certificate")?;
        let client =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .context("configure TLS")?
                .with_root_certificates(roots)
                .with_no_client_auth();
        Ok(Self {
            certificate,
            key,
            client: Arc::new(client),
        })
    }
}
