//! Bytes on their way: filled at the end, taken from the start.

/// What a buffer of a connection at work holds before more is read. PostgreSQL sends 8 KiB at a time.
pub const SIZE: usize = 16 * 1024;

/// A run of bytes, read into at its end and consumed from its start. Fields are open: builders append to `bytes`.
#[derive(Debug, Default)]
pub struct Buffer {
    /// All bytes, those before `start` are spent.
    pub bytes: Vec<u8>,
    /// Where the unspent bytes begin.
    pub start: usize,
}

impl Buffer {
    /// An empty one of the usual size.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(SIZE),
            start: 0,
        }
    }

    /// The unspent bytes.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many they are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether all is spent.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Spends `count` bytes.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Makes room for at least `room` more bytes behind the unspent ones, moving these to the front first.
    #[inline]
    pub fn reserve(&mut self, room: usize) {
        if self.bytes.capacity() - self.bytes.len() >= room {
            return;
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes
            .reserve(room.max(SIZE - self.bytes.len().min(SIZE)));
    }

    /// Gives memory back that an unusually large message took.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 4 * SIZE {
            self.bytes = Vec::with_capacity(SIZE);
            self.start = 0;
        }
    }

    /// Moves all of `self` behind what `out` holds; without a copy when `out` is empty.
    #[inline]
    pub fn move_to(&mut self, out: &mut Self) {
        if out.is_empty() {
            std::mem::swap(self, out);
        } else {
            out.bytes.extend_from_slice(self.data());
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumed_bytes_make_room() {
        let mut buffer = Buffer::new();
        buffer.bytes.extend_from_slice(&[1; SIZE]);
        buffer.consume(SIZE - 1);
        buffer.reserve(100);
        assert_eq!((buffer.data(), buffer.start), (&[1u8][..], 0));
        buffer.consume(1);
        assert!(buffer.is_empty());
    }

    #[test]
    fn moving_keeps_the_order() {
        let (mut a, mut b) = (Buffer::new(), Buffer::new());
        a.bytes.extend_from_slice(b"xab");
        a.consume(1);
        a.move_to(&mut b);
        a.bytes.extend_from_slice(b"cd");
        a.move_to(&mut b);
        assert_eq!((b.data(), a.len()), (&b"abcd"[..], 0));
    }
}
