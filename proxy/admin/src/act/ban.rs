//! `BAN` and `UNBAN`: hosts that an administrator takes out of the reads, and back in.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgdog_backend::HostState;
use pgdog_session::Account;

use super::find_database;
use crate::admin::Admin;
use crate::answer::{Answer, Refusal, bad_value};
use crate::command::{Args, Command, Running, usage};
use crate::lexer::Token;

/// `BAN [pool_id | database [host]]`.
#[derive(Debug)]
pub(crate) struct Ban;

/// `UNBAN [pool_id | database [host]]`.
#[derive(Debug)]
pub(crate) struct Unban;

impl Command for Ban {
    fn name(&self) -> &'static str {
        "BAN"
    }

    fn usage(&self) -> &'static str {
        "BAN [pool_id | database [host[:port]]]"
    }

    fn help(&self) -> &'static str {
        "Sends no reads to the host of a pool, to those of a database, or to all, until UNBAN; the primary still takes writes. The pools of all users of the database at that host are meant."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let chosen = hosts(admin, self, args)?;
            let several: Vec<_> = chosen.iter().filter(|host| !is_alone(host)).collect();
            if several.is_empty() {
                return Err(alone());
            }
            let mut answer = Answer::default();
            for host in several {
                host.ban_manually("an administrator has banned it");
                answer = answer.and_notice(format!(
                    "{} of database \"{}\" is banned until UNBAN",
                    host.address, host.database
                ));
            }
            Ok(answer)
        })
    }
}

impl Command for Unban {
    fn name(&self) -> &'static str {
        "UNBAN"
    }

    fn usage(&self) -> &'static str {
        "UNBAN [pool_id | database [host[:port]]]"
    }

    fn help(&self) -> &'static str {
        "Ends the ban of the host of a pool, of those of a database, or of all, whatever it is for; what is still wrong with a host is found again."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let mut answer = Answer::default();
            for host in hosts(admin, self, args)? {
                if host.is_free() {
                    continue;
                }
                host.unban();
                answer = answer.and_notice(format!(
                    "{} of database \"{}\" is no longer banned",
                    host.address, host.database
                ));
            }
            if answer.notices.is_empty() {
                answer = answer.and_notice("no host was banned");
            }
            Ok(answer)
        })
    }
}

/// Whether it is the only host of its database.
fn is_alone(host: &HostState) -> bool {
    host.home().is_none_or(|home| home.hosts().len() < 2)
}

fn alone() -> Refusal {
    let error = bad_value("a host without others beside it takes all its clients");
    error.hint("PAUSE and DISABLE hold clients back.")
}

/// The hosts that are meant, each once.
fn hosts(
    admin: &Admin,
    command: &dyn Command,
    args: Args<'_>,
) -> Result<Vec<Arc<HostState>>, Refusal> {
    let mut accounts = admin.accounts();
    match args.words(command)?[..] {
        [] => {}
        [Token::Word(id)] if id.parse::<i64>().is_ok() => keep_pool(admin, &mut accounts, id)?,
        [database] => keep_database(admin, &mut accounts, database)?,
        [database, host] => {
            keep_database(admin, &mut accounts, database)?;
            keep_host(&mut accounts, host.content().unwrap_or_default())?;
        }
        _ => return Err(usage(command)),
    }
    let hosts = accounts.iter().filter_map(|a| a.pool.host());
    let hosts: BTreeMap<_, _> = hosts.map(|host| (host.id, host.clone())).collect();
    Ok(hosts.into_values().collect())
}

/// Leaves the pool with this number.
pub(super) fn keep_pool(
    admin: &Admin,
    accounts: &mut Vec<Arc<Account>>,
    id: &str,
) -> Result<(), Refusal> {
    let wanted: Option<i64> = id.parse().ok();
    accounts.retain(|a| Some(admin.pool_id(a)) == wanted);
    if accounts.is_empty() {
        let error = bad_value(format!("there is no pool {id}"));
        return Err(error.hint("SHOW POOLS id, database, user, addr, port lists them."));
    }
    Ok(())
}

fn keep_database(
    admin: &Admin,
    accounts: &mut Vec<Arc<Account>>,
    name: &Token,
) -> Result<(), Refusal> {
    let database = find_database(admin, name)?;
    accounts.retain(|a| a.identity.database == database);
    Ok(())
}

/// Leaves the hosts with this address, with or without the port.
fn keep_host(accounts: &mut Vec<Arc<Account>>, wanted: &str) -> Result<(), Refusal> {
    let database = accounts.first().map(|a| a.identity.database.clone());
    let address = |account: &Account| account.pool.target().address.to_string();
    let known = |account: &Account| {
        let address = address(account);
        let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
        address == wanted || host == wanted
    };
    let all: Vec<_> = accounts.iter().map(|a| address(a)).collect();
    accounts.retain(|a| known(a));
    if accounts.is_empty() {
        let error = bad_value(format!(
            "database \"{}\" has no host {wanted}",
            database.unwrap_or_default()
        ));
        let mut all = all;
        all.sort();
        all.dedup();
        return Err(error.hint(format!("It has {}.", all.join(", "))));
    }
    Ok(())
}
