//! What clients listen to over the connection that their pool shares; nothing where none do.

use std::sync::atomic::{AtomicU64, Ordering};

use pgdog_backend::listener::{ChannelFigures, ListenerCounters};

use super::{Kind, Metric, Sample};
use crate::admin::Admin;
use crate::show::{listeners, place};

type Number = fn(&ChannelFigures) -> u64;
type Count = fn(&ListenerCounters) -> &AtomicU64;

/// By PgDog's names, for each channel that somebody listens to.
const CHANNELS: &[(Kind, &str, &str, Number)] = &[
    (
        Kind::Gauge,
        "pub_sub_listeners",
        "Clients that listen to a channel.",
        |of| of.clients as u64,
    ),
    (
        Kind::Untyped,
        "pub_sub_listener_received",
        "Notifications of a channel since somebody began to listen to it. PgDog's name.",
        |of| of.received,
    ),
    (
        Kind::Untyped,
        "pub_sub_listener_dropped",
        "Notifications of a channel that did not fit into what waits for a client. PgDog's name.",
        |of| of.dropped,
    ),
];

/// What becomes of notifications in a pool.
const OUTCOMES: &[(&str, Count)] = &[
    ("received", |of| &of.received),
    ("delivered", |of| &of.delivered),
    ("dropped", |of| &of.dropped),
];

pub(super) fn metrics(admin: &Admin) -> Vec<Metric> {
    let (mut channels, mut outcomes, mut disconnects) =
        (vec![Vec::new(); CHANNELS.len()], Vec::new(), Vec::new());
    for account in listeners::groups(&admin.accounts()) {
        let first = &account[0];
        let labels = [
            ("database", first.identity.database.clone()),
            ("user", first.identity.user.clone()),
        ];
        let count = |of: Count| {
            let counters = account.iter().map(|a| &a.pool.listener.counters);
            let counts = counters.map(|counters| of(counters).load(Ordering::Relaxed));
            counts.sum::<u64>() as f64
        };
        let lost = count(|of| &of.disconnects);
        if lost + count(|of| &of.received) > 0.0 {
            let labels = labels.clone().into();
            for (outcome, of) in OUTCOMES {
                let label = ("outcome", (*outcome).to_owned());
                outcomes.push(Sample::new(&labels, Some(label), count(*of)));
            }
            disconnects.push(Sample::new(&labels, None, lost));
        }
        let (shard, _) = place::shard_and_role(first);
        let [database, user] = labels;
        let shard = shard.as_text().unwrap_or_default().into_owned();
        let labels = [database, user, ("shard", shard)].into();
        for channel in listeners::channels(account) {
            for ((_, _, _, value), samples) in CHANNELS.iter().zip(&mut channels) {
                let label = ("channel", channel.channel.clone());
                samples.push(Sample::new(&labels, Some(label), value(&channel) as f64));
            }
        }
    }
    let of_channels = CHANNELS.iter().zip(channels);
    let of_channels = of_channels.map(|((kind, name, help, _), samples)| Metric {
        name: (*name).into(),
        help: (*help).into(),
        kind: *kind,
        samples,
    });
    let counter = |name: &'static str, help: &'static str, samples| Metric {
        name: name.into(),
        help: help.into(),
        kind: Kind::Counter,
        samples,
    };
    of_channels
        .chain([
            counter(
                "pub_sub_notifications_total",
                "Notifications that came, each of them once for each client that got it or did not.",
                outcomes,
            ),
            counter(
                "pub_sub_disconnects_total",
                "Losses of the connection that listens.",
                disconnects,
            ),
        ])
        .collect()
}
