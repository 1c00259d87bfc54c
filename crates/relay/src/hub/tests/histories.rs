//! The property: whatever happens, in whatever order, the hub's invariants hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skytale_wire::{
    envelope::{Grant, Kind, RosterChange},
    frame::{Deliver, ToAgent, ToRelay, decode, encode},
    id::{AgentId, Epoch, Seq},
};

use super::house::{CHANNEL, HOUR, House, START, Store, account, people};
use crate::hub::{Conn, Input};

/// One step of a random history. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Gone(usize),
    Publish(usize, bool),
    Resend(usize, usize),
    Update(usize, bool),
    Add(usize, usize),
    Remove(usize, usize),
    Leave(usize),
    Subscribe(usize, u64),
    Full(usize),
    Drained(usize),
    ApplyOne,
    StoreOne,
    AnswerOne,
    Settle,
    FailDisk(bool),
    Restart,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0usize..4;
    let step = prop_oneof![
        3 => who.clone().prop_map(Step::Open),
        1 => who.clone().prop_map(Step::Gone),
        12 => (who.clone(), proptest::bool::weighted(0.8)).prop_map(|(a, b)| Step::Publish(a, b)),
        2 => (who.clone(), 0usize..100).prop_map(|(a, b)| Step::Resend(a, b)),
        3 => (who.clone(), proptest::bool::weighted(0.8)).prop_map(|(a, b)| Step::Update(a, b)),
        4 => (who.clone(), who.clone()).prop_map(|(a, b)| Step::Add(a, b)),
        3 => (who.clone(), who.clone()).prop_map(|(a, b)| Step::Remove(a, b)),
        1 => who.clone().prop_map(Step::Leave),
        4 => (who.clone(), 0u64..30).prop_map(|(a, b)| Step::Subscribe(a, b)),
        1 => who.clone().prop_map(Step::Full),
        2 => who.prop_map(Step::Drained),
        3 => Just(Step::ApplyOne),
        10 => Just(Step::StoreOne),
        10 => Just(Step::AnswerOne),
        2 => Just(Step::Settle),
        1 => any::<bool>().prop_map(Step::FailDisk),
        1 => Just(Step::Restart),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Who is in after each record, by the log alone: index 0 is before the first.
fn members_by_seq(store: &Store, founder: AgentId) -> Vec<BTreeSet<AgentId>> {
    let mut history = vec![BTreeSet::from([founder])];
    for seq in 1..=store.head(&CHANNEL).0 {
        let envelope = store.envelope(&CHANNEL, Seq(seq));
        let mut members = history.last().unwrap().clone();
        if envelope.kind == Kind::Leave {
            members.remove(&envelope.agent);
        }
        if let Some(change) = &envelope.change {
            let change: RosterChange = decode(change, usize::MAX).unwrap();
            for agent in change.removed {
                members.remove(&agent);
            }
            members.extend(change.added.iter().map(|grant| grant.agent));
        }
        history.push(members);
    }
    history
}

/// Plays a history, then lets everything arrive, and checks what must hold.
fn play(steps: &[Step]) {
    let everybody = people();
    let (mut house, first) = House::with_channel(&[&everybody[0], &everybody[1]]);
    let mut conns: [Option<Conn>; 4] = [Some(first[0]), Some(first[1]), None, None];
    let mut owners: BTreeMap<Conn, AgentId> =
        BTreeMap::from([(first[0], everybody[0].id), (first[1], everybody[1].id)]);
    let mut sent: Vec<(usize, ToRelay)> = Vec::new();
    let epoch = |house: &House| house.hub.channels[&CHANNEL].kept.epoch;

    for step in steps {
        let mut frame = None;
        match step {
            Step::Open(who) => {
                let conn = house.opening(&everybody[*who], account(START.plus(100 * HOUR)));
                owners.insert(conn, everybody[*who].id);
                conns[*who] = Some(conn);
            }
            Step::Gone(who) => {
                if let Some(conn) = conns[*who].take() {
                    house.handle(Input::Gone { conn });
                }
            }
            Step::Publish(who, current) => {
                let epoch = epoch(&house);
                let epoch = if *current {
                    epoch
                } else {
                    Epoch(epoch.0.saturating_sub(1))
                };
                frame = Some((*who, ToRelay::Publish(house.message(epoch))));
            }
            Step::Resend(who, which) => {
                let mine: Vec<_> = sent.iter().filter(|(by, _)| by == who).collect();
                if !mine.is_empty() {
                    frame = Some(mine[which % mine.len()].clone());
                }
            }
            Step::Update(who, current) => {
                let epoch = epoch(&house);
                let epoch = if *current {
                    epoch
                } else {
                    Epoch(epoch.0.saturating_sub(1))
                };
                let commit = house.committing(epoch, &RosterChange::default());
                frame = Some((*who, ToRelay::Commit(commit)));
            }
            Step::Add(who, whom) => {
                let epoch = epoch(&house);
                let mut commit = house.adding(epoch, &[everybody[*whom].id]);
                let change = RosterChange {
                    added: vec![Grant {
                        agent: everybody[*whom].id,
                        admin: *who == 0,
                        may_invite: true,
                    }],
                    ..RosterChange::default()
                };
                commit.change = encode(&change).into();
                frame = Some((*who, ToRelay::Commit(commit)));
            }
            Step::Remove(who, whom) => {
                let epoch = epoch(&house);
                let commit = house.removing(epoch, everybody[*whom].id);
                frame = Some((*who, ToRelay::Commit(commit)));
            }
            Step::Leave(who) => {
                let leave = house.leaving(&everybody[*who]);
                frame = Some((*who, ToRelay::Leave(leave)));
            }
            Step::Subscribe(who, after) => {
                if let Some(conn) = conns[*who] {
                    house.subscribe(conn, Seq(*after));
                }
            }
            Step::Full(who) => {
                if let Some(conn) = conns[*who] {
                    house.handle(Input::Full { conn });
                }
            }
            Step::Drained(who) => {
                if let Some(conn) = conns[*who] {
                    house.handle(Input::Drained { conn });
                }
            }
            Step::ApplyOne => house.apply_one(),
            Step::StoreOne => drop(house.store_one()),
            Step::AnswerOne => drop(house.answer_one()),
            Step::Settle => house.settle(),
            Step::FailDisk(written) => {
                // Sometimes the first of the lost writes was written all the same.
                if *written && let Some((_, write)) = house.writes.front() {
                    let write = write.clone();
                    house.store.write(write);
                }
                house.fail_disk();
            }
            Step::Restart => {
                house.restart();
                conns = [None; 4];
            }
            Step::Wait => house.wait(1_000),
        }
        if let Some((who, frame)) = frame
            && let Some(conn) = conns[who]
        {
            sent.push((who, frame.clone()));
            house.say(conn, frame);
        }
    }
    for conn in owners.keys() {
        house.handle(Input::Drained { conn: *conn });
    }
    house.settle();
    house.wait(1_000);
    house.settle();

    check_log(&house);
    check_deliveries(&house, &owners, everybody[0].id);
}

/// I3: each epoch is ended by at most one commit, and every message is of the epoch it stands in.
fn check_log(house: &House) {
    let mut epoch = Epoch(0);
    for seq in 1..=house.store.head(&CHANNEL).0 {
        let envelope = house.store.envelope(&CHANNEL, Seq(seq));
        assert_eq!(envelope.epoch, epoch, "at {seq}");
        let made = house.made.get(&envelope.id);
        assert!(made.is_none_or(|made| *made == epoch), "stale at {seq}");
        if matches!(envelope.kind, Kind::Commit | Kind::Join) {
            epoch = epoch.next();
        }
    }
}

/// I1, I2 and I6, for each connection by itself: no gap, no repeat, nothing for strangers, and
/// nothing missing in the end.
fn check_deliveries(house: &House, owners: &BTreeMap<Conn, AgentId>, founder: AgentId) {
    let members = members_by_seq(&house.store, founder);
    let head = house.store.head(&CHANNEL).0;
    for (conn, frames) in &house.received {
        let agent = &owners[conn];
        let mut after = 0;
        let mut got: Option<(u64, u64)> = None;
        for frame in frames {
            if let ToAgent::Subscribed(subscribed) = frame {
                // It may ask for the same again.
                (after, got) = (house.asked[&subscribed.id].0, None);
            }
            if let ToAgent::Deliver(Deliver { seq, .. }) = frame {
                let at = usize::try_from(seq.0).unwrap();
                assert!(
                    members[at].contains(agent) || members[at - 1].contains(agent),
                    "{agent:?} got {seq}, where it was no member"
                );
                let first = got.map_or(seq.0, |(first, last)| {
                    assert_eq!(last + 1, seq.0, "no gap and no repeat");
                    first
                });
                got = Some((first, seq.0));
            }
        }
        let subscribed = house.hub.channels.get(&CHANNEL).is_some_and(|channel| {
            channel
                .subscribers
                .iter()
                .any(|subscriber| subscriber.conn == *conn)
        });
        // Everything of its present stay, as far as it asked for it.
        let stay = members
            .iter()
            .rev()
            .take_while(|members| members.contains(agent));
        let entry = head + 1 - stay.count() as u64;
        let first = entry.max(after + 1);
        if subscribed && first <= head {
            let (from, to) = got.expect("a member that reads has read something");
            assert!(
                from <= first && to == head,
                "{from} to {to} of {first} to {head}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_histories_keep_the_invariants(steps in steps()) {
        play(&steps);
    }
}
