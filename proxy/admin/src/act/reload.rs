//! `RELOAD`.

use pgdog_wire::sqlstate;

use crate::admin::Admin;
use crate::answer::{Answer, Refusal};
use crate::command::{Args, Command, Running};
use crate::control::Order;

/// `RELOAD`.
#[derive(Debug)]
pub(crate) struct Reload;

impl Command for Reload {
    fn name(&self) -> &'static str {
        "RELOAD"
    }

    fn usage(&self) -> &'static str {
        "RELOAD"
    }

    fn help(&self) -> &'static str {
        "Reads the configuration again and puts it in force; a wrong one changes nothing."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            args.none(self)?;
            match admin.process.order(Order::Reload).await {
                Ok(warnings) => {
                    let answer = Answer::default();
                    let warned = warnings.iter();
                    Ok(warned.fold(answer, |a, warning| a.and_warning(warning.to_string())))
                }
                Err(problems) => {
                    let text = "failed to reload, the configuration before stays in force";
                    let error = Refusal::new(sqlstate::CONFIG_FILE_ERROR, text);
                    Err(error.detail(problems))
                }
            }
        })
    }
}
