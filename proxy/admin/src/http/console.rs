//! The console's views and commands by HTTP: the same tables, the same orders, the same refusals.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::Response;
use pgdog_config::api::{Done, Refused, RefusedBecause};
use pgdog_wire::sqlstate;
use serde::Deserialize;

use super::routes::{answer, json};
use crate::admin::Admin;
use crate::answer::Refusal;
use crate::command::{Args, Command, Show};
use crate::lexer::Token;

/// How long an order may wait that is not told how long, ms.
pub(super) const WAIT: u64 = 30_000;
/// How long an order may wait at most, ms.
pub(super) const WAIT_MAX: u64 = 600_000;

/// An order for some pools or hosts.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) command: &'static dyn Command,
    pub(super) takes: Takes,
}

/// What an order may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Which pools.
    Pools,
    /// Which pools, and how long it may wait.
    PoolsAndTime,
    /// Which hosts.
    Hosts,
}

/// Which pools or hosts, and how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActQuery {
    database: Option<String>,
    user: Option<String>,
    host: Option<String>,
    #[serde(rename = "timeoutMs")]
    timeout_ms: Option<u64>,
}

/// The rows of a view.
pub(super) fn view(show: &Show, admin: &Admin) -> Response {
    json(StatusCode::OK, &show.table(admin).to_json())
}

/// Does something. When the one who asks goes away before it is done, it is taken back.
pub(super) async fn act(
    act: &Act,
    admin: Arc<Admin>,
    query: Result<Query<ActQuery>, QueryRejection>,
) -> Response {
    let (args, limit) = match read(act, query) {
        Ok(read) => read,
        Err(refused) => return answer::<Done>(StatusCode::OK, Err(refused)),
    };
    let running = act.command.run(&admin, Args(&args));
    let done = match pgdog_net::timer::timeout(limit, running).await {
        Ok(Ok(done)) => Ok(Done {
            notices: done.notices.into_iter().map(|n| n.message).collect(),
        }),
        Ok(Err(refusal)) => Err(refused(&refusal)),
        Err(_) => {
            let message = format!(
                "not done within {} ms, because clients keep their server connections; it was taken back: /v1/clients tells who they are, timeoutMs waits longer",
                limit.as_millis()
            );
            Err(Refused::new(RefusedBecause::Busy, message))
        }
    };
    answer(StatusCode::OK, done)
}

/// What stands behind the command's name in the console, and how long it may take.
fn read(
    act: &Act,
    query: Result<Query<ActQuery>, QueryRejection>,
) -> Result<(Vec<Token>, Duration), Refused> {
    let malformed = |message: &str| Refused::new(RefusedBecause::Malformed, message);
    let wrong = || {
        malformed(match act.takes {
            Takes::Pools => "it takes database and user, each once",
            Takes::PoolsAndTime => {
                "it takes database, user and timeoutMs, each once, and timeoutMs is a number"
            }
            Takes::Hosts => "it takes database and host, each once",
        })
    };
    let query = query.map_err(|_| wrong())?.0;
    let limit = match query.timeout_ms {
        None => WAIT,
        Some(_) if act.takes != Takes::PoolsAndTime => return Err(wrong()),
        Some(limit) if limit <= WAIT_MAX => limit,
        Some(_) => return Err(malformed(&format!("timeoutMs is at most {WAIT_MAX}"))),
    };
    let other = if act.takes == Takes::Hosts {
        &query.user
    } else {
        &query.host
    };
    if other.is_some() {
        return Err(wrong());
    }
    let args = match (query.user, query.database, query.host) {
        (Some(_), None, _) => {
            return Err(malformed("a user is one of a database: name it as well"));
        }
        (_, None, Some(_)) => {
            return Err(malformed("a host is one of a database: name it as well"));
        }
        (user, database, host) => user.into_iter().chain(database).chain(host),
    };
    // Names as they are, whatever the console would do with capital letters.
    let args = args.map(Token::Quoted).collect();
    Ok((args, Duration::from_millis(limit)))
}

/// A refusal of the console in the words of HTTP.
fn refused(refusal: &Refusal) -> Refused {
    let because = match refusal.code.as_str() {
        sqlstate::UNDEFINED_DATABASE | UNDEFINED_OBJECT => RefusedBecause::NotFound,
        sqlstate::NOT_IN_STATE => RefusedBecause::WrongState,
        sqlstate::SYNTAX_ERROR | sqlstate::INVALID_PARAMETER_VALUE => RefusedBecause::Malformed,
        _ => RefusedBecause::Internal,
    };
    let mut message = refusal.message.clone();
    for more in refusal.detail.iter().chain(&refusal.hint) {
        message.push_str(": ");
        message.push_str(more);
    }
    Refused::new(because, message)
}

const UNDEFINED_OBJECT: &str = "42704";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act;

    const PAUSE: Act = Act {
        command: &act::pause::Pause,
        takes: Takes::PoolsAndTime,
    };
    const RESUME: Act = Act {
        command: &act::pause::Resume,
        takes: Takes::Pools,
    };
    const BAN: Act = Act {
        command: &act::ban::Ban,
        takes: Takes::Hosts,
    };

    fn told(act: &Act, query: &str) -> Result<(Vec<Token>, Duration), RefusedBecause> {
        let uri = format!("http://x/?{query}").parse().unwrap();
        read(act, Query::try_from_uri(&uri)).map_err(|refused| refused.error)
    }

    #[test]
    fn the_query_says_which_pools_and_how_long() {
        let quoted = |name: &str| Token::Quoted(name.to_owned());
        let (args, limit) = told(&PAUSE, "database=D%20b&user=u&timeoutMs=5").unwrap();
        assert_eq!(args, [quoted("u"), quoted("D b")]);
        assert_eq!(limit, Duration::from_millis(5));
        assert_eq!(told(&PAUSE, "").unwrap().0, []);
        for wrong in [
            "user=u",
            "databse=d",
            "timeoutMs=x",
            "timeoutMs=600001",
            "database=a&database=b",
        ] {
            assert_eq!(
                told(&PAUSE, wrong),
                Err(RefusedBecause::Malformed),
                "{wrong}"
            );
        }
        assert_eq!(told(&RESUME, "timeoutMs=1"), Err(RefusedBecause::Malformed));
    }

    #[test]
    fn hosts_are_named_for_what_is_about_hosts_alone() {
        let quoted = |name: &str| Token::Quoted(name.to_owned());
        let (args, _) = told(&BAN, "database=d&host=h:5432").unwrap();
        assert_eq!(args, [quoted("d"), quoted("h:5432")]);
        for wrong in ["host=h", "database=d&user=u", "database=d&timeoutMs=1"] {
            assert_eq!(told(&BAN, wrong), Err(RefusedBecause::Malformed), "{wrong}");
        }
        let wrong = told(&PAUSE, "database=d&host=h");
        assert_eq!(wrong, Err(RefusedBecause::Malformed));
    }

    #[test]
    fn refusals_of_the_console_have_a_status() {
        let of = |code| {
            refused(&Refusal::new(code, "no").hint("try"))
                .error
                .status()
        };
        assert_eq!(of(sqlstate::UNDEFINED_DATABASE), 404);
        assert_eq!(of("42704"), 404);
        assert_eq!(of(sqlstate::NOT_IN_STATE), 409);
        assert_eq!(of(sqlstate::SYNTAX_ERROR), 400);
        let told = refused(&Refusal::new(sqlstate::NOT_IN_STATE, "no").hint("try"));
        assert_eq!(told.message, "no: try");
    }
}
