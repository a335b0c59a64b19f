//! What comes before the client says who it is: TLS and GSS requests, a cancel request, the startup packet.

use pgdog_net::Peer;
use pgdog_wire::backend;
use pgdog_wire::startup::{self, FirstPacket, Startup, VERSION_3_2};
use pgdog_wire::{ClientError, ErrorResponse, sqlstate};

use super::{Fail, Session, violation};

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

impl Session {
    /// TLS and GSS requests, then the startup packet.
    pub(super) async fn first_packets(&mut self) -> Result<FirstPacket, Fail> {
        let (mut asked_ssl, mut asked_gss) = (false, false);
        loop {
            let word = *self.fill(4).await?.first_chunk().ok_or(Fail::Io)?;
            if word[0] == TLS_HANDSHAKE && !asked_ssl && !asked_gss && !self.stream()?.is_tls() {
                self.direct_tls().await?;
                asked_ssl = true;
                continue;
            }
            let len = startup::packet_len(word).map_err(|e| e.response())?;
            let packet = startup::read(&self.fill(len).await?[..len]);
            self.input.consume(len);
            match packet.map_err(|e| e.response())? {
                FirstPacket::Ssl if !asked_ssl => {
                    asked_ssl = true;
                    self.answer_ssl().await?;
                }
                FirstPacket::Gss if !asked_gss => {
                    asked_gss = true;
                    self.out.push(b'N');
                    self.flush().await?;
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
            self.out.push(b'N');
            return self.flush().await;
        };
        // Whoever stands between could have put it there, to be taken for what the client says within TLS
        // (CVE-2021-23214).
        if !self.input.is_empty() {
            let error = ErrorResponse::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                "received unencrypted data after SSL request",
            );
            return Err(error
                .detail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
                .into());
        }
        self.out.push(b'S');
        self.flush().await?;
        let plain = self.stream.take().ok_or(Fail::Io)?;
        self.stream = Some(
            pgdog_net::accept(plain, &tls, &[])
                .await
                .map_err(|error| self.tls_failed(&error))?,
        );
        Ok(())
    }

    /// TLS from the first byte, as PostgreSQL 17's clients may begin: ALPN is not optional then. What has been read so far
    /// belongs to the handshake.
    async fn direct_tls(&mut self) -> Result<(), Fail> {
        let Some(tls) = self.live.tls.clone() else {
            return Err(Fail::Io);
        };
        let plain = self.stream.take().ok_or(Fail::Io)?;
        let begun = std::mem::take(&mut self.input);
        let stream = pgdog_net::accept(plain, &tls, begun.data())
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
    pub(super) fn negotiate(&mut self, startup: &Startup) {
        if startup.minor <= 2 && startup.protocol_options.is_empty() {
            return;
        }
        let version = VERSION_3_2.min(3 << 16 | u32::from(startup.minor));
        let unknown: Vec<_> = startup
            .protocol_options
            .iter()
            .map(String::as_str)
            .collect();
        backend::negotiate_version(&mut self.out, version, &unknown);
    }
}
