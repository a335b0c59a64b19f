//! Which answer ends which request, and what it took.

use std::sync::Arc;

use pgdog_backend::statements::Shape;

use super::{Answer, Done, Flight, Kind};

/// What became of a client's requests, as `name elapsed rows error`.
#[derive(Default)]
struct Told {
    flight: Flight,
    done: Vec<String>,
}

fn shape(name: &str) -> Arc<Shape> {
    Arc::new(Shape {
        fingerprint: 0,
        text: name.into(),
    })
}

impl Told {
    fn note(&mut self, done: Option<Done>) {
        if let Some(done) = done {
            let code = done.error.map_or("-".to_owned(), |code| {
                String::from_utf8_lossy(&code).into_owned()
            });
            self.done.push(format!(
                "{} {} {} {code}",
                done.shape.text, done.elapsed, done.rows
            ));
        }
    }

    /// Handed over when nothing else was under way, at this time.
    fn first(&mut self, kind: Kind, name: &str, at: u64) {
        let done = self.flight.begins(at, (true, true), || at);
        self.note(done);
        self.flight.ask(kind, shape(name));
    }

    /// Handed over behind others.
    fn then(&mut self, kind: Kind, name: &str) {
        let done = self.flight.begins(0, (false, false), || unreachable!());
        self.note(done);
        self.flight.ask(kind, shape(name));
    }

    fn answer(&mut self, kind: u8, body: &[u8], last: bool, at: u64) {
        let answer = Answer {
            kind,
            body,
            instead: None,
            last,
        };
        let done = self.flight.answer(answer, || at);
        self.note(done);
    }

    fn turn(&mut self, at: u64) {
        let done = self.flight.turn(at);
        self.note(done);
        self.flight.clear();
    }
}

const FAILED: &[u8] = b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0";
const ALL: Kind = Kind::Execute(0);

#[test]
fn a_query_lasts_from_its_request_to_the_turn_behind_its_answer() {
    let mut told = Told::default();
    told.first(Kind::Query, "a", 100);
    told.answer(b'C', b"INSERT 0 3\0", false, 0);
    told.answer(b'C', b"SELECT 4\0", false, 0);
    told.answer(b'Z', b"I", true, 0);
    assert!(told.done.is_empty(), "its end has no time yet");
    told.turn(150);
    assert_eq!(told.done, ["a 50 7 -"]);
}

#[test]
fn a_failed_query_has_its_sqlstate() {
    let mut told = Told::default();
    told.first(Kind::Query, "a", 100);
    told.answer(b'E', FAILED, false, 0);
    told.answer(b'Z', b"I", true, 0);
    told.turn(110);
    assert_eq!(told.done, ["a 10 0 22012"]);
}

#[test]
fn of_several_queries_in_flight_each_begins_where_the_one_before_ended() {
    let mut told = Told::default();
    told.first(Kind::Query, "a", 100);
    told.then(Kind::Query, "b");
    told.then(Kind::Query, "c");
    told.answer(b'Z', b"I", false, 130);
    told.answer(b'Z', b"I", false, 135);
    told.answer(b'Z', b"I", true, 0);
    told.turn(200);
    assert_eq!(told.done, ["a 30 0 -", "b 5 0 -", "c 65 0 -"]);
}

#[test]
fn the_last_execute_of_a_batch_has_the_time_of_its_commit() {
    let mut told = Told::default();
    told.first(Kind::Parse, "a", 100);
    told.then(ALL, "a");
    told.then(ALL, "b");
    told.flight.sync();
    told.then(ALL, "c");
    told.flight.sync();
    told.answer(b'1', b"", false, 0);
    told.answer(b'C', b"UPDATE 2\0", false, 110);
    told.answer(b'C', b"DELETE 1\0", false, 0);
    told.answer(b'Z', b"I", false, 140);
    told.answer(b's', b"", false, 0);
    told.answer(b'Z', b"I", true, 0);
    told.turn(150);
    assert_eq!(told.done, ["a 10 2 -", "b 30 1 -", "c 10 0 -"]);
}

