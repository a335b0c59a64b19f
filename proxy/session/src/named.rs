//! SQL that names a prepared statement of the protocol: `EXECUTE name` and `DEALLOCATE name`.
//!
//! PostgreSQL keeps both kinds in one list; through the proxy the protocol's have another name on the server.

use std::sync::Arc;

use pgdog_backend::statements::Statement;
use pgdog_sql::lexer::{Lexer, skip_blank};

use crate::client::Client;

/// The text, the statement it names, and the client's name for it when that is to be forgotten.
type Rewritten = (Vec<u8>, Arc<Statement>, Option<Box<[u8]>>);

/// The text with our name instead of the client's, the statement, and the client's name when it is to be forgotten.
/// `None`: the text names none of the protocol's statements.
pub(crate) fn rewrite(client: &Client, text: &[u8]) -> Option<Rewritten> {
    let statements = client.statements.as_ref()?;
    let mut tokens = Lexer::new(text);
    let first = tokens.next()?;
    let forgets = first.is("deallocate");
    if !forgets && !first.is("execute") {
        return None;
    }
    let mut start = skip_blank(text, tokens.position());
    let mut token = tokens.next()?;
    if forgets && token.is("prepare") {
        start = skip_blank(text, tokens.position());
        token = tokens.next()?;
    }
    let name = token.name()?;
    let statement = statements.get(&name)?.clone();
    let mut rewritten = text[..start].to_vec();
    rewritten.push(b'"');
    rewritten.extend_from_slice(&statement.name);
    rewritten.push(b'"');
    rewritten.extend_from_slice(&text[tokens.position()..]);
    Some((rewritten, statement, forgets.then(|| name.into())))
}
