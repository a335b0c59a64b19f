//! `auth_query`: for each database the query, who runs it and where; a database over `[general]`.

use std::collections::BTreeMap;

use super::AuthQuery;
use super::build::Report;
use crate::databases::Database;
use crate::problem::ProblemCode;

/// The queries of all databases that have a user to run them.
pub(super) fn all(report: &mut Report<'_>) -> Vec<AuthQuery> {
    let config = report.config;
    let mut databases: BTreeMap<&str, Vec<(usize, &Database)>> = BTreeMap::new();
    for (index, host) in config.databases.iter().enumerate() {
        databases.entry(&host.name).or_default().push((index, host));
    }
    let mut queries = Vec::new();
    for (name, hosts) in &databases {
        // It is about the database as a whole, so the first host that says something is followed.
        let pick =
            |key: fn(&Database) -> Option<&String>| hosts.iter().find_map(|(_, host)| key(host));
        let general = &config.general;
        let user = pick(|host| host.auth_user.as_ref()).or(general.auth_user.as_ref());
        let Some(user) = user.filter(|user| !user.is_empty()) else {
            continue;
        };
        let runs_in = pick(|host| host.auth_dbname.as_ref())
            .or(general.auth_dbname.as_ref())
            .map_or(*name, String::as_str);
        let query = pick(|host| host.auth_query.as_ref()).unwrap_or(&general.auth_query);
        let query = AuthQuery {
            database: (*name).to_owned(),
            user: user.clone(),
            runs_in: runs_in.to_owned(),
            query: query.clone(),
        };
        let place = |key: &str, set: fn(&Database) -> bool| match hosts
            .iter()
            .find(|(_, host)| set(host))
        {
            Some((index, _)) => format!("databases[{index}].{key}"),
            None => format!("general.{key}"),
        };
        if !databases.contains_key(runs_in) {
            let path = place("auth_dbname", |host| host.auth_dbname.is_some());
            let message = format!("no database \"{runs_in}\" in [[databases]]");
            report.error(&path, ProblemCode::UnknownName, message);
        } else if !config.users.iter().any(|known| known.name == *user) {
            let path = place("auth_user", |host| host.auth_user.is_some());
            let message = format!("no user \"{user}\" in [[users]] to run auth_query");
            report.error(&path, ProblemCode::UnknownName, message);
        }
        if !query.query.contains("$1") {
            let path = place("auth_query", |host| host.auth_query.is_some());
            let message = "needs $1 in place of the name of the user";
            report.error(&path, ProblemCode::BadValue, message);
        }
        queries.push(query);
    }
    queries
}
