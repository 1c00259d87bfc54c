//! A node that takes the payload signature off a command and changes what no other signature
//! covers, as peers of SLIM 2.0 sign no payload.

use bytes::Bytes;
use prost::Message as _;
use skytale_slim::{
    Generation, MessageType, Name, Routed,
    proto::two::{
        self, command_payload::CommandPayloadType as Command, content::ContentType,
        message::MessageType as Kind,
    },
};
use skytale_slim_session::{Ended, Event, Invitations, Settings};

use super::node::{ALICE, BOB, Forgery, Loss, World, clear, message_of};

#[test]
fn who_signs_payloads_is_not_believed_without() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let session = world.group(Settings::default());
    world.forges = Box::new(|routed| {
        altered(routed, |command| {
            if let Command::GroupUpdate(said) = command {
                said.participant = said.participants.iter().find(|it| is_carol(it)).cloned();
            }
        })
    });
    let dave = Name::parse("org/ns/dave").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.remove(session, &dave, now, chance, out)
        })
        .unwrap();
    world.until("dave is out", |world| {
        world.ended(3) == Some(Ended::Removed)
    });
    world.pass(2000);
    let removed: Vec<&Name> = world.told[BOB]
        .iter()
        .filter_map(|event| match event {
            Event::Removed { name, .. } => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(removed, [world.parties[3].name()]);
}

/// The changed one was once noted as dealt with, and its KeyPackage used up, so that the true one
/// came to nothing.
#[test]
fn a_welcome_that_was_changed_does_not_keep_the_true_one_out() {
    let mut world = World::trio();
    world.forges = Box::new(|routed| {
        altered(routed, |command| {
            if let Command::GroupWelcome(said) = command {
                let mls = said.mls.as_mut().unwrap();
                let mut bytes = mls.mls_content.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                mls.mls_content = bytes.into();
            }
        })
    });
    world.loses =
        Box::new(|_, routed| is_command(routed) && message_of(routed) != MessageType::GroupWelcome);
    let session = world.pair(Settings::default());
    assert_eq!(world.joined(BOB), 1);
    world.publish(ALICE, session, "hello bob").unwrap();
    world.until("bob hears", |world| world.heard(BOB) == ["hello bob"]);
}

/// Each key of MLS opens one message. A node could once have it used up for nothing.
#[test]
fn what_an_application_says_is_not_opened_as_a_commit() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    world.forges = only_header_signed();
    world.loses = loses_commands();
    let session = world.group(Settings::default());
    world.publish(ALICE, session, "a word").unwrap();
    let (_, word) = world
        .on_the_way
        .drain(..)
        .find(|(to, _)| *to == BOB)
        .unwrap();
    let sealed = sealed_in(&word);
    world.forges = Box::new(move |routed| {
        altered(routed, |command| {
            if let Command::GroupUpdate(said) = command {
                said.mls.as_mut().unwrap().mls_content = sealed.clone();
            }
        })
    });
    let dave = Name::parse("org/ns/dave").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.remove(session, &dave, now, chance, out)
        })
        .unwrap();
    world.deliver_all();
    world.on_the_way.push_back((BOB, word));
    world.deliver_all();
    assert_eq!(world.heard(BOB), ["a word"]);
}

/// The changed one has another turn. It once took the true one's id, so that this was a repeat.
#[test]
fn a_commit_that_was_changed_does_not_keep_the_true_one_out() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    world.forges = only_header_signed();
    world.loses = loses_commands();
    let session = world.group(Settings::default());
    world.forges = Box::new(|routed| {
        altered(routed, |command| {
            if let Command::GroupUpdate(said) = command {
                let mls = said.mls.as_mut().unwrap();
                mls.commit_id += 1;
                let mut bytes = mls.mls_content.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                mls.mls_content = bytes.into();
            }
        })
    });
    world.loses =
        Box::new(|_, routed| is_command(routed) && message_of(routed) != MessageType::GroupUpdate);
    let dave = Name::parse("org/ns/dave").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.remove(session, &dave, now, chance, out)
        })
        .unwrap();
    world.until("bob knows", |world| {
        world.was_told(BOB, |event| matches!(event, Event::Removed { .. }))
    });
}

#[test]
fn a_party_that_wants_mls_takes_no_invitation_without() {
    let mut world = World::following(Invitations::OnlyWithMls, &["alice", "bob"]);
    let bob = Name::parse("org/ns/bob").unwrap();
    world
        .act(ALICE, |party, now, chance, out| {
            party.open(bob, clear(), now, chance, out)
        })
        .unwrap();
    world.until("given up", |world| {
        world.ended(ALICE) == Some(Ended::Unanswered)
    });
    let [Event::Uninvited { moderator, .. }] = &world.told[BOB][..] else {
        panic!("once, though it was repeated: {:?}", world.told[BOB]);
    };
    assert_eq!(moderator, world.parties[ALICE].name());
    world.pair(Settings::default());
    assert_eq!(world.joined(BOB), 1);
}

/// As a peer of SLIM 2.0 would have said it, with another content. `None` for what is no command.
fn altered(routed: &Routed, alter: impl FnOnce(&mut Command)) -> Option<Routed> {
    let mut message = two::Message::decode(routed.original().clone()).unwrap();
    message.metadata.remove("slim-payload-sig")?;
    let Some(Kind::Publish(publish)) = &mut message.message_type else {
        return None;
    };
    let Some(ContentType::CommandPayload(said)) = &mut publish.msg.as_mut()?.content_type else {
        return None;
    };
    alter(said.command_payload_type.as_mut()?);
    Routed::from_archive(Generation::Two, message.encode_to_vec().into()).ok()
}

/// With [`loses_commands`]: everybody seems to be a peer of SLIM 2.0.
fn only_header_signed() -> Forgery {
    Box::new(|routed| altered(routed, |_| {}))
}

fn loses_commands() -> Loss {
    Box::new(|_, routed| is_command(routed))
}

fn is_command(routed: &Routed) -> bool {
    altered(routed, |_| {}).is_some()
}

fn is_carol(participant: &two::Participant) -> bool {
    let name = participant.name.clone().and_then(Name::from_two).unwrap();
    name.proven_text().is_some_and(|[.., last]| last == "carol")
}

fn sealed_in(routed: &Routed) -> Bytes {
    let message = two::Message::decode(routed.original().clone()).unwrap();
    let Some(Kind::Publish(publish)) = message.message_type else {
        panic!("not a publication");
    };
    match publish.msg.unwrap().content_type {
        Some(ContentType::AppPayload(said)) => said.blob,
        _ => panic!("not what an application says"),
    }
}
