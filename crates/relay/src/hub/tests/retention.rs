//! What goes with age, and who is told.

use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{Epoch, Seq},
};

use super::house::{CHANNEL, HOUR, House, people};

#[test]
fn old_bodies_go_and_whoever_comes_later_is_told() {
    let [alice, bob, ..] = people();
    let (mut house, _) = House::with_channel(&[&alice, &bob]);
    for _ in 0..3 {
        let conn = house.open(&alice);
        let message = house.message(Epoch(1));
        house.say(conn, ToRelay::Publish(message));
        house.settle();
        house.wait(3 * HOUR);
        house.settle();
    }
    let head = house.store.head(&CHANNEL);
    assert_eq!(head, Seq(4));

    house.wait(6 * 24 * HOUR);
    house.settle();
    assert_eq!(house.store.channels[&CHANNEL].pruned, Seq(0));
    for _ in 0..3 {
        house.wait(24 * HOUR);
        house.settle();
    }
    assert_eq!(
        house.store.channels[&CHANNEL].pruned, head,
        "quiet channels grow old too"
    );

    let conn = house.open(&bob);
    house.subscribe(conn, Seq(0));
    house.settle();
    let news = house.news(conn);
    let told = news
        .iter()
        .position(|frame| matches!(frame, ToAgent::Pruned(pruned) if pruned.up_to == head));
    let first = news
        .iter()
        .position(|frame| matches!(frame, ToAgent::Deliver(_)));
    assert!(told.is_some() && told < first);

    // Nothing more to do for this channel.
    house.wait(30 * 24 * HOUR);
    assert!(house.writes.is_empty());
}
