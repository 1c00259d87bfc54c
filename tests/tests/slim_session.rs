//! Our agents in sessions with stock SLIM agents, in both roles: pairs and groups, with MLS and
//! without, against SLIM's own node and against our relay.
//!
//! The stock agents are the published Python packages: see `tests/slim.rs`.
//! `SKYTALE_SLIM_NODE=stock` puts SLIM's own node between them.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "each step waits for one kind of event"
)]
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use serde_json::json;
use skytale_slim_session::{Ended, Misuse, SessionId, Settings};
use skytale_tests::slim::{Mls, StockAgent, port::Port};

use self::ours::OurAgent;

#[path = "slim_session/ours.rs"]
mod ours;

const VERSION: &str = "3.3.8";
const OTHER_VERSION: &str = "2.0.0";
const ALICE: &str = "a/team/alice";
const BOB: &str = "a/team/bob";
const CAROL: &str = "a/team/carol";
const DAVE: &str = "a/team/dave";

#[test]
fn a_stock_agent_opens_a_pair_with_ours() {
    let port = Port::open();
    for version in [VERSION, OTHER_VERSION] {
        let mut alice = StockAgent::start(version, port.url(), ALICE);
        let mut bob = OurAgent::start(port.url(), BOB);
        for mls in [Mls::On, Mls::Off] {
            let theirs = alice.open(bob.name(), mls);
            let ours = bob.invited();
            assert_eq!(u64::from(ours.0), theirs);
            alice.publish(theirs, &many("from alice"));
            bob.hears(ours, &many("from alice"));
            bob.publish(ours, &many("from bob"));
            alice.hears(theirs, &many("from bob"));
            alice.order(json!({ "do": "close", "session": theirs }));
            assert_eq!(bob.ended(ours), Ended::Closed);
        }
    }
}

#[test]
fn our_agent_opens_a_pair_with_a_stock_one() {
    let port = Port::open();
    for version in [VERSION, OTHER_VERSION] {
        let mut alice = OurAgent::start(port.url(), ALICE);
        let mut bob = StockAgent::start(version, port.url(), BOB);
        for settings in [Settings::default(), clear()] {
            let ours = alice.open(bob.name(), settings);
            let theirs = bob.invited();
            alice.publish(ours, &many("from alice"));
            bob.hears(theirs, &many("from alice"));
            bob.publish(theirs, &many("from bob"));
            alice.hears(ours, &many("from bob"));
            alice.leave(ours);
            assert_eq!(alice.ended(ours), Ended::Left);
            bob.ended(theirs);
        }
    }
}

/// Alice is stock and moderates; Bob and Dave are ours, Carol is stock.
#[test]
fn ours_are_invited_to_a_stock_group() {
    let port = Port::open();
    let mut alice = StockAgent::start(VERSION, port.url(), ALICE);
    let mut bob = OurAgent::start(port.url(), BOB);
    let mut carol = StockAgent::start(VERSION, port.url(), CAROL);
    let mut dave = OurAgent::start(port.url(), DAVE);
    for mls in [Mls::On, Mls::Off] {
        let group = alice.open_group("a/team/chan", mls, &[BOB, CAROL, DAVE]);
        let ours = SessionId(u32::try_from(group).unwrap());
        assert_eq!([bob.invited(), dave.invited()], [ours, ours]);
        assert_eq!(carol.invited(), group);

        alice.publish(group, &many("from alice"));
        bob.hears(ours, &many("from alice"));
        dave.hears(ours, &many("from alice"));
        carol.hears(group, &many("from alice"));
        bob.publish(ours, &many("from bob"));
        alice.hears(group, &many("from bob"));
        carol.hears(group, &many("from bob"));
        dave.hears(ours, &many("from bob"));

        // One of theirs goes: ours follow the commit.
        alice.order(json!({ "do": "remove", "session": group, "who": CAROL }));
        carol.ended(group);
        dave.publish(ours, &["after carol"]);
        alice.hears(group, &["after carol"]);
        bob.hears(ours, &["after carol"]);

        // One of ours goes by itself, the other one is taken out.
        dave.leave(ours);
        assert_eq!(dave.ended(ours), Ended::Left);
        alice.publish(group, &["after dave"]);
        bob.hears(ours, &["after dave"]);
        alice.invite(group, CAROL);
        assert_eq!(carol.invited(), group);
        // That all have confirmed it says that Alice has it too: her driver stops reading when a
        // member leaves, as her library reports that by an error.
        bob.publish(ours, &["carol again"]);
        carol.hears(group, &["carol again"]);
        alice.order(json!({ "do": "remove", "session": group, "who": BOB }));
        assert_eq!(bob.ended(ours), Ended::Removed);
        alice.publish(group, &["the end"]);
        carol.hears(group, &["the end"]);
        alice.order(json!({ "do": "close", "session": group }));
        carol.ended(group);
    }
}

