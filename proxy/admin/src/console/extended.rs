//! The extended protocol: Parse, Bind, Describe, Execute, Close.

use std::sync::Arc;
use std::vec::IntoIter;

use pgdog_session::Ended;
use pgdog_wire::backend;
use pgdog_wire::frame::cstr;
use pgdog_wire::frontend::{Parse, Target};
use pgdog_wire::sqlstate;
use pgdog_wire::write::message;

use super::{Session, columns, text};
use crate::answer::{Refusal, syntax};
use crate::lexer;
use crate::statement::{self, Statement};
use crate::table::{self, Column, Format, Value};

/// Statements and portals that one console may have.
const NAMES_MAX: usize = 1000;
/// `invalid_cursor_name`.
const NO_PORTAL: &str = "34000";

/// A statement that was parsed.
#[derive(Debug)]
pub(super) struct Prepared {
    statement: Statement,
    columns: Vec<Column>,
}

/// A statement that was bound.
#[derive(Debug)]
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    /// A format for each column.
    formats: Vec<Format>,
    /// What is left to be sent, when it has been executed.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    rows: IntoIter<Vec<Value>>,
    tag: String,
}

impl Portal {
    fn columns(&self) -> Vec<(&Column, Format)> {
        let columns = self.prepared.columns.iter();
        columns.zip(self.formats.iter().copied()).collect()
    }
}

impl Session {
    pub(super) async fn extended(
        &mut self,
        kind: u8,
        body: &[u8],
    ) -> Result<Result<(), Refusal>, Ended> {
        Ok(match kind {
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => return self.execute_portal(body).await,
            _ => self.close(body),
        })
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let parse = Parse::read(body).ok_or_else(|| malformed("Parse"))?;
        let commands = lexer::commands(text(Some(parse.query))?)?;
        let [tokens] = &commands[..] else {
            return Err(syntax(
                "cannot insert multiple commands into a prepared statement",
            ));
        };
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(Refusal::new(
                sqlstate::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let statement = statement::parse(tokens)?;
        let prepared = Prepared {
            columns: columns(&statement),
            statement,
        };
        room(self.statements.len())?;
        self.statements
            .insert(parse.name.to_vec(), Arc::new(prepared));
        backend::bare(&mut self.out, b'1');
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let bind = Bind::read(body).ok_or_else(|| malformed("Bind"))?;
        let prepared = self.statement(bind.statement)?.clone();
        if bind.parameters > 0 {
            let text = format!(
                "bind message supplies {} parameters, but a command of the console takes none",
                bind.parameters
            );
            return Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, text));
        }
        let count = prepared.columns.len();
        let formats = match &bind.formats[..] {
            [] => vec![Format::Text; count],
            [all] => vec![*all; count],
            each if each.len() == count => each.to_vec(),
            each => {
                let text = format!(
                    "bind message has {} result formats but query has {count} columns",
                    each.len()
                );
                return Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, text));
            }
        };
        let portal = Portal {
            prepared,
            formats,
            pending: None,
        };
        room(self.portals.len())?;
        self.portals.insert(bind.portal.to_vec(), portal);
        backend::bare(&mut self.out, b'2');
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Arc<Prepared>, Refusal> {
        self.statements.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Refusal::new(
                sqlstate::INVALID_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mut out = Vec::new();
        match Target::read(body).ok_or_else(|| malformed("Describe"))? {
            Target::Statement(name) => {
                let prepared = self.statement(name)?;
                message(&mut out, b't', |b| b.extend_from_slice(&[0, 0]));
                let columns = prepared.columns.iter().map(|c| (c, Format::Text));
                describe(&mut out, &columns.collect::<Vec<_>>());
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                describe(&mut out, &portal.columns());
            }
        }
        self.out.append(&mut out);
        Ok(())
    }

    async fn execute_portal(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Ended> {
        let Some((name, limit)) = read_execute(body) else {
            return Ok(Err(malformed("Execute")));
        };
        let Some(portal) = self.portals.get(name) else {
            return Ok(Err(no_portal(name)));
        };
        let prepared = portal.prepared.clone();
        if matches!(prepared.statement, Statement::Empty) {
            backend::bare(&mut self.out, b'I');
            return Ok(Ok(()));
        }
        if portal.pending.is_none() {
            let told = match self.execute(&prepared.statement).await? {
                Ok(told) => told,
                Err(error) => return Ok(Err(error)),
            };
            told.notices.iter().for_each(|n| n.write(&mut self.out));
            if let Some(portal) = self.portals.get_mut(name) {
                portal.pending = Some(Pending {
                    rows: told.rows.into_iter(),
                    tag: told.tag,
                });
            }
        }
        self.send_rows(name, limit);
        Ok(Ok(()))
    }

    /// Sends rows of a portal, at most `limit` of them where that is not 0.
    fn send_rows(&mut self, name: &[u8], limit: usize) {
        let Some(portal) = self.portals.get_mut(name) else {
            return;
        };
        let Some(mut pending) = portal.pending.take() else {
            return;
        };
        let columns = portal.columns();
        let count = if limit == 0 { usize::MAX } else { limit };
        for row in pending.rows.by_ref().take(count) {
            table::data_row(&mut self.out, &columns, &row);
        }
        if pending.rows.len() > 0 {
            backend::bare(&mut self.out, b's');
        } else {
            backend::command_complete(&mut self.out, &pending.tag);
        }
        portal.pending = Some(pending);
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Refusal> {
        match Target::read(body).ok_or_else(|| malformed("Close"))? {
            Target::Statement(name) => {
                self.statements.remove(name);
            }
            Target::Portal(name) => {
                self.portals.remove(name);
            }
        }
        backend::bare(&mut self.out, b'3');
        Ok(())
    }
}

/// Appends a RowDescription, or NoData.
fn describe(out: &mut Vec<u8>, columns: &[(&Column, Format)]) {
    if columns.is_empty() {
        backend::bare(out, b'n');
    } else {
        table::describe(out, columns);
    }
}

/// A Bind message, without the values of parameters.
#[derive(Debug)]
struct Bind<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    parameters: usize,
    formats: Vec<Format>,
}

impl<'a> Bind<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstr(body)?;
        let (statement, rest) = cstr(rest)?;
        let (_, rest) = codes(rest)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let parameters = usize::from(u16::from_be_bytes(*count));
        for _ in 0..parameters {
            let (length, after) = rest.split_first_chunk::<4>()?;
            // A negative length is NULL, which has no bytes.
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            rest = after.get(length..)?;
        }
        let (formats, rest) = codes(rest)?;
        let formats = formats
            .into_iter()
            .map(Format::read)
            .collect::<Option<_>>()?;
        rest.is_empty().then_some(Self {
            portal,
            statement,
            parameters,
            formats,
        })
    }
}

