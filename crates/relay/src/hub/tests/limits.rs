//! Who asks too often or for too much is refused, and nobody else.

use skytale_wire::{
    Blob,
    envelope::RosterChange,
    frame::{Create, Publish, Subscribe, ToRelay},
    id::{ChannelId, Epoch, Seq},
    refusal::Refusal,
};

use super::house::{CHANNEL, House, people};
use crate::{hub::Conn, limits::Rate};

#[test]
fn who_asks_too_often_is_refused_and_others_are_not() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.hub.config.limits.publishes = Rate::per_second(2, 3);
    house.hub.config.limits.commits = Rate::per_second(1, 1);

    let refused = |house: &mut House, conn: Conn, count: usize| {
        house.news(conn);
        for _ in 0..count {
            let message = house.message(Epoch(1));
            house.say(conn, ToRelay::Publish(message));
        }
        house.settle();
        house.refusals(conn)
    };
    assert_eq!(refused(&mut house, conns[0], 5), [Refusal::RateLimited; 2]);
    assert_eq!(refused(&mut house, conns[1], 3), []);
    // A new connection is the same agent.
    let again = house.open(&alice);
    assert_eq!(refused(&mut house, again, 1), [Refusal::RateLimited]);
    house.now = house.now.plus(500);
    assert_eq!(refused(&mut house, again, 1), []);
    house.now = house.now.plus(1_000);

    for (epoch, refusals) in [(1, vec![]), (2, vec![Refusal::RateLimited])] {
        let commit = house.committing(Epoch(epoch), &RosterChange::default());
        assert_eq!(house.try_frame(again, ToRelay::Commit(commit)), refusals);
    }
}

#[test]
fn large_and_empty_bodies_and_too_many_subscriptions_are_refused() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    house.hub.config.limits.subscriptions_max = 1;
    let large = Publish {
        body: vec![0; 320 * 1024 + 1].into(),
        ..house.message(Epoch(0))
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(large)),
        [Refusal::TooLarge]
    );
    let empty = Publish {
        body: Blob::default(),
        ..house.message(Epoch(0))
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(empty)),
        [Refusal::Malformed]
    );

    let other = ChannelId([3; 32]);
    let id = house.id();
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Create(Create { channel: other, id })),
        []
    );
    let mut ask = |channel| {
        let frame = Subscribe {
            channel,
            id,
            after: Seq(0),
        };
        house.try_frame(conns[0], ToRelay::Subscribe(frame))
    };
    assert_eq!(ask(CHANNEL), []);
    assert_eq!(ask(CHANNEL), [], "again, it takes no second place");
    assert_eq!(ask(other), [Refusal::LimitReached]);
}
