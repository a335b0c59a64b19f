//! `[databases]` → `[[databases]]`, `[peers]` → `[[peers]]`.

use pgdog_config::{Problem, ProblemCode};

use super::auth::look_up;
use super::ini::pairs;
use super::settings::lifetime_of_database;
use super::userlist::{Listed, Secret};
use crate::import::Written;
use crate::import::emit::{Table, Value};
use crate::import::keys::Meaning::{Nothing, Same, Special};
use crate::import::keys::{Applied, Key, Kind, apply};

const SET_THERE: &str = "set it in PostgreSQL, as ALTER ROLE … IN DATABASE … SET …";

pub(super) const KEYS: &[Key] = &[
    ("dbname", Same("database_name", Kind::Path)),
    ("host", Special),
    ("port", Same("port", Kind::Count)),
    ("user", Special),
    ("password", Special),
    ("auth_user", Special),
    ("auth_query", Special),
    ("auth_dbname", Special),
    ("pool_size", Same("pool_size", Kind::Count)),
    ("min_pool_size", Same("min_pool_size", Kind::Count)),
    ("reserve_pool", Same("reserve_pool_size", Kind::Count)),
    ("reserve_pool_size", Same("reserve_pool_size", Kind::Count)),
    ("pool_mode", Same("pooler_mode", Kind::Mode)),
    (
        "max_db_connections",
        Same("max_db_connections", Kind::Count),
    ),
    (
        "max_db_client_connections",
        Same("max_db_client_connections", Kind::Count),
    ),
    ("server_lifetime", Special),
    (
        "query_wait_timeout",
        Nothing("general.checkout_timeout holds for all databases"),
    ),
    ("connect_query", Nothing(SET_THERE)),
    ("client_encoding", Nothing(SET_THERE)),
    ("datestyle", Nothing(SET_THERE)),
    ("timezone", Nothing(SET_THERE)),
    ("application_name", Nothing(SET_THERE)),
    ("load_balance_hosts", Special),
];

pub(super) const PEER_KEYS: &[Key] = &[
    ("host", Special),
    ("port", Same("port", Kind::Count)),
    (
        "pool_size",
        Nothing("cancel requests to a peer are not counted"),
    ),
];

/// What the meaning of a database depends on.
pub(super) struct Around<'a> {
    pub(super) general: &'a Table,
    pub(super) listed: &'a [Listed],
}

