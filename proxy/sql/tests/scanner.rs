//! Our scanner against pg_query's, which is PostgreSQL's own.

use pg_query::protobuf::Token as Theirs;
use pgdog_sql::lexer::{Lexer, Token, skip_blank};
use pgdog_sql::normalise;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Where tokens begin and end; operators byte by byte, comments left out. Nothing when PostgreSQL refuses the text.
fn theirs(text: &str) -> Option<Vec<(usize, usize)>> {
    let mut places = Vec::new();
    for token in pg_query::scan(text).ok()?.tokens {
        let (start, end) = (token.start as usize, token.end as usize);
        match token.token() {
            Theirs::SqlComment | Theirs::CComment => {}
            _ if text.as_bytes()[start..end].iter().all(|b| is_operator(*b)) => {
                places.extend((start..end).map(|at| (at, at + 1)));
            }
            _ => places.push((start, end)),
        }
    }
    Some(places)
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=,()[].;:".contains(&byte)
}

/// The same of our scanner. Strings that go on after a line break are one token, as PostgreSQL has them.
fn ours(text: &str) -> Vec<(usize, usize)> {
    let text = text.as_bytes();
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut lexer = Lexer::new(text);
    let mut before_is_literal = false;
    loop {
        let searched = lexer.position();
        let Some(token) = lexer.next() else { break };
        let (start, end) = (skip_blank(text, searched), lexer.position());
        let literal = matches!(token, Token::Literal(_));
        let blank = &text[searched..start];
        let goes_on = before_is_literal
            && text[start] == b'\''
            && blank.iter().any(|b| matches!(b, b'\n' | b'\r'))
            && !blank.windows(2).any(|w| w == b"/*");
        match places.last_mut() {
            Some(last) if goes_on => last.1 = end,
            _ => places.push((start, end)),
        }
        before_is_literal = literal && !text[start..end].starts_with(b"$");
    }
    places
}

/// Puts together what is cut in two by one of the scanners and not by the other, and is nothing that PostgreSQL's grammar
/// allows: numbers with two points and what is written right behind them, bit strings with a quote in them. `N'…'` it does allow; the prefix is a keyword there.
fn together(text: &str, places: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let text = text.as_bytes();
    let numeric = |at: usize| text[at].is_ascii_digit() || text[at] == b'.';
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in places {
        if let Some(last) = merged.last_mut().filter(|last| last.1 == start) {
            let quotes = text[start] == b'\'' && text[start - 1] == b'\'';
            let prefix =
                last.1 - last.0 == 1 && matches!(text[last.0], b'n' | b'N') && text[start] == b'\'';
            let points = text[last.0..last.1].iter().filter(|b| **b == b'.');
            let goes_on = numeric(start) || points.count() > 1;
            if quotes || prefix || numeric(last.0) && goes_on {
                last.1 = end;
                continue;
            }
        }
        merged.push((start, end));
    }
    merged
}

/// What texts are made of, and between them blanks of all kinds.
const PARTS: &str = r#"select a B1 _x a$b été "a" "a""b;" "'" U&"a" u&'a' 'a' 'it''s' 'a\' '' E'a\'b' e'\\' E'a''b' B'01' x'1F'
    N'a' $$a$$ $$;'$$ $t$a$$b$t$ $t$a$u$b$t$ $1 $23 1 0 1.5 .5 1e5 1E-5 1.e+3 0xFE 0b01 0o17 1_000 + - * / < > = <> <= || ::
    := => ->> @> !~* ? |/ && #> ( ) [ ] , . ; : ^ % uescape interval null é x e n b u"#;

fn parts() -> impl Strategy<Value = String> {
    const BLANKS: &[&str] = &[
        " ",
        " ",
        " ",
        " ",
        "",
        "",
        "\n",
        "\t ",
        "\r\n",
        "\u{c}",
        " /* a */ ",
        "/*/* ' */;*/",
        "-- a 'b\n",
        "--\n",
        "\n ",
    ];
    let all: Vec<_> = PARTS.split_whitespace().collect();
    let part = (prop::sample::select(all), prop::sample::select(BLANKS));
    prop::collection::vec(part, 0..12).prop_map(|parts| {
        // Numbers beside numbers are none that PostgreSQL's grammar allows.
        let gap = |part: &str| {
            if part.starts_with(['.', '0', '1']) {
                " "
            } else {
                ""
            }
        };
        let spaced = parts.into_iter().flat_map(|(a, b)| [a, gap(a), b]);
        spaced.collect()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tokens_begin_and_end_where_postgres_has_them(text in parts()) {
        if let Some(theirs) = theirs(&text) {
            prop_assert_eq!(together(&text, ours(&text)), together(&text, theirs), "{:?}", text);
        }
    }

    #[test]
    fn so_they_do_in_texts_of_single_letters(text in "[-ae1$'\"\\\\/*;(.,|x \n&U]{0,24}") {
        if let Some(theirs) = theirs(&text) {
            prop_assert_eq!(together(&text, ours(&text)), together(&text, theirs), "{:?}", text);
        }
    }
}

#[test]
fn without_its_constants_a_statement_is_still_the_same_statement() {
    let mut compared = 0;
    let table = include_str!("routes.txt").lines();
    for text in table.filter(|line| !line.starts_with("==") && !line.starts_with('#')) {
        let stripped = normalise(text.as_bytes());
        let number = |text: &str| pg_query::fingerprint(text, 0, 0).ok().map(|f| f.value);
        // Not everywhere where a constant stands may a parameter stand.
        if let (Some(before), Some(after)) = (number(text), number(&stripped)) {
            assert_eq!(before, after, "{text}\n{stripped}");
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared} statements");
}
