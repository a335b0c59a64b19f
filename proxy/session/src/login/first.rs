//! What comes before the client says who it is: TLS and GSS requests, a cancel request, the startup packet.

use pgdog_net::Peer;
use pgdog_wire::backend;
use pgdog_wire::startup::{self, FirstPacket, Startup, VERSION_3_2};
use pgdog_wire::{ClientError, ErrorResponse, sqlstate};
use tokio::io::AsyncReadExt;

use super::{Fail, Session, violation};
use crate::client::write_all;

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

impl Session {
    /// TLS and GSS requests, then the startup packet.
    pub(super) async fn first_packets(&mut self) -> Result<FirstPacket, Fail> {
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
    pub(super) async fn negotiate(&mut self, startup: &Startup) -> Result<(), Fail> {
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
}
