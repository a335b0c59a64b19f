//! Views, one a file: the columns and where their values come from.

pub(crate) mod about;
pub(crate) mod bans;
pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod databases;
pub(crate) mod help;
pub(crate) mod listeners;
pub(crate) mod lists;
pub(crate) mod mem;
pub(crate) mod mirrors;
pub(crate) mod peers;
pub(crate) mod place;
pub(crate) mod pools;
pub(crate) mod prepared;
pub(crate) mod query_cache;
pub(crate) mod query_stats;
pub(crate) mod replication;
pub(crate) mod servers;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod users;

use crate::command::Show;

/// All views.
pub(crate) const ALL: &[&Show] = &[
    &clients::SHOW,
    &servers::SHOW,
    &pools::SHOW,
    &bans::SHOW,
    &replication::SHOW,
    &databases::SHOW,
    &users::SHOW,
    &stats::SHOW,
    &stats::TOTALS_BY_DATABASE,
    &stats::AVERAGES_BY_DATABASE,
    &stats::TOTALS,
    &config::SHOW,
    &prepared::SHOW,
    &query_cache::SHOW,
    &query_stats::SHOW,
    &listeners::SHOW,
    &lists::SHOW,
    &mem::SHOW,
    &mirrors::SHOW,
    &peers::SHOW,
    &sockets::SHOW,
    &sockets::ACTIVE,
    &state::SHOW,
    &about::VERSION,
    &about::INSTANCE,
    &help::SHOW,
];
