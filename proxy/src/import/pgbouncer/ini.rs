//! The syntax of `pgbouncer.ini`: sections, comments at the begin of a line only, `%include`, connection strings.

use std::rc::Rc;

use pgdog_config::{Problem, ProblemCode};

use crate::import::{Place, Written};

/// Gives the text of an included file, or says why it cannot.
pub type Include<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Includes in includes, as PgBouncer limits them.
const DEEPEST: usize = 10;

/// A section; the same name may come again.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) lines: Vec<Written>,
}

/// Reads a file and what it includes; goes on behind errors to find all of them.
pub(super) fn read(text: &str, file: &str, include: Include<'_>) -> (Vec<Section>, Vec<Problem>) {
    let mut reader = Reader {
        include,
        sections: Vec::new(),
        problems: Vec::new(),
    };
    reader.file(text, &Rc::from(file), 0);
    (reader.sections, reader.problems)
}

struct Reader<'a> {
    include: Include<'a>,
    sections: Vec<Section>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn file(&mut self, text: &str, file: &Rc<str>, depth: usize) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, number) in text.lines().zip(1..) {
            let place = Place {
                file: file.clone(),
                line: number,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if let Err(message) = self.line(line, &place, depth) {
                self.problems
                    .push(place.error("", ProblemCode::Syntax, message));
            }
        }
    }

    fn line(&mut self, line: &str, place: &Place, depth: usize) -> Result<(), String> {
        if let Some(name) = line.strip_prefix("%include") {
            let name = name.trim();
            if depth == DEEPEST {
                return Err(format!("more than {DEEPEST} files include each other"));
            }
            let text = (self.include)(name)
                .map_err(|error| format!("cannot read the included file {name}: {error}"))?;
            self.file(&text, &Rc::from(name), depth + 1);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest
                .strip_suffix(']')
                .ok_or("expected ] at the end of the section's name")?;
            self.sections.push(Section {
                name: name.trim().to_ascii_lowercase(),
                place: place.clone(),
                lines: Vec::new(),
            });
            return Ok(());
        }
        let (key, value) = key_and_value(line)?;
        let section = self
            .sections
            .last_mut()
            .ok_or("a key before the first section, such as [pgbouncer]")?;
        section.lines.push(Written {
            key,
            value,
            place: Some(place.clone()),
        });
        Ok(())
    }
}

/// `key = value`; a key may be an SQL identifier in double quotes.
fn key_and_value(line: &str) -> Result<(String, String), &'static str> {
    const EXPECTED: &str = "expected [section], key = value or %include file";
    let (key, rest) = match line.strip_prefix('"') {
        Some(quoted) => unquote(quoted, '"').ok_or("a name without its second double quote")?,
        None => {
            let end = line.find('=').ok_or(EXPECTED)?;
            (line[..end].trim().to_owned(), &line[end..])
        }
    };
    let value = rest.trim_start().strip_prefix('=').ok_or(EXPECTED)?;
    if key.is_empty() {
        return Err(EXPECTED);
    }
    Ok((key, value.trim().to_owned()))
}

/// The text up to a quote that is not doubled, and what is behind it. `text` begins behind the first quote.
pub(super) fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inside.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inside.push(quote);
        } else {
            return Some((inside, &text[at + quote.len_utf8()..]));
        }
    }
    None
}

/// The pairs of a connection string; a value may be in single quotes, a quote inside is doubled.
pub(super) fn pairs(written: &Written) -> Result<Vec<Written>, Problem> {
    let fail = |message: &str| written.error(ProblemCode::Syntax, message);
    let mut rest = written.value.trim_start();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let end = rest
            .find('=')
            .ok_or_else(|| fail("expected key=value pairs with spaces between them"))?;
        let key = rest[..end].trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(fail("expected key=value pairs with spaces between them"));
        }
        rest = rest[end + 1..].trim_start();
        let value;
        (value, rest) = match rest.strip_prefix('\'') {
            Some(quoted) => unquote(quoted, '\'')
                .ok_or_else(|| fail(&format!("the value of {key} lacks its second quote")))?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        rest = rest.trim_start();
        pairs.push(Written {
            key: key.to_ascii_lowercase(),
            value,
            place: written.place.clone(),
        });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Result<String, String> {
        Err("no such file".to_owned())
    }

    fn written(value: &str) -> Written {
        Written {
            key: "app".to_owned(),
            value: value.to_owned(),
            place: None,
        }
    }

    #[test]
    fn comments_are_whole_lines_and_a_value_keeps_its_semicolons_and_hashes() {
        let text = "; x\n  # y\n[PgBouncer]\n a = b ; c # d \n\n\"we\"\"ird db\"=host=h\n";
        let (sections, problems) = read(text, "f", &none);
        assert!(problems.is_empty());
        let lines: Vec<_> = sections[0]
            .lines
            .iter()
            .map(|line| (line.key.as_str(), line.value.as_str()))
            .collect();
        assert_eq!(sections[0].name, "pgbouncer");
        assert_eq!(lines, [("a", "b ; c # d"), ("we\"ird db", "host=h")]);
    }

    #[test]
    fn an_include_goes_on_in_the_same_section_and_a_circle_of_them_ends() {
        let include = |name: &str| match name {
            "more.ini" => Ok("b = 2\n[users]\n".to_owned()),
            "self.ini" => Ok("%include self.ini".to_owned()),
            other => none(other),
        };
        let text =
            "[pgbouncer]\na = 1\n%include more.ini\nc = 3\n%include self.ini\n%include gone.ini\n";
        let (sections, problems) = read(text, "f", &include);
        assert_eq!(sections[0].lines.len(), 2);
        assert_eq!(
            sections[0].lines[1].place.as_ref().map(ToString::to_string),
            Some("more.ini:1".to_owned())
        );
        assert_eq!(
            (sections[1].name.as_str(), sections[1].lines.len()),
            ("users", 1)
        );
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("include each other"), "{told:?}");
        assert!(
            told[1].starts_with("f:6: cannot read the included file gone.ini"),
            "{told:?}"
        );
    }

    #[test]
    fn all_syntax_errors_are_told_with_their_lines() {
        let (_, problems) = read("a = 1\n[x\n[pgbouncer]\nb\n\"c = 1\n= 2\n", "f", &none);
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4), Some(5), Some(6)]);
    }

    #[test]
    fn connection_strings_are_read_with_their_quotes() {
        let read = |text: &str| {
            pairs(&written(text)).map(|pairs| {
                pairs
                    .into_iter()
                    .map(|pair| (pair.key, pair.value))
                    .collect::<Vec<_>>()
            })
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read(" host=h  Port = 5 connect_query='set x to ''a b''' password='' user=u ").unwrap(),
            [
                pair("host", "h"),
                pair("port", "5"),
                pair("connect_query", "set x to 'a b'"),
                pair("password", ""),
                pair("user", "u")
            ]
        );
        assert_eq!(read("").unwrap(), []);
        for wrong in ["host", "=h", "host='h", "a b=c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