pub(super) fn tables(
    databases: &[Written],
    around: &Around<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Table> {
    let mut tables = Vec::new();
    for written in databases {
        match database(written, around) {
            Ok(of_database) => tables.extend(of_database),
            Err(more) => problems.extend(more),
        }
    }
    tables
}

fn database(written: &Written, around: &Around<'_>) -> Result<Vec<Table>, Vec<Problem>> {
    if written.key == "pgbouncer" {
        let message = "the name of PgBouncer's console; call the database something else";
        return Err(vec![written.error(ProblemCode::Conflict, message)]);
    }
    let pairs = pairs(written).map_err(|problem| vec![problem])?;
    let pair = |key: &str| {
        let last = pairs.iter().rev().find(|pair| pair.key == key);
        last.map(|pair| pair.value.as_str())
            .filter(|value| !value.is_empty())
    };
    let mut table = Table::new("[[databases]]");
    table.set("name", written.key.as_str().into());
    let hosts = hosts(pair("host"), around.general, written, &mut table);
    let mut problems = Vec::new();
    let section = format!("the connection string of {}", written.key);
    for pair in &pairs {
        let applied = match apply(KEYS, &section, pair, &mut table) {
            Ok(Applied::Special) if pair.key == "server_lifetime" => {
                lifetime_of_database(pair, &mut table)
            }
            Ok(_) => Ok(()),
            Err(problem) => Err(problem),
        };
        problems.extend(applied.err());
    }
    let last = |key: &str| pairs.iter().rev().find(|pair| pair.key == key);
    look_up(last, around.listed, &mut table);
    if let Some(user) = pair("user") {
        one_user(user, pair("password"), around, written, &mut table);
    }
    at_most_the_pool(around.general, written, &mut table);
    if !problems.is_empty() {
        return Err(problems);
    }
    let others = hosts.iter().skip(1).map(|host| {
        let mut other = table.clone_keys();
        other.set("host", host.as_str().into());
        other.disable(written.remark(
            "a further host of the list: PgBouncer opens its connections to all of them in turn. Here one host is the primary; \
             others of the same name need role = \"replica\", and then take reads only",
        ));
        other
    });
    let others: Vec<Table> = others.collect();
    if written.key == "*" {
        table.disable(written.remark(
            "no counterpart: a database has to be listed. Copy this for each one that clients ask for, with its name",
        ));
    }
    Ok(std::iter::once(table).chain(others).collect())
}

/// The hosts; the first one is set.
fn hosts(list: Option<&str>, general: &Table, written: &Written, table: &mut Table) -> Vec<String> {
    let Some(list) = list else {
        // Where PgBouncer itself listens, or did when it was built.
        let socket = general.text("unix_socket_dir").unwrap_or("/tmp");
        table.remark(
            written.remark("without host= PgBouncer takes the unix socket in its unix_socket_dir"),
        );
        table.set("host", socket.into());
        return Vec::new();
    };
    let hosts: Vec<String> = list.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts[0].starts_with('@') {
        table.remark(written.remark(
            "sockets in the abstract namespace are not supported, name a directory or a host",
        ));
    }
    table.set("host", hosts[0].as_str().into());
    hosts
}

/// A database whose server connections all belong to one user: PgBouncer has one pool for it, whoever the client is.
fn one_user(
    user: &str,
    password: Option<&str>,
    around: &Around<'_>,
    written: &Written,
    table: &mut Table,
) {
    table.set("user", user.into());
    let listed = around.listed.iter().find(|known| known.name == user);
    match (password, listed.map(|known| &known.secret)) {
        (Some(password), _) => table.set("password", password.into()),
        (None, Some(Secret::Plain(password))) => table.set("password", password.as_str().into()),
        (None, Some(Secret::Md5(hash))) => {
            table.remark(written.remark(
                "the hash serves where PostgreSQL asks for md5, otherwise write the password",
            ));
            table.set("password", hash.as_str().into());
        }
        (None, _) => table.remark(written.remark(
            "no password is known for this user; write it here unless the server asks for none",
        )),
    }
    if around.listed.len() > 1 && !table.has("max_db_connections") {
        let of =
            |key: &str, default: &str| table.number(key).or_else(|| around.general.number(default));
        let size = of("pool_size", "default_pool_size").unwrap_or(0)
            + of("reserve_pool_size", "reserve_pool_size").unwrap_or(0);
        table.remark(written.remark(
            "PgBouncer has one pool for this database, here each user has its own: the limit holds them together",
        ));
        table.set("max_db_connections", Value::Number(size));
    }
}

/// PgBouncer quietly keeps no more connections open than the pool may have; here that would be an error.
fn at_most_the_pool(general: &Table, written: &Written, table: &mut Table) {
    let size = table
        .number("pool_size")
        .or_else(|| general.number("default_pool_size"));
    let least = table
        .number("min_pool_size")
        .or_else(|| general.number("min_pool_size"));
    if let (Some(size), Some(least)) = (size, least)
        && least > size
    {
        table.remark(written.remark(
            "min_pool_size is larger than the pool, which PgBouncer takes as the pool's size",
        ));
        table.set("min_pool_size", Value::Number(size));
    }
}

pub(super) fn peers(peers: &[Written], problems: &mut Vec<Problem>) -> Vec<Table> {
    let mut tables = Vec::new();
    for written in peers {
        match peer(written) {
            Ok(table) => tables.push(table),
            Err(problem) => problems.push(problem),
        }
    }
    tables
}

fn peer(written: &Written) -> Result<Table, Problem> {
    let id = written
        .key
        .parse()
        .map_err(|_| written.error(ProblemCode::BadValue, "expected the number of a peer"))?;
    let mut table = Table::new("[[peers]]");
    table.set("id", Value::Number(id));
    let mut socket = false;
    for pair in &pairs(written)? {
        if apply(PEER_KEYS, "[peers]", pair, &mut table)? == Applied::Special {
            socket = pair.value.starts_with(['/', '@']);
            table.set("host", pair.value.as_str().into());
        }
    }
    if socket || !table.has("host") {
        table.disable(written.remark("a peer is reached by TCP here: write its address"));
    }
    Ok(table)
}
