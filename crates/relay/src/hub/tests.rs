//! The hub's rules, and the property that random histories keep its invariants.
//!
//! `House` is a hub with a store in memory whose writes and reads happen when the test says so,
//! so that every order of events can be tried.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use skytale_wire::{
    Blob,
    envelope::{Envelope, Grant, Kind, OpenInvite, RosterChange, content_hash},
    frame::{
        Ack, Commit, Create, Deliver, GroupInfoWanted, GuestProof, JoinProof, Leave, Nack, Publish,
        Published, PutKeyPackages, SealGroupInfo, Sealed, SealedKey, Subscribe, Subscribed,
        TakeGroupInfo, TakeKeyPackage, TakeWelcome, ToAgent, ToRelay, WantGroupInfo, WelcomeFor,
        Welcomed, decode, encode,
    },
    id::{
        AgentId, ChannelId, Digest, Epoch, Generation, InviteId, MessageId, RelayKey, Seq, Signed,
        Time, TransportKey,
    },
    invite::InviteSeed,
    refusal::Refusal,
    statement,
};

use super::{Answer, Conn, Hub, HubConfig, Input, Output, Presented, Query, Right, Ticket};
use crate::{
    archive::{
        Append, KeyPackagesLeft, SealedGroupInfo, StoredChannel, StoredRecord, Write, Written,
    },
    limits::{Limits, Rate},
};

const RELAY: RelayKey = RelayKey([0xee; 32]);
const CHANNEL: ChannelId = ChannelId([0xcc; 32]);
const START: Time = Time(1_700_000_000_000);
const HOUR: u64 = 3_600_000;

/// An agent with a key of its own.
struct Person {
    id: AgentId,
    key: SigningKey,
}

impl Person {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        Self {
            id: AgentId(key.verifying_key().to_bytes()),
            key,
        }
    }
}

fn people() -> [Person; 4] {
    [1, 2, 3, 4].map(Person::new)
}

/// What a store holds, kept simply.
#[derive(Default)]
struct Store {
    channels: BTreeMap<ChannelId, StoredChannel>,
    records: BTreeMap<ChannelId, Vec<(Bytes, Digest)>>,
    ids: HashMap<(ChannelId, AgentId, MessageId), Seq>,
    welcomes: BTreeMap<AgentId, Vec<(ChannelId, MessageId, Bytes)>>,
    group_infos: BTreeMap<ChannelId, SealedGroupInfo>,
    packages: BTreeMap<AgentId, VecDeque<Blob>>,
    last_resort: BTreeMap<AgentId, Blob>,
}

impl Store {
    fn write(&mut self, write: Write) -> Written {
        match write {
            Write::Channel { channel, state } => {
                let row = self.channels.entry(channel).or_insert(StoredChannel {
                    channel,
                    state: Bytes::new(),
                    head: Seq(0),
                    hash: Digest([0; 32]),
                    pruned: Seq(0),
                });
                row.state = state;
                Written::Done
            }
            Write::Append(append) => {
                self.append(append);
                Written::Done
            }
            Write::GroupInfo { channel, sealed } => {
                self.group_infos.insert(channel, sealed);
                Written::Done
            }
            Write::PutKeyPackages {
                agent,
                packages,
                last_resort,
                ..
            } => {
                self.last_resort
                    .extend(last_resort.map(|last| (agent, last)));
                let kept = self.packages.entry(agent).or_default();
                kept.extend(packages);
                Written::KeyPackages(u32::try_from(kept.len()).unwrap())
            }
            Write::TakeKeyPackage { agent, .. } => Written::KeyPackage(
                self.packages
                    .get_mut(&agent)
                    .and_then(VecDeque::pop_front)
                    .or_else(|| self.last_resort.get(&agent).cloned()),
            ),
            Write::DropWelcome { agent, channel, id } => {
                if let Some(mailbox) = self.welcomes.get_mut(&agent) {
                    mailbox.retain(|(at, name, _)| (*at, *name) != (channel, id));
                }
                Written::Done
            }
            Write::Prune { channel, up_to } => {
                self.channels.get_mut(&channel).unwrap().pruned = up_to;
                Written::Done
            }
        }
    }

