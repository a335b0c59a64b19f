//! Tests of the two files.

mod files;
mod maps;
mod matching;
mod random;
mod reading;

use std::path::Path;

use super::{From, Network, Request, Rule, Rules};
use crate::ProblemCode;

const FILE: &str = "dir/pg_hba.conf";

fn rules(text: &str) -> Rules {
    Rules::parse(Path::new(FILE), text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn rule(text: &str) -> Rule {
    let rules = rules(text);
    let mut all = rules.iter();
    let first = all.next().expect("a rule").clone();
    assert_eq!(all.next(), None, "{text}");
    first
}

/// The codes and the messages, one string each.
fn problems(text: &str) -> Vec<(ProblemCode, String)> {
    let problems = Rules::parse(Path::new(FILE), text.as_bytes()).expect_err(text);
    let told = problems
        .0
        .iter()
        .map(|problem| (problem.code, problem.to_string()));
    told.collect()
}

/// A client without TLS.
fn tcp(address: &str) -> From<'static> {
    From::Tcp {
        address: address.parse().unwrap(),
        tls: false,
        interfaces: &[],
    }
}

fn tls(address: &str) -> From<'static> {
    From::Tcp {
        address: address.parse().unwrap(),
        tls: true,
        interfaces: &[],
    }
}

fn request<'a>(from: From<'a>, database: &'a str, user: &'a str) -> Request<'a> {
    Request {
        from,
        database,
        user,
        replication: false,
    }
}

fn network(text: &str) -> Network {
    let (address, bits) = text.split_once('/').unwrap();
    Network::of_prefix(address.parse().unwrap(), bits.parse().unwrap()).unwrap()
}
