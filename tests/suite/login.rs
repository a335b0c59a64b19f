//! Who is let in: every way to prove it, on both sides of the proxy, and what is told to those who cannot.

pub(crate) mod clients;
mod secrecy;
mod servers;
mod startup;
mod tls;

use pgdog_tests::{Postgres, ProxyConfig};

/// A proxy's configuration that asks for passwords of this kind; no user yet.
fn asking(postgres: &Postgres, auth: &str) -> ProxyConfig {
    ProxyConfig::transaction(postgres)
        .general("auth_type", &format!("\"{auth}\""))
        .general("checkout_timeout", "1500")
}

/// The same in front of the shared Postgres, for `pgdog` with the password `secret`.
fn secret(auth: &str) -> ProxyConfig {
    asking(Postgres::shared(), auth)
        .database("postgres")
        .user("pgdog", "secret")
}

/// The last message an unwelcome client was sent.
fn refusal(frames: &[pgdog_tests::Frame]) -> String {
    frames
        .last()
        .map_or_else(|| "nothing".to_owned(), pgdog_tests::Frame::line)
}
