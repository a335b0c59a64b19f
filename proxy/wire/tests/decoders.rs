//! Every decoder against arbitrary bytes, and against messages that were built, cut short and tampered with:
//! none panics, none reads past its input, and what is built reads back.

use pgdog_wire::backend::{self, Authentication, TransactionStatus};
use pgdog_wire::buffer::Buffer;
use pgdog_wire::frame::{self, Header};
use pgdog_wire::frontend::{self, BindNames, Parse, Target};
use pgdog_wire::scram::client::{ClientBinding, Exchange};
use pgdog_wire::startup::{self, CancelKey, FirstPacket};
use pgdog_wire::{ErrorResponse, error};
use proptest::prelude::*;

const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        // Small numbers, NULs and letters get further than noise does.
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(4), Just(255), b'A'..=b'Z'],
            0..60
        ),
    ]
}

/// Text without NULs.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255u8, 0..40)
}

/// Everything that looks at a body.
fn read_all(body: &[u8]) {
    let _ = Parse::read(body);
    if let Some(names) = BindNames::read(body) {
        assert!(names.len <= body.len());
    }
    let _ = Target::read(body);
    let _ = frontend::query_text(body);
    let _ = frontend::read_sasl_initial(body);
    let _ = TransactionStatus::read(body);
    if let Some(Authentication::Sasl(list)) = Authentication::read(body) {
        assert!(backend::mechanisms(list).count() <= list.len());
    }
    let _ = backend::read_parameter_status(body);
    let _ = backend::read_key_data(body);
    // A column takes four bytes at least: a count alone makes no memory.
    assert!(backend::read_row(body).len() <= body.len() / 4);
    let _ = ErrorResponse::read(body);
    let _ = (error::field(body, b'C'), error::field(body, 0));
    let _ = frame::cstr(body);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bodies_are_read_or_refused(body in bytes()) {
        read_all(&body);
    }

    #[test]
    fn arbitrary_streams_split_into_frames_within_them(stream in bytes()) {
        let mut rest = &stream[..];
        while let Ok(Some((message, len))) = frame::split(rest) {
            prop_assert_eq!(message.body.len() + frame::HEADER, len);
            read_all(message.body);
            rest = &rest[len..];
        }
        match Header::peek(rest) {
            Ok(None) => prop_assert!(rest.len() < frame::HEADER),
            Ok(Some(header)) => prop_assert!(header.len > rest.len()),
            Err(_) => {}
        }
    }

    #[test]
    fn first_packets_are_read_or_refused(
        packet in bytes(),
        version in prop_oneof![Just(startup::VERSION_3_0), Just(startup::VERSION_3_2), Just(CANCEL_REQUEST), any::<u32>()],
    ) {
        let _ = startup::read(&packet);
        let mut versioned = vec![0; 4];
        versioned.extend(version.to_be_bytes());
        versioned.extend(&packet);
        match startup::read(&versioned) {
            Ok(FirstPacket::Startup(startup)) => prop_assert!(!startup.user.is_empty() && !startup.database.is_empty()),
            Ok(FirstPacket::Cancel(key)) => prop_assert!((1..=256).contains(&key.secret.len())),
            _ => {}
        }
    }

    #[test]
    fn only_lengths_of_a_first_packet_are_taken(word in any::<[u8; 4]>()) {
        if let Ok(len) = startup::packet_len(word) {
            prop_assert!((8..=startup::MAX_PACKET).contains(&len));
        }
    }

    #[test]
    fn startup_packets_read_back(user in "[a-z]{1,9}", database in "[a-z]{1,9}", value in "[^\\x00]{0,20}") {
        let mut out = Vec::new();
        startup::write_startup(&mut out, [("user", &user[..]), ("database", &database), ("application_name", &value)]);
        let Ok(FirstPacket::Startup(read)) = startup::read(&out) else { return Err(TestCaseError::fail("not read")) };
        prop_assert_eq!((read.user, read.database), (user, database));
        prop_assert_eq!(read.parameters, [("application_name".to_owned(), value)]);
    }

    #[test]
    fn options_of_any_kind_are_settings_or_refused(options in "[-c=a \\\\\\t.]{0,30}") {
        let mut out = Vec::new();
        startup::write_startup(&mut out, [("user", "u"), ("options", &options[..])]);
        if let Ok(FirstPacket::Startup(read)) = startup::read(&out) {
            // An empty name is one that the server refuses.
            prop_assert!(read.parameters.iter().all(|(name, _)| !name.contains('=')));
        }
    }

    #[test]
    fn cancel_requests_read_back(pid in any::<u32>(), secret in prop::collection::vec(any::<u8>(), 1..=256)) {
        let key = CancelKey { pid, secret };
        let mut out = Vec::new();
        startup::write_cancel(&mut out, &key);
        prop_assert_eq!(startup::read(&out), Ok(FirstPacket::Cancel(key)));
    }

    #[test]
    fn client_messages_read_back_and_torn_ones_do_not(
        name in text(),
        query in text(),
        types in prop::collection::vec(any::<u32>(), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut words = (types.len() as u16).to_be_bytes().to_vec();
        types.iter().for_each(|oid| words.extend(oid.to_be_bytes()));
        let mut out = Vec::new();
        frontend::parse(&mut out, &name, &query, &words);
        let (message, len) = frame::split(&out).unwrap().unwrap();
        prop_assert_eq!((message.kind, len), (b'P', out.len()));
        prop_assert_eq!(Parse::read(message.body), Some(Parse { name: &name, query: &query, types: &words }));
        prop_assert_eq!(Parse::read(&message.body[..cut.index(message.body.len())]), None);

        out.clear();
        frontend::bind_plain(&mut out, &name);
        let names = BindNames::read(&out[frame::HEADER..]).unwrap();
        prop_assert_eq!((names.portal, names.statement, names.len), (&b""[..], &name[..], name.len() + 2));

        out.clear();
        frontend::of_statement(&mut out, b'D', &name);
        prop_assert_eq!(Target::read(&out[frame::HEADER..]), Some(Target::Statement(&name)));

        out.clear();
        frontend::query(&mut out, &query);
        prop_assert_eq!(frontend::query_text(&out[frame::HEADER..]), Some(&query[..]));

        out.clear();
        frontend::sasl_initial(&mut out, "SCRAM-SHA-256", &query);
        prop_assert_eq!(frontend::read_sasl_initial(&out[frame::HEADER..]), Some(("SCRAM-SHA-256", &query[..])));
    }

    #[test]
    fn server_messages_read_back(
        name in text(),
        value in text(),
        values in prop::collection::vec("[^\\x00]{0,9}", 0..6),
        pid in any::<u32>(),
    ) {
        let mut out = Vec::new();
        backend::parameter_status(&mut out, &name, &value);
        prop_assert_eq!(backend::read_parameter_status(&out[frame::HEADER..]), Some((&name[..], &value[..])));

        out.clear();
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        backend::text_row(&mut out, &values);
        let read: Vec<_> = backend::read_row(&out[frame::HEADER..]).into_iter().flatten().collect();
        prop_assert_eq!(read, values.iter().map(|v| v.as_bytes()).collect::<Vec<_>>());

        out.clear();
        backend::key_data(&mut out, pid, &value);
        prop_assert_eq!(backend::read_key_data(&out[frame::HEADER..]), Some((pid, &value[..])));
    }

    #[test]
    fn errors_read_back_however_they_are_cut(
        message in "[^\\x00]{0,40}",
        hint in prop::option::of("[^\\x00]{1,20}"),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut error = ErrorResponse::error("XX000", message);
        error.hint = hint;
        let mut out = Vec::new();
        error.write(&mut out);
        let body = &out[frame::HEADER..];
        prop_assert_eq!(ErrorResponse::read(body), error);
        let _ = ErrorResponse::read(&body[..cut.index(body.len())]);
    }

    #[test]
    fn what_goes_into_a_buffer_comes_out_in_order(
        steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0..400usize, 0..300usize), 0..40),
    ) {
        let (mut buffer, mut expected) = (Buffer::new(), Vec::new());
        for (bytes, spend, room) in steps {
            buffer.reserve(room);
            prop_assert!(buffer.bytes.capacity() - buffer.bytes.len() >= room);
            buffer.bytes.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            let spend = spend.min(buffer.len());
            buffer.consume(spend);
            expected.drain(..spend);
            prop_assert_eq!(buffer.data(), &expected[..]);
            buffer.shrink();
        }
    }

    #[test]
    fn no_server_panics_the_scram_client(
        first in "(r=[!-~]{0,40},?)?(s=[A-Za-z0-9+/=]{0,20},?)?(i=[0-9-]{0,5})?[ -~]{0,10}",
        last in bytes(),
    ) {
        let mut exchange = Exchange::with_nonce(ClientBinding::None, "abc".into());
        exchange.client_first().unwrap();
        let _ = exchange.server_first(first.as_bytes());
        let _ = exchange.server_final(&last);
    }
}
