//! The table of what can be asked of the admin API: the router and the OpenAPI document are both made of it.

use pgdog_config::api::{Half, RefusedBecause};

use super::console::{Act, Takes};
use crate::command::{Command, Show};
use crate::{act, show};

/// One path and method.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) asks: Asks,
    /// The status when it works.
    pub(super) status: u16,
    /// Why it may be refused, besides what any request may be refused for.
    pub(super) refusals: &'static [RefusedBecause],
}

/// What is asked for, and what the answer looks like.
#[derive(Debug)]
pub(super) enum Asks {
    /// That this half of a configuration is put in force.
    Push(Half),
    /// That this budget is put in force.
    Budget,
    /// To prepare a change of the fleet.
    Prepare,
    /// To put it in force.
    Commit,
    /// To undo it.
    Abort,
    /// A view of the console.
    View(&'static Show),
    /// A command of the console.
    Act(Act),
    /// What is in force.
    Config,
    /// How it goes.
    Status,
    /// To read the files again.
    Reload,
    /// To end.
    Drain,
}

const PUSH_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::Stale,
    RefusedBecause::WrongTarget,
    RefusedBecause::TooLarge,
    RefusedBecause::NotJson,
    RefusedBecause::Rejected,
    RefusedBecause::Draining,
    RefusedBecause::NotPersisted,
];

const PREPARE_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::NotFound,
    RefusedBecause::Stale,
    RefusedBecause::WrongState,
    RefusedBecause::Busy,
    RefusedBecause::WrongTarget,
    RefusedBecause::TooLarge,
    RefusedBecause::NotJson,
    RefusedBecause::Rejected,
    RefusedBecause::Draining,
];

const COMMIT_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::Stale,
    RefusedBecause::WrongState,
    RefusedBecause::Busy,
    RefusedBecause::WrongTarget,
    RefusedBecause::TooLarge,
    RefusedBecause::NotJson,
    RefusedBecause::Rejected,
    RefusedBecause::Draining,
    RefusedBecause::NotPersisted,
];

const ABORT_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::Stale,
    RefusedBecause::WrongState,
    RefusedBecause::TooLarge,
    RefusedBecause::NotJson,
];

const ACT_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::NotFound,
    RefusedBecause::WrongState,
];

/// Everything that can be asked.
pub(super) const OPERATIONS: &[Operation] = &[
    push_of(
        Half::Settings,
        "/v1/config/settings",
        "Puts settings in force: everything but hosts",
    ),
    push_of(
        Half::Topology,
        "/v1/config/topology",
        "Puts a topology in force: hosts, roles and shards",
    ),
    Operation {
        method: "put",
        path: "/v1/budget",
        summary: "Sets how many server connections each PostgreSQL host may have from this process",
        asks: Asks::Budget,
        status: 200,
        refusals: PUSH_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/prepare",
        summary: "Prepares a change that is made on all proxies of a fleet or none: checks it, holds the clients' next transactions back and waits until those that run have ended",
        asks: Asks::Prepare,
        status: 200,
        refusals: PREPARE_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/commit",
        summary: "Puts the prepared change in force; once more gives the same answer",
        asks: Asks::Commit,
        status: 200,
        refusals: COMMIT_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/abort",
        summary: "Undoes the prepared change: clients go on as before",
        asks: Asks::Abort,
        status: 200,
        refusals: ABORT_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/config",
        summary: "The configuration in force, without secrets",
        asks: Asks::Config,
        status: 200,
        refusals: &[],
    },
    Operation {
        method: "get",
        path: "/v1/status",
        summary: "What is in force, where it came from, and how it goes",
        asks: Asks::Status,
        status: 200,
        refusals: &[],
    },
    Operation {
        method: "post",
        path: "/v1/reload",
        summary: "Reads the configuration files again",
        asks: Asks::Reload,
        status: 200,
        refusals: &[RefusedBecause::Rejected],
    },
    Operation {
        method: "post",
        path: "/v1/drain",
        summary: "Lets clients finish and ends the process, as SIGTERM does",
        asks: Asks::Drain,
        status: 202,
        refusals: &[],
    },
    act_of(
        "/v1/pause",
        &act::pause::Pause,
        Takes::PoolsAndTime,
        PAUSE_REFUSALS,
    ),
    act_of(
        "/v1/resume",
        &act::pause::Resume,
        Takes::Pools,
        ACT_REFUSALS,
    ),
    act_of(
        "/v1/reconnect",
        &act::reconnect::Reconnect,
        Takes::Pools,
        RECONNECT_REFUSALS,
    ),
    act_of("/v1/ban", &act::ban::Ban, Takes::Hosts, RECONNECT_REFUSALS),
    act_of(
        "/v1/unban",
        &act::ban::Unban,
        Takes::Hosts,
        RECONNECT_REFUSALS,
    ),
    view_of("/v1/clients", &show::clients::SHOW),
    view_of("/v1/servers", &show::servers::SHOW),
    view_of("/v1/pools", &show::pools::SHOW),
    view_of("/v1/bans", &show::bans::SHOW),
    view_of("/v1/replication", &show::replication::SHOW),
    view_of("/v1/databases", &show::databases::SHOW),
    view_of("/v1/users", &show::users::SHOW),
    view_of("/v1/stats", &show::stats::SHOW),
    view_of("/v1/prepared", &show::prepared::SHOW),
    view_of("/v1/query_cache", &show::query_cache::SHOW),
    view_of("/v1/query_stats", &show::query_stats::SHOW),
    view_of("/v1/lists", &show::lists::SHOW),
    view_of("/v1/mem", &show::mem::SHOW),
    view_of("/v1/peers", &show::peers::SHOW),
    view_of("/v1/mirrors", &show::mirrors::SHOW),
    view_of("/v1/listeners", &show::listeners::SHOW),
    view_of("/v1/state", &show::state::SHOW),
];

const PAUSE_REFUSALS: &[RefusedBecause] = &[
    RefusedBecause::Malformed,
    RefusedBecause::NotFound,
    RefusedBecause::WrongState,
    RefusedBecause::Busy,
];

const RECONNECT_REFUSALS: &[RefusedBecause] =
    &[RefusedBecause::Malformed, RefusedBecause::NotFound];

const fn push_of(half: Half, path: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: "put",
        path,
        summary,
        asks: Asks::Push(half),
        status: 200,
        refusals: PUSH_REFUSALS,
    }
}

const fn view_of(path: &'static str, show: &'static Show) -> Operation {
    Operation {
        method: "get",
        path,
        summary: show.help,
        asks: Asks::View(show),
        status: 200,
        refusals: &[],
    }
}

const fn act_of(
    path: &'static str,
    command: &'static dyn Command,
    takes: Takes,
    refusals: &'static [RefusedBecause],
) -> Operation {
    Operation {
        method: "post",
        path,
        summary: "",
        asks: Asks::Act(Act { command, takes }),
        status: 200,
        refusals,
    }
}

impl Operation {
    /// What it does, in a sentence.
    pub(super) fn summary(&self) -> &'static str {
        match &self.asks {
            Asks::Act(act) => act.command.help(),
            _ => self.summary,
        }
    }
}
