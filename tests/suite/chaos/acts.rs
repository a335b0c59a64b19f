//! What a client does, and what it must be answered.

use std::thread::sleep;
use std::time::Duration;

use pgdog_tests::message::encode_all;
use pgdog_tests::{Message, RawClient};

use super::client::{Client, Gone, failure, firsts};
use crate::dice::Dice;

/// Does one thing of those that a client does.
pub(super) fn act(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    match dice.below(40) {
        0..6 => simple(client),
        6..10 => unnamed(client),
        10..18 => prepared(client, dice),
        18..22 => setting(client, dice),
        22..26 => transaction(client, dice),
        26..30 => pipeline(client, dice),
        30 => temporary_table(client),
        31 => advisory_lock(client, dice),
        32 => copy_in(client, dice),
        33 => copy_out(client, dice),
        34 => many_rows(client, dice),
        35 => failing_transaction(client),
        36 => cancelled(client, dice),
        37 => timed_out(client),
        38 => held_cursor(client),
        _ => {
            sleep(Duration::from_millis(dice.below(20)));
            Ok(())
        }
    }
}

fn simple(client: &mut Client) -> Result<(), Gone> {
    let token = client.token();
    client.expect(&format!("select '{token}'"), &[&token])
}

fn unnamed(client: &mut Client) -> Result<(), Gone> {
    let (token, mark) = (client.token(), client.name.clone());
    let parse = Message::parse("", &format!("select $1 || ':{mark}'"));
    let frames = client.ask(&[
        parse,
        Message::bind("", &[&token]),
        Message::execute(),
        Message::Sync,
    ])?;
    client.check("unnamed", &frames, &[&format!("{token}:{mark}")]);
    Ok(())
}

/// All clients use the same names; each means something else by them, or the same as some others.
fn prepared(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let which = dice.below(3) as usize;
    let name = format!("statement{which}");
    // The last of them is shared: there, the parameter tells whose it is.
    let mark = if which == 2 {
        "shared".to_owned()
    } else {
        client.name.clone()
    };
    let token = client.token();
    let mut messages = Vec::new();
    if client.prepared[which] && dice.one_in(8) {
        messages.push(Message::CloseStatement(name.clone().into_bytes()));
        client.prepared[which] = false;
    }
    if !client.prepared[which] {
        messages.push(Message::parse(
            &name,
            &format!("select $1 || ':{mark}:{which}'"),
        ));
        client.prepared[which] = true;
    }
    messages.extend([
        Message::bind(&name, &[&token]),
        Message::execute(),
        Message::Sync,
    ]);
    let frames = client.ask(&messages)?;
    client.check("prepared", &frames, &[&format!("{token}:{mark}:{which}")]);
    Ok(())
}

/// A setting of the session lives on in later transactions, and goes with those that are rolled back.
fn setting(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    match dice.below(4) {
        0 => {
            client.expect(&format!("set chaos.id = '{token}'"), &[])?;
            client.setting = Some(token);
        }
        1 => {
            client.expect(&format!("begin; set chaos.id = '{token}'; rollback"), &[])?;
        }
        2 => {
            client.expect(
                &format!("select set_config('chaos.id', '{token}', false)"),
                &[&token],
            )?;
            client.setting = Some(token);
        }
        _ => {}
    }
    let expected = client.setting.clone().unwrap_or_default();
    client.expect(
        "select coalesce(current_setting('chaos.id', true), '')",
        &[&expected],
    )
}

fn transaction(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    client.expect("begin", &[])?;
    client.expect(&format!("set local chaos.local = '{token}'"), &[])?;
    let frames = client.ask(&[Message::query("select pg_backend_pid()")])?;
    let pid = firsts(&frames).join("");
    for _ in 0..dice.below(4) {
        client.expect("select current_setting('chaos.local')", &[&token])?;
        client.expect("select pg_backend_pid()", &[&pid])?;
    }
    client.expect(if dice.one_in(2) { "commit" } else { "rollback" }, &[])?;
    client.expect(
        "select coalesce(current_setting('chaos.local', true), '')",
        &[""],
    )
}

