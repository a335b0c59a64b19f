//! What became of the transactions that were to be mirrored; nothing where none are.

use std::sync::Arc;

use pgdog_session::MirrorView;

use super::{Kind, Label, Metric, Sample};
use crate::admin::Admin;

type Number = fn(&MirrorView) -> u64;

/// By PgDog's names, which have no type where they are not those of Prometheus' conventions.
const NUMBERS: &[(Kind, &str, &str, Number)] = &[
    (
        Kind::Untyped,
        "mirror_total_count",
        "Transactions of clients of a mirrored database. PgDog's name.",
        |view| view.total,
    ),
    (
        Kind::Untyped,
        "mirror_mirrored_count",
        "Transactions that were repeated without an error. PgDog's name.",
        |view| view.mirrored,
    ),
    (
        Kind::Untyped,
        "mirror_dropped_count",
        "Transactions that were to be mirrored and were not. PgDog's name.",
        |view| view.dropped,
    ),
    (
        Kind::Untyped,
        "mirror_error_count",
        "Transactions whose repetition gave an error. PgDog's name.",
        |view| view.errors,
    ),
    (
        Kind::Gauge,
        "mirror_queue_length",
        "Transactions that wait to be repeated.",
        |view| view.queued,
    ),
];

/// What may become of a transaction, by ours.
const OUTCOMES: &[(&str, Number)] = &[
    ("mirrored", |view| view.mirrored),
    ("dropped", |view| view.dropped),
    ("failed", |view| view.errors),
];

pub(super) fn metrics(admin: &Admin) -> Vec<Metric> {
    let views = admin.runtime.mirrors.views(&admin.runtime);
    let labelled: Vec<_> = views.iter().map(|view| (view, labels(view))).collect();
    let numbers = NUMBERS.iter().map(|(kind, name, help, value)| Metric {
        name: (*name).into(),
        help: (*help).into(),
        kind: *kind,
        samples: labelled
            .iter()
            .map(|(view, labels)| Sample::new(labels, None, value(view) as f64))
            .collect(),
    });
    let outcomes = labelled.iter().flat_map(|(view, labels)| {
        OUTCOMES.iter().map(move |(outcome, value)| {
            let label = ("outcome", (*outcome).to_owned());
            Sample::new(labels, Some(label), value(view) as f64)
        })
    });
    let outcomes = Metric {
        name: "mirror_transactions_total".into(),
        help: "Transactions that were to be mirrored and are done with.".into(),
        kind: Kind::Counter,
        samples: outcomes.collect(),
    };
    numbers.chain([outcomes]).collect()
}

fn labels(view: &MirrorView) -> Arc<[Label]> {
    [
        ("database", view.database.clone()),
        ("destination", view.destination.clone()),
        ("user", view.user.clone()),
    ]
    .into()
}
