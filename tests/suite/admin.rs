//! The admin console: what it shows, what it does, and how it speaks to clients.

mod acts;
mod described;
mod drivers;
mod ends;
mod hosts;
mod http;
mod pauses;
mod protocol;
mod views;

use std::collections::HashMap;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Database, Frame, Message, Postgres, Proxy, ProxyConfig, RawClient, wait};

/// The password of the console.
const PASSWORD: &str = "open sesame";

/// A proxy whose console asks for a plain password, which a client without arithmetic can give; its users are trusted.
pub(super) fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"plain\"")
        .general("plain_without_tls", "true")
        .general("checkout_timeout", "2000")
        .pool_size(4)
        .database(database.name())
        .append(&format!("[admin]\npassword = \"{PASSWORD}\""))
        .append_users(&trusted("pgdog", database.name()))
}

/// The entry of a user who needs no password.
pub(super) fn trusted(user: &str, database: &str) -> String {
    format!(
        "[[users]]\nname = \"{user}\"\ndatabase = \"{database}\"\nauth_type = \"trust\"\nserver_user = \"pgdog\"\n"
    )
}

/// A client of the console.
pub(super) fn console(proxy: &Proxy) -> RawClient {
    let (client, frames) = login(proxy, "admin", PASSWORD);
    let last = frames.last().map(Frame::line);
    assert_eq!(last.as_deref(), Some("Z I"), "the console lets its user in");
    client
}

/// Asks to be let in to the console.
fn login(proxy: &Proxy, user: &str, password: &str) -> (RawClient, Vec<Frame>) {
    let mut client = RawClient::open(proxy.port()).expect("the proxy listens");
    client.send(&[Message::startup(&[
        ("user", user),
        ("database", "admin"),
        ("application_name", "the tests"),
    ])]);
    let mut frames = client.take(1);
    let mut text = password.as_bytes().to_vec();
    text.push(0);
    client.send(&[Message::Password(text)]);
    frames.extend(client.until_ready());
    (client, frames)
}

/// The rows of a view, by the names of its columns.
pub(super) fn view(console: &mut RawClient, sql: &str) -> Vec<HashMap<String, String>> {
    let frames = console.query(sql);
    let failed = frames.iter().find(|frame| frame.tag == b'E');
    assert!(failed.is_none(), "{sql}: {:?}", failed.map(Frame::line));
    let names = frames.iter().find(|frame| frame.tag == b'T');
    let names = names_of(names.expect("a view describes its rows"));
    let row = |frame: &Frame| {
        let values = frame.columns().into_iter().map(|value| {
            value.map_or("NULL".to_owned(), |v| {
                String::from_utf8_lossy(&v).into_owned()
            })
        });
        names.iter().cloned().zip(values).collect()
    };
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    rows.map(row).collect()
}

/// The names of the columns in a RowDescription.
fn names_of(frame: &Frame) -> Vec<String> {
    let count = u16::from_be_bytes([frame.body[0], frame.body[1]]);
    let mut rest = &frame.body[2..];
    (0..count)
        .map(|_| {
            let end = rest.iter().position(|b| *b == 0).expect("a name ends");
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 1 + 18..];
            name
        })
        .collect()
}

/// The row of a view in which a column has this value.
fn row(console: &mut RawClient, sql: &str, column: &str, value: &str) -> HashMap<String, String> {
    let rows = view(console, sql);
    let found = rows.iter().find(|row| row[column] == value);
    found
        .unwrap_or_else(|| panic!("{sql}: no {column} = {value} in {rows:?}"))
        .clone()
}

/// Waits until a field of a view is as it should be.
fn until(console: &mut RawClient, sql: &str, at: (&str, &str), column: &str, wanted: &str) {
    let mut last = String::new();
    let came = wait::until(PATIENCE, || {
        let rows = view(console, sql);
        let found = rows.iter().find(|row| row[at.0] == at.1);
        last = found.map_or_else(|| "no such row".to_owned(), |row| row[column].clone());
        last == wanted
    });
    assert!(came, "{sql}: {column} is {last}, not {wanted}");
}

/// The SQLSTATE and the whole line of what is refused.
fn refused(console: &mut RawClient, sql: &str) -> (String, String) {
    let frames = console.query(sql);
    let error = frames.iter().find(|frame| frame.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("{sql}: not refused"));
    let code = error.field(b'C').expect("an error has a code");
    (code, error.line())
}
