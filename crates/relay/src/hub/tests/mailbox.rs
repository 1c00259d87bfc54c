//! What is kept for agents that sleep: Welcomes and `KeyPackages`.

use skytale_wire::{
    frame::{PutKeyPackages, TakeKeyPackage, TakeWelcome, ToAgent, ToRelay, Welcomed},
    id::{Epoch, Seq},
    refusal::Refusal,
};

use super::house::{CHANNEL, House, people};
use crate::hub::Input;

#[test]
fn welcomes_wait_until_they_are_dealt_with() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let bob_conn = house.open(&bob);
    house.news(bob_conn);
    let commit = house.adding(Epoch(0), &[bob.id, carol.id]);
    let id = commit.id;
    house.say(conns[0], ToRelay::Commit(commit));
    assert_eq!(house.news(bob_conn), [], "not stored yet");
    house.settle();

    let news = house.news(bob_conn);
    let [ToAgent::Welcome(pushed)] = news.as_slice() else {
        panic!("a Welcome expected, not {news:?}");
    };
    assert_eq!((pushed.seq, pushed.by), (Seq(1), alice.id));
    let hash = house.store.channels[&CHANNEL].hash;
    assert_eq!(pushed.hash, hash);

    let carol_conn = house.open(&carol);
    let [ToAgent::Ready(ready)] = &house.news(carol_conn)[..] else {
        panic!("Ready expected");
    };
    assert_eq!(ready.welcomes, 1);
    house.say(carol_conn, ToRelay::TakeWelcome(TakeWelcome {}));
    house.settle();
    assert_eq!(house.news(carol_conn), [ToAgent::Welcome(pushed.clone())]);
    let dealt = Welcomed {
        channel: CHANNEL,
        id,
    };
    house.say(carol_conn, ToRelay::Welcomed(dealt));
    house.say(carol_conn, ToRelay::TakeWelcome(TakeWelcome {}));
    house.settle();
    assert_eq!(house.news(carol_conn), []);

    // No room: it is sent when there is.
    house.handle(Input::Full { conn: bob_conn });
    house.say(bob_conn, ToRelay::TakeWelcome(TakeWelcome {}));
    house.settle();
    assert_eq!(house.news(bob_conn), []);
    house.handle(Input::Drained { conn: bob_conn });
    house.settle();
    assert_eq!(house.news(bob_conn), [ToAgent::Welcome(pushed.clone())]);
}

#[test]
fn key_packages_are_handed_out_once() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let conns = [&alice, &bob].map(|person| house.open(person));
    let put = PutKeyPackages {
        id: house.id(),
        packages: vec![b"one".to_vec().into(), b"two".to_vec().into()],
        last_resort: None,
    };
    house.news(conns[1]);
    house.say(conns[1], ToRelay::PutKeyPackages(put.clone()));
    assert_eq!(house.news(conns[1]), []);
    house.settle();
    assert!(matches!(
        &house.news(conns[1])[..],
        [ToAgent::KeyPackagesKept(kept)] if kept.key_packages == 2
    ));

    house.news(conns[0]);
    for _ in 0..3 {
        let take = TakeKeyPackage {
            id: house.id(),
            agent: bob.id,
        };
        house.say(conns[0], ToRelay::TakeKeyPackage(take));
    }
    house.settle();
    let news = house.news(conns[0]);
    let [
        ToAgent::KeyPackage(one),
        ToAgent::KeyPackage(two),
        ToAgent::Nack(none),
    ] = &news[..]
    else {
        panic!("two KeyPackages expected, not {news:?}");
    };
    assert_eq!(
        (&one.package[..], &two.package[..]),
        (&b"one"[..], &b"two"[..])
    );
    assert_eq!(none.refusal, Refusal::KeyPackagesExhausted);

    let empty = PutKeyPackages {
        packages: vec![],
        ..put.clone()
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::PutKeyPackages(empty)),
        [Refusal::Malformed]
    );
    let large = PutKeyPackages {
        packages: vec![vec![0; 16 * 1024 + 1].into()],
        ..put.clone()
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::PutKeyPackages(large)),
        [Refusal::TooLarge]
    );
    let many = PutKeyPackages {
        packages: vec![vec![0].into(); 101],
        ..put
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::PutKeyPackages(many)),
        [Refusal::KeyPackageLimit]
    );
    // Nobody drains somebody's store: twenty a minute, three of which are gone.
    let mut refused = 0;
    for _ in 0..30 {
        let take = TakeKeyPackage {
            id: house.id(),
            agent: bob.id,
        };
        let refusals = house.try_frame(conns[0], ToRelay::TakeKeyPackage(take));
        refused += usize::from(refusals == [Refusal::RateLimited]);
    }
    assert_eq!(refused, 13);
}
