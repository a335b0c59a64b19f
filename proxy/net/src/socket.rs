//! The two kinds of plain sockets behind one face.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The other end of a connection, for logs and `SHOW CLIENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A connected socket, registered with the runtime it was made on.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connected socket that no runtime knows of.
#[derive(Debug)]
pub(crate) enum IdleSocket {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

impl Socket {
    /// Tokio's own `poll_read` is used on purpose: it takes a short read for "empty" and so saves the `recv` that
    /// would only answer `EAGAIN`.
    pub(crate) fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(dst);
        let polled = match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    pub(crate) fn poll_write_slice(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, src),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, src),
        }
    }

    /// Writes what fits now, without asking to be woken.
    pub(crate) fn try_write(&self, src: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(src),
            Self::Unix(socket) => socket.try_write(src),
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }

    pub(crate) fn peer(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().map(Peer::Tcp),
            Self::Unix(_) => Ok(Peer::Unix),
        }
    }

    pub(crate) fn detach(self) -> io::Result<IdleSocket> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(IdleSocket::Tcp),
            Self::Unix(socket) => socket.into_std().map(IdleSocket::Unix),
        }
    }
}

impl IdleSocket {
    /// Registers with the runtime of the caller. Nothing that arrived meanwhile is missed: registering reports what
    /// the socket is ready for already.
    pub(crate) fn attach(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket) => TcpStream::from_std(socket).map(Socket::Tcp),
            Self::Unix(socket) => UnixStream::from_std(socket).map(Socket::Unix),
        }
    }
}
