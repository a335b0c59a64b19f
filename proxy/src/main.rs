//! The `pgdog` command.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use pgdog::app::{self, Start};
use pgdog::args::{Cli, Command, Files};
use pgdog::build::Builder;
use pgdog::{import, logging, route};
use pgdog_backend::Clock;
use pgdog_config::{Config, Settings, Source};
use pgdog_wire::saslprep;
use pgdog_wire::scram::{Params, Verifier};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(run) => app::run(Start::from(&run)),
        Command::Configcheck(files) => return configcheck(&files),
        Command::Hash { password } => hash(password),
        Command::Import(what) => import::command::run(&what, &say),
        Command::Route(what) => route::run(&what, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("pgdog: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn configcheck(files: &Files) -> ExitCode {
    let source = Source::from(files);
    if let Some(nothing) = source.nothing_found() {
        say(&nothing);
        return ExitCode::FAILURE;
    }
    let checked = Config::load(&source)
        .and_then(|config| Settings::build(&config))
        .map_err(|problems| problems.to_string())
        .and_then(|built| logging::check(&built.0.log).map(|()| built))
        .and_then(|(settings, warnings)| {
            // Files that it names are read as they are at the start; nothing is opened.
            let builder = Builder::new(Arc::new(Clock::default()), 1);
            let built = builder.build(settings, None);
            built.map(|_| ((), warnings)).map_err(|p| p.to_string())
        });
    match checked {
        Ok((_, warnings)) => {
            warnings.iter().for_each(|w| say(&w.to_string()));
            say("configuration is valid");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            say(&problems);
            ExitCode::FAILURE
        }
    }
}

fn hash(password: Option<String>) -> anyhow::Result<()> {
    let password = match password {
        Some(password) => password,
        None => {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .context("read the password from standard input")?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    anyhow::ensure!(!password.is_empty(), "the password is empty");
    let verifier = Verifier::from_password(&saslprep::prepare(&password), &Params::random())
        .context("derive the verifier")?;
    writeln!(std::io::stdout(), "{verifier}").context("write the verifier")
}
