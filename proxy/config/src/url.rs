//! Databases given as URLs: `postgres://user:password@host:port/database?role=replica&shard=1`.

use crate::check::Schema;
use crate::problem::{Problem, ProblemCode};
use crate::tree::{Node, Place, Value};

/// Turns URLs into a tree of `databases` and `users`. The values are checked with all the others later.
pub(crate) fn parse(urls: &[String], schema: &Schema) -> (Node, Vec<Problem>) {
    let (mut databases, mut users, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut known: Vec<(String, String)> = Vec::new();
    for (index, text) in urls.iter().enumerate() {
        // The URL itself is never shown: there is a password in it.
        let place = Place::of(&format!("database URL {}", index + 1));
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(message) => {
                problems.push(place.error("", ProblemCode::BadUrl, message));
                continue;
            }
        };
        for (key, value) in url.query.iter().filter(|(key, _)| is_libpq(key)) {
            problems.push(place.error(key, ProblemCode::UnknownKey, instead(key, value)));
        }
        databases.push(url.database(schema, &place));
        if let Some(name) = &url.user {
            let login = (name.clone(), url.name.clone());
            if !known.contains(&login) {
                known.push(login);
                users.push(url.user(name, &place));
            }
        }
    }
    let mut root = Node::table(Place::default());
    for (key, nodes) in [("databases", databases), ("users", users)] {
        if !nodes.is_empty() {
            root.insert(
                key,
                Node {
                    value: Value::Array(nodes),
                    place: Place::default(),
                },
            );
        }
    }
    (root, problems)
}

struct Url {
    name: String,
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<String>,
    query: Vec<(String, String)>,
}

impl Url {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("expected postgres://user:password@host:port/database")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an unescaped @, a host may not.
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (decode(user)?, Some(decode(password)?)),
            None => (decode(login)?, None),
        };
        let (host, port) = split_port(address)?;
        let mut url = Self {
            name: decode(name)?,
            user: (!user.is_empty()).then_some(user),
            password,
            host: decode(host)?,
            port: port.map(str::to_owned),
            query: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or("expected key=value behind the question mark")?;
            match (decode(key)?.as_str(), decode(value)?) {
                ("host", host) => url.host = host,
                ("port", port) => url.port = Some(port),
                (key, value) => url.query.push((key.to_owned(), value)),
            }
        }
        if url.host.is_empty() {
            return Err("no host in it");
        }
        if url.name.is_empty() {
            url.name = url
                .user
                .clone()
                .ok_or("neither a database nor a user in it")?;
        }
        Ok(url)
    }

    fn database(&self, schema: &Schema, place: &Place) -> Node {
        let mut node = Node::table(place.clone());
        let mut insert = |key: &str, text: &str| {
            node.insert(
                key,
                Node {
                    value: schema.read(schema.property("databases", key), text),
                    place: place.clone(),
                },
            );
        };
        insert("name", &self.name);
        insert("host", &self.host);
        if let Some(port) = &self.port {
            insert("port", port);
        }
        for (key, value) in self.query.iter().filter(|(key, _)| !is_libpq(key)) {
            insert(key, value);
        }
        node
    }

    fn user(&self, name: &str, place: &Place) -> Node {
        let mut node = Node::table(place.clone());
        let mut insert = |key: &str, text: &str| {
            node.insert(
                key,
                Node {
                    value: Value::Text(text.to_owned()),
                    place: place.clone(),
                },
            );
        };
        insert("name", name);
        insert("database", &self.name);
        if let Some(password) = &self.password {
            insert("password", password);
        }
        node
    }
}

/// Parameters of libpq that URLs often bring along, and what there is here in their place. `user`, `password` and
/// `read_only` are no such: they are keys of a database.
const LIBPQ: &[(&str, &str)] = &[
    (
        "sslmode",
        "it is one for all databases here: set general.tls_verify",
    ),
    ("sslrootcert", "set general.tls_server_ca_certificate"),
    ("sslcert", "set general.tls_server_certificate"),
    ("sslkey", "set general.tls_server_private_key"),
    (
        "sslnegotiation",
        "leave it out: TLS is asked for as every PostgreSQL understands",
    ),
    (
        "channel_binding",
        "leave it out: it is used where the server offers it",
    ),
    ("gssencmode", "leave it out: GSSAPI is not spoken"),
    ("dbname", "write the database behind the slash"),
    (
        "connect_timeout",
        "set general.connect_timeout, in milliseconds",
    ),
    ("application_name", "leave it out: clients send their own"),
    ("client_encoding", "leave it out: clients send their own"),
    (
        "options",
        "statement_timeout, lock_timeout and read_only are keys; clients send other settings themselves",
    ),
    (
        "target_session_attrs",
        "say role=primary or role=replica of each host",
    ),
    ("keepalives", "set tcp.keepalive"),
    ("keepalives_idle", "set tcp.time, in milliseconds"),
    ("keepalives_interval", "set tcp.interval, in milliseconds"),
    ("keepalives_count", "set tcp.retries"),
    ("tcp_user_timeout", "set tcp.user_timeout, in milliseconds"),
];

fn is_libpq(key: &str) -> bool {
    LIBPQ.iter().any(|(known, _)| *known == key)
}

/// What to do in place of a parameter of libpq.
fn instead(key: &str, value: &str) -> String {
    let known = LIBPQ.iter().find(|(known, _)| *known == key);
    let advice = known.map_or("leave it out", |(_, advice)| *advice);
    let mode = match (key, value) {
        ("sslmode", "disable") => " = \"disabled\" (or PGDOG_TLS_VERIFY=disabled)",
        ("sslmode", "allow" | "prefer") => " = \"prefer\", which is the default",
        ("sslmode", "require") => {
            "; its \"prefer\", the default, uses TLS where the server has it, and nothing less than \"verify_ca\" insists on it"
        }
        ("sslmode", "verify-ca") => " = \"verify_ca\" (or PGDOG_TLS_VERIFY=verify_ca)",
        ("sslmode", "verify-full") => " = \"verify_full\" (or PGDOG_TLS_VERIFY=verify_full)",
        _ => "",
    };
    format!("a parameter of libpq, and no key of a database; {advice}{mode}")
}

fn split_port(address: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or("an IPv6 address without its closing bracket")?;
        return Ok((host, rest.strip_prefix(':')));
    }
    Ok(match address.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    })
}

/// Decodes `%41` to `A`.
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("a percent sign without two hexadecimal digits behind it");
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| "text that is not UTF-8")
}
