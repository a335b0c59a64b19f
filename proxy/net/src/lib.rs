//! Sockets: TCP and unix, plain and TLS, as a server for clients and as a client of Postgres.
//!
//! This crate moves bytes and knows nothing of the Postgres protocol but two names: the unix socket file
//! `.s.PGSQL.<port>` and the ALPN protocol `postgresql`. It takes plain values (paths, durations), never the
//! configuration. All types are `Send`, and a [`Stream`] can change its runtime ([`Stream::detach`]).

#![forbid(unsafe_code)]

mod connect;
mod drain;
mod error;
mod listen;
pub mod machine;
mod options;
mod script;
mod socket;
mod stream;
pub mod timer;
mod tls;

pub use connect::{Address, dial};
pub use drain::{Drain, DrainGuard, DrainTrigger};
pub use error::NetError;
pub use listen::{Accepted, Listener};
pub use options::TcpOptions;
pub use script::{Part, Script};
pub use socket::Peer;
pub use stream::{Detached, Stream};
pub use tls::{
    Alpn, ClientTls, ClientTlsOptions, Expiry, PeerIdentity, ServerTls, ServerTlsOptions,
    TlsStream, TlsVerify, accept, connect, tls_server_end_point,
};
