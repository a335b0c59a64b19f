//! TLS towards Postgres: we are the client.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls_pki_types::{IpAddr, ServerName};

use super::certificate::{Expiry, first_expiry};
use super::engine::{Engine, Session};
use super::explain::explain;
use super::stream::{TlsStream, handshake};
use super::verify::{Trust, Verifier};
use super::{ALPN_POSTGRES, MAX_RECORD, files, provider};
use crate::error::NetError;
use crate::stream::Stream;

/// How TLS is used towards a server, and what of its certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// Never TLS.
    Disabled,
    /// TLS where the server has it, with any certificate.
    #[default]
    Prefer,
    /// TLS always, with a certificate of a known authority.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host dialled.
    VerifyFull,
}

impl TlsVerify {
    /// Whether a server that has no TLS must be refused.
    #[must_use]
    pub const fn is_required(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// What [`ClientTls::load`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTlsOptions {
    /// What is checked.
    pub verify: TlsVerify,
    /// PEM file with the authorities to trust; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files with our own certificate and its key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Everything needed to open TLS, read once. Immutable and cheap to clone: to reload is to load another.
#[derive(Debug, Clone)]
pub struct ClientTls {
    verify: TlsVerify,
    /// The file with the authorities to trust, for words about certificates.
    ca: Option<Arc<Path>>,
    config: Arc<ClientConfig>,
    expiry: Expiry,
}

impl ClientTls {
    /// Reads and checks the files; `None` when TLS is disabled.
    ///
    /// # Errors
    /// [`NetError::Pem`] and [`NetError::TlsSetup`], naming the file; [`NetError::NoTrustedRoots`].
    pub fn load(options: &ClientTlsOptions) -> Result<Option<Self>, NetError> {
        let trust = match options.verify {
            TlsVerify::Disabled => return Ok(None),
            TlsVerify::Prefer => Trust::Anyone,
            TlsVerify::VerifyCa => chain(options.ca.as_deref(), false)?,
            TlsVerify::VerifyFull => chain(options.ca.as_deref(), true)?,
        };
        let mut expiry = Expiry::default();
        if let Trust::Chain { roots, .. } = &trust {
            expiry.authorities = first_expiry(roots);
        }
        let provider = provider();
        let verifier = Verifier {
            trust,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup_error(Path::new("the built-in algorithms"), &error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = files::certificates(certificate, "certificate")?;
                expiry.own = first_expiry(&chain);
                builder
                    .with_client_auth_cert(chain, files::private_key(key)?)
                    .map_err(|error| setup_error(key, &error))?
            }
        };
        config.max_fragment_size = Some(MAX_RECORD);
        config.alpn_protocols = vec![ALPN_POSTGRES.to_vec()];
        // Postgres gives no tickets.
        config.resumption = Resumption::disabled();
        Ok(Some(Self {
            verify: options.verify,
            ca: options.ca.as_deref().map(Arc::from),
            config: Arc::new(config),
            expiry,
        }))
    }

    /// When the certificates run out.
    #[must_use]
    pub const fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// What is checked.
    #[must_use]
    pub const fn verify(&self) -> TlsVerify {
        self.verify
    }
}

/// Runs the client's side of a handshake with `host`, which is a DNS name or an IP address. Call it after the server
/// has answered `S`, with nothing read beyond that byte. Sets no time limit.
///
/// With TLS 1.3 a server that refuses our certificate says so only after the handshake: the first read fails then.
///
/// Not cancel safe: a cancelled handshake closes the connection.
///
/// # Errors
/// [`NetError::Handshake`], [`NetError::Certificate`], [`NetError::HostName`].
pub async fn connect(stream: Stream, tls: &ClientTls, host: &str) -> Result<Stream, NetError> {
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) if tls.verify == TlsVerify::VerifyFull => {
            return Err(NetError::HostName {
                host: host.to_owned(),
            });
        }
        // The name is not looked at, and an address is not sent to the server as SNI.
        Err(_) => ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from([0, 0, 0, 0]))),
    };
    let failed = |cause| match explain(&cause, tls.ca.as_deref()) {
        Some(reason) => NetError::Certificate {
            peer: host.to_owned(),
            reason,
        },
        None => NetError::Handshake {
            peer: host.to_owned(),
            cause,
        },
    };
    let Ok(socket) = stream.into_socket() else {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the connection is encrypted already",
        )));
    };
    let connection = UnbufferedClientConnection::new(Arc::clone(&tls.config), name)
        .map_err(|error| failed(io::Error::other(error)))?;
    let tls = Box::new(TlsStream::new(
        socket,
        Engine::new(Session::Client { connection }, &[]),
    ));
    handshake(tls).await.map(Stream::Tls).map_err(failed)
}

fn chain(ca: Option<&Path>, name: bool) -> Result<Trust, NetError> {
    let (path, roots) = match ca {
        Some(path) => (path, files::certificates(path, "CA certificate")?),
        None => (Path::new("the system's CA bundle"), files::system_roots()?),
    };
    // Bundles of distributions are taken as they are: one odd authority in them concerns nobody here.
    let store = if ca.is_some() {
        files::root_store(path, &roots)?
    } else {
        let mut store = rustls::RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        store
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| NetError::TlsSetup {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
    // Only certificates the user handed over can be pinned.
    let roots = if ca.is_some() { roots } else { Vec::new() };
    Ok(Trust::Chain {
        verifier,
        roots,
        name,
    })
}

fn setup_error(path: &Path, error: &rustls::Error) -> NetError {
    NetError::TlsSetup {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}
