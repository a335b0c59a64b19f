//! Fingerprints against random queries: what PostgreSQL ignores and what constants are makes no difference, everything else
//! does, and no constant is ever shown.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgdog_sql::{fingerprint, normalise};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        cases: 512,
        ..ProptestConfig::default()
    }
}

/// What stands in each constant, and nowhere else.
const SECRET: &str = "271828";

/// A part of a query: something with a spelling of its own, or a constant.
#[derive(Debug, Clone)]
enum Part {
    Fixed(&'static str),
    Constant,
    List,
    Rows(usize),
}

const FIXED: &str = "select insert update delete from where and or not is null true in ( ) , . * = <> || + ; values into set \
    order by limit case when end t users \"Quoted\" \"a-b\" _x a$b größe $1 $2 $10 int array [ ] exists returning on conflict";

fn part() -> impl Strategy<Value = Part> {
    let fixed: Vec<_> = FIXED.split_whitespace().collect();
    prop_oneof![
        6 => prop::sample::select(fixed).prop_map(Part::Fixed),
        3 => Just(Part::Constant),
        1 => Just(Part::List),
        1 => (2..6usize).prop_map(Part::Rows),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec(part(), 1..24)
}

/// What PostgreSQL takes for nothing, and constants and list lengths, drawn from a seed so that one query gets many spellings.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }

    fn blank(&mut self) -> &'static str {
        self.pick(&[
            " ",
            "\n\t ",
            " /* '1 */",
            "/* /* $$ */ \" */ ",
            " -- ' 2\n",
            "\u{c}\r",
        ])
    }

    /// A constant that follows something which is no value, so that it may have a sign.
    fn constant(&mut self) -> String {
        let before = self.pick(&["", "-", "- "]);
        match self.roll(9) {
            0 => format!("{before}{SECRET}"),
            1 => format!("{before}{SECRET}.5e-7"),
            2 => format!("{before}.{SECRET}"),
            3 => format!("'{SECRET}'"),
            4 => format!("E'\\'{SECRET}'\n'\\'{SECRET}'"),
            5 => format!("U&'{SECRET}''x'"),
            6 => format!("$a${SECRET} ' $b$ $a$"),
            7 => format!("x'{SECRET}'"),
            _ => format!("'{SECRET}' \n '{SECRET}'"),
        }
    }

    fn separated(&mut self, count: usize, mut one: impl FnMut(&mut Self) -> String) -> String {
        let mut list = one(self);
        for _ in 1..count {
            list.push_str(self.pick(&[",", " , ", ",\n", ",/* x */"]));
            list.push_str(&one(self));
        }
        list
    }

    fn spell(&mut self, part: &Part) -> String {
        match part {
            Part::Fixed(text) if text.starts_with('"') => (*text).to_owned(),
            Part::Fixed(text) if self.roll(2) == 0 => text.to_ascii_uppercase(),
            Part::Fixed(text) => (*text).to_owned(),
            Part::Constant => format!("={}", self.constant()),
            Part::List => {
                let count = 2 + self.roll(5) as usize;
                format!("in({})", self.separated(count, Self::constant))
            }
            Part::Rows(columns) => {
                let count = 2 + self.roll(5) as usize;
                let rows = self.separated(count, |dice| {
                    format!("({})", dice.separated(*columns, Self::constant))
                });
                format!("values {rows} end")
            }
        }
    }

    fn query(&mut self, parts: &[Part]) -> String {
        let mut query = String::new();
        for part in parts {
            query.push_str(self.blank());
            query.push_str(&self.spell(part));
        }
        query
    }
}

/// What a query is but for its spelling.
fn structure(parts: &[Part]) -> String {
    let mut end = String::new();
    for part in parts {
        match part {
            Part::Fixed(text) => end.push_str(text),
            Part::Constant => end.push_str("= 0"),
            Part::List => end.push_str("in ( 0+ )"),
            Part::Rows(columns) => {
                end.push_str(&format!("values ( {} )+ end", "0 ".repeat(*columns)));
            }
        }
        end.push(' ');
    }
    end
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn spelling_makes_no_difference_and_constants_are_not_shown(parts in parts(), one in 1..u64::MAX, other in 1..u64::MAX) {
        let one = Dice(one).query(&parts);
        let other = Dice(other).query(&parts);
        prop_assert_eq!(fingerprint(one.as_bytes()), fingerprint(other.as_bytes()), "\n{}\n{}", one, other);
        for query in [&one, &other] {
            let shown = normalise(query.as_bytes());
            prop_assert!(!shown.contains(SECRET), "{}\n{}", query, shown);
        }
    }

    #[test]
    fn what_is_shown_has_the_same_shape_once_it_is_read_again(parts in parts(), seed in 1..u64::MAX) {
        // Only the first time: then its constants are parameters, and its lists have one element.
        let once = normalise(Dice(seed).query(&parts).as_bytes());
        let twice = normalise(once.as_bytes());
        prop_assert_eq!(fingerprint(twice.as_bytes()), fingerprint(once.as_bytes()), "\n{}\n{}", once, twice);
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(fingerprint(&bytes), fingerprint(&bytes));
        let _ = normalise(&bytes);
    }

    #[test]
    fn bytes_that_mean_something_are_survived(bytes in "([(),;$'\"eEuU&xin\\[\\]\\-:0-9 \n*/\\\\]|in\\(|values|array\\[|\\$a\\$){0,80}") {
        let _ = normalise(bytes.as_bytes());
        let _ = fingerprint(bytes.as_bytes());
    }
}

#[test]
fn queries_of_another_structure_have_another_fingerprint() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: HashMap<u64, String> = HashMap::new();
    for _ in 0..20_000 {
        let parts = parts().new_tree(&mut runner).unwrap().current();
        // Semicolons at the ends are no structure, and a comma or a bracket beside a list may belong to it.
        if parts.iter().any(|part| {
            matches!(
                part,
                Part::Fixed(";" | "," | "(" | "[" | "in" | "values" | "array")
            )
        }) {
            continue;
        }
        let query = Dice(1).query(&parts);
        let is = structure(&parts);
        let known = seen
            .entry(fingerprint(query.as_bytes()))
            .or_insert_with(|| is.clone());
        assert_eq!(*known, is);
    }
    assert!(seen.len() > 4_000, "{}", seen.len());
}

#[test]
fn small_differences_never_meet() {
    let mut seen = HashMap::new();
    for table in 0..400 {
        for column in 0..400 {
            let query = format!("select c{column} from t{table} where id = 1");
            if let Some(other) = seen.insert(fingerprint(query.as_bytes()), query.clone()) {
                panic!("{query} / {other}");
            }
        }
    }
}

#[test]
fn time_grows_with_the_text_and_not_faster() {
    let limit = Duration::from_secs(20);
    for unit in [
        "a in (",
        "in (1,",
        "values (1),",
        "array[",
        "((1,2),",
        "-",
        "- 1 ",
        "'a' ",
        "$a$ ",
        "$1,",
        ";",
        "create role ",
        "in (values (1), (",
        ",",
    ] {
        for start in ["", "in (1, ", "values (1), (", "alter role "] {
            let query = format!("{start}{}", unit.repeat(400_000 / unit.len()));
            let begin = Instant::now();
            let _ = fingerprint(query.as_bytes());
            let _ = normalise(query.as_bytes());
            assert!(
                begin.elapsed() < limit,
                "{start}{unit}: {:?}",
                begin.elapsed()
            );
        }
    }
}
