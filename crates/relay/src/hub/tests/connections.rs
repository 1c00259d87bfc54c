//! Which connection is an agent's line, and how long its permit lets it stay.

use skytale_wire::{
    frame::{Commit, Create, ToAgent, ToRelay},
    id::Epoch,
    invite::InviteSeed,
    refusal::Refusal,
};

use super::house::{CHANNEL, HOUR, House, START, account, guest_proof, people, sealed_to};
use crate::hub::{Input, Right};

#[test]
fn the_last_connection_of_an_agent_is_its_line() {
    let [alice, ..] = people();
    let mut house = House::new();
    let first = house.opening(&alice, account(START.plus(HOUR)));
    let second = house.opening(&alice, account(START.plus(HOUR)));
    // The archive answers the second one first.
    let late = house.reads.pop_front().unwrap();
    house.answer_all();
    assert!(matches!(house.news(second)[0], ToAgent::Ready(_)));
    assert!(house.closed.is_empty());
    house.reads.push_back(late);
    house.answer_all();

    assert_eq!(house.closed[&first], (Refusal::Replaced, false));
    assert!(!house.closed.contains_key(&second));
    assert_eq!(house.hub.lines.get(&alice.id), Some(&second));
}

#[test]
fn frames_before_ready_are_answered_after_it() {
    let [alice, ..] = people();
    let mut house = House::new();
    let conn = house.opening(&alice, account(START.plus(HOUR)));
    let id = house.id();
    house.say(
        conn,
        ToRelay::Create(Create {
            channel: CHANNEL,
            id,
        }),
    );
    house.say(
        conn,
        ToRelay::Create(Create {
            channel: CHANNEL,
            id,
        }),
    );
    house.settle();

    let news = house.news(conn);
    assert!(matches!(news[0], ToAgent::Ready(_)));
    assert!(matches!(news[1], ToAgent::Created(_)));
    assert_eq!(news.len(), 2, "one answer for the same request");
}

#[test]
fn a_permit_ends_unless_it_is_renewed() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let id = house.id();
    let renewed = account(START.plus(2 * HOUR));
    house.handle(Input::Renewed {
        conn: conns[0],
        id,
        right: Ok(renewed),
    });
    house.handle(Input::Renewed {
        conn: conns[1],
        id,
        right: Err(Refusal::TokenInvalid),
    });
    assert!(matches!(house.news(conns[0])[0], ToAgent::Renewed(_)));
    assert_eq!(house.refusals(conns[1]), [Refusal::TokenInvalid]);

    house.wait(HOUR + 4_999);
    assert!(house.closed.is_empty());
    house.wait(1);
    assert_eq!(house.closed[&conns[1]], (Refusal::TokenExpired, true));

    // Also when nobody ticks.
    house.now = START.plus(2 * HOUR + 5_000);
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    assert_eq!(house.closed[&conns[0]], (Refusal::TokenExpired, true));
    assert!(house.writes.is_empty());
}

#[test]
fn a_guest_keeps_its_line_and_adds_channels_to_it() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 5);
    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    house.answer_all();
    let join = house.joining(&carol, &seed, Epoch(2));
    let join = Commit {
        sealed: Some(sealed_to(&[seed.id()])),
        ..join
    };
    assert_eq!(house.try_frame(guest, ToRelay::Commit(join)), []);

    house.wait(HOUR / 2);
    let id = house.id();
    house.handle(Input::Renewed {
        conn: guest,
        id,
        right: Ok(Right::Member),
    });
    house.wait(HOUR / 2 + 10_000);
    assert!(!house.closed.contains_key(&guest));
    house.wait(HOUR);
    assert_eq!(house.closed[&guest], (Refusal::TokenExpired, true));
}

#[test]
fn a_relay_without_guests_takes_none() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    house.hub.config.guests = false;
    let seed = InviteSeed::new([1; 16]);
    for right in [Right::Member, Right::Invite(guest_proof(&bob, &seed))] {
        let conn = house.opening(&alice, right);
        assert_eq!(house.closed[&conn], (Refusal::GuestsRefused, false));
    }
}
