//! What LISTEN and UNLISTEN mean: as PostgreSQL has it.

use pgdog_tests::transcript::lines;
use pgdog_tests::{Message, Postgres, RawClient};

use super::{LISTENER, Stage, hears_nothing, next};

#[test]
fn listen_does_not_keep_the_server() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let (mut client, mut other) = (stage.client(), stage.client());
    for sql in [
        "listen a",
        "begin; listen b; commit",
        "listen c; select 1; listen d",
        "do $$ begin execute 'listen e'; end $$",
    ] {
        client.run(sql);
        other.run("select 1");
    }
    let batch = [
        Message::parse("l", "listen f"),
        Message::bind("l", &[]),
        Message::execute(),
        Message::Sync,
    ];
    assert!(client.transcript(&batch).iter().any(|l| l == "C LISTEN"));
    other.run("select 1");
    for channel in ["a", "b", "c", "d", "e", "f"] {
        stage.speaker.run(&format!("notify {channel}, '1'"));
        assert_eq!(next(&mut client), format!("A {channel} \"1\""));
    }
    let names = "select string_agg(c, ' ' order by c) from pg_listening_channels() c";
    assert_eq!(client.query_value(names), "a b c d e f");
    assert_eq!(other.query_value(names), "NULL");
    assert!(hears_nothing(&mut other));
}

#[test]
fn listen_counts_from_the_commit_and_not_when_it_is_rolled_back() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("begin");
    client.run("listen kept");
    client.run("savepoint s");
    client.run("listen undone");
    client.run("rollback to s");
    client.run("commit");
    for sql in [
        "begin; listen undone; rollback",
        "begin; listen undone; select 1/0",
        "rollback",
    ] {
        client.query(sql);
    }
    stage.speaker.run("notify undone; notify kept");
    assert_eq!(next(&mut client), "A kept \"\"");
    assert!(hears_nothing(&mut client));
    // A failed transaction takes neither.
    for sql in ["listen x", "unlisten kept"] {
        client.query("begin; select 1/0");
        assert_eq!(client.query_error(sql), "25P02");
        client.run("rollback");
    }
    stage.speaker.run("notify x; notify kept");
    assert_eq!(next(&mut client), "A kept \"\"");
}

#[test]
fn unlisten_is_rolled_back_too() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    let said = |stage: &mut Stage<'_>, client: &mut RawClient| {
        stage.speaker.run("notify a; notify b; notify c");
        let told = lines(&client.query("select 1"));
        // What is said before a query is heard by the end of the next one at the latest, since all go the same way.
        let mut heard: Vec<_> = told.into_iter().filter(|l| l.starts_with('A')).collect();
        stage.speaker.run("notify last");
        while heard.last().is_none_or(|l| l != "A last \"\"") {
            heard.push(next(client));
        }
        heard.iter().map(|l| l[2..3].to_owned()).collect::<String>()
    };
    client.run("listen a; listen b; listen c; listen last");
    assert_eq!(said(&mut stage, &mut client), "abcl");
    for (statements, heard) in [
        (&["begin", "unlisten a", "rollback"][..], "abcl"),
        (
            &[
                "begin",
                "savepoint s",
                "unlisten a",
                "rollback to s",
                "unlisten b",
                "commit",
            ],
            "acl",
        ),
        (
            &["begin", "unlisten *", "listen b", "listen last", "commit"],
            "bl",
        ),
        (&["begin", "unlisten *", "rollback"], "bl"),
        (
            &["begin", "unlisten b", "listen b", "listen a", "commit"],
            "abl",
        ),
        (&["unlisten nothing"], "abl"),
        (&["close all; unlisten *; reset all; listen last"], "l"),
        (
            &["listen a", "do $$ begin execute 'unlisten a'; end $$"],
            "l",
        ),
        (&["listen a; unlisten a; listen b"], "bl"),
        (&["discard all", "listen last"], "l"),
    ] {
        for sql in statements {
            client.run(sql);
        }
        assert_eq!(said(&mut stage, &mut client), heard, "{statements:?}");
    }
}

#[test]
fn unlisten_by_the_extended_protocol() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen a; listen b");
    let prepared = [Message::parse("u", "unlisten *"), Message::Sync];
    client.transcript(&prepared);
    client.run("select 1");
    let run = |name: &str| [Message::bind(name, &[]), Message::execute(), Message::Sync];
    assert!(
        client
            .transcript(&run("u"))
            .contains(&"C UNLISTEN".to_owned())
    );
    stage.speaker.run("notify a");
    assert!(hears_nothing(&mut client));
    client.run("listen a");
    let mut late = vec![Message::parse("", "select 1"), Message::bind("", &[])];
    late.push(Message::execute());
    late.extend(run("u"));
    let told = client.transcript(&late);
    assert!(
        told.iter().any(|l| l.starts_with("E ERROR 0A000")),
        "{told:?}"
    );
    // In one breath with other queries it waits for its turn.
    let mut batch = vec![Message::query("select 1"), Message::parse("", "unlisten a")];
    batch.extend(run(""));
    client.send(&batch);
    client.until_ready();
    let told = lines(&client.until_ready());
    assert!(told.contains(&"C UNLISTEN".to_owned()), "{told:?}");
    stage.speaker.run("notify a");
    assert!(hears_nothing(&mut client));
}

