//! `[pools.NAME]` → `[[databases]]`, `[[users]]` and `[[sharded_tables]]`.

use std::collections::BTreeSet;

use pgdog_config::{Problem, ProblemCode, nearest};

use super::keys::{POOL, SHARD, USER};
use super::tree::{Entry, Node, scalars};
use crate::import::emit::{Table, Value};
use crate::import::keys::{Applied, Kind, apply, flag, value};
use crate::import::{Place, Written};

/// A pool with everything that becomes of it.
pub(super) struct Pool {
    name: String,
    /// Its keys, as they were written.
    settings: Vec<Written>,
    replicas: bool,
    pub(super) databases: Vec<Table>,
    pub(super) users: Vec<Table>,
    pub(super) sharded: Vec<Table>,
}

/// A server of a shard.
struct Server {
    host: String,
    port: u64,
    role: &'static str,
}

impl Pool {
    pub(super) fn read(entry: &Entry, problems: &mut Vec<Problem>) -> Option<Self> {
        let Node::Table(entries) = &entry.node else {
            let message = "expected a table [pools.NAME]";
            problems.push(
                entry
                    .place
                    .error(&entry.key, ProblemCode::WrongType, message),
            );
            return None;
        };
        let mut pool = Self {
            name: entry.key.clone(),
            settings: Vec::new(),
            replicas: false,
            databases: Vec::new(),
            users: Vec::new(),
            sharded: Vec::new(),
        };
        let mut base = Table::new("[[databases]]");
        base.set("name", pool.name.as_str().into());
        let (mut users, mut shards) = (None, None);
        for entry in entries {
            match (entry.key.as_str(), &entry.node) {
                ("users", Node::Table(entries)) => users = Some(entries),
                ("shards", Node::Table(entries)) => shards = Some(entries),
                ("plugins", Node::Table(entries)) => super::plugins(entries, &mut base),
                (_, Node::Scalar(text)) => {
                    let written = entry.written(text);
                    let section = format!("[pools.{}]", pool.name);
                    problems.extend(apply(POOL, &section, &written, &mut base).err());
                    pool.settings.push(written);
                }
                _ => {
                    let known = ["users", "shards", "plugins"];
                    let message = match nearest(&entry.key, known.into_iter()) {
                        Some(near) => format!("unknown table in a pool, did you mean \"{near}\"?"),
                        None => {
                            "unknown table in a pool: remove it, or correct its name".to_owned()
                        }
                    };
                    problems.push(
                        entry
                            .place
                            .error(&entry.key, ProblemCode::UnknownKey, message),
                    );
                }
            }
        }
        match shards {
            Some(shards) if !shards.is_empty() => pool.shards(shards, base, problems),
            _ => problems.push(entry.place.error(
                &format!("pools.{}", pool.name),
                ProblemCode::MissingKey,
                "a pool needs servers: [pools.NAME.shards.0]",
            )),
        }
        pool.sharding(shards.map_or(0, Vec::len), problems);
        pool.people(users.map_or(&[][..], |users| users), problems);
        Some(pool)
    }

    fn get(&self, key: &str) -> Option<&Written> {
        self.settings.iter().find(|written| written.key == key)
    }

    fn on(&self, key: &str) -> bool {
        self.get(key).and_then(|written| flag(&written.value)) == Some(true)
    }

    fn shards(&mut self, shards: &[Entry], mut base: Table, problems: &mut Vec<Problem>) {
        for entry in shards {
            let (Ok(number), Node::Table(keys)) = (entry.key.parse::<u64>(), &entry.node) else {
                let message = "expected the number of a shard, from 0 on";
                problems.push(
                    entry
                        .place
                        .error(&entry.key, ProblemCode::BadValue, message),
                );
                continue;
            };
            self.shard(number, entry, keys, &base, problems);
            // What is to be said about the pool is said once.
            base = base.clone_keys();
        }
    }

