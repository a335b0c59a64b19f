//! Server messages as lines of text that can be compared: what differs between two equal runs (keys, process ids,
//! OIDs of user objects) is masked.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

/// OIDs from here on are handed out at run time.
const FIRST_USER_OID: u32 = 16384;
/// Values longer than this are shown by length and hash.
const LONGEST_VALUE: usize = 200;

/// One server message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Frame {
    /// The value of an error's or notice's field, such as `C` for the SQLSTATE.
    pub fn field(&self, field: u8) -> Option<String> {
        self.fields()
            .into_iter()
            .find(|(code, _)| *code == field)
            .map(|(_, value)| value)
    }

    fn fields(&self) -> Vec<(u8, String)> {
        let mut reader = Reader(&self.body);
        let mut fields = Vec::new();
        while let Some(code) = reader.byte().filter(|&code| code != 0) {
            fields.push((code, reader.text()));
        }
        fields
    }

    /// The columns of a DataRow; none = NULL.
    pub fn columns(&self) -> Vec<Option<Vec<u8>>> {
        let mut reader = Reader(&self.body);
        let count = reader.short().unwrap_or(0);
        (0..count).map(|_| reader.value()).collect()
    }

    /// The transaction status of a ReadyForQuery.
    pub fn status(&self) -> Option<char> {
        (self.tag == b'Z').then(|| self.body.first().map(|&b| char::from(b)))?
    }

    /// The line of the transcript.
    pub fn line(&self) -> String {
        let tag = char::from(self.tag);
        let content = self.content();
        if content.is_empty() {
            tag.to_string()
        } else {
            format!("{tag} {content}")
        }
    }

    fn content(&self) -> String {
        let mut reader = Reader(&self.body);
        match self.tag {
            b'C' => reader.text(),
            b'E' | b'N' => self.problem(),
            b'Z' => String::from_utf8_lossy(&self.body).into_owned(),
            b'S' => format!("{}={}", reader.text(), reader.text()),
            b'D' => {
                let columns: Vec<String> = self
                    .columns()
                    .iter()
                    .map(|value| show_value(value.as_deref()))
                    .collect();
                format!("({})", columns.join(", "))
            }
            b'T' => row_description(&mut reader),
            b't' => {
                let count = reader.short().unwrap_or(0);
                let oids: Vec<String> = (0..count).map(|_| show_type(reader.int())).collect();
                format!("({})", oids.join(", "))
            }
            b'A' => {
                reader.int();
                format!("{} {:?}", reader.text(), reader.text())
            }
            b'K' => format!("pid {}-byte key", self.body.len().saturating_sub(4)),
            b'R' => format!("{:?}", reader.int().unwrap_or_default()),
            b'V' => show_value(reader.value().as_deref()),
            b'v' => {
                let version = reader.int().unwrap_or_default();
                let count = reader.int().unwrap_or_default();
                let names: Vec<String> = (0..count.min(100)).map(|_| reader.text()).collect();
                format!("{}.{} {names:?}", version >> 16, version & 0xffff)
            }
            b'G' | b'H' | b'W' => {
                let format = reader.byte().unwrap_or_default();
                let count = reader.short().unwrap_or(0);
                let codes: Vec<u16> = (0..count).filter_map(|_| reader.short()).collect();
                format!("format {format} columns {codes:?}")
            }
            b'd' => show_bytes(&self.body),
            _ if self.body.is_empty() => String::new(),
            _ => show_bytes(&self.body),
        }
    }

    /// All fields a driver may show or act on; not the place in the source of Postgres.
    fn problem(&self) -> String {
        let mut line = String::new();
        for (code, value) in self.fields() {
            let name = match code {
                b'S' | b'C' | b'M' => "",
                b'D' => "detail=",
                b'H' => "hint=",
                b'P' => "position=",
                b'p' => "internal-position=",
                b'q' => "internal-query=",
                b'W' => "where=",
                b's' => "schema=",
                b't' => "table=",
                b'c' => "column=",
                b'd' => "type=",
                b'n' => "constraint=",
                _ => continue,
            };
            if !line.is_empty() {
                line.push_str(if code == b'M' { ": " } else { " " });
            }
            line.push_str(name);
            line.push_str(&value.replace('\n', "\\n"));
        }
        line
    }
}

/// The lines of several messages.
pub fn lines(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(Frame::line).collect()
}

fn row_description(reader: &mut Reader<'_>) -> String {
    let count = reader.short().unwrap_or(0);
    let columns: Vec<String> = (0..count)
        .map(|_| {
            let name = reader.text();
            let table = reader.int().unwrap_or_default();
            let attribute = reader.short().unwrap_or_default();
            let oid = show_type(reader.int());
            let size = reader.short().unwrap_or_default().cast_signed();
            let modifier = reader.int().unwrap_or_default().cast_signed();
            let format = reader.short().unwrap_or_default();
            let mut column = format!("{name}:{oid}");
            if modifier != -1 {
                column.push_str(&format!("[{modifier}]"));
            }
            column.push_str(&format!("/{size}/f{format}"));
            match table {
                0 => {}
                oid if oid < FIRST_USER_OID => column.push_str(&format!("@{oid}.{attribute}")),
                _ => column.push_str(&format!("@table.{attribute}")),
            }
            column
        })
        .collect();
    format!("({})", columns.join(", "))
}

fn show_type(oid: Option<u32>) -> String {
    match oid {
        None => "missing".to_owned(),
        Some(oid) if oid >= FIRST_USER_OID => "user".to_owned(),
        Some(oid) => oid.to_string(),
    }
}

fn show_value(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "NULL".to_owned(), show_bytes)
}

/// Text where it is printable, hex where not, length and hash where it is long.
pub fn show_bytes(bytes: &[u8]) -> String {
    if bytes.len() > LONGEST_VALUE {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        return format!("<{} bytes, hash {:016x}>", bytes.len(), hasher.finish());
    }
    match std::str::from_utf8(bytes) {
        Ok(text)
            if text
                .chars()
                .all(|c| !c.is_control() || c == '\n' || c == '\t') =>
        {
            format!("{text:?}")
        }
        _ => bytes
            .iter()
            .fold("x:".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    }
}

/// Reads what it can: a broken message must show up in the transcript, not end the test.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn int(&mut self) -> Option<u32> {
        self.take(4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn text(&mut self) -> String {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(&self.0[..len]).into_owned();
        self.0 = self.0.get(len + 1..).unwrap_or_default();
        text
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        let len = self.int()?;
        self.take(usize::try_from(len).ok()?).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Frame {
        Frame {
            tag,
            body: body.to_vec(),
        }
    }

    #[test]
    fn an_error_shows_what_a_driver_sees_and_not_the_source_line() {
        let error = frame(
            b'E',
            b"SERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L42\0Rint4div\0\0",
        );
        assert_eq!(error.line(), "E ERROR 22012: division by zero");
        assert_eq!(error.field(b'C').as_deref(), Some("22012"));
    }

    #[test]
    fn a_row_shows_text_null_and_hex() {
        let row = frame(b'D', b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x02\0\x01");
        assert_eq!(row.line(), "D (\"a\", NULL, x:0001)");
    }

    #[test]
    fn a_truncated_message_is_shown_as_far_as_it_goes() {
        assert_eq!(frame(b'D', b"\0\x02\0\0\0\x09ab").line(), "D (NULL, NULL)");
        assert_eq!(frame(b'T', b"\0").line(), "T ()");
        assert_eq!(frame(b'Z', b"").line(), "Z");
    }
}
