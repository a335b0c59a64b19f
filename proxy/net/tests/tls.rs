//! TLS over loopback: both ends are ours.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "the test has a runtime with timers"
)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgdog_net::{
    Address, ClientTls, ClientTlsOptions, Detached, Listener, NetError, ServerTls,
    ServerTlsOptions, Stream, TcpOptions, TlsVerify, accept, connect, dial,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A directory with an authority, a server's and a client's certificate.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("pgdog-net-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Self { dir };

        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        files.write("ca.crt", &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);

        files.leaf("server", &["localhost"], &issuer);
        files.leaf("client", &["alice.example", "other.example"], &issuer);
        files.leaf("named", &[], &issuer);
        files
    }

    fn leaf(&self, name: &str, names: &[&str], issuer: &Issuer<'_, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(
            DnType::CommonName,
            if name == "named" { "localhost" } else { name },
        );
        self.write(
            &format!("{name}.crt"),
            &params.signed_by(&key, issuer).unwrap().pem(),
        );
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// A certificate for `localhost` that signs itself and was valid in the year 2020.
    fn expired(&self) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        self.write("old.crt", &params.self_signed(&key).unwrap().pem());
        self.write("old.key", &key.serialize_pem());
    }

    /// What `openssl req -x509` makes: self-signed, and marked as an authority.
    fn self_signed(&self) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "localhost");
        self.write("self.crt", &params.self_signed(&key).unwrap().pem());
        self.write("self.key", &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn server(&self, name: &str) -> ServerTls {
        ServerTls::load(&self.server_options(name)).unwrap()
    }

    fn server_options(&self, name: &str) -> ServerTlsOptions {
        ServerTlsOptions::new(
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        )
    }

    fn client(&self, verify: TlsVerify, ca: Option<&str>) -> ClientTls {
        self.client_with(verify, ca, None)
    }

    fn client_with(
        &self,
        verify: TlsVerify,
        ca: Option<&str>,
        identity: Option<&str>,
    ) -> ClientTls {
        let identity = identity.map(|name| {
            (
                self.path(&format!("{name}.crt")),
                self.path(&format!("{name}.key")),
            )
        });
        let options = ClientTlsOptions {
            verify,
            ca: ca.map(|name| self.path(name)),
            identity,
        };
        ClientTls::load(&options).unwrap().unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Two ends of a loopback connection: (dialled, accepted).
async fn plain_pair() -> (Stream, Stream) {
    let listener =
        Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, TcpOptions::default()).unwrap();
    let address = Address::new("127.0.0.1", listener.port().unwrap());
    let (client, accepted) = (
        dial(&address, Duration::from_secs(5), &TcpOptions::default()).await,
        listener.accept().await,
    );
    (client.unwrap(), accepted.stream.attach().unwrap())
}

/// Runs both handshakes: (client's result, server's result).
async fn handshake(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Stream, NetError>, Result<Stream, NetError>) {
    let (dialled, accepted) = plain_pair().await;
    tokio::join!(
        connect(dialled, client, host),
        accept(accepted, server, &[])
    )
}

async fn tls_pair(files: &Files) -> (Stream, Stream) {
    let client = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let (client, server) = handshake(&files.server("server"), &client, "localhost").await;
    (client.unwrap(), server.unwrap())
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index.wrapping_mul(31) ^ (index >> 11) ^ seed) as u8)
        .collect()
}

async fn ping(from: &mut Stream, to: &mut Stream, text: &[u8]) {
    from.write_all(text).await.unwrap();
    from.flush().await.unwrap();
    let mut buf = vec![0; text.len()];
    to.read_exact(&mut buf).await.unwrap();
    assert_eq!(buf, text);
}

