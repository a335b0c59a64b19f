//! Writing messages: the length word is patched in when the body is complete.

/// Appends one typed message to `out`; `body` writes what follows the length word.
#[inline]
pub fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    untyped(out, body);
}

/// Appends one message without a type byte (startup, SSLRequest, CancelRequest).
///
/// # Panics
///
/// When the body is larger than 2 GiB, which no caller builds.
#[inline]
pub fn untyped(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = i32::try_from(out.len() - start).expect("a built message is below 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a C string. NUL bytes in `text` would end it early, so they are left out.
#[inline]
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    if text.contains(&0) {
        out.extend(text.iter().copied().filter(|&b| b != 0));
    } else {
        out.extend_from_slice(text);
    }
    out.push(0);
}

/// Appends `text` as an SQL string literal that reads the same whatever `standard_conforming_strings` says.
pub fn literal(out: &mut String, text: &str) {
    if text.contains('\\') {
        out.push_str(" E");
    }
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => {}
            c => out.push(c),
        }
    }
    out.push('\'');
}

/// Appends `name` as a quoted SQL identifier.
pub fn identifier(out: &mut String, name: &str) {
    out.push('"');
    for c in name.chars().filter(|&c| c != '\0') {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_counts_itself_and_the_body() {
        let mut out = Vec::new();
        message(&mut out, b'Q', |b| cstr(b, b"x"));
        assert_eq!(out, b"Q\0\0\0\x06x\0");
    }

    #[test]
    fn literals_and_identifiers_survive_quotes_and_backslashes() {
        let mut out = String::new();
        literal(&mut out, "it's");
        literal(&mut out, r"a\b");
        identifier(&mut out, "a\"b");
        assert_eq!(out, r#"'it''s' E'a\\b'"a""b""#);
    }
}
