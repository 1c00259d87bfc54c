//! Repeats for a receiver whose source is gone.

use skytale_slim::{Generation, MessageType, Name, Routed, SessionKind};

use super::{BOTH, Client, application, at, cast, draft, msg};
use crate::hub::{
    Input, SlimDrop,
    tests::house::{House, people},
};

/// Bob lacks a message of a session and asks its source.
fn request(client: &Client, source: &Name, number: u32) -> Routed {
    draft(
        client.generation,
        &client.name,
        source,
        1,
        SessionKind::Multicast,
        MessageType::RtxRequest,
        (5, number),
        application(""),
    )
}

fn gone(house: &mut House, client: &Client) {
    house.handle(Input::Gone { conn: client.conn });
}

#[test]
fn a_source_that_is_there_is_asked_itself() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        house.says(&alice, msg(&alice, &bob.name, "hello", 1));
        house.settle();
        house.heard(&bob);

        house.says(&bob, request(&bob, &alice.name, 1));
        house.settle();

        assert_eq!(house.types(&alice), [MessageType::RtxRequest]);
        assert!(house.types(&bob).is_empty());
    }
}

#[test]
fn whoever_follows_the_name_of_a_source_does_not_stand_for_it() {
    let [person, ..] = people();
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    let watcher = house.native(&person);
    house.native_subscribes(watcher, &alice.name, Some(0));
    house.says(&alice, msg(&alice, &bob.name, "hello", 1));
    house.settle();
    gone(&mut house, &alice);
    house.heard(&bob);
    house.news(watcher);

    house.says(&bob, request(&bob, &alice.name, 1));
    house.settle();

    assert_eq!(house.words(&bob), ["hello"]);
    assert!(house.delivered_slim(watcher).is_empty());
}

#[test]
fn the_archive_answers_for_a_source_that_is_gone() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let room = at("org/ns/room", 77);
        house.subscribes(&bob, &room);
        house.says(&alice, msg(&alice, &bob.name, "to Bob", 1));
        house.says(&alice, cast(&alice, &room, "to all", 2));
        house.settle();
        gone(&mut house, &alice);
        house.heard(&bob);

        for (number, words) in [(1, "to Bob"), (2, "to all")] {
            house.says(&bob, request(&bob, &alice.name, number));
            house.settle();
            let heard = house.heard(&bob);
            let [answer] = &heard[..] else {
                panic!("{heard:?}")
            };
            let message = answer.message().unwrap();
            assert_eq!(message.session().unwrap().message, MessageType::Msg);
            assert_eq!(message.header().source, alice.name);
            assert_eq!(answer.words().as_deref(), Some(words));
        }
        assert_eq!(house.hub.counters().slim.rtx_answered, 2);
    }
}

#[test]
fn a_new_run_of_the_relay_answers_too() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let room = at("org/ns/room", 77);
        house.says(&alice, cast(&alice, &room, "hello", 1));
        house.settle();
        house.restart();
        let bob = house.client(generation, "org/ns/bob", 2);
        house.subscribes(&bob, &room);
        house.heard(&bob);

        house.says(&bob, request(&bob, &alice.name, 1));
        house.settle();

        assert_eq!(house.words(&bob), ["hello"]);
    }
}

/// Asking must not show anybody what was not sent to a name of theirs.
#[test]
fn whoever_is_not_subscribed_gets_no_repeat() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let mallory = house.client(generation, "org/ns/mallory", 3);
        house.says(&alice, msg(&alice, &bob.name, "to Bob", 1));
        house.says(&bob, msg(&bob, &mallory.name, "so that she has a log", 9));
        house.settle();
        gone(&mut house, &alice);
        house.heard(&mallory);

        house.says(&mallory, request(&mallory, &alice.name, 1));
        house.settle();

        assert!(house.words(&mallory).is_empty());
        assert_eq!(house.hub.counters().slim.rtx_answered, 0);
    }
}

#[test]
fn requests_that_the_disk_is_slow_to_answer_are_bounded() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    house.says(&alice, msg(&alice, &bob.name, "hello", 1));
    house.settle();
    gone(&mut house, &alice);
    house.heard(&bob);

    for _ in 0..100 {
        house.says(&bob, request(&bob, &alice.name, 1));
    }
    assert_eq!(house.reads.len(), 32);
    house.settle();
    assert_eq!(house.words(&bob).len(), 32);
    assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::NoRoom], 68);

    house.says(&bob, request(&bob, &alice.name, 1));
    gone(&mut house, &bob);
    house.settle();
    assert!(house.words(&bob).is_empty(), "nothing for whoever is gone");
}
