//! The operator's program.

use std::io::Write;

use clap::Parser;
use pgdog_operator::app;
use pgdog_operator::args::{Cli, Command};
use pgdog_operator::inject;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => {
            let yaml = serde_yaml::to_string(&pgdog_operator_api::crd())?;
            std::io::stdout().write_all(yaml.as_bytes())?;
            Ok(())
        }
        Command::Inject(args) => inject::command::run(args).await,
        Command::Run(run) => {
            let filter =
                EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            let log = tracing_subscriber::fmt().with_env_filter(filter);
            if run.log_json {
                log.json().init();
            } else {
                log.init();
            }
            app::run(run).await
        }
    }
}
