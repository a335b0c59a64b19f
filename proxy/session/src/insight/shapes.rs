//! Texts without their constants: each is worked out once, and a text that comes again as it was is found by its bytes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use pgdog_backend::statements::{FastHasher, Shape};

use super::KeyHasher;

/// Longest text that is kept, bytes.
pub const MAX_TEXT: usize = 2048;

/// Texts that are remembered as they came, a power of two.
const RECENT: usize = 256;
/// Longest of these, bytes.
const RECENT_MAX: usize = 1024;
/// Above this many shapes, those that nobody holds are forgotten.
const SHAPES: usize = 1024;

/// What one worker knows.
#[derive(Debug)]
pub(super) struct Shapes {
    known: HashMap<u64, Arc<Shape>, BuildHasherDefault<KeyHasher>>,
    /// Size at which those that nobody holds are looked for again.
    sweep_at: usize,
    /// Each text in the place that its hash gives; the one that comes later has it.
    recent: Box<[Option<Recent>]>,
}

#[derive(Debug, Clone)]
struct Recent {
    text: Vec<u8>,
    shape: Arc<Shape>,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            known: HashMap::default(),
            sweep_at: SHAPES,
            recent: Box::default(),
        }
    }
}

impl Shapes {
    /// The shape of a text.
    pub(super) fn of(&mut self, text: &[u8]) -> Arc<Shape> {
        if text.len() > RECENT_MAX {
            return self.worked_out(text);
        }
        if self.recent.is_empty() {
            self.recent = vec![None; RECENT].into();
        }
        let place = place(text);
        if let Some(recent) = &self.recent[place]
            && recent.text == text
        {
            return recent.shape.clone();
        }
        let shape = self.worked_out(text);
        match &mut self.recent[place] {
            Some(recent) => {
                recent.text.clear();
                recent.text.extend_from_slice(text);
                recent.shape = shape.clone();
            }
            empty => {
                *empty = Some(Recent {
                    text: text.to_vec(),
                    shape: shape.clone(),
                });
            }
        }
        shape
    }

    fn worked_out(&mut self, text: &[u8]) -> Arc<Shape> {
        let fingerprint = pgdog_sql::fingerprint(text);
        if let Some(shape) = self.known.get(&fingerprint) {
            return shape.clone();
        }
        if self.known.len() >= self.sweep_at {
            // A row holds the text alone.
            self.known
                .retain(|_, s| Arc::strong_count(s) > 1 || Arc::strong_count(&s.text) > 1);
            self.sweep_at = SHAPES.max(self.known.len() * 2);
        }
        let shape = Arc::new(Shape {
            fingerprint,
            text: cut(pgdog_sql::normalise(text)).into(),
        });
        self.known.insert(fingerprint, shape.clone());
        shape
    }
}

fn place(text: &[u8]) -> usize {
    let mut hasher = FastHasher::default();
    hasher.write(text);
    // The upper bits have seen all of the text.
    (hasher.finish() >> (u64::BITS - RECENT.trailing_zeros())) as usize
}

/// No more of a text than is kept.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        const DOTS: &str = " …";
        text.truncate(text.floor_char_boundary(MAX_TEXT - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}

/// Why a request has no text of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    /// It runs a statement that was prepared before anybody watched, or by SQL.
    Unknown,
    /// It is longer than what is read of one.
    TooLarge,
    /// Its strings end where the session's settings say, so that nobody can tell its constants from its words.
    Unreadable,
    /// It calls a function by number.
    FunctionCall,
}

/// What stands for such requests.
#[derive(Debug)]
pub(super) struct OddShapes([Arc<Shape>; 4]);

impl Default for OddShapes {
    fn default() -> Self {
        // As fingerprints these numbers are as likely as any other.
        Self(std::array::from_fn(|number| {
            let text = match number {
                0 => "/* a statement prepared before statistics were kept, or by SQL */",
                1 => "/* a text too large to be read */",
                2 => "/* a text with backslashes, standard_conforming_strings is off */",
                _ => "/* a function call of the protocol */",
            };
            Arc::new(Shape {
                fingerprint: number as u64,
                text: text.into(),
            })
        }))
    }
}

impl OddShapes {
    pub(super) fn of(&self, which: Odd) -> Arc<Shape> {
        self.0[which as usize].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_in_constants_have_one_shape() {
        let mut shapes = Shapes::default();
        let one = shapes.of(b"select 1 from a");
        for text in [
            "select 22 from a",
            "SELECT  3 /* x */ from A",
            "select 1 from a",
        ] {
            assert!(Arc::ptr_eq(&one, &shapes.of(text.as_bytes())), "{text}");
        }
        assert_eq!(&*one.text, "select $1 from a");
        assert_ne!(one.fingerprint, shapes.of(b"select 1 from b").fingerprint);
    }

    #[test]
    fn shapes_that_nobody_holds_are_forgotten_and_those_held_are_not() {
        let mut shapes = Shapes::default();
        let held = shapes.of(b"select held");
        let row = shapes.of(b"select row").text.clone();
        for number in 0..5 * SHAPES {
            shapes.of(format!("select a{number}").as_bytes());
        }
        // Those that are remembered as they came are held as well.
        assert!(shapes.known.len() <= 2 * SHAPES, "{}", shapes.known.len());
        assert!(Arc::ptr_eq(&held, &shapes.of(b"select held")));
        assert!(Arc::ptr_eq(&row, &shapes.of(b"select row").text));
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut shapes = Shapes::default();
        let long = format!("select {}", "ü".repeat(10_000));
        let shape = shapes.of(long.as_bytes());
        assert!(shape.text.len() <= MAX_TEXT && shape.text.ends_with(" …"));
    }
}
