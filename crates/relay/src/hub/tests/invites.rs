//! Whom an invite lets in, until when, and who gets the group's sealed state.

use skytale_wire::{
    envelope::{Grant, Kind, RosterChange},
    frame::{
        Commit, Create, GroupInfoWanted, GuestProof, SealGroupInfo, TakeGroupInfo, TakeKeyPackage,
        ToAgent, ToRelay, WantGroupInfo, encode,
    },
    id::{ChannelId, Epoch, Seq},
    invite::InviteSeed,
    refusal::Refusal,
};

use super::house::{CHANNEL, HOUR, House, guest_proof, people, plain, sealed_to};
use crate::hub::{Input, Right};

#[test]
fn an_invite_lets_one_guest_in_and_is_then_dropped() {
    let [alice, bob, carol, dave] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 1);
    let other = InviteSeed::new([77; 16]);

    // Guests that hold nothing, or nothing of this channel, are not let in.
    for (right, refusal) in [
        (Right::Member, Refusal::ChannelUnknown),
        (
            Right::Invite(guest_proof(&carol, &other)),
            Refusal::InviteUnknown,
        ),
        (
            Right::Invite(GuestProof {
                invite: seed.id(),
                ..guest_proof(&carol, &other)
            }),
            Refusal::InviteAltered,
        ),
        (
            Right::Invite(guest_proof(&dave, &seed)),
            Refusal::InviteAltered,
        ),
    ] {
        let conn = house.opening(&carol, right);
        assert_eq!(house.closed[&conn], (refusal, false));
    }

    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    house.answer_all();
    let id = house.id();
    let create = Create {
        channel: ChannelId([1; 32]),
        id,
    };
    assert_eq!(
        house.try_frame(guest, ToRelay::Create(create)),
        [Refusal::ScopeMissing]
    );
    let take = TakeKeyPackage {
        id,
        agent: alice.id,
    };
    assert_eq!(
        house.try_frame(guest, ToRelay::TakeKeyPackage(take)),
        [Refusal::MayNotInvite]
    );

    // What is signed must be what is done.
    let good = house.joining(&carol, &seed, Epoch(2));
    let for_dave = house.joining(&dave, &seed, Epoch(2));
    assert_eq!(
        house.try_frame(guest, ToRelay::Commit(for_dave)),
        [Refusal::InviteAltered]
    );
    let with_rights = Commit {
        change: encode(&RosterChange {
            added: vec![Grant {
                admin: true,
                ..plain(carol.id)
            }],
            ..RosterChange::default()
        })
        .into(),
        ..good.clone()
    };
    assert_eq!(
        house.try_frame(guest, ToRelay::Commit(with_rights)),
        [Refusal::Malformed]
    );
    let stale = Commit {
        epoch: Epoch(1),
        ..good.clone()
    };
    assert_eq!(
        house.try_frame(guest, ToRelay::Commit(stale)),
        [Refusal::StaleEpoch]
    );
    assert_eq!(house.try_frame(guest, ToRelay::Commit(good.clone())), []);
    assert_eq!(house.store.envelope(&CHANNEL, Seq(3)).kind, Kind::Join);
    assert_eq!(
        house.try_frame(guest, ToRelay::Commit(good)),
        [],
        "again: the same Ack"
    );
    let message = house.message(Epoch(3));
    assert_eq!(house.try_frame(guest, ToRelay::Publish(message)), []);

    // Used up: for the next one, and for the next member's commit.
    let late = house.opening(&dave, Right::Invite(guest_proof(&dave, &seed)));
    assert_eq!(house.closed[&late], (Refusal::InviteUsed, false));
    let keeps = house.committing(Epoch(3), &RosterChange::default());
    assert_eq!(
        house.try_frame(conns[1], ToRelay::Commit(keeps)),
        [Refusal::Malformed]
    );
    let drops = house.committing(
        Epoch(3),
        &RosterChange {
            closed: vec![seed.id()],
            ..RosterChange::default()
        },
    );
    assert_eq!(house.try_frame(conns[1], ToRelay::Commit(drops)), []);
    let later = house.opening(&dave, Right::Invite(guest_proof(&dave, &seed)));
    assert_eq!(
        house.closed[&later],
        (Refusal::InviteUsed, false),
        "it still says why"
    );

    // A joiner whose line broke before the Ack comes back by the same invite or as a member.
    for right in [Right::Invite(guest_proof(&carol, &seed)), Right::Member] {
        let back = house.opening(&carol, right);
        house.answer_all();
        assert!(matches!(house.news(back)[0], ToAgent::Ready(_)));
    }
    house.restart();
    assert_eq!(house.hub.memberships.len(), 3);
}

