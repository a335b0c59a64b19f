//! Random conversations: through the queue a client must see what the model server would say to the client's own messages,
//! and the queue must not take a server for free that is not.

use std::collections::VecDeque;

use pgdog_wire::ErrorResponse;
use pgdog_wire::backend::TransactionStatus;
use proptest::prelude::*;

use super::model::{Answer, Kind, Model, Sent};
use super::{Expect, Owed, Verdict};
use crate::statements::StatementId;

const ID: StatementId = StatementId::new(7);

/// What the client says, and what the proxy makes of it.
#[derive(Debug, Clone)]
enum Said {
    /// Goes on as it is.
    Plain(Sent),
    /// A Parse of a statement that the server has: it is not sent.
    KnownParse(Kind),
    /// A Close of a stored statement: it is not sent.
    KnownClose,
    /// A Bind whose statement the server does not have: the proxy parses it first, after closing an old one.
    BindAfterParse(Kind),
    /// Fails by the proxy's own will, in its place.
    Blocked,
    /// Not the client: so many messages of the client reach the server, and so many answers come back.
    Pass(usize, usize),
}

/// The proxy between one client and one server, reduced to the queue and what `session` does around it.
struct Between {
    owed: Owed,
    server: Model,
    /// On their way to the server.
    up: VecDeque<Sent>,
    /// On their way back.
    down: VecDeque<Answer>,
    seen: Vec<Answer>,
}

impl Between {
    fn new() -> Self {
        Self {
            owed: Owed::default(),
            server: Model::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            seen: Vec::new(),
        }
    }

    fn say(&mut self, said: &Said) {
        match said {
            Said::Pass(up, down) => {
                self.pass_up(*up);
                self.pass_down(*down);
            }
            Said::Plain(sent) => self.plain(sent),
            _ if self.owed.ignoring => {}
            Said::KnownParse(_) if self.owed.awaits_status() && !self.owed.copy_in => {
                // The proxy waits until all is answered, and looks again.
                self.up.push_back(Sent::Flush);
                self.pass_up(usize::MAX);
                self.pass_down(usize::MAX);
                assert!(
                    self.owed.is_empty() || self.owed.copy_in || self.server.dead(),
                    "a wait without end"
                );
                if !self.server.dead() {
                    return self.say(said);
                }
            }
            Said::KnownParse(kind)
                if self.owed.status == TransactionStatus::Failed && *kind != Kind::Commit =>
            {
                self.send(Sent::Parse(*kind), Expect::Parse(None))
            }
            Said::KnownParse(_) => self.owed.push(Expect::Fake(b'1')),
            Said::KnownClose => self.owed.push(Expect::Fake(b'3')),
            Said::BindAfterParse(kind) => {
                self.send(Sent::Close, Expect::OwnClose(Some(ID)));
                self.send(Sent::Parse(*kind), Expect::OwnParse(Some(ID)));
                self.send(Sent::Bind(*kind), Expect::Bind(Some(ID)));
            }
            Said::Blocked => self.send(
                Sent::Bind(Kind::Fails),
                Expect::Instead(Box::new(ErrorResponse::error("54000", "no"))),
            ),
        }
        self.due();
        self.check_rest();
    }

    fn plain(&mut self, sent: &Sent) {
        match sent {
            Sent::CopyData | Sent::CopyDone | Sent::CopyFail => {
                if self.owed.copy_in || !self.owed.is_empty() {
                    if *sent != Sent::CopyData {
                        self.owed.push_copy_end();
                    }
                    self.up.push_back(sent.clone());
                }
            }
            Sent::Sync => {
                self.owed.push_sync();
                self.up.push_back(Sent::Sync);
            }
            _ if self.owed.ignoring => {}
            Sent::Flush => self.up.push_back(Sent::Flush),
            Sent::Query(_) | Sent::FunctionCall(_) => self.send(sent.clone(), Expect::Query),
            Sent::Parse(_) => self.send(sent.clone(), Expect::Parse(Some(ID))),
            Sent::Bind(_) => self.send(sent.clone(), Expect::Bind(None)),
            Sent::Describe(_) => self.send(sent.clone(), Expect::Describe(None)),
            Sent::Execute(_) => self.send(sent.clone(), Expect::Execute),
            Sent::Close => self.send(sent.clone(), Expect::Close),
        }
    }

    fn send(&mut self, sent: Sent, expect: Expect) {
        self.owed.push(expect);
        self.up.push_back(sent);
    }

    fn pass_up(&mut self, count: usize) {
        for _ in 0..count {
            let Some(sent) = self.up.pop_front() else {
                return;
            };
            self.down.extend(self.server.take(&sent));
        }
    }

    fn pass_down(&mut self, count: usize) {
        for _ in 0..count {
            let Some((kind, status)) = self.down.pop_front() else {
                return;
            };
            match self
                .owed
                .answer(kind, &[status])
                .expect("the model says nothing that was not asked for")
            {
                Verdict::Forward => self.seen.push((kind, status)),
                Verdict::Swallow => {}
                Verdict::Instead(_) => self.seen.push((b'E', 0)),
            }
            self.due();
            self.check_rest();
        }
    }

    fn due(&mut self) {
        let seen = &mut self.seen;
        self.owed.due(|kind| seen.push((kind, 0)));
    }

