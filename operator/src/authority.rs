//! The operator's own certificate authority: it signs the certificates of the proxies' admin API, of the operator as their
//! client, and, where nobody gave one, of the proxies as servers of clients.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::authorities::Authorities;

/// How long the authority itself is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long what it signs is valid.
pub const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks differ: certificates are valid from before they were made.
const EARLIER: Duration = Duration::from_secs(300);

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be connected to.
    Server,
    /// To connect.
    Client,
}

/// Signs certificates.
pub struct Authority {
    certificate: String,
    /// It, and those that are trusted besides.
    bundle: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn generate() -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "pgdog-operator authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, AUTHORITY_VALIDITY);
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The one of this certificate and key.
    ///
    /// # Errors
    ///
    /// When they are none.
    pub fn of(pair: &Pair) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(&pair.key).context("read the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key)
            .context("read the authority's certificate")?;
        Ok(Self {
            certificate: pair.certificate.clone(),
            bundle: pair.certificate.clone(),
            issuer,
        })
    }

    /// The one that signs now, with those before and after it.
    ///
    /// # Errors
    ///
    /// When they are none.
    pub fn among(all: &Authorities) -> anyhow::Result<Self> {
        Ok(Self {
            bundle: all.bundle(),
            ..Self::of(&all.signer)?
        })
    }

    /// All certificates that are trusted, its own first.
    #[must_use]
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for a new key.
    ///
    /// # Errors
    ///
    /// Names that cannot stand in a certificate.
    pub fn issue(&self, name: &str, names: &[String], purpose: Purpose) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        limit(&mut params, VALIDITY);
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn limit(params: &mut CertificateParams, validity: Duration) {
    let now = Timestamp::now();
    let at = |time: Timestamp| {
        let day = date_time_ymd(1970, 1, 1);
        day + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    params.not_before = at(now - EARLIER);
    params.not_after = at(now + validity);
}

/// Until when a certificate is valid.
#[must_use]
pub fn not_after(pem: &str) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whether there is a certificate in a file; what else stands in it is nobody's concern.
#[must_use]
pub fn is_certificate(pem: &[u8]) -> bool {
    x509_parser::pem::Pem::iter_from_buffer(pem)
        .flatten()
        .any(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok())
}

/// From when on a certificate is valid.
#[must_use]
pub fn not_before(pem: &str) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()
}

/// Whether a certificate has to be replaced: a third of its time is left, or it is none, or somebody else signed it.
#[must_use]
pub fn is_due(pem: &str, authority: &str, now: Timestamp) -> bool {
    match not_after(pem) {
        Some(end) => {
            end.duration_since(now) < (VALIDITY / 3).try_into().unwrap_or_default()
                || !is_signed_by(pem, authority)
        }
        None => true,
    }
}

/// Whether this authority signed a certificate. The name is the same for each authority of ours; the key is not.
#[must_use]
pub fn is_signed_by(pem: &str, authority: &str) -> bool {
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::ParsedExtension;
    fn id<T>(of: &X509Certificate<'_>, is: fn(&ParsedExtension<'_>) -> Option<T>) -> Option<T> {
        of.extensions()
            .iter()
            .find_map(|e| is(e.parsed_extension()))
    }
    let signed = || {
        let (_, own) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let (_, by) = x509_parser::pem::parse_x509_pem(authority.as_bytes()).ok()?;
        let key = id(&own.parse_x509().ok()?, |e| match e {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        });
        let subject = id(&by.parse_x509().ok()?, |e| match e {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Some(key? == subject?)
    };
    signed() == Some(true)
}

/// The certificates to trust in place of `before`. An authority that nobody can sign with any more (its key is lost) is trusted
/// on, as long as there is nothing else to go by.
#[must_use]
pub fn trusted(bundle: &str, before: &str, leaf: &str, now: Timestamp) -> String {
    let mut trusted = bundle.to_owned();
    let signer = bundle.split_inclusive(END).next().unwrap_or_default();
    if is_signed_by(leaf, signer) {
        return trusted;
    }
    let former = before.split_inclusive(END).map(str::trim);
    for certificate in former
        .filter(|c| c.ends_with(END) && !bundle.contains(*c))
        .take(2)
    {
        if not_after(certificate).is_some_and(|end| end > now) {
            trusted = format!("{}\n{certificate}\n", trusted.trim_end());
        }
    }
    trusted
}

/// The last line of a certificate.
const END: &str = "-----END CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_signs_is_valid_and_due_when_two_thirds_are_over() {
        let pair = Authority::generate().unwrap();
        let authority = Authority::of(&pair).unwrap();
        let issued = authority
            .issue("x", &["a.example".to_owned()], Purpose::Server)
            .unwrap();
        let now = Timestamp::now();
        assert!(!is_due(&issued.certificate, authority.certificate(), now));
        assert!(is_due(
            &issued.certificate,
            authority.certificate(),
            now + VALIDITY * 2 / 3 + EARLIER
        ));
        let other = Authority::generate().unwrap();
        assert!(is_due(&issued.certificate, &other.certificate, now));
        assert!(is_due("", authority.certificate(), now));
    }

    #[test]
    fn an_authority_whose_key_was_lost_is_trusted_until_the_next_renewal() {
        let (old, new) = (
            Authority::generate().unwrap(),
            Authority::generate().unwrap(),
        );
        let leaf = |pair: &Pair| {
            let authority = Authority::of(pair).unwrap();
            let issued = authority.issue("x", &["x".to_owned()], Purpose::Server);
            issued.unwrap().certificate
        };
        let now = Timestamp::now();
        let both = trusted(&new.certificate, &old.certificate, &leaf(&old), now);
        assert!(both.starts_with(new.certificate.trim_end()));
        assert!(both.contains(old.certificate.trim_end()));
        assert_eq!(both.matches("BEGIN").count(), 2);
        assert_eq!(trusted(&new.certificate, &both, &leaf(&old), now), both);
        assert_eq!(
            trusted(&new.certificate, &both, &leaf(&new), now),
            new.certificate
        );
        let later = now + AUTHORITY_VALIDITY + EARLIER;
        assert_eq!(
            trusted(&new.certificate, &both, &leaf(&old), later),
            new.certificate
        );
    }
}