    fn append(&mut self, append: Append) {
        let row = self.channels.get_mut(&append.channel).unwrap();
        assert_eq!(append.seq, row.head.next(), "places are contiguous");
        let envelope: Envelope = decode(&append.record, usize::MAX).unwrap();
        assert_eq!(envelope.log_hash(&row.hash, append.seq), append.hash);
        row.head = append.seq;
        row.hash = append.hash;
        if let Some(state) = append.state {
            row.state = state;
        }
        let key = (append.channel, append.agent, append.id);
        assert_eq!(self.ids.insert(key, append.seq), None, "stored once");
        self.records
            .entry(append.channel)
            .or_default()
            .push((append.record, append.hash));
        for row in append.welcomes {
            let mailbox = self.welcomes.entry(row.agent).or_default();
            mailbox.push((row.channel, row.id, row.frame));
        }
        match append.sealed {
            Some(sealed) => drop(self.group_infos.insert(append.channel, sealed)),
            None if append.ends_epoch => drop(self.group_infos.remove(&append.channel)),
            None => {}
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        match *query {
            Query::Greeting { agent } => Answer::Greeting {
                key_packages: KeyPackagesLeft {
                    count: u32::try_from(self.packages.get(&agent).map_or(0, VecDeque::len))
                        .unwrap(),
                    last_resort: self.last_resort.contains_key(&agent),
                },
                welcomes: u32::try_from(self.welcomes.get(&agent).map_or(0, Vec::len)).unwrap(),
            },
            Query::Records {
                channel,
                after,
                count_max,
                ..
            } => Answer::Records {
                channel,
                after,
                records: (after.0 + 1..=self.head(&channel).0)
                    .take(count_max.min(3)) // Few, so that catching up takes several reads.
                    .map(|seq| StoredRecord {
                        seq: Seq(seq),
                        record: self.record(&channel, Seq(seq)),
                    })
                    .collect(),
            },
            Query::HashAt { channel, seq } => Answer::HashAt {
                channel,
                seq,
                hash: match seq.0 {
                    0 => Some(Digest([0; 32])),
                    at => self
                        .records
                        .get(&channel)
                        .and_then(|records| records.get(usize::try_from(at).unwrap() - 1))
                        .map(|(_, hash)| *hash),
                },
            },
            Query::Welcomes { agent } => Answer::Welcomes(
                self.welcomes
                    .get(&agent)
                    .into_iter()
                    .flatten()
                    .map(|(_, _, frame)| frame.clone())
                    .collect(),
            ),
            Query::GroupInfo { channel } => Answer::GroupInfo {
                channel,
                sealed: self.group_infos.get(&channel).cloned(),
            },
        }
    }

    fn head(&self, channel: &ChannelId) -> Seq {
        self.channels.get(channel).map_or(Seq(0), |row| row.head)
    }

    fn record(&self, channel: &ChannelId, seq: Seq) -> Bytes {
        self.records[channel][usize::try_from(seq.0).unwrap() - 1]
            .0
            .clone()
    }

    fn envelope(&self, channel: &ChannelId, seq: Seq) -> Envelope {
        decode(&self.record(channel, seq), usize::MAX).unwrap()
    }
}

/// A hub, its store, and what everybody has received.
struct House {
    hub: Hub,
    now: Time,
    store: Store,
    writes: VecDeque<(Ticket, Write)>,
    /// Durable, but the hub has not been told.
    applied: VecDeque<(Ticket, Written)>,
    reads: VecDeque<(Conn, Query)>,
    /// By connection, with the lane.
    received: BTreeMap<Conn, Vec<ToAgent>>,
    closed: BTreeMap<Conn, (Refusal, bool)>,
    /// With which cursor a subscription was asked for.
    asked: BTreeMap<MessageId, Seq>,
    /// In which epoch a message or commit was made.
    made: BTreeMap<MessageId, Epoch>,
    last_conn: u64,
    last_id: u64,
}

impl House {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        Self {
            hub: Hub::new(config(limits), Vec::new()).unwrap(),
            now: START,
            store: Store::default(),
            writes: VecDeque::new(),
            applied: VecDeque::new(),
            reads: VecDeque::new(),
            received: BTreeMap::new(),
            closed: BTreeMap::new(),
            asked: BTreeMap::new(),
            made: BTreeMap::new(),
            last_conn: 0,
            last_id: 0,
        }
    }

    /// A channel of the first of `who`, who has added the others without rights.
    fn with_channel(who: &[&Person]) -> (Self, Vec<Conn>) {
        let mut house = Self::new();
        let conns: Vec<_> = who.iter().map(|person| house.open(person)).collect();
        let id = house.id();
        house.say(
            conns[0],
            ToRelay::Create(Create {
                channel: CHANNEL,
                id,
            }),
        );
        house.settle();
        if who.len() > 1 {
            let added: Vec<_> = who[1..].iter().map(|person| person.id).collect();
            let commit = house.adding(Epoch(0), &added);
            house.say(conns[0], ToRelay::Commit(commit));
            house.settle();
        }
        for conn in &conns {
            house.received.insert(*conn, Vec::new());
        }
        (house, conns)
    }

