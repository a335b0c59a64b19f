//! Both sides against each other, and against messages that were tampered with.

use std::sync::Arc;

use proptest::prelude::*;

use super::client::{self, ClientBinding};
use super::server::{self, ChannelBinding};
use super::{Keys, Params, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, Verifier, Verifiers};

/// Few iterations: these tests are about messages.
fn params() -> Params {
    Params {
        salt: b"0123456789abcdef".to_vec(),
        iterations: 2,
    }
}

fn verifiers(passwords: &[&str]) -> Arc<Verifiers> {
    Arc::new(Verifiers::new(passwords, None, &params()).unwrap())
}

fn end_point() -> ChannelBinding {
    ChannelBinding::Supported(b"certificate".to_vec())
}

fn bound(data: &[u8]) -> ClientBinding {
    ClientBinding::EndPoint(data.to_vec())
}

/// Runs a login; `tamper` sees the message of each step (0 to 3) on its way.
fn login(
    verifiers: &Arc<Verifiers>,
    password: &str,
    theirs: ClientBinding,
    ours: ChannelBinding,
    mut tamper: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Result<(usize, Keys), ScramError> {
    let mut client = client::Exchange::new(theirs);
    let mut server = server::Exchange::new(Arc::clone(verifiers), ours);
    let mechanism = client.mechanism();
    let message = tamper(0, client.client_first()?);
    let message = tamper(1, server.client_first(mechanism, &message)?);
    let params = client.server_first(&message)?;
    let message = tamper(2, client.client_final(&Keys::derive(password, &params)?)?);
    let accepted = server.client_final(&message)?;
    client.server_final(&tamper(3, accepted.message))?;
    Ok((accepted.verifier, accepted.keys))
}

fn untouched(_: usize, message: Vec<u8>) -> Vec<u8> {
    message
}

/// Replaces text in the message of one step.
fn replace<'a>(
    at: usize,
    from: &'a str,
    to: &'a str,
) -> impl FnMut(usize, Vec<u8>) -> Vec<u8> + 'a {
    move |step, message| {
        if step != at {
            return message;
        }
        let text = String::from_utf8(message).unwrap();
        assert!(text.contains(from), "{text} has no {from}");
        text.replacen(from, to, 1).into_bytes()
    }
}

