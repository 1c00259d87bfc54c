//! Native agents at SLIM's names.

use skytale_slim::{Generation, MessageType, Name, Routed, SessionKind};
use skytale_wire::{
    frame::{
        SLIM_MESSAGE_BYTES_MAX, SlimLogs, SlimPublished, SlimSubscribed, SlimUnsubscribe,
        TakeSlimLogs, ToAgent, ToRelay,
    },
    id::{Seq, SlimInstance},
    refusal::Refusal,
};

use super::{
    BOTH, Client, any, application, at, commit, control, draft, msg, publishing, said_by,
    subscription, wire_name,
};
use crate::hub::{
    Conn, Input, SlimDrop,
    tests::house::{House, people},
};

/// A client, a native agent and a name that both are to use.
fn meet(generation: Generation) -> (House, Client, Conn, Name) {
    let [person, ..] = people();
    let mut house = House::new();
    let alice = house.client(generation, "org/ns/alice", 1);
    let native = house.native(&person);
    (house, alice, native, at("org/ns/app", 7))
}

/// Asks who is there: any one of them answers.
fn discovery(client: &Client, to: &Name, number: u32) -> Routed {
    draft(
        client.generation,
        &client.name,
        to,
        1,
        SessionKind::PointToPoint,
        MessageType::DiscoveryRequest,
        (5, number),
        application("who"),
    )
}

#[test]
fn a_native_agent_gets_what_a_client_says_byte_by_byte() {
    for generation in BOTH {
        let (mut house, alice, native, app) = meet(generation);
        house.native_subscribes(native, &app, None);
        house.settle();
        house.news(native);
        let said = msg(&alice, &app, "hello", 1);
        let close = control(&alice, &app, MessageType::GroupClose, 2);

        house.says(&alice, said.clone());
        house.says(&alice, close.clone());
        assert!(house.delivered_slim(native).is_empty(), "not stored yet");
        house.settle();

        let got = house.delivered_slim(native);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].message.0, *said.original());
        assert_eq!((got[0].seq, got[1].seq), (Some(Seq(1)), None));
        assert_eq!(got[1].message.0, *close.original());
    }
}

#[test]
fn a_client_gets_what_a_native_agent_says_and_the_sender_hears_of_it_when_it_is_stored() {
    for generation in BOTH {
        let (mut house, alice, native, app) = meet(generation);
        let said = said_by(generation, &app, &alice.name, "hello", 5, 1);
        house.native_publishes(native, &said);
        house.native_publishes(native, &said);
        assert!(house.news(native).is_empty());
        house.settle();
        house.native_publishes(native, &said);
        house.settle();

        assert_eq!(house.words(&alice), ["hello", "hello", "hello"]);
        let places: Vec<_> = house
            .news(native)
            .into_iter()
            .map(|frame| {
                let ToAgent::SlimPublished(SlimPublished { seq, .. }) = frame else {
                    panic!("{frame:?}")
                };
                seq
            })
            .collect();
        assert_eq!(places, [Some(Seq(1)); 3], "the same message has one place");
    }
}

#[test]
fn what_is_not_stored_has_no_place() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    let sender = Client {
        name: app,
        ..house.client(Generation::Two, "org/ns/x", 3)
    };
    let close = control(&sender, &alice.name, MessageType::GroupClose, 2);
    house.native_publishes(native, &close);
    house.settle();
    assert_eq!(house.types(&alice), [MessageType::GroupClose]);
    let news = house.news(native);
    assert!(
        matches!(
            news[..],
            [ToAgent::SlimPublished(SlimPublished { seq: None, .. })]
        ),
        "{news:?}"
    );
}

#[test]
fn a_log_is_read_from_a_cursor_and_then_live_and_nothing_comes_twice() {
    for generation in BOTH {
        let (mut house, alice, native, app) = meet(generation);
        for number in 1..=10 {
            house.says(&alice, msg(&alice, &app, &format!("m{number}"), number));
        }
        house.settle();

        house.native_subscribes(native, &app, Some(2));
        // While it is being read, more comes.
        for number in 11..=14 {
            house.says(&alice, msg(&alice, &app, &format!("m{number}"), number));
            house.store_one();
            house.answer_one();
        }
        house.settle();
        house.says(&alice, msg(&alice, &app, "m15", 15));
        house.settle();

        let news = house.received[&native].clone();
        assert!(
            matches!(
                news[0],
                ToAgent::SlimSubscribed(SlimSubscribed {
                    head: Seq(10),
                    pruned: Seq(0),
                    ..
                })
            ),
            "{news:?}"
        );
        let expected: Vec<_> = (3..=15).map(|seq| (Some(seq), format!("m{seq}"))).collect();
        assert_eq!(house.given(native), expected);
    }
}

