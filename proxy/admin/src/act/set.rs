//! `SET`: keys of `[general]` that a running proxy can change.

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, bad_value};
use crate::command::{Args, Command, Running, usage};
use crate::control::Order;
use crate::lexer::Token;

/// `SET key = value`.
#[derive(Debug)]
pub(crate) struct Set;

impl Command for Set {
    fn name(&self) -> &'static str {
        "SET"
    }

    fn usage(&self) -> &'static str {
        "SET key = value|DEFAULT"
    }

    fn help(&self) -> &'static str {
        "Changes a key of [general] until RELOAD or the end of the process; SHOW CONFIG tells which."
    }

    fn run<'a>(&'a self, admin: &'a Admin, args: Args<'a>) -> Running<'a> {
        Box::pin(async move {
            let (key, value) = read(self, args)?;
            let order = Order::Set {
                key: key.clone(),
                value: value.clone(),
            };
            let warnings = admin.process.order(order).await;
            let warnings = warnings.map_err(|problems| {
                bad_value(problems)
                    .hint("SHOW CONFIG lists the keys, their values and which can be changed.")
            })?;
            tracing::info!(key, value, "set by the admin console");
            let path = format!("general.{key}");
            let answer = Answer::notice(format!(
                "{key} holds until RELOAD or the end of the process"
            ));
            let mine = warnings.iter().filter(|w| w.path == path);
            Ok(mine.fold(answer, |a, warning| a.and_warning(warning.to_string())))
        })
    }
}

/// The key, and the value that is not the default.
fn read(set: &Set, args: Args<'_>) -> Result<(String, Option<String>), Refusal> {
    let [key, equals, value] = args.0 else {
        return Err(usage(set));
    };
    if *equals != Token::Sign('=') && !equals.is("TO") {
        return Err(usage(set));
    }
    let (Some(key), Some(text)) = (key.content(), value.content()) else {
        return Err(usage(set));
    };
    let value = (!value.is("DEFAULT")).then(|| text.to_owned());
    Ok((key.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::commands;

    fn read_sql(sql: &str) -> Option<(String, Option<String>)> {
        let tokens = commands(sql).unwrap().remove(0);
        read(&Set, Args(&tokens)).ok()
    }

    #[test]
    fn values_are_words_or_texts() {
        let found =
            |value: Option<&str>| Some(("query_timeout".to_owned(), value.map(str::to_owned)));
        assert_eq!(read_sql("query_timeout = 5"), found(Some("5")));
        assert_eq!(read_sql("Query_Timeout TO 'x y'"), found(Some("x y")));
        assert_eq!(read_sql("query_timeout = DEFAULT"), found(None));
        assert_eq!(
            read_sql("query_timeout = 'DEFAULT'"),
            found(Some("DEFAULT"))
        );
        for wrong in ["", "a", "a =", "a b c", "a = b c", "a = ,"] {
            assert_eq!(read_sql(wrong), None, "{wrong}");
        }
    }
}
