//! Which commit of a group comes first.

use skytale_slim::{Generation, MessageType, Name};
use skytale_wire::{
    envelope::Kind,
    id::{Epoch, Seq},
};

use super::{BOTH, COMMIT, Client, PROPOSAL, at, commit, handshake};
use crate::hub::{Input, tests::house::House};

use MessageType::{GroupAck, GroupNack};

fn group(generation: Generation) -> (House, Client, Client, Name) {
    let mut house = House::new();
    let alice = house.client(generation, "org/ns/alice", 1);
    let bob = house.client(generation, "org/ns/bob", 2);
    let control = at("org/ns/room", 5);
    house.subscribes(&bob, &control);
    house.heard(&bob);
    (house, alice, bob, control)
}

/// What the relay says of commits itself: clients of the first generation abort on it.
fn verdicts(generation: Generation, said: &[MessageType]) -> Vec<MessageType> {
    match generation {
        Generation::One => Vec::new(),
        Generation::Two => said.to_vec(),
    }
}

#[test]
fn the_first_commit_says_where_the_count_begins_and_epochs_may_be_left_out() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        for (epoch, number) in [(1, 10), (2, 11), (5, 12)] {
            house.says(&alice, commit(&alice, &control, epoch, number));
            assert!(house.types(&alice).is_empty(), "not stored yet");
            assert!(house.types(&bob).is_empty());
            house.settle();
            assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
            assert_eq!(house.types(&bob).len(), 1);
        }
        let log = *house.store.channels.keys().next().unwrap();
        let record = house.store.envelope(&log, Seq(3));
        assert_eq!(record.epoch, Epoch(5));
        let kind = match generation {
            Generation::One => Kind::SlimCommitOne,
            Generation::Two => Kind::SlimCommitTwo,
        };
        assert_eq!(record.kind, kind);
    }
}

#[test]
fn a_commit_of_an_epoch_that_has_ended_is_not_passed_on() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        house.says(&alice, commit(&alice, &control, 3, 10));
        house.says(&bob, commit(&bob, &control, 3, 20));
        house.says(&bob, commit(&bob, &control, 1, 21));
        assert!(
            house.types(&bob).is_empty(),
            "nothing is known before the first is stored"
        );
        house.settle();

        let mut heard = house.types(&bob);
        heard.retain(|it| *it != MessageType::GroupUpdate && *it != MessageType::GroupAdd);
        assert_eq!(heard, verdicts(generation, &[GroupNack, GroupNack]));
        assert_eq!(house.hub.counters().slim.commits_stale, 2);
        assert_eq!(house.hub.counters().slim.commits_accepted, 1);
    }
}

#[test]
fn a_refusal_that_rests_on_a_failed_write_is_not_said() {
    let (mut house, alice, bob, control) = group(Generation::Two);
    house.says(&alice, commit(&alice, &control, 3, 10));
    house.says(&bob, commit(&bob, &control, 3, 20));

    house.fail_disk();
    house.settle();
    assert!(house.types(&bob).is_empty() && house.types(&alice).is_empty());

    house.says(&bob, commit(&bob, &control, 3, 20));
    house.settle();
    assert_eq!(house.types(&bob), [GroupAck]);
}

/// The write failed and the driver has not loaded what counts yet. The order in memory was one
/// write ahead, so that the repeat counted as let in before: it went on, and was acknowledged.
#[test]
fn until_what_is_stored_is_loaded_again_no_commit_is_judged() {
    let (mut house, alice, bob, control) = group(Generation::Two);
    house.says(&alice, commit(&alice, &control, 3, 10));
    let (ticket, _) = house.writes[0];
    house.handle(Input::Failed { ticket });

    house.says(&alice, commit(&alice, &control, 3, 10));
    house.says(&bob, commit(&bob, &control, 3, 20));

    assert!(house.types(&alice).is_empty() && house.types(&bob).is_empty());
    house.fail_disk();
    house.settle();
    assert!(house.types(&alice).is_empty() && house.types(&bob).is_empty());
    house.says(&alice, commit(&alice, &control, 3, 10));
    house.settle();
    assert_eq!(house.types(&alice), [GroupAck]);
    assert_eq!(house.types(&bob), [MessageType::GroupUpdate]);
}

/// It took the order to an epoch that no honest commit can reach.
#[test]
fn one_message_cannot_end_the_order_of_a_group() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        house.says(&alice, commit(&alice, &control, 1, 10));
        house.settle();
        house.types(&bob);
        let carol = house.client(generation, "org/ns/carol", 3);

        for (number, epoch) in (20..).zip([u64::MAX, u64::MAX - 1, 2 + 65]) {
            house.says(&carol, commit(&carol, &control, epoch, number));
        }
        house.settle();
        assert!(house.types(&carol).is_empty(), "not answered");
        assert_eq!(house.types(&bob).len(), 3, "passed on as it is");
        assert_eq!(house.hub.counters().slim.commits_unordered, 3);

        house.heard(&alice);
        house.says(&alice, commit(&alice, &control, 2, 11));
        house.settle();
        assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
        house.says(&alice, commit(&alice, &control, 3 + 64, 12));
        house.settle();
        assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
    }
}

