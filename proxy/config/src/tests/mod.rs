//! Tests of the crate as a whole.

mod auth;
mod balancing;
mod documents;
mod keys;
mod loading;
mod meaning;
mod mirroring;

use crate::{Config, Problem, Problems, Settings, Severity};

const VERIFIER: &str = "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn settings(pgdog: &str, users: &str) -> Settings {
    let config = Config::from_toml(pgdog, users).unwrap();
    Settings::build(&config)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .0
}

fn warnings(pgdog: &str, users: &str) -> Vec<Problem> {
    Settings::build(&Config::from_toml(pgdog, users).unwrap())
        .unwrap()
        .1
}

/// The errors that building settings gives, one string each, without the warnings.
fn errors(pgdog: &str, users: &str) -> Vec<String> {
    let problems = Settings::build(&Config::from_toml(pgdog, users).unwrap()).unwrap_err();
    let errors = problems
        .0
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.0.iter().map(ToString::to_string).collect()
}
