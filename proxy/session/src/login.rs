//! From an accepted socket to a client that may query: TLS, startup packet, authentication, greeting.

use std::sync::Arc;
use std::task::Poll;

use pgdog_backend::probe::Reasons;
use pgdog_backend::{CheckoutError, Params, Pool, Server, Value};
use pgdog_config::AuthType;
use pgdog_net::{Peer, Stream};
use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::scram::Verifiers;
use pgdog_wire::scram::server::{ChannelBinding, Exchange};
use pgdog_wire::startup::{self, CancelKey, FirstPacket, Startup, VERSION_3_2};
use pgdog_wire::{ClientError, ErrorResponse, Severity, frontend, md5, sqlstate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, write_all};
use crate::handle::{ClientKind, Newcomer};
use crate::registry::{LimitHit, Limits};
use crate::runtime::{Account, Live, Runtime};

/// Largest answer to an authentication request: tokens of cloud services are long.
const PASSWORD_MAX: usize = 64 * 1024;
/// Bytes of an application's name that PostgreSQL keeps (`NAMEDATALEN` less one).
const NAME_MAX: usize = 63;
/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What became of a connection.
#[derive(Debug)]
pub enum Login {
    /// A client.
    Client(Box<Client>),
    /// A cancel request, dealt with by the caller, who closes the connection after that: drivers take the end of it for
    /// the sign that their next statement is safe.
    Cancel(CancelKey, Box<Stream>),
    /// A logical replication connection, served to its end.
    Replication,
    /// It was told why not, and is closed.
    Refused(ErrorResponse),
    /// It went away before it said who it is; health checks of load balancers do.
    Gone,
}

/// Why a login ended early.
enum Fail {
    Io,
    Told(Box<ErrorResponse>),
}

impl From<std::io::Error> for Fail {
    fn from(_: std::io::Error) -> Self {
        Self::Io
    }
}

impl From<ErrorResponse> for Fail {
    fn from(error: ErrorResponse) -> Self {
        Self::Told(Box::new(error))
    }
}

/// Logs a client in, within `client_login_timeout`. Not cancel safe.
pub async fn login(stream: Stream, peer: Peer, runtime: &Arc<Runtime>, worker: usize) -> Login {
    // Read before the configuration: a client that was let in under an old one must notice.
    let generation = runtime.generation();
    let live = runtime.live();
    let limit = live.settings.timeouts.login;
    let mut session = Session {
        stream: Some(stream),
        peer,
        live,
        generation,
        runtime: runtime.clone(),
        worker,
    };
    let result = pgdog_net::timer::timeout(limit, session.run()).await;
    let error = match result {
        Ok(Ok(login)) => return login,
        Ok(Err(Fail::Io)) => return Login::Gone,
        Ok(Err(Fail::Told(error))) => *error,
        Err(_) => ErrorResponse::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "canceling authentication due to client_login_timeout",
        ),
    };
    runtime.metrics.count(|m| &m.login_failures);
    if let Some(stream) = &mut session.stream {
        let mut out = Vec::new();
        error.write(&mut out);
        let _ =
            pgdog_net::timer::timeout(std::time::Duration::from_secs(1), write_all(stream, &out))
                .await;
        let _ =
            pgdog_net::timer::timeout(std::time::Duration::from_secs(1), stream.shutdown()).await;
    }
    Login::Refused(error)
}

struct Session {
    stream: Option<Stream>,
    peer: Peer,
    live: Arc<Live>,
    generation: u64,
    runtime: Arc<Runtime>,
    worker: usize,
}

impl Session {
    fn stream(&mut self) -> Result<&mut Stream, Fail> {
        self.stream.as_mut().ok_or(Fail::Io)
    }