/// Alice is ours and moderates; Bob and Carol are stock, of two versions, Dave is ours.
#[test]
fn our_agent_moderates_a_group_of_stock_ones() {
    let port = Port::open();
    let mut alice = OurAgent::start(port.url(), ALICE);
    let mut bob = StockAgent::start(VERSION, port.url(), BOB);
    let mut carol = StockAgent::start(OTHER_VERSION, port.url(), CAROL);
    let mut dave = OurAgent::start(port.url(), DAVE);
    for settings in [Settings::default(), clear()] {
        let ours = alice.create("a/team/chan", settings);
        for name in [BOB, CAROL, DAVE] {
            alice.invite(ours, name);
        }
        let group = u64::from(ours.0);
        assert_eq!([bob.invited(), carol.invited()], [group, group]);
        assert_eq!(dave.invited(), ours);

        alice.publish(ours, &many("from alice"));
        for stock in [&mut bob, &mut carol] {
            stock.hears(group, &many("from alice"));
        }
        dave.hears(ours, &many("from alice"));
        carol.publish(group, &many("from carol"));
        alice.hears(ours, &many("from carol"));
        bob.hears(group, &many("from carol"));
        dave.hears(ours, &many("from carol"));

        alice.remove(ours, CAROL);
        carol.ended(group);
        bob.publish(group, &["after carol"]);
        alice.hears(ours, &["after carol"]);
        dave.hears(ours, &["after carol"]);

        alice.invite(ours, CAROL);
        assert_eq!(carol.invited(), group);
        carol.publish(group, &["here again"]);
        alice.hears(ours, &["here again"]);
        bob.hears(group, &["here again"]);

        alice.leave(ours);
        assert_eq!(alice.ended(ours), Ended::Left);
        assert_eq!(dave.ended(ours), Ended::Closed);
        bob.ended(group);
        carol.ended(group);
        assert_eq!(alice.try_publish(ours, "?"), Err(Misuse::NoSuchSession));
        let _ = dave.told("carol's coming and going", |_| true);
    }
}

/// Somebody of ours is away while the group moves on, and the stock moderator takes it in again.
#[test]
fn ours_comes_back_to_a_stock_group_that_has_moved_on() {
    let port = Port::open();
    let mut alice = StockAgent::start(VERSION, port.url(), ALICE);
    let mut bob = OurAgent::start(port.url(), BOB);
    let mut carol = StockAgent::start(VERSION, port.url(), CAROL);
    let group = alice.open_group("a/team/chan", Mls::On, &[BOB, CAROL]);
    let ours = bob.invited();
    carol.invited();
    bob.pause(ours);
    alice.publish(group, &["without bob"]);
    carol.hears(group, &["without bob"]);
    // A commit that Bob does not see.
    alice.order(json!({ "do": "remove", "session": group, "who": CAROL }));
    carol.ended(group);
    bob.resume(ours);
    bob.publish(ours, &["back again"]);
    alice.hears(group, &["back again"]);
    alice.publish(group, &["welcome back"]);
    bob.hears(ours, &["welcome back"]);
}

/// A stock agent is away while our group moves on, and our moderator takes it in again.
#[test]
fn a_stock_agent_comes_back_to_our_group_that_has_moved_on() {
    let port = Port::open();
    let mut alice = OurAgent::start(port.url(), ALICE);
    let mut bob = StockAgent::start(VERSION, port.url(), BOB);
    let mut carol = StockAgent::start(VERSION, port.url(), CAROL);
    let ours = alice.create("a/team/chan", Settings::default());
    alice.invite(ours, BOB);
    alice.invite(ours, CAROL);
    let group = bob.invited();
    carol.invited();
    bob.order(json!({ "do": "soft_close", "session": group }));
    alice.publish(ours, &["without bob"]);
    carol.hears(group, &["without bob"]);
    alice.remove(ours, CAROL);
    carol.ended(group);
    bob.order(json!({ "do": "rejoin", "session": group }));
    bob.publish(group, &["back again"]);
    alice.hears(ours, &["back again"]);
    alice.publish(ours, &["welcome back"]);
    bob.hears(group, &["welcome back"]);
}

fn clear() -> Settings {
    Settings {
        mls: false,
        ..Settings::default()
    }
}

fn many(from: &str) -> Vec<String> {
    (1..=50).map(|number| format!("{from} {number}")).collect()
}
