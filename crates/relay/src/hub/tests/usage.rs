//! What is counted for whom, and that it reaches the API server once, whatever dies on the way.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skytale_wire::{
    envelope::{Kind, RosterChange},
    frame::{Create, Deliver, ToAgent, ToRelay},
    http::UsageReport,
    id::{Epoch, MessageId, Seq, Time},
    token::AccountId,
};

use super::house::{CHANNEL, HOUR, House, Person, START, guest_proof, people};
use crate::{
    archive::usage::{Report, Used},
    hub::{Conn, Input, Payer, Right},
};

const HERS: AccountId = AccountId([1; 16]);
const HIS: AccountId = AccountId([2; 16]);
/// Longer than from one report to the next.
const PERIOD: u64 = 10_000;

fn paid(account: AccountId, key: &str, until: Time) -> Right {
    Right::Account {
        payer: Payer {
            account: account.to_string(),
            key: Some(key.parse().unwrap()),
            issued: START,
        },
        expires: until,
    }
}

/// Alice's channel, in which Bob is, each with an account; both read it.
struct Scene {
    house: House,
    alice: Conn,
    bob: Conn,
}

impl Scene {
    fn new(alice: &Person, bob: &Person) -> Self {
        let mut house = House::metering();
        let until = START.plus(100 * HOUR);
        let [alice, bob_conn] = [
            house.opening(alice, paid(HERS, "key1key1", until)),
            house.opening(bob, paid(HIS, "key2key2", until)),
        ];
        house.answer_all();
        let id = house.id();
        let channel = CHANNEL;
        house.say(alice, ToRelay::Create(Create { channel, id }));
        house.settle();
        let adding = house.adding(Epoch(0), &[bob.id]);
        house.say(alice, ToRelay::Commit(adding));
        house.settle();
        for conn in [alice, bob_conn] {
            house.subscribe(conn, Seq(1));
        }
        house.settle();
        let mut scene = Self {
            house,
            alice,
            bob: bob_conn,
        };
        scene.counted();
        scene
    }

    fn publish(&mut self, conn: Conn) -> MessageId {
        let message = self.house.message(Epoch(1));
        let id = message.id;
        self.house.say(conn, ToRelay::Publish(message));
        id
    }

    fn counted(&mut self) -> Counted {
        counted(&mut self.house)
    }
}

/// By account, key and month.
type Counted = BTreeMap<(AccountId, String, String), Used>;

/// Lets a period pass, and takes what was reported in it.
fn counted(house: &mut House) -> Counted {
    house.wait(PERIOD);
    house.settle();
    let mut counted = BTreeMap::new();
    while let Some(report) = house.reports.pop_front() {
        add(&mut counted, &report);
        let number = report.number;
        house.handle(Input::Reported { number });
        house.settle();
    }
    counted
}

fn add(counted: &mut Counted, report: &Report) {
    let read: UsageReport = serde_json::from_slice(&report.body).unwrap();
    assert_eq!(read.number, report.number);
    for entry in read.entries {
        let key = entry.key_id.map_or_else(String::new, |key| key.to_string());
        let tab = (entry.account_id, key, entry.month.to_string());
        counted.entry(tab).or_default().add(&Used {
            messages: entry.messages,
            bytes: entry.bytes,
            delivered: entry.delivered,
            connected_ms: entry.connected_ms,
        });
    }
}

fn used(messages: u64, bytes: u64, delivered: u64, connected_ms: u64) -> Used {
    Used {
        messages,
        bytes,
        delivered,
        connected_ms,
    }
}

fn tab(account: AccountId, key: &str) -> (AccountId, String, String) {
    (account, key.to_owned(), "2023-11".to_owned())
}

#[test]
fn a_message_counts_once_for_its_sender_and_its_copies_for_who_gets_them() {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    let message = scene.house.message(Epoch(1));

    // Said again before it is stored, and after.
    for _ in 0..2 {
        scene
            .house
            .say(scene.alice, ToRelay::Publish(message.clone()));
    }
    scene.house.settle();
    scene.house.say(scene.alice, ToRelay::Publish(message));
    scene.house.settle();

    let counted = scene.counted();
    assert_eq!(counted[&tab(HERS, "key1key1")], used(1, 6, 1, PERIOD));
    assert_eq!(counted[&tab(HIS, "key2key2")], used(0, 0, 1, PERIOD));
    assert_eq!(counted.len(), 2);
}

#[test]
fn a_group_change_has_bytes_and_is_no_message_and_a_refused_one_has_nothing() {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    let commit = scene.house.committing(Epoch(1), &RosterChange::default());
    let late = scene.house.committing(Epoch(0), &RosterChange::default());

    scene.house.say(scene.alice, ToRelay::Commit(commit));
    scene.house.say(scene.alice, ToRelay::Commit(late));
    scene.house.settle();

    let hers = scene.counted()[&tab(HERS, "key1key1")];
    assert_eq!((hers.messages, hers.bytes, hers.delivered), (0, 8, 1));
}

