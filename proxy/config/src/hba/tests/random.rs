//! Arbitrary files, and rules that are written and read again.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::hba::{
    Addresses, CertificateCheck, CertificateName, Connection, DatabaseName, Map, MapUser, Maps,
    Method, Network, Pattern, Place, Rule, Rules, SystemUser, UserName,
};

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What a line is made of, and what it stumbles over.
const PIECES: &[&str] = &[
    "local",
    "host",
    "hostssl",
    "hostgssenc",
    "all",
    "sameuser",
    "samerole",
    "replication",
    "trust",
    "md5",
    "cert",
    "peer",
    "ldap",
    "10.0.0.0/8",
    "10.0.0.0",
    "255.0.0.0",
    "::1/128",
    "samenet",
    "x",
    "map=x",
    "clientcert=verify-ca",
    "clientname=DN",
    "clientcert=",
    "include",
    "include_dir",
    "include_if_exists",
    "@x",
    "@",
    "+g",
    "/",
    "/^(a)b$",
    "/[",
    "/(",
    "/\\",
    "/a{1",
    "/(?=x)",
    "\\1",
    "\"",
    "\"\"",
    "\\",
    ",",
    "#",
    "=",
    " ",
    " ",
    " ",
    "\t",
    "\r",
    "\n",
    "\n",
    "\\\n",
    "é",
    "\0",
];

fn names() -> impl Strategy<Value = String> {
    // A name that begins with a slash is a pattern, and nothing reads over the end of a line.
    "[ -.0-~é\t][ -~é\t]{0,8}|"
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let texts = ["", "^a,b c$", "^(.*)@x\\.y$", "[^\"#]+", "a|b", "x{2,3}?"];
    prop::sample::select(texts.to_vec()).prop_map(|text| Pattern::new(text).unwrap())
}

fn databases() -> impl Strategy<Value = DatabaseName> {
    prop_oneof![
        Just(DatabaseName::All),
        Just(DatabaseName::SameUser),
        Just(DatabaseName::Replication),
        names().prop_map(DatabaseName::Name),
        patterns().prop_map(DatabaseName::Pattern),
    ]
}

fn users() -> impl Strategy<Value = UserName> {
    prop_oneof![
        Just(UserName::All),
        names().prop_map(UserName::Name),
        patterns().prop_map(UserName::Pattern),
    ]
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let network = any::<(IpAddr, u32)>().prop_filter_map("too many bits", |(address, bits)| {
        Network::of_prefix(address, bits % 129).map(Addresses::Network)
    });
    prop_oneof![
        Just(Addresses::All),
        Just(Addresses::SameHost),
        Just(Addresses::SameNet),
        network,
    ]
}

/// Kinds of connections with the methods and the checks of certificates that they allow.
fn kinds() -> impl Strategy<Value = (Connection, Method, CertificateCheck)> {
    let mut kinds = Vec::new();
    for connection in [
        Connection::Local,
        Connection::Host,
        Connection::HostSsl,
        Connection::HostNoSsl,
        Connection::HostGssEnc,
        Connection::HostNoGssEnc,
    ] {
        for method in [
            Method::Trust,
            Method::Reject,
            Method::Md5,
            Method::Password,
            Method::ScramSha256,
        ] {
            kinds.push((connection, method, CertificateCheck::None));
        }
    }
    kinds.push((Connection::Local, Method::Peer, CertificateCheck::None));
    kinds.push((
        Connection::HostSsl,
        Method::Cert,
        CertificateCheck::VerifyFull,
    ));
    kinds.push((Connection::HostSsl, Method::Md5, CertificateCheck::VerifyCa));
    kinds.push((
        Connection::HostSsl,
        Method::Trust,
        CertificateCheck::VerifyFull,
    ));
    prop::sample::select(kinds)
}

fn rules() -> impl Strategy<Value = Rule> {
    let lists = (
        prop::collection::vec(databases(), 1..4),
        prop::collection::vec(users(), 1..4),
    );
    let parts = (
        kinds(),
        lists,
        addresses(),
        prop::option::of(names()),
        any::<bool>(),
    );
    parts.prop_map(|(kind, (databases, users), addresses, map, dn)| {
        let (connection, method, certificate) = kind;
        let is_local = connection == Connection::Local;
        let dn = dn && connection == Connection::HostSsl;
        Rule {
            place: Place {
                file: Arc::from("f"),
                line: 1,
            },
            connection,
            databases,
            users,
            addresses: if is_local { Addresses::All } else { addresses },
            method,
            map: map.filter(|_| matches!(method, Method::Peer | Method::Cert)),
            certificate,
            certificate_name: if dn {
                CertificateName::Dn
            } else {
                CertificateName::Cn
            },
        }
    })
}

/// Both kinds of files give what they say, or problems that have a place.
fn read_or_told(bytes: &[u8]) -> Result<(), TestCaseError> {
    let path = Path::new("/nonexistent/f");
    let last = bytes.split(|byte| *byte == b'\n').count() as u32;
    let rules = Rules::parse(path, bytes).err();
    let maps = Maps::parse(path, bytes).err();
    for problems in rules.into_iter().chain(maps) {
        prop_assert!(!problems.0.is_empty());
        for problem in &problems.0 {
            let line = problem.line.unwrap_or_default();
            prop_assert!((1..=last).contains(&line), "{}", problem);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_or_told(&bytes)?;
    }

    #[test]
    fn arbitrary_pieces_are_read_without_a_panic(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)
    ) {
        read_or_told(pieces.concat().as_bytes())?;
    }

    #[test]
    fn arbitrary_patterns_are_compiled_or_refused(text in "[-a-c^$.*+?(){}|\\\\\\[\\]:1,é]{0,12}", name in "[a-c1]{0,6}") {
        if let Ok(pattern) = Pattern::new(&text) {
            let matched = pattern.first_group(&name).is_some();
            prop_assert_eq!(pattern.matches(&name), matched);
        }
    }

    #[test]
    fn a_rule_that_is_written_is_read_as_the_same(rule in rules()) {
        let line = rule.to_string();
        let read = Rules::parse(Path::new("f"), line.as_bytes());
        let read = read.map_err(|problems| TestCaseError::fail(format!("{line}\n{problems}")))?;
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), [&rule], "{}", line);
    }

    #[test]
    fn a_map_that_is_written_is_read_as_the_same(
        name in names(),
        system in names(),
        pattern in patterns(),
        is_pattern in any::<bool>(),
        user in prop_oneof![
            Just(MapUser::All),
            names().prop_map(MapUser::Name),
            patterns().prop_map(MapUser::Pattern),
        ],
    ) {
        let map = Map {
            place: Place { file: Arc::from("f"), line: 1 },
            name,
            system: if is_pattern { SystemUser::Pattern(pattern) } else { SystemUser::Name(system) },
            user,
        };
        let line = map.to_string();
        // A map by the name of a directive cannot be written.
        prop_assume!(!map.name.starts_with("include"));
        prop_assume!(!line.contains(r"\1"));
        let read = Maps::parse(Path::new("f"), line.as_bytes());
        let read = read.map_err(|problems| TestCaseError::fail(format!("{line}\n{problems}")))?;
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), [&map], "{}", line);
    }
}