fn error_of(result: Result<Stream, NetError>) -> String {
    match result {
        Ok(_) => panic!("the handshake should have failed"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn both_ends_agree_on_data_alpn_and_channel_binding() {
    let files = Files::new();
    let (mut client, mut server) = tls_pair(&files).await;
    assert!(client.is_tls() && server.is_tls());
    ping(&mut client, &mut server, b"select 1").await;
    ping(&mut server, &mut client, b"1").await;
    assert_eq!(client.alpn(), Some(&b"postgresql"[..]));
    assert_eq!(server.alpn(), Some(&b"postgresql"[..]));
    assert_eq!(client.tls().unwrap().version(), "TLSv1.3");
    let binding = client.channel_binding().unwrap();
    assert_eq!(binding.len(), 32);
    assert_eq!(Some(binding), server.channel_binding());
    assert_eq!(
        server.channel_binding().as_deref(),
        files.server("server").channel_binding()
    );
    assert_eq!(server.peer_identity(), None);
    assert!(client.peer_identity().unwrap().is("localhost"));
}

#[tokio::test]
async fn a_goodbye_ends_the_stream() {
    let files = Files::new();
    let (mut client, mut server) = tls_pair(&files).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    assert_eq!(
        server.read(&mut [0; 8]).await.unwrap(),
        0,
        "the end is terminal"
    );
    // Half-closed: the other direction still works.
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");
    assert!(client.write_all(b"more").await.is_err());
}

#[tokio::test]
async fn a_socket_closed_without_a_goodbye_is_an_end_as_well() {
    let files = Files::new();
    let (client, mut server) = tls_pair(&files).await;
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn prefer_takes_a_self_signed_certificate_of_another_name() {
    let files = Files::new();
    files.self_signed();
    let client = files.client(TlsVerify::Prefer, None);
    for host in ["elsewhere.example", "10.0.0.1", "not a host name"] {
        let (client, server) = handshake(&files.server("self"), &client, host).await;
        ping(&mut client.unwrap(), &mut server.unwrap(), b"x").await;
    }
}

#[tokio::test]
async fn verify_full_refuses_another_host_and_verify_ca_does_not() {
    let files = Files::new();
    let server = files.server("server");
    let full = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let (client, accepted) = handshake(&server, &full, "elsewhere.example").await;
    assert!(error_of(client).contains("elsewhere.example"));
    assert!(
        error_of(accepted).contains("alert"),
        "the server is told why"
    );
    assert!(error_of(handshake(&server, &full, "127.0.0.1").await.0).contains("127.0.0.1"));

    let ca = files.client(TlsVerify::VerifyCa, Some("ca.crt"));
    let (client, accepted) = handshake(&server, &ca, "elsewhere.example").await;
    ping(&mut client.unwrap(), &mut accepted.unwrap(), b"x").await;
}

#[tokio::test]
async fn verify_ca_refuses_an_unknown_authority() {
    let files = Files::new();
    let other = Files::new();
    for verify in [TlsVerify::VerifyCa, TlsVerify::VerifyFull] {
        let client = files.client(verify, Some("ca.crt"));
        let (client, _) = handshake(&other.server("server"), &client, "localhost").await;
        let told = error_of(client);
        let file = files.path("ca.crt");
        let words = format!(
            "the server's certificate is not signed by a CA in tls_server_ca_certificate ({})",
            file.display()
        );
        assert!(told.contains(&words), "{told}");
    }
}

#[tokio::test]
async fn a_self_signed_server_certificate_can_be_its_own_authority() {
    let files = Files::new();
    files.self_signed();
    let client = files.client(TlsVerify::VerifyFull, Some("self.crt"));
    let (client_end, server_end) = handshake(&files.server("self"), &client, "localhost").await;
    ping(&mut client_end.unwrap(), &mut server_end.unwrap(), b"x").await;
    error_of(
        handshake(&files.server("self"), &client, "elsewhere")
            .await
            .0,
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_in_words() {
    let files = Files::new();
    files.self_signed();
    files.expired();
    let reason = async |server: &str, ca: &str, host: &str| {
        let client = files.client(TlsVerify::VerifyFull, Some(ca));
        match handshake(&files.server(server), &client, host).await.0 {
            Err(NetError::Certificate { reason, .. }) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{server} is accepted"),
        }
    };
    let told = reason("self", "ca.crt", "localhost").await;
    assert!(
        told.contains("marked as a CA (CA:TRUE")
            && told.contains("add it to tls_server_ca_certificate"),
        "{told}"
    );
    let told = reason("old", "old.crt", "localhost").await;
    assert!(
        told.contains("expired on Dec 31 ") && told.contains(" 2020 "),
        "{told}"
    );
    let told = reason("server", "ca.crt", "db.example").await;
    assert!(
        told.contains("is for localhost, and not for db.example") && told.contains("verify_ca"),
        "{told}"
    );
    let told = reason("server", "client.crt", "localhost").await;
    assert!(told.contains("is not signed by a CA in"), "{told}");
}

#[tokio::test]
async fn the_common_name_counts_where_there_are_no_alternative_names() {
    let files = Files::new();
    let client = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let (client_end, server_end) = handshake(&files.server("named"), &client, "localhost").await;
    ping(&mut client_end.unwrap(), &mut server_end.unwrap(), b"x").await;
    error_of(
        handshake(&files.server("named"), &client, "elsewhere")
            .await
            .0,
    );
}

#[tokio::test]
async fn mutual_tls_names_the_client() {
    let files = Files::new();
    let mut options = files.server_options("server");
    options.client_ca = Some(files.path("ca.crt"));
    let optional = ServerTls::load(&options).unwrap();
    options.client_certificate_required = true;
    let required = ServerTls::load(&options).unwrap();

    let alice = files.client_with(TlsVerify::VerifyFull, Some("ca.crt"), Some("client"));
    for server in [&optional, &required] {
        let (client, accepted) = handshake(server, &alice, "localhost").await;
        let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
        ping(&mut client, &mut accepted, b"x").await;
        let identity = accepted.peer_identity().unwrap();
        assert!(identity.is("alice.example"), "{identity:?}");
        assert_eq!(identity.common_name.as_deref(), Some("client"));
        assert_eq!(identity.dns_names, ["alice.example", "other.example"]);
    }

    let nobody = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let (client, accepted) = handshake(&optional, &nobody, "localhost").await;
    ping(&mut client.unwrap(), &mut accepted.unwrap(), b"x").await;
    let (client, accepted) = handshake(&required, &nobody, "localhost").await;
    error_of(accepted);
    // TLS 1.3: the client is done before the server has looked. The alert comes with the first read.
    assert!(client.unwrap().read(&mut [0; 8]).await.is_err());

    let other = Files::new();
    let stranger = ClientTls::load(&ClientTlsOptions {
        verify: TlsVerify::VerifyFull,
        ca: Some(files.path("ca.crt")),
        identity: Some((other.path("client.crt"), other.path("client.key"))),
    });
    let (_, accepted) = handshake(&optional, &stranger.unwrap().unwrap(), "localhost").await;
    error_of(accepted);
}

#[tokio::test]
async fn bytes_read_ahead_belong_to_the_handshake() {
    let files = Files::new();
    let (dialled, mut accepted) = plain_pair().await;
    let server = files.server("server");
    let client = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let accepting = async {
        let mut first = [0];
        accepted.read_exact(&mut first).await.unwrap();
        assert_eq!(first, [0x16]);
        accept(accepted, &server, &first).await
    };
    let (client, accepted) = tokio::join!(connect(dialled, &client, "localhost"), accepting);
    ping(&mut client.unwrap(), &mut accepted.unwrap(), b"x").await;
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_is_an_error() {
    let files = Files::new();
    let (mut dialled, accepted) = plain_pair().await;
    dialled
        .write_all(b"\0\0\0\x08\x04\xd2\x16\x2fwhat is this")
        .await
        .unwrap();
    error_of(accept(accepted, &files.server("server"), &[]).await);

    let (dialled, accepted) = plain_pair().await;
    drop(dialled);
    assert!(
        error_of(accept(accepted, &files.server("server"), &[]).await)
            .contains("closed the connection")
    );
}

#[tokio::test]
async fn a_forged_record_ends_the_session_for_good() {
    let files = Files::new();
    let server = files.server("server");
    let client = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    // A man in the middle who forwards faithfully until told to forge.
    let (dialled, middle_client) = plain_pair().await;
    let (middle_server, accepted) = plain_pair().await;
    let (forge, forged) = tokio::sync::oneshot::channel();
    let relay = tokio::spawn(async move {
        let (mut from_client, mut to_client) = tokio::io::split(middle_client);
        let (mut from_server, mut to_server) = tokio::io::split(middle_server);
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            _ = forged => {}
        }
        let mut record = vec![0x17, 3, 3, 0, 64];
        record.extend([0x5a; 64]);
        to_server.write_all(&record).await.unwrap();
        let mut alert = Vec::new();
        drop(from_server.read_to_end(&mut alert).await);
        alert
    });
    let (client, accepted) = tokio::join!(
        connect(dialled, &client, "localhost"),
        accept(accepted, &server, &[])
    );
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
    ping(&mut client, &mut accepted, b"still faithful").await;
    forge.send(()).unwrap();
    let error = accepted.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(
        accepted.read(&mut [0; 8]).await.is_err(),
        "a failed session stays failed"
    );
    assert!(accepted.write_all(b"x").await.is_err());
    drop(accepted);
    assert_eq!(
        relay.await.unwrap().len(),
        5 + 2 + 1 + 16,
        "the peer is told by one encrypted alert"
    );
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let files = Files::new();
    files.write("empty.pem", "");
    let load = |certificate: &str, key: &str, ca: Option<&str>| {
        let mut options = ServerTlsOptions::new(files.path(certificate), files.path(key));
        options.client_ca = ca.map(|name| files.path(name));
        ServerTls::load(&options).err().unwrap().to_string()
    };
    let missing = load("missing.crt", "server.key", None);
    assert!(
        missing.contains("missing.crt") && missing.contains("no such file"),
        "{missing}"
    );
    let empty = load("empty.pem", "server.key", None);
    assert!(
        empty.contains("empty.pem") && empty.contains("no certificate"),
        "{empty}"
    );
    let no_key = load("server.crt", "ca.crt", None);
    assert!(
        no_key.contains("ca.crt") && no_key.contains("private key"),
        "{no_key}"
    );
    let other_key = load("server.crt", "client.key", None);
    assert!(other_key.contains("client.key"), "{other_key}");
    let bad_ca = load("server.crt", "server.key", Some("empty.pem"));
    assert!(
        bad_ca.contains("empty.pem") && bad_ca.contains("CA certificate"),
        "{bad_ca}"
    );
    assert!(
        ClientTls::load(&ClientTlsOptions {
            verify: TlsVerify::Disabled,
            ..Default::default()
        })
        .unwrap()
        .is_none()
    );
}

/// Sends `sent` and receives `expected` at the same time, in pieces of odd sizes.
async fn exchange(stream: Stream, sent: Vec<u8>, expected: Vec<u8>, piece: usize) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        for chunk in sent.chunks(piece) {
            writer.write_all(chunk).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    let mut buf = vec![0; 10_007];
    loop {
        let count = reader.read(&mut buf).await.unwrap();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&buf[..count]);
    }
    writing.await.unwrap();
    assert_eq!(received.len(), expected.len());
    assert!(received == expected, "bytes differ");
}

#[tokio::test]
async fn big_transfers_arrive_whole_in_both_directions() {
    let files = Files::new();
    let (client, server) = tls_pair(&files).await;
    let (up, down) = (pattern(20 << 20, 1), pattern(20 << 20, 2));
    let one = tokio::spawn(exchange(client, up.clone(), down.clone(), 100_003));
    let two = tokio::spawn(exchange(server, down, up, 65_536));
    one.await.unwrap();
    two.await.unwrap();
}

#[tokio::test]
async fn tiny_writes_arrive_whole() {
    let files = Files::new();
    let (client, server) = tls_pair(&files).await;
    let (up, down) = (pattern(60_000, 1), pattern(90_000, 2));
    let one = tokio::spawn(exchange(client, up.clone(), down.clone(), 1));
    let two = tokio::spawn(exchange(server, down, up, 7));
    one.await.unwrap();
    two.await.unwrap();
}

#[tokio::test]
async fn records_are_small_enough_for_libpq() {
    let files = Files::new();
    let (dialled, mut middle_client) = plain_pair().await;
    let (mut middle_server, accepted) = plain_pair().await;
    let client = files.client(TlsVerify::VerifyFull, Some("ca.crt"));
    let server = files.server("server");
    let wire = tokio::spawn(async move {
        // Forward the handshake's two flights and what follows, keeping what the server says.
        let (mut from_client, mut to_client) = tokio::io::split(&mut middle_client);
        let (mut from_server, mut to_server) = tokio::io::split(&mut middle_server);
        let mut seen = Vec::new();
        let up = tokio::io::copy(&mut from_client, &mut to_server);
        let down = async {
            let mut buf = vec![0; 65_536];
            loop {
                let count = from_server.read(&mut buf).await.unwrap();
                if count == 0 {
                    break to_client.shutdown().await.unwrap();
                }
                seen.extend_from_slice(&buf[..count]);
                to_client.write_all(&buf[..count]).await.unwrap();
            }
        };
        drop(tokio::join!(up, down));
        seen
    });
    let (client, accepted) = tokio::join!(
        connect(dialled, &client, "localhost"),
        accept(accepted, &server, &[])
    );
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
    accepted.write_all(&pattern(200_000, 3)).await.unwrap();
    accepted.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 200_000);
    client.shutdown().await.unwrap();
    drop((client, accepted));
    let seen = wire.await.unwrap();
    let mut rest = &seen[..];
    let mut largest = 0;
    while rest.len() >= 5 {
        let len = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        largest = largest.max(len);
        rest = &rest[5 + len..];
    }
    assert!(rest.is_empty());
    assert!(
        (8_000..8_192 + 32).contains(&largest),
        "largest record: {largest}"
    );
}

/// A current-thread runtime on its own thread, as a worker is.
fn on_other_worker<F, T>(work: F) -> std::thread::JoinHandle<T>
where
    F: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work())
    })
}

