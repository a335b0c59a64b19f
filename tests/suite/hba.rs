//! How the proxy reads `pg_hba.conf` and `pg_ident.conf`, held against what PostgreSQL itself reads.
//!
//! PostgreSQL reads the files anew whenever its views are asked, so they can be filled with anything while it runs.

mod lines;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use pgdog_config::hba::{
    Addresses, CertificateCheck, Connection, Map, MapUser, Maps, Rule, Rules, SystemUser,
};
use pgdog_config::{ProblemCode, Problems};
use pgdog_tests::{Postgres, PostgresOptions};
use serde_json::{Value, json};

/// A cluster whose files are written here, and the rows of its views.
struct Oracle {
    postgres: Postgres,
}

impl Oracle {
    fn start() -> Self {
        // Without TLS it says of hostssl that it cannot match.
        let options = PostgresOptions::default().tls();
        Self {
            postgres: Postgres::start(&options),
        }
    }

    /// The rows of a view by the line they are about, with the file filled anew.
    fn rows(&self, file: &str, view: &str, text: &str) -> BTreeMap<u32, Value> {
        let path = self.postgres.data_directory().join(file);
        // Connected before: a new connection would read rules that let nobody in.
        let mut client = self.postgres.client("postgres");
        fs::write(&path, text).expect("the file of the cluster can be written");
        let sql = format!("select coalesce(json_agg(r), '[]') from {view} r");
        let rows: Vec<Value> =
            serde_json::from_str(&client.query_value(&sql)).expect("PostgreSQL writes JSON");
        let numbered = rows.into_iter().map(|row| {
            let line = row["line_number"].as_u64().expect("a line number");
            (u32::try_from(line).expect("a small file"), row)
        });
        numbered.collect()
    }

    fn hba(&self, text: &str) -> BTreeMap<u32, Value> {
        self.rows("pg_hba.conf", "pg_hba_file_rules", text)
    }

    fn ident(&self, text: &str) -> BTreeMap<u32, Value> {
        self.rows("pg_ident.conf", "pg_ident_file_mappings", text)
    }
}

/// What became of a line on one side.
#[derive(Debug, PartialEq)]
enum Reading {
    /// It says nothing.
    Empty,
    /// It is wrong.
    Broken,
    /// What it says.
    Fields(Value),
}

/// What PostgreSQL says of a line. Some mistakes leave an empty row without an error.
fn theirs(row: Option<&Value>, first: &str, fields: &[&str]) -> Reading {
    match row {
        None => Reading::Empty,
        Some(row) if !row["error"].is_null() || row[first].is_null() => Reading::Broken,
        Some(row) => {
            let fields = fields.iter().map(|field| match *field {
                "address" | "netmask" => address(&row[*field]),
                field => row[field].clone(),
            });
            Reading::Fields(fields.collect())
        }
    }
}

/// An address in the words of Rust: the C library writes some of IPv6 another way.
fn address(value: &Value) -> Value {
    match value.as_str().map(str::parse::<IpAddr>) {
        Some(Ok(address)) => json!(address.to_string()),
        _ => value.clone(),
    }
}

/// What the proxy says of a line; `None` when it refuses something that PostgreSQL may well accept.
fn ours<T>(read: &Result<Vec<T>, Problems>, fields: impl Fn(&T) -> Value) -> Option<Reading> {
    match read.as_ref().map(Vec::as_slice) {
        Ok([]) => Some(Reading::Empty),
        Ok([one]) => Some(Reading::Fields(fields(one))),
        Ok(_) => panic!("one line is one rule"),
        Err(problems) => {
            let is_unsupported = |code| code == ProblemCode::NotImplemented;
            let all = problems
                .0
                .iter()
                .all(|problem| is_unsupported(problem.code));
            (!all).then_some(Reading::Broken)
        }
    }
}

const HBA_FIELDS: &[&str] = &[
    "type",
    "database",
    "user_name",
    "address",
    "netmask",
    "auth_method",
    "options",
];