/// Many statements at once, some of which fail and take those up to their Sync with them.
fn pipeline(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let (mut messages, mut expected) = (Vec::new(), Vec::new());
    let batches = dice.below(4) + 1;
    let mut errors = 0;
    for _ in 0..batches {
        let mut failed = false;
        for _ in 0..dice.below(6) {
            let token = client.token();
            let fails = dice.one_in(12);
            let sql = if fails {
                "select 1 / ($1 = '')::int"
            } else {
                "select $1"
            };
            messages.extend([
                Message::parse("", sql),
                Message::bind("", &[&token]),
                Message::execute(),
            ]);
            if fails && !failed {
                errors += 1;
            }
            failed |= fails;
            if !failed {
                expected.push(token);
            }
        }
        messages.push(Message::Sync);
    }
    if dice.one_in(2) {
        client.raw.send(&messages);
    } else {
        let size = dice.below(200) as usize + 1;
        client.raw.send_pieces(&encode_all(&messages), size);
    }
    let frames = client.answer(batches as usize)?;
    assert_eq!(firsts(&frames), expected, "{}: pipeline", client.name);
    assert_eq!(
        frames.iter().filter(|f| f.tag == b'E').count(),
        errors,
        "{}: errors of a pipeline",
        client.name
    );
    Ok(())
}

fn temporary_table(client: &mut Client) -> Result<(), Gone> {
    let token = client.token();
    client.expect("create temp table mine (owner text)", &[])?;
    client.expect(&format!("insert into mine values ('{token}')"), &[])?;
    simple(client)?;
    client.expect("select owner from mine", &[&token])?;
    client.expect("drop table mine", &[])
}

fn advisory_lock(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let key = dice.below(1 << 40);
    client.expect(&format!("select pg_try_advisory_lock({key})"), &["t"])?;
    simple(client)?;
    client.expect(&format!("select pg_advisory_unlock({key})"), &["t"])
}

fn held_cursor(client: &mut Client) -> Result<(), Gone> {
    let token = client.token();
    let select = format!("select '{token}' || n from generate_series(1, 3) n");
    client.expect(&format!("declare mine cursor with hold for {select}"), &[])?;
    client.expect("fetch 1 from mine", &[&format!("{token}1")])?;
    client.expect(
        "fetch 2 from mine",
        &[&format!("{token}2"), &format!("{token}3")],
    )?;
    client.expect("close mine", &[])
}

fn copy_in(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    let rows = dice.below(300);
    client.expect("begin", &[])?;
    client.raw.send(&[Message::query("copy chaos from stdin")]);
    while client.frame()?.tag != b'G' {}
    for row in 0..rows {
        client
            .raw
            .send(&[Message::CopyData(format!("{token}\t{row}\n").into_bytes())]);
    }
    if dice.one_in(3) {
        client
            .raw
            .send(&[Message::CopyFail(b"changed my mind".to_vec())]);
        let frames = client.answer(1)?;
        assert_eq!(
            failure(&frames).as_deref(),
            Some("57014"),
            "{}: a copy that failed",
            client.name
        );
    } else {
        client.raw.send(&[Message::CopyDone]);
        let frames = client.answer(1)?;
        client.check("copy in", &frames, &[]);
        client.expect(
            &format!("select count(*) from chaos where owner = '{token}'"),
            &[&rows.to_string()],
        )?;
    }
    client.expect("rollback", &[])
}

fn copy_out(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    let rows = dice.below(2000);
    let frames = client.ask(&[Message::query(&format!(
        "copy (select '{token}', n from generate_series(1, {rows}) n) to stdout"
    ))])?;
    let data: Vec<u8> = frames
        .iter()
        .filter(|f| f.tag == b'd')
        .flat_map(|f| f.body.clone())
        .collect();
    let expected: String = (1..=rows).map(|n| format!("{token}\t{n}\n")).collect();
    client.check("copy out", &frames, &[]);
    assert!(
        data == expected.as_bytes(),
        "{}: copy out: {} bytes, not {}",
        client.name,
        data.len(),
        expected.len()
    );
    Ok(())
}

fn many_rows(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    let (rows, width) = (dice.below(400), dice.below(4000));
    let frames = client.ask(&[Message::query(&format!(
        "select '{token}' || n || repeat('x', {width}) from generate_series(1, {rows}) n"
    ))])?;
    let found = firsts(&frames);
    assert!(
        failure(&frames).is_none(),
        "{}: {:?}",
        client.name,
        failure(&frames)
    );
    let right = found
        .iter()
        .enumerate()
        .all(|(i, value)| *value == format!("{token}{}{}", i + 1, "x".repeat(width as usize)));
    assert!(
        right && found.len() as u64 == rows,
        "{}: rows of another, or too few: {}",
        client.name,
        found.len()
    );
    Ok(())
}