/// A count and that many numbers.
fn codes(bytes: &[u8]) -> Option<(Vec<i16>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let length = 2 * usize::from(u16::from_be_bytes(*count));
    let (codes, rest) = rest.split_at_checked(length)?;
    let (pairs, _) = codes.as_chunks::<2>();
    Some((pairs.iter().map(|c| i16::from_be_bytes(*c)).collect(), rest))
}

/// The portal of an Execute, and the most rows it asks for; 0 is all.
fn read_execute(body: &[u8]) -> Option<(&[u8], usize)> {
    let (name, rest) = cstr(body)?;
    let limit = i32::from_be_bytes(*rest.first_chunk()?);
    (rest.len() == 4).then(|| (name, usize::try_from(limit).unwrap_or(0)))
}

fn room(names: usize) -> Result<(), Refusal> {
    if names < NAMES_MAX {
        return Ok(());
    }
    let text = format!("a console has at most {NAMES_MAX} statements and as many portals");
    Err(Refusal::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, text)
        .hint("Close those that are done with."))
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(
        sqlstate::PROTOCOL_VIOLATION,
        format!("invalid {what} message"),
    )
}

fn no_portal(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(NO_PORTAL, format!("portal \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_tells_its_parameters_and_formats() {
        let body = b"p\0s\0\0\x01\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
        let bind = Bind::read(body).unwrap();
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        assert_eq!(
            (bind.parameters, &bind.formats[..]),
            (2, &[Format::Binary][..])
        );
        for torn in 0..body.len() {
            assert!(Bind::read(&body[..torn]).is_none(), "{torn}");
        }
    }

    #[test]
    fn an_execute_asks_for_all_rows_with_0() {
        assert_eq!(read_execute(b"p\0\0\0\0\x05"), Some((&b"p"[..], 5)));
        assert_eq!(read_execute(b"\0\0\0\0\0"), Some((&b""[..], 0)));
        assert_eq!(read_execute(b"\0\0\0\0"), None);
    }
}