fn rule_fields(rule: &Rule) -> Value {
    let plain = |text: String| match text.strip_prefix('"') {
        Some(quoted) => quoted[..quoted.len() - 1].replace("\"\"", "\""),
        None => text,
    };
    let databases = rule.databases.iter().map(|name| plain(name.to_string()));
    let users = rule.users.iter().map(|name| plain(name.to_string()));
    let (address, mask) = match rule.addresses {
        _ if rule.connection == Connection::Local => (None, None),
        Addresses::All => (Some("all".to_owned()), None),
        Addresses::SameHost => (Some("samehost".to_owned()), None),
        Addresses::SameNet => (Some("samenet".to_owned()), None),
        Addresses::Network(network) => (
            Some(network.address().to_string()),
            Some(network.mask().to_string()),
        ),
    };
    let map = rule.map.iter().map(|map| format!("map={map}"));
    let certificate = match rule.certificate {
        CertificateCheck::None => None,
        CertificateCheck::VerifyCa => Some("clientcert=verify-ca".to_owned()),
        CertificateCheck::VerifyFull => Some("clientcert=verify-full".to_owned()),
    };
    // The view does not show clientname.
    let options: Vec<String> = map.chain(certificate).collect();
    json!([
        rule.connection.as_str(),
        databases.collect::<Vec<_>>(),
        users.collect::<Vec<_>>(),
        address,
        mask,
        rule.method.as_str(),
        (!options.is_empty()).then_some(options),
    ])
}

const IDENT_FIELDS: &[&str] = &["map_name", "sys_name", "pg_username"];

fn map_fields(map: &Map) -> Value {
    let system = match &map.system {
        SystemUser::Name(name) => name.clone(),
        SystemUser::Pattern(pattern) => format!("/{}", pattern.as_str()),
    };
    let user = match &map.user {
        MapUser::All => "all".to_owned(),
        MapUser::Name(name) => name.clone(),
        MapUser::Group { before, after } => format!(r"{before}\1{after}"),
        MapUser::Pattern(pattern) => format!("/{}", pattern.as_str()),
    };
    json!([map.name, system, user])
}

fn read_rules(text: &str) -> Result<Vec<Rule>, Problems> {
    Rules::parse(Path::new("pg_hba.conf"), text.as_bytes())
        .map(|rules| rules.iter().cloned().collect())
}

fn read_maps(text: &str) -> Result<Vec<Map>, Problems> {
    Maps::parse(Path::new("pg_ident.conf"), text.as_bytes())
        .map(|maps| maps.iter().cloned().collect())
}

/// Lines that are read differently, each with both readings; and how many were accepted and refused by both.
fn differences(
    lines: &[String],
    theirs: impl Fn(u32) -> Reading,
    ours: impl Fn(&str) -> Option<Reading>,
) -> (Vec<String>, [usize; 2]) {
    let mut different = Vec::new();
    let mut agreed = [0, 0];
    for (number, line) in (1..).zip(lines) {
        let (theirs, ours) = (theirs(number), ours(line));
        match ours {
            None => {}
            Some(ours) if ours == theirs => match theirs {
                Reading::Empty => {}
                Reading::Fields(_) => agreed[0] += 1,
                Reading::Broken => agreed[1] += 1,
            },
            Some(ours) => different.push(format!(
                "{line:?}\n  PostgreSQL: {theirs:?}\n  proxy:      {ours:?}"
            )),
        }
    }
    (different, agreed)
}

#[test]
fn each_line_of_pg_hba_is_read_as_postgres_reads_it() {
    if !Postgres::installed() {
        return;
    }
    let oracle = Oracle::start();
    let seed = lines::seed();
    let lines = lines::hba(seed);
    let rows = oracle.hba(&lines.join("\n"));
    let (different, [accepted, refused]) = differences(
        &lines,
        |number| theirs(rows.get(&number), "type", HBA_FIELDS),
        |line| ours(&read_rules(line), rule_fields),
    );
    assert!(
        different.is_empty(),
        "HBA_SEED={seed}:\n{}",
        different.join("\n")
    );
    assert!(
        accepted > 100 && refused > 50,
        "HBA_SEED={seed}: {accepted} accepted, {refused} refused"
    );

    // What only the proxy refuses is fine with PostgreSQL, where it can be told: it builds no methods in vain.
    let mut unsupported = 0;
    for (number, line) in (1..).zip(&lines) {
        let read = read_rules(line);
        if let Err(problems) = &read
            && ours(&read, rule_fields).is_none()
            && !problems.to_string().contains("method")
        {
            unsupported += 1;
            let theirs = theirs(rows.get(&number), "type", HBA_FIELDS);
            assert!(
                matches!(theirs, Reading::Fields(_)),
                "HBA_SEED={seed}: {line:?}: {theirs:?}"
            );
        }
    }
    assert!(unsupported > 0, "HBA_SEED={seed}");
}