#[test]
fn names_and_payloads_with_quotes() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    let long = "l".repeat(70);
    client.run(&format!(
        "listen \"Weird \"\"x; unlisten *\"; listen FoldED; listen \"été\"; listen {long}"
    ));
    let (say_long, hear_long) = (format!("{long}, '1'"), format!("{} \"1\"", &long[..63]));
    let speak: [(&str, &str); 4] = [
        (
            "\"Weird \"\"x; unlisten *\", 'it''s \"so\"'",
            "Weird \"x; unlisten * \"it's \\\"so\\\"\"",
        ),
        ("folded, E'\\n'", "folded \"\\n\""),
        ("\"été\", 'ö'", "été \"ö\""),
        (&say_long, &hear_long),
    ];
    for (sql, heard) in speak {
        stage.speaker.run(&format!("notify {sql}"));
        assert_eq!(next(&mut client), format!("A {heard}"));
    }
    client.run("unlisten \"Weird \"\"x; unlisten *\"");
    stage
        .speaker
        .run("notify \"Weird \"\"x; unlisten *\"; notify \"FoldED\"; notify folded");
    assert_eq!(next(&mut client), "A folded \"\"");
}

#[test]
fn a_client_hears_itself_and_each_thing_once() {
    if !Postgres::installed() {
        return;
    }
    let stage = Stage::set();
    let mut client = stage.client();
    client.run("listen me");
    client.run("notify me, '1'");
    assert_eq!(next(&mut client), "A me \"1\"");
    client.run("begin; notify me, '2'; notify me, '2'; select pg_notify('me', '3'); commit");
    assert_eq!(next(&mut client), "A me \"2\"");
    assert_eq!(next(&mut client), "A me \"3\"");
    // In the transaction that listens, and by somebody who listens already.
    let mut other = stage.client();
    let told = lines(&other.query("begin; listen me; notify me, '4'; commit"));
    assert!(told.contains(&"A me \"4\"".to_owned()), "{told:?}");
    assert!(hears_nothing(&mut other));
    assert_eq!(next(&mut client), "A me \"4\"");
    client.run("listen me");
    client.run("notify me, '5'");
    assert_eq!(next(&mut client), "A me \"5\"");
    assert_eq!(next(&mut other), "A me \"5\"");
    assert!(hears_nothing(&mut client));
}

#[test]
fn nothing_is_told_within_a_transaction() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    client.run("begin");
    stage.speaker.run("notify x, 'later'");
    for _ in 0..5 {
        assert!(hears_nothing(&mut client));
    }
    let told = lines(&client.query("commit"));
    if !told.contains(&"A x \"later\"".to_owned()) {
        assert_eq!(next(&mut client), "A x \"later\"");
    }
}

#[test]
fn who_leaves_listens_no_more() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let (mut stays, mut leaves) = (stage.client(), stage.client());
    stays.run("listen a");
    leaves.run("listen a; listen b");
    leaves.goodbye();
    let mut activity = stage.activity();
    activity.wait(1, &format!("{LISTENER} and query like 'UNLISTEN \"b\"%'"));
    stage.speaker.run("notify b; notify a");
    assert_eq!(next(&mut stays), "A a \"\"");
}

#[test]
fn session_mode_and_a_size_of_none_are_as_before() {
    if !Postgres::installed() {
        return;
    }
    let off = Stage::set_with(|c| {
        c.general("pub_sub_channel_size", "0")
            .general("checkout_timeout", "300")
    });
    let session = Stage::set_with(|c| c.general("pooler_mode", "\"session\"").pool_size(2));
    for (mut stage, pins) in [(off, true), (session, false)] {
        let (mut client, mut other) = (stage.client(), stage.client());
        client.run("listen x");
        assert_eq!(other.query("select 1").iter().any(|f| f.tag == b'E'), pins);
        stage.speaker.run("notify x");
        assert_eq!(next(&mut client), "A x \"\"");
        assert_eq!(
            client.query_value("select count(*) from pg_listening_channels()"),
            "1"
        );
        assert_eq!(stage.activity().count(LISTENER), 0);
        client.run("unlisten x");
        stage.speaker.run("notify x");
        assert!(hears_nothing(&mut client));
        other.run("select 1");
    }
}