#[test]
fn an_error_skips_the_rest_of_its_batch_and_no_more() {
    let mut told = Told::default();
    told.first(ALL, "a", 100);
    told.then(ALL, "b");
    told.then(ALL, "skipped");
    told.then(Kind::Query, "skipped too");
    told.flight.sync();
    told.then(ALL, "c");
    told.flight.sync();
    told.answer(b'C', b"SELECT 1\0", false, 110);
    told.answer(b'E', FAILED, false, 0);
    told.answer(b'Z', b"I", false, 120);
    told.answer(b'C', b"SELECT 1\0", false, 0);
    told.answer(b'Z', b"I", true, 0);
    told.turn(125);
    assert_eq!(told.done, ["a 10 1 -", "b 10 0 22012", "c 5 1 -"]);
}

#[test]
fn a_statement_that_cannot_be_prepared_has_failed() {
    let mut told = Told::default();
    told.first(Kind::Parse, "good", 100);
    told.flight.sync();
    told.then(Kind::Parse, "bad");
    told.flight.sync();
    told.answer(b'1', b"", false, 0);
    told.answer(b'Z', b"I", false, 110);
    told.answer(b'E', FAILED, false, 0);
    told.answer(b'Z', b"I", true, 0);
    told.turn(120);
    assert_eq!(told.done, ["bad 20 0 22012"]);
}

#[test]
fn an_error_at_the_commit_is_that_of_the_last_execute() {
    let mut told = Told::default();
    told.first(ALL, "a", 100);
    told.flight.sync();
    told.answer(b'C', b"INSERT 0 1\0", false, 0);
    told.answer(b'E', FAILED, false, 0);
    told.answer(b'Z', b"I", true, 0);
    told.turn(120);
    assert_eq!(told.done, ["a 20 1 22012"]);
}

#[test]
fn the_time_that_a_client_thinks_within_a_batch_is_not_counted() {
    let mut told = Told::default();
    told.first(ALL, "a", 100);
    // With Flush instead of Sync.
    told.answer(b's', b"", true, 110);
    let done = told.flight.begins(100, (false, true), || 500);
    told.note(done);
    told.flight.ask(ALL, shape("b"));
    told.answer(b'C', b"SELECT 1\0", true, 520);
    assert_eq!(told.done, ["a 10 0 -", "b 20 1 -"]);
}

#[test]
fn a_portal_that_is_suspended_has_returned_what_was_asked_for() {
    let mut told = Told::default();
    told.first(Kind::Execute(7), "a", 100);
    told.flight.sync();
    told.answer(b's', b"", false, 0);
    told.answer(b'Z', b"T", true, 0);
    told.turn(101);
    assert_eq!(told.done, ["a 1 7 -"]);
}

#[test]
fn syncs_that_a_copy_swallows_leave_later_requests_alone() {
    let mut told = Told::default();
    told.first(ALL, "copy", 100);
    told.flight.sync();
    told.answer(b'G', b"", false, 0);
    // Behind CopyDone.
    told.flight.sync();
    told.answer(b'C', b"COPY 5\0", false, 0);
    told.answer(b'Z', b"I", true, 0);
    let done = told.flight.turn(120);
    told.note(done);
    told.first(Kind::Query, "next", 200);
    told.answer(b'Z', b"I", true, 0);
    told.turn(210);
    assert_eq!(told.done, ["copy 20 5 -", "next 10 0 -"]);
}

#[test]
fn what_is_cut_off_fails_with_the_code_of_the_cut() {
    let mut told = Told::default();
    told.first(Kind::Query, "a", 100);
    told.then(Kind::Query, "never begun");
    let done = told.flight.cut_off(*b"57014", 130);
    told.note(done);
    told.turn(140);
    assert_eq!(told.done, ["a 30 0 57014"]);
}