    async fn run(&mut self) -> Result<Login, Fail> {
        let startup = match self.first_packets().await? {
            FirstPacket::Cancel(key) => {
                return Ok(Login::Cancel(
                    key,
                    Box::new(self.stream.take().ok_or(Fail::Io)?),
                ));
            }
            FirstPacket::Startup(startup) => startup,
            FirstPacket::Ssl | FirstPacket::Gss => {
                return Err(violation("repeated encryption request"));
            }
        };
        self.negotiate(&startup).await?;
        let account = self.authenticate(&startup).await?;
        if startup.replication.is_some() {
            return self.replicate(&startup, &account).await;
        }
        self.greet(startup, account)
            .await
            .map(|client| Login::Client(Box::new(client)))
    }

    /// TLS and GSS requests, then the startup packet.
    async fn first_packets(&mut self) -> Result<FirstPacket, Fail> {
        let (mut asked_ssl, mut asked_gss) = (false, false);
        loop {
            let mut word = [0; 4];
            self.stream()?.read_exact(&mut word[..1]).await?;
            if word[0] == TLS_HANDSHAKE && !asked_ssl && !asked_gss && !self.stream()?.is_tls() {
                self.direct_tls(word[0]).await?;
                asked_ssl = true;
                continue;
            }
            self.stream()?.read_exact(&mut word[1..]).await?;
            let len = startup::packet_len(word).map_err(|e| e.response())?;
            let mut packet = vec![0; len];
            packet[..4].copy_from_slice(&word);
            self.stream()?.read_exact(&mut packet[4..]).await?;
            match startup::read(&packet).map_err(|e| e.response())? {
                FirstPacket::Ssl if !asked_ssl => {
                    asked_ssl = true;
                    self.answer_ssl().await?;
                }
                FirstPacket::Gss if !asked_gss => {
                    asked_gss = true;
                    write_all(self.stream()?, b"N").await?;
                }
                FirstPacket::Ssl | FirstPacket::Gss => {
                    return Err(violation("repeated encryption request"));
                }
                packet @ FirstPacket::Startup(_) => {
                    let required = self
                        .live
                        .settings
                        .client_tls
                        .as_ref()
                        .is_some_and(|tls| tls.required);
                    if required && matches!(self.peer, Peer::Tcp(_)) && !self.stream()?.is_tls() {
                        return Err(ErrorResponse::fatal(
                            sqlstate::CONNECTION_REJECTED,
                            "TLS is required",
                        )
                        .hint("Connect with sslmode=require.")
                        .into());
                    }
                    return Ok(packet);
                }
                packet @ FirstPacket::Cancel(_) => return Ok(packet),
            }
        }
    }

    async fn answer_ssl(&mut self) -> Result<(), Fail> {
        let tls = self
            .live
            .tls
            .clone()
            .filter(|_| matches!(self.peer, Peer::Tcp(_)));
        let Some(tls) = tls else {
            write_all(self.stream()?, b"N").await?;
            return Ok(());
        };
        write_all(self.stream()?, b"S").await?;
        let plain = self.stream.take().ok_or(Fail::Io)?;
        self.stream = Some(
            pgdog_net::accept(plain, &tls, &[])
                .await
                .map_err(|error| self.tls_failed(&error))?,
        );
        Ok(())
    }

    /// TLS from the first byte, as PostgreSQL 17's clients may begin: ALPN is not optional then.
    async fn direct_tls(&mut self, first: u8) -> Result<(), Fail> {
        let Some(tls) = self.live.tls.clone() else {
            return Err(Fail::Io);
        };
        let plain = self.stream.take().ok_or(Fail::Io)?;
        let stream = pgdog_net::accept(plain, &tls, &[first])
            .await
            .map_err(|error| self.tls_failed(&error))?;
        let negotiated = stream.alpn().is_some();
        self.stream = Some(stream);
        if negotiated {
            Ok(())
        } else {
            Err(violation(
                "received direct SSL connection request without ALPN protocol negotiation extension",
            ))
        }
    }

    fn tls_failed(&self, error: &pgdog_net::NetError) -> Fail {
        tracing::info!(peer = %self.peer, "TLS handshake failed: {error}");
        Fail::Io
    }

