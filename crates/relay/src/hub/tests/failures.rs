//! Writes that fail, also those that were written all the same.

use skytale_wire::{
    frame::{Nack, ToAgent, ToRelay},
    id::{Epoch, Seq},
    refusal::Refusal,
};

use super::house::{CHANNEL, HOUR, House, START, account, delivered, people};
use crate::hub::Input;

#[test]
fn a_failed_write_is_told_and_nothing_acknowledged_is_lost() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let kept = house.message(Epoch(1));
    let lost = house.removing(Epoch(1), bob.id);
    let refused = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(kept));
    house.say(conns[0], ToRelay::Commit(lost.clone()));
    house.say(conns[1], ToRelay::Publish(refused));
    house.store_one();
    let (ticket, _) = house.writes[0];
    house.writes.clear();
    house.handle(Input::Failed { ticket });
    let between = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(between));
    let carol_conn = house.open(&carol);
    house.news(carol_conn);
    house.fail_disk();

    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable; 2]);
    let news = house.news(conns[1]);
    assert_eq!(delivered(&news), [2]);
    assert!(matches!(
        news[1],
        ToAgent::Nack(Nack {
            refusal: Refusal::Unavailable,
            ..
        })
    ));

    // The removal did not happen; a late word of the failure changes nothing.
    house.handle(Input::Failed { ticket });
    let message = house.message(Epoch(1));
    house.say(conns[1], ToRelay::Publish(message));
    house.settle();
    assert_eq!(house.places(conns[1]), [3]);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(lost)),
        [],
        "sent again"
    );
    assert_eq!(house.places(conns[1]), [4]);
}

#[test]
fn what_was_written_though_the_write_failed_is_read_from_the_archive() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message.clone()));
    let (ticket, write) = house.writes.pop_front().unwrap();
    house.store.write(write);
    house.handle(Input::Failed { ticket });
    house.fail_disk();
    house.settle();

    assert_eq!(house.places(conns[1]), [2]);
    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable]);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(message)),
        [],
        "it has its place"
    );
    assert_eq!(house.store.head(&CHANNEL), Seq(2));
}

/// Found by the property: a lookup made before the failure was used after it, and the message was
/// stored twice.
#[test]
fn what_was_looked_up_before_a_failed_write_is_not_used_after_it() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let message = ToRelay::Publish(house.message(Epoch(0)));
    house.say(conns[0], message.clone());
    let next = house.opening(&alice, account(START.plus(HOUR)));
    house.handle(Input::Frame {
        conn: next,
        frame: message.clone(),
        earlier: None,
    });

    let (ticket, write) = house.writes.pop_front().unwrap();
    house.store.write(write);
    house.handle(Input::Failed { ticket });
    house.fail_disk();
    house.settle();

    assert_eq!(house.closed[&next], (Refusal::Unavailable, true));
    let again = house.open(&alice);
    assert_eq!(house.try_frame(again, message), []);
    assert_eq!(house.store.head(&CHANNEL), Seq(1));
}
