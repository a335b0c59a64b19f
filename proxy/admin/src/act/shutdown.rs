//! `SHUTDOWN`.

use crate::admin::Admin;
use crate::answer::{Answer, bad_value};
use crate::command::{Args, Command, Running, usage};
use crate::control::{self, Order};

/// `SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]`.
#[derive(Debug)]
pub(crate) struct Shutdown;

impl Command for Shutdown {
    fn name(&self) -> &'static str {
        "SHUTDOWN"
    }

    fn usage(&self) -> &'static str {
        "SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]"
    }

    fn help(&self) -> &'static str {
        "Lets nobody in any more and ends: after the running transactions, at most shutdown_timeout; with WAIT_FOR_SERVERS however long they take; with WAIT_FOR_CLIENTS when all clients have left."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let how = match args.0 {
                [] => control::Shutdown::Drain,
                [how] if how.is("WAIT_FOR_SERVERS") => control::Shutdown::WaitForServers,
                [how] if how.is("WAIT_FOR_CLIENTS") => control::Shutdown::WaitForClients,
                _ => return Err(usage(self)),
            };
            let done = admin.process.order(Order::Shutdown(how)).await;
            done.map(|_| Answer::default()).map_err(bad_value)
        })
    }
}
