//! One connection, plain or TLS, TCP or unix; or none, for what is said from a script.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::error::NetError;
use crate::script::Script;
use crate::socket::{IdleSocket, Peer, Socket};
use crate::tls::{DetachedTls, PeerIdentity, TlsStream};

/// A connection to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// A unix socket in the clear.
    Unix(UnixStream),
    /// TLS over either, as client or as server.
    Tls(Box<TlsStream>),
    /// No connection at all.
    Script(Box<Script>),
}

/// A [`Stream`] on its way between two runtimes. Made by [`Stream::detach`] and by accepting.
#[derive(Debug)]
pub struct Detached(Parts);

#[derive(Debug)]
enum Parts {
    Plain(IdleSocket),
    Tls(Box<DetachedTls>),
}

impl Stream {
    /// Reads at least one byte into `dst`; 0 means that the peer will send no more.
    ///
    /// After `Pending` nothing readable is held back in a buffer of this side.
    pub fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(dst);
        let polled = match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, &mut buf),
            _ => return self.poll_read_other(cx, dst),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    /// As [`Stream::poll_read_slice`], for what is no plain socket: those are told apart at two looks.
    fn poll_read_other(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(tls) => tls.poll_read_slice(cx, dst),
            Self::Script(script) => script.poll_read(cx, dst).map(Ok),
            Self::Tcp(_) | Self::Unix(_) => Poll::Pending,
        }
    }

    /// Writes some of `src`.
    ///
    /// TLS hands the bytes to the socket at once; what the socket does not take is kept encrypted, and goes out with
    /// the next write or [`Stream::poll_flush_all`]. Flush before waiting for an answer.
    pub fn poll_write_slice(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A socket nearly always takes it: only one that does not is asked to wake this task.
        match self {
            Self::Tcp(socket) => match socket.try_write(src) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(socket).poll_write(cx, src)
                }
                done => Poll::Ready(done),
            },
            Self::Unix(socket) => match socket.try_write(src) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(socket).poll_write(cx, src)
                }
                done => Poll::Ready(done),
            },
            _ => self.poll_write_other(cx, src),
        }
    }

    fn poll_write_other(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(tls) => tls.poll_write_slice(cx, src),
            // Nobody listens.
            _ => Poll::Ready(Ok(src.len())),
        }
    }

    /// Hands everything written to the socket. Costs nothing on plain streams.
    pub fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when a read is worth trying, so that an idle connection needs no buffer. A read may still be `Pending`.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
            _ => self.poll_ready_other(cx),
        }
    }

    fn poll_ready_other(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_read_ready(cx),
            Self::Script(script) => script.poll_ready(cx).map(Ok),
            Self::Tcp(_) | Self::Unix(_) => Poll::Pending,
        }
    }

    /// Whether a read may give something now: one look at what is known already, without asking to be woken.
    #[inline]
    #[must_use]
    pub fn may_have_input(&self) -> bool {
        let known = || Ok(());
        match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, known).is_ok(),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, known).is_ok(),
            _ => true,
        }
    }

    /// Waits until a read is worth trying. Cancel safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The other end. Asks the system: keep the answer.
    ///
    /// # Errors
    /// When the peer has gone already.
    pub fn peer(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().map(Peer::Tcp),
            Self::Unix(_) | Self::Script(_) => Ok(Peer::Unix),
            Self::Tls(tls) => tls.peer(),
        }
    }

    /// The number of the user at the other end of a unix socket; `None` for other connections. Asks the system.
    ///
    /// # Errors
    /// When the peer has gone already.
    pub fn peer_user(&self) -> io::Result<Option<u32>> {
        match self {
            Self::Unix(socket) => socket.peer_cred().map(|peer| Some(peer.uid())),
            _ => Ok(None),
        }
    }

    /// The TLS layer, for its version, ALPN and certificates.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// Who the peer's certificate says it is; `None` without TLS or without a certificate.
    #[must_use]
    pub fn peer_identity(&self) -> Option<PeerIdentity> {
        self.tls()?.peer_identity()
    }

    /// The ALPN protocol agreed upon.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls()?.alpn()
    }

    /// The `tls-server-end-point` value of this connection (RFC 5929), the same on both of its ends.
    #[must_use]
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        self.tls()?.channel_binding()
    }

    /// Takes the connection off this runtime, with all that is in flight, to be moved to another.
    ///
    /// # Errors
    /// [`NetError::Migrate`] when the runtime does not let it go; the connection is closed then.
    pub fn detach(self) -> Result<Detached, NetError> {
        let parts = match self {
            Self::Tcp(socket) => Socket::Tcp(socket).detach().map(Parts::Plain),
            Self::Unix(socket) => Socket::Unix(socket).detach().map(Parts::Plain),
            Self::Tls(tls) => tls.detach().map(|tls| Parts::Tls(Box::new(tls))),
            Self::Script(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        parts
            .map(Detached)
            .map_err(|cause| NetError::Migrate { cause })
    }

    /// The plain socket below; gives others back.
    pub(crate) fn into_socket(self) -> Result<Socket, Self> {
        match self {
            Self::Tcp(socket) => Ok(Socket::Tcp(socket)),
            Self::Unix(socket) => Ok(Socket::Unix(socket)),
            other => Err(other),
        }
    }
}

impl Detached {
    pub(crate) const fn plain(socket: IdleSocket) -> Self {
        Self(Parts::Plain(socket))
    }

    /// Registers the connection with the runtime of the caller.
    ///
    /// # Errors
    /// [`NetError::Migrate`] when the runtime does not take it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO enabled.
    pub fn attach(self) -> Result<Stream, NetError> {
        let stream = match self.0 {
            Parts::Plain(socket) => socket.attach().map(Stream::from),
            Parts::Tls(tls) => tls.attach().map(|tls| Stream::Tls(Box::new(tls))),
        };
        stream.map_err(|cause| NetError::Migrate { cause })
    }
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => Self::Tcp(socket),
            Socket::Unix(socket) => Self::Unix(socket),
        }
    }
}

impl AsyncRead for Stream {
    #[inline(always)]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            other => {
                let polled = other.poll_read_other(cx, buf.initialize_unfilled());
                polled.map_ok(|count| buf.advance(count))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slice(cx, src)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
            Self::Script(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => tls.poll_write_vectored(cx, bufs),
            Self::Script(_) => Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
