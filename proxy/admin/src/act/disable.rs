//! `DISABLE` and `ENABLE`.

use super::find_database;
use crate::admin::Admin;
use crate::answer::{Answer, Refusal};
use crate::command::{Args, Command, Running, usage};

/// `DISABLE database`.
#[derive(Debug)]
pub(crate) struct Disable;

/// `ENABLE database`.
#[derive(Debug)]
pub(crate) struct Enable;

fn switch(
    admin: &Admin,
    command: &dyn Command,
    args: Args<'_>,
    off: bool,
) -> Result<Answer, Refusal> {
    let [database] = args.words(command)?[..] else {
        return Err(usage(command));
    };
    let database = find_database(admin, database)?;
    admin.runtime.gates.disable(&database, off);
    tracing::info!(database, off, "logins switched by the admin console");
    Ok(Answer::default())
}

impl Command for Disable {
    fn name(&self) -> &'static str {
        "DISABLE"
    }

    fn usage(&self) -> &'static str {
        "DISABLE database"
    }

    fn help(&self) -> &'static str {
        "Lets nobody log in to a database; clients that are there stay."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move { switch(admin, self, args, true) })
    }
}

impl Command for Enable {
    fn name(&self) -> &'static str {
        "ENABLE"
    }

    fn usage(&self) -> &'static str {
        "ENABLE database"
    }

    fn help(&self) -> &'static str {
        "Lets clients log in to a database again."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move { switch(admin, self, args, false) })
    }
}
