//! PostgreSQL's own regression suite as a corpus: `PGDOG_REGRESS_SQL` names the folder of its `.sql` files
//! (`src/test/regress/sql` of the sources).

use std::path::Path;

use pgdog_sql::lexer::statements;
use pgdog_sql::{Facts, Functions, Place, Planner};

/// Commands that change something wherever they stand.
const WRITE: &[&str] = &[
    "insert",
    "update",
    "delete",
    "merge",
    "create",
    "drop",
    "alter",
    "truncate",
    "grant",
    "revoke",
    "comment",
    "vacuum",
    "analyze",
    "reindex",
    "cluster",
    "refresh",
    "lock",
    "notify",
    "listen",
    "call",
    "do",
    "checkpoint",
];

#[test]
fn the_regression_suite_is_survived_and_none_of_its_commands_that_write_is_sent_to_a_replica() {
    let Some(folder) = std::env::var_os("PGDOG_REGRESS_SQL") else {
        eprintln!(
            "SKIPPED: PGDOG_REGRESS_SQL does not name the folder of PostgreSQL's regression suite"
        );
        return;
    };
    let (mut texts, mut parsed, mut reads) = (0, 0, 0);
    let (planner, functions) = (Planner::new(1000), Functions::unread());
    let files = std::fs::read_dir(Path::new(&folder)).expect("the folder can be read");
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|ext| ext != "sql") {
            continue;
        }
        let text = std::fs::read(&file).unwrap();
        // psql's own commands stand on lines of their own, more or less; what they leave behind need not parse.
        let text = text
            .split(|b| *b == b'\n')
            .filter(|line| !line.trim_ascii_start().starts_with(b"\\"))
            .collect::<Vec<_>>()
            .join(&b'\n');
        for statement in statements(&text) {
            texts += 1;
            let facts = Facts::parse(statement);
            parsed += usize::from(facts.error().is_none());
            let route = planner.route(statement, &functions);
            if route.place != Place::Read {
                continue;
            }
            reads += 1;
            let shown = String::from_utf8_lossy(statement);
            let first = shown.split(|c: char| !c.is_ascii_alphabetic()).next();
            let first = first.unwrap_or_default().to_ascii_lowercase();
            assert!(
                !WRITE.contains(&first.as_str()),
                "{}: {shown}",
                file.display()
            );
        }
    }
    eprintln!("{texts} statements, {parsed} parsed, {reads} reads");
    assert!(texts > 10_000 && parsed > texts / 2 && reads > 1000);
}
