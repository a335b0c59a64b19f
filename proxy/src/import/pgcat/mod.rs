//! `pgcat.toml`, as PgCat 1.3 reads it.

mod keys;
mod pools;
mod tree;

use pgdog_config::{Problem, ProblemCode, Problems};

use self::pools::Pool;
use self::tree::{Entry, Node};
use super::emit::{Table, Value};
use super::keys::{Applied, Kind, apply, value};
use super::{Imported, Written};

/// Where Debian keeps the authorities of the system.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The tables that come out of `[general]`, and what pools add to them.
struct Tables {
    general: Table,
    tcp: Table,
    admin: Table,
}

/// Turns PgCat's configuration into ours.
///
/// # Errors
///
/// Everything that PgCat would not understand either, all of it at once.
pub fn import(text: &str, file: &str) -> Result<Imported, Problems> {
    let (root, mut problems) = tree::read(text, file);
    let mut tables = Tables {
        general: Table::new("[general]"),
        tcp: Table::new("[tcp]"),
        admin: Table::new("[admin]"),
    };
    let mut pools = Vec::new();
    let mut general: &[Entry] = &[];
    for entry in &root {
        match (entry.key.as_str(), &entry.node) {
            ("general", Node::Table(entries)) => general = entries,
            ("pools", Node::Table(entries)) => {
                pools = entries
                    .iter()
                    .filter_map(|pool| Pool::read(pool, &mut problems))
                    .collect();
            }
            ("plugins", Node::Table(entries)) => plugins(entries, &mut tables.general),
            ("path", Node::Scalar(_)) => {}
            _ => problems.push(unknown(entry)),
        }
    }
    settings(general, &mut tables, &mut problems);
    pools::together(&pools, &mut tables.general);
    if !problems.is_empty() {
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        return Err(Problems(problems));
    }

    let mut toml = vec![tables.general, tables.tcp];
    let mut people = vec![tables.admin];
    for pool in pools {
        toml.extend(pool.databases);
        toml.extend(pool.sharded);
        people.extend(pool.users);
    }
    Ok(Imported::new(file, &toml, &people))
}

fn unknown(entry: &Entry) -> Problem {
    let key = entry.key.as_str();
    let message = match key {
        "general" | "pools" | "plugins" => "expected a table".to_owned(),
        "user" | "shards" | "query_router" => format!(
            "[{key}] is from a PgCat before pools: let PgCat's present version read the file first"
        ),
        _ => match pgdog_config::nearest(key, ["general", "pools", "plugins"].into_iter()) {
            Some(near) => format!("unknown section, did you mean \"{near}\"?"),
            None => "unknown section: remove it, or correct its name".to_owned(),
        },
    };
    entry.place.error(key, ProblemCode::UnknownKey, message)
}

/// `[general]`, and PgCat's defaults where ours are others.
fn settings(entries: &[Entry], tables: &mut Tables, problems: &mut Vec<Problem>) {
    let written: Vec<Written> = tree::scalars(entries, problems);
    for one in &written {
        problems.extend(setting(one, &written, tables).err());
    }
    let missing: Vec<Written> = keys::DEFAULTS
        .iter()
        .filter(|(key, _)| !written.iter().any(|w| w.key == *key))
        .map(|(key, value)| Written {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            place: None,
        })
        .collect();
    tables
        .general
        .heading("PgCat's defaults, where those here are others:");
    for one in &missing {
        problems.extend(setting(one, &written, tables).err());
    }
    tables.general.set("min_pool_size", Value::Number(0));
    tables.general.remark(
        "clients of PgCat log in with MD5; \"scram\" works with these users as well and is safer",
    );
    tables.general.set("auth_type", "md5".into());
}

