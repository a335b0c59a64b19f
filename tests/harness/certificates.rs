//! A certificate authority for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::scratch::Scratch;

/// Signs certificates; its files vanish with it.
#[derive(Debug)]
pub struct Authority {
    scratch: Scratch,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key, readable for its owner only.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    #[expect(clippy::new_without_default, reason = "making one writes files")]
    pub fn new() -> Self {
        let scratch = Scratch::new("authority");
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine names");
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate for itself");
        fs::write(scratch.path().join("ca.crt"), certificate.pem())
            .expect("the scratch directory is writable");
        Self {
            scratch,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.scratch.path().join("ca.crt")
    }

    /// A certificate with this common name and these alternative names (DNS names or addresses).
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are plain");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the authority signs");
        let path = |extension: &str| {
            self.scratch
                .path()
                .join(format!("{common_name}.{extension}"))
        };
        let pair = Pair {
            certificate: path("crt"),
            key: path("key"),
        };
        fs::write(&pair.certificate, certificate.pem()).expect("the scratch directory is writable");
        fs::write(&pair.key, key.serialize_pem()).expect("the scratch directory is writable");
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600))
            .expect("the file is ours");
        pair
    }
}

impl Pair {
    /// Puts copies in place of other files, as a renewal does.
    pub fn install(&self, certificate: &Path, key: &Path) {
        fs::copy(&self.certificate, certificate).expect("the certificate can be replaced");
        fs::copy(&self.key, key).expect("the key can be replaced");
    }
}
