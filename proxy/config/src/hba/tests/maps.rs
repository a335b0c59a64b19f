//! Name maps.

use std::path::Path;

use crate::ProblemCode;
use crate::hba::Maps;

fn maps(text: &str) -> Maps {
    Maps::parse(Path::new("pg_ident.conf"), text.as_bytes())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn allows(text: &str, system: &str, user: &str) -> bool {
    maps(text).allows(Some("m"), system, user)
}

#[test]
fn without_a_map_the_names_are_the_same() {
    let maps = maps("m a b\n");
    for map in [None, Some("")] {
        assert!(maps.allows(map, "a", "a"));
        assert!(!maps.allows(map, "a", "b"));
    }
}

#[test]
fn only_the_lines_of_the_map_count() {
    let maps = maps("other a x\nm a b\nm a c\n\"two words\" a d\n");
    assert!(maps.allows(Some("m"), "a", "b"));
    assert!(maps.allows(Some("m"), "a", "c"));
    assert!(!maps.allows(Some("m"), "a", "a"));
    assert!(!maps.allows(Some("m"), "a", "x"));
    assert!(!maps.allows(Some("m"), "b", "b"));
    assert!(maps.allows(Some("two words"), "a", "d"));
    assert!(!maps.allows(Some("none"), "a", "a"));
    assert!(maps.contains("two words") && !maps.contains("none"));
}

#[test]
fn patterns_match_system_users_and_users() {
    for (line, system, user, allowed) in [
        (r"m /^(.*)@example\.com$ \1", "joe@example.com", "joe", true),
        (
            r"m /^(.*)@example\.com$ \1",
            "joe@example.com",
            "jim",
            false,
        ),
        (
            r"m /^(.*)@example\.com$ \1",
            "joe@exampleXcom",
            "joe",
            false,
        ),
        (
            r"m /^(.*)@example\.com$ db_\1_ro",
            "joe@example.com",
            "db_joe_ro",
            true,
        ),
        (
            r"m /^(.*)@example\.com$ db_\1_ro",
            "joe@example.com",
            "db_ro",
            false,
        ),
        (
            r"m /^(.*)@example\.com$ guest",
            "joe@example.com",
            "guest",
            true,
        ),
        (r"m /^x /^y", "xa", "yb", true),
        (r"m /^x /^y", "xa", "b", false),
        (r"m /^(.*)$ /^\.$", "xa", "xa", false),
        ("m joe all", "joe", "anyone", true),
        ("m joe all", "jim", "jim", false),
        ("m joe \"all\"", "joe", "anyone", false),
        ("m joe \"all\"", "joe", "all", true),
        ("m all joe", "anyone", "joe", false),
        (r"m joe \1", "joe", r"\1", true),
        (r"m joe \1", "joe", "joe", false),
        ("m joe \"+g\"", "joe", "+g", true),
        (r"m /^(.*)$ \1", "all", "other", false),
    ] {
        assert_eq!(allows(line, system, user), allowed, "{line}");
    }
}

#[test]
fn a_group_that_matched_nothing_ends_the_search() {
    let text = "m /^(a)?b$ \\1\nm b x\n";
    assert!(allows(text, "ab", "a"));
    assert!(!allows(text, "b", "x"), "as in PostgreSQL");
    assert!(!allows(text, "b", ""));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let text = "m\nm a\nm a b c\nm a,b c\nm /( a\nm a +g\nm /x \\1\nm /(a|b) \\1\nm /(a) \\1\\1\n";
    let problems = Maps::parse(Path::new("f"), text.as_bytes()).unwrap_err();
    let told: Vec<_> = problems
        .0
        .iter()
        .map(|problem| (problem.line.unwrap(), problem.code))
        .collect();
    assert_eq!(
        told,
        [
            (1, ProblemCode::Syntax),
            (2, ProblemCode::Syntax),
            (3, ProblemCode::Syntax),
            (4, ProblemCode::Syntax),
            (5, ProblemCode::BadValue),
            (6, ProblemCode::NotImplemented),
            (7, ProblemCode::BadValue),
            (8, ProblemCode::NotImplemented),
            (9, ProblemCode::NotImplemented),
        ],
        "{problems}"
    );
}
