use super::*;

fn of(text: &str) -> Facts {
    Facts::parse(text.as_bytes())
}

fn names(all: &[Name]) -> Vec<String> {
    let mut names: Vec<_> = all.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn functions_are_found_wherever_they_stand() {
    for text in [
        "select f(1)",
        "select 1 from t where F(1) = 2",
        "select 1 from f(1)",
        "select 1 from f(1) with ordinality",
        "select 1 from rows from (f(1), f(2))",
        "select 1 from t join u on f(1)",
        "select 1 from t group by f(1)",
        "select 1 from t group by cube(a, f(1))",
        "select 1 from t having f(1)",
        "select 1 from t order by f(1)",
        "select 1 limit f(1)",
        "select 1 offset f(1)",
        "select distinct on (f(1)) a from t",
        "select sum(a) over (partition by f(1)) from t",
        "select sum(a) over w from t window w as (order by f(1))",
        "select sum(a) over (rows f(1) preceding) from t",
        "select sum(a) filter (where f(1)) from t",
        "select sum(a order by f(1)) from t",
        "values (f(1))",
        "select 1 union select f(1)",
        "select (select f(1))",
        "select exists (select f(1))",
        "select array[f(1)]",
        "select array(select f(1))",
        "select row(f(1))",
        "select case when f(1) then 1 end",
        "select case f(1) when 1 then 1 end",
        "select case when a then 1 else f(1) end",
        "select coalesce(a, f(1))",
        "select greatest(a, f(1))",
        "select nullif(a, f(1))",
        "select a in (1, f(1))",
        "select a between 1 and f(1)",
        "select f(1)::text",
        "select f(1) is null",
        "select f(1) is true",
        "select f(1) collate \"C\"",
        "select (f(1)).x",
        "select (f(1))[1]",
        "select a[f(1)]",
        "select a[1:f(1)]",
        "select g(x => f(1))",
        "select g(variadic f(1))",
        "select 1 from lateral (select f(1)) x",
        "with a as (select f(1)) select 1 from a",
        "with recursive a as (select 1 union all select f(1) from a) select 1 from a",
        "select 1 from t tablesample system (f(1))",
        "select 1 from t tablesample system (1) repeatable (f(1))",
        "select xmlelement(name a, f(1))",
        "select xmlforest(f(1) as a)",
        "select 1 from xmltable('/a' passing f(1) columns b int)",
        "select 1 from xmltable('/a' passing x columns b int default f(1))",
        "select json_object('a': f(1))",
        "select json_arrayagg(f(1))",
        "select json_value(f(1), '$')",
        "select 1 from json_table(f(1), '$' columns (a int path '$'))",
        "select f(1) at time zone 'UTC'",
        "select 1 where not (a and (b or f(1)))",
        "copy (select f(1)) to stdout",
        "explain select f(1)",
        "declare c cursor for select f(1)",
        "select percentile_cont(f(1)) within group (order by a) from t",
        "select merge_action(), f(1)",
        "select 1 from t where a = any (array[f(1)])",
        "select 1 from t where (a, b) = (1, f(1))",
        "with a as (select 1 as x) search depth first by x set o select f(1) from a",
        "select 1 from t fetch first f(1) rows only",
        "select cast(f(1) as int)",
        "select extract(year from f(1))",
        "select 1; select f(1)",
    ] {
        let facts = of(text);
        assert_eq!(facts.error(), None, "{text}");
        assert!(
            names(facts.functions()).contains(&"f".to_owned()),
            "{text}: {:?}",
            facts.functions()
        );
    }
}

#[test]
fn names_are_folded_as_postgres_folds_them() {
    let facts = of("select Lower('a'), \"Lower\"('a'), S.F(1), db.s.g(1)");
    assert_eq!(names(facts.functions()), ["Lower", "lower", "s.f", "s.g"]);
}

#[test]
fn tables_are_those_of_the_database() {
    let facts = of(
        "with a as (select 1 from t) select 1 from a, s.u join V on true where exists (select 1 from w)",
    );
    assert_eq!(names(&facts.statements()[0].tables), ["s.u", "t", "v", "w"]);
}

#[test]
fn it_is_known_how_an_open_transaction_begins() {
    for (text, begins) in [
        ("begin", Some(Begins::Unsaid)),
        ("start transaction read only", Some(Begins::ReadOnly)),
        ("begin read write", Some(Begins::ReadWrite)),
        ("begin read only, read write", Some(Begins::ReadWrite)),
        (
            "begin isolation level serializable read only",
            Some(Begins::ReadWrite),
        ),
        (
            "begin isolation level repeatable read, read only",
            Some(Begins::ReadOnly),
        ),
        ("begin; select 1", Some(Begins::Unsaid)),
        (
            "begin read only; set transaction read write",
            Some(Begins::ReadWrite),
        ),
        ("begin; savepoint a; rollback to a", Some(Begins::Unsaid)),
        ("begin; commit", None),
        ("begin; commit and chain", Some(Begins::ReadWrite)),
        ("begin; select 1; rollback; begin", Some(Begins::ReadWrite)),
        ("select 1; begin read only", Some(Begins::ReadWrite)),
        (
            "begin read only; commit; begin read only",
            Some(Begins::ReadWrite),
        ),
        ("select 1; begin; commit", None),
        ("commit", None),
        ("", None),
    ] {
        assert_eq!(of(text).begins(), begins, "{text}");
    }
}

#[test]
fn what_does_not_parse_says_so() {
    let facts = of("selec 1");
    assert_eq!(facts.without_functions(), (Place::Primary, Why::Unknown));
    assert_eq!(
        facts.explain(&Functions::unread()),
        "does not parse: syntax error at or near \"selec\""
    );
    assert_eq!(of("select 1\0").without_functions().0, Place::Primary);
    let long = format!("select '{}'", "x".repeat(LONGEST));
    assert_eq!(
        of(&long).without_functions(),
        (Place::Primary, Why::TooLong)
    );
}

#[test]
fn deep_nesting_is_unknown_rather_than_the_end() {
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("(select ", "1", ")"),
        ("f(", "1", ")"),
        ("array[", "1", "]"),
        ("case when true then ", "1", " end"),
        ("not ", "true", ""),
        ("1 + ", "1", ""),
        ("- ", "1", ""),
        ("(values (", "1", "))"),
        ("1 in (", "1", ")"),
    ] {
        for depth in [1, 10, 1_000, 10_000, 100_000] {
            let text = format!(
                "select {}{inner}{}",
                open.repeat(depth),
                close.repeat(depth)
            );
            let facts = of(&text);
            if depth <= 10 {
                assert_eq!(facts.error(), None, "{open} {depth}");
            }
        }
    }
    let chain = format!("select 1{}", " || 'a'".repeat(100_000));
    assert_eq!(of(&chain).without_functions().0, Place::Primary);
    let unions = format!("select 1{}", " union all select 1".repeat(20_000));
    assert_eq!(of(&unions).without_functions().0, Place::Primary);
}

#[test]
fn a_long_list_is_no_depth() {
    let list = format!("select 1 from t where a in ({}1)", "1,".repeat(50_000));
    assert_eq!(of(&list).without_functions().0, Place::Read);
    let ands = format!("select 1 from t where a{}", " and a".repeat(5_000));
    assert_eq!(of(&ands).without_functions().0, Place::Read);
}

#[test]
fn reasons_in_words_name_the_function() {
    let functions = Functions::unread();
    let explain = |text: &str| of(text).explain(&functions);
    assert_eq!(
        explain("select public.f()"),
        "function public.f is not known"
    );
    assert_eq!(
        explain("select nextval('s')"),
        "function nextval writes, locks, or belongs to the session or the primary"
    );
    assert_eq!(explain("select 1 for update"), "locking clause FOR UPDATE");
    assert_eq!(explain("select 1"), "only reads");
}
