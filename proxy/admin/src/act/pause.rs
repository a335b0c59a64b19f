//! `PAUSE` and `RESUME`.

use pgdog_wire::sqlstate;

use super::{scope, until, within};
use crate::admin::Admin;
use crate::answer::{Answer, Refusal};
use crate::command::{Args, Command, Running};

/// `PAUSE [[user] database]`: answers when no server connection is left.
#[derive(Debug)]
pub(crate) struct Pause;

/// `RESUME [[user] database]`.
#[derive(Debug)]
pub(crate) struct Resume;

/// Takes a pause back whose PAUSE did not come to its end.
struct Undo<'a> {
    admin: &'a Admin,
    pause: Option<u64>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(pause) = self.pause {
            let runtime = &self.admin.runtime;
            runtime.gates.take_back(pause, || runtime.accounts());
        }
    }
}

impl Command for Pause {
    fn name(&self) -> &'static str {
        "PAUSE"
    }

    fn usage(&self) -> &'static str {
        "PAUSE [[user] database]"
    }

    fn help(&self) -> &'static str {
        "Lets transactions end and holds the next ones back, without a limit on their wait; answers when all server connections are closed. A client that keeps its server connection keeps PAUSE waiting."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let scope = scope(admin, self, args)?;
            let runtime = &admin.runtime;
            let accounts = || runtime.accounts();
            let Some(pause) = runtime.gates.pause(scope.clone(), accounts) else {
                return Err(Refusal::new(sqlstate::NOT_IN_STATE, "it is paused already"));
            };
            let mut undo = Undo {
                admin,
                pause: Some(pause),
            };
            tracing::info!("paused by an administrator");
            until(|| {
                let accounts = within(admin, &scope);
                !runtime.gates.is_paused(pause)
                    || accounts.iter().all(|a| a.pool.connections() == 0)
            })
            .await;
            undo.pause = None;
            if !runtime.gates.is_paused(pause) {
                let error = "it was resumed while transactions were waited for";
                return Err(Refusal::new(sqlstate::NOT_IN_STATE, error));
            }
            Ok(Answer::default())
        })
    }
}

impl Command for Resume {
    fn name(&self) -> &'static str {
        "RESUME"
    }

    fn usage(&self) -> &'static str {
        "RESUME [[user] database]"
    }

    fn help(&self) -> &'static str {
        "Ends a PAUSE or KILL, and those of parts of what is named."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let scope = scope(admin, self, args)?;
            let runtime = &admin.runtime;
            if runtime.gates.resume(&scope, || runtime.accounts()) {
                tracing::info!("resumed by an administrator");
                return Ok(Answer::default());
            }
            let error = Refusal::new(sqlstate::NOT_IN_STATE, "it is not paused");
            Err(error.hint(
                "A pause of everything ends with RESUME alone; SHOW POOLS tells what is paused.",
            ))
        })
    }
}
