//! Reads an authentication file into lines of fields: continued lines joined, other files put in where they are named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Place;
use super::tokens::{self, Field};
use crate::problem::{Problem, ProblemCode};

/// How deep files may name each other; PostgreSQL's number.
const DEPTH_MAX: usize = 10;

/// A line that says something.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    /// At least one.
    pub(super) fields: Vec<Field>,
}

/// Reads a file and all that it includes.
pub(super) fn load(path: &Path) -> (Vec<Line>, Vec<Problem>) {
    let mut reader = Reader::default();
    match read(path) {
        Ok(bytes) => reader.file(path, &bytes),
        Err(error) => reader.problems.push(
            Place::of_file(path).problem(ProblemCode::Unreadable, format!("cannot read: {error}")),
        ),
    }
    (reader.lines, reader.problems)
}

/// The same for a text; `path` is where it would stand, for messages and for the names of other files.
pub(super) fn parse(path: &Path, text: &[u8]) -> (Vec<Line>, Vec<Problem>) {
    let mut reader = Reader::default();
    reader.file(path, text);
    (reader.lines, reader.problems)
}

#[derive(Default)]
struct Reader {
    lines: Vec<Line>,
    problems: Vec<Problem>,
    /// The files that are being read, each named by the one before.
    open: Vec<PathBuf>,
}

impl Reader {
    fn file(&mut self, path: &Path, bytes: &[u8]) {
        self.open.push(path.to_owned());
        let file: Arc<str> = path.display().to_string().into();
        for (number, bytes) in whole_lines(bytes) {
            let place = Place {
                file: file.clone(),
                line: number,
            };
            match std::str::from_utf8(&bytes) {
                // PostgreSQL reads no further than the zero, and so would pass over what stands behind.
                Ok(text) if text.contains('\0') => {
                    self.problem(&place, ProblemCode::Syntax, "a zero byte");
                }
                Ok(text) => self.line(path, place, text),
                Err(_) => self.problem(&place, ProblemCode::Syntax, "not valid UTF-8"),
            }
        }
        self.open.pop();
    }

    fn line(&mut self, path: &Path, place: Place, text: &str) {
        let mut fields = Vec::new();
        for field in tokens::split(text) {
            match self.expand(path, &place, field) {
                Some(field) => fields.push(field),
                // The line would mean something else without this field.
                None => return,
            }
        }
        let Some(first) = fields.first().and_then(|field| field.first()) else {
            return;
        };
        match first.text.as_str() {
            "include" => self.include(path, &place, &fields, false),
            "include_if_exists" => self.include(path, &place, &fields, true),
            "include_dir" => self.include_dir(path, &place, &fields),
            _ => self.lines.push(Line { place, fields }),
        }
    }

    /// Puts the values of `@file` in its place.
    fn expand(&mut self, path: &Path, place: &Place, field: Field) -> Option<Field> {
        let mut expanded = Field::new();
        for token in field {
            let Some(name) = token.file() else {
                expanded.push(token);
                continue;
            };
            let lines = self.aside(&beside(path, name), place)?;
            let values = lines.into_iter().flat_map(|line| line.fields).flatten();
            expanded.extend(values);
        }
        if expanded.is_empty() {
            self.problem(
                place,
                ProblemCode::BadValue,
                "no value in the files that are named here; remove the line, or write a name into the file",
            );
            return None;
        }
        Some(expanded)
    }

    /// The lines of another file, apart from those read so far; `None` with a problem.
    fn aside(&mut self, path: &Path, place: &Place) -> Option<Vec<Line>> {
        let before = std::mem::take(&mut self.lines);
        let problems = self.problems.len();
        self.other(path, place, false);
        let lines = std::mem::replace(&mut self.lines, before);
        (self.problems.len() == problems).then_some(lines)
    }

    fn include(&mut self, path: &Path, place: &Place, fields: &[Field], may_be_missing: bool) {
        if let Some(name) = self.only_value(place, fields) {
            self.other(&beside(path, name), place, may_be_missing);
        }
    }

    fn include_dir(&mut self, path: &Path, place: &Place, fields: &[Field]) {
        let Some(name) = self.only_value(place, fields) else {
            return;
        };
        let directory = beside(path, name);
        match files_of(&directory) {
            Ok(files) => {
                for file in files {
                    self.other(&file, place, false);
                }
            }
            Err(error) => {
                let message = format!("cannot read directory {}: {error}", directory.display());
                self.problem(place, ProblemCode::Unreadable, message);
            }
        }
    }

    /// What an include directive names.
    fn only_value<'f>(&mut self, place: &Place, fields: &'f [Field]) -> Option<&'f str> {
        if let [_, name] = fields
            && let [name] = name.as_slice()
            && !name.text.is_empty()
        {
            return Some(&name.text);
        }
        let directive = &fields[0][0].text;
        let message = format!("{directive} takes one name; write a line for each");
        self.problem(place, ProblemCode::Syntax, message);
        None
    }

    fn other(&mut self, path: &Path, place: &Place, may_be_missing: bool) {
        let shown = path.display();
        if self.open.iter().any(|open| open == path) {
            let message = format!("{shown} includes itself");
            self.problem(place, ProblemCode::Conflict, message);
        } else if self.open.len() > DEPTH_MAX {
            let message =
                format!("cannot read {shown}: more than {DEPTH_MAX} files name each other");
            self.problem(place, ProblemCode::Conflict, message);
        } else {
            match read(path) {
                Ok(bytes) => self.file(path, &bytes),
                Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("cannot read {shown}: {error}");
                    self.problem(place, ProblemCode::Unreadable, message);
                }
            }
        }
    }

    fn problem(&mut self, place: &Place, code: ProblemCode, message: impl Into<String>) {
        self.problems.push(place.problem(code, message));
    }
}

/// Reads what is a file: a pipe or a terminal would keep the proxy waiting.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    fs::read(path)
}

/// A relative name begins in the directory of the file that it stands in.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

/// What `include_dir` reads: files with names that end in `.conf` and do not begin with a dot, in the order of their bytes.
fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        let wanted = bytes.ends_with(b".conf") && !bytes.starts_with(b".");
        if wanted && !directory.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.iter().map(|name| directory.join(name)).collect())
}

/// The lines with the number of their first part; a backslash at the end joins a line with the next.
fn whole_lines(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut first = 1;
    let mut number = 0;
    // The backslash that continues a line has to be in the part that was read last: two of them are not one for two lines.
    let mut joined = 0;
    for part in bytes.split(|byte| *byte == b'\n') {
        number += 1;
        line.extend_from_slice(part);
        while line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > joined && line.last() == Some(&b'\\') {
            line.pop();
            joined = line.len();
            continue;
        }
        lines.push((first, std::mem::take(&mut line)));
        first = number + 1;
        joined = 0;
    }
    if !line.is_empty() {
        lines.push((first, line));
    }
    lines
}
