//! Who may change who is in, and what strangers and leavers may do.

use skytale_wire::{
    envelope::{Grant, OpenInvite, RosterChange},
    frame::{Ack, Commit, Leave, Publish, Subscribe, TakeGroupInfo, ToAgent, ToRelay, encode},
    id::{ChannelId, Digest, Epoch, Generation, InviteId, MessageId, Seq},
    refusal::Refusal,
};

use super::house::{CHANNEL, HOUR, House, START, delivered, guest_proof, people, plain};
use crate::hub::Right;

#[test]
fn strangers_cannot_tell_a_channel_from_none() {
    let [alice, bob, ..] = people();
    let (mut house, _) = House::with_channel(&[&alice]);
    let conn = house.open(&bob);
    for channel in [CHANNEL, ChannelId([1; 32])] {
        let (id, epoch, after) = (MessageId([1; 16]), Epoch(0), Seq(0));
        let publish = Publish {
            channel,
            ..house.message(epoch)
        };
        let commit = Commit {
            channel,
            ..house.committing(epoch, &RosterChange::default())
        };
        let take = TakeGroupInfo {
            id,
            channel,
            invite: InviteId([1; 16]),
        };
        let unknown = [Refusal::ChannelUnknown];
        assert_eq!(house.try_frame(conn, ToRelay::Publish(publish)), unknown);
        assert_eq!(house.try_frame(conn, ToRelay::Commit(commit)), unknown);
        let subscribe = Subscribe { channel, id, after };
        assert_eq!(
            house.try_frame(conn, ToRelay::Subscribe(subscribe)),
            unknown
        );
        assert_eq!(
            house.try_frame(conn, ToRelay::TakeGroupInfo(take)),
            [Refusal::InviteUnknown]
        );
    }
    assert_eq!(house.store.head(&CHANNEL), Seq(0));
}

#[test]
fn the_roster_holds_everybody_to_their_rights() {
    let [alice, bob, carol, dave] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob, &carol]);
    let epoch = Epoch(1);
    let admin = Grant {
        admin: true,
        ..plain(dave.id)
    };
    let invite = OpenInvite {
        signing: Digest([1; 32]),
        uses: 1,
        expires: START.plus(HOUR),
    };
    let change = RosterChange::default;

    let cases = [
        (
            1,
            RosterChange {
                removed: vec![carol.id],
                ..change()
            },
            Refusal::NotAdmin,
        ),
        (
            1,
            RosterChange {
                granted: vec![plain(carol.id)],
                ..change()
            },
            Refusal::NotAdmin,
        ),
        (
            1,
            RosterChange {
                opened: vec![invite],
                ..change()
            },
            Refusal::MayNotInvite,
        ),
        (
            1,
            RosterChange {
                added: vec![plain(dave.id)],
                ..change()
            },
            Refusal::MayNotInvite,
        ),
        (
            0,
            RosterChange {
                added: vec![plain(bob.id)],
                ..change()
            },
            Refusal::MemberAlready,
        ),
        (
            0,
            RosterChange {
                removed: vec![dave.id],
                ..change()
            },
            Refusal::MemberUnknown,
        ),
        (
            0,
            RosterChange {
                removed: vec![alice.id],
                ..change()
            },
            Refusal::Malformed,
        ),
        (
            0,
            RosterChange {
                removed: vec![bob.id, bob.id],
                ..change()
            },
            Refusal::Malformed,
        ),
        (
            0,
            RosterChange {
                granted: vec![plain(dave.id)],
                ..change()
            },
            Refusal::MemberUnknown,
        ),
        (
            0,
            RosterChange {
                closed: vec![invite.id()],
                ..change()
            },
            Refusal::InviteUnknown,
        ),
        (
            0,
            RosterChange {
                opened: vec![OpenInvite { uses: 0, ..invite }],
                ..change()
            },
            Refusal::Malformed,
        ),
        (
            0,
            RosterChange {
                opened: vec![OpenInvite {
                    expires: START,
                    ..invite
                }],
                ..change()
            },
            Refusal::InviteExpired,
        ),
        // A Welcome is missing, and nobody is told how to open the sealed GroupInfo.
        (
            0,
            RosterChange {
                added: vec![admin],
                ..change()
            },
            Refusal::Malformed,
        ),
        (
            0,
            RosterChange {
                opened: vec![invite],
                ..change()
            },
            Refusal::SealedSetIncomplete,
        ),
    ];
    for (who, change, refusal) in cases {
        let commit = house.committing(epoch, &change);
        assert_eq!(
            house.try_frame(conns[who], ToRelay::Commit(commit)),
            [refusal],
            "{change:?}"
        );
    }
    let garbage = Commit {
        change: b"\xff".to_vec().into(),
        ..house.committing(epoch, &change())
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(garbage)),
        [Refusal::Malformed]
    );
    assert_eq!(
        house.store.head(&CHANNEL),
        Seq(1),
        "a refusal changes nothing"
    );

    // With rights, the same things go; a member may be taken out and in again in one commit.
    let grant = RosterChange {
        granted: vec![Grant {
            may_invite: true,
            ..plain(bob.id)
        }],
        ..change()
    };
    let commit = house.committing(epoch, &grant);
    assert_eq!(house.try_frame(conns[0], ToRelay::Commit(commit)), []);
    let commit = house.adding(Epoch(2), &[dave.id]);
    assert_eq!(house.try_frame(conns[1], ToRelay::Commit(commit)), []);
    let swap = Commit {
        change: encode(&RosterChange {
            added: vec![plain(carol.id)],
            removed: vec![carol.id],
            ..change()
        })
        .into(),
        ..house.adding(Epoch(3), &[carol.id])
    };
    assert_eq!(house.try_frame(conns[0], ToRelay::Commit(swap)), []);
    let commit = house.adding(Epoch(4), &[dave.id]);
    assert_eq!(
        house.try_frame(conns[1], ToRelay::Commit(commit)),
        [Refusal::MemberAlready]
    );
    let publish = house.message(Epoch(4));
    assert_eq!(house.try_frame(conns[2], ToRelay::Publish(publish)), []);
}

