//! `MAINTENANCE`.

use pgdog_session::Scope;

use super::find_database;
use crate::admin::Admin;
use crate::answer::Answer;
use crate::command::{Args, Command, Running, usage};

/// `MAINTENANCE ON|OFF [database]`.
#[derive(Debug)]
pub(crate) struct Maintenance;

impl Command for Maintenance {
    fn name(&self) -> &'static str {
        "MAINTENANCE"
    }

    fn usage(&self) -> &'static str {
        "MAINTENANCE ON|OFF [database]"
    }

    fn help(&self) -> &'static str {
        "Holds the clients' next transactions back, or lets them go on; server connections stay, and so does the switch over reloads."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let words = args.words(self)?;
            let (switch, database) = match words[..] {
                [switch] => (switch, None),
                [switch, database] => (switch, Some(find_database(admin, database)?)),
                _ => return Err(usage(self)),
            };
            let on = switch.is("ON");
            if !on && !switch.is("OFF") {
                return Err(usage(self));
            }
            let scope = Scope {
                database,
                user: None,
            };
            let runtime = &admin.runtime;
            runtime.gates.maintain(scope, on, || runtime.accounts());
            tracing::info!(on, "maintenance switched by the admin console");
            Ok(Answer::default())
        })
    }
}