    /// Says which protocol is spoken when the client asked for more.
    async fn negotiate(&mut self, startup: &Startup) -> Result<(), Fail> {
        if startup.minor <= 2 && startup.protocol_options.is_empty() {
            return Ok(());
        }
        let version = VERSION_3_2.min(3 << 16 | u32::from(startup.minor));
        let unknown: Vec<_> = startup
            .protocol_options
            .iter()
            .map(String::as_str)
            .collect();
        let mut out = Vec::new();
        backend::negotiate_version(&mut out, version, &unknown);
        Ok(write_all(self.stream()?, &out).await?)
    }

    /// Finds the account and has the client prove that it is its own. Who is unknown looks and times like who errs.
    async fn authenticate(&mut self, startup: &Startup) -> Result<Arc<Account>, Fail> {
        let of_user = self.live.accounts.get(&startup.user);
        let exact = of_user.and_then(|a| a.get(&startup.database)).cloned();
        // The password of any of the user's databases serves to tell that the database is not there.
        let account = exact.clone().or_else(|| {
            of_user
                .and_then(|a| {
                    a.values()
                        .min_by(|x, y| x.user.database.cmp(&y.user.database))
                })
                .cloned()
        });
        let failed = || {
            ErrorResponse::fatal(
                sqlstate::INVALID_PASSWORD,
                format!(
                    "password authentication failed for user \"{}\"",
                    startup.user
                ),
            )
        };
        let auth = account
            .as_ref()
            .and_then(|a| a.user.auth)
            .unwrap_or(self.live.settings.auth);
        let by_certificate = self.certificate_fits(account.as_deref());
        let proven = match (&account, auth) {
            _ if by_certificate => true,
            (Some(account), _) if account.user.certificate_required => {
                return Err(self.certificate_refused(&startup.user));
            }
            (account, AuthType::Trust) => account.is_some(),
            (account, AuthType::Scram) => self.scram(account.clone(), &startup.user).await?,
            (account, AuthType::Md5) => self.md5(account.as_deref(), &startup.user).await?,
            (account, AuthType::Plain) => self.plain(account.as_deref()).await?,
        };
        if !proven {
            tracing::info!(peer = %self.peer, user = %startup.user, database = %startup.database, known = account.is_some(), "login refused");
            return Err(failed().into());
        }
        exact.ok_or_else(|| {
            ErrorResponse::fatal(
                sqlstate::UNDEFINED_DATABASE,
                format!("database \"{}\" does not exist", startup.database),
            )
            .into()
        })
    }

    fn certificate_fits(&self, account: Option<&Account>) -> bool {
        let identity = account.and_then(|a| a.user.identity.as_deref());
        let presented = self.stream.as_ref().and_then(Stream::peer_identity);
        match (identity, presented) {
            (Some(identity), Some(presented)) => presented.name() == Some(identity),
            _ => false,
        }
    }

    /// What is told to a client that can only get in by a certificate, in PostgreSQL's words.
    fn certificate_refused(&self, user: &str) -> Fail {
        let presented = self
            .stream
            .as_ref()
            .is_some_and(|s| s.peer_identity().is_some());
        let text = if presented {
            format!("certificate authentication failed for user \"{user}\"")
        } else {
            "connection requires a valid client certificate".to_owned()
        };
        ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into()
    }

    async fn ask(&mut self, request: Authentication<'_>) -> Result<(), Fail> {
        let mut out = Vec::new();
        request.write(&mut out);
        Ok(write_all(self.stream()?, &out).await?)
    }

