//! Opening a connection to a server: dial, TLS, startup, authentication.

use std::sync::Arc;
use std::time::Duration;

use pgdog_net::{Address, ClientTls, Stream, TcpOptions, dial};
use pgdog_wire::backend::{Authentication, mechanisms, read_key_data};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::scram::client::{ClientBinding, Exchange};
use pgdog_wire::scram::{KeyCache, Keys, Params, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use pgdog_wire::startup::{CancelKey, write_ssl_request, write_startup};
use pgdog_wire::{ErrorResponse, frame, frontend, md5};
use tokio::io::AsyncReadExt;

use crate::error::ServerError;
use crate::expect::Owed;
use crate::handle::ServerHandle;
use crate::server::Server;
use crate::statements::Prepared;

/// What a client has shown of its secret, which logs in to every server that stores the same verifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// How the password was salted.
    pub params: Params,
    /// What it has become.
    pub keys: Keys,
}

/// Everything needed to open connections for one pool.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server is.
    pub address: Arc<Address>,
    /// How to use TLS; `None` is never.
    pub tls: Option<ClientTls>,
    /// Who to log in as.
    pub user: String,
    /// The password, and others to try when it is refused.
    pub passwords: Vec<String>,
    /// What a client has shown, where no password is known.
    pub passed: Option<Passed>,
    /// The database on the server.
    pub database: String,
    /// Startup parameters.
    pub parameters: Vec<(String, String)>,
    /// Socket options.
    pub tcp: TcpOptions,
    /// Limit for the whole of it.
    pub timeout: Duration,
    /// Salted passwords, so that PBKDF2 runs once.
    pub keys: Arc<KeyCache>,
}

impl Target {
    /// Opens a connection and logs in, with each password in turn. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the server's own words where it gave some.
    pub async fn connect(&self) -> Result<Server, ServerError> {
        let mut last = None;
        for password in self
            .passwords
            .iter()
            .map(Some)
            .chain(self.passwords.is_empty().then_some(None))
        {
            let attempt =
                pgdog_net::timer::timeout(self.timeout, self.login(password.map(String::as_str)));
            match attempt.await.unwrap_or_else(|_| {
                Err(ServerError::LoginTimeout {
                    address: self.address.to_string(),
                    timeout: self.timeout,
                })
            }) {
                Err(ServerError::Refused(error)) if error.code.starts_with("28") => {
                    last = Some(ServerError::Refused(error))
                }
                other => return other,
            }
        }
        Err(last.unwrap_or(ServerError::Authentication(
            "a password, and none is configured",
        )))
    }

    /// The same with other startup parameters.
    #[must_use]
    pub fn with_parameters(&self, parameters: Vec<(String, String)>) -> Self {
        Self {
            parameters,
            ..self.clone()
        }
    }

    /// The same for another user.
    #[must_use]
    pub fn of_user(&self, user: &str, passwords: Vec<String>, passed: Option<Passed>) -> Self {
        Self {
            user: user.to_owned(),
            passwords,
            passed,
            ..self.clone()
        }
    }

    /// Opens the socket, with TLS where that is wanted. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`ServerError::Dial`], [`ServerError::NoTls`].
    pub async fn open(&self) -> Result<Stream, ServerError> {
        let failed = |source| ServerError::Dial {
            address: self.address.to_string(),
            source: Arc::new(source),
        };
        let mut stream = dial(&self.address, self.timeout, &self.tcp)
            .await
            .map_err(failed)?;
        let (Some(tls), Address::Tcp { host, .. }) = (&self.tls, &*self.address) else {
            return Ok(stream);
        };
        let mut out = Vec::new();
        write_ssl_request(&mut out);
        tokio::io::AsyncWriteExt::write_all(&mut stream, &out).await?;
        // One byte and no more: what follows it must come through TLS (CVE-2021-23222).
        match stream.read_u8().await? {
            b'S' => pgdog_net::connect(stream, tls, host).await.map_err(failed),
            b'N' if tls.verify().is_required() => Err(ServerError::NoTls {
                address: self.address.to_string(),
            }),
            b'N' => Ok(stream),
            _ => Err(ServerError::Protocol("invalid answer to SSLRequest")),
        }
    }