    fn handle(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hub.handle(input, self.now, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { conn, frame, .. } => self.receive(conn, frame),
                Output::Deliver { conns, frame } => {
                    for conn in conns {
                        self.receive(conn, ToAgent::Deliver(frame.clone()));
                    }
                }
                Output::Store { ticket, write } => self.writes.push_back((ticket, write)),
                Output::Read { conn, query } => self.reads.push_back((conn, query)),
                Output::Close {
                    conn,
                    refusal,
                    resume,
                } => {
                    let before = self.closed.insert(conn, (refusal, resume));
                    assert_eq!(before, None, "closed once");
                }
            }
        }
    }

    /// Checks what holds for every frame, whatever the test is about.
    fn receive(&mut self, conn: Conn, frame: ToAgent) {
        assert!(!self.closed.contains_key(&conn), "nothing after closing");
        if let ToAgent::Published(Published { channel, id, seq })
        | ToAgent::Ack(Ack { channel, id, seq }) = &frame
        {
            let stored = self
                .store
                .ids
                .iter()
                .any(|(key, at)| (key.0, key.2) == (*channel, *id) && at == seq);
            assert!(stored, "acknowledged before it was stored");
        }
        if let ToAgent::Deliver(deliver) = &frame {
            let head = self.store.head(&deliver.channel);
            assert!(deliver.seq <= head, "delivered before it was stored");
            let record = self.store.record(&deliver.channel, deliver.seq);
            assert_eq!(deliver.record.0, record);
        }
        if let ToAgent::Created(created) = &frame {
            assert!(self.store.channels.contains_key(&created.channel));
        }
        self.received.entry(conn).or_default().push(frame);
    }

    fn opening(&mut self, person: &Person, right: Right) -> Conn {
        self.last_conn += 1;
        let conn = Conn(self.last_conn);
        let presented = Presented {
            agent: person.id,
            transport: TransportKey([9; 32]),
            right,
        };
        self.handle(Input::Opened { conn, presented });
        conn
    }

    fn open(&mut self, person: &Person) -> Conn {
        let conn = self.opening(person, account(self.now.plus(HOUR)));
        self.answer_all();
        conn
    }

    fn say(&mut self, conn: Conn, frame: ToRelay) {
        let agent = self.hub.conns.get(&conn).map(|connection| connection.agent);
        let key = if let ToRelay::Publish(publish) = &frame {
            Some((publish.channel, publish.id))
        } else if let ToRelay::Commit(commit) = &frame {
            Some((commit.channel, commit.id))
        } else if let ToRelay::Leave(leave) = &frame {
            Some((leave.channel, leave.id))
        } else {
            None
        };
        let earlier = agent
            .zip(key)
            .and_then(|(agent, (channel, id))| self.store.ids.get(&(channel, agent, id)).copied());
        self.handle(Input::Frame {
            conn,
            frame,
            earlier,
        });
    }

    fn apply_one(&mut self) {
        if let Some((ticket, write)) = self.writes.pop_front() {
            let written = self.store.write(write);
            self.applied.push_back((ticket, written));
        }
    }

    fn store_one(&mut self) -> bool {
        if self.applied.is_empty() {
            self.apply_one();
        }
        let Some((ticket, written)) = self.applied.pop_front() else {
            return false;
        };
        self.handle(Input::Stored { ticket, written });
        true
    }

    fn answer_one(&mut self) -> bool {
        let Some((conn, query)) = self.reads.pop_front() else {
            return false;
        };
        let answer = self.store.answer(&query);
        self.handle(Input::Answered { conn, answer });
        true
    }

    fn answer_all(&mut self) {
        while self.answer_one() {}
    }

    /// Lets everything that is on its way arrive.
    fn settle(&mut self) {
        while self.store_one() || self.answer_one() {}
    }

    /// The disk fails: everything on its way is lost, and the driver loads the heads again.
    fn fail_disk(&mut self) {
        while !self.applied.is_empty() {
            self.store_one();
        }
        let lost: Vec<_> = self.writes.drain(..).collect();
        for (ticket, _) in lost {
            self.handle(Input::Failed { ticket });
        }
        let mut out = Vec::new();
        let channels = self.store.channels.values().cloned().collect();
        self.hub.reload(channels, self.now, &mut out).unwrap();
        self.take(out);
    }

    /// A new run of the relay over the same store.
    fn restart(&mut self) {
        let config = self.hub.config.clone();
        let channels = self.store.channels.values().cloned().collect();
        self.writes.clear();
        self.applied.clear();
        self.reads.clear();
        self.hub = Hub::new(config, channels).unwrap();
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now.plus(ms);
        while let Some(at) = self.hub.next_wake()
            && at <= until
        {
            self.now = self.now.max(at);
            self.handle(Input::Tick);
        }
        self.now = until;
    }

    fn id(&mut self) -> MessageId {
        self.last_id += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.last_id.to_be_bytes());
        MessageId(id)
    }

    fn message(&mut self, epoch: Epoch) -> Publish {
        let id = self.id();
        self.made.insert(id, epoch);
        Publish {
            channel: CHANNEL,
            id,
            epoch,
            body: b"sealed".to_vec().into(),
            resumes: true,
        }
    }

    fn committing(&mut self, epoch: Epoch, change: &RosterChange) -> Commit {
        let id = self.id();
        self.made.insert(id, epoch);
        Commit {
            channel: CHANNEL,
            id,
            epoch,
            body: self.last_id.to_be_bytes().to_vec().into(),
            change: encode(change).into(),
            welcomes: Vec::new(),
            sealed: None,
            join: None,
        }
    }

    fn adding(&mut self, epoch: Epoch, agents: &[AgentId]) -> Commit {
        let change = RosterChange {
            added: agents.iter().copied().map(plain).collect(),
            ..RosterChange::default()
        };
        Commit {
            welcomes: vec![WelcomeFor {
                agents: agents.to_vec(),
                body: b"welcome".to_vec().into(),
            }],
            ..self.committing(epoch, &change)
        }
    }

    fn removing(&mut self, epoch: Epoch, agent: AgentId) -> Commit {
        let change = RosterChange {
            removed: vec![agent],
            ..RosterChange::default()
        };
        self.committing(epoch, &change)
    }

    /// Opens an invite as `conn`, and gives its seed.
    fn invite(&mut self, conn: Conn, epoch: Epoch, seed: u8, uses: u32) -> InviteSeed {
        let seed = InviteSeed::new([seed; 16]);
        let change = RosterChange {
            opened: vec![OpenInvite {
                signing: seed.signing_half(),
                uses,
                expires: self.now.plus(HOUR),
            }],
            ..RosterChange::default()
        };
        let commit = Commit {
            sealed: Some(sealed_to(&[seed.id()])),
            ..self.committing(epoch, &change)
        };
        self.say(conn, ToRelay::Commit(commit));
        self.settle();
        seed
    }

    fn joining(&mut self, person: &Person, seed: &InviteSeed, epoch: Epoch) -> Commit {
        let group = CHANNEL.group_id(Generation(0));
        let context = Digest([5; 32]);
        let change = RosterChange {
            added: vec![plain(person.id)],
            ..RosterChange::default()
        };
        Commit {
            join: Some(JoinProof {
                group,
                context,
                invite: seed.id(),
                signature: seed.sign(&statement::join(&group, &context, &seed.id(), &person.id)),
            }),
            ..self.committing(epoch, &change)
        }
    }

    fn leaving(&mut self, person: &Person) -> Leave {
        let leaf_key = vec![7; 32];
        let said = statement::leave(&CHANNEL.group_id(Generation(0)), &leaf_key);
        Leave {
            channel: CHANNEL,
            id: self.id(),
            statement: statement::Leave {
                generation: Generation(0),
                leaf_key: leaf_key.into(),
                signature: Signed(person.key.sign(&said).to_bytes()),
            },
            // Far ahead of every join: the stay that is meant is the present one.
            cursor: Seq(u64::MAX),
        }
    }

    fn subscribe(&mut self, conn: Conn, after: Seq) {
        let id = self.id();
        self.asked.insert(id, after);
        let frame = Subscribe {
            channel: CHANNEL,
            id,
            after,
        };
        self.say(conn, ToRelay::Subscribe(frame));
    }

    /// What a connection has received since the last look.
    fn news(&mut self, conn: Conn) -> Vec<ToAgent> {
        self.received
            .get_mut(&conn)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn refusals(&mut self, conn: Conn) -> Vec<Refusal> {
        let news = self.news(conn);
        nacks(&news).map(|nack| nack.refusal).collect()
    }

    fn places(&mut self, conn: Conn) -> Vec<u64> {
        delivered(&self.news(conn))
    }

    /// Says it, lets it be stored, and gives the refusals that came back.
    fn try_frame(&mut self, conn: Conn, frame: ToRelay) -> Vec<Refusal> {
        self.news(conn);
        self.say(conn, frame);
        self.settle();
        self.refusals(conn)
    }
}

