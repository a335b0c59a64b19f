//! TLS both ways, over rustls with its ring provider.
//!
//! The parts: `engine` turns ciphertext into plaintext and back without IO; `stream` puts it on a socket; `server` and
//! `client` read certificates and run handshakes; `verify` decides whom to trust, `explain` tells why not; `certificate` looks into X.509.

mod certificate;
mod client;
mod engine;
mod explain;
mod files;
mod server;
mod stream;
mod verify;

pub use certificate::{Expiry, PeerIdentity, tls_server_end_point};
pub use client::{ClientTls, ClientTlsOptions, TlsVerify, connect};
pub use server::{Alpn, ServerTls, ServerTlsOptions, accept};
pub use stream::TlsStream;

pub(crate) use stream::DetachedTls;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The protocol name that Postgres registered, required for direct TLS.
const ALPN_POSTGRES: &[u8] = b"postgresql";

/// Largest TLS record written. libpq asks the socket whether there is more to read, not OpenSSL: of a record larger
/// than its 8 KiB read, an asynchronous client would leave the rest unread until the next byte arrives.
const MAX_RECORD: usize = 8192;

/// The one set of algorithms used; the process-wide default is never looked at.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
