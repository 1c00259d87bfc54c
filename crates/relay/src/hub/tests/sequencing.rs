//! What has a place, and who is told when: nothing before it is stored, nothing twice, one commit an
//! epoch, and each sender's order kept.

use skytale_wire::{
    envelope::{RosterChange, content_hash},
    frame::{Create, Nack, Publish, Published, ToAgent, ToRelay},
    id::{Epoch, Seq},
    refusal::Refusal,
};

use super::house::{CHANNEL, House, people};
use crate::{hub::Input, limits::Rate};

#[test]
fn nothing_is_acknowledged_or_delivered_before_it_is_stored() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let first = house.message(Epoch(1));
    let second = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(first.clone()));
    house.say(conns[0], ToRelay::Publish(second));

    assert_eq!(house.news(conns[0]), []);
    assert_eq!(house.news(conns[1]), []);
    house.store_one();
    let published = Published {
        channel: CHANNEL,
        id: first.id,
        seq: Seq(2),
    };
    assert_eq!(house.news(conns[0]), [ToAgent::Published(published)]);
    assert_eq!(house.places(conns[1]), [2]);
    house.store_one();
    assert_eq!(house.places(conns[1]), [3]);
    assert_eq!(house.hub.counters().delivered, 2);
    assert_eq!(house.hub.counters().published, 2);
}

#[test]
fn the_same_publish_again_gets_the_same_answer() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let message = house.message(Epoch(1));
    let published = ToAgent::Published(Published {
        channel: CHANNEL,
        id: message.id,
        seq: Seq(2),
    });

    // In flight: once for each connection that asks, however often.
    for _ in 0..3 {
        house.say(conns[1], ToRelay::Publish(message.clone()));
    }
    let again = house.open(&bob);
    house.news(again);
    house.say(again, ToRelay::Publish(message.clone()));
    house.settle();
    assert_eq!(house.news(again), vec![published.clone()]);
    assert_eq!(house.closed[&conns[1]], (Refusal::Replaced, false));

    // Stored, but the driver's lookup is older than that.
    house.handle(Input::Frame {
        conn: again,
        frame: ToRelay::Publish(message.clone()),
        earlier: None,
    });
    assert_eq!(house.news(again), vec![published.clone()]);

    // After a removal and a restart, before every other check.
    let removal = house.removing(Epoch(1), bob.id);
    house.say(conns[0], ToRelay::Commit(removal));
    house.settle();
    house.restart();
    let late = house.open(&bob);
    house.news(late);
    house.say(late, ToRelay::Publish(message));
    assert_eq!(house.news(late), [published]);
    assert_eq!(house.store.head(&CHANNEL), Seq(3));
}

#[test]
fn one_commit_takes_an_epoch_and_the_loser_learns_which_once_it_is_stored() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let winner = house.committing(Epoch(1), &RosterChange::default());
    let loser = house.committing(Epoch(1), &RosterChange::default());
    let stale = house.message(Epoch(1));

    house.say(conns[0], ToRelay::Commit(winner.clone()));
    house.say(conns[1], ToRelay::Commit(loser.clone()));
    house.say(conns[1], ToRelay::Publish(stale));
    assert_eq!(house.news(conns[1]), [], "the winner is not durable yet");
    house.settle();

    let news = house.news(conns[1]);
    let [ToAgent::Nack(commit), ToAgent::Nack(publish)] = news.as_slice() else {
        panic!("two refusals expected, not {news:?}");
    };
    assert_eq!((commit.id, commit.refusal), (loser.id, Refusal::StaleEpoch));
    assert_eq!(commit.epoch, Some(Epoch(2)));
    let place = commit.winner.unwrap();
    assert_eq!(place.seq, Seq(2));
    assert_eq!(
        place.content,
        content_hash(&winner.body, Some(&winner.change))
    );
    assert_eq!(publish.refusal, Refusal::StaleEpoch);
    assert_eq!(publish.epoch, Some(Epoch(2)));

    // Also from the store alone.
    house.restart();
    let bob_again = house.open(&bob);
    house.news(bob_again);
    house.say(bob_again, ToRelay::Commit(loser));
    let [ToAgent::Nack(Nack { winner, .. })] = house.news(bob_again)[..] else {
        panic!("a refusal expected");
    };
    assert_eq!(winner, Some(place));
}