fn limits() -> Limits {
    let plenty = Rate::per_second(1_000_000, 1_000_000);
    Limits {
        frames: plenty,
        publishes: plenty,
        commits: plenty,
        creates: plenty,
        welcomes: plenty,
        ..Limits::default()
    }
}

fn config(limits: Limits) -> HubConfig {
    HubConfig {
        relay: RELAY,
        limits,
        guests: true,
        retention_ms: 7 * 24 * HOUR,
    }
}

fn account(expires: Time) -> Right {
    Right::Account {
        account: "acc".to_owned(),
        expires,
    }
}

fn plain(agent: AgentId) -> Grant {
    Grant {
        agent,
        admin: false,
        may_invite: false,
    }
}

fn sealed_to(invites: &[InviteId]) -> Sealed {
    Sealed {
        ciphertext: b"group info".to_vec().into(),
        keys: invites
            .iter()
            .map(|invite| SealedKey {
                invite: *invite,
                sealed: b"key".to_vec().into(),
            })
            .collect(),
    }
}

fn guest_proof(person: &Person, seed: &InviteSeed) -> GuestProof {
    let said = statement::guest(&RELAY, &TransportKey([9; 32]), &person.id, &CHANNEL);
    GuestProof {
        channel: CHANNEL,
        invite: seed.id(),
        signature: seed.sign(&said),
    }
}

fn delivered(frames: &[ToAgent]) -> Vec<u64> {
    let mut places = Vec::new();
    for frame in frames {
        if let ToAgent::Deliver(deliver) = frame {
            places.push(deliver.seq.0);
        }
    }
    places
}

fn nacks(frames: &[ToAgent]) -> impl Iterator<Item = &Nack> {
    frames.iter().filter_map(|frame| {
        if let ToAgent::Nack(nack) = frame {
            Some(nack)
        } else {
            None
        }
    })
}

