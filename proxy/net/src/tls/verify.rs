//! Whom to trust as a server: three verifiers in one, after libpq's `sslmode`.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{PeerIdentity, dates, is_authority};
use super::explain::marked_as_authority;

/// What of a server's certificate is checked. That the server owns the certificate's key is checked always, as far as the
/// certificate can be read.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nothing: encryption without authentication, libpq's `require`.
    Anyone,
    /// The chain (`verify-ca`), and the host name too where `name` is set (`verify-full`).
    Chain {
        verifier: Arc<WebPkiServerVerifier>,
        roots: Vec<CertificateDer<'static>>,
        name: bool,
    },
}

/// The verifier handed to rustls.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (verifier, roots, name) = match &self.trust {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::Chain {
                verifier,
                roots,
                name,
            } => (verifier, roots, *name),
        };
        // Postgres' own instructions make a self-signed certificate that is marked as an authority, and hand it to
        // clients as root.crt. WebPKI refuses an authority as a server; OpenSSL, and so libpq, does not.
        let chain = if roots
            .iter()
            .any(|root| root.as_ref() == end_entity.as_ref())
        {
            pinned(end_entity, server_name, now)
        } else {
            verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_| ())
        };
        match chain {
            // Both verifiers look at the name last, so a complaint about it means that the chain is good.
            Err(error) if is_name_error(&error) => {
                if name && !common_name_matches(end_entity, server_name) {
                    return Err(error);
                }
            }
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if is_authority(end_entity) =>
            {
                return Err(marked_as_authority());
            }
            other => other?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.unless_odd(verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.algorithms,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.unless_odd(verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.algorithms,
        ))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Verifier {
    /// A certificate that cannot be read, such as one of version 1, says nothing of who signed. Where anyone is trusted that makes
    /// no difference: anyone can make a certificate.
    fn unless_odd(
        &self,
        signature: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match (&self.trust, signature) {
            (Trust::Anyone, Err(Error::InvalidCertificate(CertificateError::Other(_)))) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            (_, signature) => signature,
        }
    }
}

/// The certificate is itself among the roots: no chain to build, only dates and the name.
fn pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (from, until) = dates(certificate).ok_or(CertificateError::BadEncoding)?;
    let at = |seconds| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    if seconds < from {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before: at(from),
        }
        .into());
    }
    if seconds > until {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after: at(until),
        }
        .into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

fn is_name_error(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

/// As libpq does: the common name counts, but only where there are no alternative names.
fn common_name_matches(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    PeerIdentity::from_der(certificate).is_some_and(|identity| {
        !identity.has_alternative_names
            && identity
                .common_name
                .is_some_and(|common| common.eq_ignore_ascii_case(&name.to_str()))
    })
}
