//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pgdog_config::Source;

use crate::app::Start;
use crate::import::command::Import;
use crate::reload::Identity;
use crate::route::Route;

/// A pooler, load balancer and sharding router for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "pgdog", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// For `run` without its name.
    #[command(flatten)]
    pub run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients until SIGTERM or SIGINT, which let them finish; a second one ends at once. SIGHUP reloads.
    Run(Run),
    /// Check the configuration, print everything that is wrong with it, and exit 1 if it would not start.
    Configcheck(Files),
    /// Print the SCRAM-SHA-256 verifier of a password, for `password_hash`; asks for it on standard input when it is not given.
    Hash {
        /// The password.
        password: Option<String>,
    },
    /// Turn the configuration of PgBouncer or PgCat into pgdog.toml and users.toml.
    ///
    /// Every key either becomes one of ours or a comment that says why it has none. A comment also stands where a key
    /// means something else here. A key that is unknown is an error, and nothing is written.
    ///
    /// Examples: pgdog import /etc/pgbouncer/pgbouncer.ini --out /etc/pgdog; pgdog import pgcat.toml
    Import(Import),
    /// Print for each query of a file where it would go, and why. It connects to nothing.
    ///
    /// Of functions it knows PostgreSQL's own; --functions adds those of a database, --config what a
    /// configuration says of some. What a comment asks for
    /// (/* pgdog_role: replica */) is shown, and not applied.
    ///
    /// Examples: pgdog route queries.sql; echo 'select 1 for update' | pgdog route --config pgdog.toml -
    Route(Route),
}

/// What to serve, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The configuration.
    #[command(flatten)]
    pub files: Files,
    /// Start without anything to serve, and wait until it is pushed to the HTTP admin API.
    #[arg(long, env = "PGDOG_WAIT_FOR_CONFIG")]
    pub wait_for_config: bool,
    /// Uid of the cluster this proxy belongs to: configurations that are pushed have to name it.
    #[arg(long, env = "PGDOG_CLUSTER_UID", value_name = "UID")]
    pub cluster_uid: Option<String>,
    /// Uid of the pod this proxy runs in: configurations that are pushed have to name it.
    #[arg(long, env = "PGDOG_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// Zone of the pod this proxy runs in: it is `general.zone` where the configuration has none.
    #[arg(long, env = "PGDOG_POD_ZONE", value_name = "ZONE")]
    pub pod_zone: Option<String>,
}

impl From<&Run> for Start {
    fn from(run: &Run) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            source: Source::from(&run.files),
            identity: Identity {
                cluster_uid: given(&run.cluster_uid),
                pod_uid: given(&run.pod_uid),
                pod_zone: given(&run.pod_zone),
            },
            wait: run.wait_for_config,
        }
    }
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The configuration: a TOML file, or one YAML file that also holds the users.
    #[arg(short, long, env = "PGDOG_CONFIG", default_value = "pgdog.toml")]
    pub config: PathBuf,
    /// The users: a TOML file; `users.toml` beside the configuration when it is there.
    #[arg(short, long, env = "PGDOG_USERS")]
    pub users: Option<PathBuf>,
    /// A database as a URL, instead of or besides the files; may be repeated.
    #[arg(long = "database-url", alias = "database_url", value_name = "URL")]
    pub database_urls: Vec<String>,
}

impl From<&Files> for Source {
    fn from(files: &Files) -> Self {
        Self {
            config: files.config.clone(),
            users: files.users.clone(),
            database_urls: files.database_urls.clone(),
        }
    }
}