/// Moves `stream` to another worker while its peer is sending, and answers from there.
async fn migrate_while_sending(mut stream: Stream, mut peer: Stream) {
    let sent = pattern(3 << 20, 4);
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        peer.write_all(&sent).await.unwrap();
        peer.flush().await.unwrap();
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"done");
    });
    // Stop in the middle of a record, with decrypted bytes left over.
    let mut received = vec![0; 12_345];
    stream.read_exact(&mut received).await.unwrap();
    let detached: Detached = stream.detach().unwrap();
    let worker = on_other_worker(async move || {
        let mut stream = detached.attach().unwrap();
        let mut rest = vec![0; expected.len() - received.len()];
        stream.read_exact(&mut rest).await.unwrap();
        received.extend(rest);
        assert!(received == expected, "bytes differ");
        stream.write_all(b"done").await.unwrap();
        stream.flush().await.unwrap();
    });
    sending.await.unwrap();
    worker.join().unwrap();
}

#[tokio::test]
async fn a_plain_stream_moves_to_another_worker_with_data_in_flight() {
    let (one, two) = plain_pair().await;
    migrate_while_sending(one, two).await;
}

#[tokio::test]
async fn a_tls_stream_moves_to_another_worker_with_data_in_flight() {
    let files = Files::new();
    let (one, two) = tls_pair(&files).await;
    migrate_while_sending(one, two).await;
    let (one, two) = tls_pair(&files).await;
    migrate_while_sending(two, one).await;
}