#[test]
fn what_is_read_from_the_archive_counts_as_well() {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    let bob = scene.bob;
    scene.house.handle(Input::Full { conn: bob });
    for _ in 0..5 {
        scene.publish(scene.alice);
    }
    scene.house.settle();

    scene.house.handle(Input::Drained { conn: bob });
    scene.house.settle();

    assert_eq!(scene.counted()[&tab(HIS, "key2key2")].delivered, 5);
}

#[test]
fn what_guests_do_is_the_channels_owners() {
    let [alice, bob, carol, _] = people();
    let mut scene = Scene::new(&alice, &bob);
    let seed = scene.house.invite(scene.alice, Epoch(1), 1, 1);
    let right = Right::Invite(guest_proof(&carol, &seed));
    let guest = scene.house.opening(&carol, right);
    scene.house.answer_all();
    let joining = scene.house.joining(&carol, &seed, Epoch(2));
    scene.house.say(guest, ToRelay::Commit(joining));
    scene.house.settle();
    scene.house.subscribe(guest, Seq(3));
    scene.house.settle();
    scene.counted();

    let message = scene.house.message(Epoch(3));
    scene.house.say(guest, ToRelay::Publish(message));
    scene.house.settle();

    let counted = scene.counted();
    assert_eq!(counted[&tab(HERS, "")], used(1, 6, 1, 0), "no time");
    assert_eq!(counted[&tab(HERS, "key1key1")], used(0, 0, 1, PERIOD));
}

#[test]
fn time_counts_for_the_key_that_paid_for_it() {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    let (alice, bob) = (scene.alice, scene.bob);
    scene.house.wait(1_000);
    let until = START.plus(100 * HOUR);
    scene.house.handle(Input::Renewed {
        conn: alice,
        id: MessageId([1; 16]),
        right: Ok(paid(HERS, "key3key3", until)),
    });
    scene.house.wait(2_000);
    scene.house.handle(Input::Gone { conn: bob });
    scene.publish(alice);
    scene.house.settle();

    let counted = scene.counted();

    let hers = |key| counted[&tab(HERS, key)];
    assert_eq!(hers("key1key1"), used(0, 0, 0, 1_000));
    assert_eq!(hers("key3key3").messages, 1);
    assert_eq!(hers("key3key3").connected_ms, PERIOD - 1_000);
    assert_eq!(counted[&tab(HIS, "key2key2")].connected_ms, 3_000);
}

#[test]
fn each_month_has_its_own() {
    let [alice, ..] = people();
    let mut house = House::metering();
    let midnight = Time(1_701_388_800_000);
    house.now = Time(midnight.0 - 1_000);
    house.opening(&alice, paid(HERS, "key1key1", midnight.plus(HOUR)));
    house.answer_all();

    house.wait(0);
    house.settle();
    let counted = counted(&mut house);

    let in_month = |month: &str| counted[&(HERS, "key1key1".to_owned(), month.to_owned())];
    assert_eq!(in_month("2023-11"), used(0, 0, 0, 1_000));
    assert_eq!(in_month("2023-12"), used(0, 0, 0, PERIOD - 1_000));
}

#[test]
fn a_relay_that_ends_leaves_what_it_counted_in_the_archive() {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    scene.publish(scene.alice);
    scene.house.settle();
    scene.house.now = scene.house.now.plus(500);

    scene.house.handle(Input::Ending);
    scene.house.settle();
    let told = scene.house.reports.pop_front();
    assert!(told.is_some(), "and says so");
    scene.house.restart();

    let counted = scene.counted();
    assert_eq!(counted[&tab(HERS, "key1key1")], used(1, 6, 1, 500));
}

#[test]
fn a_relay_without_anybody_to_tell_counts_nothing() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.wait(10 * PERIOD);
    house.settle();

    assert!(house.store.used.is_empty() && house.store.report.is_none());
    assert!(house.writes.is_empty() && house.reports.is_empty());
}

/// What may happen between a relay and the API server.
#[derive(Debug, Clone)]
enum Step {
    Publish(bool),
    Again,
    Pass,
    ApplyOne,
    StoreOne,
    Settle,
    /// The disk fails; perhaps the first write on its way was written all the same.
    FailDisk(bool),
    /// The relay is killed and starts again.
    Restart,
    /// The newest report reaches the API server.
    Take,
    /// And the relay hears of it.
    Hear,
    /// What it heard it hears again, or something of long ago.
    HearOld(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<bool>().prop_map(Step::Publish),
        1 => Just(Step::Again),
        6 => Just(Step::Pass),
        6 => Just(Step::ApplyOne),
        10 => Just(Step::StoreOne),
        2 => Just(Step::Settle),
        1 => any::<bool>().prop_map(Step::FailDisk),
        2 => Just(Step::Restart),
        6 => Just(Step::Take),
        6 => Just(Step::Hear),
        1 => (0usize..100).prop_map(Step::HearOld),
    ];
    proptest::collection::vec(step, 1..150)
}