fn failing_transaction(client: &mut Client) -> Result<(), Gone> {
    client.expect("begin", &[])?;
    let frames = client.ask(&[Message::query("select 1/0")])?;
    assert_eq!(
        failure(&frames).as_deref(),
        Some("22012"),
        "{}",
        client.name
    );
    let token = client.token();
    let frames = client.ask(&[Message::query(&format!("select '{token}'"))])?;
    assert_eq!(
        failure(&frames).as_deref(),
        Some("25P02"),
        "{}",
        client.name
    );
    client.expect("rollback", &[])
}

/// Cancels its own query, until that is heard: a request may come before its query.
fn cancelled(client: &mut Client, dice: &mut Dice) -> Result<(), Gone> {
    let request = client.raw.cancel_request().expect("the proxy gives keys");
    client.raw.send(&[Message::query("select pg_sleep(120)")]);
    let port = client.world.port;
    let pause = Duration::from_millis(dice.below(30));
    let asker = std::thread::spawn(move || {
        sleep(pause);
        for _ in 0..2 {
            if let Ok(mut other) = RawClient::open(port) {
                other.send(std::slice::from_ref(&request));
                other.until_eof();
            }
            sleep(Duration::from_millis(20));
        }
    });
    let frames = client.answer(1);
    asker.join().expect("it does not panic");
    let frames = frames?;
    assert_eq!(
        failure(&frames).as_deref(),
        Some("57014"),
        "{}: a cancelled query",
        client.name
    );
    // A request may still be on its way to what comes next, as with Postgres itself.
    client.raw.send(&[Message::query("select pg_sleep(0.05)")]);
    client.answer(1).map(drop)
}

fn timed_out(client: &mut Client) -> Result<(), Gone> {
    client.expect("begin; set local statement_timeout = 30", &[])?;
    let frames = client.ask(&[Message::query("select pg_sleep(60)")])?;
    assert_eq!(
        failure(&frames).as_deref(),
        Some("57014"),
        "{}: a query past its time",
        client.name
    );
    client.expect("rollback", &[])
}

/// Leaves: with a goodbye, without a word, or in the middle of one.
pub(super) fn leave(mut client: Client, dice: &mut Dice) -> Result<(), Gone> {
    let token = client.token();
    let row = Message::CopyData(format!("{token}\t1\n").into_bytes());
    let insert = Message::query(&format!("insert into chaos values ('{token}', 1)"));
    let long = Message::query(&format!(
        "select '{token}' || n || repeat('y', 1000) from generate_series(1, 100000) n"
    ));
    match dice.below(16) {
        0 => client.raw.goodbye(),
        1 => {}
        2 => {
            let bytes = encode_all(&[Message::query(&format!("select '{token}', pg_sleep(0.01)"))]);
            let cut = dice.below(bytes.len() as u64) as usize;
            client.raw.send_bytes(bytes[..cut].to_vec());
        }
        3 => client.raw.send(&[long]),
        4 => {
            client.raw.send(&[long]);
            client.frame()?;
        }
        5 => {
            client.raw.send(&[Message::query("copy chaos from stdin")]);
            client.frame()?;
            client.raw.send(&[row]);
        }
        6 => {
            client.raw.send(&[Message::query("copy chaos from stdin")]);
            client.frame()?;
            let bytes = encode_all(&[row]);
            client.raw.send_bytes(bytes[..8].to_vec());
        }
        7 => client
            .raw
            .send(&[Message::query("copy chaos from stdin"), row]),
        8 => {
            client.expect("begin", &[])?;
            client.ask(&[insert])?;
        }
        9 => client.raw.send(&[
            Message::query("begin"),
            insert,
            Message::query("select pg_sleep(30)"),
        ]),
        10 => client.raw.send(&[
            Message::parse("", "select pg_sleep(30)"),
            Message::bind("", &[]),
            Message::execute(),
        ]),
        11 => {
            client.raw.send(&[
                Message::parse("", "select 1"),
                Message::bind("", &[]),
                Message::execute(),
                Message::Flush,
            ]);
            client.frame()?;
        }
        12 => {
            client.expect("create temp table mine (owner text)", &[])?;
            client.expect(&format!("insert into mine values ('{token}')"), &[])?;
        }
        13 => client.raw.send(&[
            Message::parse("", "copy chaos from stdin"),
            Message::bind("", &[]),
            Message::execute(),
            Message::Sync,
        ]),
        14 => {
            let garbage = dice.bytes(50);
            client.raw.send_bytes(garbage);
        }
        // Too long in a transaction: the proxy ends it.
        _ => {
            client.expect("begin", &[])?;
            client.ask(&[insert])?;
            client.frame()?;
        }
    }
    Ok(())
}
