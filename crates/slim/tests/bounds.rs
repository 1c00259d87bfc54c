//! What is refused because a bound says so, or because two readers could take it differently.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use skytale_slim::{
    CLIENT_BYTES_MAX, Draft, Generation, Header, MESSAGE_BYTES_MAX, MessageType, Name, Refused,
    Routed, Said, Session, SessionKind, Undeliverable, open,
    proto::two::{self, command_payload::CommandPayloadType as Command},
};

#[test]
fn lists_are_counted_before_they_are_decoded() {
    let close = |participants| {
        draft(
            MessageType::GroupClose,
            Said::Two(Command::GroupClose(two::GroupClosePayload {
                participants: vec![two::Name::default(); participants],
            })),
        )
        .routed(Generation::Two)
    };
    assert!(close(1000).is_ok());
    assert_eq!(
        close(8193).unwrap_err(),
        Refused::Malformed("command too long")
    );
}

/// Decoders merge what stands twice, so lists could grow past the count.
#[test]
fn contents_that_stand_twice_are_refused() {
    let good = publish(b"hello");
    let Some(two::message::MessageType::Publish(publish)) = decoded(&good).message_type else {
        panic!("it is a publication");
    };
    let header = field(1, &publish.header.unwrap().encode_to_vec());
    let session = field(2, &publish.session.unwrap().encode_to_vec());
    let command = field(2, &field(9, &[]));
    let ack = field(2, &field(11, &[]));
    let message = |content: &[&[u8]], more: &[u8]| {
        let content = field(3, &content.concat());
        let bytes = field(3, &[&header[..], &session, &content, more].concat());
        Routed::from_archive(Generation::Two, bytes.into()).map(|_| ())
    };
    assert_eq!(message(&[&command], &[]), Ok(()));
    assert_eq!(
        message(&[&command, &ack], &[]),
        Err(Refused::Malformed("two contents in one"))
    );
    let twice = field(2, &[field(9, &[]), field(9, &[])].concat());
    assert_eq!(
        message(&[&twice], &[]),
        Err(Refused::Malformed("two contents in one"))
    );
    for again in [&header, &session, &field(3, &[])] {
        assert_eq!(
            message(&[&command], again),
            Err(Refused::Malformed("a field stands twice"))
        );
    }
}

/// A header with two destinations could be checked by one and routed by the other.
#[test]
fn a_header_field_that_stands_twice_is_refused() {
    let good = publish(b"hello");
    let Some(two::message::MessageType::Publish(publish)) = decoded(&good).message_type else {
        panic!("it is a publication");
    };
    let mut header = publish.header.unwrap().encode_to_vec();
    let elsewhere = Name::parse("org/ns/elsewhere").unwrap();
    let elsewhere = two::Name {
        name: Some(two::EncodedName {
            component_0: elsewhere.address.components.0[0],
            ..two::EncodedName::default()
        }),
        str_name: None,
    };
    header.extend(field(2, &elsewhere.encode_to_vec()));
    let session = field(2, &publish.session.unwrap().encode_to_vec());
    let bytes = field(3, &[field(1, &header), session].concat());
    assert_eq!(
        Routed::from_archive(Generation::Two, bytes.into()).unwrap_err(),
        Refused::Malformed("a field stands twice")
    );
}

#[test]
fn two_messages_in_one_are_refused() {
    let one = publish(b"hello");
    let both = [one.clone(), field(1, &[])].concat();
    assert_eq!(
        Routed::from_archive(Generation::Two, both.into()).unwrap_err(),
        Refused::Malformed("two messages in one")
    );
}

#[test]
fn metadata_names_and_identities_are_bounded() {
    let routed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = hello(b"hello");
        change(&mut draft);
        draft.routed(Generation::Two).map(|_| ())
    };
    let entries = |count: usize, len: usize| {
        move |draft: &mut Draft| {
            let entry = |at: usize| (at.to_string(), "x".repeat(len));
            draft.metadata = (0..count).map(entry).collect();
        }
    };
    assert_eq!(routed(&entries(256, 100)), Ok(()));
    let refused = Err(Refused::Malformed("metadata"));
    assert_eq!(routed(&entries(257, 1)), refused);
    assert_eq!(routed(&entries(2, 40_000)), refused);

    // One entry again and again is one entry in the end, but not while it is decoded.
    let mut again = publish(b"hello");
    for _ in 0..257 {
        again.extend(field(4, &field(1, b"key")));
    }
    let again = Routed::from_archive(Generation::Two, again.into());
    assert_eq!(again.map(|_| ()), refused);

    let named = |len: usize| {
        move |draft: &mut Draft| {
            draft.header.destination.text.as_mut().unwrap()[2] = "x".repeat(len);
        }
    };
    assert_eq!(routed(&named(1024)), Ok(()));
    assert_eq!(routed(&named(1025)), Err(Refused::Malformed("destination")));

    let identified = |len: usize| move |draft: &mut Draft| draft.header.identity = "x".repeat(len);
    assert_eq!(routed(&identified(32_768)), Ok(()));
    assert_eq!(
        routed(&identified(32_769)),
        Err(Refused::Malformed("identity"))
    );
    assert_eq!(
        routed(&identified(70_000)),
        Err(Refused::Malformed("header"))
    );
}