#[test]
fn a_leaver_is_out_at_once_and_anybody_clears_its_leaf_away() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob, &carol]);
    for conn in &conns {
        house.subscribe(*conn, Seq(1));
    }
    house.settle();

    let forged = Leave {
        statement: house.leaving(&carol).statement,
        ..house.leaving(&bob)
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::Leave(forged)),
        [Refusal::IdentityUnproven]
    );
    // A leave of an earlier stay, which waited while Bob was removed and added again.
    let late = Leave {
        cursor: Seq(0),
        ..house.leaving(&bob)
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::Leave(late)),
        [Refusal::MemberUnknown]
    );
    let leave = house.leaving(&bob);
    house.news(conns[1]);
    house.say(conns[1], ToRelay::Leave(leave.clone()));
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.settle();
    house.say(conns[1], ToRelay::Leave(leave));

    let news = house.news(conns[1]);
    assert!(matches!(news[0], ToAgent::Ack(Ack { seq: Seq(2), .. })));
    assert!(
        matches!(news[2], ToAgent::Ack(Ack { seq: Seq(2), .. })),
        "idempotent"
    );
    assert_eq!(delivered(&news), [2], "its own farewell, and nothing after");
    assert_eq!(house.places(conns[2]), [2, 3]);

    // Its leaf is still in the group: it comes back only after that is gone.
    let back = house.adding(Epoch(1), &[bob.id]);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(back)),
        [Refusal::MemberAlready]
    );
    let clears = house.removing(Epoch(1), bob.id);
    assert_eq!(
        house.try_frame(conns[2], ToRelay::Commit(clears)),
        [],
        "not an admin"
    );
    let twice = house.removing(Epoch(2), bob.id);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(twice)),
        [Refusal::MemberUnknown]
    );
    let back = house.adding(Epoch(2), &[bob.id]);
    assert_eq!(house.try_frame(conns[0], ToRelay::Commit(back)), []);
}

/// A group that is over, or that never was, has the same members and the same keys: what was
/// signed for it must not count in the present one.
#[test]
fn what_is_said_of_another_generation_is_refused() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 1);
    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    house.answer_all();
    let head = house.store.head(&CHANNEL);

    let other = Generation(1);
    let join = house.joining_in(other, &carol, &seed, Epoch(2));
    assert_eq!(
        house.try_frame(guest, ToRelay::Commit(join)),
        [Refusal::ClosedGeneration]
    );
    let leave = house.leaving_from(other, &bob);
    assert_eq!(
        house.try_frame(conns[1], ToRelay::Leave(leave)),
        [Refusal::ClosedGeneration]
    );
    assert_eq!(house.store.head(&CHANNEL), head);

    // The invite is not used up by it, and of the present generation both go.
    let join = house.joining(&carol, &seed, Epoch(2));
    assert_eq!(house.try_frame(guest, ToRelay::Commit(join)), []);
    let leave = house.leaving(&bob);
    assert_eq!(house.try_frame(conns[1], ToRelay::Leave(leave)), []);
}
