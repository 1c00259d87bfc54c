//! Who may know what is stored of a channel: the account that pays for it and nobody else.

use skytale_wire::{
    frame::{Create, ToRelay},
    id::{ChannelId, Epoch, Seq},
};

use super::house::{CHANNEL, HOUR, House, Person, START, people};
use crate::hub::{Conn, Owned, Payer, Right};

fn paid(account: &str) -> Right {
    Right::Account {
        payer: Payer::account(account),
        expires: START.plus(100 * HOUR),
    }
}

fn entering(house: &mut House, person: &Person, account: &str) -> Conn {
    let conn = house.opening(person, paid(account));
    house.answer_all();
    conn
}

fn create(house: &mut House, conn: Conn, channel: ChannelId) {
    let id = house.id();
    house.say(conn, ToRelay::Create(Create { channel, id }));
}

fn ids(owned: &[Owned]) -> Vec<u8> {
    owned.iter().map(|owned| owned.channel.0[0]).collect()
}

#[test]
fn who_pays_for_a_channel_sees_it_and_who_is_only_in_it_does_not() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let hers = entering(&mut house, &alice, "hers");
    entering(&mut house, &bob, "his");
    create(&mut house, hers, CHANNEL);
    house.settle();
    let adding = house.adding(Epoch(0), &[bob.id]);
    house.say(hers, ToRelay::Commit(adding));
    house.settle();

    let seen = Owned {
        channel: CHANNEL,
        stored: Seq(1),
        pruned: Seq(0),
        members: 2,
    };
    assert_eq!(house.hub.channel_of("hers", &CHANNEL), Some(seen));
    assert_eq!(house.hub.channels_of("hers", None, 10), [seen]);
    for other in ["his", "", "her", "herss", "HERS"] {
        assert_eq!(house.hub.channel_of(other, &CHANNEL), None, "{other:?}");
        assert_eq!(house.hub.channels_of(other, None, 10), [], "{other:?}");
    }
    assert_eq!(house.hub.channel_of("hers", &ChannelId([1; 32])), None);
}

#[test]
fn only_what_is_stored_is_seen() {
    let [alice, ..] = people();
    let mut house = House::new();
    let hers = entering(&mut house, &alice, "hers");
    create(&mut house, hers, CHANNEL);
    assert_eq!(house.hub.channels_of("hers", None, 10), []);
    house.settle();
    assert_eq!(house.hub.channels_of("hers", None, 10).len(), 1);

    let message = house.message(Epoch(0));
    house.say(hers, ToRelay::Publish(message));
    let stored = |house: &House| house.hub.channel_of("hers", &CHANNEL).unwrap().stored;

    assert_eq!(stored(&house), Seq(0), "it is on its way");
    house.settle();
    assert_eq!(stored(&house), Seq(1));
}

#[test]
fn channels_come_by_pages_also_after_a_restart() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let hers = entering(&mut house, &alice, "hers");
    let his = entering(&mut house, &bob, "his");
    for n in [5, 3, 1, 9] {
        create(&mut house, hers, ChannelId([n; 32]));
    }
    create(&mut house, his, ChannelId([4; 32]));
    house.settle();

    for _ in 0..2 {
        let page = |after: Option<u8>, count| {
            let after = after.map(|n| ChannelId([n; 32]));
            ids(&house.hub.channels_of("hers", after, count))
        };
        assert_eq!(page(None, 10), [1, 3, 5, 9]);
        assert_eq!(page(None, 2), [1, 3]);
        assert_eq!(page(Some(3), 2), [5, 9]);
        assert_eq!(page(Some(4), 1), [5], "also behind one that is not hers");
        assert_eq!(page(Some(9), 2), [0; 0]);
        house.restart();
    }
}
