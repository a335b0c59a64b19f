//! Why a server's certificate is not accepted, and what to do, in words for people who run servers.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};
use rustls_pki_types::UnixTime;
use x509_parser::time::ASN1Time;

/// A certificate that is marked as an authority, and not one of those that were handed over.
#[derive(Debug)]
struct MarkedAsAuthority;

impl fmt::Display for MarkedAsAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is marked as an authority")
    }
}

impl StdError for MarkedAsAuthority {}

/// The complaint about a server that shows an authority's certificate.
pub(super) fn marked_as_authority() -> Error {
    CertificateError::Other(OtherError(Arc::new(MarkedAsAuthority))).into()
}

/// What a failed handshake says of the server's certificate; `None` where it failed for another reason. `ca` is the file
/// with the authorities to trust; without it they are those of the system.
pub(super) fn explain(cause: &io::Error, ca: Option<&Path>) -> Option<String> {
    let error = cause.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(error) = error else {
        return None;
    };
    let authorities = ca.map_or_else(
        || "the system's CA bundle; tls_server_ca_certificate names another".to_owned(),
        |path| format!("tls_server_ca_certificate ({})", path.display()),
    );
    Some(match error {
        CertificateError::UnknownIssuer => {
            format!("the server's certificate is not signed by a CA in {authorities}")
        }
        CertificateError::BadSignature => format!(
            "the server's certificate is not signed by a CA in {authorities}: one there has its issuer's name, but another \
             key"
        ),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate expired on {}; now it is {}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is not valid before {}; now it is {}",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the server's certificate is for {}, and not for {}; connect to it by a name of the certificate, \
             or have tls_verify = \"verify_ca\", which does not look at names",
            names(presented),
            expected.to_str()
        ),
        CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not one for servers (its extended key usage lacks serverAuth)"
                .to_owned()
        }
        CertificateError::Other(OtherError(other)) if other.is::<MarkedAsAuthority>() => format!(
            "the server's certificate is marked as a CA (CA:TRUE, as `openssl req -x509` makes them), which only a \
             certificate that is itself in the CA file may be; add it to {authorities}, or give the server one that a CA \
             there has signed"
        ),
        other => format!("the server's certificate is not accepted: {other}"),
    })
}

/// `DnsName("db.example")` → `db.example`, and all of them with commas.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.map_or_else(|| name.clone(), |inner| inner.trim_matches('"').to_owned())
    };
    if presented.is_empty() {
        return "no host by its alternative names".to_owned();
    }
    presented.iter().map(plain).collect::<Vec<_>>().join(", ")
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(seconds)
        .map_or_else(|_| format!("{seconds} s after 1970"), |t| t.to_string())
}