#[test]
fn nothing_is_acknowledged_or_delivered_before_it_is_stored() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let first = house.message(Epoch(1));
    let second = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(first.clone()));
    house.say(conns[0], ToRelay::Publish(second));

    assert_eq!(house.news(conns[0]), []);
    assert_eq!(house.news(conns[1]), []);
    house.store_one();
    let published = Published {
        channel: CHANNEL,
        id: first.id,
        seq: Seq(2),
    };
    assert_eq!(house.news(conns[0]), [ToAgent::Published(published)]);
    assert_eq!(house.places(conns[1]), [2]);
    house.store_one();
    assert_eq!(house.places(conns[1]), [3]);
    assert_eq!(house.hub.counters().delivered, 2);
    assert_eq!(house.hub.counters().published, 2);
}

#[test]
fn the_same_publish_again_gets_the_same_answer() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let message = house.message(Epoch(1));
    let published = ToAgent::Published(Published {
        channel: CHANNEL,
        id: message.id,
        seq: Seq(2),
    });

    // In flight: once for each connection that asks, however often.
    for _ in 0..3 {
        house.say(conns[1], ToRelay::Publish(message.clone()));
    }
    let again = house.open(&bob);
    house.news(again);
    house.say(again, ToRelay::Publish(message.clone()));
    house.settle();
    assert_eq!(house.news(again), vec![published.clone()]);
    assert_eq!(house.closed[&conns[1]], (Refusal::Replaced, false));

    // Stored, but the driver's lookup is older than that.
    house.handle(Input::Frame {
        conn: again,
        frame: ToRelay::Publish(message.clone()),
        earlier: None,
    });
    assert_eq!(house.news(again), vec![published.clone()]);

    // After a removal and a restart, before every other check.
    let removal = house.removing(Epoch(1), bob.id);
    house.say(conns[0], ToRelay::Commit(removal));
    house.settle();
    house.restart();
    let late = house.open(&bob);
    house.news(late);
    house.say(late, ToRelay::Publish(message));
    assert_eq!(house.news(late), [published]);
    assert_eq!(house.store.head(&CHANNEL), Seq(3));
}

#[test]
fn one_commit_takes_an_epoch_and_the_loser_learns_which_once_it_is_stored() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let winner = house.committing(Epoch(1), &RosterChange::default());
    let loser = house.committing(Epoch(1), &RosterChange::default());
    let stale = house.message(Epoch(1));

    house.say(conns[0], ToRelay::Commit(winner.clone()));
    house.say(conns[1], ToRelay::Commit(loser.clone()));
    house.say(conns[1], ToRelay::Publish(stale));
    assert_eq!(house.news(conns[1]), [], "the winner is not durable yet");
    house.settle();

    let news = house.news(conns[1]);
    let [ToAgent::Nack(commit), ToAgent::Nack(publish)] = news.as_slice() else {
        panic!("two refusals expected, not {news:?}");
    };
    assert_eq!((commit.id, commit.refusal), (loser.id, Refusal::StaleEpoch));
    assert_eq!(commit.epoch, Some(Epoch(2)));
    let place = commit.winner.unwrap();
    assert_eq!(place.seq, Seq(2));
    assert_eq!(
        place.content,
        content_hash(&winner.body, Some(&winner.change))
    );
    assert_eq!(publish.refusal, Refusal::StaleEpoch);
    assert_eq!(publish.epoch, Some(Epoch(2)));

    // Also from the store alone.
    house.restart();
    let bob_again = house.open(&bob);
    house.news(bob_again);
    house.say(bob_again, ToRelay::Commit(loser));
    let [ToAgent::Nack(Nack { winner, .. })] = house.news(bob_again)[..] else {
        panic!("a refusal expected");
    };
    assert_eq!(winner, Some(place));
}

#[test]
fn a_removed_member_reads_nothing_later_on_any_path() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob, &carol]);
    house.subscribe(conns[1], Seq(1));
    house.subscribe(conns[2], Seq(1));
    house.settle();
    house.news(conns[1]);

    // Everything is given its place before anything is stored.
    let before = house.message(Epoch(1));
    let removal = house.removing(Epoch(1), bob.id);
    let after = house.message(Epoch(2));
    house.say(conns[0], ToRelay::Publish(before));
    house.say(conns[0], ToRelay::Commit(removal));
    house.say(conns[0], ToRelay::Publish(after));
    let attempt = house.message(Epoch(2));
    house.say(conns[1], ToRelay::Publish(attempt));
    house.settle();

    let news = house.news(conns[1]);
    assert_eq!(delivered(&news), [2, 3]);
    let refused: Vec<_> = nacks(&news)
        .map(|nack| (nack.refusal, nack.epoch))
        .collect();
    assert_eq!(refused, [(Refusal::ChannelUnknown, None)]);
    assert_eq!(house.places(conns[2]), [2, 3, 4]);

    // Catching up, on the same and on another connection, from the store and from afar.
    house.restart();
    for after in [0, 1, 3, 4, 100] {
        let conn = house.open(&bob);
        house.news(conn);
        house.subscribe(conn, Seq(after));
        house.settle();
        let more = house.message(Epoch(2));
        let speaker = house.open(&alice);
        house.say(speaker, ToRelay::Publish(more));
        house.settle();
        let news = house.news(conn);
        let ToAgent::Subscribed(Subscribed {
            epoch, head, hash, ..
        }) = &news[0]
        else {
            panic!("Subscribed expected, not {news:?}");
        };
        assert_eq!((*epoch, *head), (Epoch(2), Seq(3)));
        assert_eq!(hash.is_some(), after <= 3);
        let expected: Vec<u64> = (after + 1..=3).collect();
        assert_eq!(delivered(&news), expected, "after {after}");
    }
}

