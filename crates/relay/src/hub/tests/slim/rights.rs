//! Who may use which name.

use skytale_slim::{Generation, SubscriptionId};
use skytale_wire::refusal::Refusal;

use super::{BOTH, Client, Heard, account, at, msg};
use crate::hub::{
    Payer, SlimDrop, SlimRules,
    tests::house::{HOUR, House, START, people},
};

fn stream(house: &mut House, name: &str, patterns: &[&str], at: &str, id: u128) -> Client {
    let right = account(name, patterns, START.plus(HOUR));
    house.client_by(right, Generation::Two, at, id)
}

fn answers(house: &mut House, client: &Client) -> Vec<Result<(), String>> {
    let heard = house.heard(client);
    heard
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Answer(SubscriptionId(_), result) => Some(result),
            Heard::Message(_) => None,
        })
        .collect()
}

#[test]
fn a_token_covers_what_it_names() {
    let mut house = House::new();
    let alice = stream(&mut house, "acc", &["org/ns/*"], "org/ns/alice", 1);
    let bob = stream(&mut house, "acc", &["org/*"], "org/ns/bob", 2);
    let other = at("org/other/app", 3);

    house.subscribes(&alice, &other);
    house.settle();
    assert!(matches!(&answers(&mut house, &alice)[..], [Err(_)]));
    house.subscribes(&bob, &other);
    house.settle();
    assert_eq!(answers(&mut house, &bob), [Ok(())]);

    // Neither to a name that is not covered, nor from one.
    house.says(&alice, msg(&alice, &other, "to elsewhere", 1));
    let spoofed = Client {
        name: other.clone(),
        ..stream(&mut house, "acc", &["org/ns/*"], "org/ns/alice", 4)
    };
    house.says(&spoofed, msg(&spoofed, &bob.name, "from elsewhere", 1));
    house.says(&alice, msg(&alice, &bob.name, "right", 2));
    house.settle();
    assert_eq!(house.words(&bob), ["right"]);
    assert_eq!(house.hub.counters().slim.dropped[&SlimDrop::Denied], 2);
    assert_eq!(house.hub.counters().slim.refused, 1);
}

#[test]
fn a_name_whose_owner_could_not_be_stored_is_not_subscribed_to() {
    let mut house = House::new();
    let right = account("first", &["org/*"], START.plus(HOUR));
    let alice = house.stream(right, Generation::Two, "org/ns/alice", 1);
    house.subscribes(&alice, &alice.name);
    house.fail_disk();
    house.settle();
    let said = answers(&mut house, &alice);
    assert!(
        matches!(&said[..], [Err(text)] if text.contains("store")),
        "{said:?}"
    );

    house.subscribes(&alice, &alice.name);
    house.settle();
    assert_eq!(answers(&mut house, &alice), [Ok(())]);
}

#[test]
fn the_first_account_owns_an_organisation_also_after_a_restart() {
    let mut house = House::new();
    let alice = stream(&mut house, "first", &["org/*"], "org/ns/alice", 1);
    for restarted in [false, true] {
        if restarted {
            house.restart();
        }
        let bob = house.stream(
            account("second", &["org/*"], START.plus(HOUR)),
            Generation::Two,
            "org/ns/bob",
            2,
        );
        house.subscribes(&bob, &bob.name);
        house.says(&bob, msg(&bob, &alice.name, "hello", 1));
        house.settle();
        let said = answers(&mut house, &bob);
        assert!(
            matches!(&said[..], [Err(text)] if text.contains("another account")),
            "{said:?}"
        );
        assert!(house.words(&alice).is_empty());
    }
}

#[test]
fn whose_it_is_is_stored_before_it_is_said() {
    let mut house = House::new();
    let right = account("acc", &["org/*"], START.plus(HOUR));
    let alice = house.stream(right, Generation::Two, "org/ns/alice", 1);
    house.subscribes(&alice, &alice.name);
    assert!(answers(&mut house, &alice).is_empty());
    house.settle();
    assert_eq!(answers(&mut house, &alice), [Ok(())]);
}

#[test]
fn an_account_owns_only_so_many_organisations() {
    let mut house = House::with_slim(SlimRules {
        organisations_per_account_max: 2,
        ..SlimRules::default()
    });
    let patterns = ["a/*", "b/*", "c/*"];
    let alice = stream(&mut house, "acc", &patterns, "a/ns/alice", 1);
    for (name, fits) in [("b/ns/x", true), ("c/ns/x", false), ("b/ns/y", true)] {
        house.subscribes(&alice, &at(name, 1));
        house.settle();
        let said = answers(&mut house, &alice);
        assert_eq!(said[0].is_ok(), fits, "{name}: {said:?}");
    }
}

#[test]
fn open_streams_may_use_every_name() {
    for generation in BOTH {
        let mut house = House::new();
        let owned = house.client_by(
            account("acc", &["org/*"], START.plus(HOUR)),
            generation,
            "org/ns/alice",
            1,
        );
        let open = house.client(generation, "org/ns/bob", 2);
        house.says(&open, msg(&open, &owned.name, "hello", 1));
        house.settle();
        assert_eq!(house.words(&owned), ["hello"]);
    }
}

#[test]
fn a_stream_ends_with_its_token() {
    let mut house = House::new();
    let expires = START.plus(HOUR);
    let alice = house.client_by(
        account("acc", &["org/*"], expires),
        Generation::Two,
        "org/ns/alice",
        1,
    );
    house.wait(HOUR + 4_999);
    assert!(house.closed.is_empty());
    house.wait(2);
    assert_eq!(house.closed[&alice.conn], (Refusal::TokenExpired, true));
    assert_eq!(house.hub.slim_links(), 0);

    // One that comes with such a token is not let in.
    let late = house.stream(
        account("acc", &["org/*"], expires),
        Generation::Two,
        "org/ns/alice",
        1,
    );
    assert_eq!(house.closed[&late.conn], (Refusal::TokenExpired, true));
}

#[test]
fn native_agents_need_an_account_and_their_own_organisation() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    let name = at("org/ns/app", 1);
    let owner = house.native(&alice);
    house.native_subscribes(owner, &name, None);
    house.settle();
    assert!(house.refusals(owner).is_empty());

    let other = crate::hub::Right::Account {
        payer: Payer::account("second"),
        expires: START.plus(HOUR),
    };
    let stranger = house.opening(&bob, other);
    house.answer_all();
    house.native_subscribes(stranger, &name, None);
    house.settle();
    assert_eq!(house.refusals(stranger), [Refusal::OrganisationTaken]);
}

#[test]
fn guests_have_no_names() {
    let [alice, bob, ..] = people();
    let (mut house, _) = House::with_channel(&[&alice, &bob]);
    let guest = house.opening(&bob, crate::hub::Right::Member);
    house.answer_all();
    house.news(guest);

    house.native_subscribes(guest, &at("org/ns/app", 1), None);
    house.settle();

    assert_eq!(house.refusals(guest), [Refusal::ScopeMissing]);
}