    /// The body of the client's answer to an authentication request.
    async fn answer(&mut self) -> Result<Vec<u8>, Fail> {
        let mut header = [0; 5];
        self.stream()?.read_exact(&mut header).await?;
        let header = pgdog_wire::Header::peek(&header)
            .ok()
            .flatten()
            .ok_or_else(|| violation("invalid message length"))?;
        if header.kind != b'p' {
            return Err(violation(&format!(
                "expected password response, got message type {}",
                header.kind
            )));
        }
        if header.len > PASSWORD_MAX {
            return Err(violation("password message is too long"));
        }
        let mut body = vec![0; header.len - 5];
        self.stream()?.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn scram(&mut self, account: Option<Arc<Account>>, user: &str) -> Result<bool, Fail> {
        let (secret, name) = (self.runtime.secret, user.to_owned());
        // PBKDF2 takes milliseconds the first time: not on the thread that serves others.
        let known = account.clone();
        let verifiers =
            tokio::task::spawn_blocking(move || known.and_then(|a| a.verifiers(&secret)))
                .await
                .unwrap_or_default();
        let real = verifiers.is_some();
        let verifiers = verifiers.unwrap_or_else(|| Arc::new(Verifiers::mock(&secret, &name)));
        let encrypted = self.stream()?.is_tls();
        let binding = match self.live.tls.as_ref().and_then(|t| t.channel_binding()) {
            Some(end_point) if encrypted => ChannelBinding::Supported(end_point.to_vec()),
            _ => ChannelBinding::Unsupported,
        };
        let mut list = Vec::new();
        for mechanism in binding.mechanisms() {
            list.extend_from_slice(mechanism.as_bytes());
            list.push(0);
        }
        list.push(0);
        self.ask(Authentication::Sasl(&list)).await?;
        let mut exchange = Exchange::new(verifiers, binding);
        let body = self.answer().await?;
        let (mechanism, first) = frontend::read_sasl_initial(&body)
            .ok_or_else(|| violation("malformed SASL message"))?;
        let reply = exchange
            .client_first(mechanism, first)
            .map_err(|e| e.response())?;
        self.ask(Authentication::SaslContinue(&reply)).await?;
        let body = self.answer().await?;
        match exchange.client_final(&body) {
            Ok(accepted) if real => {
                self.ask(Authentication::SaslFinal(&accepted.message))
                    .await?;
                Ok(true)
            }
            Ok(_) | Err(pgdog_wire::scram::ScramError::WrongPassword) => Ok(false),
            Err(error) => Err(error.response().into()),
        }
    }

    async fn md5(&mut self, account: Option<&Account>, user: &str) -> Result<bool, Fail> {
        let salt: [u8; 4] = rand::random();
        self.ask(Authentication::Md5(salt)).await?;
        let body = self.answer().await?;
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        let none = [String::from("\u{1}unknown")];
        let passwords = account.map_or(&none[..], |a| &a.user.credentials.passwords[..]);
        let right = passwords.iter().fold(false, |right, password| {
            right | md5::verify(user, password, salt, answer)
        });
        Ok(right && account.is_some())
    }

    async fn plain(&mut self, account: Option<&Account>) -> Result<bool, Fail> {
        let secure = self.stream()?.is_tls()
            || self.peer == Peer::Unix
            || self.live.settings.plain_without_tls;
        if !secure {
            let error = ErrorResponse::fatal(
                sqlstate::INVALID_AUTHORIZATION,
                "a plain password is not asked for without TLS",
            );
            return Err(error
                .hint("Connect with sslmode=require, or set plain_without_tls.")
                .into());
        }
        self.ask(Authentication::Cleartext).await?;
        let body = self.answer().await?;
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        let Ok(answer) = std::str::from_utf8(answer) else {
            return Ok(false);
        };
        let (secret, answer) = (self.runtime.secret, answer.to_owned());
        let known = account.is_some();
        // An unknown user costs as much as one with one password.
        let nobody = || pgdog_config::Credentials {
            passwords: vec!["\u{1}unknown".to_owned()],
            verifier: None,
        };
        let credentials = account.map_or_else(nobody, |a| a.user.credentials.clone());
        let user = account.map(|a| a.user.name.clone()).unwrap_or_default();
        // Compared by what is derived from them, so that the time says nothing of the text.
        let check = move || {
            let verifier = |password: &str| {
                pgdog_wire::scram::Verifier::from_password(
                    password,
                    &pgdog_wire::scram::Params::for_user(&secret, &user),
                )
            };
            let given = verifier(&answer).ok();
            let listed = credentials.passwords.iter().fold(false, |right, p| {
                right | (given.is_some() && verifier(p).ok() == given)
            });
            let stored = credentials
                .verifier
                .as_deref()
                .and_then(|v| pgdog_wire::scram::Verifier::parse(v).ok());
            (listed | stored.is_some_and(|v| v.matches(&answer))) && known
        };
        Ok(tokio::task::spawn_blocking(check).await.unwrap_or(false))
    }

    /// Takes the client in, finds out what its server would have told it, and tells it.
    async fn greet(&mut self, startup: Startup, account: Arc<Account>) -> Result<Client, Fail> {
        let settings = &self.live.settings;
        let limits = Limits {
            process: settings.max_client_conn,
            user: account.user.max_clients,
            database: account.user.pool.database_max_clients,
        };
        let (params, application_name, pin) = session_params(&startup);
        let params = self.runtime.interner.intern(params);
        let (peer_id, long) = (settings.peer_id, startup.minor >= 2);
        let newcomer = Newcomer {
            identity: &account.identity,
            peer: self.peer,
            kind: ClientKind::Normal,
            tls: self.stream.as_ref().is_some_and(Stream::is_tls),
            params: &params,
        };
        let registered = self
            .runtime
            .registry
            .register(limits, &newcomer, self.runtime.clock.now(), || {
                self.runtime.cancel_key(peer_id, long)
            })
            .map_err(|hit| too_many(hit, &account))?;
        if let Some(error) = &startup.bad_options {
            self.ask(Authentication::Ok).await?;
            return Err(error.response().into());
        }
        let mut nameless = (*params).clone();
        nameless.remove("application_name");
        let nameless = self.runtime.interner.intern(nameless);
        let known = match self.runtime.welcome(&account.pool, &nameless) {
            Some(known) => known,
            None => match self.learn_welcome(&account, &nameless).await {
                Ok(known) => known,
                Err(error) => {
                    // The password was right; it is the settings, or the server, that are not.
                    self.ask(Authentication::Ok).await?;
                    return Err(error);
                }
            },
        };
        let mut out = Vec::with_capacity(known.len() + 128);
        Authentication::Ok.write(&mut out);
        out.extend_from_slice(&known);
        let name = clean_ascii(&application_name.unwrap_or_default());
        backend::parameter_status(&mut out, b"application_name", name.as_bytes());
        backend::key_data(&mut out, registered.handle.pid, &registered.handle.secret);
        backend::ready(&mut out, TransactionStatus::Idle);
        write_all(self.stream()?, &out).await?;
        self.runtime.metrics.count(|m| &m.logins);
        let mut reasons = Reasons::NONE;
        reasons.put(Reasons::ASKED, pin);
        Ok(Client {
            stream: self.stream.take().ok_or(Fail::Io)?,
            live: self.live.clone(),
            id: self.runtime.next_client(),
            generation: self.generation,
            runtime: self.runtime.clone(),
            account,
            registered,
            worker: self.worker,
            startup: params.clone(),
            params,
            statements: None,
            pinned: None,
            reasons,
            token: 0,
            counted: false,
            listening: false,
        })
    }

    /// Asks a server of the pool what it says to a client with these settings; it refuses wrong ones as PostgreSQL does.
    async fn learn_welcome(
        &mut self,
        account: &Arc<Account>,
        params: &Arc<Params>,
    ) -> Result<Arc<[u8]>, Fail> {
        let mut account = account.clone();
        let mut server = loop {
            let error = match borrow(&account.pool, self.worker).await {
                Ok(server) => break server,
                Err(error) => error,
            };
            match self
                .runtime
                .live()
                .account(&account.user.name, &account.user.database)
            {
                // A reload has put another pool in its place meanwhile.
                Some(now)
                    if matches!(error, CheckoutError::Closed)
                        && !Arc::ptr_eq(&now.pool, &account.pool) =>
                {
                    account = now.clone()
                }
                _ => {
                    let mut response = error.response();
                    response.severity = Severity::Fatal;
                    return Err(response.into());
                }
            }
        };
        if let Err(error) = server
            .set_params(params, account.user.pool.connect_timeout)
            .await
        {
            let mut response = error.response();
            response.severity = Severity::Fatal;
            if server.owed.at_rest() {
                account.pool.release(server);
            }
            return Err(response.into());
        }
        let mut messages = Vec::new();
        // The application's name differs between clients of the same settings, and never fails.
        for (name, value) in server
            .reported
            .iter()
            .filter(|(n, _)| &**n != b"application_name")
        {
            backend::parameter_status(&mut messages, name, value);
        }
        account.pool.release(server);
        let messages: Arc<[u8]> = messages.into();
        self.runtime
            .remember_welcome(&account.pool, params.clone(), messages.clone());
        Ok(messages)
    }

    /// A replication connection has a server of its own; bytes pass both ways until one side closes.
    async fn replicate(
        &mut self,
        startup: &Startup,
        account: &Arc<Account>,
    ) -> Result<Login, Fail> {
        let target = account.pool.target();
        let mut parameters = target.parameters.clone();
        parameters.extend(
            startup
                .replication
                .iter()
                .map(|v| ("replication".to_owned(), v.clone())),
        );
        parameters.extend(startup.parameters.iter().cloned());
        let mut server = target
            .with_parameters(parameters)
            .connect()
            .await
            .map_err(|e| {
                let mut response = e.response();
                response.severity = Severity::Fatal;
                response
            })?;
        let mut out = Vec::new();
        Authentication::Ok.write(&mut out);
        for (name, value) in &server.reported {
            backend::parameter_status(&mut out, name, value);
        }
        if let Some(key) = &server.key {
            backend::key_data(&mut out, key.pid, &key.secret);
        }
        backend::ready(&mut out, TransactionStatus::Idle);
        write_all(self.stream()?, &out).await?;
        let mut stream = self.stream.take().ok_or(Fail::Io)?;
        // Served outside of the login's time limit.
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server.stream).await;
        });
        Ok(Login::Replication)
    }
}

