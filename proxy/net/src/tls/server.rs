//! TLS towards clients: we are the server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier,
};

use super::certificate::{Expiry, first_expiry, tls_server_end_point};
use super::engine::{Engine, Session};
use super::stream::{TlsStream, handshake};
use super::{ALPN_POSTGRES, MAX_RECORD, files, provider};
use crate::error::NetError;
use crate::stream::Stream;

/// The protocol spoken inside TLS, offered by ALPN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alpn {
    /// `postgresql`.
    #[default]
    Postgres,
    /// `http/1.1`.
    Http,
}

/// What [`ServerTls::load`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsOptions {
    /// PEM file with our certificate, and the intermediate ones after it.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub private_key: PathBuf,
    /// PEM file with the authorities of client certificates; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Refuse clients without a certificate. Needs `client_ca`.
    pub client_certificate_required: bool,
    /// What the listener speaks.
    pub alpn: Alpn,
}

impl ServerTlsOptions {
    /// Certificate and key, no client certificates.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            private_key: private_key.into(),
            client_ca: None,
            client_certificate_required: false,
            alpn: Alpn::Postgres,
        }
    }
}

/// Everything needed to accept TLS, read once. Immutable and cheap to clone: to reload is to load another.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    end_point: Option<Arc<[u8]>>,
    expiry: Expiry,
}

impl ServerTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`NetError::Pem`] and [`NetError::TlsSetup`], naming the file.
    pub fn load(options: &ServerTlsOptions) -> Result<Self, NetError> {
        let chain = files::certificates(&options.certificate, "certificate")?;
        let key = files::private_key(&options.private_key)?;
        let end_point = chain
            .first()
            .and_then(|leaf| tls_server_end_point(leaf))
            .map(Arc::from);
        let mut expiry = Expiry {
            own: first_expiry(&chain),
            authorities: None,
        };
        let failed = |path: &Path, reason: String| NetError::TlsSetup {
            path: path.to_path_buf(),
            reason,
        };
        let clients = match &options.client_ca {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                let authorities = files::certificates(path, "CA certificate")?;
                expiry.authorities = first_expiry(&authorities);
                let roots = files::root_store(path, &authorities)?;
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let builder = if options.client_certificate_required {
                    builder
                } else {
                    builder.allow_unauthenticated()
                };
                builder
                    .build()
                    .map_err(|error| failed(path, error.to_string()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&options.certificate, error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| failed(&options.private_key, error.to_string()))?;
        config.max_fragment_size = Some(MAX_RECORD);
        config.alpn_protocols = vec![match options.alpn {
            Alpn::Postgres => ALPN_POSTGRES.to_vec(),
            Alpn::Http => b"http/1.1".to_vec(),
        }];
        // No resumption, like Postgres: sessions live long here, and stored tickets cost memory for each of them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            end_point,
            expiry,
        })
    }

    /// When the certificates run out.
    #[must_use]
    pub const fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The `tls-server-end-point` value of our certificate, to check a client's channel binding; `None` when the
    /// certificate does not allow for one, and then SCRAM-SHA-256-PLUS must not be offered.
    #[must_use]
    pub fn channel_binding(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

/// Runs the server's side of a handshake. `preread` are bytes of it already taken from the socket (direct TLS is
/// recognised by its first byte). After an `SSLRequest` it must be empty: bytes that came before TLS are not to be
/// trusted (CVE-2021-23214). Sets no time limit.
///
/// Not cancel safe: a cancelled handshake closes the connection.
///
/// # Errors
/// [`NetError::Handshake`]; the client has been sent an alert where there is one for the case.
pub async fn accept(stream: Stream, tls: &ServerTls, preread: &[u8]) -> Result<Stream, NetError> {
    let peer = stream
        .peer()
        .map_or_else(|_| "client".to_owned(), |peer| peer.to_string());
    let failed = |cause| NetError::Handshake { peer, cause };
    let Ok(socket) = stream.into_socket() else {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the connection is encrypted already",
        )));
    };
    let session = match UnbufferedServerConnection::new(Arc::clone(&tls.config)) {
        Ok(session) => Session::Server {
            connection: session,
            end_point: tls.end_point.clone(),
        },
        Err(error) => return Err(failed(io::Error::other(error))),
    };
    let tls = Box::new(TlsStream::new(socket, Engine::new(session, preread)));
    handshake(tls).await.map(Stream::Tls).map_err(failed)
}