#[test]
fn a_new_member_reads_from_its_own_entry_on() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    for _ in 0..4 {
        let message = house.message(Epoch(0));
        house.say(conns[0], ToRelay::Publish(message));
    }
    let adding = house.adding(Epoch(0), &[bob.id]);
    house.say(conns[0], ToRelay::Commit(adding));
    house.settle();

    let conn = house.open(&bob);
    house.subscribe(conn, Seq(0));
    house.settle();

    assert_eq!(house.places(conn), [5]);
}

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

#[test]
fn a_failed_write_is_told_and_nothing_acknowledged_is_lost() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let kept = house.message(Epoch(1));
    let lost = house.removing(Epoch(1), bob.id);
    let refused = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(kept));
    house.say(conns[0], ToRelay::Commit(lost.clone()));
    house.say(conns[1], ToRelay::Publish(refused));
    house.store_one();
    let (ticket, _) = house.writes[0];
    house.writes.clear();
    house.handle(Input::Failed { ticket });
    let between = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(between));
    let carol_conn = house.open(&carol);
    house.news(carol_conn);
    house.fail_disk();

    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable; 2]);
    let news = house.news(conns[1]);
    assert_eq!(delivered(&news), [2]);
    assert!(matches!(
        news[1],
        ToAgent::Nack(Nack {
            refusal: Refusal::Unavailable,
            ..
        })
    ));

    // The removal did not happen; a late word of the failure changes nothing.
    house.handle(Input::Failed { ticket });
    let message = house.message(Epoch(1));
    house.say(conns[1], ToRelay::Publish(message));
    house.settle();
    assert_eq!(house.places(conns[1]), [3]);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Commit(lost)),
        [],
        "sent again"
    );
    assert_eq!(house.places(conns[1]), [4]);
}

#[test]
fn what_was_written_though_the_write_failed_is_read_from_the_archive() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message.clone()));
    let (ticket, write) = house.writes.pop_front().unwrap();
    house.store.write(write);
    house.handle(Input::Failed { ticket });
    house.fail_disk();
    house.settle();

    assert_eq!(house.places(conns[1]), [2]);
    assert_eq!(house.refusals(conns[0]), [Refusal::Unavailable]);
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(message)),
        [],
        "it has its place"
    );
    assert_eq!(house.store.head(&CHANNEL), Seq(2));
}

/// Found by the property: a lookup made before the failure was used after it, and the message was
/// stored twice.
#[test]
fn what_was_looked_up_before_a_failed_write_is_not_used_after_it() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let message = ToRelay::Publish(house.message(Epoch(0)));
    house.say(conns[0], message.clone());
    let next = house.opening(&alice, account(START.plus(HOUR)));
    house.handle(Input::Frame {
        conn: next,
        frame: message.clone(),
        earlier: None,
    });

    let (ticket, write) = house.writes.pop_front().unwrap();
    house.store.write(write);
    house.handle(Input::Failed { ticket });
    house.fail_disk();
    house.settle();

    assert_eq!(house.closed[&next], (Refusal::Unavailable, true));
    let again = house.open(&alice);
    assert_eq!(house.try_frame(again, message), []);
    assert_eq!(house.store.head(&CHANNEL), Seq(1));
}

#[test]
fn a_slow_reader_falls_behind_catches_up_and_loses_nothing() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[1], Seq(1));
    house.settle();
    house.news(conns[1]);

    house.handle(Input::Full { conn: conns[1] });
    for _ in 0..10 {
        let message = house.message(Epoch(1));
        house.say(conns[0], ToRelay::Publish(message));
    }
    house.settle();
    assert_eq!(house.places(conns[1]), [0; 0]);
    assert!(house.reads.is_empty(), "no read while there is no room");

    house.wait(limits().slow_reader_ms - 1);
    house.handle(Input::Drained { conn: conns[1] });
    // While it catches up, more comes.
    house.answer_one();
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.settle();
    assert_eq!(house.places(conns[1]), (2..=12).collect::<Vec<_>>());
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    house.settle();
    assert!(house.reads.is_empty());
    assert_eq!(house.places(conns[1]), [13], "live again");

    house.wait(2);
    assert!(house.closed.is_empty(), "it drained in time");
    house.handle(Input::Full { conn: conns[1] });
    house.wait(limits().slow_reader_ms);
    assert_eq!(house.closed[&conns[1]], (Refusal::SlowReader, true));
}

