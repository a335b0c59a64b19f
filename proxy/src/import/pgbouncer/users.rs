//! `userlist.txt` and `[users]` → `[[users]]`, `admin_users` → `[admin]`.

use pgdog_config::Problem;

use super::auth::Auth;
use super::ini::pairs;
use super::settings::Settings;
use super::userlist::{Listed, Secret};
use crate::import::Written;
use crate::import::emit::{Table, Value};
use crate::import::keys::Meaning::{Near, Nothing, Same};
use crate::import::keys::{Key, Kind, apply};

const FOR_ALL: &str = "this limit is one for all users, see [general]";

pub(super) const KEYS: &[Key] = &[
    ("pool_size", Same("pool_size", Kind::Count)),
    ("reserve_pool_size", Same("reserve_pool_size", Kind::Count)),
    ("pool_mode", Same("pooler_mode", Kind::Mode)),
    (
        "max_user_connections",
        Near(
            "max_user_connections",
            Kind::Count,
            "counts for the user of the client here, for the user of the server there; where databases have a user= of their own the two differ",
        ),
    ),
    (
        "max_user_client_connections",
        Same("max_user_client_connections", Kind::Count),
    ),
    ("query_timeout", Nothing(FOR_ALL)),
    ("query_wait_timeout", Nothing(FOR_ALL)),
    ("idle_transaction_timeout", Nothing(FOR_ALL)),
    ("transaction_timeout", Nothing(FOR_ALL)),
    ("client_idle_timeout", Nothing(FOR_ALL)),
];

/// What the meaning of a user depends on.
pub(super) struct Around<'a> {
    pub(super) auth: Auth,
    pub(super) general: &'a Table,
    pub(super) databases: &'a [Table],
    pub(super) listed: &'a [Listed],
}

pub(super) fn tables(
    settings: &[Written],
    around: &Around<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Table> {
    let mut tables = Vec::new();
    for user in around.listed {
        let mut table = Table::new("[[users]]");
        table.set("name", user.name.as_str().into());
        table.set("all_databases", Value::Flag(true));
        prove(user, around, &mut table);
        if let Some(written) = settings.iter().find(|written| written.key == user.name) {
            problems.extend(own_settings(written, around, &mut table));
        }
        tables.push(table);
    }
    let unlisted = settings
        .iter()
        .filter(|written| !around.listed.iter().any(|user| user.name == written.key));
    for written in unlisted {
        let mut table = Table::new("[[users]]");
        table.set("name", written.key.as_str().into());
        table.set("all_databases", Value::Flag(true));
        problems.extend(own_settings(written, around, &mut table));
        if !around.auth.needs_no_password() {
            table.disable(
                written.remark(
                    "this user is not in the user list: write its password or password_hash",
                ),
            );
        }
        tables.push(table);
    }
    tables
}

fn own_settings(written: &Written, around: &Around<'_>, table: &mut Table) -> Vec<Problem> {
    let pairs = match pairs(written) {
        Ok(pairs) => pairs,
        Err(problem) => return vec![problem],
    };
    let section = format!("the settings of user {}", written.key);
    let problems = pairs
        .iter()
        .filter_map(|pair| apply(KEYS, &section, pair, table).err())
        .collect();
    let least = around
        .databases
        .iter()
        .chain([around.general])
        .filter_map(|table| table.number("min_pool_size"))
        .max();
    if let (Some(size), Some(least)) = (table.number("pool_size"), least)
        && least > size
    {
        table.remark(written.remark(
            "min_pool_size is larger than this pool, which PgBouncer takes as the pool's size",
        ));
        table.set("min_pool_size", Value::Number(size));
    }
    problems
}

/// How the user logs in, and how the proxy logs in to the server for it.
fn prove(user: &Listed, around: &Around<'_>, table: &mut Table) {
    let say = |text: &str| format!("{}: user \"{}\": {text}", user.place, user.name);
    if around.auth == Auth::Cert {
        table.set("identity", user.name.as_str().into());
    }
    match &user.secret {
        Secret::Missing if around.auth.needs_no_password() || around.auth == Auth::Hba => {}
        Secret::Missing => table.disable(say("has no password, so nobody can log in as it, there as here")),
        Secret::Plain(password) => table.set("password", password.as_str().into()),
        Secret::Md5(_) if around.auth == Auth::Scram => table.disable(say(
            "an MD5 hash cannot answer SCRAM, there as here: write the password, or the verifier of pg_authid as password_hash",
        )),
        Secret::Md5(hash) => {
            table.remark(say("an MD5 hash: good for clients, and for servers that ask for md5; a server that asks for SCRAM needs server_password"));
            table.set("password", hash.as_str().into());
            if matches!(around.auth, Auth::Plain | Auth::Foreign) {
                table.set("auth_type", "md5".into());
            }
        }
        Secret::Scram(verifier) => {
            table.set("password_hash", verifier.as_str().into());
            if around.general.text("auth_type") == Some("md5") {
                table.set("auth_type", "scram".into());
            }
            let knows = |database: &Table| database.has("user");
            if around.databases.is_empty() || !around.databases.iter().all(knows) {
                table.remark(say("a verifier lets clients in, but not the proxy into the server: write server_password, unless the server asks for no password"));
            }
        }
    }
}

/// The console: PgBouncer's database of that name, and the first of its administrators.
pub(super) fn admin(settings: &Settings, listed: &[Listed]) -> Option<Table> {
    let mut table = Table::new("[admin]");
    let names = |key: &str| {
        let list = settings.text(key).unwrap_or("").split(',').map(str::trim);
        list.filter(|name| !name.is_empty()).collect::<Vec<_>>()
    };
    if let Some((first, others)) = names("admin_users").split_first() {
        table.set("name", "pgbouncer".into());
        table.set("user", (*first).into());
        let secret = listed
            .iter()
            .find(|user| user.name == *first)
            .map(|user| &user.secret);
        match secret {
            Some(Secret::Plain(password)) => table.set("password", password.as_str().into()),
            _ => table.remark("admin_users: write the password of the console here; without one it is a random one at each start"),
        }
        if !others.is_empty() {
            table.remark(format!(
                "admin_users: the console has one user here, not {}",
                others.join(", ")
            ));
        }
    }
    if let Some(written) = settings.get("stats_users").filter(|w| !w.value.is_empty()) {
        table.remark(written.remark("no counterpart: the console has one user"));
    }
    (table.has("name") || settings.text("stats_users").is_some()).then_some(table)
}
