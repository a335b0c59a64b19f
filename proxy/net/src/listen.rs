//! Listening sockets, and the accept that never gives up.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::error::NetError;
use crate::options::TcpOptions;
use crate::socket::{IdleSocket, Peer};
use crate::stream::Detached;

/// Pause after an accept that failed for want of descriptors or memory: the connection stays in the backlog, so
/// trying again at once would only burn a CPU.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Linux gives accepted sockets the options of the listening one: set once, not with some system calls for each client.
const INHERITED: bool = cfg!(target_os = "linux");

/// A listening socket of either kind, registered with the runtime it was made on.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp {
        socket: TcpListener,
        options: TcpOptions,
        address: SocketAddr,
    },
    Unix {
        socket: UnixListener,
        file: SocketFile,
    },
}

/// An accepted connection, not yet registered anywhere: [`Detached::attach`] it on the worker that serves it.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: Detached,
    /// The client.
    pub peer: Peer,
}

impl Listener {
    /// Listens on a TCP address; port 0 takes a free port, see [`Listener::port`]. `options` are applied to each
    /// accepted socket.
    ///
    /// # Errors
    /// [`NetError::Listen`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO enabled.
    pub fn tcp(address: SocketAddr, backlog: i32, options: TcpOptions) -> Result<Self, NetError> {
        let open = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::from(address))?;
            if INHERITED {
                options.apply(&SockRef::from(&socket))?;
            }
            socket.listen(backlog)?;
            let socket = std::net::TcpListener::from(socket);
            let address = socket.local_addr()?;
            let socket = TcpListener::from_std(socket)?;
            Ok(Self(Kind::Tcp {
                socket,
                options,
                address,
            }))
        };
        open().map_err(|cause| NetError::Listen {
            address: address.to_string(),
            cause,
        })
    }

    /// Listens on `{dir}/.s.PGSQL.{port}`, where Postgres clients look. A file left by a process that died is
    /// replaced; the file is removed when the listener is dropped. `mode` is that of the file, for example `0o777`.
    ///
    /// Two processes that start at the same moment on the same path are not told apart.
    ///
    /// # Errors
    /// [`NetError::SocketInUse`], [`NetError::Listen`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO enabled.
    pub fn unix(dir: &Path, port: u16, mode: u32, backlog: i32) -> Result<Self, NetError> {
        let path = socket_path(dir, port);
        let failed = |cause| NetError::Listen {
            address: path.display().to_string(),
            cause,
        };
        match answers(&path) {
            Ok(true) => return Err(NetError::SocketInUse { path }),
            Ok(false) => std::fs::remove_file(&path).map_err(failed)?,
            // Bind says better what is wrong.
            Err(_) => {}
        }
        let open = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(&path)?)?;
            let file = SocketFile::own(path.clone())?;
            // Before listening, so that nobody gets in by the default mode.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            socket.listen(backlog)?;
            let socket = UnixListener::from_std(StdUnixListener::from(socket))?;
            Ok(Self(Kind::Unix { socket, file }))
        };
        open().map_err(failed)
    }

    /// Takes the next connection. Errors do not end it: those of one connection are skipped, a shortage of
    /// descriptors or memory is logged and waited out. Cancel safe.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_connection_error(&error) => {
                    tracing::debug!("client went away before it was accepted: {error}");
                }
                Err(error) => {
                    tracing::warn!("failed to accept on {}: {error}", self.description());
                    crate::timer::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// The TCP port listened on; none for a unix socket.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match &self.0 {
            Kind::Tcp { address, .. } => Some(address.port()),
            Kind::Unix { .. } => None,
        }
    }

    /// The address or path, for logs.
    #[must_use]
    pub fn description(&self) -> String {
        match &self.0 {
            Kind::Tcp { address, .. } => address.to_string(),
            Kind::Unix { file, .. } => file.path.display().to_string(),
        }
    }

    async fn try_accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Tcp {
                socket, options, ..
            } => {
                let (stream, address) = socket.accept().await?;
                // Fails when the client is gone already; its first read will tell.
                if !INHERITED && let Err(error) = options.apply(&SockRef::from(&stream)) {
                    tracing::debug!("failed to set TCP options for {address}: {error}");
                }
                Ok(Accepted {
                    stream: Detached::plain(IdleSocket::Tcp(stream.into_std()?)),
                    peer: Peer::Tcp(address),
                })
            }
            Kind::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                Ok(Accepted {
                    stream: Detached::plain(IdleSocket::Unix(stream.into_std()?)),
                    peer: Peer::Unix,
                })
            }
        }
    }
}