#[test]
fn a_whole_pg_hba_has_its_problems_and_its_rules_in_the_lines_that_postgres_names() {
    if !Postgres::installed() {
        return;
    }
    let oracle = Oracle::start();
    let seed = lines::seed();
    let lines = lines::hba(seed);
    let rows = oracle.hba(&lines.join("\n"));
    let told = read_rules(&lines.join("\n")).expect_err("some lines are broken");
    for (number, row) in &rows {
        let broken = theirs(Some(row), "type", HBA_FIELDS) == Reading::Broken;
        let told = told.0.iter().any(|problem| problem.line == Some(*number));
        assert!(told || !broken, "HBA_SEED={seed}: line {number}: {row}");
    }

    let good: Vec<_> = lines
        .iter()
        .filter(|line| read_rules(line).is_ok())
        .cloned()
        .collect();
    let text = lines::continued(seed, &good);
    let rows = oracle.hba(&text);
    let read = read_rules(&text).unwrap_or_else(|problems| panic!("HBA_SEED={seed}:\n{problems}"));
    assert_eq!(read.len(), rows.len(), "HBA_SEED={seed}:\n{text}");
    for (rule, (number, row)) in read.iter().zip(&rows) {
        assert_eq!(rule.place.line, *number, "HBA_SEED={seed}: {rule}");
        let theirs = theirs(Some(row), "type", HBA_FIELDS);
        assert_eq!(
            theirs,
            Reading::Fields(rule_fields(rule)),
            "HBA_SEED={seed}: {rule}"
        );
    }
}

#[test]
fn what_the_proxy_writes_of_a_rule_says_the_same_to_postgres() {
    if !Postgres::installed() {
        return;
    }
    let oracle = Oracle::start();
    let seed = lines::seed();
    let rules: Vec<Rule> = lines::hba(seed)
        .iter()
        .filter_map(|line| read_rules(line).ok())
        .flatten()
        .collect();
    let written: Vec<String> = rules.iter().map(ToString::to_string).collect();
    let rows = oracle.hba(&written.join("\n"));
    for (number, rule) in (1..).zip(&rules) {
        let theirs = theirs(rows.get(&number), "type", HBA_FIELDS);
        assert_eq!(
            theirs,
            Reading::Fields(rule_fields(rule)),
            "HBA_SEED={seed}: {rule}"
        );
    }
}

/// PostgreSQL notices only at a login that there is no group for `\1`.
fn is_stricter(read: &Result<Vec<Map>, Problems>) -> bool {
    let told = read.as_ref().err().map(ToString::to_string);
    told.is_some_and(|told| told.contains("needs a group"))
}

#[test]
fn each_line_of_pg_ident_is_read_as_postgres_reads_it() {
    if !Postgres::installed() {
        return;
    }
    let oracle = Oracle::start();
    let seed = lines::seed();
    let lines = lines::ident(seed);
    let rows = oracle.ident(&lines.join("\n"));
    let (different, [accepted, refused]) = differences(
        &lines,
        |number| theirs(rows.get(&number), "map_name", IDENT_FIELDS),
        |line| {
            let read = read_maps(line);
            ours(&read, map_fields).filter(|_| !is_stricter(&read))
        },
    );
    assert!(
        different.is_empty(),
        "HBA_SEED={seed}:\n{}",
        different.join("\n")
    );
    assert!(
        accepted > 30 && refused > 10,
        "HBA_SEED={seed}: {accepted} accepted, {refused} refused"
    );
}
