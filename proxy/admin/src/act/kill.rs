//! `KILL` and `KILL_CLIENT`.

use pgdog_session::{ClientKind, Signal};
use pgdog_wire::sqlstate;

use super::scope;
use crate::admin::Admin;
use crate::answer::{Answer, Refusal, bad_value};
use crate::command::{Args, Command, Running, usage};

/// `KILL [[user] database]`.
#[derive(Debug)]
pub(crate) struct Kill;

/// `KILL_CLIENT id`.
#[derive(Debug)]
pub(crate) struct KillClient;

impl Command for Kill {
    fn name(&self) -> &'static str {
        "KILL"
    }

    fn usage(&self) -> &'static str {
        "KILL [[user] database]"
    }

    fn help(&self) -> &'static str {
        "Disconnects all clients at once, cancels what they run, and closes their server connections; those who come wait until RESUME."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let scope = scope(admin, self, args)?;
            let runtime = &admin.runtime;
            // Paused already is as good.
            runtime.gates.pause(scope.clone(), || runtime.accounts());
            let mut clients = runtime.registry.all();
            clients.retain(|c| c.kind != ClientKind::Admin);
            clients.retain(|c| scope.covers(&c.identity.user, &c.identity.database));
            clients.iter().for_each(|c| c.signal(Signal::TERMINATE));
            tracing::warn!("the admin console disconnects {} clients", clients.len());
            let count = clients.len();
            Ok(Answer::notice(format!(
                "{count} clients are being disconnected; RESUME lets new ones go on"
            )))
        })
    }
}

impl Command for KillClient {
    fn name(&self) -> &'static str {
        "KILL_CLIENT"
    }

    fn usage(&self) -> &'static str {
        "KILL_CLIENT id"
    }

    fn help(&self) -> &'static str {
        "Disconnects one client, by its id in SHOW CLIENTS, and cancels what it runs."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let [id] = args.words(self)?[..] else {
                return Err(usage(self));
            };
            let text = id.content().unwrap_or_default();
            let pid: u32 = text
                .parse()
                .map_err(|_| bad_value(format!("\"{text}\" is not the id of a client")))?;
            let client = admin.runtime.registry.find(pid).ok_or_else(|| {
                Refusal::new(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("there is no client {pid}"),
                )
                .hint("SHOW CLIENTS id, user, database, state lists them.")
            })?;
            client.signal(Signal::TERMINATE);
            tracing::warn!(client = pid, "the admin console disconnects a client");
            Ok(Answer::default())
        })
    }
}