#[test]
fn whoever_follows_a_log_misses_nothing_that_somebody_else_was_given() {
    let (mut house, alice, native, _) = meet(Generation::Two);
    let worker = house.client(Generation::Two, "org/ns/worker", 1);
    let work = any("org/ns/worker");
    house.native_subscribes(native, &work, Some(0));
    house.settle();
    for number in 1..=4 {
        house.says(&alice, msg(&alice, &work, "work", number));
        house.settle();
    }
    house.says(&alice, msg(&alice, &work, "work", 4));
    house.settle();

    let places: Vec<_> = house.given(native).into_iter().map(|it| it.0).collect();
    assert_eq!(places, [Some(1), Some(2), Some(3), Some(4)]);
    assert!(!house.words(&worker).is_empty());
}

/// It was in the turn like everybody, and let pass what it had from the log: half of the work was
/// done by nobody.
#[test]
fn whoever_follows_takes_no_turn_from_those_who_do_the_work() {
    for generation in BOTH {
        let (mut house, alice, native, _) = meet(generation);
        let work = any("org/ns/worker");
        house.native_subscribes(native, &work, Some(0));
        house.native_subscribes(native, &at("org/ns/worker", 9), Some(0));
        house.settle();
        house.news(native);
        let worker = house.client(generation, "org/ns/worker", 1);
        for number in 1..=4 {
            house.says(
                &alice,
                msg(&alice, &work, &format!("work {number}"), number),
            );
            house.says(&alice, discovery(&alice, &work, 10 + number));
        }
        house.settle();

        let types = house.types(&worker);
        let of = |wanted| types.iter().filter(|it| **it == wanted).count();
        assert_eq!(of(MessageType::Msg), 4);
        assert_eq!(of(MessageType::DiscoveryRequest), 4);
        let places: Vec<_> = house.given(native).into_iter().map(|it| it.0).collect();
        assert_eq!(places, (1..=4).map(Some).collect::<Vec<_>>());

        // What is for all is for those who follow, too; and where nobody else is, they are asked.
        house.says(&alice, control(&alice, &work, MessageType::GroupClose, 30));
        house.settle();
        assert_eq!(house.types(&worker), [MessageType::GroupClose]);
        assert_eq!(house.delivered_slim(native).len(), 1);
        house.handle(Input::Gone { conn: worker.conn });
        house.says(&alice, discovery(&alice, &work, 31));
        house.settle();
        assert_eq!(house.delivered_slim(native).len(), 1);
    }
}

/// Who works and begins to follow, or the other way round, changes places at once.
#[test]
fn a_line_takes_turns_again_when_it_follows_no_longer() {
    let (mut house, alice, native, _) = meet(Generation::Two);
    let work = any("org/ns/worker");
    let worker = house.client(Generation::Two, "org/ns/worker", 1);
    for (after, turns) in [(None, 2), (Some(0), 4), (None, 2)] {
        house.native_subscribes(native, &work, after);
        for number in 1..=4 {
            house.says(&alice, discovery(&alice, &work, number));
        }
        house.settle();
        assert_eq!(house.types(&worker).len(), turns, "{after:?}");
        assert_eq!(house.delivered_slim(native).len(), 4 - turns);
    }
    house.handle(Input::Gone { conn: native });
    assert!(!house.hub.slim.remembers(native));
}

#[test]
fn a_log_that_does_not_exist_yet_can_be_followed() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    house.native_subscribes(native, &app, Some(7));
    house.settle();
    house.says(&alice, msg(&alice, &app, "first", 1));
    house.settle();
    assert_eq!(house.given(native), [(Some(1), "first".to_owned())]);
}

#[test]
fn following_outlives_a_disk_that_fails() {
    for generation in BOTH {
        let (mut house, alice, native, app) = meet(generation);
        house.native_subscribes(native, &app, Some(0));
        house.settle();
        house.says(&alice, msg(&alice, &app, "one", 1));
        house.settle();
        house.says(&alice, msg(&alice, &app, "two", 2));
        house.apply_one();
        house.says(&alice, msg(&alice, &app, "three", 3));
        house.fail_disk();
        house.settle();
        house.says(&alice, msg(&alice, &app, "three", 3));
        house.settle();

        let expected = [
            (Some(1), "one".to_owned()),
            (Some(2), "two".to_owned()),
            (Some(3), "three".to_owned()),
        ];
        assert_eq!(house.given(native), expected);
    }
}