#[tokio::test]
async fn unsent_ciphertext_moves_along() {
    let files = Files::new();
    let (mut client, mut server) = tls_pair(&files).await;
    // Fill the sockets until the engine has to keep something.
    let block = pattern(32 << 10, 5);
    let mut expected = Vec::new();
    while let Ok(Ok(count)) =
        tokio::time::timeout(Duration::from_millis(50), client.write(&block)).await
    {
        expected.extend_from_slice(&block[..count]);
    }
    let detached = client.detach().unwrap();
    let worker = on_other_worker(async move || {
        let mut client = detached.attach().unwrap();
        client.shutdown().await.unwrap();
        // Stay until the peer has read all: closing early could reset the connection.
        drop(client.read(&mut [0; 1]).await);
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(
        received == expected,
        "{} of {} bytes",
        received.len(),
        expected.len()
    );
    drop(server);
    worker.join().unwrap();
}

#[tokio::test]
async fn an_idle_stream_wakes_by_readiness() {
    let files = Files::new();
    let (mut client, mut server) = tls_pair(&files).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(20), server.readable())
            .await
            .is_err()
    );
    client.write_all(b"four").await.unwrap();
    server.readable().await.unwrap();
    let mut two = [0; 2];
    server.read_exact(&mut two).await.unwrap();
    // Decrypted already, and nothing in the socket: still ready.
    server.readable().await.unwrap();
    server.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"ur");
    assert!(
        tokio::time::timeout(Duration::from_millis(20), server.readable())
            .await
            .is_err()
    );
}

