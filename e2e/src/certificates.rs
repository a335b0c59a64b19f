//! Certificates of all kinds, and TLS to clients.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use pgdog_operator::authority::{Authority, Pair};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate of a client that was good for a day, in the year 2020.
pub(crate) fn expired(authority: &Pair, name: &str) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 2);
    let key = KeyPair::generate()?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    Ok(Pair {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A server's certificate of an authority of its own, which comes with it.
pub(crate) fn server(name: &str) -> anyhow::Result<(Pair, String)> {
    let authority = Authority::of(&Authority::generate()?)?;
    let purpose = pgdog_operator::authority::Purpose::Server;
    let pair = authority.issue(name, &[name.to_owned()], purpose)?;
    Ok((pair, authority.certificate().to_owned()))
}

/// The serial number of a certificate.
pub(crate) fn serial(pem: &str) -> anyhow::Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    Ok(pem.parse_x509()?.raw_serial_as_string())
}

/// A client over TLS, and the serial number of the certificate that it was shown.
pub(crate) async fn connect(
    address: &(String, u16),
    config: &Config,
) -> anyhow::Result<(Client, String)> {
    let connecting = async {
        let mut stream = TcpStream::connect((address.0.as_str(), address.1)).await?;
        // SSLRequest: its length, and the number that says so.
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        ensure!(stream.read_u8().await? == b'S', "TLS is refused");
        let stream = encrypted(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.and_then(<[_]>::first).context("no certificate")?;
        let (_, shown) = x509_parser::parse_x509_certificate(shown)?;
        let serial = shown.raw_serial_as_string();
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        tokio::spawn(async move {
            // Who asks next sees that it is closed.
            let _ = connection.await;
        });
        Ok((client, serial))
    };
    tokio::time::timeout(Duration::from_secs(10), connecting).await?
}

/// A connection over TLS without a certificate of one's own.
pub(crate) async fn plain_tls(address: &(String, u16)) -> anyhow::Result<TlsStream<TcpStream>> {
    encrypted(TcpStream::connect((address.0.as_str(), address.1)).await?).await
}

async fn encrypted(stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("shop")?;
    let connector = TlsConnector::from(Arc::new(tls));
    Ok(connector.connect(name, stream).await?)
}

/// Believes everybody: only what is shown is looked at.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
