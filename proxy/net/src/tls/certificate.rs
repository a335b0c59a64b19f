//! What is asked of a certificate: who it is, and its hash for channel binding.

use std::fmt::Write as _;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::X509Name;

const SHA1: Oid<'static> = oid!(1.3.14.3.2.26);
const SHA224: Oid<'static> = oid!(2.16.840.1.101.3.4.2.4);
const SHA256: Oid<'static> = oid!(2.16.840.1.101.3.4.2.1);
const SHA384: Oid<'static> = oid!(2.16.840.1.101.3.4.2.2);
const SHA512: Oid<'static> = oid!(2.16.840.1.101.3.4.2.3);

const MD5_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.4);
const SHA1_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.5);
const SHA256_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.11);
const SHA384_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.12);
const SHA512_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.13);
const SHA224_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.14);
const SHA1_ECDSA: Oid<'static> = oid!(1.2.840.10045.4.1);
const SHA224_ECDSA: Oid<'static> = oid!(1.2.840.10045.4.3.1);
const SHA256_ECDSA: Oid<'static> = oid!(1.2.840.10045.4.3.2);
const SHA384_ECDSA: Oid<'static> = oid!(1.2.840.10045.4.3.3);
const SHA512_ECDSA: Oid<'static> = oid!(1.2.840.10045.4.3.4);

/// The names in a peer's certificate. The certificate was verified against the configured authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The subject's common name; the most specific one where there are several.
    pub common_name: Option<String>,
    /// The subject's distinguished name as RFC 2253 writes it; `None` where it has a part without a known short name.
    pub distinguished_name: Option<String>,
    /// Subject alternative names of type DNS, in order.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type URI (SPIFFE ids, for one), in order.
    pub uris: Vec<String>,
    /// Whether there is any subject alternative name of any type.
    pub has_alternative_names: bool,
}

impl PeerIdentity {
    /// Reads the names of a DER certificate; `None` when it cannot be parsed.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let mut identity = Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .map(Into::into),
            distinguished_name: distinguished_name(certificate.subject()),
            ..Self::default()
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                identity.has_alternative_names = true;
                match name {
                    GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
                    GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                    _ => {}
                }
            }
        }
        Some(identity)
    }

    /// Whether it is a user's `identity`: one of the DNS names, or the common name.
    #[must_use]
    pub fn is(&self, identity: &str) -> bool {
        let mut names = self.dns_names.iter().chain(&self.common_name);
        names.any(|name| name == identity)
    }
}

/// The name as OpenSSL prints it with `-nameopt RFC2253`, and PostgreSQL with it: the last part comes first.
fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let parts: Vec<Vec<_>> = name.iter().map(|part| part.iter().collect()).collect();
    let mut text = String::new();
    for part in parts.iter().rev() {
        for (index, attribute) in part.iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            text.push_str(short_name(&attribute.attr_type().to_id_string())?);
            text.push('=');
            escape(&mut text, attribute.as_str().ok()?);
        }
    }
    (!text.is_empty()).then_some(text)
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// A value, so that none of its signs is taken for one between values.
fn escape(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', byte as char]),
            b' ' if index == 0 || index == last => text.push_str("\\ "),
            b'#' if index == 0 => text.push_str("\\#"),
            0x20..0x7f => text.push(byte as char),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

/// The `tls-server-end-point` hash of a server's certificate (RFC 5929, section 4.1): the hash of its signature, but
/// SHA-256 in place of MD5 and SHA-1. `None` where the signature has no such hash (Ed25519), as in Postgres.
#[must_use]
pub fn tls_server_end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let algorithm = &certificate.signature_algorithm;
    let parsed = SignatureAlgorithm::try_from(algorithm);
    let oid = match &parsed {
        Ok(SignatureAlgorithm::RSASSA_PSS(params)) => params.hash_algorithm_oid(),
        _ => &algorithm.algorithm,
    };
    if [
        SHA1,
        SHA256,
        MD5_RSA,
        SHA1_RSA,
        SHA256_RSA,
        SHA1_ECDSA,
        SHA256_ECDSA,
    ]
    .contains(oid)
    {
        Some(Sha256::digest(der).to_vec())
    } else if [SHA384, SHA384_RSA, SHA384_ECDSA].contains(oid) {
        Some(Sha384::digest(der).to_vec())
    } else if [SHA512, SHA512_RSA, SHA512_ECDSA].contains(oid) {
        Some(Sha512::digest(der).to_vec())
    } else if [SHA224, SHA224_RSA, SHA224_ECDSA].contains(oid) {
        Some(Sha224::digest(der).to_vec())
    } else {
        None
    }
}

/// When certificates that were loaded run out, seconds since 1970; where there are several, the first of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Our own certificate and those between it and its authority.
    pub own: Option<i64>,
    /// The authorities of the other side, where they were named and are not the system's.
    pub authorities: Option<i64>,
}

/// When the first of some certificates runs out.
pub(super) fn first_expiry(certificates: &[CertificateDer<'_>]) -> Option<i64> {
    let ends = certificates.iter().filter_map(|der| dates(der));
    ends.map(|(_, end)| end).min()
}

/// The dates between which the certificate is valid, in seconds since 1970.
pub(super) fn dates(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// Whether the certificate is marked as one of an authority.
pub(super) fn is_authority(der: &[u8]) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn of(parts: &[(DnType, &str)]) -> PeerIdentity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerIdentity::from_der(certificate.der()).unwrap()
    }

    #[test]
    fn a_distinguished_name_is_written_as_openssl_writes_it() {
        let identity = of(&[
            (DnType::CountryName, "SE"),
            (DnType::OrganizationName, "A, B + C; \"D\" <E> \\"),
            (DnType::OrganizationalUnitName, " #1 "),
            (DnType::CommonName, "#j\u{f6}rg = x "),
        ]);
        assert_eq!(
            identity.distinguished_name.as_deref(),
            Some(r#"CN=\#j\C3\B6rg = x\ ,OU=\ #1\ ,O=A\, B \+ C\; \"D\" \<E\> \\,C=SE"#)
        );
        assert_eq!(identity.common_name.as_deref(), Some("#j\u{f6}rg = x "));
    }

    #[test]
    fn a_name_with_an_unknown_part_is_none() {
        let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
        let identity = of(&[(DnType::CommonName, "x"), (unknown, "y")]);
        assert_eq!(identity.distinguished_name, None);
        assert_eq!(identity.common_name.as_deref(), Some("x"));
    }
}