#[test]
fn an_unreadable_archive_is_tried_again() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.subscribe(conns[0], Seq(0));
    house.answer_one();
    let (conn, query) = house.reads.pop_front().unwrap();
    house.handle(Input::Answered {
        conn,
        answer: Answer::Unreadable(query),
    });
    house.settle();
    assert_eq!(house.places(conns[0]), [0; 0]);

    house.wait(1_000);
    house.settle();
    assert_eq!(house.places(conns[0]), [1]);
}

#[test]
fn the_last_connection_of_an_agent_is_its_line() {
    let [alice, ..] = people();
    let mut house = House::new();
    let first = house.opening(&alice, account(START.plus(HOUR)));
    let second = house.opening(&alice, account(START.plus(HOUR)));
    // The archive answers the second one first.
    let late = house.reads.pop_front().unwrap();
    house.answer_all();
    assert!(matches!(house.news(second)[0], ToAgent::Ready(_)));
    assert!(house.closed.is_empty());
    house.reads.push_back(late);
    house.answer_all();

    assert_eq!(house.closed[&first], (Refusal::Replaced, false));
    assert!(!house.closed.contains_key(&second));
    assert_eq!(house.hub.lines.get(&alice.id), Some(&second));
}

#[test]
fn frames_before_ready_are_answered_after_it() {
    let [alice, ..] = people();
    let mut house = House::new();
    let conn = house.opening(&alice, account(START.plus(HOUR)));
    let id = house.id();
    house.say(
        conn,
        ToRelay::Create(Create {
            channel: CHANNEL,
            id,
        }),
    );
    house.say(
        conn,
        ToRelay::Create(Create {
            channel: CHANNEL,
            id,
        }),
    );
    house.settle();

    let news = house.news(conn);
    assert!(matches!(news[0], ToAgent::Ready(_)));
    assert!(matches!(news[1], ToAgent::Created(_)));
    assert_eq!(news.len(), 2, "one answer for the same request");
}

#[test]
fn a_channel_is_created_once() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    let stranger = house.open(&bob);
    let id = house.id();
    let again = ToRelay::Create(Create {
        channel: CHANNEL,
        id,
    });

    assert_eq!(house.try_frame(conns[0], again.clone()), []);
    assert_eq!(
        house.try_frame(stranger, again.clone()),
        [Refusal::ChannelExists]
    );
    let message = house.message(Epoch(0));
    assert_eq!(house.try_frame(conns[0], ToRelay::Publish(message)), []);
    assert_eq!(house.try_frame(conns[0], again), [Refusal::ChannelExists]);
    assert_eq!(house.store.channels.len(), 1);
}

#[test]
fn a_permit_ends_unless_it_is_renewed() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let id = house.id();
    let renewed = account(START.plus(2 * HOUR));
    house.handle(Input::Renewed {
        conn: conns[0],
        id,
        right: Ok(renewed),
    });
    house.handle(Input::Renewed {
        conn: conns[1],
        id,
        right: Err(Refusal::TokenInvalid),
    });
    assert!(matches!(house.news(conns[0])[0], ToAgent::Renewed(_)));
    assert_eq!(house.refusals(conns[1]), [Refusal::TokenInvalid]);

    house.wait(HOUR + 4_999);
    assert!(house.closed.is_empty());
    house.wait(1);
    assert_eq!(house.closed[&conns[1]], (Refusal::TokenExpired, true));

    // Also when nobody ticks.
    house.now = START.plus(2 * HOUR + 5_000);
    let message = house.message(Epoch(1));
    house.say(conns[0], ToRelay::Publish(message));
    assert_eq!(house.closed[&conns[0]], (Refusal::TokenExpired, true));
    assert!(house.writes.is_empty());
}

#[test]
fn a_guest_keeps_its_line_and_adds_channels_to_it() {
    let [alice, bob, carol, _] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    let seed = house.invite(conns[0], Epoch(1), 1, 5);
    let guest = house.opening(&carol, Right::Invite(guest_proof(&carol, &seed)));
    house.answer_all();
    let join = house.joining(&carol, &seed, Epoch(2));
    let join = Commit {
        sealed: Some(sealed_to(&[seed.id()])),
        ..join
    };
    assert_eq!(house.try_frame(guest, ToRelay::Commit(join)), []);

    house.wait(HOUR / 2);
    let id = house.id();
    house.handle(Input::Renewed {
        conn: guest,
        id,
        right: Ok(Right::Member),
    });
    house.wait(HOUR / 2 + 10_000);
    assert!(!house.closed.contains_key(&guest));
    house.wait(HOUR);
    assert_eq!(house.closed[&guest], (Refusal::TokenExpired, true));
}