#[test]
fn the_server_of_rfc_7677_says_what_the_rfc_says() {
    let params = Params {
        salt: b"\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81".to_vec(),
        iterations: 4096,
    };
    let verifiers = Arc::new(Verifiers::new(&["pencil"], None, &params).unwrap());
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
    let mut server = server::Exchange::with_nonce(verifiers, ChannelBinding::Unsupported, nonce);
    assert_eq!(
        server
            .client_first(SCRAM_SHA_256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
            .unwrap(),
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    );
    let accepted = server
        .client_final(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        accepted.message,
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
    assert_eq!(accepted.keys, Keys::derive("pencil", &params).unwrap());
}

#[test]
fn each_fitting_pair_of_bindings_logs_in() {
    for (theirs, ours) in [
        (ClientBinding::None, ChannelBinding::Unsupported),
        (ClientBinding::None, end_point()),
        (ClientBinding::NotOffered, ChannelBinding::Unsupported),
        (bound(b"certificate"), end_point()),
    ] {
        let result = login(
            &verifiers(&["pencil"]),
            "pencil",
            theirs.clone(),
            ours.clone(),
            untouched,
        );
        assert!(result.is_ok(), "{theirs:?} {ours:?} {result:?}");
    }
}

#[test]
fn a_wrong_password_is_refused() {
    for password in ["pencils", "", "Pencil"] {
        let result = login(
            &verifiers(&["pencil"]),
            password,
            ClientBinding::None,
            ChannelBinding::Unsupported,
            untouched,
        );
        assert_eq!(result, Err(ScramError::WrongPassword));
    }
}

#[test]
fn a_user_who_does_not_exist_fails_at_the_end_like_a_wrong_password() {
    let mock = Arc::new(Verifiers::mock(&[7; 32], "nobody"));
    let result = login(
        &mock,
        "pencil",
        ClientBinding::None,
        ChannelBinding::Unsupported,
        untouched,
    );
    assert_eq!(result, Err(ScramError::WrongPassword));
}

#[test]
fn each_of_several_passwords_logs_in() {
    let all = verifiers(&["old", "new", "newest"]);
    for (index, password) in ["old", "new", "newest"].into_iter().enumerate() {
        let (found, keys) = login(
            &all,
            password,
            ClientBinding::None,
            ChannelBinding::Unsupported,
            untouched,
        )
        .unwrap();
        assert_eq!(found, index);
        assert_eq!(keys, Keys::derive(password, &params()).unwrap());
    }
}

#[test]
fn the_first_of_two_equal_passwords_is_the_one_that_fits() {
    let all = verifiers(&["other", "pencil", "pencil"]);
    let (found, _) = login(
        &all,
        "pencil",
        ClientBinding::None,
        ChannelBinding::Unsupported,
        untouched,
    )
    .unwrap();
    assert_eq!(found, 1);
}

#[test]
fn a_stored_verifier_gives_its_salt_to_the_passwords_beside_it() {
    let stored = Verifier::from_password(
        "stored",
        &Params {
            salt: b"its own".to_vec(),
            iterations: 3,
        },
    )
    .unwrap();
    let all = Arc::new(Verifiers::new(&["plain"], Some(&stored), &params()).unwrap());
    assert_eq!(all.params(), &stored.params());
    for (index, password) in ["plain", "stored"].into_iter().enumerate() {
        let (found, _) = login(
            &all,
            password,
            ClientBinding::None,
            ChannelBinding::Unsupported,
            untouched,
        )
        .unwrap();
        assert_eq!(found, index);
    }
}

#[test]
fn the_keys_of_an_accepted_client_log_in_to_a_server_with_the_same_verifier() {
    let stored = verifiers(&["pencil"]);
    let (_, keys) = login(
        &stored,
        "pencil",
        ClientBinding::None,
        ChannelBinding::Unsupported,
        untouched,
    )
    .unwrap();

    let mut client = client::Exchange::new(ClientBinding::None);
    let mut server = server::Exchange::new(stored, ChannelBinding::Unsupported);
    let message = server
        .client_first(SCRAM_SHA_256, &client.client_first().unwrap())
        .unwrap();
    client.server_first(&message).unwrap();
    let accepted = server
        .client_final(&client.client_final(&keys).unwrap())
        .unwrap();
    assert_eq!(client.server_final(&accepted.message), Ok(()));
}

#[test]
fn a_removed_offer_of_channel_binding_is_noticed() {
    let result = login(
        &verifiers(&["pencil"]),
        "pencil",
        ClientBinding::NotOffered,
        end_point(),
        untouched,
    );
    assert_eq!(result, Err(ScramError::Downgrade));
}

#[test]
fn a_flag_that_was_changed_on_the_way_is_noticed() {
    // "y" would be refused at once; somebody who makes it "n" is found out by `c=`.
    let result = login(
        &verifiers(&["pencil"]),
        "pencil",
        ClientBinding::NotOffered,
        end_point(),
        replace(0, "y,,", "n,,"),
    );
    assert_eq!(result, Err(ScramError::BindingMismatch));
}

#[test]
fn another_certificate_is_noticed() {
    let result = login(
        &verifiers(&["pencil"]),
        "pencil",
        bound(b"somebody else's"),
        end_point(),
        untouched,
    );
    assert_eq!(result, Err(ScramError::BindingMismatch));
}

#[test]
fn channel_data_that_was_changed_on_the_way_is_noticed() {
    // Even by somebody who makes it fit our side, as the client signed its own.
    let to = format!(
        "c={}",
        super::message::BindingFlag::EndPoint.channel(b"certificate")
    );
    let from = format!(
        "c={}",
        super::message::BindingFlag::EndPoint.channel(b"evil")
    );
    let result = login(
        &verifiers(&["pencil"]),
        "pencil",
        bound(b"evil"),
        end_point(),
        replace(2, &from, &to),
    );
    assert_eq!(result, Err(ScramError::WrongPassword));
}

#[test]
fn mechanism_and_flag_have_to_agree() {
    let first = |mechanism: &str, binding: ChannelBinding, message: &[u8]| {
        server::Exchange::new(verifiers(&["pencil"]), binding)
            .client_first(mechanism, message)
            .map(drop)
    };
    let none = || ChannelBinding::Unsupported;
    let cases = [
        (
            first(
                SCRAM_SHA_256_PLUS,
                none(),
                b"p=tls-server-end-point,,n=,r=a",
            ),
            ScramError::UnknownMechanism,
        ),
        (
            first("SCRAM-SHA-1", end_point(), b"n,,n=,r=a"),
            ScramError::UnknownMechanism,
        ),
        (
            first("scram-sha-256", end_point(), b"n,,n=,r=a"),
            ScramError::UnknownMechanism,
        ),
        (
            first("", none(), b"n,,n=,r=a"),
            ScramError::UnknownMechanism,
        ),
        (
            first(SCRAM_SHA_256_PLUS, end_point(), b"n,,n=,r=a"),
            ScramError::BindingFlag,
        ),
        (
            first(SCRAM_SHA_256_PLUS, end_point(), b"y,,n=,r=a"),
            ScramError::BindingFlag,
        ),
        (
            first(
                SCRAM_SHA_256,
                end_point(),
                b"p=tls-server-end-point,,n=,r=a",
            ),
            ScramError::BindingFlag,
        ),
        (
            first(SCRAM_SHA_256, none(), b"p=tls-server-end-point,,n=,r=a"),
            ScramError::BindingFlag,
        ),
        (
            first(SCRAM_SHA_256_PLUS, end_point(), b"p=tls-unique,,n=,r=a"),
            ScramError::BindingType,
        ),
    ];
    for (result, error) in cases {
        assert_eq!(result, Err(error));
    }
}

#[test]
fn a_nonce_that_was_changed_on_the_way_is_noticed() {
    for (step, expected) in [
        (0, ScramError::Nonce),
        (1, ScramError::Nonce),
        (2, ScramError::Nonce),
    ] {
        let all = verifiers(&["pencil"]);
        let result = login(
            &all,
            "pencil",
            ClientBinding::None,
            ChannelBinding::Unsupported,
            replace(step, "r=", "r=x"),
        );
        assert_eq!(result, Err(expected), "step {step}");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_noticed() {
    let result = login(
        &verifiers(&["pencil"]),
        "pencil",
        ClientBinding::None,
        ChannelBinding::Unsupported,
        |step, message| {
            if step == 3 {
                b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_vec()
            } else {
                message
            }
        },
    );
    assert_eq!(result, Err(ScramError::ServerSignature));
}

#[test]
fn a_message_out_of_order_ends_the_exchange() {
    let mut server = server::Exchange::new(verifiers(&["pencil"]), ChannelBinding::Unsupported);
    assert_eq!(
        server.client_final(b"c=biws,r=a,p=a").unwrap_err(),
        ScramError::OutOfOrder
    );
    // Terminal: not even the right message is taken now.
    assert_eq!(
        server.client_first(SCRAM_SHA_256, b"n,,n=,r=a"),
        Err(ScramError::OutOfOrder)
    );

    let mut server = server::Exchange::new(verifiers(&["pencil"]), ChannelBinding::Unsupported);
    server.client_first(SCRAM_SHA_256, b"n,,n=,r=a").unwrap();
    assert_eq!(
        server.client_first(SCRAM_SHA_256, b"n,,n=,r=a"),
        Err(ScramError::OutOfOrder)
    );
}

#[test]
fn a_proof_is_good_for_one_try() {
    let mut client = client::Exchange::new(ClientBinding::None);
    let mut server = server::Exchange::new(verifiers(&["pencil"]), ChannelBinding::Unsupported);
    let message = server
        .client_first(SCRAM_SHA_256, &client.client_first().unwrap())
        .unwrap();
    let params = client.server_first(&message).unwrap();
    let proof = client
        .client_final(&Keys::derive("pencil", &params).unwrap())
        .unwrap();
    assert!(server.client_final(&proof).is_ok());
    assert_eq!(
        server.client_final(&proof).unwrap_err(),
        ScramError::OutOfOrder
    );
}

#[test]
fn no_truncated_message_logs_in() {
    for (theirs, ours) in [
        (ClientBinding::None, ChannelBinding::Unsupported),
        (bound(b"certificate"), end_point()),
    ] {
        for step in 0..4 {
            // Some cuts are well-formed (fewer iterations, a shorter nonce) and found out one step later.
            for end in 0.. {
                let mut whole = false;
                let result = login(
                    &verifiers(&["pencil"]),
                    "pencil",
                    theirs.clone(),
                    ours.clone(),
                    |at, message| {
                        if at != step {
                            return message;
                        }
                        whole = end >= message.len();
                        message[..end.min(message.len())].to_vec()
                    },
                );
                assert_eq!(
                    result.is_ok(),
                    whole,
                    "step {step} cut to {end}: {result:?}"
                );
                if whole {
                    break;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn no_changed_byte_logs_in(step in 0..4_usize, position: prop::sample::Index, byte: u8) {
        let mut changed = false;
        let result = login(&verifiers(&["pencil"]), "pencil", bound(b"certificate"), end_point(), |at, mut message| {
            if at == step {
                let i = position.index(message.len());
                changed = message[i] != byte;
                message[i] = byte;
            }
            message
        });
        prop_assert_eq!(result.is_ok(), !changed, "{:?}", result);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let all = verifiers(&["pencil"]);
        let mut server = server::Exchange::new(Arc::clone(&all), ChannelBinding::Unsupported);
        server.client_first(SCRAM_SHA_256, b"n,,n=,r=a").unwrap();
        prop_assert!(server.client_final(&data).is_err());
        let mut client = client::Exchange::new(ClientBinding::None);
        client.client_first().unwrap();
        prop_assert!(client.server_first(&data).is_err());
        // A first message can be right by chance, but hardly is.
        let _ = server::Exchange::new(all, end_point()).client_first(SCRAM_SHA_256_PLUS, &data).is_ok();
    }

    #[test]
    fn text_that_resembles_a_message_never_panics(text in "[nyp,=a-z\\-]{0,24}(,?[cersivpnm]=[A-Za-z0-9+/=]{0,44}){0,5}") {
        let all = verifiers(&["pencil"]);
        let mut server = server::Exchange::new(Arc::clone(&all), ChannelBinding::Unsupported);
        if server.client_first(SCRAM_SHA_256, text.as_bytes()).is_ok() {
            prop_assert!(server.client_final(text.as_bytes()).is_err());
        }
        let mut client = client::Exchange::new(ClientBinding::None);
        client.client_first().unwrap();
        prop_assert!(client.server_first(text.as_bytes()).is_err());
        let _ = Verifier::parse(&text).is_ok();
    }

    #[test]
    fn any_password_logs_in(password: String) {
        let all = verifiers(&[&password]);
        let result = login(&all, &password, ClientBinding::None, ChannelBinding::Unsupported, untouched);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}
