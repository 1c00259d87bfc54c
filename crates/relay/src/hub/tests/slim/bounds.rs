//! What is bounded, and what happens there.

use skytale_slim::{Generation, MessageType, SUBSCRIPTIONS_PER_LINK_MAX};
use skytale_wire::refusal::Refusal;

use super::{COMMIT, Heard, at, cast, commit, control, handshake, msg};
use crate::hub::{
    SlimRules,
    tests::house::{House, people},
};

#[test]
fn beyond_the_last_log_messages_go_on_without_being_stored() {
    let mut house = House::with_slim(SlimRules {
        logs_max: 2,
        ..SlimRules::default()
    });
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    for id in 10..14 {
        house.says(&alice, msg(&alice, &at("org/ns/x", id), "x", 1));
    }
    house.says(&alice, msg(&alice, &bob.name, "hello", 1));
    house.settle();

    assert_eq!(house.words(&bob), ["hello"]);
    assert_eq!(house.hub.slim_logs(), 2);
    assert_eq!(house.hub.counters().slim.unarchived, 3);
}

#[test]
fn an_account_has_only_so_many_logs() {
    let mut house = House::with_slim(SlimRules {
        logs_per_account_max: 1,
        ..SlimRules::default()
    });
    let right = super::account("acc", &["org/*"], house.now.plus(1_000_000));
    let alice = house.client_by(right, Generation::Two, "org/ns/alice", 1);
    house.says(&alice, msg(&alice, &at("org/ns/x", 1), "x", 1));
    house.says(&alice, msg(&alice, &at("org/ns/x", 2), "x", 2));
    house.settle();
    assert_eq!(house.hub.slim_logs(), 1);

    let open = house.client(Generation::Two, "free/ns/bob", 2);
    house.says(&open, msg(&open, &at("free/ns/x", 1), "x", 1));
    house.settle();
    assert_eq!(house.hub.slim_logs(), 2);
}

#[test]
fn one_stream_holds_only_so_many_subscriptions_and_hears_of_it() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    for id in 0..SUBSCRIPTIONS_PER_LINK_MAX as u128 {
        house.subscribes(&alice, &at("org/ns/x", id));
    }
    let heard = house.heard(&alice);
    let (last, before) = heard.split_last().unwrap();
    assert!(matches!(last, Heard::Answer(_, Err(_))));
    assert!(
        before
            .iter()
            .all(|it| matches!(it, Heard::Answer(_, Ok(()))))
    );
}

#[test]
fn more_groups_than_can_be_remembered_go_on_unordered() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    for group in 0..70_u8 {
        let number = u32::from(group) + 100;
        let said = handshake(&alice, &bob.name, 5, number, &[group], COMMIT);
        house.says(&alice, said);
    }
    house.settle();
    assert_eq!(house.types(&bob).len(), 70);
    assert_eq!(house.hub.counters().slim.commits_accepted, 64);
}

/// What waits behind a slow disk is told to the driver, which then takes nothing more in.
#[test]
fn what_waits_behind_a_write_is_counted_and_let_go() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    house.says(&alice, msg(&alice, &bob.name, "slow", 1));
    assert_eq!(house.hub.slim_held_bytes(), 0);
    for number in 2..10 {
        house.says(
            &alice,
            control(&alice, &bob.name, MessageType::GroupClose, number),
        );
    }
    assert!(house.hub.slim_held_bytes() > 1_000);
    house.settle();
    assert_eq!(house.hub.slim_held_bytes(), 0);
    assert_eq!(house.types(&bob).len(), 9);
}

#[test]
fn a_native_line_has_as_many_names_as_it_may_have_channels() {
    let [alice, ..] = people();
    let mut house = House::new();
    let conn = house.native(&alice);
    for id in 0..=256 {
        house.native_subscribes(conn, &at("org/ns/x", id), None);
    }
    house.settle();
    assert_eq!(house.refusals(conn), [Refusal::LimitReached]);
}

#[test]
fn a_native_line_without_room_loses_what_it_does_not_follow() {
    let [person, ..] = people();
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let conn = house.native(&person);
    let (routed, followed) = (at("org/ns/app", 1), at("org/ns/app", 2));
    house.native_subscribes(conn, &routed, None);
    house.native_subscribes(conn, &followed, Some(0));
    house.settle();
    house.news(conn);

    house.handle(crate::hub::Input::Full { conn });
    for number in 1..=5 {
        house.says(&alice, cast(&alice, &routed, "routed", number));
        house.says(&alice, msg(&alice, &followed, "followed", 10 + number));
    }
    house.says(&alice, commit(&alice, &followed, 1, 50));
    house.settle();
    assert!(house.delivered_slim(conn).is_empty());
    house.handle(crate::hub::Input::Drained { conn });
    house.settle();

    let places: Vec<_> = house
        .delivered_slim(conn)
        .iter()
        .map(|it| it.seq.map(|seq| seq.0))
        .collect();
    let all: Vec<_> = (1..=6).map(Some).collect();
    assert_eq!(places, all);
}
