//! What a line means, and what is said of one that means nothing.

use super::{problems, rule, rules};
use crate::ProblemCode;
use crate::hba::{
    Addresses, CertificateCheck, CertificateName, Connection, DatabaseName, Method, UserName,
};

fn names(names: &[&str]) -> Vec<DatabaseName> {
    names
        .iter()
        .map(|name| DatabaseName::Name((*name).to_owned()))
        .collect()
}

#[test]
fn a_line_is_a_rule() {
    let rule = rule("# who\n\nhostssl a,b \tall 10.0.0.0/8  cert map=m clientname=DN # why\n");
    assert_eq!(
        (rule.place.file.as_ref(), rule.place.line),
        ("dir/pg_hba.conf", 3)
    );
    assert_eq!(rule.connection, Connection::HostSsl);
    assert_eq!(rule.databases, names(&["a", "b"]));
    assert_eq!(rule.users, [UserName::All]);
    assert_eq!(
        rule.addresses,
        Addresses::Network(super::network("10.0.0.0/8"))
    );
    assert_eq!(rule.method, Method::Cert);
    assert_eq!(rule.map.as_deref(), Some("m"));
    assert_eq!(rule.certificate, CertificateCheck::VerifyFull);
    assert_eq!(rule.certificate_name, CertificateName::Dn);
}

#[test]
fn the_file_that_postgres_ships_is_understood() {
    let text = "\
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             postgres                                peer
local   all             all                                     peer
host    all             all             127.0.0.1/32            scram-sha-256
host    all             all             ::1/128                 scram-sha-256
local   replication     all                                     peer
host    replication     all             127.0.0.1/32            scram-sha-256
host    replication     all             ::1/128                 scram-sha-256
";
    assert_eq!(rules(text).iter().count(), 7);
}