#[test]
fn a_message_larger_than_a_frame_is_left_out_and_its_place_is_missing() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    let huge = "x".repeat(SLIM_MESSAGE_BYTES_MAX);
    house.says(&alice, msg(&alice, &app, &huge, 1));
    house.native_subscribes(native, &app, Some(0));
    house.settle();
    house.says(&alice, msg(&alice, &app, "small", 2));
    house.says(&alice, msg(&alice, &app, &huge, 3));
    house.says(&alice, msg(&alice, &app, "smaller", 4));
    house.settle();

    let expected = [
        (Some(2), "small".to_owned()),
        (Some(4), "smaller".to_owned()),
    ];
    assert_eq!(house.given(native), expected);
    assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::TooLarge], 2);
}

#[test]
fn what_is_ended_delivers_nothing_more() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    for after in [None, Some(0)] {
        house.native_subscribes(native, &app, after);
        house.settle();
        house.say(
            native,
            ToRelay::SlimUnsubscribe(SlimUnsubscribe {
                name: wire_name(app.address),
            }),
        );
        house.news(native);
        house.says(&alice, msg(&alice, &app, "hello", 1));
        house.settle();
        assert!(house.news(native).is_empty());
    }
    house.handle(Input::Gone { conn: native });
    assert!(!house.hub.slim.remembers(native));
}

#[test]
fn bad_publications_are_refused() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    let good = said_by(Generation::Two, &app, &alice.name, "x", 5, 1);
    let subscribes = subscription(&alice, &app, true, 1);
    let mut frames = Vec::new();
    for (message, generation) in [(&good, 3), (&good, 1), (&subscribes, 2)] {
        let id = house.id();
        let mut frame = publishing(id, message);
        frame.generation = generation;
        frames.push(frame);
    }
    let id = house.id();
    let mut huge = publishing(id, &good);
    huge.message = vec![0; SLIM_MESSAGE_BYTES_MAX + 1].into();
    frames.push(huge);
    for frame in frames {
        house.say(native, ToRelay::SlimPublish(frame));
    }
    house.settle();
    let refusals = house.refusals(native);
    assert_eq!(refusals.first(), Some(&Refusal::Malformed));
    assert_eq!(refusals.last(), Some(&Refusal::TooLarge));
    assert!(refusals.contains(&Refusal::Malformed), "{refusals:?}");
    assert!(house.hub.slim_logs() <= 1);
}

#[test]
fn a_stale_commit_of_a_native_agent_is_refused_to_it() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    let moderator = Client {
        name: app,
        ..house.client(Generation::Two, "org/ns/x", 3)
    };
    let control = at("org/ns/room", 5);
    house.says(&alice, commit(&alice, &control, 3, 10));
    house.native_publishes(native, &commit(&moderator, &control, 3, 20));
    assert!(house.news(native).is_empty(), "not stored yet");
    house.settle();
    assert_eq!(house.refusals(native), [Refusal::StaleEpoch]);

    house.native_publishes(native, &commit(&moderator, &control, 4, 21));
    house.settle();
    let news = house.news(native);
    assert!(
        matches!(
            news[..],
            [ToAgent::SlimPublished(SlimPublished {
                seq: Some(Seq(2)),
                ..
            })]
        ),
        "{news:?}"
    );
}

#[test]
fn a_native_agent_is_told_when_it_could_not_be_stored() {
    let (mut house, alice, native, app) = meet(Generation::Two);
    house.native_publishes(
        native,
        &said_by(Generation::Two, &app, &alice.name, "x", 5, 1),
    );
    house.fail_disk();
    house.settle();
    assert_eq!(house.refusals(native), [Refusal::Unavailable]);
    assert!(house.words(&alice).is_empty());
}

#[test]
fn the_logs_of_a_name_are_listed_by_their_instances() {
    let (mut house, alice, native, _) = meet(Generation::Two);
    let name = any("org/ns/app");
    for (number, to) in (1..).zip([
        &at("org/ns/app", 9),
        &name,
        &at("org/ns/app", 3),
        &at("org/ns/apq", 1),
    ]) {
        house.says(&alice, msg(&alice, to, "x", number));
    }
    house.settle();
    for (after, expected) in [
        (None, vec![None, Some(3), Some(9)]),
        (Some(3), vec![Some(9)]),
    ] {
        let id = house.id();
        house.say(
            native,
            ToRelay::TakeSlimLogs(TakeSlimLogs {
                id,
                components: name.address.components.0,
                after: after.map(SlimInstance::from),
            }),
        );
        let news = house.news(native);
        let [ToAgent::SlimLogs(SlimLogs { logs, .. })] = &news[..] else {
            panic!("{news:?}")
        };
        let instances: Vec<_> = logs
            .iter()
            .map(|log| log.instance.map(|id| id.number()))
            .collect();
        assert_eq!(instances, expected);
        assert!(
            logs.iter()
                .all(|log| (log.head, log.pruned) == (Seq(1), Seq(0)))
        );
    }
}
