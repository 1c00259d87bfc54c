//! What is stored, and that it is before anybody gets it.

use skytale_slim::{Generation, MessageType, Routed};
use skytale_wire::{
    envelope::Kind,
    id::{ChannelId, Seq},
};

use super::{BOTH, any, at, cast, control, msg};
use crate::hub::{
    Input, SlimDrop, SlimRules,
    slim::StoredSlim,
    tests::house::{HOUR, House, people},
};

/// The log of the one name that has one.
fn only_log(house: &House) -> ChannelId {
    let mut logs = house.store.channels.keys();
    let log = *logs.next().expect("a name has a log");
    assert!(logs.next().is_none(), "only one name was sent to");
    log
}

#[test]
fn a_message_is_stored_before_it_is_passed_on() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let message = msg(&alice, &bob.name, "hello", 1);

        house.says(&alice, message.clone());
        while house.store_one() {
            let stored =
                !house.store.channels.is_empty() && house.store.head(&only_log(&house)) == Seq(1);
            assert!(stored || house.words(&bob).is_empty());
        }

        assert_eq!(house.words(&bob), ["hello"]);
        let record = house.store.envelope(&only_log(&house), Seq(1));
        let kind = match generation {
            Generation::One => Kind::SlimMessageOne,
            Generation::Two => Kind::SlimMessageTwo,
        };
        assert_eq!(record.kind, kind);
        assert_eq!(record.body.0, *message.original(), "as it came");
        assert_eq!(house.hub.counters().slim.archived, 1);
    }
}

#[test]
fn each_name_counts_for_itself_and_control_messages_do_not_count() {
    let mut house = House::new();
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    let room = at("org/ns/room", 77);
    for number in 1..=3 {
        house.says(&alice, cast(&alice, &room, "all", number));
        house.says(
            &alice,
            control(&alice, &room, MessageType::GroupClose, 90 + number),
        );
    }
    house.says(&alice, msg(&alice, &any("org/ns/room"), "any", 4));
    house.settle();

    let heads: Vec<u64> = house
        .store
        .channels
        .values()
        .map(|row| row.head.0)
        .collect();
    assert!(heads == [3, 1] || heads == [1, 3], "{heads:?}");
}

#[test]
fn what_could_not_be_stored_reaches_nobody_and_what_came_behind_it_does() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        house.says(&alice, msg(&alice, &bob.name, "kept", 1));
        house.settle();
        house.says(&alice, msg(&alice, &bob.name, "lost", 2));
        house.says(
            &alice,
            control(&alice, &bob.name, MessageType::GroupClose, 70),
        );

        house.fail_disk();
        house.settle();

        assert_eq!(
            house.types(&bob),
            [MessageType::Msg, MessageType::GroupClose]
        );
        assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::Unstored], 1);
        assert_eq!(house.hub.slim_held_bytes(), 0);

        // Its sender says it again, and the place that was given is given again.
        house.says(&alice, msg(&alice, &bob.name, "lost", 2));
        house.settle();
        assert_eq!(house.words(&bob), ["lost"]);
        assert_eq!(house.store.head(&only_log(&house)), Seq(2));
    }
}

#[test]
fn a_new_run_goes_on_where_the_log_ended() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        house.says(&alice, msg(&alice, &at("org/ns/bob", 2), "one", 1));
        house.settle();

        house.restart();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        house.says(&alice, msg(&alice, &bob.name, "one", 1));
        house.says(&alice, msg(&alice, &bob.name, "two", 2));
        house.settle();

        assert_eq!(
            house.words(&bob),
            ["one", "two"],
            "a repeat goes on, and nothing is stored twice"
        );
        assert_eq!(house.store.head(&only_log(&house)), Seq(2));
    }
}

#[test]
fn a_repeat_goes_on_once_more_and_is_stored_once() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let message = msg(&alice, &bob.name, "hello", 1);

        // While its write is on the way, and when it is stored.
        house.says(&alice, message.clone());
        house.says(&alice, message.clone());
        assert!(house.words(&bob).is_empty());
        house.settle();
        house.says(&alice, message);
        house.settle();

        assert_eq!(house.words(&bob), ["hello", "hello", "hello"]);
        assert_eq!(house.store.head(&only_log(&house)), Seq(1));
        assert_eq!(house.hub.counters().slim.repeated, 2);
    }
}

#[test]
fn a_repeat_to_one_member_is_what_was_said_to_all() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let room = at("org/ns/room", 77);
        house.says(&alice, cast(&alice, &room, "hello", 1));
        house.settle();

        house.says(&alice, cast(&alice, &bob.name, "hello", 1));
        house.settle();

        assert_eq!(house.words(&bob), ["hello"]);
        assert_eq!(house.store.head(&only_log(&house)), Seq(1));
    }
}

#[test]
fn without_an_archive_everything_goes_on_at_once() {
    for generation in BOTH {
        let mut house = House::without_archive();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);

        house.says(&alice, msg(&alice, &bob.name, "hello", 1));

        assert_eq!(house.words(&bob), ["hello"]);
        assert!(house.writes.is_empty());
    }
}

/// Lets so much time go by that nothing is left of what was said before.
fn wait_for_all_to_go(house: &mut House) {
    for _ in 0..10 {
        house.wait(24 * HOUR);
        house.settle();
    }
}