    fn shard(
        &mut self,
        number: u64,
        entry: &Entry,
        keys: &[Entry],
        base: &Table,
        problems: &mut Vec<Problem>,
    ) {
        let mut database = None;
        let mut servers = Vec::new();
        let mut remarks = Vec::new();
        for key in keys {
            match (key.key.as_str(), &key.node) {
                ("database", Node::Scalar(name)) => database = Some(name.as_str()),
                ("servers", Node::List(list)) => {
                    for server in list {
                        match read_server(server) {
                            Some(server) => servers.push(server),
                            None => problems.push(key.place.error(
                                "servers",
                                ProblemCode::BadValue,
                                "expected [\"host\", port, \"primary\" or \"replica\"]",
                            )),
                        }
                    }
                }
                ("mirrors", Node::List(list)) if !list.is_empty() => remarks.push(format!(
                    "{}: mirrors: a mirror is a database of its own here: add [[databases]] with another name for each of these hosts, the users \
                     of this one, and [[mirroring]] with source_db = \"{}\" and destination_db",
                    key.place, self.name
                )),
                ("mirrors", Node::List(_)) => {}
                _ => {
                    let section = format!("[pools.{}.shards.{number}]", self.name);
                    let wrong = apply(SHARD, &section, &key.written(""), &mut Table::new(""));
                    let wrong_type = |_| key.place.error(&key.key, ProblemCode::WrongType, "a value of another type");
                    problems.push(wrong.map_or_else(|problem| problem, wrong_type));
                }
            }
        }
        if servers
            .iter()
            .filter(|server| server.role == "primary")
            .count()
            > 1
        {
            let message = "a second primary in one shard";
            problems.push(entry.place.error("servers", ProblemCode::Conflict, message));
        }
        self.replicas |= servers.iter().any(|server| server.role == "replica");
        let mut seen = BTreeSet::new();
        for server in servers {
            let mut table = if self.databases.is_empty() {
                base.clone()
            } else {
                base.clone_keys()
            };
            remarks.drain(..).for_each(|remark| table.remark(remark));
            table.set("host", server.host.as_str().into());
            table.set("port", Value::Number(server.port));
            if let Some(database) = database {
                table.set("database_name", database.into());
            }
            table.set("role", server.role.into());
            table.set("shard", Value::Number(number));
            if !seen.insert((server.host, server.port)) {
                table.disable(format!(
                    "{}: servers: the same host a second time; here a host has one role",
                    entry.place
                ));
            }
            self.databases.push(table);
        }
    }

    fn sharding(&mut self, shards: usize, problems: &mut Vec<Problem>) {
        let hasher = match self.get("sharding_function").map(|w| w.value.as_str()) {
            None | Some("pg_bigint_hash") => "postgres",
            Some("sha1") => "sha1",
            Some(_) => {
                if let Some(written) = self.get("sharding_function") {
                    problems.push(
                        written.error(ProblemCode::BadValue, "expected pg_bigint_hash or sha1"),
                    );
                }
                return;
            }
        };
        let mut table = Table::new("[[sharded_tables]]");
        if let Some(written) = self.get("automatic_sharding_key") {
            let key = written.value.replace('"', "");
            let Some((name, column)) = key.split_once('.') else {
                problems.push(written.error(ProblemCode::BadValue, "expected table.column"));
                return;
            };
            table.set("database", self.name.as_str().into());
            // PgCat takes *.column for the column of any table.
            if name != "*" {
                table.set("name", name.into());
            }
            table.set("column", column.into());
            table.set("data_type", "bigint".into());
            table.set("hasher", hasher.into());
        } else if shards > 1 {
            table.remark(format!(
                "pools.{}: no automatic_sharding_key: clients choose the shard. SET SHARD TO, SET SHARDING KEY TO and SET SERVER ROLE TO are here \
                 SET pgdog.shard TO, SET pgdog.sharding_key TO and SET pgdog.role TO; or list the sharded tables in [[sharded_tables]], with hasher = \"{hasher}\"",
                self.name
            ));
        }
        self.sharded.push(table);
    }

    fn people(&mut self, users: &[Entry], problems: &mut Vec<Problem>) {
        let mut seen = BTreeSet::new();
        for entry in users {
            let Node::Table(keys) = &entry.node else {
                let message = "expected a table [pools.NAME.users.0]";
                problems.push(
                    entry
                        .place
                        .error(&entry.key, ProblemCode::WrongType, message),
                );
                continue;
            };
            let written = scalars(keys, problems);
            let Some(name) = written.iter().find(|w| w.key == "username") else {
                problems.push(
                    entry
                        .place
                        .error("username", ProblemCode::MissingKey, "missing"),
                );
                continue;
            };
            let mut table = Table::new("[[users]]");
            table.set("name", name.value.as_str().into());
            table.set("database", self.name.as_str().into());
            let section = format!("[pools.{}.users.{}]", self.name, entry.key);
            for one in &written {
                match apply(USER, &section, one, &mut table) {
                    Ok(Applied::Special) if one.key == "auth_type" => {
                        auth(one, &mut table, problems)
                    }
                    Ok(_) => {}
                    Err(problem) => problems.push(problem),
                }
            }
            finish_user(&entry.place, name, &mut seen, &mut table);
            self.users.push(table);
        }
    }
}

