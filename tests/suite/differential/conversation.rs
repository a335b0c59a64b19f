//! Holds the conversation of a script with a server and writes down what the server says.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use pgdog_tests::message::encode_all;
use pgdog_tests::{Frame, Message, RawClient, Received, wait};

use super::place::Place;
use super::script::{Action, Reading, Script, Step};
use super::stranger::Stranger;

/// How long Postgres may think before its first word, where only silence says that it is done.
const FIRST_WORD: Duration = Duration::from_millis(400);
/// How long Postgres may think between words.
const NEXT_WORD: Duration = Duration::from_millis(150);
/// How long the proxy may take for what Postgres is known to say.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was said in answer to one line of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) lines: Vec<String>,
    /// How many messages came; a line that ends in silence is read up to this count elsewhere.
    messages: usize,
}

/// How Postgres ended its answer to a line that is read until silence.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// It said so many things, then nothing.
    Messages(usize),
    /// It hung up.
    Close,
}

/// A client and where it stands in the protocol.
struct Client {
    raw: RawClient,
    /// ReadyForQuery still owed by the server.
    owed: usize,
    /// The server waits for COPY data.
    copying: bool,
    /// Extended messages were sent with no Sync behind them.
    unsynced: bool,
    status: char,
    gone: bool,
}

impl Client {
    fn is_idle(&self) -> bool {
        self.gone || (self.owed == 0 && !self.copying && !self.unsynced && self.status == 'I')
    }

    fn has_sent(&mut self, messages: &[Message]) {
        for message in messages {
            match message {
                Message::CopyDone | Message::CopyFail(_) => self.copying = false,
                _ if message.asks_ready() => {
                    self.owed += 1;
                    self.unsynced = false;
                }
                Message::Terminate => self.owed = 0,
                _ => self.unsynced = true,
            }
        }
    }
}

/// Holds the whole conversation; `oracle` has Postgres' own answers when it is not Postgres that is asked.
pub(super) fn hold(
    script: &Script,
    place: Place<'_>,
    stranger: Option<&mut Stranger>,
    oracle: Option<&[Answer]>,
) -> Vec<Answer> {
    let mut conversation = Conversation {
        script,
        place,
        clients: BTreeMap::new(),
        stranger,
        lost: false,
    };
    let mut answers = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        let expected =
            oracle
                .and_then(|answers| answers.get(index))
                .map(|answer| match answer.lines.last() {
                    Some(line) if line == CLOSED => Expected::Close,
                    _ => Expected::Messages(answer.messages),
                });
        answers.push(conversation.step(step, expected));
        if conversation.lost {
            break;
        }
    }
    answers
}

struct Conversation<'a> {
    script: &'a Script,
    place: Place<'a>,
    clients: BTreeMap<String, Client>,
    stranger: Option<&'a mut Stranger>,
    /// An answer did not come: what follows would only be confusion.
    lost: bool,
}

