//! Certificates and keys from PEM files.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::NetError;

/// Where distributions keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// All certificates of a file, at least one.
pub(super) fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let failed = |error| pem_error(path, what, error);
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if found.is_empty() {
        return Err(pem_error(path, what, pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// The first private key of a file (PKCS#8, PKCS#1 or SEC1).
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(path, "private key", error))
}

/// The authorities the system trusts; `SSL_CERT_FILE` names another bundle, as it does for OpenSSL.
pub(super) fn system_roots() -> Result<Vec<CertificateDer<'static>>, NetError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_BUNDLES.iter().map(PathBuf::from);
    let path = named
        .into_iter()
        .chain(known)
        .find(|path| path.exists())
        .ok_or(NetError::NoTrustedRoots)?;
    certificates(&path, "CA certificate")
}

/// Puts certificates into a store. One bad certificate in a file of authorities is an error: it would be missed only
/// much later, by the client or server it was meant for.
pub(super) fn root_store(
    path: &Path,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, NetError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store
            .add(certificate.clone())
            .map_err(|error| NetError::TlsSetup {
                path: path.to_path_buf(),
                reason: error.to_string(),
            })?;
    }
    Ok(store)
}

fn pem_error(path: &Path, what: &'static str, error: pem::Error) -> NetError {
    let reason = match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "no such file".to_owned()
        }
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("the file holds no {what} in PEM form"),
        other => other.to_string(),
    };
    NetError::Pem {
        path: path.to_path_buf(),
        what,
        reason,
    }
}