#[test]
fn an_expired_invite_lets_nobody_in_and_anybody_may_drop_it() {
    let [alice, bob, carol, _] = people();
    let (mut house, _) = House::with_channel(&[&alice, &bob]);
    let alice_conn = house.open(&alice);
    let seed = house.invite(alice_conn, Epoch(1), 1, 5);
    house.wait(HOUR);

    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    assert_eq!(house.closed[&guest], (Refusal::InviteExpired, false));

    let bob_conn = house.open(&bob);
    let drops = RosterChange {
        closed: vec![seed.id()],
        ..RosterChange::default()
    };
    let commit = house.committing(Epoch(2), &drops);
    assert_eq!(house.try_frame(bob_conn, ToRelay::Commit(commit)), []);
}

#[test]
fn removing_somebody_closes_every_invite() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 5);

    let keeps = Commit {
        sealed: Some(sealed_to(&[seed.id()])),
        ..house.removing(Epoch(2), bob.id)
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(keeps)),
        [Refusal::Malformed]
    );
    let closes = RosterChange {
        removed: vec![bob.id],
        closed: vec![seed.id()],
        ..RosterChange::default()
    };
    let commit = house.committing(Epoch(2), &closes);
    assert_eq!(house.try_frame(conns[0], ToRelay::Commit(commit)), []);
    assert!(
        house.store.group_infos.is_empty(),
        "nobody may open the old one"
    );

    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    assert_eq!(house.closed[&guest], (Refusal::InviteUnknown, false));
}

#[test]
fn a_sealed_group_info_goes_to_holders_of_its_invite() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 5);
    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    house.settle();
    house.news(guest);
    let take = TakeGroupInfo {
        id: house.id(),
        channel: CHANNEL,
        invite: seed.id(),
    };

    house.say(guest, ToRelay::TakeGroupInfo(take.clone()));
    house.settle();
    assert!(matches!(
        &house.news(guest)[..],
        [ToAgent::GroupInfo(info)] if info.epoch == Epoch(2) && &info.key[..] == b"key"
    ));

    // It cannot be opened: members that are here are asked, and the answer goes to whoever waits.
    house.news(conns[0]);
    house.news(conns[1]);
    let want = WantGroupInfo {
        id: house.id(),
        channel: CHANNEL,
        invite: seed.id(),
    };
    house.say(guest, ToRelay::WantGroupInfo(want.clone()));
    let wanted = ToAgent::GroupInfoWanted(GroupInfoWanted { channel: CHANNEL });
    assert_eq!(house.news(conns[0]), vec![wanted.clone()]);
    assert_eq!(house.news(conns[1]), vec![wanted.clone()]);
    let seal = SealGroupInfo {
        id: house.id(),
        channel: CHANNEL,
        epoch: Epoch(2),
        sealed: sealed_to(&[]),
    };
    assert_eq!(
        house.try_frame(conns[1], ToRelay::SealGroupInfo(seal.clone())),
        [Refusal::SealedSetIncomplete]
    );
    let old = SealGroupInfo {
        epoch: Epoch(1),
        sealed: sealed_to(&[seed.id()]),
        ..seal.clone()
    };
    assert_eq!(house.try_frame(conns[1], ToRelay::SealGroupInfo(old)), []);
    assert_eq!(house.news(guest), []);
    let fresh = SealGroupInfo {
        sealed: sealed_to(&[seed.id()]),
        ..seal
    };
    house.say(conns[1], ToRelay::SealGroupInfo(fresh));
    assert_eq!(house.news(guest), [], "not stored yet");
    house.settle();
    assert!(matches!(
        &house.news(guest)[..],
        [ToAgent::GroupInfo(info)] if info.id == want.id
    ));

    // Nobody is here: the first member that comes is asked.
    house.handle(Input::Gone { conn: conns[0] });
    house.handle(Input::Gone { conn: conns[1] });
    house.say(guest, ToRelay::WantGroupInfo(want));
    let back = house.open(&bob);
    house.subscribe(back, Seq(0));
    assert!(house.news(back).contains(&wanted));

    // A commit that seals nothing cannot stand, so that the store never has an old one.
    let bare = house.committing(Epoch(2), &RosterChange::default());
    assert_eq!(
        house.try_frame(back, ToRelay::Commit(bare)),
        [Refusal::SealedSetIncomplete]
    );
    house.store.group_infos.get_mut(&CHANNEL).unwrap().epoch = Epoch(1);
    assert_eq!(
        house.try_frame(guest, ToRelay::TakeGroupInfo(take)),
        [Refusal::GroupInfoMissing]
    );
}