fn auth(written: &Written, table: &mut Table, problems: &mut Vec<Problem>) {
    match written.value.to_ascii_lowercase().as_str() {
        "md5" => {}
        "trust" => table.set("auth_type", "trust".into()),
        "ldap" => {
            table.remark(written.remark(
                "no counterpart: the password below is asked of the client, too; LDAP is not",
            ))
        }
        _ => problems.push(written.error(ProblemCode::BadValue, "expected md5, trust or ldap")),
    }
}

fn finish_user(place: &Place, name: &Written, seen: &mut BTreeSet<String>, table: &mut Table) {
    if !seen.insert(name.value.clone()) {
        table.disable(format!(
            "{place}: the same user a second time in this pool; the first one counts"
        ));
    } else if !table.has("password") && table.text("auth_type") != Some("trust") {
        table.disable(format!("{place}: no password, PgCat asks the database for it (auth_query): write it here, or password_hash"));
    }
}

fn read_server(node: &Node) -> Option<Server> {
    // A list, or a table with the same names.
    let parts: Vec<&str> = match node {
        Node::List(parts) => parts.iter().map(text).collect::<Option<_>>()?,
        Node::Table(entries) => ["host", "port", "role"]
            .into_iter()
            .map(|key| text(&entries.iter().find(|entry| entry.key == key)?.node))
            .collect::<Option<_>>()?,
        Node::Scalar(_) => return None,
    };
    let [host, port, role] = parts[..] else {
        return None;
    };
    Some(Server {
        host: host.to_owned(),
        port: port.parse::<u16>().ok()?.into(),
        role: match role.to_ascii_lowercase().as_str() {
            "primary" => "primary",
            "replica" => "replica",
            _ => return None,
        },
    })
}

fn text(node: &Node) -> Option<&str> {
    match node {
        Node::Scalar(text) => Some(text),
        _ => None,
    }
}

/// Keys that each pool has there and the whole proxy has here.
pub(super) fn together(pools: &[Pool], general: &mut Table) {
    let statements = pools
        .iter()
        .filter_map(|pool| value(Kind::Count, pool.get("prepared_statements_cache_size")?).ok())
        .filter_map(|value| match value {
            Value::Number(number) if number > 0 => Some(number),
            _ => None,
        });
    if let Some(most) = statements.max() {
        general.set("prepared_statements_limit", Value::Number(most));
    }
    if let [only] = pools
        && let Some(timeout) = only
            .get("connect_timeout")
            .and_then(|w| value(Kind::Millis, w).ok())
    {
        general.set("connect_timeout", timeout.clone());
        general.set("checkout_timeout", timeout);
    } else {
        let said = pools.iter().filter_map(|pool| pool.get("connect_timeout"));
        said.for_each(|w| {
            general
                .remark(w.remark("no counterpart: general.connect_timeout holds for all databases"))
        });
    }
    shared(pools, general, "load_balancing_strategy", |pool| {
        let mode = pool.get("load_balancing_mode")?.value.to_ascii_lowercase();
        Some(match mode.as_str() {
            "loc" | "least_outstanding_connections" | "leastoutstandingconnections" => {
                "least_active_connections"
            }
            _ => "random",
        })
    });
    shared(pools, general, "read_write_split", |pool| {
        let role = pool
            .get("default_role")
            .map_or("any", |written| written.value.as_str());
        Some(match (pool.on("query_parser_enabled"), role) {
            (false, "primary") => "prefer_primary",
            (_, "replica") => "exclude_primary",
            _ if pool.on("primary_reads_enabled") => "include_primary",
            _ => "exclude_primary",
        })
    });
    for pool in pools
        .iter()
        .filter(|pool| pool.replicas && !pool.on("query_parser_enabled"))
    {
        general.remark(format!(
            "pools.{}: query_parser_enabled is off: where there are replicas, statements are looked at here, so that writes reach the primary",
            pool.name
        ));
    }
}

/// Sets a key of `[general]` to what the first pool with replicas says, and names the others that say something else.
fn shared(
    pools: &[Pool],
    general: &mut Table,
    key: &'static str,
    says: impl Fn(&Pool) -> Option<&'static str>,
) {
    let mut said = pools
        .iter()
        .filter(|pool| pool.replicas)
        .filter_map(|pool| Some((pool, says(pool)?)));
    let Some((_, first)) = said.next() else {
        return;
    };
    let others: Vec<&str> = said
        .filter(|(_, value)| *value != first)
        .map(|(pool, _)| pool.name.as_str())
        .collect();
    if !others.is_empty() {
        general.remark(format!(
            "{key} is one for all databases; {} would have something else",
            others.join(", ")
        ));
    }
    general.set(key, first.into());
}