/// A connection of the pool for the greeting.
async fn borrow(pool: &Arc<Pool>, worker: usize) -> Result<Box<Server>, CheckoutError> {
    let mut taken = std::future::poll_fn(|cx| Poll::Ready(pool.take(worker, cx))).await;
    loop {
        if let Some(server) = taken.take() {
            return Ok(server);
        }
        let mut waiting = pool.wait(worker);
        let server = std::future::poll_fn(|cx| waiting.poll(cx)).await?;
        taken = pool.prepare(server, worker).await;
    }
}

/// The settings that the client's session begins with, its application name, and whether it asks for a server of its own.
fn session_params(startup: &Startup) -> (Params, Option<String>, bool) {
    let mut params = Params::default();
    let (mut application_name, mut pin) = (None, false);
    for (name, value) in &startup.parameters {
        if name.eq_ignore_ascii_case("application_name") {
            application_name = Some(value.clone());
        }
        if name.eq_ignore_ascii_case("pgdog.pin") {
            pin = matches!(value.as_str(), "on" | "true" | "t" | "yes" | "1");
        }
        params.set(name, Value::Plain(value.as_str().into()));
    }
    (params, application_name, pin)
}

/// PostgreSQL keeps names of applications to printable ASCII (`pg_clean_ascii`).
fn clean_ascii(text: &str) -> String {
    text.bytes()
        .take(NAME_MAX)
        .map(|b| {
            if (32..127).contains(&b) {
                b as char
            } else {
                '?'
            }
        })
        .collect()
}

fn too_many(hit: LimitHit, account: &Account) -> ErrorResponse {
    let text = match hit {
        LimitHit::Process => "sorry, too many clients already (max_client_conn)".to_owned(),
        LimitHit::User => format!(
            "too many connections for role \"{}\" (max_user_client_connections)",
            account.user.name
        ),
        LimitHit::Database => format!(
            "too many connections for database \"{}\" (max_db_client_connections)",
            account.user.database
        ),
    };
    ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, text)
}

fn violation(message: &str) -> Fail {
    ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, message).into()
}