#[test]
fn a_channel_is_created_once() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let stranger = house.open(&bob);
    let id = house.id();
    let again = ToRelay::Create(Create {
        channel: CHANNEL,
        id,
    });

    assert_eq!(house.try_frame(conns[0], again.clone()), []);
    assert_eq!(
        house.try_frame(stranger, again.clone()),
        [Refusal::ChannelExists]
    );
    let message = house.message(Epoch(0));
    assert_eq!(house.try_frame(conns[0], ToRelay::Publish(message)), []);
    assert_eq!(house.try_frame(conns[0], again), [Refusal::ChannelExists]);
    assert_eq!(house.store.channels.len(), 1);
}

/// Under a burst beyond the rate, later messages used to take places before the refused one.
#[test]
fn what_stands_behind_a_refused_message_waits_for_it() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    house.hub.config.limits.publishes = Rate::per_second(1, 1);
    let publish = |house: &mut House, resumes| {
        let frame = Publish {
            resumes,
            ..house.message(Epoch(0))
        };
        house.try_frame(conns[0], ToRelay::Publish(frame))
    };
    assert_eq!(publish(&mut house, false), []);
    assert_eq!(publish(&mut house, false), [Refusal::RateLimited]);

    house.now = house.now.plus(5_000);

    assert_eq!(
        publish(&mut house, false),
        [Refusal::RateLimited],
        "it is behind"
    );
    assert_eq!(publish(&mut house, true), []);
    house.now = house.now.plus(5_000);
    assert_eq!(publish(&mut house, false), []);
}

/// Only messages have an order to lose. A refused subscription, and a commit that was lost with a
/// failed write, used to turn away the messages that came after them.
#[test]
fn what_stands_behind_something_else_that_was_refused_goes_on() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let next = |house: &mut House| {
        let frame = Publish {
            resumes: false,
            ..house.message(Epoch(0))
        };
        house.try_frame(conns[0], ToRelay::Publish(frame))
    };
    house.subscribe(conns[0], Seq(0));
    house.subscribe(conns[0], Seq(0));
    assert_eq!(house.refusals(conns[0]), [Refusal::RateLimited]);
    assert_eq!(next(&mut house), []);

    let lost = house.committing(Epoch(0), &RosterChange::default());
    house.say(conns[0], ToRelay::Commit(lost));
    house.fail_disk();
    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable]);
    assert_eq!(next(&mut house), []);
}

#[test]
fn what_stands_behind_a_message_lost_with_a_failed_write_waits_for_it() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let publish = |house: &mut House, conn, resumes| {
        let frame = Publish {
            resumes,
            ..house.message(Epoch(1))
        };
        house.say(conn, ToRelay::Publish(frame));
    };
    // Alice's message loses its place; Bob's was refused by a commit that then did not happen.
    publish(&mut house, conns[0], false);
    let lost = house.committing(Epoch(1), &RosterChange::default());
    house.say(conns[0], ToRelay::Commit(lost));
    publish(&mut house, conns[1], false);
    house.fail_disk();
    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable; 2]);
    assert_eq!(house.refusals(conns[1]), [Refusal::Unavailable]);

    for conn in conns {
        publish(&mut house, conn, false);
        house.settle();
        assert_eq!(house.refusals(conn), [Refusal::RateLimited]);
        publish(&mut house, conn, true);
        publish(&mut house, conn, false);
        house.settle();
        assert_eq!(house.refusals(conn), []);
    }
}
