//! The protocol of the console, message by message.

use pgdog_tests::transcript::lines;
use pgdog_tests::{Message, Postgres, Proxy, Psql};

use super::{PASSWORD, config, console, refused};

#[test]
fn several_commands_in_one_string_are_done_until_one_fails() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let tags = |sql: &str, admin: &mut pgdog_tests::RawClient| -> String {
        let frames = admin.query(sql);
        frames.iter().map(|f| f.tag as char).collect()
    };
    assert_eq!(
        tags("SHOW VERSION; SHOW INSTANCE_ID;", &mut admin),
        "TDCTDCZ"
    );
    assert_eq!(
        tags("SHOW VERSION; NONSENSE; SHOW VERSION", &mut admin),
        "TDCEZ"
    );
    assert_eq!(tags("", &mut admin), "IZ");
    assert_eq!(tags(" ; ", &mut admin), "IZ");
    assert_eq!(tags("-- nothing", &mut admin), "IZ");
    assert_eq!(
        tags("/* all */ show /* of */ version -- it", &mut admin),
        "TDCZ"
    );
}

#[test]
fn transactions_are_kept_in_name() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let mut last = |sql: &str| lines(&admin.query(sql)).join(" | ");
    assert_eq!(last("BEGIN"), "C BEGIN | Z T");
    assert!(last("NONSENSE").ends_with("| Z E"));
    assert!(last("SHOW VERSION").starts_with("E ERROR 25P02"));
    assert_eq!(last("COMMIT"), "C ROLLBACK | Z I");
    assert_eq!(
        last("START TRANSACTION; COMMIT"),
        "C BEGIN | C COMMIT | Z I"
    );
    assert_eq!(
        last("SET application_name = 'x'; DISCARD ALL; RESET ALL"),
        "C SET | C DISCARD | C RESET | Z I"
    );
}

#[test]
fn the_extended_protocol_describes_binds_and_sends_rows_in_portions() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    let bind = |portal: &str, statement: &str, results: Vec<i16>| Message::Bind {
        portal: portal.into(),
        statement: statement.into(),
        formats: Vec::new(),
        values: Vec::new(),
        results,
    };
    let told = admin.transcript(&[
        Message::parse("s", "SHOW POOLS id, database, paused"),
        Message::DescribeStatement("s".into()),
        bind("", "s", vec![1]),
        Message::execute(),
        Message::Sync,
    ]);
    assert_eq!(
        (&*told[0], &*told[1], &*told[3]),
        ("1", "t ()", "2"),
        "{told:?}"
    );
    for part in ["id:20/8", "database:25/-1", "paused:16/1"] {
        assert!(told[2].contains(part), "{part} in {}", told[2]);
    }
    assert_eq!(told[5..], ["C SHOW", "Z I"]);
    admin.send(&[
        bind("", "s", vec![1, 0, 1]),
        Message::execute(),
        Message::Sync,
    ]);
    let frames = admin.until_ready();
    let row = frames
        .iter()
        .find(|f| f.tag == b'D')
        .expect("a row")
        .columns();
    assert_eq!(row[0], Some(1i64.to_be_bytes().to_vec()), "int8 as 8 bytes");
    assert_eq!(row[1], Some(database.name().as_bytes().to_vec()));
    assert_eq!(row[2], Some(vec![0]), "bool as one byte");
    // In portions: the portal is suspended, and goes on where it was.
    let some = |limit| Message::Execute {
        portal: "p".into(),
        limit,
    };
    let told = admin.transcript(&[
        Message::parse("", "SHOW LISTS"),
        bind("p", "", vec![]),
        Message::DescribePortal("p".into()),
        some(3),
        some(100),
        Message::ClosePortal("p".into()),
        Message::Sync,
    ]);
    let tags: String = told.iter().filter_map(|l| l.chars().next()).collect();
    assert!(
        tags.starts_with("12TDDDsD") && tags.ends_with("DC3Z"),
        "{tags}"
    );
    assert_eq!(tags.matches('D').count(), 14);
}

