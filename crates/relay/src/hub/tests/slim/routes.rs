//! Who gets what.

use skytale_slim::{MessageType, SubscriptionId};

use super::{BOTH, Heard, any, at, cast, control, msg, subscription};
use crate::hub::{SlimDrop, tests::house::House};

#[test]
fn a_subscription_is_answered_and_its_end_too_even_of_one_that_is_unknown() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        for (begins, id, answered) in [
            (true, 9, true),
            (false, 9, true),
            (false, 77, true),
            (true, 0, false),
        ] {
            let message = subscription(&alice, &at("org/ns/room", 3), begins, id);
            house.says(&alice, message);
            let heard = house.heard(&alice);
            let right =
                |it: &Heard| matches!(it, Heard::Answer(SubscriptionId(to), Ok(())) if *to == id);
            assert_eq!(
                heard.iter().any(right),
                answered,
                "{begins} {id}: {heard:?}"
            );
        }
    }
}

#[test]
fn what_is_for_one_reaches_it_and_nobody_else() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        let carol = house.client(generation, "org/ns/carol", 3);

        house.says(&alice, msg(&alice, &bob.name, "hello", 1));
        house.settle();

        assert_eq!(house.words(&bob), ["hello"]);
        assert!(house.words(&alice).is_empty() && house.words(&carol).is_empty());
    }
}

#[test]
fn what_is_for_all_reaches_all_but_its_sender() {
    for generation in BOTH {
        let mut house = House::new();
        let room = at("org/ns/room", 77);
        let all: Vec<_> = (1..=4)
            .map(|id| house.client(generation, "org/ns/app", id))
            .collect();
        for client in &all {
            house.subscribes(client, &room);
        }
        house.says(&all[0], cast(&all[0], &room, "all", 1));
        house.settle();

        assert!(house.words(&all[0]).is_empty());
        for client in &all[1..] {
            assert_eq!(house.words(client), ["all"]);
        }
    }
}

#[test]
fn what_is_for_any_one_goes_round() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 9);
        let workers = [1, 2].map(|id| house.client(generation, "org/ns/worker", id));
        for number in 1..=4 {
            house.says(&alice, msg(&alice, &any("org/ns/worker"), "work", number));
        }
        house.settle();
        for worker in &workers {
            assert_eq!(house.words(worker).len(), 2);
        }
    }
}

#[test]
fn generations_do_not_hear_each_other() {
    let mut house = House::new();
    let old = house.client(BOTH[0], "org/ns/bob", 2);
    let new = house.client(BOTH[1], "org/ns/bob", 2);
    let alice = house.client(BOTH[1], "org/ns/alice", 1);
    house.says(&alice, msg(&alice, &new.name, "new", 1));
    house.settle();
    assert_eq!(house.words(&new), ["new"]);
    assert!(house.words(&old).is_empty());
}

#[test]
fn nothing_overtakes_a_message_of_the_same_sender() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);

        house.says(&alice, msg(&alice, &bob.name, "first", 1));
        house.says(
            &alice,
            control(&alice, &bob.name, MessageType::GroupClose, 70),
        );
        house.says(&bob, control(&bob, &alice.name, MessageType::MsgAck, 71));

        assert!(house.types(&bob).is_empty(), "not stored yet");
        assert_eq!(
            house.types(&alice),
            [MessageType::MsgAck],
            "nothing of Bob's waits"
        );
        house.settle();
        assert_eq!(
            house.types(&bob),
            [MessageType::Msg, MessageType::GroupClose]
        );
    }
}

#[test]
fn a_stream_that_is_gone_leaves_nothing_behind() {
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = house.client(generation, "org/ns/bob", 2);
        house.says(&bob, msg(&bob, &alice.name, "last word", 1));
        house.handle(crate::hub::Input::Gone { conn: bob.conn });
        house.settle();
        assert_eq!(house.words(&alice), ["last word"]);

        house.says(
            &alice,
            control(&alice, &bob.name, MessageType::LeaveRequest, 1),
        );
        house.settle();

        assert!(!house.slim.contains_key(&bob.conn));
        assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::Nobody], 1);
        assert_eq!(house.hub.slim_links(), 1);
        assert!(!house.hub.slim.remembers(bob.conn));
    }
}

#[test]
fn the_relay_answers_what_is_sent_to_its_own_name() {
    let relay = any(crate::hub::RELAY_NAME);
    for generation in BOTH {
        let mut house = House::new();
        let alice = house.client(generation, "org/ns/alice", 1);
        let ping = super::ping(&alice, &relay);
        let kind = ping.session().unwrap().message;

        house.says(&alice, ping);
        house.says(&alice, msg(&alice, &relay, "anybody?", 1));
        house.settle();

        let heard = house.heard(&alice);
        let [answer] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(answer.message_type(), Some(kind));
        assert_eq!(house.hub.counters().slim.pings, 1);
        assert_eq!(house.hub.slim_logs(), 0);
    }
}