    /// What rests must rest, and have nothing more to say, whatever is still on its way.
    fn check_rest(&self) {
        if self.owed.at_rest() {
            let mut later = self.server.clone();
            let coming: Vec<_> = self.up.iter().flat_map(|sent| later.take(sent)).collect();
            assert!(
                later.dead() || later.at_rest() && coming.is_empty() && self.down.is_empty(),
                "taken for free: {later:?}, coming {coming:?} {:?}",
                self.down
            );
        }
    }
}

/// What the server would say to the client's own messages. What the client says after it has broken the protocol is taken
/// out, and so is what only the server could tell to break it.
fn directly(conversation: &mut Vec<Said>) -> (Model, Vec<Answer>) {
    let mut server = Model::new();
    let mut seen = Vec::new();
    conversation.retain(|said| {
        let sent = match said {
            Said::Pass(..) => return true,
            _ if server.dead() => return false,
            Said::Plain(sent) => sent.clone(),
            Said::KnownParse(kind) => Sent::Parse(*kind),
            Said::KnownClose => Sent::Close,
            Said::BindAfterParse(kind) => Sent::Bind(*kind),
            Said::Blocked => Sent::Bind(Kind::Fails),
        };
        let mut after = server.clone();
        let answers = after.take(&sent);
        if after.dead() && matches!(said, Said::KnownParse(_) | Said::KnownClose) {
            return false;
        }
        server = after;
        seen.extend(answers);
        true
    });
    (server, seen)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Rows),
        2 => Just(Kind::NoRows),
        1 => Just(Kind::Empty),
        2 => Just(Kind::Begin),
        2 => Just(Kind::Commit),
        2 => Just(Kind::CopyIn),
        1 => Just(Kind::CopyOut),
        2 => Just(Kind::Fails),
        1 => Just(Kind::Chatty),
    ]
}

/// A statement that the server has was parsed once, so it parses again outside of a failed transaction.
fn sound() -> impl Strategy<Value = Kind> {
    kind().prop_filter("it would not parse", |k| *k != Kind::Fails)
}

fn said() -> impl Strategy<Value = Said> {
    use Said::Plain;
    prop_oneof![
        3 => prop::collection::vec(kind(), 0..4).prop_map(|k| Plain(Sent::Query(if k.is_empty() { vec![Kind::Empty] } else { k }))),
        1 => any::<bool>().prop_map(|ok| Plain(Sent::FunctionCall(ok))),
        3 => kind().prop_map(|k| Plain(Sent::Parse(k))),
        3 => kind().prop_map(|k| Plain(Sent::Bind(k))),
        2 => kind().prop_map(|k| Plain(Sent::Describe(k))),
        4 => prop_oneof![4 => kind(), 1 => Just(Kind::Suspended)].prop_map(|k| Plain(Sent::Execute(k))),
        1 => Just(Plain(Sent::Close)),
        5 => Just(Plain(Sent::Sync)),
        1 => Just(Plain(Sent::Flush)),
        2 => Just(Plain(Sent::CopyData)),
        2 => Just(Plain(Sent::CopyDone)),
        1 => Just(Plain(Sent::CopyFail)),
        2 => sound().prop_map(Said::KnownParse),
        1 => Just(Said::KnownClose),
        2 => sound().prop_map(Said::BindAfterParse),
        1 => Just(Said::Blocked),
        8 => (0..4usize, 0..6usize).prop_map(|(up, down)| Said::Pass(up, down)),
        3 => Just(Said::Pass(usize::MAX, usize::MAX)),
    ]
}

/// Ends whatever is going on, as a client would that wants to be idle again.
const EPILOGUE: [Sent; 6] = [
    Sent::CopyFail,
    Sent::Sync,
    Sent::CopyFail,
    Sent::Sync,
    Sent::Query(Vec::new()),
    Sent::Sync,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_sees_what_the_server_would_say_to_it_alone(mut conversation in prop::collection::vec(said(), 0..40)) {
        for sent in EPILOGUE {
            conversation.push(Said::Plain(sent));
            conversation.push(Said::Pass(usize::MAX, usize::MAX));
        }
        let (server, expected) = directly(&mut conversation);
        let mut between = Between::new();
        for said in &conversation {
            between.say(said);
        }
        prop_assert_eq!(text(&between.seen), text(&expected));
        prop_assert_eq!(between.server.dead(), server.dead());
        if !server.dead() {
            prop_assert_eq!(between.owed.at_rest(), server.at_rest());
            prop_assert!(between.owed.settled());
        }
    }

    #[test]
    fn no_bytes_of_a_server_panic_the_queue(
        sent in prop::collection::vec(said(), 0..12),
        answers in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..3)), 0..40),
    ) {
        let mut between = Between::new();
        for said in &sent {
            if !matches!(said, Said::Pass(..)) {
                between.say(said);
            }
        }
        for (kind, body) in answers {
            let _ = between.owed.answer(kind, &body);
            between.owed.due(|_| {});
        }
    }
}

fn text(answers: &[Answer]) -> String {
    answers
        .iter()
        .map(|(kind, status)| {
            if *kind == b'Z' {
                format!("Z{} ", *status as char)
            } else {
                (*kind as char).to_string()
            }
        })
        .collect()
}