#[test]
fn errors_of_the_extended_protocol_skip_to_sync() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let mut admin = console(&proxy);
    for (messages, code) in [
        (vec![Message::parse("", "NONSENSE")], "42601"),
        (vec![Message::parse("", "SHOW POOLS; SHOW POOLS")], "42601"),
        (vec![Message::bind("unknown", &[])], "26000"),
        (vec![Message::execute()], "34000"),
        (
            vec![Message::parse("", "SHOW POOLS"), Message::bind("", &["5"])],
            "08P01",
        ),
        (
            vec![
                Message::parse("a", "SHOW POOLS"),
                Message::parse("a", "SHOW POOLS"),
            ],
            "42P05",
        ),
        (vec![Message::parse("", "SELECT * FROM t")], "0A000"),
    ] {
        let mut all = messages.clone();
        all.extend([Message::execute(), Message::Sync]);
        let told = admin.transcript(&all);
        let end: Vec<_> = told.iter().rev().take(2).collect();
        assert_eq!(end[0], "Z I", "{messages:?}");
        assert!(
            end[1].starts_with(&format!("E ERROR {code}")),
            "{messages:?}: {told:?}"
        );
    }
    let told = admin.transcript(&[
        Message::parse("", ""),
        Message::bind("", &[]),
        Message::DescribePortal(Vec::new()),
        Message::execute(),
        Message::Sync,
    ]);
    assert_eq!(told, ["1", "2", "n", "I", "Z I"]);
}

#[test]
fn what_breaks_the_protocol_ends_the_console() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    for bytes in [&b"Q\0\0\0\x01"[..], b"?\0\0\0\x04", b"Q\x7f\0\0\0"] {
        let mut admin = console(&proxy);
        admin.send_bytes(bytes.to_vec());
        let told = lines(&admin.until_eof().expect("it is closed"));
        assert!(told[0].starts_with("E FATAL 08P01"), "{told:?}");
    }
    // A text that is none, and messages in pieces, do not.
    let mut admin = console(&proxy);
    admin.send_bytes(b"Q\0\0\0\x07\xff\xfe\0".to_vec());
    assert_eq!(admin.until_ready()[0].field(b'C').as_deref(), Some("22021"));
    admin.send_pieces(b"Q\0\0\0\x11SHOW VERSION\0", 1);
    assert_eq!(admin.until_ready().len(), 4);
}

#[test]
fn psql_works_and_its_own_queries_are_refused_clearly() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database));
    let psql = Psql::new(proxy.port(), "admin", "admin").password(PASSWORD);
    let pools = psql.run("SHOW POOLS database, user, sv_idle");
    let wanted = format!("{}|pgdog|0", database.name());
    assert_eq!(pools.expect("a view"), wanted);
    let refused_query = psql.run("SELECT * FROM pg_catalog.pg_class");
    let said = refused_query.expect_error("a query");
    assert!(said.contains("answers commands, not queries"), "{said}");
    assert!(said.contains("SHOW HELP"), "{said}");
    let described = psql.run("\\d");
    assert!(
        described.stderr.contains("answers commands, not queries"),
        "{}",
        described.stderr
    );
    let mut admin = console(&proxy);
    assert_eq!(refused(&mut admin, "PAUSE 'unfinished").0, "42601");
}

#[test]
fn names_in_quotes_keep_their_case() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let line = format!("database_name = \"{}\"", database.name());
    let config = config(&database)
        .database_with("Mixed Case", &[&line])
        .append_users(&super::trusted("pgdog", "Mixed Case"));
    let proxy = Proxy::start(&config);
    let mut admin = console(&proxy);
    admin.run("RECONNECT \"Mixed Case\"");
    admin.run(&format!("RECONNECT {}", database.name().to_uppercase()));
    let (code, line) = refused(&mut admin, "RECONNECT \"mixed case\"");
    assert!(code == "3D000" && line.contains("Mixed Case"), "{line}");
}
