//! `pgdog route`: where the queries of a file would go, and why.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pgdog_config::{Config, Source};
use pgdog_sql::functions::{CATALOGUE, Kind, Row, Through};
use pgdog_sql::lexer::{Lexer, Token, skip_blank};
use pgdog_sql::{Begins, Facts, Functions, Place, RoleHint, hints};
use serde::Serialize;

/// Which queries, and what is known of the database they are for.
#[derive(Debug, Clone, Args)]
pub struct Route {
    /// A file of queries, each ended by a semicolon; - is standard input.
    #[arg(required_unless_present = "functions_query")]
    pub file: Option<PathBuf>,
    /// The functions of a database, and what calls them: lines of schema,name,volatile,builtin,kind,schema,name, as
    /// `psql --csv -t` prints what --functions-query asks for.
    #[arg(long, value_name = "FILE")]
    pub functions: Option<PathBuf>,
    /// The configuration whose read_functions and write_functions count, before --reads and --writes are added.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the query that --functions wants the answer of, instead of routing anything.
    #[arg(long)]
    pub functions_query: bool,
    /// A function that only reads, whatever the database says; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub reads: Vec<String>,
    /// A function that writes, whatever the database says; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub writes: Vec<String>,
    /// Print a JSON object per query.
    #[arg(long)]
    pub json: bool,
}

/// One query and where it goes.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Routed {
    place: String,
    line: usize,
    query: String,
    why: String,
    /// What a comment asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// How a transaction begins with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    begins: Option<&'static str>,
}

/// Prints to `out`, a line per query.
pub fn run(route: &Route, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(file) = route.file.as_ref().filter(|_| !route.functions_query) else {
        return writeln!(out, "{CATALOGUE}").context("write the query");
    };
    let text = read(file)?;
    let functions = match &route.functions {
        Some(file) => catalogue(&read(file)?).with_context(|| format!("{}", file.display()))?,
        None => Functions::unread(),
    };
    let general = match &route.config {
        Some(file) => configuration(file)?.general,
        None => Config::default().general,
    };
    let reads = general.read_functions.iter().chain(&route.reads);
    let writes = general.write_functions.iter().chain(&route.writes);
    let functions = functions.configured(reads.map(String::as_str), writes.map(String::as_str));
    for routed in all(&text, &functions) {
        let line = if route.json {
            serde_json::to_string(&routed).context("write JSON")?
        } else {
            routed.for_people()
        };
        writeln!(out, "{line}").context("write the routes")?;
    }
    Ok(())
}

/// As the proxy would read it, with the environment and the users beside it.
fn configuration(file: &Path) -> anyhow::Result<Config> {
    let source = Source {
        config: file.to_owned(),
        ..Source::default()
    };
    // Of a default that is missing the proxy only warns; who names it here wants it to be read.
    if !file.exists() {
        bail!("read {}: no such file", file.display());
    }
    Config::load(&source).map_err(|problems| anyhow!("{}:\n{problems}", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return std::fs::read(file).with_context(|| format!("read {}", file.display()));
    }
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut text)
        .context("read the queries from standard input")?;
    Ok(text)
}

/// The functions of a database from lines of CSV. Names with commas or quotes in them are quoted there; so are they read.
fn catalogue(text: &[u8]) -> anyhow::Result<Functions> {
    let text = std::str::from_utf8(text).context("not UTF-8")?;
    let mut rows = Vec::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
    {
        let fields = fields(line);
        let ([schema, name, volatile, builtin], through) = match &fields[..] {
            [a, b, c, d] => ([a, b, c, d], None),
            [a, b, c, d, kind, ..] if fields.len() == 7 && kind.is_empty() => ([a, b, c, d], None),
            [a, b, c, d, kind, schema, name] => {
                let kind = Kind::read(kind).with_context(|| {
                    format!("line {}: {kind:?} is no kind of what calls", at + 1)
                })?;
                ([a, b, c, d], Some((kind, schema.clone(), name.clone())))
            }
            _ => bail!(
                "line {}: seven fields are wanted, schema,name,volatile,builtin,kind,schema,name; found {}",
                at + 1,
                fields.len()
            ),
        };
        let flag = |field: &str| match field {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            other => bail!("line {}: {other:?} is neither t nor f", at + 1),
        };
        rows.push((
            schema.clone(),
            name.clone(),
            flag(volatile)?,
            flag(builtin)?,
            through,
        ));
    }
    Ok(Functions::new(rows.iter().map(
        |(schema, name, volatile, builtin, through)| Row {
            schema,
            name,
            volatile: *volatile,
            builtin: *builtin,
            through: through.as_ref().map(|(kind, schema, name)| Through {
                kind: *kind,
                schema,
                name,
            }),
        },
    )))
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields.last_mut().expect("never empty").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().expect("never empty").push(other),
        }
    }
    fields
}

/// The queries of a text: what stands between semicolons, with the comments before it.
fn all<'a>(text: &'a [u8], functions: &'a Functions) -> impl Iterator<Item = Routed> + 'a {
    let mut lexer = Lexer::new(text);
    let mut line = 1;
    let mut counted = 0;
    std::iter::from_fn(move || {
        loop {
            let from = lexer.position();
            let first = skip_blank(text, from);
            let mut tokens = 0;
            let ended = loop {
                match lexer.next() {
                    Some(Token::Symbol(b';')) => break true,
                    Some(_) => tokens += 1,
                    None => break false,
                }
            };
            if tokens > 0 {
                line += text[counted..first].iter().filter(|b| **b == b'\n').count();
                counted = first;
                let end = if ended {
                    lexer.position() - 1
                } else {
                    text.len()
                };
                return Some(one(&text[from..end], first - from, line, functions));
            }
            if !ended {
                return None;
            }
        }
    })
}

