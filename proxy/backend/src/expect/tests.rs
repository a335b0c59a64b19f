use pgdog_wire::ErrorResponse;

use super::*;

const ID: StatementId = StatementId::new(7);

fn owed(sent: impl IntoIterator<Item = Expect>) -> Owed {
    let mut owed = Owed::default();
    for expect in sent {
        owed.push(expect);
    }
    owed
}

/// Feeds a run of message types; `Z` is idle. Gives what the client sees, fakes included.
fn client_sees(owed: &mut Owed, answers: &str) -> String {
    let mut seen = String::new();
    owed.due(|k| seen.push(k as char));
    for kind in answers.bytes() {
        match owed.answer(kind, b"I").unwrap() {
            Verdict::Forward => seen.push(kind as char),
            Verdict::Swallow => {}
            Verdict::Instead(_) => seen.push('!'),
        }
        owed.due(|k| seen.push(k as char));
    }
    seen
}

#[test]
fn a_query_is_over_at_ready_for_query() {
    let mut owed = owed([Expect::Query]);
    assert_eq!(client_sees(&mut owed, "TDDCTDC"), "TDDCTDC");
    assert!(!owed.at_rest());
    client_sees(&mut owed, "Z");
    assert!(owed.at_rest());
}

#[test]
fn an_error_skips_to_the_sync_and_forgets_what_was_not_parsed() {
    let mut owed = owed([
        Expect::Parse(Some(ID)),
        Expect::Bind(None),
        Expect::Fake(b'3'),
        Expect::Execute,
        Expect::Sync,
        Expect::Query,
    ]);
    assert_eq!(client_sees(&mut owed, "EZ"), "EZ");
    assert_eq!(owed.lost, [ID]);
    assert_eq!(client_sees(&mut owed, "CZ"), "CZ");
    assert!(owed.at_rest());
}

#[test]
fn an_error_without_a_sync_makes_the_server_ignore_what_follows() {
    let mut owed = owed([Expect::Parse(None)]);
    client_sees(&mut owed, "E");
    assert!(owed.ignoring && !owed.at_rest());
    owed.push_sync();
    assert!(!owed.ignoring);
    client_sees(&mut owed, "Z");
    assert!(owed.at_rest());
}

#[test]
fn fakes_come_in_their_turn() {
    let mut owed = owed([
        Expect::Fake(b'1'),
        Expect::Bind(None),
        Expect::Execute,
        Expect::Fake(b'3'),
        Expect::Fake(b'1'),
        Expect::Bind(None),
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(client_sees(&mut owed, "2DC2CZ"), "12DC312CZ");
}

#[test]
fn what_the_proxy_put_in_is_not_shown() {
    let mut owed = owed([
        Expect::OwnClose(None),
        Expect::OwnParse(Some(ID)),
        Expect::Bind(None),
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(client_sees(&mut owed, "312CZ"), "2CZ");
}

#[test]
fn an_error_of_ours_replaces_the_servers() {
    let mut owed = owed([
        Expect::Instead(Box::new(ErrorResponse::error("42P05", "x"))),
        Expect::Sync,
    ]);
    assert_eq!(client_sees(&mut owed, "EZ"), "!Z");
}

#[test]
fn syncs_before_the_end_of_a_copy_are_ignored_by_the_server() {
    let mut before = owed([
        Expect::Parse(None),
        Expect::Bind(None),
        Expect::Execute,
        Expect::Sync,
    ]);
    before.push_copy_end();
    before.push_sync();
    assert_eq!(client_sees(&mut before, "12GCZ"), "12GCZ");
    assert!(before.at_rest());

    let mut after = owed([Expect::Execute, Expect::Sync]);
    client_sees(&mut after, "G");
    after.push_sync();
    after.push_copy_end();
    after.push_sync();
    assert_eq!(client_sees(&mut after, "CZ"), "CZ");
    assert!(after.at_rest());
}

#[test]
fn a_failed_copy_ignores_its_late_end() {
    let mut owed = owed([Expect::Query]);
    client_sees(&mut owed, "GE");
    owed.push_copy_end();
    client_sees(&mut owed, "Z");
    assert!(owed.at_rest());
}

#[test]
fn answers_to_nothing_are_out_of_sync() {
    for kind in *b"Z1232CnT" {
        assert!(owed([]).answer(kind, b"I").is_err(), "{}", kind as char);
    }
    assert!(owed([Expect::Bind(None)]).answer(b'1', b"").is_err());
}

#[test]
fn a_parse_of_ours_before_a_query_fails_unseen() {
    let mut owed = owed([Expect::OwnParse(Some(ID)), Expect::OwnSync, Expect::Query]);
    assert_eq!(client_sees(&mut owed, "EZEZ"), "EZ");
    assert_eq!(owed.lost, [ID]);
    assert!(owed.at_rest());
}

#[test]
fn a_batch_that_only_prepared_may_be_synced_by_us_and_one_that_ran_or_copies_may_not() {
    let mut prepared = owed([Expect::Parse(None), Expect::Describe(None)]);
    for kind in [b'1', b't', b'n'] {
        assert!(!prepared.prepared_only());
        prepared.answer(kind, b"").unwrap();
    }
    assert!(prepared.prepared_only());
    prepared.push(Expect::OwnSync);
    assert_eq!(prepared.answer(b'Z', b"I"), Ok(Verdict::Swallow));
    assert!(prepared.at_rest() && !prepared.prepared_only());

    let mut ran = owed([Expect::Bind(None)]);
    ran.answer(b'2', b"").unwrap();
    assert!(!ran.prepared_only());

    // The Sync that came before the data is ignored by the server: the batch is still the client's to end.
    let mut copying = owed([Expect::Execute, Expect::Sync]);
    copying.answer(b'G', b"").unwrap();
    copying.push_copy_end();
    copying.answer(b'C', b"COPY 1\0").unwrap();
    assert!(copying.unsynced && !copying.prepared_only());
}

/// What goes to a server to make a statement of SQL within a batch.
fn carried() -> [Expect; 5] {
    [
        Expect::OwnClose(None),
        Expect::OwnParse(None),
        Expect::OwnBind,
        Expect::OwnExecute(Some(ID)),
        Expect::OwnClose(None),
    ]
}

#[test]
fn a_prepare_of_our_own_is_not_for_the_client() {
    let mut owed = owed(carried());
    owed.push(Expect::Bind(Some(ID)));
    assert!(
        !owed.awaits_change(ID),
        "what fails it skips what comes behind"
    );
    owed.push(Expect::Sync);
    assert!(owed.awaits_change(ID));
    assert_eq!(client_sees(&mut owed, "31N2NC3N2NZ"), "N2NZ");
    assert!(owed.at_rest() && owed.lost.is_empty() && !owed.awaits_change(ID));
}

#[test]
fn a_prepare_of_our_own_that_fails_fails_the_batch() {
    let mut owed = owed(carried());
    owed.push(Expect::Bind(Some(ID)));
    owed.push(Expect::Sync);
    assert_eq!(client_sees(&mut owed, "312EZ"), "EZ");
    assert_eq!(owed.lost, [ID]);
    assert!(owed.at_rest() && !owed.awaits_change(ID));
}

#[test]
fn a_prepare_of_our_own_with_a_sync_of_our_own_fails_in_silence() {
    let mut owed = owed(carried());
    owed.push(Expect::OwnSync);
    owed.push(Expect::Query);
    assert_eq!(client_sees(&mut owed, "312EZ"), "");
    assert_eq!(client_sees(&mut owed, "TCZ"), "TCZ");
    assert!(owed.at_rest());
}
