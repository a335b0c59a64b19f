//! `RECONNECT` and `WAIT_CLOSE`.

use super::{scope, until, within};
use crate::admin::Admin;
use crate::answer::Answer;
use crate::command::{Args, Command, Running};

/// `RECONNECT [[user] database]`.
#[derive(Debug)]
pub(crate) struct Reconnect;

/// `WAIT_CLOSE [[user] database]`.
#[derive(Debug)]
pub(crate) struct WaitClose;

impl Command for Reconnect {
    fn name(&self) -> &'static str {
        "RECONNECT"
    }

    fn usage(&self) -> &'static str {
        "RECONNECT [[user] database]"
    }

    fn help(&self) -> &'static str {
        "Closes idle server connections now and those that clients have when they come back; new ones take their place."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let accounts = within(admin, &scope(admin, self, args)?);
            accounts.iter().for_each(|a| a.pool.reconnect());
            Ok(Answer::default())
        })
    }
}

impl Command for WaitClose {
    fn name(&self) -> &'static str {
        "WAIT_CLOSE"
    }

    fn usage(&self) -> &'static str {
        "WAIT_CLOSE [[user] database]"
    }

    fn help(&self) -> &'static str {
        "Waits until the server connections from before a RECONNECT are closed."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let scope = scope(admin, self, args)?;
            until(|| {
                let accounts = within(admin, &scope);
                accounts.iter().all(|a| a.pool.outdated() == 0)
            })
            .await;
            Ok(Answer::default())
        })
    }
}
