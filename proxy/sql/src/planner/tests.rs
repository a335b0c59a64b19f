use super::*;
use crate::functions::{Row, Verdict};
use crate::route::{Place, Why};

fn place(planner: &Planner, text: &str, functions: &Functions) -> Place {
    planner.route(text.as_bytes(), functions).place
}

fn functions(volatile: bool) -> Functions {
    Functions::new([Row {
        schema: "public",
        name: "f",
        volatile,
        builtin: false,
        through: None,
    }])
}

#[test]
fn other_constants_are_no_other_text() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    for text in ["select 1", "select 'a'", "SELECT  2 -- x", "select $$b$$"] {
        assert_eq!(place(&planner, text, &functions), Place::Read);
    }
    let counters = planner.counters();
    assert_eq!((counters.hits, counters.misses), (3, 1));
    assert!(counters.parse_nanoseconds > 0);
    let all: Vec<_> = planner.entries().collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].text.as_str(), all[0].hits), ("select $1", 3));
}

#[test]
fn a_text_whose_outline_is_known_is_the_same_text_with_the_same_answer() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    for at in 0..5 {
        let read = format!("select a, 'it''s {at};' from t1 where b = {at}; ");
        let route = planner.route(read.as_bytes(), &functions);
        assert_eq!((route.place, route.lone), (Place::Read, true));
        let both = format!("select {at}; update t set a = {at}");
        let route = planner.route(both.as_bytes(), &functions);
        assert_eq!((route.place, route.lone), (Place::Primary, false));
    }
    let counters = planner.counters();
    assert_eq!((counters.hits, counters.misses), (8, 2));
}

#[test]
fn an_error_is_no_answer_for_its_like() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    for _ in 0..2 {
        let wrong = planner.route(b"select interval 5", &functions);
        assert_eq!((wrong.place, wrong.why), (Place::Primary, Why::Unknown));
    }
    assert_eq!(planner.counters().misses, 1);
    assert_eq!(
        place(&planner, "select interval '5'", &functions),
        Place::Read
    );
    assert_eq!(planner.counters().misses, 2);
}

#[test]
fn an_escape_character_decides_what_is_called() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    let text = |escape: &str| format!("select U&\"lowe{escape}0072\" UESCAPE '!' ('s')");
    assert_eq!(place(&planner, &text("!"), &functions), Place::Read);
    let other = text("!").replace("'!'", "'?'");
    assert_eq!(place(&planner, &other, &functions), Place::Primary);
    assert_eq!(place(&planner, &text("!"), &functions), Place::Read);
}

#[test]
fn one_text_has_each_databases_own_answer() {
    let planner = Planner::new(10);
    let (reads, writes, unread) = (functions(false), functions(true), Functions::unread());
    for _ in 0..3 {
        assert_eq!(place(&planner, "select f(1)", &reads), Place::Read);
        assert_eq!(place(&planner, "select f(2)", &reads), Place::Read);
        let route = planner.route(b"select f(1)", &writes);
        assert_eq!(route.why, Why::Calls(Verdict::Volatile));
        assert_eq!(place(&planner, "select f(1)", &unread), Place::Primary);
    }
    assert_eq!(planner.counters().misses, 1);
}

#[test]
fn hints_belong_to_the_text_and_not_to_its_like() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    let hint = |text: &str| planner.route(text.as_bytes(), &functions).hint;
    assert_eq!(
        hint("/* pgdog_role: replica */ select 1"),
        Some(hints::RoleHint::Replica)
    );
    assert_eq!(hint("select 1"), None);
    assert_eq!(
        hint("select 1 /* pgdog_role: primary */"),
        Some(hints::RoleHint::Primary)
    );
    assert_eq!(planner.counters().misses, 1);
}

#[test]
fn the_limit_holds_and_what_is_asked_for_stays() {
    let (planner, functions) = (Planner::new(40), Functions::unread());
    for at in 0..2000 {
        let _ = planner.route(b"select favourite from t", &functions);
        let _ = planner.route(format!("select column{at} from t").as_bytes(), &functions);
        assert!(planner.len() <= 40);
    }
    let counters = planner.counters();
    assert_eq!(counters.misses, 2001);
    assert_eq!(counters.hits, 1999);
}

#[test]
fn without_a_limit_to_speak_of_nothing_is_remembered() {
    let (planner, functions) = (Planner::new(0), Functions::unread());
    for _ in 0..3 {
        assert_eq!(place(&planner, "select 1", &functions), Place::Read);
    }
    assert_eq!((planner.len(), planner.counters().misses), (0, 3));
}

#[test]
fn another_limit_holds_at_once() {
    let (planner, functions) = (Planner::new(1000), Functions::unread());
    let ask = |count: usize| {
        for at in 0..count {
            let _ = planner.route(format!("select column{at} from t").as_bytes(), &functions);
        }
    };
    ask(1000);
    for limit in [100, 0, 300] {
        planner.set_limit(limit);
        assert!(planner.len() <= limit);
        ask(1000);
        assert!(
            planner.len() <= limit && planner.len() >= limit / 2,
            "{limit}: {}",
            planner.len()
        );
    }
}

#[test]
fn what_is_cleared_is_parsed_again_by_all_threads() {
    let (planner, functions) = (Planner::new(10), Functions::unread());
    let ask = || assert_eq!(place(&planner, "select 1", &functions), Place::Read);
    ask();
    std::thread::scope(|scope| {
        scope.spawn(ask);
    });
    planner.clear();
    assert!(planner.is_empty());
    ask();
    ask();
    let counters = planner.counters();
    assert_eq!((counters.hits, counters.misses), (2, 2));
}

#[test]
fn two_planners_of_one_thread_know_nothing_of_each_other() {
    let (one, other) = (Planner::new(10), Planner::new(10));
    let functions = Functions::unread();
    assert_eq!(place(&one, "select 1", &functions), Place::Read);
    assert_eq!(place(&other, "select 1", &functions), Place::Read);
    assert_eq!((one.len(), other.len(), other.counters().misses), (1, 1, 1));
}

#[test]
fn many_threads_agree() {
    let (planner, functions) = (Planner::new(64), functions(true));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (planner, functions) = (&planner, &functions);
            scope.spawn(move || {
                for at in 0..500 {
                    let read = format!("select c{} from t where a = {at}", (at + thread) % 100);
                    assert_eq!(place(planner, &read, functions), Place::Read);
                    let write = format!("update t set c{} = {at}", at % 100);
                    assert_eq!(place(planner, &write, functions), Place::Primary);
                    assert_eq!(place(planner, "select f(1)", functions), Place::Primary);
                }
            });
        }
    });
    let counters = planner.counters();
    // A hit that meets with the eviction of its text may be missed.
    let counted = counters.hits + counters.misses;
    assert!((5900..=6000).contains(&counted), "{counters:?}");
    assert!(planner.len() <= 64);
}
