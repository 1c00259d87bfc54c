//! Who reads what: nobody before its entry or after its removal, and whoever is slow loses nothing.

use skytale_wire::{
    frame::{Subscribed, ToAgent, ToRelay},
    id::{Epoch, Seq},
    refusal::Refusal,
};

use super::house::{House, delivered, limits, nacks, people};
use crate::hub::{Answer, Input};

#[test]
fn a_removed_member_reads_nothing_later_on_any_path() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob, &carol]);
    house.subscribe(conns[1], Seq(1));
    house.subscribe(conns[2], Seq(1));
    house.settle();
    house.news(conns[1]);

    // Everything is given its place before anything is stored.
    let before = house.message(Epoch(1));
    let removal = house.removing(Epoch(1), bob.id);
    let after = house.message(Epoch(2));
    house.say(conns[0], ToRelay::Publish(before));
    house.say(conns[0], ToRelay::Commit(removal));
    house.say(conns[0], ToRelay::Publish(after));
    let attempt = house.message(Epoch(2));
    house.say(conns[1], ToRelay::Publish(attempt));
    house.settle();

    let news = house.news(conns[1]);
    assert_eq!(delivered(&news), [2, 3]);
    let refused: Vec<_> = nacks(&news)
        .map(|nack| (nack.refusal, nack.epoch))
        .collect();
    assert_eq!(refused, [(Refusal::ChannelUnknown, None)]);
    assert_eq!(house.places(conns[2]), [2, 3, 4]);

    // Catching up, on the same and on another connection, from the store and from afar.
    house.restart();
    for after in [0, 1, 3, 4, 100] {
        let conn = house.open(&bob);
        house.news(conn);
        house.subscribe(conn, Seq(after));
        house.settle();
        let more = house.message(Epoch(2));
        let speaker = house.open(&alice);
        house.say(speaker, ToRelay::Publish(more));
        house.settle();
        let news = house.news(conn);
        let ToAgent::Subscribed(Subscribed {
            epoch, head, hash, ..
        }) = &news[0]
        else {
            panic!("Subscribed expected, not {news:?}");
        };
        assert_eq!((*epoch, *head), (Epoch(2), Seq(3)));
        assert_eq!(hash.is_some(), after <= 3);
        let expected: Vec<u64> = (after + 1..=3).collect();
        assert_eq!(delivered(&news), expected, "after {after}");
    }
}

#[test]
fn a_new_member_reads_from_its_own_entry_on() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    for _ in 0..4 {
        let message = house.message(Epoch(0));
        house.say(conns[0], ToRelay::Publish(message));
    }
    let adding = house.adding(Epoch(0), &[bob.id]);
    house.say(conns[0], ToRelay::Commit(adding));
    house.settle();

    let conn = house.open(&bob);
    house.subscribe(conn, Seq(0));
    house.settle();

    assert_eq!(house.places(conn), [5]);
}

#[test]
fn a_slow_reader_falls_behind_catches_up_and_loses_nothing() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    house.handle(Input::Full { conn: conns[1] });
    for _ in 0..10 {
        let message = house.message(Epoch(1));
        house.say(conns[0], ToRelay::Publish(message));
    }
    house.settle();
    assert_eq!(house.places(conns[1]), [0; 0]);
    assert!(house.reads.is_empty(), "no read while there is no room");

    house.wait(limits().slow_reader_ms - 1);
    house.handle(Input::Drained { conn: conns[1] });
    // While it catches up, more comes.
    house.answer_one();
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.settle();
    assert_eq!(house.places(conns[1]), (2..=12).collect::<Vec<_>>());
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.settle();
    assert!(house.reads.is_empty());
    assert_eq!(house.places(conns[1]), [13], "live again");

    house.wait(2);
    assert!(house.closed.is_empty(), "it drained in time");
    house.handle(Input::Full { conn: conns[1] });
    house.wait(limits().slow_reader_ms);
    assert_eq!(house.closed[&conns[1]], (Refusal::SlowReader, true));
}

/// A line with slots may need minutes for its queue, by agreement.
#[test]
fn a_reader_that_gets_on_is_not_too_slow() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();

    for _ in 0..5 {
        house.handle(Input::Full { conn: conns[1] });
        house.wait(limits().slow_reader_ms - 1);
    }
    assert!(house.closed.is_empty(), "full all the time, and getting on");

    house.wait(1);
    assert_eq!(house.closed[&conns[1]], (Refusal::SlowReader, true));
}

#[test]
fn an_unreadable_archive_is_tried_again() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[0], Seq(0));
    house.answer_one();
    let (conn, query) = house.reads.pop_front().unwrap();
    house.handle(Input::Answered {
        conn,
        answer: Answer::Unreadable(query),
    });
    house.settle();
    assert_eq!(house.places(conns[0]), [0; 0]);

    house.wait(1_000);
    house.settle();
    assert_eq!(house.places(conns[0]), [1]);
}
