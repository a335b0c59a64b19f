//! A text's tokens as a fingerprint sees them: constants are all alike, and lists of one kind are cut.

use crate::lexer::{Lexer, Token, skip_blank};

/// What a part of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted word.
    Word,
    /// A quoted identifier.
    Quoted,
    /// A parameter, `$1`.
    Parameter,
    /// A number or a string, its sign included.
    Constant,
    /// Any other byte.
    Symbol(u8),
    /// Stands for the further elements of a list, all like its first one.
    More,
}

/// A part of a text and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Item {
    /// Its bytes.
    #[inline]
    pub(super) fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.end]
    }

    fn is(&self, text: &[u8], keyword: &str) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// Lists within lists that are cut. What is nested deeper is taken as it is, so that each byte is looked at this often at most.
const NESTED: usize = 8;

/// The items of a text. Semicolons at its ends are left out.
#[derive(Debug)]
pub(super) struct Items<'a> {
    atoms: Atoms<'a>,
    /// Read ahead.
    next: Option<Item>,
    before: Option<Item>,
    /// Brackets that are open.
    depth: u32,
    lists: [List; NESTED],
    open: usize,
}

/// A list that is open.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    shape: Shape,
    /// Open brackets where its commas stand.
    depth: u32,
    /// Its first element; the end is known from the first comma on.
    first: usize,
    end: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Shape {
    /// `IN (…)` and `ARRAY[…]`: the commas stand inside the brackets.
    #[default]
    Bracketed,
    /// `VALUES (…), (…)`: they stand between them.
    Rows,
}

impl<'a> Items<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            atoms: Atoms::new(text, 0),
            next: None,
            before: None,
            depth: 0,
            lists: [List::default(); NESTED],
            open: 0,
        }
    }

    fn list(&mut self) -> Option<&mut List> {
        let depth = self.depth;
        let list = self.lists.get_mut(self.open.checked_sub(1)?)?;
        (list.depth == depth).then_some(list)
    }

    /// Opens a list where this bracket begins one.
    fn opens(&mut self, bracket: Item) {
        let text = self.atoms.lexer.text();
        let Some(before) = self.before else { return };
        let (shape, depth, first) = match bracket.kind {
            Kind::Symbol(b'(') if before.is(text, "in") => {
                (Shape::Bracketed, self.depth + 1, bracket.end)
            }
            Kind::Symbol(b'[') if before.is(text, "array") => {
                (Shape::Bracketed, self.depth + 1, bracket.end)
            }
            Kind::Symbol(b'(') if before.is(text, "values") => {
                (Shape::Rows, self.depth, bracket.start)
            }
            _ => return,
        };
        if let Some(list) = self.lists.get_mut(self.open) {
            *list = List {
                shape,
                depth,
                first,
                end: None,
            };
            self.open += 1;
        }
    }

    /// Skips all elements behind this comma that are like the first one; says whether there are any.
    fn skips(&mut self, comma: Item) -> bool {
        let text = self.atoms.lexer.text();
        let Some(list) = self.list() else {
            return false;
        };
        let (shape, first) = (list.shape, list.first);
        let end = *list.end.get_or_insert(comma.start);
        let mut skipped = false;
        let mut element = self.atoms.clone();
        while let Some(after) = same(text, first..end, element.clone(), shape) {
            self.atoms = after.clone();
            skipped = true;
            element = after;
            if element.next().map(|item| item.kind) != Some(Kind::Symbol(b',')) {
                break;
            }
        }
        skipped
    }

    /// Brackets and the ends of lists.
    fn counts(&mut self, item: Item) {
        let between_rows = !matches!(item.kind, Kind::Symbol(b',' | b'('));
        if between_rows && self.list().is_some_and(|list| list.shape == Shape::Rows) {
            self.open -= 1;
        }
        match item.kind {
            Kind::Symbol(b'(' | b'[') => {
                self.opens(item);
                self.depth += 1;
            }
            Kind::Symbol(b')' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                while self.open > 0 && self.lists[self.open - 1].depth > self.depth {
                    self.open -= 1;
                }
            }
            _ => {}
        }
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    #[inline]
    fn next(&mut self) -> Option<Item> {
        loop {
            let item = self.next.take().or_else(|| self.atoms.next())?;
            match item.kind {
                Kind::Symbol(b';') => {
                    self.next = self.atoms.find(|item| item.kind != Kind::Symbol(b';'));
                    if self.before.is_none() || self.next.is_none() {
                        continue;
                    }
                    (self.depth, self.open) = (0, 0);
                }
                Kind::Symbol(b',') if self.open > 0 && self.skips(item) => {
                    return Some(Item {
                        kind: Kind::More,
                        start: item.start,
                        end: self.atoms.lexer.position(),
                    });
                }
                Kind::Symbol(_) => self.counts(item),
                _ if self.open > 0 => self.counts(item),
                _ => {}
            }
            self.before = Some(item);
            return Some(item);
        }
    }
}

