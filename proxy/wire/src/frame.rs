//! Splitting a run of bytes into messages by header only.

use thiserror::Error;

/// Bytes of a message's header: the type byte and the length word.
pub const HEADER: usize = 5;

/// A message's type and size, read from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte, `b'Q'` for a Query.
    pub kind: u8,
    /// Size of the whole message in bytes, the type byte included.
    pub len: usize,
}

/// A header that no PostgreSQL peer would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length word is less than its own four bytes, or negative.
    #[error("invalid message length {length} of message type {kind:?}", kind = *kind as char)]
    Length {
        /// The message's type byte.
        kind: u8,
        /// The length word as it came.
        length: i32,
    },
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` when fewer than five bytes are there.
    ///
    /// # Errors
    ///
    /// [`FrameError::Length`] when the length word is not one of a message.
    #[inline]
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(FrameError::Length { kind, length });
        }
        Ok(Some(Self {
            kind,
            len: length as usize + 1,
        }))
    }
}

/// A message that lies whole in memory: its type byte, and the body after the length word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type byte.
    pub kind: u8,
    /// What follows the length word.
    pub body: &'a [u8],
}

/// Takes the first whole message off `bytes`: the message, and how many bytes it takes. `None` when it is not there whole.
///
/// # Errors
///
/// As [`Header::peek`].
pub fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(header) = Header::peek(bytes)? else {
        return Ok(None);
    };
    Ok(bytes.get(HEADER..header.len).map(|body| {
        (
            Frame {
                kind: header.kind,
                body,
            },
            header.len,
        )
    }))
}

/// Reads a C string at the start of `bytes`: the text without its NUL, and what follows.
#[inline]
#[must_use]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(Header::peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(
            Header::peek(b"Q\0\0\0\x05"),
            Ok(Some(Header { kind: b'Q', len: 6 }))
        );
    }

    #[test]
    fn lengths_below_four_are_refused() {
        for length in [-1i32, 0, 3, i32::MIN] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(
                Header::peek(&bytes),
                Err(FrameError::Length { kind: b'Q', length })
            );
        }
    }

    #[test]
    fn split_gives_whole_messages_only() {
        assert_eq!(
            split(b"S\0\0\0\x04Q"),
            Ok(Some((
                Frame {
                    kind: b'S',
                    body: b""
                },
                5
            )))
        );
        assert_eq!(split(b"Q\0\0\0\x06a"), Ok(None));
    }
}
