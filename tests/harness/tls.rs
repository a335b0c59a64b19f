//! The raw client over TLS, for what libpq cannot say: direct TLS, and orders of encryption requests.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::message::{Message, encode_all};
use crate::raw::PATIENCE;
use crate::transcript::Frame;

/// A connection inside TLS.
#[derive(Debug)]
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// Shakes hands on a socket whose server expects that now. `protocols` are offered by ALPN.
    pub fn handshake(stream: TcpStream, authority: &Path, protocols: &[&str]) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(authority)?;
        roots
            .add(CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self { stream })
    }

    /// TLS from the first byte.
    pub fn direct(port: u16, authority: &Path, protocols: &[&str]) -> io::Result<Self> {
        Self::handshake(
            TcpStream::connect(("127.0.0.1", port))?,
            authority,
            protocols,
        )
    }

    /// The protocol that ALPN agreed on.
    pub fn protocol(&self) -> Option<String> {
        self.stream
            .conn
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// The certificate that the server showed, DER.
    pub fn server_certificate(&self) -> Vec<u8> {
        let certificates = self.stream.conn.peer_certificates();
        certificates
            .and_then(<[_]>::first)
            .map(|certificate| certificate.to_vec())
            .unwrap_or_default()
    }

    /// Sends messages. A closed connection shows when reading.
    pub fn send(&mut self, messages: &[Message]) {
        self.stream.write_all(&encode_all(messages)).ok();
    }

    /// Messages up to ReadyForQuery or to the end of the connection.
    pub fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.receive() {
            let done = frame.tag == b'Z';
            frames.push(frame);
            if done {
                break;
            }
        }
        frames
    }

    fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body =
            vec![0; usize::try_from(length.saturating_sub(4)).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body)?;
        Ok(Frame { tag: head[0], body })
    }
}

/// Asks for encryption on a fresh socket: the socket and the server's one-byte answer to each request.
pub fn ask(port: u16, requests: &[Message]) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answers = Vec::new();
    for request in requests {
        stream.write_all(&encode_all(std::slice::from_ref(request)))?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        answers.push(answer[0]);
    }
    Ok((stream, answers))
}