/// The socket file of a Postgres server.
pub(crate) fn socket_path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

/// Whether somebody listens on a socket file; an error when there is none.
fn answers(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        // The listener's backlog is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the error belongs to one connection that came and went, so that the next may be taken at once.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A socket file that we made, removed on drop unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn own(path: PathBuf) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(&path)?;
        Ok(Self {
            inode: (metadata.dev(), metadata.ino()),
            path,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let current =
            std::fs::symlink_metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if current.is_ok_and(|inode| inode == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("failed to remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Listener, TcpOptions, socket_path};
    use crate::connect::{Address, dial};
    use crate::{NetError, Peer};

    fn fresh_dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("pgdog-net-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_ours_removed() {
        let dir = fresh_dir("stale");
        let path = socket_path(&dir, 6432);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(
            path.exists(),
            "std leaves the file behind, as a killed process does"
        );

        let listener = Listener::unix(&dir, 6432, 0o770, 16).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o770
        );
        let address = Address::Unix {
            dir: dir.clone(),
            port: 6432,
        };
        let mut client = dial(
            &address,
            std::time::Duration::from_secs(5),
            &TcpOptions::default(),
        )
        .await
        .unwrap();
        let accepted = listener.accept().await;
        assert_eq!(accepted.peer, Peer::Unix);
        client.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        accepted
            .stream
            .attach()
            .unwrap()
            .read_exact(&mut buf)
            .await
            .unwrap();
        assert_eq!(&buf, b"hello");

        drop(listener);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_socket_file_in_use_is_left_alone() {
        let dir = fresh_dir("used");
        let first = Listener::unix(&dir, 6432, 0o777, 16).unwrap();
        assert!(matches!(
            Listener::unix(&dir, 6432, 0o777, 16),
            Err(NetError::SocketInUse { .. })
        ));
        let path = socket_path(&dir, 6432);
        assert!(path.exists());

        // A successor has taken the path: the old listener must not remove its file.
        std::fs::remove_file(&path).unwrap();
        let second = Listener::unix(&dir, 6432, 0o777, 16).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_plain_file_in_the_way_is_an_error_that_names_it() {
        let dir = fresh_dir("file");
        std::fs::write(socket_path(&dir, 6432), "not a socket").unwrap();
        let error = Listener::unix(&dir, 6432, 0o777, 16)
            .unwrap_err()
            .to_string();
        assert!(error.contains(".s.PGSQL.6432"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn accepted_tcp_sockets_carry_the_options() {
        let options = TcpOptions {
            time: Some(std::time::Duration::from_secs(33)),
            retries: Some(4),
            user_timeout: Some(std::time::Duration::from_secs(12)),
            ..TcpOptions::default()
        };
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, options).unwrap();
        let address = Address::Tcp {
            host: "localhost".into(),
            port: listener.port().unwrap(),
        };
        let client = dial(&address, std::time::Duration::from_secs(5), &options)
            .await
            .unwrap();
        let accepted = listener.accept().await;
        for stream in [client, accepted.stream.attach().unwrap()] {
            let crate::Stream::Tcp(tcp) = &stream else {
                panic!("a plain stream")
            };
            let socket = socket2::SockRef::from(tcp);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 33);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap().unwrap().as_secs(), 12);
        }
    }
}