/// Its numbers began again, and a reader that had come to the fifth place got nothing until there
/// were more.
#[test]
fn old_messages_go_and_the_places_of_an_empty_log_go_on() {
    for restarted in [false, true] {
        let [person, ..] = people();
        let mut house = House::new();
        let alice = house.client(BOTH[1], "org/ns/alice", 1);
        let bob = at("org/ns/bob", 2);
        for number in 1..=5 {
            house.says(&alice, msg(&alice, &bob, "old", number));
        }
        house.settle();
        assert_eq!(house.hub.slim_logs(), 1);

        wait_for_all_to_go(&mut house);
        let id = only_log(&house);
        assert_eq!(house.store.channels[&id].pruned, Seq(5));
        if restarted {
            house.restart();
        }
        assert_eq!(house.hub.slim_logs(), 0);
        let alice = house.client(BOTH[1], "org/ns/alice", 1);
        let reader = house.native(&person);
        house.native_subscribes(reader, &bob, Some(5));
        for number in 11..=13 {
            house.says(&alice, msg(&alice, &bob, "new", number));
        }
        house.settle();

        let places: Vec<_> = house.given(reader).into_iter().map(|it| it.0).collect();
        assert_eq!(places, [Some(6), Some(7), Some(8)]);
        assert_eq!(house.hub.slim_logs(), 1);
        // It grows old and empty like any other, also after the relay was started again.
        house.restart();
        assert_eq!(house.hub.slim_logs(), 1);
        wait_for_all_to_go(&mut house);
        assert_eq!(house.hub.slim_logs(), 0);
        assert_eq!(house.store.channels[&id].pruned, Seq(8));
    }
}

#[test]
fn a_place_that_is_not_there_yet_is_of_an_earlier_log_and_all_of_this_one_is_new() {
    let [person, ..] = people();
    let mut house = House::new();
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    let bob = at("org/ns/bob", 2);
    for number in 1..=3 {
        house.says(&alice, msg(&alice, &bob, "new", number));
    }
    house.settle();
    let reader = house.native(&person);
    house.native_subscribes(reader, &bob, Some(500));
    house.settle();
    let places: Vec<_> = house.given(reader).into_iter().map(|it| it.0).collect();
    assert_eq!(places, [Some(1), Some(2), Some(3)]);
}

#[test]
fn empty_logs_make_room_the_oldest_first_and_not_under_whoever_follows_them() {
    let [person, ..] = people();
    let rules = SlimRules {
        logs_max: 3,
        ..SlimRules::default()
    };
    let mut house = House::with_slim(rules);
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    for id in 1..=3 {
        house.says(&alice, msg(&alice, &at("org/ns/x", id), "x", 1));
        house.settle();
        house.wait(24 * HOUR);
    }
    wait_for_all_to_go(&mut house);
    assert_eq!((house.hub.slim_logs(), house.store.channels.len()), (0, 3));
    let reader = house.native(&person);
    house.native_subscribes(reader, &at("org/ns/x", 1), Some(1));
    house.settle();
    let head = |house: &House, id| {
        let log = crate::hub::slim::log_of(at("org/ns/x", id).address);
        house.store.channels.get(&log).map(|row| row.head.0)
    };
    assert!((1..=3).all(|id| head(&house, id) == Some(1)));

    for (id, number) in [(4, 2), (5, 3), (6, 4)] {
        house.says(&alice, msg(&alice, &at("org/ns/x", id), "x", number));
        house.settle();
    }

    let heads = [1, 2, 3, 4, 5, 6].map(|id| head(&house, id));
    assert_eq!(heads, [Some(1), None, None, Some(1), Some(1), None]);
    assert_eq!(house.hub.counters().slim.unarchived, 1);
    house.says(&alice, msg(&alice, &at("org/ns/x", 1), "x", 5));
    house.settle();
    let places: Vec<_> = house.given(reader).into_iter().map(|it| it.0).collect();
    assert_eq!(places, [Some(2)]);
    assert_eq!(house.hub.slim_logs(), 3);
}

#[test]
fn what_is_kept_of_slim_is_told_from_a_channel_by_its_first_byte() {
    let mut house = House::new();
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    house.says(&alice, msg(&alice, &at("org/ns/bob", 2), "one", 1));
    house.settle();
    let row = house.store.channels.values().next().unwrap().clone();

    assert_eq!(row.state[0], 0x82, "an array of two");
    assert!(matches!(StoredSlim::read(&row), Ok(StoredSlim::Log(_))));
    for end in 0..row.state.len() {
        let cut = crate::archive::StoredChannel {
            state: row.state.slice(..end),
            ..row.clone()
        };
        assert!(StoredSlim::read(&cut).is_err(), "at {end}");
    }
}

#[test]
fn what_nobody_could_take_is_not_stored() {
    let mut house = House::new();
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    let words = "x".repeat(skytale_slim::CLIENT_BYTES_MAX);
    let huge: Routed = msg(&alice, &at("org/ns/bob", 2), &words, 1);

    house.says(&alice, huge);
    house.settle();

    assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::TooLarge], 1);
    assert!(house.store.channels.is_empty());
    house.handle(Input::SlimLost);
    assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::Unstored], 1);
}
