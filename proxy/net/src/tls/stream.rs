//! The TLS engine on a socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;

use super::certificate::{PeerIdentity, tls_server_end_point};
use super::engine::{Engine, Progress, Session};
use crate::socket::{IdleSocket, Peer, Socket};

/// Ciphertext asked for at least by one `recv`.
const MIN_RECEIVE: usize = 4 * 1024;
/// Ciphertext asked for at most by one `recv`.
const MAX_RECEIVE: usize = 32 * 1024;
/// Plaintext taken by one write: a bound on the ciphertext that is kept for a slow peer.
const MAX_WRITE: usize = 32 * 1024;

/// A TLS connection after its handshake. While idle it holds no buffer, only the keys.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    engine: Engine,
}

/// A [`TlsStream`] on its way to another runtime.
#[derive(Debug)]
pub(crate) struct DetachedTls {
    socket: IdleSocket,
    engine: Engine,
}

/// Runs a handshake to its end. Not cancel safe.
pub(super) async fn handshake(mut stream: Box<TlsStream>) -> io::Result<Box<TlsStream>> {
    let done = poll_fn(|cx| stream.poll_handshake(cx)).await;
    if done.is_err() {
        // The alert says more to the peer than a closed socket.
        stream.push_alert();
    }
    stream.engine.release();
    done.map(|()| stream)
}

impl TlsStream {
    pub(super) const fn new(socket: Socket, engine: Engine) -> Self {
        Self { socket, engine }
    }

    /// The version agreed upon, as `pg_stat_ssl` writes it.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.engine.session().state().protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        }
    }

    /// The ALPN protocol agreed upon.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.engine.session().state().alpn_protocol()
    }

    /// The peer's certificate, if it has shown one.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.engine.session().state().peer_certificates()?.first()
    }

    /// Who the peer's certificate says it is.
    #[must_use]
    pub fn peer_identity(&self) -> Option<PeerIdentity> {
        PeerIdentity::from_der(self.peer_certificate()?)
    }

    /// The `tls-server-end-point` value: of our certificate where we are the server, else of the peer's.
    #[must_use]
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        match self.engine.session() {
            Session::Client { .. } => tls_server_end_point(self.peer_certificate()?),
            Session::Server { end_point, .. } => end_point.as_deref().map(<[u8]>::to_vec),
        }
    }

    pub(crate) fn peer(&self) -> io::Result<Peer> {
        self.socket.peer()
    }

    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.engine.has_plaintext() || self.engine.is_read_closed() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.socket.poll_read_ready(cx);
        if ready.is_pending() {
            self.engine.release();
        }
        ready
    }

    pub(crate) fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if dst.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let earlier = self.engine.take_plaintext(dst);
        if earlier > 0 {
            return Poll::Ready(Ok(earlier));
        }
        loop {
            // Nothing is undecrypted between calls, but what a failed session would repeat.
            if self.engine.is_read_closed() {
                return Poll::Ready(self.engine.decrypt(dst).map(|(count, _)| count));
            }
            match self.poll_receive(cx, dst.len()) {
                Poll::Pending => {
                    self.engine.release();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Most Postgres drivers close the socket without a TLS goodbye. The protocol inside has lengths of
                // its own, so a stream that ends between records cannot be mistaken for a shorter one.
                Poll::Ready(Ok(0)) if self.engine.has_partial_record() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(_)) => {}
            }
            let decrypted = self.engine.decrypt(dst);
            // Answers to the peer's key updates, and alerts.
            self.push_alert();
            let (count, _) = decrypted?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    pub(crate) fn poll_write_slice(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(src)])
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What is kept for a slow peer goes first, so there is never more than one write of it.
        ready!(self.poll_push(cx))?;
        let mut taken = 0;
        for buf in bufs {
            let count = buf.len().min(MAX_WRITE - taken);
            if count > 0 {
                self.engine.encrypt(&buf[..count])?;
            }
            taken += count;
            if count < buf.len() {
                break;
            }
        }
        match self.poll_push(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_push(cx)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.engine.close()?;
        ready!(self.poll_push(cx))?;
        self.engine.release();
        self.socket.poll_shutdown(cx)
    }

    pub(crate) fn detach(self) -> io::Result<DetachedTls> {
        Ok(DetachedTls {
            socket: self.socket.detach()?,
            engine: self.engine,
        })
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (_, progress) = self.engine.decrypt(&mut [])?;
            ready!(self.poll_push(cx))?;
            match progress {
                Progress::Established => return Poll::Ready(Ok(())),
                Progress::Handshaking if self.engine.is_read_closed() => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Progress::Handshaking => {}
            }
            if ready!(self.poll_receive(cx, MIN_RECEIVE))? == 0 {
                let reason = "the peer closed the connection during the TLS handshake";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
        }
    }

    /// One `recv`, into a buffer that is only made once there is something to put into it.
    fn poll_receive(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_read_ready(cx))?;
        let space = self.engine.space(wanted.clamp(MIN_RECEIVE, MAX_RECEIVE))?;
        let count = ready!(self.socket.poll_read_slice(cx, space))?;
        self.engine.received(count);
        Poll::Ready(Ok(count))
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.engine.outgoing.is_empty() {
            let count = ready!(
                self.socket
                    .poll_write_slice(cx, self.engine.outgoing.pending())
            )?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.engine.outgoing.consume(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what a read has queued, without disturbing a waiting writer. What does not fit goes with the next write;
    /// an error will be met there too.
    fn push_alert(&mut self) {
        while !self.engine.outgoing.is_empty() {
            match self.socket.try_write(self.engine.outgoing.pending()) {
                Ok(count) if count > 0 => self.engine.outgoing.consume(count),
                _ => return,
            }
        }
    }
}

impl DetachedTls {
    pub(crate) fn attach(self) -> io::Result<TlsStream> {
        Ok(TlsStream {
            socket: self.socket.attach()?,
            engine: self.engine,
        })
    }
}
