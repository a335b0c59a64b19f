//! `PROBE`.

use pgdog_config::{ClientAuth, Config, Settings};
use pgdog_wire::ClientError;

use super::healthcheck::check;
use crate::admin::Admin;
use crate::answer::{Answer, Refusal, bad_value};
use crate::command::{Args, Command, Running, usage};
use crate::row;
use crate::table::Column;

/// `PROBE url`.
#[derive(Debug)]
pub(crate) struct Probe;

const COLUMNS: &[Column] = &[Column::float(
    "latency",
    "Time from dialling to the answer, ms.",
)];

impl Command for Probe {
    fn name(&self) -> &'static str {
        "PROBE"
    }

    fn usage(&self) -> &'static str {
        "PROBE 'postgres://user:password@host:port/database'"
    }

    fn help(&self) -> &'static str {
        "Logs in to any server, sends an empty query, and tells how long that took."
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let [url] = args.words(self)?[..] else {
                return Err(usage(self));
            };
            let url = url.content().unwrap_or_default().to_owned();
            let mut config = Config::from_urls(&[url]).map_err(|p| bad_value(p.to_string()))?;
            // Nobody logs in here as this user, so it needs no password but the server's, if that asks for one.
            config.general.auth_type = ClientAuth::Trust;
            let (settings, _) = Settings::build(&config).map_err(|p| bad_value(p.to_string()))?;
            let user = settings.users.first().ok_or_else(|| {
                bad_value("the URL has no user")
                    .hint("It is written postgres://user:password@host:port/database.")
            })?;
            let target = admin.process.target(&user.pool).map_err(bad_value)?;
            let found = check(&target, user.pool.healthcheck_timeout).await;
            let took = found.map_err(|error| Refusal::from(error.response()))?;
            Ok(Answer::rows(vec![row![took.as_secs_f64() * 1e3]]))
        })
    }
}
