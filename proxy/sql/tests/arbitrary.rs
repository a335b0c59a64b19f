//! The lexer and the effects against arbitrary bytes: no panic, time in proportion to the text, and nothing that
//! PostgreSQL ignores makes a difference.

use std::time::{Duration, Instant};

use pgdog_sql::lexer::{Lexer, statements};
use pgdog_sql::{Effects, effects, set};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Words that mean something, and what may stand beside them.
const WORDS: &str = "select SET reset all local session authorization time zone to = default begin commit create temp Temporary \
    table pg_temp . declare cursor with hold for pg_advisory_lock pg_try_advisory_xact_lock set_config currval lastval ( ) , 1 \
    true 'a' 'it''s' E'\\'' $$;$$ $a$set$a$ \"set\" \"x\"\"y\" \"set_config\" \"pg_advisory_lock\" U&'x' discard deallocate \
    prepare execute listen unlisten close drop load do call a $1 x.y :: * explain analyze copy merge values";

const MOST: usize = 14;

/// Functions are called: only then do they count.
const FUNCTIONS: [&str; 7] = [
    "pg_advisory_lock",
    "pg_try_advisory_xact_lock",
    "set_config",
    "currval",
    "lastval",
    "\"set_config\"",
    "\"pg_advisory_lock\"",
];

fn words() -> impl Strategy<Value = Vec<&'static str>> {
    let all: Vec<_> = WORDS.split_whitespace().collect();
    let word = prop_oneof![8 => prop::sample::select(all), 1 => Just(";")];
    prop::collection::vec(word, 0..MOST / 2).prop_map(|words| {
        let called = |w| {
            if FUNCTIONS.contains(&w) {
                vec![w, "("]
            } else {
                vec![w]
            }
        };
        words.into_iter().flat_map(called).collect()
    })
}

/// What PostgreSQL takes for nothing.
fn blank() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(" ".to_owned()),
        1 => Just("\n\t ".to_owned()),
        1 => Just(" /* set x */".to_owned()),
        1 => Just(" /* /* begin */ ; '*/ ".to_owned()),
        1 => Just(" -- temp ( 'x\n".to_owned()),
        1 => Just("\u{c}\r".to_owned()),
    ]
}

fn blanks() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(blank(), MOST + 1)
}

fn joined(words: &[&str], between: &[String]) -> Vec<u8> {
    let mut text = between[0].clone();
    for (at, (word, blank)) in words.iter().zip(&between[1..]).enumerate() {
        text.push_str(word);
        // A line break between two constants makes them one: there the blank does mean something.
        let next = words.get(at + 1);
        let joins = word.ends_with('\'') && next.is_some_and(|next| next.starts_with('\''));
        text.push_str(if joins { " " } else { blank });
    }
    text.into_bytes()
}

fn spaced(words: &[&str]) -> Vec<u8> {
    joined(words, &vec![" ".to_owned(); MOST + 1])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_are_cut_into_tokens_that_lie_within_them(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut lexer = Lexer::new(&text);
        let mut at = 0;
        while let Some(token) = lexer.next() {
            prop_assert!(lexer.position() > at && lexer.position() <= text.len(), "no progress at {}", at);
            at = lexer.position();
            let _ = token.name();
        }
        for statement in statements(&text) {
            prop_assert!(!statement.is_empty());
            let _ = set::read(statement);
        }
        let _ = effects(&text);
    }

    #[test]
    fn quotes_and_dollars_of_any_kind_end_somewhere(text in "[-a-c$'\"\\\\/*;eEuU&0-2 \\n(]{0,60}") {
        prop_assert!(Lexer::new(text.as_bytes()).count() <= text.len());
        let _ = effects(text.as_bytes());
    }

    #[test]
    fn comments_and_white_space_change_no_effect(words in words(), between in blanks()) {
        let (one, other) = (spaced(&words), joined(&words, &between));
        let tokens = |text: &[u8]| Lexer::new(text).map(|t| format!("{t:?}")).collect::<Vec<_>>();
        prop_assert_eq!(tokens(&one), tokens(&other));
        prop_assert_eq!(effects(&one), effects(&other), "{:?}", String::from_utf8_lossy(&other));
    }

    #[test]
    fn the_case_of_keywords_changes_no_effect(words in words()) {
        // Quotes and their tags keep their case.
        let quoted = |w: &&str| w.contains(['$', '\'', '"']);
        let text = spaced(&words.into_iter().filter(|w| !quoted(w)).collect::<Vec<_>>());
        prop_assert_eq!(effects(&text), effects(&text.to_ascii_uppercase()));
    }

    #[test]
    fn a_statement_behind_another_still_counts(words in words(), first in prop::sample::select(vec!["select 1", "commit", "select 'a'", "select $$x$$"])) {
        let alone = spaced(&words);
        let behind = [first.as_bytes(), b";", &alone].concat();
        let lone = Effects::ONE_SETTING.with(Effects::NAMES_STATEMENT).bits();
        let expected = effects(&alone).bits() & !lone;
        prop_assert_eq!(effects(&behind).bits() & expected, expected, "{:?}", String::from_utf8_lossy(&behind));
    }
}

#[test]
fn time_grows_with_the_text_and_no_faster() {
    // Each of these makes a careless scanner quadratic.
    for unit in [
        "/*",
        "$a",
        "$a$",
        "'",
        "\"",
        "(",
        ";",
        "$",
        "a$",
        "set ",
        "temp ",
        "--",
        "set_config(",
        "a(",
        "E'\\",
        "U&\"",
        "((a",
        "\"(",
        "/*/",
        "; ",
        " ",
        "pg_advisory_lock(",
        "select set_config(",
        "a,",
        " (",
        "$b$$a",
        ";/*",
        ";--",
        "set_config('",
        "set_config('search_path', 'x', true) ",
        "search_path 'x' ",
        "pg_settings ",
        ";\n",
        "a\n(",
        "/**/(",
    ] {
        let text = unit.repeat(256 * 1024 / unit.len());
        let started = Instant::now();
        let _ = effects(text.as_bytes());
        let _ = effects(format!("select {text}").as_bytes());
        let _ = effects(format!("set {text}").as_bytes());
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{unit:?}: {took:?}");
    }
}
