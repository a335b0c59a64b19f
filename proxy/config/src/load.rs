//! From files, URLs and the environment to a [`Config`].

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::check::{Check, Schema, nearest};
use crate::problem::{Problem, ProblemCode, Problems, Severity};
use crate::tree::{self, Node, Place, Value};
use crate::{Config, Origin, Settings, url};

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `pgdog.toml`, or a `.yaml` file that holds everything. Only the default may be missing.
    pub config: PathBuf,
    /// `users.toml`. `None` means the one beside `config`, where there is one.
    pub users: Option<PathBuf>,
    /// Databases given as URLs, besides those in the files.
    pub database_urls: Vec<String>,
}

impl Source {
    /// The file that is read when no other is named.
    pub const DEFAULT: &'static str = "pgdog.toml";

    /// Where the users are: the file that was named, else the one beside `config`, whether it is there or not.
    #[must_use]
    pub fn users_file(&self) -> PathBuf {
        let beside = || self.config.with_file_name("users.toml");
        self.users.clone().unwrap_or_else(beside)
    }

    /// Where nothing was found and what to do, when there are neither files nor URLs.
    #[must_use]
    pub fn nothing_found(&self) -> Option<String> {
        let users = self.users_file();
        if self.config.exists() || users.exists() || !self.database_urls.is_empty() {
            return None;
        }
        let whole = |path: &Path| {
            let whole = std::path::absolute(path);
            whole.map_or_else(|_| path.display().to_string(), |p| p.display().to_string())
        };
        Some(format!(
            "no configuration: neither {} nor {} exists, and no database is given as a URL; name the files with --config \
             and --users (or PGDOG_CONFIG and PGDOG_USERS), or a database with --database-url",
            whole(&self.config),
            whole(&users)
        ))
    }
}

impl Default for Source {
    fn default() -> Self {
        Self {
            config: PathBuf::from(Self::DEFAULT),
            users: None,
            database_urls: Vec::new(),
        }
    }
}

/// Names in the environment that are not `PGDOG_` and the key.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("client_login_timeout", "PGDOG_CLIENT_LOG_TIMEOUT"),
    ("reload_schema_on_ddl", "PGDOG_SCHEMA_RELOAD_ON_DDL"),
    ("log_level", "RUST_LOG"),
];

/// Variables that are read with the command line.
const COMMAND_LINE: &[&str] = &[
    "PGDOG_CONFIG",
    "PGDOG_USERS",
    "PGDOG_WAIT_FOR_CONFIG",
    "PGDOG_CLUSTER_UID",
    "PGDOG_POD_UID",
    "PGDOG_POD_ZONE",
];

/// The sections that the environment fills, and what the names of their variables begin with.
const SECTIONS: [(&str, &str); 2] = [("general", "PGDOG_"), ("admin", "PGDOG_ADMIN_")];

impl Config {
    /// Reads the files, adds the URLs, and fills what `[general]` and `[admin]` leave open from the environment.
    pub fn load(source: &Source) -> Result<Self, Problems> {
        let loaded = Self::load_with(source, &|name| std::env::var(name).ok());
        with_strays(loaded)
    }

    pub(crate) fn load_with(
        source: &Source,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let schema = Schema::new();
        let (mut parts, mut problems) = url::parse(&source.database_urls, &schema);
        let quiet = !source.database_urls.is_empty();

        let explicit = source.config != Path::new(Source::DEFAULT);
        let yaml = is_yaml(&source.config);
        let mut root = read(&source.config, explicit, quiet, &mut problems)
            .unwrap_or_else(|| Node::table(Place::default()));

        let users = source.users_file();
        let quiet = quiet || yaml || root.get_mut("users").is_some();
        if let Some(mut node) = read(&users, source.users.is_some(), quiet, &mut problems) {
            keep_users(&mut node, &mut problems);
            root.merge(node);
        }
        root.merge(std::mem::replace(&mut parts, Node::table(Place::default())));
        add_environment(&mut root, &schema, environment);
        finish(root, &schema, problems)
    }

    /// Reads the texts of `pgdog.toml` and `users.toml`, without the environment.
    pub fn from_toml(pgdog: &str, users: &str) -> Result<Self, Problems> {
        let (mut root, mut problems) = tree::from_toml(pgdog, "pgdog.toml");
        let (mut node, more) = tree::from_toml(users, "users.toml");
        problems.extend(more);
        keep_users(&mut node, &mut problems);
        root.merge(node);
        finish(root, &Schema::new(), problems)
    }

    /// Reads the text of a `pgdog.yaml` (or JSON), without the environment.
    pub fn from_yaml(text: &str) -> Result<Self, Problems> {
        let (root, problems) = tree::from_yaml(text, "pgdog.yaml");
        finish(root, &Schema::new(), problems)
    }

    /// Takes JSON, as [`documents::join`](crate::documents::join) gives it, without the environment. `origin` names it in
    /// problems.
    pub fn from_json(value: &serde_json::Value, origin: &str) -> Result<Self, Problems> {
        let root = tree::from_json(value, &Place::of(origin));
        finish(root, &Schema::new(), Vec::new())
    }