#[test]
fn a_message_without_a_way_or_a_session_is_refused() {
    let whole = decoded(&publish(b"hello"));
    let without = |change: &dyn Fn(&mut two::Publish)| {
        let mut message = whole.clone();
        if let Some(two::message::MessageType::Publish(publish)) = &mut message.message_type {
            change(publish);
        }
        let bytes = message.encode_to_vec().into();
        Routed::from_archive(Generation::Two, bytes).unwrap_err()
    };
    let refused = Refused::Malformed;
    assert_eq!(without(&|it| it.header = None), refused("header"));
    assert_eq!(without(&|it| it.session = None), refused("session"));
    let header = |change: fn(&mut two::SlimHeader)| {
        move |it: &mut two::Publish| change(it.header.as_mut().unwrap())
    };
    assert_eq!(without(&header(|it| it.source = None)), refused("source"));
    assert_eq!(
        without(&header(|it| it.destination.as_mut().unwrap().name = None)),
        refused("destination")
    );
    for empty in [&[][..], &field(4, &[])] {
        let bytes = Bytes::copy_from_slice(empty);
        assert!(open(bytes.clone()).is_err());
        assert!(Routed::from_archive(Generation::Two, bytes).is_err());
    }
}

/// Text that is not UTF-8 would end the stream of whoever it is sent to.
#[test]
fn what_a_clients_decoder_refuses_goes_nowhere() {
    let good = publish(b"hello");
    let at = good.windows(4).position(|bytes| bytes == b"chan").unwrap();
    let mut bad = good;
    bad[at] = 0xff;
    assert_eq!(
        Routed::from_archive(Generation::Two, bad.into()).unwrap_err(),
        Refused::Malformed("message")
    );
}

#[test]
fn one_oversized_message_is_refused_by_itself() {
    let large = hello(&vec![0; CLIENT_BYTES_MAX])
        .routed(Generation::Two)
        .unwrap();
    assert_eq!(large.onward(1).unwrap_err(), Undeliverable::TooLarge);
    let fits = hello(&vec![0; CLIENT_BYTES_MAX - 1000]).routed(Generation::Two);
    assert!(fits.unwrap().onward(1).is_ok());
    let too_large = hello(&vec![0; MESSAGE_BYTES_MAX]).routed(Generation::Two);
    assert_eq!(too_large.unwrap_err(), Refused::TooLarge);
    assert_eq!(
        open(vec![0; MESSAGE_BYTES_MAX + 1].into()).unwrap_err(),
        Refused::TooLarge
    );
}

#[test]
fn a_link_says_no_more_than_it_may() {
    let link = |said: two::LinkNegotiationPayload| {
        let message = two::Message {
            message_type: Some(two::message::MessageType::Link(two::Link {
                link_type: Some(two::link::LinkType::LinkNegotiation(said)),
            })),
            ..two::Message::default()
        };
        open(message.encode_to_vec().into()).map(|_| ())
    };
    let good = two::LinkNegotiationPayload {
        link_id: "link".to_owned(),
        slim_version: "3.4.6".to_owned(),
        ..two::LinkNegotiationPayload::default()
    };
    assert_eq!(link(good.clone()), Ok(()));
    for bad in [
        two::LinkNegotiationPayload {
            link_id: String::new(),
            ..good.clone()
        },
        two::LinkNegotiationPayload {
            link_id: "x".repeat(257),
            ..good.clone()
        },
        two::LinkNegotiationPayload {
            node_id: "x".repeat(257),
            ..good.clone()
        },
        two::LinkNegotiationPayload {
            is_reply: true,
            ..good
        },
    ] {
        assert!(link(bad).is_err());
    }
}

// ----- what is refused ---------------------------------------------------------------------------

fn hello(blob: &[u8]) -> Draft {
    let said = Said::Application {
        payload_type: "msg".to_owned(),
        blob: Bytes::copy_from_slice(blob),
    };
    draft(MessageType::Msg, said)
}

fn draft(message: MessageType, said: Said) -> Draft {
    Draft {
        header: Header {
            source: Name::parse("org/ns/alice").unwrap(),
            destination: Name::parse("org/ns/chan").unwrap(),
            identity: String::new(),
            fanout: 256,
        },
        session: Session {
            kind: SessionKind::Multicast,
            message,
            id: 1,
            message_id: 2,
        },
        said,
        metadata: BTreeMap::new(),
    }
}

fn publish(blob: &[u8]) -> Vec<u8> {
    hello(blob)
        .routed(Generation::Two)
        .unwrap()
        .original()
        .to_vec()
}

fn decoded(bytes: &[u8]) -> two::Message {
    two::Message::decode(bytes).unwrap()
}

fn field(number: u8, inside: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
    bytes.extend(inside);
    bytes
}
