//! Figures for Prometheus, one subject a file. Names are ours and follow Prometheus' conventions; `upstream` has those
//! that dashboards of PgDog ask for besides, taken from the columns of the views.

mod certificates;
mod clients;
mod hosts;
mod listeners;
mod mirrors;
mod pools;
mod process;
mod render;
mod upstream;

use std::borrow::Cow;
use std::sync::Arc;

use pgdog_backend::PoolFigures;
use pgdog_backend::stats::{Durations, Totals};
use pgdog_net::ServerTls;
use pgdog_session::Account;

use crate::admin::{Admin, pool_key};
use crate::show::place;

pub(crate) use render::CONTENT;

/// How a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from the start of the process.
    Counter,
    /// Up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
    /// Not said: its name is not one that Prometheus' conventions have for how it moves.
    Untyped,
}

/// A label and its value.
pub type Label = (&'static str, String);

/// A value of a figure.
#[derive(Debug, Clone)]
pub enum Point {
    /// A number.
    Number(f64),
    /// Buckets.
    Durations(Box<Durations>),
}

/// A value of a figure, and what it belongs to.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Labels that many figures share.
    pub labels: Arc<[Label]>,
    /// One label of this figure's own.
    pub label: Option<Label>,
    /// The value.
    pub point: Point,
}

/// A figure, with one value for each set of labels.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is.
    pub help: Cow<'static, str>,
    /// How it moves.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<Sample>,
}

impl Metric {
    /// One without labels.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, kind: Kind, value: f64) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            kind,
            samples: vec![Sample::new(&Arc::default(), None, value)],
        }
    }

    /// One with a label, and a value for each of the label's.
    #[must_use]
    pub fn by<'a>(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Self {
        let none = Arc::default();
        let sample =
            |(of, value): (&str, f64)| Sample::new(&none, Some((label, of.to_owned())), value);
        Self {
            name: name.into(),
            help: help.into(),
            kind,
            samples: values.into_iter().map(sample).collect(),
        }
    }
}

impl Sample {
    fn new(labels: &Arc<[Label]>, label: Option<Label>, value: f64) -> Self {
        Self {
            labels: labels.clone(),
            label,
            point: Point::Number(value),
        }
    }
}

/// A pool at one moment: what several figures are made of.
struct At {
    account: Arc<Account>,
    figures: PoolFigures,
    totals: Totals,
    clients: usize,
    /// How long the client waits that has waited for longest, s.
    waited: f64,
}

/// The pools as they are now. Clients are counted once for all of them.
fn look(admin: &Admin) -> Vec<At> {
    let accounts = admin.accounts();
    let clients = place::clients(admin, &accounts, |_| true);
    let at = |account: Arc<Account>| At {
        figures: account.pool.figures(),
        totals: account.pool.counters.totals(),
        clients: clients.get(&pool_key(&account)).copied().unwrap_or(0),
        waited: account
            .pool
            .oldest_wait()
            .map_or(0.0, |since| admin.since(since) as f64 / 1e3),
        account,
    };
    accounts.into_iter().map(at).collect()
}

/// The text for Prometheus: `own` is what the process tells of itself, `admin_tls` the certificates of its admin API.
pub(crate) fn text(
    admin: &Admin,
    own: Vec<Metric>,
    admin_tls: Option<&ServerTls>,
    namespace: &str,
) -> String {
    let pools = look(admin);
    let mut all = clients::metrics(admin, &pools);
    all.extend(own);
    all.extend(certificates::metrics(admin, admin_tls));
    all.extend(pools::metrics(&pools));
    all.extend(hosts::metrics(admin, &pools));
    all.extend(upstream::metrics(admin));
    all.extend(listeners::metrics(admin));
    all.extend(mirrors::metrics(admin));
    let mut text = render::render(&all, namespace);
    // These have the same names in every program.
    text.push_str(&render::render(&process::metrics(admin), ""));
    text
}