/// What follows the element, when it is like the first one and the list goes on or ends behind it.
fn same<'a>(
    text: &'a [u8],
    first: std::ops::Range<usize>,
    mut element: Atoms<'a>,
    shape: Shape,
) -> Option<Atoms<'a>> {
    for wanted in Atoms::new(&text[..first.end], first.start) {
        let found = element.next()?;
        let alike = wanted.kind == found.kind
            && match wanted.kind {
                Kind::Word => wanted.of(text).eq_ignore_ascii_case(found.of(text)),
                Kind::Quoted => wanted.of(text) == found.of(text),
                _ => true,
            };
        if !alike {
            return None;
        }
    }
    let ends = shape == Shape::Rows
        || matches!(
            element.clone().next()?.kind,
            Kind::Symbol(b',' | b')' | b']')
        );
    ends.then_some(element)
}

/// The tokens of a text, where a constant is one of them whatever it is made of.
#[derive(Debug, Clone)]
struct Atoms<'a> {
    lexer: Lexer<'a>,
    /// What stood before, for the sign of a number.
    before: Before<'a>,
}

/// Whether a minus is a sign or an operator.
#[derive(Debug, Clone, Copy)]
enum Before<'a> {
    /// It is a sign.
    Nothing,
    /// An operator.
    Value,
    /// It depends on the word.
    Word(&'a [u8]),
}

impl<'a> Atoms<'a> {
    fn new(text: &'a [u8], at: usize) -> Self {
        Self {
            lexer: Lexer::starting(text, at),
            before: Before::Nothing,
        }
    }

    /// The number behind a minus, when both are one constant: `-1`, but neither `a - 1` nor the `-(1::int)` of `-1::int`.
    fn signed(&mut self) -> bool {
        let mut ahead = self.lexer.clone();
        let sign = match self.before {
            Before::Nothing => true,
            Before::Value => false,
            Before::Word(word) => expects_value(word),
        };
        if !sign || !matches!(ahead.next(), Some(Token::Number(_))) {
            return false;
        }
        let mut behind = ahead.clone();
        if behind.next() == Some(Token::Symbol(b':')) && behind.next() == Some(Token::Symbol(b':'))
        {
            return false;
        }
        self.lexer = ahead;
        true
    }

    /// Strings on several lines are one: nothing else puts two beside each other.
    fn joined(&mut self) {
        let text = self.lexer.text();
        while text.get(skip_blank(text, self.lexer.position())) == Some(&b'\'') {
            self.lexer.next();
        }
    }
}

impl Iterator for Atoms<'_> {
    type Item = Item;

    #[inline]
    fn next(&mut self) -> Option<Item> {
        let searched = self.lexer.position();
        let token = self.lexer.next()?;
        let mut start = self.lexer.position();
        let (kind, before) = match token {
            Token::Word(word) => {
                start -= word.len();
                (Kind::Word, Before::Word(word))
            }
            Token::Quoted(_) => {
                // The token lacks the `U&` that may stand before the quote.
                start = skip_blank(self.lexer.text(), searched);
                (Kind::Quoted, Before::Value)
            }
            Token::Parameter(name) => {
                start -= name.len();
                (Kind::Parameter, Before::Value)
            }
            Token::Number(digits) => {
                start -= digits.len();
                (Kind::Constant, Before::Value)
            }
            Token::Literal(literal) => {
                start -= literal.len();
                self.joined();
                (Kind::Constant, Before::Value)
            }
            Token::Symbol(symbol) => {
                start -= 1;
                if symbol == b'-' && self.signed() {
                    (Kind::Constant, Before::Value)
                } else if matches!(symbol, b')' | b']') {
                    (Kind::Symbol(symbol), Before::Value)
                } else {
                    (Kind::Symbol(symbol), Before::Nothing)
                }
            }
        };
        self.before = before;
        Some(Item {
            kind,
            start,
            end: self.lexer.position(),
        })
    }
}

/// Keywords that no value ends with: what follows is one.
fn expects_value(word: &[u8]) -> bool {
    const KEYWORDS: [&str; 30] = [
        "all",
        "and",
        "any",
        "as",
        "between",
        "by",
        "case",
        "default",
        "distinct",
        "else",
        "from",
        "having",
        "ilike",
        "in",
        "is",
        "like",
        "limit",
        "not",
        "offset",
        "on",
        "or",
        "return",
        "returning",
        "select",
        "set",
        "similar",
        "some",
        "then",
        "to",
        "when",
    ];
    const MORE: [&str; 5] = ["where", "fetch", "using", "values", "start"];
    KEYWORDS
        .iter()
        .chain(&MORE)
        .any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}