impl Conversation<'_> {
    fn step(&mut self, step: &Step, expected: Option<Expected>) -> Answer {
        let mut answer = Answer::default();
        let stirs = matches!(step.action, Action::Send { .. })
            && !self.clients.is_empty()
            && self.clients.values().all(Client::is_idle);
        if stirs
            && let Some(stranger) = self.stranger.as_mut()
            && let Err(problem) = stranger.before_step()
        {
            answer.lines.push(format!("(stranger: {problem})"));
        }
        self.act(step, expected, &mut answer);
        if stirs
            && let Some(stranger) = self.stranger.as_mut()
            && let Err(problem) = stranger.after_step()
        {
            answer.lines.push(format!("(stranger: {problem})"));
        }
        answer
    }

    fn act(&mut self, step: &Step, expected: Option<Expected>, answer: &mut Answer) {
        let postgres = self.place.postgres;
        match &step.action {
            Action::Send {
                messages,
                pieces,
                reading,
            } => {
                if !self.clients.contains_key(&step.client)
                    && !self.log_in(&step.client, &[], false, answer)
                {
                    return;
                }
                self.send(&step.client, messages, *pieces);
                self.read_answers(&step.client, messages, *reading, expected, answer);
                if messages
                    .iter()
                    .any(|message| matches!(message, Message::Startup { .. }))
                {
                    sort_parameters(&mut answer.lines);
                }
            }
            Action::Open => match RawClient::open(self.place.port) {
                Ok(raw) => self.add(&step.client, raw, true),
                Err(e) => answer.lines.push(format!("(cannot connect: {e})")),
            },
            Action::Connect(parameters) => {
                self.log_in(&step.client, parameters, true, answer);
            }
            Action::Close => drop(self.clients.remove(&step.client)),
            Action::Wait(count) => {
                for _ in 0..*count {
                    if !self.read_one(&step.client, PATIENCE, answer) {
                        break;
                    }
                }
            }
            Action::Eof => while self.read_one(&step.client, PATIENCE, answer) {},
            Action::Sleep(milliseconds) => sleep(Duration::from_millis(*milliseconds)),
            Action::Run(sql) => postgres.run(self.place.behind, sql),
            Action::Check(sql) => {
                let rows = postgres.client(self.place.behind).query_rows(sql);
                answer
                    .lines
                    .extend(rows.iter().map(|row| format!("= {}", row.join(", "))));
            }
            Action::Until(sql) => {
                let mut client = postgres.client(self.place.behind);
                if !wait::until(PATIENCE, || client.query_value(sql) == "t") {
                    answer.lines.push("(it does not become true)".to_owned());
                }
            }
        }
    }

    fn add(&mut self, name: &str, raw: RawClient, unsynced: bool) {
        let client = Client {
            raw,
            owed: 0,
            copying: false,
            unsynced,
            status: 'I',
            gone: false,
        };
        self.clients.insert(name.to_owned(), client);
    }

    /// Logs a client in; a refusal is part of the transcript, a good login only when it is `compared`.
    fn log_in(
        &mut self,
        name: &str,
        parameters: &[(String, String)],
        compared: bool,
        answer: &mut Answer,
    ) -> bool {
        let mut all = vec![
            ("user", self.script.user.as_str()),
            ("database", self.place.database),
        ];
        for (key, value) in self.script.startup.iter().chain(parameters) {
            all.retain(|(other, _)| *other != "user" || key != "user");
            all.push((key, value));
        }
        match RawClient::login_with(self.place.port, &all) {
            Ok((raw, received)) => {
                let refused = received.last().is_none_or(|frame| frame.tag != b'Z');
                self.add(name, raw, false);
                if compared || refused {
                    answer.lines.extend(received.iter().map(Frame::line));
                    sort_parameters(&mut answer.lines);
                }
                if refused {
                    answer.lines.push("(login refused)".to_owned());
                    self.lost = true;
                }
                !refused
            }
            Err(problem) => {
                answer.lines.push(format!("(cannot connect: {problem})"));
                self.lost = true;
                false
            }
        }
    }

    fn send(&mut self, name: &str, messages: &[Message], pieces: Option<usize>) {
        let Some(client) = self.clients.get_mut(name) else {
            return;
        };
        client.has_sent(messages);
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| self.place.fill_in(message))
            .collect();
        match pieces {
            Some(size) => client.raw.send_pieces(&encode_all(&messages), size),
            None => client.raw.send(&messages),
        }
    }

    /// Reads what the line asked for.
    fn read_answers(
        &mut self,
        name: &str,
        messages: &[Message],
        reading: Reading,
        expected: Option<Expected>,
        answer: &mut Answer,
    ) {
        if messages
            .iter()
            .any(|message| matches!(message, Message::Terminate))
        {
            while self.read_one(name, PATIENCE, answer) {}
            return;
        }
        let Some(client) = self.clients.get_mut(name) else {
            return;
        };
        for message in messages {
            if matches!(message, Message::SslRequest | Message::GssRequest) {
                let byte = client.raw.receive_byte(PATIENCE);
                answer
                    .lines
                    .push(byte.map_or("(no byte)".to_owned(), |byte| {
                        format!("byte {:?}", char::from(byte))
                    }));
            }
        }
        let flushes = messages
            .iter()
            .any(|message| matches!(message, Message::Flush));
        let data_follows = messages
            .iter()
            .any(|message| matches!(message, Message::CopyDone | Message::CopyFail(_)));
        match reading {
            Reading::Nothing => {}
            Reading::UntilSilence => {
                self.read_until_silence(name, expected, data_follows, answer);
                self.settle(name, messages);
            }
            Reading::Answers if client.copying => {}
            Reading::Answers if client.owed > 0 => self.read_owed(name, data_follows, answer),
            Reading::Answers if flushes => {
                self.read_until_silence(name, expected, data_follows, answer);
                self.settle(name, messages);
            }
            Reading::Answers => {}
        }
    }

    fn read_owed(&mut self, name: &str, data_follows: bool, answer: &mut Answer) {
        while let Some(client) = self.clients.get(name)
            && client.owed > 0
            && (!client.copying || data_follows)
        {
            if !self.read_one(name, PATIENCE, answer) {
                return;
            }
        }
    }

    /// Postgres is read until it is silent, whoever else until it has said as much.
    fn read_until_silence(
        &mut self,
        name: &str,
        expected: Option<Expected>,
        data_follows: bool,
        answer: &mut Answer,
    ) {
        let start = answer.messages;
        loop {
            let said = answer.messages - start;
            let limit = match expected {
                Some(Expected::Messages(count)) if said >= count => break,
                Some(_) => PATIENCE,
                None if said == 0 => FIRST_WORD,
                None => NEXT_WORD,
            };
            let before = answer.lines.len();
            if !self.read_one(name, limit, answer) {
                if expected.is_none() && answer.lines.last().is_some_and(|line| line == SILENCE) {
                    answer.lines.truncate(before);
                    self.lost = false;
                }
                break;
            }
            if !data_follows && self.clients.get(name).is_some_and(|client| client.copying) {
                break;
            }
        }
    }

    /// After silence nothing is owed, unless a COPY of a simple query waits for data. (A Sync behind the Execute of
    /// a COPY is never answered.)
    fn settle(&mut self, name: &str, messages: &[Message]) {
        if let Some(client) = self.clients.get_mut(name) {
            let syncs = messages
                .iter()
                .filter(|message| matches!(message, Message::Sync))
                .count();
            client.owed = if client.copying {
                client.owed.saturating_sub(syncs)
            } else {
                0
            };
        }
    }

    /// Reads one message; false when none came.
    fn read_one(&mut self, name: &str, limit: Duration, answer: &mut Answer) -> bool {
        let Some(client) = self.clients.get_mut(name) else {
            answer.lines.push("(no such client)".to_owned());
            return false;
        };
        match client.raw.receive(limit) {
            Received::Frame(frame) => {
                match frame.tag {
                    b'Z' => {
                        client.owed = client.owed.saturating_sub(1);
                        client.status = frame.status().unwrap_or('?');
                        client.copying = false;
                    }
                    b'G' | b'W' => client.copying = true,
                    b'C' | b'E' => client.copying = false,
                    _ => {}
                }
                answer.messages += 1;
                answer.lines.push(self.place.clear(frame.line()));
                true
            }
            Received::Eof => {
                client.gone = true;
                client.owed = 0;
                answer.messages += 1;
                answer.lines.push(CLOSED.to_owned());
                false
            }
            Received::Silence => {
                self.lost = true;
                answer.lines.push(SILENCE.to_owned());
                false
            }
        }
    }
}

/// The order in which a login reports parameters means nothing.
fn sort_parameters(lines: &mut [String]) {
    let is_parameter = |line: &String| line.starts_with("S ");
    if let Some(first) = lines.iter().position(is_parameter) {
        let count = lines[first..]
            .iter()
            .take_while(|line| is_parameter(line))
            .count();
        lines[first..first + count].sort();
    }
}

/// Stands where an answer is missing.
pub(super) const SILENCE: &str = "(silence)";

const CLOSED: &str = "(closed)";