    /// What the environment alone says, for a start without files.
    pub fn from_environment() -> Result<Self, Problems> {
        let schema = Schema::new();
        let mut root = Node::table(Place::default());
        add_environment(&mut root, &schema, &|name| std::env::var(name).ok());
        with_strays(finish(root, &schema, Vec::new()))
    }

    /// Reads `postgres://` URLs. The user and the password of a URL serve clients and the server.
    pub fn from_urls(urls: &[String]) -> Result<Self, Problems> {
        let schema = Schema::new();
        let (root, problems) = url::parse(urls, &schema);
        finish(root, &schema, problems)
    }
}

/// Adds what is odd about the names in the environment.
fn with_strays(mut loaded: Result<Config, Problems>) -> Result<Config, Problems> {
    let names = std::env::vars_os().filter_map(|(name, value)| {
        let value = value.to_string_lossy().into_owned();
        Some((name.into_string().ok()?, value))
    });
    let strays = strays(names, &Schema::new());
    match &mut loaded {
        Ok(config) => config.warnings.extend(strays),
        Err(problems) => problems.0.extend(strays),
    }
    loaded
}

/// Variables that look like ours and set nothing.
pub(crate) fn strays(
    environment: impl Iterator<Item = (String, String)>,
    schema: &Schema,
) -> Vec<Problem> {
    let mut known: Vec<String> = COMMAND_LINE
        .iter()
        .chain(ENVIRONMENT.iter().map(|(_, name)| name))
        .map(|name| (*name).to_owned())
        .collect();
    for (section, prefix) in SECTIONS {
        let keys = schema.section(section)["properties"].as_object();
        let keys = keys.into_iter().flatten();
        known.extend(keys.map(|(key, _)| format!("{prefix}{}", key.to_ascii_uppercase())));
    }
    let mut strays: Vec<Problem> = environment
        .filter(|(name, value)| {
            name.starts_with("PGDOG_") && !known.contains(name) && !is_of_kubernetes(name, value)
        })
        .map(|(name, _)| {
            // Without the prefix, which would make long names look alike.
            let own = |name: &str| name["PGDOG_".len()..].to_owned();
            let candidates: Vec<String> = known
                .iter()
                .filter(|name| name.starts_with("PGDOG_"))
                .map(|name| own(name))
                .collect();
            let near = nearest(&own(&name), candidates.iter().map(String::as_str))
                .map(|near| format!(", did you mean PGDOG_{near}?"));
            let message = format!(
                "sets nothing: no key has this name{}",
                near.unwrap_or_default()
            );
            let place = Place::of(&format!("environment variable {name}"));
            let mut problem = place.error("", ProblemCode::UnknownKey, message);
            problem.severity = Severity::Warning;
            problem
        })
        .collect();
    strays.sort_by(|a, b| a.file.cmp(&b.file));
    strays
}

/// Kubernetes sets such in every pod beside a Service whose name begins with pgdog: `PGDOG_SERVICE_HOST`,
/// `PGDOG_PORT_6432_TCP_ADDR`, `PGDOG_ADMIN_PORT=tcp://10.0.0.1:6433`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|p| name.contains(p)) && name.contains("_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension == *known)
    })
}

fn read(path: &Path, explicit: bool, quiet: bool, problems: &mut Vec<Problem>) -> Option<Node> {
    let file = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => {
            let (node, more) = if is_yaml(path) {
                tree::from_yaml(&text, &file)
            } else {
                tree::from_toml(&text, &file)
            };
            problems.extend(more);
            Some(node)
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !explicit => {
            if !quiet {
                let mut problem = Place::of(&file).error(
                    "",
                    ProblemCode::Unreadable,
                    "no such file, defaults are used",
                );
                problem.severity = Severity::Warning;
                problems.push(problem);
            }
            None
        }
        Err(error) => {
            problems.push(Place::of(&file).error(
                "",
                ProblemCode::Unreadable,
                format!("cannot read the file: {error}"),
            ));
            None
        }
    }
}

/// Leaves only `users` and `admin` in the tree of a users file.
fn keep_users(node: &mut Node, problems: &mut Vec<Problem>) {
    let Value::Table(entries) = &mut node.value else {
        return;
    };
    entries.retain(|entry| {
        let belongs = matches!(entry.key.as_str(), "users" | "admin");
        if !belongs {
            let message = "unknown key, only users and admin stand in this file";
            problems.push(
                entry
                    .place
                    .error(&entry.key, ProblemCode::UnknownKey, message),
            );
        }
        belongs
    });
}

fn add_environment(root: &mut Node, schema: &Schema, environment: &dyn Fn(&str) -> Option<String>) {
    for (section, prefix) in SECTIONS {
        add_section(root, schema, section, prefix, environment);
    }
}

