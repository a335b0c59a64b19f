//! Dialling a server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, UnixStream, lookup_host};
use tokio::time::Instant;

use crate::error::NetError;
use crate::listen::socket_path;
use crate::options::TcpOptions;
use crate::socket::Socket;
use crate::stream::Stream;
use crate::timer::timeout_at;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// Looked up at each dial.
        host: String,
        /// The port.
        port: u16,
    },
    /// The socket file `{dir}/.s.PGSQL.{port}`.
    Unix {
        /// The directory of the file.
        dir: PathBuf,
        /// The port in its name.
        port: u16,
    },
}

impl Address {
    /// A host as Postgres clients read it: a path is the directory of a unix socket.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            Self::Unix {
                dir: host.into(),
                port,
            }
        } else {
            Self::Tcp {
                host: host.to_owned(),
                port,
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => socket_path(dir, *port).display().fmt(f),
        }
    }
}

/// Opens a connection. `timeout` covers the look-up and all addresses of the name, which are tried in the resolver's
/// order; each gets an equal part of the time left, so that one that swallows packets leaves time for the next.
///
/// Cancel safe in that a cancelled dial leaves nothing behind.
///
/// # Errors
/// [`NetError::Resolve`], [`NetError::Connect`], [`NetError::ConnectTimeout`].
pub async fn dial(
    address: &Address,
    timeout: Duration,
    options: &TcpOptions,
) -> Result<Stream, NetError> {
    let deadline = Instant::now() + timeout;
    let expired = || NetError::ConnectTimeout {
        address: address.to_string(),
        timeout,
    };
    match address {
        Address::Unix { dir, port } => {
            // Only blocks while the listener's backlog is full.
            let socket = timeout_at(deadline, UnixStream::connect(socket_path(dir, *port))).await;
            let socket = socket
                .map_err(|_| expired())?
                .map_err(|cause| NetError::Connect {
                    address: address.to_string(),
                    cause,
                })?;
            Ok(Stream::Unix(socket))
        }
        Address::Tcp { host, port } => {
            let resolve = |cause| NetError::Resolve {
                host: host.clone(),
                cause,
            };
            let found = timeout_at(deadline, lookup_host((host.as_str(), *port))).await;
            let addresses: Vec<SocketAddr> =
                found.map_err(|_| expired())?.map_err(resolve)?.collect();
            let mut error = resolve(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
            for (index, candidate) in addresses.iter().enumerate() {
                let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
                let now = Instant::now();
                let until = now + deadline.saturating_duration_since(now) / left;
                error = match timeout_at(until, dial_tcp(*candidate, options)).await {
                    Ok(Ok(socket)) => return Ok(Socket::into(socket)),
                    Ok(Err(cause)) => NetError::Connect {
                        address: describe(address, *candidate),
                        cause,
                    },
                    Err(_) => expired(),
                };
            }
            Err(error)
        }
    }
}

async fn dial_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<Socket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Before the connect, so that the user timeout holds for it too.
    options.apply(&SockRef::from(&socket))?;
    socket.connect(address).await.map(Socket::Tcp)
}

/// The address as written, with the one tried where that says more.
fn describe(address: &Address, candidate: SocketAddr) -> String {
    let written = address.to_string();
    if written == candidate.to_string() {
        written
    } else {
        format!("{written} ({})", candidate.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Address, dial};
    use crate::{NetError, TcpOptions};

    #[tokio::test]
    async fn a_refused_connection_names_address_and_cause() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = Address::new("127.0.0.1", port);
        let error = dial(&address, Duration::from_secs(5), &TcpOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::Connect { .. }));
        let text = error.to_string();
        assert!(
            text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn an_unknown_name_is_a_resolve_error() {
        let address = Address::new("no-such-host.invalid", 5432);
        let error = dial(&address, Duration::from_secs(5), &TcpOptions::default())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("no-such-host.invalid"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_runs_into_the_timeout() {
        // A backlog of zero holds one connection; the next gets no answer to its SYN.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let address = Address::new("127.0.0.1", port);
        let mut held = Vec::new();
        for _ in 0..8 {
            match dial(&address, Duration::from_millis(100), &TcpOptions::default()).await {
                Ok(stream) => held.push(stream),
                Err(error) => {
                    assert!(matches!(error, NetError::ConnectTimeout { .. }), "{error}");
                    return;
                }
            }
        }
        // Some systems take every connection into the backlog: then there is nothing to see here.
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        assert_eq!(Address::new("db", 5432).to_string(), "db:5432");
        assert_eq!(Address::new("::1", 5432).to_string(), "[::1]:5432");
        assert_eq!(
            Address::new("/run/postgresql", 5432).to_string(),
            "/run/postgresql/.s.PGSQL.5432"
        );
    }
}
