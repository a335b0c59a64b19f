//! The client of the proxies' HTTP admin API: one connection to one proxy, over mutual TLS.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use pgdog_config::api::{BudgetPushed, Changed, Decide, Half, Prepare, Pushed, Refused, Status};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::Pair;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(1);
/// Largest answer that is read.
const ANSWER_MAX: usize = 1 << 20;

/// What the operator proves itself with; replaced when it is renewed.
#[derive(Debug, Clone)]
pub struct Identity(Arc<RwLock<Arc<rustls::ClientConfig>>>);

impl Identity {
    /// A client certificate, and the authority that signs those of the proxies.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn new(pair: &Pair, authority: &str) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(config(
            pair, authority,
        )?)))))
    }

    /// Another one from now on.
    ///
    /// # Errors
    ///
    /// When they cannot be read; the one before stays.
    pub fn renew(&self, pair: &Pair, authority: &str) -> anyhow::Result<()> {
        let config = Arc::new(config(pair, authority)?);
        *self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = config;
        Ok(())
    }

    fn current(&self) -> Arc<rustls::ClientConfig> {
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

fn config(pair: &Pair, authority: &str) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.context("read the authority's certificate")?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("read the operator's certificate")?;
    let key =
        PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("read the operator's key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// Why there was no answer to act on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It cannot be reached.
    #[error("cannot be reached: {0:#}")]
    Unreachable(anyhow::Error),
    /// It did not answer in time.
    #[error("did not answer within {0:?}")]
    Timeout(Duration),
    /// It refused.
    #[error("{}", .0.message)]
    Refused(Box<Refused>),
    /// It answered something else.
    #[error("answered {0}")]
    Odd(StatusCode),
}

/// A proxy's admin API.
#[derive(Debug)]
pub struct Client {
    /// `address:port`.
    address: String,
    /// The name in its certificate.
    name: ServerName<'static>,
    identity: Identity,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Of the proxy at this address, whose certificate carries this name. Connects when it is first used.
    ///
    /// # Errors
    ///
    /// A name that no certificate can carry.
    pub fn new(address: String, name: &str, identity: Identity) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            name: ServerName::try_from(name.to_owned())?,
            identity,
            connection: None,
        })
    }

    /// What the proxy says of itself. Not cancel safe: the connection is opened anew afterwards.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn status(&mut self, patience: Duration) -> Result<Status, Failure> {
        self.ask(Method::GET, "/v1/status", Bytes::new(), patience)
            .await
    }

    /// Pushes one half of a configuration; `push` is a [`Push`](pgdog_config::api::Push) as JSON. Not cancel safe: the connection
    /// is opened anew afterwards.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn push(
        &mut self,
        half: Half,
        push: Bytes,
        patience: Duration,
    ) -> Result<Pushed, Failure> {
        self.ask(Method::PUT, &format!("/v1/config/{half}"), push, patience)
            .await
    }

    /// Pushes what the proxy may open to each host; `push` is a [`Push`](pgdog_config::api::Push) as JSON. Not cancel safe: the
    /// connection is opened anew afterwards.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn budget(
        &mut self,
        push: Bytes,
        patience: Duration,
    ) -> Result<BudgetPushed, Failure> {
        self.ask(Method::PUT, "/v1/budget", push, patience).await
    }

    /// Prepares a change; answers when the transactions have ended that run. Not cancel safe: the connection is opened anew
    /// afterwards.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn prepare(&mut self, change: &Prepare, patience: Duration) -> Result<(), Failure> {
        let body = serde_json::to_vec(change).map_err(|e| Failure::Unreachable(e.into()))?;
        let prepared: Changed = self
            .ask(Method::POST, "/v1/prepare", body.into(), patience)
            .await?;
        drop(prepared);
        Ok(())
    }

    /// Ends a change that is prepared: `commit` or `abort`. Not cancel safe: the connection is opened anew afterwards.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn decide(
        &mut self,
        how: &str,
        which: &Decide,
        patience: Duration,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(which).map_err(|e| Failure::Unreachable(e.into()))?;
        let decided: Changed = self
            .ask(Method::POST, &format!("/v1/{how}"), body.into(), patience)
            .await?;
        drop(decided);
        Ok(())
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, Failure> {
        let asked = async {
            let mut connection = match self.kept().await {
                Some(connection) => connection,
                None => self.connect().await.map_err(Failure::Unreachable)?,
            };
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "pgdog")
                .header("content-type", "application/json")
                .body(Full::new(body))
                .map_err(|e| Failure::Unreachable(e.into()))?;
            let answer = connection
                .send_request(request)
                .await
                .map_err(|e| Failure::Unreachable(e.into()))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|e| Failure::Unreachable(anyhow::anyhow!(e)))?
                .to_bytes();
            self.connection = Some(connection);
            if status == StatusCode::OK || status == StatusCode::ACCEPTED {
                return serde_json::from_slice(&body).map_err(|_| Failure::Odd(status));
            }
            match serde_json::from_slice(&body) {
                Ok(refused) => Err(Failure::Refused(Box::new(refused))),
                Err(_) => Err(Failure::Odd(status)),
            }
        };
        tokio::time::timeout(patience, asked)
            .await
            .map_err(|_| Failure::Timeout(patience))?
    }

    /// The connection of before, where it still is one. It may not be done yet with the answer that was just read.
    async fn kept(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.take()?;
        connection.ready().await.ok()?;
        Some(connection)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connecting = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(self.identity.current());
            let stream = connector.connect(self.name.clone(), stream).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move {
                // Whoever asks next sees that it is closed.
                let _ = connection.await;
            });
            anyhow::Ok(sender)
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .with_context(|| format!("connect to {}: no answer within {CONNECT:?}", self.address))?
            .with_context(|| format!("connect to {}", self.address))
    }
}
