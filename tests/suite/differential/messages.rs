//! From the words of a line to the messages it sends.

use pgdog_tests::Message;

use super::tokens::{Token, hex};

/// Reads messages separated by `;`, with `repeat N { … }` for many.
pub(super) fn messages(tokens: &[Token]) -> Result<Vec<Message>, String> {
    let mut out = Vec::new();
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        match first {
            Token::End => rest = &rest[1..],
            Token::Word(word) if word == "repeat" => {
                let (count, inner, after) = repetition(rest)?;
                let inner = messages(inner)?;
                (0..count).for_each(|_| out.extend_from_slice(&inner));
                rest = after;
            }
            _ => {
                let end = rest
                    .iter()
                    .position(|token| *token == Token::End)
                    .unwrap_or(rest.len());
                out.push(message(&rest[..end])?);
                rest = &rest[end..];
            }
        }
    }
    Ok(out)
}

fn repetition(tokens: &[Token]) -> Result<(usize, &[Token], &[Token]), String> {
    let [_, Token::Word(count), Token::Open, rest @ ..] = tokens else {
        return Err("repeat N { … } expected".to_owned());
    };
    let count = count.parse().map_err(|_| format!("{count} is no count"))?;
    let end = rest
        .iter()
        .position(|token| *token == Token::Close)
        .ok_or("} is missing")?;
    Ok((count, &rest[..end], &rest[end + 1..]))
}

/// What stands behind the letter of a message.
#[derive(Default)]
struct Arguments {
    statement: Option<Vec<u8>>,
    portal: Option<Vec<u8>>,
    formats: Vec<i16>,
    results: Vec<i16>,
    limit: i32,
    version: Option<(u16, u16)>,
    named: Vec<(String, String)>,
    plain: Vec<Plain>,
}

/// An argument without a key.
enum Plain {
    Word(String),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Null,
}

impl Plain {
    fn into_value(self) -> Option<Vec<u8>> {
        match self {
            Self::Word(word) => Some(word.into_bytes()),
            Self::Text(bytes) | Self::Bytes(bytes) => Some(bytes),
            Self::Null => None,
        }
    }
}

fn arguments(tokens: &[Token]) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    for token in tokens {
        match token {
            Token::Text(text) => out.plain.push(Plain::Text(text.clone())),
            Token::Named(key, value) => named(&mut out, key, value.clone())?,
            Token::Word(word) => match word.split_once('=') {
                Some((key, value)) => named(&mut out, key, value.as_bytes().to_vec())?,
                None if word == "NULL" => out.plain.push(Plain::Null),
                None => match word.strip_prefix("x:") {
                    Some(digits) => out.plain.push(Plain::Bytes(hex(digits)?)),
                    None => out.plain.push(Plain::Word(word.clone())),
                },
            },
            Token::End | Token::Open | Token::Close => {
                return Err("a brace out of place".to_owned());
            }
        }
    }
    Ok(out)
}

fn named(out: &mut Arguments, key: &str, value: Vec<u8>) -> Result<(), String> {
    let text = String::from_utf8_lossy(&value).into_owned();
    match key {
        "s" => out.statement = Some(value),
        "p" => out.portal = Some(value),
        "f" => out.formats = numbers(&text)?,
        "r" => out.results = numbers(&text)?,
        "max" => out.limit = text.parse().map_err(|_| format!("max={text}"))?,
        "protocol" => {
            let (major, minor) = text.split_once('.').ok_or("protocol=major.minor")?;
            let number = |digits: &str| {
                digits
                    .parse::<u16>()
                    .map_err(|_| format!("protocol={text}"))
            };
            out.version = Some((number(major)?, number(minor)?));
        }
        _ => out.named.push((key.to_owned(), text)),
    }
    Ok(())
}

fn numbers(text: &str) -> Result<Vec<i16>, String> {
    text.split(',')
        .map(|number| number.parse().map_err(|_| format!("{number} is no number")))
        .collect()
}

fn message(tokens: &[Token]) -> Result<Message, String> {
    let [Token::Word(kind), rest @ ..] = tokens else {
        return Err(format!("a message begins with its letter, not {tokens:?}"));
    };
    let arguments = arguments(rest)?;
    let target = |arguments: Arguments,
                  statement: fn(Vec<u8>) -> Message,
                  portal: fn(Vec<u8>) -> Message| {
        match arguments.statement {
            Some(name) => statement(name),
            None => portal(arguments.portal.unwrap_or_default()),
        }
    };
    Ok(match kind.as_str() {
        "Q" => Message::Query(only_text(arguments)?),
        "P" => parse(arguments)?,
        "B" => Message::Bind {
            portal: arguments.portal.unwrap_or_default(),
            statement: arguments.statement.unwrap_or_default(),
            formats: arguments.formats,
            values: arguments.plain.into_iter().map(Plain::into_value).collect(),
            results: arguments.results,
        },
        "D" => target(
            arguments,
            Message::DescribeStatement,
            Message::DescribePortal,
        ),
        "C" => target(arguments, Message::CloseStatement, Message::ClosePortal),
        "E" => Message::Execute {
            portal: arguments.portal.unwrap_or_default(),
            limit: arguments.limit,
        },
        "S" => Message::Sync,
        "H" => Message::Flush,
        "X" => Message::Terminate,
        "d" => Message::CopyData(only_text(arguments)?),
        "c" => Message::CopyDone,
        "f" => Message::CopyFail(only_text(arguments)?),
        "F" => function_call(arguments)?,
        "raw" => Message::Raw(only_text(arguments)?),
        "ssl" => Message::SslRequest,
        "gss" => Message::GssRequest,
        "startup" => Message::Startup {
            version: arguments.version.unwrap_or((3, 0)),
            parameters: arguments.named,
        },
        other => return Err(format!("unknown message {other}")),
    })
}

fn only_text(arguments: Arguments) -> Result<Vec<u8>, String> {
    let mut values = arguments.plain.into_iter().filter_map(Plain::into_value);
    match (values.next(), values.next()) {
        (Some(text), None) => Ok(text),
        _ => Err("exactly one text expected".to_owned()),
    }
}

/// `P s=name "sql" 23 25`
fn parse(arguments: Arguments) -> Result<Message, String> {
    let mut sql = None;
    let mut types = Vec::new();
    for plain in arguments.plain {
        match plain {
            Plain::Text(text) => sql = Some(text),
            Plain::Word(oid) => types.push(oid.parse().map_err(|_| format!("{oid} is no OID"))?),
            Plain::Bytes(_) | Plain::Null => return Err("P s=name \"sql\" oid…".to_owned()),
        }
    }
    let sql = sql.ok_or("P wants a text")?;
    Ok(Message::Parse {
        name: arguments.statement.unwrap_or_default(),
        sql,
        types,
    })
}

/// `F oid value… f=… r=…`
fn function_call(arguments: Arguments) -> Result<Message, String> {
    let mut plain = arguments.plain.into_iter();
    let Some(Plain::Word(oid)) = plain.next() else {
        return Err("F wants an OID".to_owned());
    };
    Ok(Message::FunctionCall {
        function: oid.parse().map_err(|_| format!("{oid} is no OID"))?,
        formats: arguments.formats,
        values: plain.map(Plain::into_value).collect(),
        result: arguments.results.first().copied().unwrap_or(0),
    })
}