fn setting(written: &Written, all: &[Written], tables: &mut Tables) -> Result<(), Problem> {
    let general = &mut tables.general;
    if apply(keys::GENERAL, "[general]", written, general)? == Applied::Done {
        return Ok(());
    }
    let on = |key: &str| {
        let found = all.iter().find(|w| w.key == key);
        found.is_some_and(|w| super::keys::flag(&w.value) == Some(true))
    };
    let number = || value(Kind::Count, written);
    match written.key.as_str() {
        // One time for both: a client that waits for a connection waits for its place in the pool, too.
        "connect_timeout" => {
            general.set("connect_timeout", number()?);
            general.set("checkout_timeout", number()?);
        }
        "prometheus_exporter_port" if on("enable_prometheus_exporter") => {
            general.set("openmetrics_port", number()?);
        }
        "enable_prometheus_exporter"
            if !general.has("openmetrics_port")
                && value(Kind::Flag, written)? == Value::Flag(true) =>
        {
            general.set("openmetrics_port", Value::Number(9930));
        }
        "dns_max_ttl" if on("dns_cache_enabled") => {
            general.set("dns_ttl", value(Kind::Seconds, written)?)
        }
        "dns_cache_enabled"
            if !general.has("dns_ttl") && value(Kind::Flag, written)? == Value::Flag(true) =>
        {
            general.set("dns_ttl", Value::Number(30_000));
        }
        "tcp_keepalives_idle" => tables.tcp.set("time", value(Kind::Seconds, written)?),
        "tcp_keepalives_interval" => tables.tcp.set("interval", value(Kind::Seconds, written)?),
        "tcp_keepalives_count" => tables.tcp.set("retries", number()?),
        "tcp_user_timeout" => tables.tcp.set("user_timeout", number()?),
        "server_tls" => server_tls(written, on("verify_server_certificate"), general)?,
        "admin_username" => {
            tables.admin.set("name", "pgcat".into());
            tables.admin.set("user", written.value.as_str().into());
        }
        "admin_password" if written.value.is_empty() => tables.admin.remark(written.remark(
            "an empty password: the console has a random one at each start until you write one",
        )),
        "admin_password" => tables.admin.set("password", written.value.as_str().into()),
        // Read together with the keys above.
        _ => {}
    }
    Ok(())
}

fn server_tls(written: &Written, verify: bool, general: &mut Table) -> Result<(), Problem> {
    let mode = match (value(Kind::Flag, written)?, verify) {
        (Value::Flag(true), true) => {
            general.remark(written.remark("the certificate has to come from an authority of the system; correct the path where they are elsewhere"));
            general.set("tls_server_ca_certificate", SYSTEM_AUTHORITIES.into());
            "verify_full"
        }
        (Value::Flag(true), false) => {
            general.remark(written.remark("a server that offers no TLS is spoken to without it; set tls_verify = \"verify_full\" and tls_server_ca_certificate to insist"));
            "prefer"
        }
        _ => "disabled",
    };
    general.set("tls_verify", mode.into());
    Ok(())
}

/// Plugins of all pools, or of one.
fn plugins(entries: &[Entry], table: &mut Table) {
    for entry in entries {
        let off = matches!(&entry.node, Node::Table(keys) if keys.iter().any(|key|
            key.key == "enabled" && matches!(&key.node, Node::Scalar(text) if text == "false")));
        if off {
            continue;
        }
        let text = match entry.key.as_str() {
            "query_logger" => "general.query_log_stdout = true writes the queries of all databases",
            "prewarmer" => {
                "no counterpart: a new connection runs nothing before its first client; settings can be set in PostgreSQL by ALTER ROLE … SET"
            }
            "table_access" => "no counterpart: take the rights away in PostgreSQL (REVOKE)",
            "intercept" => "no counterpart: every query is answered by PostgreSQL",
            _ => "no counterpart",
        };
        table.remark(format!("{}: plugin {}: {text}", entry.place, entry.key));
        if entry.key == "query_logger" && table.is("[general]") {
            table.set("query_log_stdout", Value::Flag(true));
        }
    }
}

#[cfg(test)]
mod tests;
