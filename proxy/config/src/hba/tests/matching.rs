//! Which rule decides over a client.

use super::{network, request, rule, rules, tcp, tls};
use crate::hba::{From, Method, Pattern, Request};

fn fits(line: &str, request: &Request<'_>) -> bool {
    rule(line).fits(request)
}

#[test]
fn the_first_rule_that_fits_decides_and_without_one_nobody_gets_in() {
    let rules = rules(
        "host a all 10.0.0.0/8 reject\nhost a,b all 10.0.0.0/8 md5\nhost all root 10.0.0.0/8 trust\n",
    );
    let method = |database, user| {
        rules
            .find(&request(tcp("10.1.2.3"), database, user))
            .map(|rule| rule.method)
    };
    assert_eq!(method("a", "root"), Some(Method::Reject));
    assert_eq!(method("b", "root"), Some(Method::Md5));
    assert_eq!(method("c", "root"), Some(Method::Trust));
    assert_eq!(method("c", "else"), None);
    assert!(rules.find(&request(tcp("11.1.2.3"), "a", "root")).is_none());
    assert!(rules.find(&request(From::Local, "a", "root")).is_none());
}

#[test]
fn kinds_of_connections_are_told_apart() {
    let kinds = [
        "local",
        "host",
        "hostssl",
        "hostnossl",
        "hostgssenc",
        "hostnogssenc",
    ];
    let fitting = |from: From<'_>| -> Vec<&str> {
        let fitting = kinds.into_iter().filter(|kind| {
            let address = if *kind == "local" { "" } else { "all" };
            fits(
                &format!("{kind} all all {address} trust"),
                &request(from, "d", "u"),
            )
        });
        fitting.collect()
    };
    assert_eq!(fitting(From::Local), ["local"]);
    assert_eq!(
        fitting(tcp("1.2.3.4")),
        ["host", "hostnossl", "hostnogssenc"]
    );
    assert_eq!(fitting(tls("1.2.3.4")), ["host", "hostssl", "hostnogssenc"]);
}

#[test]
fn networks_hold_the_addresses_of_their_family() {
    for (written, address, held) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.9.9.9/8", "10.0.0.1", true),
        ("0.0.0.0/0", "255.255.255.255", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "1.2.3.4", false),
        ("10.0.0.1/32", "10.0.0.1", true),
        ("10.0.0.1/32", "10.0.0.2", false),
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("10.0.0.1 255.0.0.255", "10.7.7.1", true),
        ("10.0.0.1 255.0.0.255", "10.7.7.2", false),
        ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false),
        ("fe80:: ffc0::", "febf::1", true),
        ("::1/128", "::1", true),
        ("::1/128", "::2", false),
        ("all", "::2", true),
        ("all", "2.2.2.2", true),
    ] {
        let line = format!("host all all {written} trust");
        assert_eq!(
            fits(&line, &request(tcp(address), "d", "u")),
            held,
            "{written} {address}"
        );
    }
}

#[test]
fn this_machine_and_its_networks_are_those_of_its_interfaces() {
    let interfaces = [
        network("127.0.0.1/8"),
        network("192.168.7.5/24"),
        network("fd00::5/64"),
    ];
    let both = rules("host all all samehost trust\nhost all all samenet reject\n");
    assert!(both.need_interfaces());
    assert!(!rules("host all all all trust").need_interfaces());
    for (address, method) in [
        ("192.168.7.5", Some(Method::Trust)),
        ("192.168.7.6", Some(Method::Reject)),
        ("192.168.8.6", None),
        ("127.0.0.1", Some(Method::Trust)),
        ("127.0.0.2", Some(Method::Reject)),
        ("fd00::5", Some(Method::Trust)),
        ("fd00::6", Some(Method::Reject)),
        ("fd01::6", None),
    ] {
        let from = From::Tcp {
            address: address.parse().unwrap(),
            tls: false,
            interfaces: &interfaces,
        };
        let found = both.find(&request(from, "d", "u"));
        assert_eq!(found.map(|rule| rule.method), method, "{address}");
    }
}

#[test]
fn physical_replication_needs_its_keyword_and_nothing_else_has_it() {
    let all = "local all all trust";
    let replication = "local replication all trust";
    let named = "local \"replication\" all trust";
    let physical = Request {
        replication: true,
        ..request(From::Local, "", "u")
    };
    let to_a_database = request(From::Local, "replication", "u");
    assert_eq!(
        [all, replication, named].map(|line| fits(line, &physical)),
        [false, true, false]
    );
    assert_eq!(
        [all, replication, named].map(|line| fits(line, &to_a_database)),
        [true, false, true]
    );
}

#[test]
fn names_fit_as_they_are_written() {
    for (line, database, user, fitting) in [
        ("local a u trust", "a", "u", true),
        ("local a u trust", "A", "u", false),
        ("local a,b u,v trust", "b", "v", true),
        ("local sameuser all trust", "u", "u", true),
        ("local sameuser all trust", "d", "u", false),
        ("local \"sameuser\" all trust", "u", "u", false),
        ("local \"sameuser\" all trust", "sameuser", "u", true),
        ("local all \"all\" trust", "a", "u", false),
        ("local all \"all\" trust", "a", "all", true),
        ("local /^db[0-9]+$ all trust", "db12", "u", true),
        ("local /^db[0-9]+$ all trust", "db12x", "u", false),
        ("local /b all trust", "abc", "u", true),
        ("local \"/^(a,b)$\" all trust", "a,b", "u", true),
        ("local all /^.*_ro$ trust", "a", "x_ro", true),
        ("local all /^.*_ro$,admin trust", "a", "admin", true),
        ("local all /^.*_ro$,admin trust", "a", "x", false),
    ] {
        assert_eq!(
            fits(line, &request(From::Local, database, user)),
            fitting,
            "{line}"
        );
    }
}

#[test]
fn patterns_mean_what_they_mean_in_postgres() {
    for (pattern, name, matched) in [
        ("", "anything", true),
        ("^a.b$", "a\nb", true),
        ("^a$", "a\n", false),
        (r"^\d+$", "12", true),
        (r"^\d+$", "\u{663}", false),
        (r"^\w$", "é", false),
        (r"^[\w-]+$", "a-b", true),
        (r"^[[:alpha:]_]+$", "a_b", true),
        (r"^[[:alpha:]]$", "é", false),
        (r"^\.$", ".", true),
        (r"^\.$", "x", false),
        ("^[]a]+$", "a]", true),
        ("^[^]a]+$", "b", true),
        ("^[^]a]+$", "]", false),
        ("^[a[]+$", "[a", true),
        ("^[a&&b]+$", "&", true),
        ("^[a~~b]+$", "~", true),
        ("^a{2,3}$", "aaa", true),
        ("^a{2,3}$", "aaaa", false),
        ("^a{2,}$", "aaaa", true),
        ("^a{,3}$", "a{,3}", true),
        ("^a{b}$", "a{b}", true),
        ("^(?:a|b)+$", "ab", true),
        ("^a #b$", "a #b", true),
        ("^()$", "", true),
        ("^a|b$", "axb", true),
        (r"^a\\b$", r"a\b", true),
        ("^[a-c]$", "b", true),
        ("^[a-]$", "-", true),
    ] {
        let pattern = Pattern::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why:?}"));
        assert_eq!(pattern.matches(name), matched, "{pattern:?} {name:?}");
    }
}
