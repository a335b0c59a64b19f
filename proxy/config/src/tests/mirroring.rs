//! `[[mirroring]]`: what it means, and what cannot be.

use super::{errors, settings};
use crate::{Mirror, MirrorLevel};

const DATABASES: &str = "[[databases]]\nname = \"a\"\nhost = \"h\"\n[[databases]]\nname = \"b\"\nhost = \"h\"\n[[databases]]\nname = \"c\"\nhost = \"h\"\n";
const USERS: &str = "[[users]]\nname = \"u\"\nall_databases = true\npassword = \"p\"\n";

fn mirror(source: &str, destination: &str, more: &str) -> String {
    format!("[[mirroring]]\nsource_db = \"{source}\"\ndestination_db = \"{destination}\"\n{more}\n")
}

fn wrong(mirrors: &[String], users: &str) -> Vec<String> {
    errors(&format!("{DATABASES}{}", mirrors.concat()), users)
}

#[test]
fn an_entry_goes_over_general() {
    let text = [
        "[general]\nmirror_queue = 7\nmirror_exposure = 0.5\n",
        DATABASES,
        &mirror("a", "b", ""),
        &mirror("a", "c", "queue_length = 3\nexposure = 1\nlevel = \"ddl\""),
    ]
    .concat();
    let of = |destination: &str, queue_length, exposure, level| Mirror {
        source: "a".to_owned(),
        destination: destination.to_owned(),
        queue_length,
        exposure,
        level,
    };
    assert_eq!(
        settings(&text, USERS).mirrors,
        [
            of("b", 7, 0.5, MirrorLevel::All),
            of("c", 3, 1.0, MirrorLevel::Ddl)
        ]
    );
}

#[test]
fn databases_that_do_not_exist_are_named_with_their_line() {
    let found = wrong(&[mirror("a", "bb", ""), mirror("nothing", "b", "")], USERS);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("pgdog.toml:12")
            && found[0].contains("mirroring[0].destination_db")
            && found[0].contains("no database \"bb\""),
        "{found:?}"
    );
    assert!(found[1].contains("no database \"nothing\""), "{found:?}");
}

#[test]
fn a_user_of_the_source_must_be_one_of_the_destination() {
    let users = "[[users]]\nname = \"u\"\ndatabase = \"a\"\npassword = \"p\"\n";
    let found = wrong(&[mirror("a", "b", "")], users);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("user \"u\" of database \"a\" is not a user of database \"b\""),
        "{found:?}"
    );
}

#[test]
fn nothing_is_mirrored_to_itself_or_in_a_circle() {
    let itself = wrong(&[mirror("a", "a", "")], USERS);
    assert!(
        itself.len() == 1 && itself[0].contains("database \"a\" cannot mirror itself"),
        "{itself:?}"
    );
    let circle = [
        mirror("a", "b", ""),
        mirror("b", "c", ""),
        mirror("c", "a", ""),
    ];
    let found = wrong(&circle, USERS);
    assert!(
        found.len() == 3 && found.iter().all(|error| error.contains("a circle")),
        "{found:?}"
    );
    let chain = format!("{DATABASES}{}", circle[..2].concat());
    assert_eq!(settings(&chain, USERS).mirrors.len(), 2);
    let twice = wrong(&[mirror("a", "b", ""), mirror("a", "b", "")], USERS);
    assert!(
        twice.len() == 1 && twice[0].contains("mirrored to \"b\" already"),
        "{twice:?}"
    );
}

#[test]
fn shares_queues_and_modes_that_cannot_be_are_errors() {
    for (more, what) in [
        ("exposure = 1.5", "from 0.0 to 1.0"),
        ("exposure = -0.1", "from 0.0 to 1.0"),
        ("queue_length = 0", "room for one"),
    ] {
        let found = wrong(&[mirror("a", "b", more)], USERS);
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }
    let session = format!("{USERS}pooler_mode = \"session\"\n");
    let found = wrong(&[mirror("a", "b", "")], &session);
    assert!(
        found.len() == 2 && found[0].contains("pooler_mode = \"session\""),
        "{found:?}"
    );
}