#[test]
fn streams_are_small_and_can_change_threads() {
    const fn sendable<T: Send + 'static>() {}
    sendable::<Stream>();
    sendable::<Detached>();
    sendable::<ServerTls>();
    sendable::<ClientTls>();
    assert!(size_of::<Stream>() <= 48);
}

/// A client that is not ours: rustls as others use it, blocking, with full-sized records.
mod foreign_client {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    };
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::{Files, Listener, PathBuf, TcpOptions, accept, pattern};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn dial_foreign(
        port: u16,
        ca: PathBuf,
        version: &'static SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// Echoes what the foreign client sends; it changes its keys between the two halves where it can.
    async fn echo(version: &'static SupportedProtocolVersion, name: &str) {
        let files = Files::new();
        let listener =
            Listener::tcp("127.0.0.1:0".parse().unwrap(), 16, TcpOptions::default()).unwrap();
        let (port, ca) = (listener.port().unwrap(), files.path("ca.crt"));
        let client = std::thread::spawn(move || {
            let mut stream = dial_foreign(port, ca, version);
            for half in 0..2 {
                let data = pattern(1 << 20, half);
                for chunk in data.chunks(50_000) {
                    stream.write_all(chunk).unwrap();
                    stream.flush().unwrap();
                    let mut back = vec![0; chunk.len()];
                    stream.read_exact(&mut back).unwrap();
                    assert!(back == chunk);
                }
                if version.version == rustls::ProtocolVersion::TLSv1_3 {
                    stream.conn.refresh_traffic_keys().unwrap();
                }
            }
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        });
        let stream = listener.accept().await.stream.attach().unwrap();
        let mut stream = accept(stream, &files.server("server"), &[]).await.unwrap();
        assert_eq!(stream.tls().unwrap().version(), name);
        assert_eq!(stream.alpn(), None);
        let mut buf = vec![0; 5_000];
        loop {
            let count = stream.read(&mut buf).await.unwrap();
            if count == 0 {
                break;
            }
            stream.write_all(&buf[..count]).await.unwrap();
            stream.flush().await.unwrap();
        }
        client.join().unwrap();
    }

    #[tokio::test]
    async fn speaks_tls_1_2() {
        echo(&rustls::version::TLS12, "TLSv1.2").await;
    }

    #[tokio::test]
    async fn speaks_tls_1_3_and_changes_its_keys() {
        echo(&rustls::version::TLS13, "TLSv1.3").await;
    }
}
