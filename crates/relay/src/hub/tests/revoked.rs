//! Whose tokens count no more: what they had let in is closed, and nothing of it comes in again.

use skytale_slim::{Generation, Pattern};
use skytale_wire::{
    frame::ToAgent,
    http::{Revocation, Revoked},
    id::{AgentId, MessageId, Time},
    refusal::Refusal,
    token::{AccountId, KeyId, LIFETIME_MS_MAX},
};

use super::house::{HOUR, House, START, people};
use crate::hub::{Conn, Input, Payer, Right, SlimPresented, SlimRight};

const ACCOUNT: AccountId = AccountId([1; 16]);

fn key(id: &str) -> KeyId {
    id.parse().unwrap()
}

fn payer(account: AccountId, id: &str) -> Payer {
    Payer {
        account: account.to_string(),
        key: Some(key(id)),
        issued: START,
    }
}

fn revoked(what: Revoked) -> Input {
    revoked_at(what, START)
}

fn revoked_at(revoked: Revoked, at: Time) -> Input {
    Input::Revoked(Revocation {
        revoked,
        at_ms: at.0,
    })
}

fn paid(payer: Payer) -> Right {
    Right::Account {
        payer,
        expires: START.plus(HOUR),
    }
}

fn stream(house: &mut House, payer: Payer) -> Conn {
    let conn = house.next_conn();
    let presented = SlimPresented {
        generation: Generation::Two,
        owner: SlimRight::Account {
            payer,
            patterns: vec![Pattern::parse("acme/*").unwrap()],
            expires: START.plus(HOUR),
        },
    };
    house.handle(Input::SlimOpened { conn, presented });
    conn
}

fn closed(house: &House, conns: [Conn; 3]) -> [bool; 3] {
    conns.map(|conn| house.closed.get(&conn) == Some(&(Refusal::Revoked, false)))
}

#[test]
fn a_revoked_key_closes_its_lines_and_streams_and_no_others() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let hers = house.opening(&alice, paid(payer(ACCOUNT, "key1key1")));
    let his = house.opening(&bob, paid(payer(ACCOUNT, "key2key2")));
    house.answer_all();
    let slim = stream(&mut house, payer(ACCOUNT, "key1key1"));

    house.handle(revoked(Revoked::Key(key("key1key1"))));

    assert_eq!(closed(&house, [hers, his, slim]), [true, false, true]);
    // What the door had let in just before it heard comes too late.
    let hers = house.opening(&alice, paid(payer(ACCOUNT, "key1key1")));
    let slim = stream(&mut house, payer(ACCOUNT, "key1key1"));
    let new = house.opening(&alice, paid(payer(ACCOUNT, "key3key3")));
    assert_eq!(closed(&house, [hers, new, slim]), [true, false, true]);
}

#[test]
fn a_renewal_with_a_revoked_key_is_refused() {
    let [alice, ..] = people();
    let mut house = House::new();
    let conn = house.opening(&alice, paid(payer(ACCOUNT, "key1key1")));
    house.answer_all();
    house.news(conn);
    house.handle(revoked(Revoked::Key(key("key2key2"))));

    house.handle(Input::Renewed {
        conn,
        id: MessageId([1; 16]),
        right: Ok(paid(payer(ACCOUNT, "key2key2"))),
    });

    assert_eq!(house.refusals(conn), [Refusal::Revoked]);
    assert!(!house.closed.contains_key(&conn));
}

#[test]
fn an_agent_that_is_shut_out_is_so_for_its_account_only() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let other = AccountId([2; 16]);
    let hers = house.opening(&alice, paid(payer(ACCOUNT, "key1key1")));
    let his = house.opening(&bob, paid(payer(ACCOUNT, "key1key1")));
    house.answer_all();
    let slim = stream(&mut house, payer(ACCOUNT, "key1key1"));
    let shut = |account, agent: AgentId| revoked(Revoked::Agent { account, agent });

    house.handle(shut(other, alice.id));
    assert_eq!(closed(&house, [hers, his, slim]), [false; 3]);
    house.handle(shut(ACCOUNT, alice.id));

    assert_eq!(closed(&house, [hers, his, slim]), [true, false, false]);
    house.handle(revoked(Revoked::Account(ACCOUNT)));
    assert_eq!(closed(&house, [hers, his, slim]), [true; 3]);
}

#[test]
fn who_is_let_in_again_gets_in_with_a_token_of_later() {
    let [alice, ..] = people();
    let mut house = House::new();
    let out = Revoked::Agent {
        account: ACCOUNT,
        agent: alice.id,
    };
    house.handle(revoked_at(out.clone(), START.plus(1_000)));
    let issued = |at| Payer {
        issued: START.plus(at),
        ..payer(ACCOUNT, "key1key1")
    };

    let early = house.opening(&alice, paid(issued(1_000)));
    let later = house.opening(&alice, paid(issued(2_000)));

    assert_eq!(closed(&house, [early, later, later]), [true, false, false]);
    // A relay that asks for the whole hour again hears it again.
    house.handle(revoked_at(out.clone(), START.plus(1_000)));
    assert_eq!(closed(&house, [early, later, later]), [true, false, false]);
    house.handle(revoked_at(out, START.plus(3_000)));
    assert!(closed(&house, [later; 3])[0]);
}

/// A9. Two API servers on one database do not agree to the second, and a clock may be set back between
/// a token and the end of its key.
#[test]
fn a_key_is_revoked_though_the_clock_that_says_so_is_behind() {
    let [alice, bob, ..] = people();
    for (what, by_key) in [
        (Revoked::Key(key("key1key1")), true),
        (Revoked::Account(ACCOUNT), false),
    ] {
        let mut house = House::new();
        let issued = |id| Payer {
            issued: START.plus(30_000),
            ..payer(ACCOUNT, id)
        };
        let hers = house.opening(&alice, paid(issued("key1key1")));
        let his = house.opening(&bob, paid(issued("key2key2")));
        house.answer_all();
        let slim = stream(&mut house, issued("key1key1"));

        house.handle(revoked_at(what, START));

        assert_eq!(closed(&house, [hers, his, slim]), [true, !by_key, true]);
        let again = house.opening(&alice, paid(issued("key1key1")));
        assert!(closed(&house, [again; 3])[0]);
    }
}

#[test]
fn what_no_token_can_outlive_is_forgotten() {
    let [alice, ..] = people();
    let mut house = House::new();
    house.handle(revoked(Revoked::Account(ACCOUNT)));
    assert!(!house.hub.shut.is_empty());

    house.wait(2 * LIFETIME_MS_MAX);

    assert!(house.hub.shut.is_empty());
    let conn = house.opening(
        &alice,
        Right::Account {
            payer: payer(ACCOUNT, "key1key1"),
            expires: house.now.plus(HOUR),
        },
    );
    house.answer_all();
    assert!(matches!(house.news(conn)[0], ToAgent::Ready(_)));
}
