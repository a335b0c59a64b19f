//! The configuration a test gives to the proxy.

use std::fmt::Write as _;

use crate::postgres::Postgres;

/// Builds `pgdog.toml` and `users.toml`. Clients are trusted and no server is dialled before it is needed, unless
/// a test says otherwise.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    port: u16,
    general: Vec<(String, String)>,
    databases: Vec<DatabaseEntry>,
    users: Vec<(String, String)>,
    more: String,
    more_users: String,
    written: Option<(String, String)>,
}

#[derive(Clone, Debug)]
struct DatabaseEntry {
    name: String,
    port: u16,
    lines: Vec<String>,
}

impl ProxyConfig {
    /// A transaction-mode proxy in front of one Postgres.
    pub fn transaction(postgres: &Postgres) -> Self {
        Self::mode(postgres, "transaction")
    }

    /// A session-mode proxy in front of one Postgres.
    pub fn session(postgres: &Postgres) -> Self {
        Self::mode(postgres, "session")
    }

    /// A statement-mode proxy in front of one Postgres.
    pub fn statement(postgres: &Postgres) -> Self {
        Self::mode(postgres, "statement")
    }

    fn mode(postgres: &Postgres, mode: &str) -> Self {
        let this = Self {
            port: postgres.port(),
            general: Vec::new(),
            databases: Vec::new(),
            users: Vec::new(),
            more: String::new(),
            more_users: String::new(),
            written: None,
        };
        this.general("host", "\"127.0.0.1\"")
            .general("auth_type", "\"trust\"")
            .general("pooler_mode", &format!("\"{mode}\""))
            .general("min_pool_size", "0")
    }

    /// Two files as they are, but for the port to listen on: a line `port = 6432` in the first one.
    pub fn written(postgres: &Postgres, pgdog_toml: &str, users_toml: &str) -> Self {
        assert!(
            pgdog_toml.contains("\nport = 6432\n"),
            "a port to replace: {pgdog_toml}"
        );
        let mut this = Self::transaction(postgres);
        this.written = Some((pgdog_toml.to_owned(), users_toml.to_owned()));
        this
    }

    /// Sets a `[general]` key; the value is written as TOML (`"\"text\""`, `"5"`). The last one wins.
    #[must_use]
    pub fn general(mut self, key: &str, toml: &str) -> Self {
        self.general.retain(|(k, _)| k != key);
        self.general.push((key.to_owned(), toml.to_owned()));
        self
    }

    /// Servers per pool.
    #[must_use]
    pub fn pool_size(self, size: usize) -> Self {
        self.general("default_pool_size", &size.to_string())
    }

    /// Adds a database of the Postgres it was made for, under its own name.
    #[must_use]
    pub fn database(self, name: &str) -> Self {
        self.database_with(name, &[])
    }

    /// Adds a database with further lines in its `[[databases]]` entry, such as `"pool_size = 1"`.
    #[must_use]
    pub fn database_with(self, name: &str, lines: &[&str]) -> Self {
        let port = self.port;
        self.database_at(name, port, lines)
    }

    /// Adds a database on another port of 127.0.0.1.
    #[must_use]
    pub fn database_at(mut self, name: &str, port: u16, lines: &[&str]) -> Self {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        self.databases.push(DatabaseEntry {
            name: name.to_owned(),
            port,
            lines,
        });
        self
    }

    /// Adds a user of every database above and below.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Appends anything to `pgdog.toml`.
    #[must_use]
    pub fn append(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self.more.push('\n');
        self
    }

    /// Appends anything to `users.toml`.
    #[must_use]
    pub fn append_users(mut self, toml: &str) -> Self {
        self.more_users.push_str(toml);
        self.more_users.push('\n');
        self
    }

    /// The text of `pgdog.toml` for a proxy that listens on `port`.
    pub fn pgdog_toml(&self, port: u16) -> String {
        if let Some((toml, _)) = &self.written {
            return toml.replacen("\nport = 6432\n", &format!("\nport = {port}\n"), 1);
        }
        let mut toml = format!("[general]\nport = {port}\n");
        for (key, value) in &self.general {
            writeln!(toml, "{key} = {value}").expect("strings take everything");
        }
        for entry in &self.databases {
            let (name, port) = (&entry.name, entry.port);
            write!(
                toml,
                "\n[[databases]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\n"
            )
            .expect("strings take everything");
            for line in &entry.lines {
                writeln!(toml, "{line}").expect("strings take everything");
            }
        }
        toml.push('\n');
        toml.push_str(&self.more);
        toml
    }

    /// The text of `users.toml`.
    pub fn users_toml(&self) -> String {
        if let Some((_, users)) = &self.written {
            return users.clone();
        }
        let mut names: Vec<&str> = self
            .databases
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        names.dedup();
        let mut toml = String::new();
        for (user, password) in &self.users {
            for database in &names {
                writeln!(
                    toml,
                    "[[users]]\nname = \"{user}\"\ndatabase = \"{database}\"\npassword = \"{password}\"\n"
                )
                .expect("strings take everything");
            }
        }
        toml.push_str(&self.more_users);
        toml
    }
}
