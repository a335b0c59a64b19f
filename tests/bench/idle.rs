//! What a client costs that does nothing: resident memory of the proxy per connection.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;

use crate::client::Client;
use crate::peer::Running;
use crate::process::{self, Usage};
use crate::report::{Figures, Metric};

/// Opens `few`, then `many` clients, each of which asks one query, and measures the memory both times.
pub(crate) fn clients(
    running: &Running,
    tls: Option<&Arc<ClientConfig>>,
    few: usize,
    many: usize,
) -> Result<Figures> {
    let pid = running.pid().context("find the proxy")?;
    let mut open: Vec<Client> = Vec::with_capacity(many);
    let mut resident_with = |count: usize| -> Result<f64> {
        while open.len() < count {
            let which = open.len();
            let mut client = Client::connect(running.port, tls)
                .with_context(|| format!("open client {which}"))?;
            // A client that never asked anything holds no statement, no server and no grown buffer: too easy.
            client
                .query("SELECT 1")
                .with_context(|| format!("ask as client {which}"))?;
            open.push(client);
        }
        process::resident(pid)
    };
    let one = resident_with(1)?;
    let with_few = resident_with(few)?;
    let with_many = resident_with(many)?;
    let before = Usage::of(Some(pid))?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let idle = Usage::of(Some(pid))?.since(before);
    Ok(vec![
        (
            Metric::BytesPerFewClients,
            (with_few - one) / (few - 1) as f64,
        ),
        (
            Metric::BytesPerManyClients,
            (with_many - one) / (many - 1) as f64,
        ),
        (Metric::Resident, with_many / 1024.0 / 1024.0),
        (Metric::IdleCpu, idle.cpu_us() / 1e6 * 100.0),
    ])
}
