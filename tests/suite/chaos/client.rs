//! One thread's clients, one life after another.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use pgdog_tests::{Frame, Message, RawClient, Received};

use super::World;
use super::acts;
use crate::dice::Dice;

/// An answer that takes longer will never come: longer than any timeout of the proxy together with a restart of Postgres.
const PATIENCE: Duration = Duration::from_secs(45);
/// What may end a session that did nothing wrong: servers die, and time runs out.
const FATE: [&str; 10] = [
    "57P01", "57P02", "57P03", "57P05", "08006", "08001", "08004", "53300", "25P03", "58000",
];

/// The session has ended, for a reason that chaos accounts for.
#[derive(Debug)]
pub(super) struct Gone;

/// A session that knows who it is.
pub(super) struct Client {
    pub(super) raw: RawClient,
    /// Nobody else's.
    pub(super) name: String,
    steps: u64,
    /// The value of its setting.
    pub(super) setting: Option<String>,
    /// Statements that it has prepared under the names that all use.
    pub(super) prepared: Vec<bool>,
    pub(super) world: std::sync::Arc<World>,
}

impl Client {
    /// A text that nobody else has ever had.
    pub(super) fn token(&mut self) -> String {
        self.steps += 1;
        format!("{}/{}", self.name, self.steps)
    }

    /// The next message; an error that ends the session, or that fate accounts for, is the end.
    pub(super) fn frame(&mut self) -> Result<Frame, Gone> {
        match self.raw.receive(PATIENCE) {
            Received::Frame(frame) if frame.tag == b'E' => self.error(frame),
            Received::Frame(frame) => Ok(frame),
            Received::Eof => Err(Gone),
            Received::Silence => panic!("{}: no answer for {PATIENCE:?}", self.name),
        }
    }

    fn error(&self, frame: Frame) -> Result<Frame, Gone> {
        let code = frame.field(b'C').unwrap_or_default();
        if FATE.contains(&&*code) {
            return Err(Gone);
        }
        let fatal = frame
            .field(b'V')
            .is_some_and(|severity| severity != "ERROR");
        assert!(!fatal, "{}: ended by {}", self.name, frame.line());
        Ok(frame)
    }

    /// Messages up to the given number of ReadyForQuery.
    pub(super) fn answer(&mut self, readies: usize) -> Result<Vec<Frame>, Gone> {
        let mut frames = Vec::new();
        let mut left = readies;
        while left > 0 {
            let frame = self.frame()?;
            left -= usize::from(frame.tag == b'Z');
            frames.push(frame);
        }
        self.world.answers.fetch_add(1, Ordering::Relaxed);
        Ok(frames)
    }

    pub(super) fn ask(&mut self, messages: &[Message]) -> Result<Vec<Frame>, Gone> {
        self.raw.send(messages);
        self.answer(messages.iter().filter(|m| m.asks_ready()).count())
    }

    /// A query that must succeed and give these values in its first column.
    pub(super) fn expect(&mut self, sql: &str, values: &[&str]) -> Result<(), Gone> {
        let frames = self.ask(&[Message::query(sql)])?;
        self.check(sql, &frames, values);
        Ok(())
    }

    /// Nothing failed, and the first columns of all rows are these.
    pub(super) fn check(&self, what: &str, frames: &[Frame], values: &[&str]) {
        let failed = frames.iter().find(|f| f.tag == b'E').map(Frame::line);
        assert!(failed.is_none(), "{}: {what}: {failed:?}", self.name);
        assert_eq!(firsts(frames), values, "{}: {what}", self.name);
    }
}

/// The first columns of all rows, as text.
pub(super) fn firsts(frames: &[Frame]) -> Vec<String> {
    let first = |f: &Frame| f.columns().into_iter().next().flatten().unwrap_or_default();
    frames
        .iter()
        .filter(|f| f.tag == b'D')
        .map(|f| String::from_utf8_lossy(&first(f)).into_owned())
        .collect()
}

/// The SQLSTATE of the first error.
pub(super) fn failure(frames: &[Frame]) -> Option<String> {
    frames
        .iter()
        .find(|f| f.tag == b'E')
        .and_then(|f| f.field(b'C'))
}

/// Lives until time is up.
pub(super) fn run(world: &std::sync::Arc<World>, index: u64, dice: &mut Dice) {
    while !world.over() {
        let life = world.lives.fetch_add(1, Ordering::Relaxed);
        match RawClient::try_login(world.port, "pgdog", "postgres") {
            Ok(raw) => {
                let name = format!("c{index}-{life}");
                let client = Client {
                    raw,
                    name,
                    steps: 0,
                    setting: None,
                    prepared: vec![false; 3],
                    world: world.clone(),
                };
                let _: Result<(), Gone> = live(client, dice);
            }
            Err(refused) => {
                let fate = FATE.iter().any(|code| refused.contains(code));
                assert!(fate, "login refused: {refused}");
                sleep(Duration::from_millis(50));
            }
        }
    }
}

fn live(mut client: Client, dice: &mut Dice) -> Result<(), Gone> {
    for _ in 0..dice.below(40) {
        if client.world.over() {
            break;
        }
        acts::act(&mut client, dice)?;
    }
    acts::leave(client, dice)
}
