//! What a fingerprint costs: nanoseconds for a short and a long text. Build it with optimisation.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use pgdog_sql::lexer::Lexer;
use pgdog_sql::{fingerprint, normalise};

const SHORT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;  ";
const ROUNDS: u32 = 20_000;

fn main() -> std::io::Result<()> {
    let columns: Vec<_> = (0..20)
        .map(|n| format!("t{n}.some_column AS c{n}"))
        .collect();
    let joins: Vec<_> = (0..12)
        .map(|n| format!("JOIN table_{n} ON table_{n}.id = t.ref_{n}"))
        .collect();
    let long = format!(
        "SELECT {} FROM t {} WHERE a = 'x'",
        columns.join(", "),
        joins.join(" ")
    );
    let numbers: Vec<_> = (1000..1200).map(|n| n.to_string()).collect();
    let list = format!("SELECT a FROM t WHERE id IN ({})", numbers.join(", "));
    for (name, text) in [("short", SHORT), ("long", &long), ("list", &list)] {
        let cost = nanoseconds(|| _ = black_box(fingerprint(black_box(text.as_bytes()))));
        let lexed = nanoseconds(|| _ = black_box(Lexer::new(black_box(text.as_bytes())).count()));
        let shown = nanoseconds(|| _ = black_box(normalise(black_box(text.as_bytes()))));
        writeln!(
            std::io::stdout(),
            "{name}: {} bytes, tokens alone {lexed} ns, fingerprint {cost} ns, normalise {shown} ns",
            text.len()
        )?;
    }
    Ok(())
}

/// The quickest of twenty rounds.
fn nanoseconds(work: impl Fn()) -> u128 {
    let round = || {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        start.elapsed().as_nanos() / u128::from(ROUNDS)
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}
