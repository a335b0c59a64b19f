//! `RESET PREPARED`, `RESET QUERY_CACHE`, `RESET QUERY_STATS`.

use crate::admin::Admin;
use crate::answer::Answer;
use crate::command::{Args, Command, Running};

/// `RESET PREPARED`.
#[derive(Debug)]
pub(crate) struct ResetPrepared;

impl Command for ResetPrepared {
    fn name(&self) -> &'static str {
        "RESET PREPARED"
    }

    fn usage(&self) -> &'static str {
        "RESET PREPARED"
    }

    fn help(&self) -> &'static str {
        "Forgets the prepared statements that no client has."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            args.none(self)?;
            let gone = admin.runtime.store.sweep();
            Ok(Answer::notice(format!("{gone} statements are forgotten")))
        })
    }
}

/// `RESET QUERY_CACHE`.
#[derive(Debug)]
pub(crate) struct ResetQueryCache;

impl Command for ResetQueryCache {
    fn name(&self) -> &'static str {
        "RESET QUERY_CACHE"
    }

    fn usage(&self) -> &'static str {
        "RESET QUERY_CACHE"
    }

    fn help(&self) -> &'static str {
        "Forgets what is remembered of queries to decide where they run."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            args.none(self)?;
            admin.runtime.planner.clear();
            Ok(Answer::default())
        })
    }
}

/// `RESET QUERY_STATS`.
#[derive(Debug)]
pub(crate) struct ResetQueryStats;

impl Command for ResetQueryStats {
    fn name(&self) -> &'static str {
        "RESET QUERY_STATS"
    }

    fn usage(&self) -> &'static str {
        "RESET QUERY_STATS"
    }

    fn help(&self) -> &'static str {
        "Begins the statistics of queries anew."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            args.none(self)?;
            admin.runtime.insight.reset();
            Ok(Answer::default())
        })
    }
}
