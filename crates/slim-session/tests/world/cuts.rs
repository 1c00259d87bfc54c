//! What silence, loss and leaving mean for what was said.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use skytale_slim::{Address, MessageType, Name, Routed};
use skytale_slim_session::{Ended, Event, Reliability, Settings};

use super::node::{ALICE, BOB, CAROL, Loss, World, clear, message_of};

/// Both sides lose sight of each other. Each once forgot where the other was, asked for all from
/// the first on and handed it to the application a second time.
#[test]
fn after_a_long_silence_nothing_of_a_pair_is_heard_twice() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.pair(settings);
        for text in ["1", "2", "3"] {
            world.publish(ALICE, session, text).unwrap();
        }
        world.until("three", |world| world.heard(BOB).len() == 3);

        world.loses = Box::new(|_, _| true);
        world.until("both away", |world| {
            world.is_away(ALICE) && world.is_away(BOB)
        });
        world.pass(10_000);
        world.loses = Box::new(|_, _| false);
        world.until("both back", |world| {
            world.is_back(ALICE) && world.is_back(BOB)
        });
        world.publish(ALICE, session, "4").unwrap();
        world.until("the fourth", |world| world.heard(BOB).contains(&"4".into()));
        world.pass(5000);

        assert_eq!(world.heard(BOB), ["1", "2", "3", "4"]);
    }
}

/// What was said while one was cut off was once skipped, without a word to her application.
#[test]
fn what_was_said_during_a_cut_is_heard_after_it() {
    for settings in [Settings::default(), clear()] {
        let mut world = World::trio();
        let session = world.group(settings);
        world.publish(ALICE, session, "before").unwrap();
        world.until("begun", |world| world.heard(CAROL) == ["before"]);

        world.loses = cut_off(world.address(CAROL));
        world.publish(ALICE, session, "during").unwrap();
        world.until("away", |world| world.is_away(ALICE) && world.is_away(CAROL));
        world.pass(10_000);
        world.publish(ALICE, session, "to bob alone").unwrap();
        world.pass(2000);
        world.loses = Box::new(|_, _| false);
        world.until("back", |world| world.is_back(ALICE) && world.is_back(CAROL));
        world.publish(ALICE, session, "after").unwrap();
        world.until("after", |world| {
            world.heard(CAROL).contains(&"after".into())
        });
        world.pass(5000);

        let all = ["before", "during", "to bob alone", "after"];
        assert_eq!(world.heard(CAROL), all);
        assert_eq!(world.heard(BOB), all);
    }
}

/// `Delivered` with nobody missing was once told of a message that one had never got.
#[test]
fn who_went_away_without_a_message_is_missing() {
    let mut world = World::trio();
    let session = world.group(Settings {
        reliability: Some(Reliability {
            interval_ms: 1000,
            retries_max: 100,
        }),
        ..Settings::default()
    });
    world.loses = cut_off(world.address(CAROL));
    let message = world.publish(ALICE, session, "not to carol").unwrap();
    world.until("away", |world| world.is_away(ALICE));

    let missing = world.told[ALICE].iter().find_map(|event| match event {
        Event::Delivered {
            message: of,
            missing,
            ..
        } if *of == message => Some(missing.clone()),
        _ => None,
    });
    assert_eq!(missing, Some(vec![world.parties[CAROL].name().clone()]));
}

/// They were acknowledged, so their speaker takes them for heard.
#[test]
fn what_stands_behind_a_gap_is_heard_when_its_speaker_leaves() {
    let mut world = World::trio();
    let session = world.group(Settings::default());
    // She knows with what he began.
    world.publish(BOB, session, "1").unwrap();
    world.until("begun", |world| world.heard(CAROL).len() == 1);
    let bob = world.address(BOB);
    world.loses = Box::new(move |_, routed| is_second_of(bob, routed));
    world.publish(BOB, session, "2").unwrap();
    world.publish(BOB, session, "3").unwrap();
    world
        .act(BOB, |party, now, chance, out| {
            party.leave(session, now, chance, out)
        })
        .unwrap();
    world.until("bob is out", |world| {
        world.was_told(CAROL, |event| matches!(event, Event::Removed { .. }))
    });
    assert_eq!(world.heard_with_gaps(ALICE), ["1", "lost", "3"]);
    assert_eq!(world.heard_with_gaps(CAROL), ["1", "lost", "3"]);
}

#[test]
fn what_stands_behind_a_gap_is_heard_when_the_session_ends() {
    for closes in [ALICE, BOB] {
        let mut world = World::trio();
        let session = world.pair(Settings::default());
        let both = [world.address(ALICE), world.address(BOB)];
        world.loses = Box::new(move |_, routed| both.iter().any(|it| is_second_of(*it, routed)));
        for text in ["1", "2", "3"] {
            world.publish(ALICE, session, text).unwrap();
            world.publish(BOB, session, text).unwrap();
        }
        world.deliver_all();
        world
            .act(closes, |party, now, chance, out| {
                party.leave(session, now, chance, out)
            })
            .unwrap();
        world.until("over", |world| {
            world.ended(ALICE).is_some() && world.ended(BOB).is_some()
        });
        for who in [ALICE, BOB] {
            assert_eq!(world.heard_with_gaps(who), ["1", "lost", "3"], "{closes}");
            assert!(matches!(world.told[who].last(), Some(Event::Ended { .. })));
        }
    }
}

/// While the moderator does something else a request to be taken in again waits. It was once
/// noted as dealt with, so that all its repetitions came to nothing.
#[test]
fn a_request_to_be_taken_in_again_that_was_put_off_is_answered_later() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let session = world.group(Settings::default());
    let asked = Rc::new(RefCell::new(BTreeSet::new()));
    let asks = Rc::clone(&asked);
    // Carol misses the commit, so for its repetitions the moderator is busy.
    world.loses = Box::new(move |to, routed| {
        if message_of(routed) == MessageType::RejoinRequest {
            asks.borrow_mut()
                .insert(routed.session().unwrap().message_id);
        }
        to == CAROL && message_of(routed) == MessageType::GroupUpdate
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
    world.pass(30_000);
    assert_eq!(asked.borrow().len(), 1);
    world.publish(CAROL, session, "here again").unwrap();
    world.until("alice hears", |world| world.heard(ALICE) == ["here again"]);
}

impl World {
    fn is_away(&self, who: usize) -> bool {
        let mut told = self.told[who].iter();
        told.any(|event| matches!(event, Event::Away { .. }))
    }

    fn is_back(&self, who: usize) -> bool {
        let away = |event: &&Event| matches!(event, Event::Away { .. });
        let back = |event: &&Event| matches!(event, Event::Back { .. });
        let told = &self.told[who];
        told.iter().filter(away).count() == told.iter().filter(back).count()
    }

    /// What somebody heard, with the places where something is missing.
    fn heard_with_gaps(&self, who: usize) -> Vec<String> {
        let told = self.told[who].iter().filter_map(|event| match event {
            Event::Received(it) => Some(String::from_utf8(it.payload.to_vec()).unwrap()),
            Event::Lost { .. } => Some("lost".to_owned()),
            _ => None,
        });
        told.collect()
    }
}

/// Neither hears nor is heard.
fn cut_off(who: Address) -> Loss {
    Box::new(move |to, routed| to == CAROL || routed.header().source.address == who)
}

/// The second message of somebody, however often it is said.
fn is_second_of(who: Address, routed: &Routed) -> bool {
    matches!(message_of(routed), MessageType::Msg | MessageType::RtxReply)
        && routed.session().unwrap().message_id == 2
        && routed.header().source.address == who
}
