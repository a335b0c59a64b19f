//! An HTTP client for the admin API: one connection for each request.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::certificates::Pair;
use crate::raw::PATIENCE;

/// Where to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Http {
    port: u16,
    headers: Vec<(String, String)>,
    authority: Option<PathBuf>,
    identity: Option<Pair>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The same answer, when it has this status; panics otherwise.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl Http {
    /// A port of 127.0.0.1, in the clear.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            headers: Vec::new(),
            authority: None,
            identity: None,
        }
    }

    /// By TLS, with a server whose certificate this authority has signed.
    #[must_use]
    pub fn tls(mut self, authority: &Path) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// With a client certificate.
    #[must_use]
    pub fn identity(mut self, pair: &Pair) -> Self {
        self.identity = Some(pair.clone());
        self
    }

    /// With a header in each request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks; panics when there is no answer.
    pub fn get(&self, path: &str) -> Answer {
        self.must("GET", path, None)
    }

    /// Posts without a body; panics when there is no answer.
    pub fn post(&self, path: &str) -> Answer {
        self.must("POST", path, None)
    }

    /// Puts JSON; panics when there is no answer.
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.must("PUT", path, Some(&body.to_string()))
    }

    fn must(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.ask(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Asks anything.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<Answer> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            if !self.headers.iter().any(|(name, _)| name == "Content-Type") {
                request.push_str("Content-Type: application/json\r\n");
            }
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let text = match &self.authority {
            None => exchange(stream, &request)?,
            Some(authority) => exchange(self.encrypt(stream, authority)?, &request)?,
        };
        parse(&text)
    }

    fn encrypt(
        &self,
        stream: TcpStream,
        authority: &Path,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&fs::read(authority)?).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::from_pem_slice(&fs::read(&pair.certificate)?);
                let key = PrivateKeyDer::from_pem_slice(&fs::read(&pair.key)?);
                config
                    .with_client_auth_cert(
                        vec![chain.map_err(io::Error::other)?],
                        key.map_err(io::Error::other)?,
                    )
                    .map_err(io::Error::other)?
            }
        };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<String> {
    // A server that refuses a large body answers before it has read all of it.
    let sent = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if text.is_empty() => return Err(error),
        // TLS without its last word, or a reset behind the answer.
        _ => {}
    }
    if text.is_empty() {
        sent?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> io::Result<Answer> {
    let broken = || io::Error::other(format!("no HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(broken)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