#[test]
fn keywords_in_quotes_are_names() {
    let rule =
        rule(r#"local all,"all",sameuser,"sameuser",replication,"replication" "all","+g" trust"#);
    let name = |name: &str| DatabaseName::Name(name.to_owned());
    assert_eq!(
        rule.databases,
        [
            DatabaseName::All,
            name("all"),
            DatabaseName::SameUser,
            name("sameuser"),
            DatabaseName::Replication,
            name("replication"),
        ]
    );
    let name = |name: &str| UserName::Name(name.to_owned());
    assert_eq!(rule.users, [name("all"), name("+g")]);
}

#[test]
fn quotes_hold_blanks_commas_and_signs_of_comments() {
    for (written, read) in [
        (r#""a b,c#d""#, "a b,c#d"),
        (r#"a" b"c"#, "a bc"),
        (r#""say ""hi""""#, "say \"hi\""),
        (r#""""#, ""),
        (r#""""""#, "\""),
        (r#""@file""#, "@file"),
        ("@", "@"),
    ] {
        let rule = rule(&format!("local {written} all trust"));
        assert_eq!(rule.databases, names(&[read]), "{written}");
    }
}

#[test]
fn a_value_ends_at_a_comma_and_a_field_at_a_blank_without_one() {
    let rule = rule("local a, b,,\tc all trust");
    assert_eq!(rule.databases, names(&["a", "b", "c"]));
    assert_eq!(
        problems("local a ,b all trust").len(),
        1,
        "that is one field more"
    );
}

#[test]
fn a_backslash_joins_lines_and_the_first_one_counts() {
    let rules = rules(
        "local a \\\r\n all \\\n trust\nlocal b all \\\ntrust\n\n# \\\nlocal c all trust\nlocal d all trust",
    );
    let found: Vec<_> = rules
        .iter()
        .map(|rule| (rule.place.line, rule.databases.clone()))
        .collect();
    assert_eq!(
        found,
        [(1, names(&["a"])), (4, names(&["b"])), (9, names(&["d"]))],
        "a continued comment swallows the next line"
    );
    let rule = rule("local a\\\\\n\n all trust".replace("\n\n", " ").as_str());
    assert_eq!(
        rule.databases,
        names(&["a\\\\"]),
        "only at the end of a line"
    );
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let text = "local all\nhost all all 10.0.0.0/8 md5\n\nnothing all all trust\nhost samerole +g all ldap x\nlocal all all cert\nlocal all +g md5 a b=c";
    let told: Vec<_> = problems(text).into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        told,
        [
            "dir/pg_hba.conf:1: the line ends before the user",
            "dir/pg_hba.conf:4: unknown connection type \"nothing\", expected one of local, host, hostssl, hostnossl, hostgssenc, hostnogssenc",
            "dir/pg_hba.conf:5: \"samerole\" is not supported, it needs a role lookup; name the databases",
            "dir/pg_hba.conf:5: \"+g\" is not supported, it needs a role lookup; name the users",
            "dir/pg_hba.conf:5: method \"ldap\" is not supported; use scram-sha-256, md5, password, cert, peer, trust or reject",
            "dir/pg_hba.conf:6: method \"cert\" is for hostssl connections only",
            "dir/pg_hba.conf:7: \"+g\" is not supported, it needs a role lookup; name the users",
            "dir/pg_hba.conf:7: expected an option as name=value, found \"a\"",
            "dir/pg_hba.conf:7: unknown option \"b\", expected one of map, clientcert, clientname",
        ]
    );
}

#[test]
fn what_only_postgres_can_do_is_refused_by_name() {
    for (line, named) in [
        ("host all all all gss", "gss"),
        ("host all all all sspi", "sspi"),
        ("host all all all ident", "ident"),
        ("host all all all pam", "pam"),
        ("host all all all ldap", "ldap"),
        ("host all all all radius", "radius"),
        ("host all all all bsd", "bsd"),
        ("host all all all oauth", "oauth"),
        (
            "host all all db.example.com md5",
            "host names are not supported",
        ),
        (
            "host all all .example.com md5",
            "host names are not supported",
        ),
        ("host all all \"all\" md5", "host names are not supported"),
        ("host samegroup all all md5", "samegroup"),
        ("host all +admins all md5", "+admins"),
        (r"host all /\mx all md5", r"\m"),
    ] {
        let told = problems(line);
        assert_eq!(told.len(), 1, "{line}");
        assert_eq!(
            told[0].0,
            ProblemCode::NotImplemented,
            "{line}: {}",
            told[0].1
        );
        assert!(told[0].1.contains(named), "{line}: {}", told[0].1);
    }
}

#[test]
fn what_postgres_refuses_is_refused() {
    for line in [
        "host",
        "local,host all all all md5",
        "Local all all md5",
        "host all all",
        "host all all all",
        "host all all 10.0.0.0/8",
        "host all all 10.0.0.0",
        "host all all 10.0.0.0 md5",
        "host all all 10.0.0.0/33 md5",
        "host all all ::/129 md5",
        "host all all 10.0.0.0/ md5",
        "host all all 10.0.0.0/8/8 md5",
        "host all all name/8 md5",
        "host all all 10.0.0.0/8,11.0.0.0/8 md5",
        "host all all 10.0.0.0 ffff:: md5",
        "host all all 10.0.0.0/8 255.0.0.0 md5",
        "host all all all md5,trust",
        "host all all all nothing",
        "host all all all peer",
        "host all all all cert",
        "hostnossl all all all cert",
        "local all all md5 map=x",
        "hostssl all all all md5 option",
        "hostssl all all all md5 what=ever",
        "host all all all md5 clientcert=verify-ca",
        "hostssl all all all md5 clientcert=1",
        "hostssl all all all cert clientcert=verify-ca",
        "host all all all md5 clientname=CN",
        "hostssl all all all md5 clientname=cn",
        "hostssl all all all md5 ldapserver=x",
        "local /( all trust",
        "local all /a** trust",
        "local all \0 trust",
        "local \\",
    ] {
        for (code, text) in problems(line) {
            assert_ne!(code, ProblemCode::NotImplemented, "{text}");
        }
    }
}

#[test]
fn an_unreadable_line_does_not_hide_the_others() {
    let text = b"local \xff all trust\nlocal all all nonsense\n";
    let problems = crate::hba::Rules::parse(std::path::Path::new("f"), text).unwrap_err();
    let lines: Vec<_> = problems.0.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(1), Some(2)]);
}

#[test]
fn the_certificate_of_every_method_can_be_asked_for() {
    for (option, check) in [
        ("", CertificateCheck::None),
        ("clientcert=verify-ca", CertificateCheck::VerifyCa),
        ("clientcert=verify-full", CertificateCheck::VerifyFull),
        (
            "clientcert=verify-ca clientcert=verify-full",
            CertificateCheck::VerifyFull,
        ),
        (
            "clientcert=verify-full,clientname=CN",
            CertificateCheck::VerifyFull,
        ),
    ] {
        let rule = rule(&format!("hostssl all all all scram-sha-256 {option}"));
        assert_eq!(rule.certificate, check, "{option}");
    }
}

#[test]
fn ident_on_a_local_socket_is_peer() {
    assert_eq!(rule("local all all ident map=m").method, Method::Peer);
}