    async fn login(&self, password: Option<&str>) -> Result<Server, ServerError> {
        let stream = self.open().await?;
        let mut server = Server {
            stream,
            owed: Owed::default(),
            prepared: Prepared::default(),
            params: Arc::default(),
            base: Arc::default(),
            shared: false,
            unnamed: 0,
            key: None,
            reported: Vec::new(),
            address: self.address.clone(),
            handle: Arc::new(ServerHandle::new(0, self.address.clone(), 0)),
            used: 0,
            expires: None,
            worker: 0,
            generation: 0,
            asked: false,
            tainted: false,
            permit: None,
            notifications: Vec::new(),
        };
        let mut out = Vec::new();
        let own = [
            ("user", self.user.as_str()),
            ("database", self.database.as_str()),
        ];
        write_startup(
            &mut out,
            own.into_iter().chain(
                self.parameters
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str())),
            ),
        );
        server.send(&out).await?;
        let mut input = Buffer::new();
        let mut scram = None;
        loop {
            let len = server.next_message(&mut input).await?;
            let message = input.data()[..len].to_vec();
            input.consume(len);
            let body = &message[frame::HEADER..];
            match message[0] {
                b'R' => {
                    let request = Authentication::read(body)
                        .ok_or(ServerError::Protocol("malformed authentication request"))?;
                    server.asked |= !matches!(request, Authentication::Ok);
                    let answer = self.answer(request, password, &server.stream, &mut scram)?;
                    if !answer.is_empty() {
                        server.send(&answer).await?;
                    }
                }
                b'K' => {
                    server.key =
                        read_key_data(body)
                            .filter(|(_, s)| !s.is_empty())
                            .map(|(pid, secret)| CancelKey {
                                pid,
                                secret: secret.to_vec(),
                            })
                }
                b'S' => server.note_parameter(body),
                b'N' | b'v' => {}
                b'E' => return Err(ServerError::Refused(Box::new(ErrorResponse::read(body)))),
                b'Z' => return Ok(server),
                _ => return Err(ServerError::Protocol("unexpected message during login")),
            }
        }
    }

    /// The answer to one authentication request; empty when none is due.
    fn answer(
        &self,
        request: Authentication<'_>,
        password: Option<&str>,
        stream: &Stream,
        scram: &mut Option<Exchange>,
    ) -> Result<Vec<u8>, ServerError> {
        let mut out = Vec::new();
        let password = || {
            password.ok_or(ServerError::Authentication(
                "a password, and none is configured",
            ))
        };
        let out_of_order = ServerError::Protocol("SASL message out of order");
        match request {
            Authentication::Ok => {}
            Authentication::Cleartext => frontend::password(&mut out, password()?.as_bytes()),
            Authentication::Md5(salt) => frontend::password(
                &mut out,
                md5::hash_password(&self.user, password()?, salt).as_bytes(),
            ),
            Authentication::Sasl(list) => {
                // Of its MD5 hash no proof of a password can be made.
                if self.passed.is_none() && md5::Secret::parse(password()?).is_some() {
                    return Err(ServerError::Authentication(
                        "SCRAM-SHA-256, and only an MD5 hash of the password is known",
                    ));
                }
                let offered = |name: &str| mechanisms(list).any(|m| m == name.as_bytes());
                let binding = match stream.channel_binding() {
                    Some(end_point) if offered(SCRAM_SHA_256_PLUS) => {
                        ClientBinding::EndPoint(end_point)
                    }
                    _ if !offered(SCRAM_SHA_256) => {
                        return Err(ServerError::Authentication(
                            "a SASL mechanism other than SCRAM-SHA-256",
                        ));
                    }
                    Some(_) => ClientBinding::NotOffered,
                    None => ClientBinding::None,
                };
                let exchange = scram.insert(Exchange::new(binding));
                let first = exchange.client_first()?;
                frontend::sasl_initial(&mut out, exchange.mechanism(), &first);
            }
            Authentication::SaslContinue(data) => {
                let exchange = scram.as_mut().ok_or(out_of_order)?;
                let params = exchange.server_first(data)?;
                let keys = match (&self.passed, password()) {
                    (Some(passed), Err(_)) if passed.params == params => passed.keys.clone(),
                    (Some(_), Err(_)) => {
                        return Err(ServerError::Authentication(
                            "SCRAM-SHA-256 with another verifier than the one that the client was checked against",
                        ));
                    }
                    (_, password) => self.keys.get_or_derive(password?, &params)?,
                };
                frontend::sasl_response(&mut out, &exchange.client_final(&keys)?);
            }
            Authentication::SaslFinal(data) => {
                scram.as_mut().ok_or(out_of_order)?.server_final(data)?
            }
            Authentication::Other(_) => {
                return Err(ServerError::Authentication(
                    "an authentication method other than password, md5 and SCRAM-SHA-256",
                ));
            }
        }
        Ok(out)
    }
}
