//! When the certificates that are in use run out.

use pgdog_backend::Target;
use pgdog_net::{ClientTls, Expiry, ServerTls};

use super::{Kind, Metric};
use crate::admin::Admin;

pub(super) fn metrics(admin: &Admin, admin_tls: Option<&ServerTls>) -> Vec<Metric> {
    let live = admin.runtime.live();
    let targets: Vec<_> = admin.accounts().iter().map(|a| a.pool.target()).collect();
    let expiry = |target: &Target| target.tls.as_ref().map(ClientTls::expiry);
    let servers: Vec<_> = targets.iter().filter_map(|t| expiry(t)).collect();
    let first = |of: fn(&Expiry) -> Option<i64>| servers.iter().filter_map(of).min();
    let clients = live.tls.as_ref().map(ServerTls::expiry).unwrap_or_default();
    let admin = admin_tls.map(ServerTls::expiry).unwrap_or_default();
    let found = [
        ("clients", clients.own),
        ("clients_ca", clients.authorities),
        ("servers", first(|e| e.own)),
        ("servers_ca", first(|e| e.authorities)),
        ("admin", admin.own),
        ("admin_ca", admin.authorities),
    ];
    let known = found
        .into_iter()
        .filter_map(|(of, at)| Some((of, at? as f64)));
    vec![Metric::by(
        "certificate_expiry_timestamp_seconds",
        "When certificates run out that are shown to clients, to servers and by the admin API, and those of the authorities (_ca) that are asked for the other side; where there are several, the first.",
        Kind::Gauge,
        "certificate",
        known,
    )]
}