#[test]
fn a_relay_without_guests_takes_none() {
    let [alice, bob, ..] = people();
    let mut house = House::new();
    house.hub.config.guests = false;
    let seed = InviteSeed::new([1; 16]);
    for right in [Right::Member, Right::Invite(guest_proof(&bob, &seed))] {
        let conn = house.opening(&alice, right);
        assert_eq!(house.closed[&conn], (Refusal::GuestsRefused, false));
    }
}

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

#[test]
fn old_bodies_go_and_whoever_comes_later_is_told() {
    let [alice, bob, ..] = people();
    let (mut house, _) = House::with_channel(&[&alice, &bob]);
    for _ in 0..3 {
        let conn = house.open(&alice);
        let message = house.message(Epoch(1));
        house.say(conn, ToRelay::Publish(message));
        house.settle();
        house.wait(3 * HOUR);
        house.settle();
    }
    let head = house.store.head(&CHANNEL);
    assert_eq!(head, Seq(4));

    house.wait(6 * 24 * HOUR);
    house.settle();
    assert_eq!(house.store.channels[&CHANNEL].pruned, Seq(0));
    for _ in 0..3 {
        house.wait(24 * HOUR);
        house.settle();
    }
    assert_eq!(
        house.store.channels[&CHANNEL].pruned, head,
        "quiet channels grow old too"
    );

    let conn = house.open(&bob);
    house.subscribe(conn, Seq(0));
    house.settle();
    let news = house.news(conn);
    let told = news
        .iter()
        .position(|frame| matches!(frame, ToAgent::Pruned(pruned) if pruned.up_to == head));
    let first = news
        .iter()
        .position(|frame| matches!(frame, ToAgent::Deliver(_)));
    assert!(told.is_some() && told < first);

    // Nothing more to do for this channel.
    house.wait(30 * 24 * HOUR);
    assert!(house.writes.is_empty());
}

#[test]
fn who_asks_too_often_is_refused_and_others_are_not() {
    let [alice, bob, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice, &bob]);
    house.hub.config.limits.publishes = Rate::per_second(2, 3);
    house.hub.config.limits.commits = Rate::per_second(1, 1);

    let refused = |house: &mut House, conn: Conn, count: usize| {
        house.news(conn);
        for _ in 0..count {
            let message = house.message(Epoch(1));
            house.say(conn, ToRelay::Publish(message));
        }
        house.settle();
        house.refusals(conn)
    };
    assert_eq!(refused(&mut house, conns[0], 5), [Refusal::RateLimited; 2]);
    assert_eq!(refused(&mut house, conns[1], 3), []);
    // A new connection is the same agent.
    let again = house.open(&alice);
    assert_eq!(refused(&mut house, again, 1), [Refusal::RateLimited]);
    house.now = house.now.plus(500);
    assert_eq!(refused(&mut house, again, 1), []);
    house.now = house.now.plus(1_000);

    for (epoch, refusals) in [(1, vec![]), (2, vec![Refusal::RateLimited])] {
        let commit = house.committing(Epoch(epoch), &RosterChange::default());
        assert_eq!(house.try_frame(again, ToRelay::Commit(commit)), refusals);
    }
}

/// Under a burst beyond the rate, later messages used to take places before the refused one.
#[test]
fn what_stands_behind_a_refused_message_waits_for_it() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    house.hub.config.limits.publishes = Rate::per_second(1, 1);
    let publish = |house: &mut House, resumes| {
        let frame = Publish {
            resumes,
            ..house.message(Epoch(0))
        };
        house.try_frame(conns[0], ToRelay::Publish(frame))
    };
    assert_eq!(publish(&mut house, false), []);
    assert_eq!(publish(&mut house, false), [Refusal::RateLimited]);

    house.now = house.now.plus(5_000);

    assert_eq!(
        publish(&mut house, false),
        [Refusal::RateLimited],
        "it is behind"
    );
    assert_eq!(publish(&mut house, true), []);
    house.now = house.now.plus(5_000);
    assert_eq!(publish(&mut house, false), []);
}

#[test]
fn large_and_empty_bodies_and_too_many_subscriptions_are_refused() {
    let [alice, ..] = people();
    let (mut house, conns) = House::with_channel(&[&alice]);
    house.hub.config.limits.subscriptions_max = 1;
    let large = Publish {
        body: vec![0; 320 * 1024 + 1].into(),
        ..house.message(Epoch(0))
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(large)),
        [Refusal::TooLarge]
    );
    let empty = Publish {
        body: Blob::default(),
        ..house.message(Epoch(0))
    };
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Publish(empty)),
        [Refusal::Malformed]
    );

    let other = ChannelId([3; 32]);
    let id = house.id();
    assert_eq!(
        house.try_frame(conns[0], ToRelay::Create(Create { channel: other, id })),
        []
    );
    let mut ask = |channel| {
        let frame = Subscribe {
            channel,
            id,
            after: Seq(0),
        };
        house.try_frame(conns[0], ToRelay::Subscribe(frame))
    };
    assert_eq!(ask(CHANNEL), []);
    assert_eq!(ask(CHANNEL), [], "again, it takes no second place");
    assert_eq!(ask(other), [Refusal::LimitReached]);
}

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