#[test]
fn the_same_commit_again_is_passed_on_and_acknowledged_again() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        let first = commit(&alice, &control, 1, 10);
        house.says(&alice, first.clone());
        house.says(&alice, first.clone());
        house.settle();
        house.says(&alice, commit(&alice, &control, 2, 11));
        house.settle();
        house.restart();
        let alice = house.client(generation, "org/ns/alice", 1);
        let bob = Client {
            conn: house.client(generation, "org/ns/bob", 2).conn,
            ..bob
        };
        house.subscribes(&bob, &control);
        house.heard(&bob);

        house.says(&alice, first);
        house.settle();

        assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
        assert_eq!(house.types(&bob).len(), 1);
        let heads: u64 = house.store.channels.values().map(|row| row.head.0).sum();
        assert_eq!(heads, 2, "stored once");
    }
}

#[test]
fn the_order_outlives_the_relay() {
    for generation in BOTH {
        let (mut house, alice, _, control) = group(generation);
        house.says(&alice, commit(&alice, &control, 4, 10));
        house.settle();

        house.restart();
        let alice = house.client(generation, "org/ns/alice", 1);
        house.says(&alice, commit(&alice, &control, 4, 11));
        house.settle();
        assert_eq!(house.types(&alice), verdicts(generation, &[GroupNack]));
        house.says(&alice, commit(&alice, &control, 5, 12));
        house.settle();
        assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
    }
}

#[test]
fn groups_and_names_do_not_share_an_order() {
    let (mut house, alice, _, control) = group(Generation::Two);
    house.says(&alice, commit(&alice, &control, 9, 10));
    house.says(
        &alice,
        handshake(&alice, &control, 1, 11, b"another", COMMIT),
    );
    let elsewhere = at("org/ns/room", 6);
    house.says(&alice, commit(&alice, &elsewhere, 1, 12));
    house.settle();

    // One session sends to one name. Another name of the same session would be a repeat to a
    // member, and is judged as its group is.
    assert_eq!(house.types(&alice), [GroupAck, GroupAck, GroupNack]);
}

#[test]
fn a_repeat_to_one_member_is_judged_as_the_commit_it_is() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        house.says(&alice, commit(&alice, &control, 1, 10));
        house.says(&alice, commit(&alice, &control, 2, 11));
        house.settle();
        house.heard(&alice);
        house.heard(&bob);

        house.says(&alice, commit(&alice, &bob.name, 1, 10));
        house.settle();

        assert_eq!(house.types(&alice), verdicts(generation, &[GroupAck]));
        assert_eq!(house.types(&bob).len(), 1);
        let heads: u64 = house.store.channels.values().map(|row| row.head.0).sum();
        assert_eq!(heads, 2);
    }
}

#[test]
fn a_proposal_ends_no_epoch() {
    let (mut house, alice, _, control) = group(Generation::Two);
    for (epoch, number, content, said) in [
        (3, 10, PROPOSAL, GroupAck),
        (3, 11, PROPOSAL, GroupAck),
        (3, 12, COMMIT, GroupAck),
        (3, 13, PROPOSAL, GroupNack),
    ] {
        house.says(
            &alice,
            handshake(&alice, &control, epoch, number, b"group", content),
        );
        house.settle();
        assert_eq!(house.types(&alice), [said], "{number}");
    }
}

#[test]
fn groups_without_mls_are_not_touched() {
    for generation in BOTH {
        let (mut house, alice, bob, control) = group(generation);
        let update = super::update_without_mls(&alice, &control);
        house.says(&alice, update);

        assert_eq!(house.types(&bob).len(), 1, "at once");
        assert!(house.types(&alice).is_empty());
        assert!(house.writes.is_empty());
    }
}

#[test]
fn without_an_archive_commits_are_ordered_all_the_same() {
    let mut house = House::without_archive();
    let alice = house.client(Generation::Two, "org/ns/alice", 1);
    let control = at("org/ns/room", 5);
    for (epoch, number, said) in [
        (1, 10, GroupAck),
        (1, 11, GroupNack),
        (1, 10, GroupAck),
        (2, 12, GroupAck),
    ] {
        house.says(&alice, commit(&alice, &control, epoch, number));
        assert_eq!(house.types(&alice), [said], "{number}");
    }
    assert!(house.writes.is_empty());
}
