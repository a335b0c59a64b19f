//! Takes connections over TLS. A handshake that hangs holds up nobody else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time after an error of accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Connections whose handshake is done.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Listener {
    /// Listens from the first certificate on.
    pub(super) async fn bind(address: SocketAddr, certificate: Certificate) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(16);
        tokio::spawn(async move {
            while !sender.is_closed() {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        let sender = sender.clone();
                        let certificate = certificate.clone();
                        tokio::spawn(async move {
                            if let Some(stream) = handshake(stream, from, &certificate).await {
                                // Nobody listens any more: the process is ending.
                                let _ = sender.send((stream, from)).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!("failed to accept a connection: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok(Self {
            address,
            connections,
        })
    }
}

async fn handshake(
    stream: TcpStream,
    from: SocketAddr,
    certificate: &Certificate,
) -> Option<TlsStream<TcpStream>> {
    // Without a certificate this replica is not ready, and nobody should ask it.
    let acceptor = TlsAcceptor::from(certificate.current()?);
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!("failed to shake hands with {from}: {error}"),
        Err(_) => tracing::debug!("failed to shake hands with {from}: no answer"),
    }
    None
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// Cancel safe.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task that accepts ends with this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
