//! Examples; the properties stand in `tests/fingerprint.rs`.

use super::{fingerprint, lower, normalise};

fn text(query: &str) -> String {
    normalise(query.as_bytes())
}

fn alike(one: &str, other: &str) -> bool {
    fingerprint(one.as_bytes()) == fingerprint(other.as_bytes())
}

#[test]
fn constants_of_every_form_are_numbered() {
    for constant in [
        "1",
        "-1",
        "- 1",
        "1.5e-3",
        ".5",
        "1_000",
        "0xFF",
        "'a'",
        "'it''s'",
        "'a'\n  'b'",
        "E'it\\'s'",
        "E'a'\n'b\\''",
        "U&'\\0061'",
        "B'101'",
        "x'1F'",
        "N'a'",
        "$$a$$",
        "$tag$ $$ ' $tag$",
    ] {
        let query = format!("select {constant} from t where a = {constant}");
        assert_eq!(text(&query), "select $1 from t where a = $2", "{constant}");
        assert!(alike(&query, "SELECT 7 FROM t WHERE a = 8"), "{constant}");
    }
}

#[test]
fn numbers_go_on_from_the_highest_parameter() {
    assert_eq!(
        text("select $2, 5 from t where a = $1 and b = 'x'"),
        "select $2, $3 from t where a = $1 and b = $4"
    );
    assert_eq!(text("select $99999999999, 1"), "select $99999999999, $1");
}

#[test]
fn a_minus_belongs_to_a_number_where_no_value_stands_before_it() {
    for (query, expected) in [
        ("select -1", "select $1"),
        ("select a -1", "select a -$1"),
        ("select a - 1", "select a - $1"),
        ("select (1)-1", "select ($1)-$2"),
        ("select a[1]-1", "select a[$1]-$2"),
        ("select \"a\"-1, 2-1", "select \"a\"-$1, $2-$3"),
        ("select $1-1", "select $1-$2"),
        (
            "where a = -1 and b between -1 and -2",
            "where a = $1 and b between $2 and $3",
        ),
        ("select -1::int", "select -$1::int"),
        ("select a * -1", "select a * $1"),
        ("select - -1", "select - $1"),
        ("select +1", "select +$1"),
        ("limit -1", "limit $1"),
    ] {
        assert_eq!(text(query), expected);
    }
}

#[test]
fn spelling_stays_and_blanks_and_comments_become_one_space() {
    assert_eq!(
        text("  Select\t\"A\" , b/* c */From /* x */ T -- y\n where a=1 ; "),
        "Select \"A\" , b From T where a=$1"
    );
    assert_eq!(text("select U&\"\\0061\""), "select U&\"\\0061\"");
    assert_eq!(text(";; begin ;; commit; ;"), "begin ; commit");
    assert_eq!(text(""), "");
    assert_eq!(text(" ; -- nothing"), "");
}

#[test]
fn lists_of_one_kind_are_cut_after_their_first_element() {
    for (query, expected) in [
        ("a in (1)", "a in ($1)"),
        ("a in (1, 2)", "a in ($1 /*, ... */)"),
        (
            "a IN ($1,$2,$3) and b = 5",
            "a IN ($1 /*, ... */) and b = $2",
        ),
        ("a in ( 1 , -2 , 3 ) and b", "a in ( $1 /*, ... */ ) and b"),
        ("a in ($1::int, $2::int)", "a in ($1::int /*, ... */)"),
        ("a in ((1, 'x'), (2, 'y'))", "a in (($1, $2) /*, ... */)"),
        ("a = any(array[1, 2, 3])", "a = any(array[$1 /*, ... */])"),
        ("a in (b, 1, 2)", "a in (b, $1, $2)"),
        ("a in (1, b, 2, 3)", "a in ($1, b /*, ... */)"),
        ("f(1, 2, 3)", "f($1, $2, $3)"),
        (
            "values (1, 'a'), (2, 'b') returning c",
            "values ($1, $2) /*, ... */ returning c",
        ),
        (
            "values (1, now()),\n(2, NOW())",
            "values ($1, now()) /*, ... */",
        ),
        (
            "values (1), (2, 3), (4)",
            "values ($1), ($2, $3) /*, ... */",
        ),
        (
            "from (values (1), (2)) v, t",
            "from (values ($1) /*, ... */) v, t",
        ),
        (
            "a in (select b from t where c in (1, 2), 3, 4)",
            "a in (select b from t where c in ($1 /*, ... */), $2, $3)",
        ),
        (
            "values (1, array[1, 2]), (2, array[3, 4])",
            "values ($1, array[$2 /*, ... */]) /*, ... */",
        ),
        ("a in (1, 2", "a in ($1, $2"),
    ] {
        assert_eq!(text(query), expected);
    }
}

#[test]
fn the_length_of_a_list_makes_no_difference_from_two_on() {
    assert!(alike("a in (1, 2)", "a IN (1,2,3,4)"));
    assert!(alike(
        "values (1, 'a'), (2, 'b')",
        "values (1, 'a'), (2, 'b'), (3, 'c')"
    ));
    assert!(!alike("a in (1)", "a in (1, 2)"));
    assert!(!alike("a in (1, 2)", "a in ($1, $2)"));
    assert!(!alike("values (1, 2)", "values (1, 2, 3)"));
}

#[test]
fn what_differs_in_structure_differs() {
    for (one, other) in [
        ("select a", "select b"),
        ("select a", "select a, b"),
        ("select a b", "select ab"),
        ("select \"a\"", "select \"A\""),
        ("select a", "select \"a\""),
        ("select $1", "select $2"),
        ("select $1", "select 1"),
        ("select - a", "select + a"),
        ("begin; commit", "begin commit"),
        ("select \u{e9}", "select \u{c9}"),
        ("select abcdefgh", "select abcdefghi"),
        ("select abcdefgh, i", "select abcdefg, hi"),
    ] {
        assert!(!alike(one, other), "{one} / {other}");
    }
}

#[test]
fn a_password_of_a_role_is_hidden() {
    for query in [
        "ALTER ROLE bob PASSWORD 'hunter2'",
        "alter user bob with encrypted password 'hunter2' valid until 'hunter2'",
        "/* x */ create role bob login password E'hunter2'",
        "create user mapping for bob server s options (user 'bob', password 'hunter2')",
        "select 1; alter role bob password 'hun'ter2'; select hunter2",
        "alter group g password 'x\\'hunter2'",
        "alter role a; alter role bob password hunter2",
    ] {
        let shown = text(query);
        assert!(shown.ends_with("/* hidden: a password */"), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("bob"),
            "{shown}"
        );
    }
    assert_eq!(
        text("ALTER ROLE bob PASSWORD 'x'"),
        "ALTER ROLE /* hidden: a password */"
    );
    assert_eq!(text("alter role bob login"), "alter role bob login");
    assert_eq!(
        text("select password from users"),
        "select password from users"
    );
}

#[test]
fn bytes_that_are_no_text_are_shown_as_such() {
    assert_eq!(normalise(b"select \xff, '\xff'"), "select \u{fffd}, $1");
}

#[test]
fn the_number_of_a_text_is_the_same_everywhere() {
    assert_eq!(
        fingerprint(b"select a from t where b = 1"),
        0xd2a7_aee0_dc59_913b
    );
}

#[test]
fn only_ascii_capitals_are_folded() {
    for byte in 0..=u8::MAX {
        let word = u64::from_le_bytes([byte; 8]);
        assert_eq!(
            lower(word),
            u64::from_le_bytes([byte.to_ascii_lowercase(); 8]),
            "{byte}"
        );
    }
}
