//! The operator's own certificate authority: it signs the certificates of the proxies' admin API, of the operator as their
//! client, and, where nobody gave one, of the proxies as servers of clients.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// How long the authority itself is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long what it signs is valid.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks differ: certificates are valid from before they were made.
const EARLIER: Duration = Duration::from_secs(300);

/// The Secret with the operator's authority.
const AUTHORITY: &str = "pgdog-operator-ca";

/// A certificate and its key, as PEM.
#[derive(Clone)]
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
            issuer,
        })
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

/// The operator's authority, from its Secret; the first replica makes it.
///
/// # Errors
///
/// When the API server does not answer, or the Secret holds something else.
pub async fn stored(client: &Client, namespace: &str) -> anyhow::Result<Pair> {
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

/// Whether a certificate has to be replaced: a third of its time is left, or it is none, or somebody else signed it.
#[must_use]
pub fn is_due(pem: &str, authority: &str, now: Timestamp) -> bool {
    let signed = || {
        let (_, own) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let (_, by) = x509_parser::pem::parse_x509_pem(authority.as_bytes()).ok()?;
        let (own, by) = (own.parse_x509().ok()?, by.parse_x509().ok()?);
        // The name is the same for each authority of ours; the key is not.
        let key = |c: &x509_parser::certificate::X509Certificate<'_>| {
            use x509_parser::extensions::ParsedExtension;
            c.extensions()
                .iter()
                .find_map(|e| match e.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        id.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    _ => None,
                })
        };
        let subject = by
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                    Some(id.0.to_vec())
                }
                _ => None,
            });
        Some(key(&own)? == subject?)
    };
    match not_after(pem) {
        Some(end) => {
            end.duration_since(now) < (VALIDITY / 3).try_into().unwrap_or_default()
                || signed() != Some(true)
        }
        None => true,
    }
}

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
}
