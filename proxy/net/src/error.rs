//! What can go wrong before a connection stands; after that, errors are plain [`io::Error`]s.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a socket could not be opened, dialled or made secure. The text names what failed and the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A listening socket could not be opened.
    #[error("listen on {address}: {cause}")]
    Listen {
        /// Address or path of the socket.
        address: String,
        /// What the system said.
        cause: io::Error,
    },

    /// The unix socket file belongs to a process that answers.
    #[error("listen on {}: another process is listening there", path.display())]
    SocketInUse {
        /// The socket file.
        path: PathBuf,
    },

    /// A host name has no address, or the resolver failed.
    #[error("resolve {host}: {cause}")]
    Resolve {
        /// The name as configured.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },

    /// No address of the server took the connection; the cause is that of the last address tried.
    #[error("connect to {address}: {cause}")]
    Connect {
        /// The address as configured, and the one tried where they differ.
        address: String,
        /// What the system said.
        cause: io::Error,
    },

    /// The time to connect ran out.
    #[error("connect to {address}: no answer within {timeout:?}")]
    ConnectTimeout {
        /// The address as configured.
        address: String,
        /// The time that was given.
        timeout: Duration,
    },

    /// A PEM file cannot be read, or does not hold what it should.
    #[error("read {what} from {}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for, for example `certificate`.
        what: &'static str,
        /// Why it was not found.
        reason: String,
    },

    /// Certificate and key were read, and cannot be used.
    #[error("set up TLS with {}: {reason}", path.display())]
    TlsSetup {
        /// The file most likely at fault.
        path: PathBuf,
        /// What the TLS library said.
        reason: String,
    },

    /// Certificates are to be verified, and nothing says which authorities to trust.
    #[error(
        "verify server certificates: no CA file is set and the system has no certificate bundle"
    )]
    NoTrustedRoots,

    /// The TLS handshake failed.
    #[error("TLS handshake with {peer}: {cause}")]
    Handshake {
        /// The other side.
        peer: String,
        /// What the TLS library or the socket said.
        cause: io::Error,
    },

    /// The server's certificate is not accepted.
    #[error("TLS handshake with {peer}: {reason}")]
    Certificate {
        /// The server.
        peer: String,
        /// What is wrong with the certificate, and what to do.
        reason: String,
    },

    /// The host name to verify is neither a DNS name nor an IP address.
    #[error("verify the certificate of {host:?}: not a DNS name or an IP address")]
    HostName {
        /// The name as configured.
        host: String,
    },

    /// A socket could not leave or join a runtime.
    #[error("move socket to another worker: {cause}")]
    Migrate {
        /// What the system said.
        cause: io::Error,
    },
}
