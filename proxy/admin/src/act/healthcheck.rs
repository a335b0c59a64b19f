//! `HEALTHCHECK`.

use std::time::{Duration, Instant};

use pgdog_backend::{ServerError, Target};
use pgdog_session::Account;

use super::ban::keep_pool;
use crate::admin::Admin;
use crate::answer::Answer;
use crate::command::{Args, Command, Running, usage};
use crate::row;
use crate::show::place;
use crate::table::{Column, Value};

/// `HEALTHCHECK [pool_id]`.
#[derive(Debug)]
pub(crate) struct Healthcheck;

const COLUMNS: &[Column] = &[
    Column::int("id", "The id of the pool."),
    Column::text("database", "Database of the pool."),
    Column::text("user", "User of the pool."),
    Column::text("addr", "Address of the server."),
    Column::int("port", "Port of the server."),
    Column::bool(
        "healthy",
        "Whether the server let the user in and answered.",
    ),
    Column::float("latency", "Time that took, login included, ms."),
    Column::text("error", "What went wrong."),
];

impl Command for Healthcheck {
    fn name(&self) -> &'static str {
        "HEALTHCHECK"
    }

    fn usage(&self) -> &'static str {
        "HEALTHCHECK [pool_id]"
    }

    fn help(&self) -> &'static str {
        "Logs in to the host of a pool, or to all hosts as each user, over a connection of its own, and sends an empty query."
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let mut accounts = admin.accounts();
            match args.words(self)?[..] {
                [] => {}
                [id] => keep_pool(admin, &mut accounts, id.content().unwrap_or_default())?,
                _ => return Err(usage(self)),
            }
            // Side by side: one server that does not answer does not hold up the others.
            let checks: Vec<_> = accounts
                .iter()
                .map(|a| {
                    let (target, settings) = (a.pool.target(), a.pool.settings());
                    tokio::spawn(async move { check(&target, settings.healthcheck_timeout).await })
                })
                .collect();
            let mut rows = Vec::new();
            for (account, check) in accounts.iter().zip(checks) {
                let found = check.await.unwrap_or(Err(ServerError::Closed));
                rows.push(line(admin, account, &found));
            }
            Ok(Answer::rows(rows))
        })
    }
}

fn line(admin: &Admin, account: &Account, found: &Result<Duration, ServerError>) -> Vec<Value> {
    let (addr, port) = place::of_server(&account.pool.target().address);
    row![
        admin.pool_id(account),
        account.identity.database.as_str(),
        account.identity.user.as_str(),
        addr,
        port,
        found.is_ok(),
        found.as_ref().ok().map(|took| took.as_secs_f64() * 1e3),
        found.as_ref().err().map(ServerError::to_string),
    ]
}

/// How long a server takes to let somebody in and to answer. Not cancel safe (the connection is lost).
pub(super) async fn check(target: &Target, timeout: Duration) -> Result<Duration, ServerError> {
    let began = Instant::now();
    let mut server = target.connect().await?;
    server.query(";", timeout).await?;
    let took = began.elapsed();
    server.close();
    Ok(took)
}