fn add_section(
    root: &mut Node,
    schema: &Schema,
    section: &str,
    prefix: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) {
    if root.get_mut(section).is_none() {
        root.insert(section, Node::table(Place::default()));
    }
    let Some(table) = root.get_mut(section) else {
        return;
    };
    let Some(properties) = schema.section(section)["properties"].as_object() else {
        return;
    };
    for (key, property) in properties {
        // The alias counts as well.
        if table.get_mut(key).is_some()
            || (key == "default_pool_size" && table.get_mut("max_pool_size").is_some())
        {
            continue;
        }
        let own = format!("{prefix}{}", key.to_ascii_uppercase());
        let other = ENVIRONMENT
            .iter()
            .filter(|(of, _)| section == "general" && of == key)
            .map(|(_, name)| *name);
        let found = std::iter::once(own.as_str()).chain(other).find_map(|name| {
            environment(name)
                .filter(|text| !text.is_empty())
                .map(|text| (name.to_owned(), text))
        });
        let Some((name, text)) = found else { continue };
        // Kubernetes sets PGDOG_PORT=tcp://10.0.0.1:6432 in every pod beside a Service that is called pgdog.
        if key.ends_with("port") && text.contains("://") {
            continue;
        }
        let place = Place::of(&format!("environment variable {name}"));
        table.insert(
            key,
            Node {
                value: schema.read(property, &text),
                place,
            },
        );
    }
}

fn finish(mut root: Node, schema: &Schema, mut problems: Vec<Problem>) -> Result<Config, Problems> {
    let mut check = Check::new(schema);
    check.root(&mut root);
    problems.append(&mut check.problems);
    let mut problems = Problems(problems);
    problems
        .0
        .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if problems.has_errors() {
        let more = meant_besides(root.to_json(), &problems, check.places);
        problems.0.extend(more);
        problems
            .0
            .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        return Err(problems);
    }
    match serde_json::from_value::<Config>(root.to_json()) {
        Ok(mut config) => {
            config.origin = Origin(check.places);
            config.warnings = problems.0;
            Ok(config)
        }
        // The walk knows the schema, so this is a schema that does not say what the struct wants.
        Err(error) => Err(Problems(vec![Place::default().error(
            "",
            ProblemCode::BadValue,
            error.to_string(),
        )])),
    }
}

/// What is wrong with the meaning of the rest, where keys and types are wrong: everything is told at once. Only what no
/// part that was left out can be the cause of.
fn meant_besides(
    mut json: serde_json::Value,
    problems: &Problems,
    places: BTreeMap<String, Place>,
) -> Vec<Problem> {
    let errors = || problems.0.iter().filter(|p| p.severity == Severity::Error);
    if errors().any(|p| p.path.is_empty()) {
        // Not even the text could be read.
        return Vec::new();
    }
    let mut broken: Vec<&str> = errors().map(|p| part_of(&p.path)).collect();
    // Entries of lists keep their numbers while those behind them are taken out: longer numbers are larger ones.
    broken.sort_unstable_by_key(|path| (path.len(), *path));
    broken.dedup();
    for path in broken.iter().rev() {
        take_out(&mut json, path);
    }
    let Ok(mut config) = serde_json::from_value::<Config>(json) else {
        return Vec::new();
    };
    // Entries have other numbers now where one was taken out before them.
    let whole = |section: &str| !broken.iter().any(|path| path.starts_with(section));
    config.origin = Origin(places);
    let Err(found) = Settings::build(&config) else {
        return Vec::new();
    };
    let stands_alone = |p: &Problem| {
        let section = p.path.split(['.', '[']).next().unwrap_or_default();
        let listed = section == "general" || whole(&format!("{section}["));
        let known = !matches!(
            p.code,
            ProblemCode::UnknownName
                | ProblemCode::MissingKey
                | ProblemCode::MissingPassword
                | ProblemCode::ShardGap
                | ProblemCode::Conflict
        );
        let names_known = ["databases", "users", "general"].iter().all(|s| whole(s));
        p.severity == Severity::Error && listed && (known || names_known)
    };
    found.0.into_iter().filter(stands_alone).collect()
}

/// The part of a configuration that a problem makes unfit: the entry of a list, else the key.
fn part_of(path: &str) -> &str {
    match path.find(']') {
        Some(end) => &path[..=end],
        None => path,
    }
}

/// Takes a key, or an entry of a list, out of a document.
fn take_out(json: &mut serde_json::Value, path: &str) {
    if let Some((list, index)) = path.strip_suffix(']').and_then(|p| p.split_once('[')) {
        if let (Some(entries), Ok(index)) = (json[list].as_array_mut(), index.parse::<usize>())
            && index < entries.len()
        {
            entries.remove(index);
        }
        return;
    }
    let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = Some(json);
    for name in tables.split('.').filter(|name| !name.is_empty()) {
        table = table.and_then(|t| t.get_mut(name));
    }
    if let Some(table) = table.and_then(serde_json::Value::as_object_mut) {
        table.remove(key);
    }
}