fn one(query: &[u8], first: usize, line: usize, functions: &Functions) -> Routed {
    let facts = Facts::parse(query);
    let (place, _) = facts.place(functions);
    let hint = hints(query).role.map(|role| match role {
        RoleHint::Primary => "primary",
        RoleHint::Replica => "replica",
    });
    let begins = facts.begins().map(|begins| match begins {
        Begins::ReadWrite => "read write",
        Begins::ReadOnly => "read only",
        Begins::Unsaid => "unsaid",
    });
    Routed {
        place: Place::to_string(&place),
        line,
        query: String::from_utf8_lossy(&query[first..]).trim().to_owned(),
        why: facts.explain(functions),
        hint,
        begins,
    }
}

/// What is shown of a query on one line.
const SHOWN: usize = 60;

impl Routed {
    fn for_people(&self) -> String {
        let mut query = self.query.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((at, _)) = query.char_indices().nth(SHOWN) {
            query.truncate(at);
            query.push('…');
        }
        let hint = self
            .hint
            .map(|role| format!("; a comment asks for the {role}"));
        format!(
            "{:<8}  line {:<4}  {query} — {}{}",
            self.place,
            self.line,
            self.why,
            hint.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let functions = Functions::unread();
        all(text.as_bytes(), &functions)
            .map(|routed| routed.for_people())
            .collect()
    }

    #[test]
    fn each_query_has_its_line_and_its_reason() {
        let text =
            "select 1;\n\n-- one\nselect ';'\n  for update;;\nset a = 1; selec 2;\nselect f(1)\n";
        assert_eq!(
            lines(text),
            [
                "read      line 1     select 1 — only reads",
                "primary   line 4     select ';' for update — locking clause FOR UPDATE",
                "anywhere  line 6     set a = 1 — changes settings of the session",
                "primary   line 6     selec 2 — does not parse: syntax error at or near \"selec\"",
                "primary   line 7     select f(1) — function f is not known",
            ]
        );
    }

    #[test]
    fn comments_are_shown_and_not_applied() {
        assert_eq!(
            lines("/* pgdog_role: primary */ select 1; /* x */"),
            ["read      line 1     select 1 — only reads; a comment asks for the primary"]
        );
    }

    #[test]
    fn what_the_configuration_says_of_functions_counts() {
        let directory = std::env::temp_dir().join(format!("pgdog-route-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| {
            let file = directory.join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let mut route = Route {
            file: Some(write(
                "queries.sql",
                "select f(1); select now(); select g(1)",
            )),
            functions: None,
            config: Some(write(
                "pgdog.toml",
                "[general]\nread_functions = [\"f\"]\nwrite_functions = [\"now\"]\n",
            )),
            functions_query: false,
            reads: vec!["g".to_owned()],
            writes: Vec::new(),
            json: false,
        };
        let places = |route: &Route| {
            let mut out = Vec::new();
            run(route, &mut out).map(|()| {
                let text = String::from_utf8(out).unwrap();
                let places = text.lines().map(|line| line[..8].trim().to_owned());
                places.collect::<Vec<_>>()
            })
        };
        assert_eq!(places(&route).unwrap(), ["read", "primary", "read"]);
        route.config = Some(write("wrong.toml", "[general]\nread_function = [\"f\"]\n"));
        let wrong = places(&route).unwrap_err().to_string();
        assert!(wrong.contains("read_functions"), "{wrong}");
        route.config = Some(directory.join("missing.toml"));
        let missing = places(&route).unwrap_err().to_string();
        assert!(missing.contains("missing.toml: no such file"), "{missing}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn functions_come_from_csv() {
        let functions = catalogue(b"public,f,f,f\n\"a,b\",\"g\"\"\",t,f\n").unwrap();
        let place = |text: &str| all(text.as_bytes(), &functions).next().unwrap().why;
        assert_eq!(place("select f(1)"), "only reads");
        assert_eq!(
            place("select \"a,b\".\"g\"\"\"()"),
            "function a,b.g\" is volatile"
        );
        let functions = catalogue(
            b"public,f,t,f,,,\npublic,f,t,f,relation,app,v\npublic,f,t,f,operator,app,<<<\n",
        )
        .unwrap();
        let route = |text: &str| all(text.as_bytes(), &functions).next().unwrap();
        let found = route("select * from app.v");
        assert_eq!(found.place, "primary");
        assert_eq!(
            found.why,
            "relation app.v calls public.f, which is volatile"
        );
        assert_eq!(route("select 1 <<< 2").place, "primary");
        assert_eq!(route("select * from v2").place, "read");
        let wrong = catalogue(b"public,f,t,f,table,app,v").unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "line 1: \"table\" is no kind of what calls"
        );
        let wrong = catalogue(b"public,f,f,f\npublic,g,x,f").unwrap_err();
        assert_eq!(wrong.to_string(), "line 2: \"x\" is neither t nor f");
    }
}
