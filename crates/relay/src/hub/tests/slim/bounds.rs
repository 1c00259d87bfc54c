//! What is bounded, and what happens there.

use skytale_slim::{Generation, MessageType, SUBSCRIPTIONS_PER_LINK_MAX};
use skytale_wire::refusal::Refusal;

use super::{COMMIT, Heard, at, cast, commit, control, handshake, msg, said_by};
use crate::hub::{
    SlimRules,
    tests::house::{House, nacks, people},
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
fn a_name_forgets_the_group_that_has_been_quiet_longest() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let room = at("org/ns/room", 5);
    let says = |house: &mut House, group: u8, epoch, number| {
        let said = handshake(&alice, &room, epoch, number, &[group], COMMIT);
        house.says(&alice, said);
        house.settle();
        house.types(&alice)
    };
    for group in 0..64_u8 {
        says(&mut house, group, 5, 100 + u32::from(group));
    }
    says(&mut house, 0, 6, 200);
    assert_eq!(says(&mut house, 64, 5, 201), [MessageType::GroupAck]);
    assert_eq!(house.hub.counters().slim.commits_accepted, 66);

    // The second was the quietest: its count begins again. The first is remembered, and the last.
    assert_eq!(says(&mut house, 1, 2, 202), [MessageType::GroupAck]);
    assert_eq!(says(&mut house, 0, 6, 203), [MessageType::GroupNack]);
    assert_eq!(says(&mut house, 64, 5, 204), [MessageType::GroupNack]);
}

/// The order was a table that all shared: whoever filled it kept everybody else's new groups from
/// being ordered.
#[test]
fn who_fills_his_share_takes_nothing_from_the_order_of_others() {
    for archive in [true, false] {
        let mut house = House::with_slim(SlimRules {
            archive,
            logs_max: 6,
            logs_per_account_max: 4,
            ..SlimRules::default()
        });
        let ends = house.now.plus(1_000_000);
        let right = super::account("greedy", &["greedy/*"], ends);
        let mut greedy = house.client_by(right, Generation::Two, "greedy/ns/greedy", 1);
        for id in 0..20 {
            // One session has one name; here are many.
            greedy.name = at("greedy/ns/greedy", id);
            let number = u32::try_from(id).unwrap();
            let room = at("greedy/ns/room", id);
            house.says(&greedy, commit(&greedy, &room, 1, 100 + number));
        }
        house.settle();

        let right = super::account("honest", &["org/*"], ends);
        let honest = house.client_by(right, Generation::Two, "org/ns/alice", 2);
        let room = at("org/ns/room", 5);
        for (epoch, number, said) in [
            (1, 10, MessageType::GroupAck),
            (1, 11, MessageType::GroupNack),
            (2, 12, MessageType::GroupAck),
        ] {
            house.says(&honest, commit(&honest, &room, epoch, number));
            house.settle();
            assert_eq!(house.types(&honest), [said], "{archive} {number}");
        }
        let counters = &house.hub.counters().slim;
        // What has a log stays in order. Without logs the newest are, which a restart forgets too.
        let unordered = if archive { 16 } else { 0 };
        assert_eq!(counters.commits_unordered, unordered);
        assert_eq!(counters.unarchived, unordered);
        assert_eq!(counters.commits_accepted, 22 - unordered);
        assert_eq!(house.hub.slim.ordered(), 5, "{archive}");
        assert_eq!(house.types(&greedy).len() as u64, 20 - unordered);
    }
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

/// They counted nothing, so that one stream could make the relay keep as many as it liked.
#[test]
fn answers_that_wait_behind_a_write_are_counted_and_let_go() {
    let mut house = House::new();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    house.says(&alice, msg(&alice, &bob.name, "slow", 1));
    for _ in 0..10_000 {
        house.subscribes(&alice, &alice.name);
    }
    let held = house.hub.slim_held_bytes();
    assert!(held > 10_000 * 64, "{held}");
    house.settle();
    assert_eq!(house.hub.slim_held_bytes(), 0);
    assert_eq!(house.heard(&alice).len(), 10_000);
}

#[test]
fn answers_to_native_agents_count_as_well_and_are_refused_when_a_write_fails() {
    let [person, ..] = people();
    let mut house = House::new();
    let native = house.native(&person);
    let bob = house.client(Generation::Two, "org/ns/bob", 2);
    let app = at("org/ns/app", 7);
    let said = said_by(Generation::Two, &app, &bob.name, "hello", 5, 1);
    for fails in [false, true] {
        let said = if fails {
            said_by(Generation::Two, &app, &bob.name, "lost", 5, 2)
        } else {
            said.clone()
        };
        house.native_publishes(native, &said);
        let before = house.hub.slim_held_bytes();
        for _ in 0..100 {
            house.native_publishes(native, &said);
        }
        // The repeats themselves wait as well: each weighs what it is, and its answer besides.
        let each = (house.hub.slim_held_bytes() - before) / 100;
        assert!(each > 2 * said.original().len() + 128, "{each}");
        if fails {
            house.fail_disk();
        }
        house.settle();
        assert_eq!(house.hub.slim_held_bytes(), 0);
        let news = house.news(native);
        let refused = nacks(&news).filter(|it| it.refusal == Refusal::Unavailable);
        assert_eq!(
            (news.len(), refused.count()),
            (101, if fails { 101 } else { 0 })
        );
    }
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