/// The API server's part: it remembers the last number, in one step with what it adds.
#[derive(Default)]
struct Taker {
    last: u64,
    counted: Counted,
    taken: Vec<u64>,
}

impl Taker {
    fn take(&mut self, report: &Report) {
        if report.number > self.last {
            self.last = report.number;
            add(&mut self.counted, report);
        }
        self.taken.push(report.number);
    }
}

fn play(steps: &[Step]) {
    let [alice, bob, ..] = people();
    let mut scene = Scene::new(&alice, &bob);
    let mut taker = Taker::default();
    let mut last_said = None;
    // What the house and the hub have counted before the play is not looked at.
    let head = scene.house.store.head(&CHANNEL);
    for conn in [scene.alice, scene.bob] {
        scene.house.news(conn);
    }
    let mut copies = 0;

    for step in steps {
        let before = [scene.alice, scene.bob];
        match step {
            Step::Publish(hers) => {
                let conn = if *hers { scene.alice } else { scene.bob };
                let message = scene.house.message(Epoch(1));
                last_said = Some((conn, message.clone()));
                scene.house.say(conn, ToRelay::Publish(message));
            }
            Step::Again => {
                if let Some((conn, message)) = &last_said {
                    scene.house.say(*conn, ToRelay::Publish(message.clone()));
                }
            }
            Step::Pass => scene.house.wait(PERIOD / 2),
            Step::ApplyOne => scene.house.apply_one(),
            Step::StoreOne => drop(scene.house.store_one()),
            Step::Settle => scene.house.settle(),
            Step::FailDisk(written) => {
                if *written && let Some((_, write)) = scene.house.writes.front() {
                    let write = write.clone();
                    scene.house.store.write(write);
                }
                scene.house.fail_disk();
            }
            Step::Restart => {
                scene.house.restart();
                // The report was in the mind of whoever sends it.
                scene.house.reports.clear();
                scene.house.now = scene.house.now.plus(20);
                let until = scene.house.now.plus(100 * HOUR);
                scene.alice = scene.house.opening(&alice, paid(HERS, "key1key1", until));
                scene.bob = scene.house.opening(&bob, paid(HIS, "key2key2", until));
                scene.house.answer_all();
                last_said = None;
                for conn in [scene.alice, scene.bob] {
                    scene.house.subscribe(conn, Seq(1));
                }
            }
            Step::Take => {
                if let Some(report) = scene.house.reports.back() {
                    taker.take(report);
                }
            }
            Step::Hear => {
                if let Some(number) = taker.taken.last().copied() {
                    scene.house.handle(Input::Reported { number });
                }
            }
            Step::HearOld(which) => {
                if !taker.taken.is_empty() {
                    let number = taker.taken[which % taker.taken.len()];
                    scene.house.handle(Input::Reported { number });
                }
            }
        }
        for conn in before {
            copies += copies_in(&scene.house.news(conn));
        }
    }
    // Everything comes to rest, and all reports arrive.
    scene.house.settle();
    for _ in 0..4 {
        scene.house.wait(PERIOD);
        scene.house.settle();
        while let Some(report) = scene.house.reports.pop_front() {
            taker.take(&report);
            let number = report.number;
            scene.house.handle(Input::Reported { number });
            scene.house.settle();
        }
        for conn in [scene.alice, scene.bob] {
            copies += copies_in(&scene.house.news(conn));
        }
    }

    let store = &scene.house.store;
    let log = (head.0 + 1..=store.head(&CHANNEL).0).map(|seq| store.envelope(&CHANNEL, Seq(seq)));
    let mut said = [(alice.id, HERS, 0, 0), (bob.id, HIS, 0, 0)];
    for record in log.filter(|record| record.kind == Kind::Application) {
        let by = said.iter_mut().find(|(agent, ..)| *agent == record.agent);
        let (_, _, messages, bytes) = by.unwrap();
        *messages += 1;
        *bytes += record.body.len() as u64;
    }
    let total = |account| {
        let mut total = Used::default();
        let hers = taker.counted.iter().filter(|(tab, _)| tab.0 == account);
        hers.for_each(|(_, used)| total.add(used));
        total
    };
    for (_, account, messages, bytes) in said {
        let total = total(account);
        assert_eq!((total.messages, total.bytes), (messages, bytes));
    }
    // Of copies a crash may lose what was not written, and nothing counts twice.
    let restarts = steps.iter().any(|step| matches!(step, Step::Restart));
    let counted = total(HERS).delivered + total(HIS).delivered;
    assert!(counted <= copies, "{counted} of {copies}");
    assert!(restarts || counted == copies, "{counted} of {copies}");
}

fn copies_in(frames: &[ToAgent]) -> u64 {
    let copies = frames
        .iter()
        .filter(|frame| matches!(frame, ToAgent::Deliver(Deliver { .. })));
    copies.count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn everything_counts_once_whatever_dies(steps in steps()) {
        play(&steps);
    }
}
