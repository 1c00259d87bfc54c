//! `House`: a hub with a store in memory whose writes and reads happen when the test says so, so
//! that every order of events can be tried.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use skytale_slim::{Onward, Routed};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Grant, OpenInvite, RosterChange},
    frame::{
        Ack, Commit, Create, GuestProof, JoinProof, Leave, Nack, Publish, Published, Sealed,
        SealedKey, Subscribe, ToAgent, ToRelay, WelcomeFor, decode, encode,
    },
    id::{
        AgentId, ChannelId, Digest, Epoch, Generation, InviteId, MessageId, RelayKey, Seq, Signed,
        Time, TransportKey,
    },
    invite::InviteSeed,
    refusal::Refusal,
    statement,
};

use crate::{
    archive::{
        Append, KeyPackagesLeft, SealedGroupInfo, StoredChannel, StoredRecord, Write, Written,
        usage::{Charge, ROWS_MAX, Report, Tab, Used, next_number, report},
    },
    hub::{
        Answer, Conn, Hub, HubConfig, Input, Output, Payer, Presented, Query, Right, SlimRules,
        Ticket, slim_message_in,
    },
    limits::{Limits, Rate},
};

const RELAY: RelayKey = RelayKey([0xee; 32]);
pub(super) const CHANNEL: ChannelId = ChannelId([0xcc; 32]);
pub(super) const START: Time = Time(1_700_000_000_000);
pub(super) const HOUR: u64 = 3_600_000;

/// An agent with a key of its own.
pub(super) struct Person {
    pub(super) id: AgentId,
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

pub(super) fn people() -> [Person; 4] {
    [1, 2, 3, 4].map(Person::new)
}

/// What a store holds, kept simply.
#[derive(Default)]
pub(super) struct Store {
    pub(super) channels: BTreeMap<ChannelId, StoredChannel>,
    records: BTreeMap<ChannelId, Vec<(Bytes, Digest)>>,
    ids: HashMap<(ChannelId, AgentId, MessageId), Seq>,
    pub(super) welcomes: BTreeMap<AgentId, Vec<(ChannelId, MessageId, Bytes)>>,
    pub(super) group_infos: BTreeMap<ChannelId, SealedGroupInfo>,
    packages: BTreeMap<AgentId, VecDeque<Blob>>,
    last_resort: BTreeMap<AgentId, Blob>,
    /// What was used and is in no report.
    pub(super) used: BTreeMap<Tab, Used>,
    last_charge: u64,
    pub(super) report: Option<Report>,
    last_report: u64,
}

impl Store {
    pub(super) fn write(&mut self, write: Write) -> Written {
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
            Write::Charge { number, charges } => {
                if std::mem::replace(&mut self.last_charge, number) != number {
                    for charge in &charges {
                        self.charge(charge);
                    }
                }
                Written::Done
            }
            Write::CloseReport { at_least } => {
                if self.report.is_none() && !self.used.is_empty() {
                    let mut used = std::mem::take(&mut self.used);
                    let rows = used.len().min(ROWS_MAX);
                    let rows = (0..rows).filter_map(|_| used.pop_first()).collect();
                    self.used = used;
                    self.last_report = next_number(self.last_report, at_least);
                    self.report = Some(report(self.last_report, rows));
                }
                Written::Report(self.report.clone())
            }
            Write::DropReport { number } => {
                self.report.take_if(|report| report.number == number);
                Written::Done
            }
            Write::Forget { channel } => {
                let row = self.channels.remove(&channel).unwrap();
                assert_eq!(row.head, row.pruned, "something was left");
                self.records.remove(&channel);
                self.ids.retain(|(at, _, _), _| *at != channel);
                Written::Done
            }
        }
    }

    fn charge(&mut self, charge: &Charge) {
        let used = self.used.entry(charge.tab.clone()).or_default();
        used.add(&charge.used);
    }

    fn append(&mut self, append: Append) {
        if let Some(charge) = &append.charge {
            self.charge(charge);
        }
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
            Query::SlimRecords {
                log,
                after,
                count_max,
                ..
            } => Answer::SlimRecords {
                log,
                after,
                records: (after.0.max(self.pruned(&log).0) + 1..=self.head(&log).0)
                    .take(count_max.min(3))
                    .map(|seq| StoredRecord {
                        seq: Seq(seq),
                        record: self.record(&log, Seq(seq)),
                    })
                    .collect(),
            },
            Query::SlimRecord {
                ref logs,
                agent,
                id,
            } => Answer::SlimRecord(logs.iter().find_map(|log| {
                let seq = *self.ids.get(&(*log, agent, id))?;
                let record = self.record(log, seq);
                Some(StoredRecord { seq, record })
            })),
        }
    }

    fn pruned(&self, channel: &ChannelId) -> Seq {
        self.channels.get(channel).map_or(Seq(0), |row| row.pruned)
    }

    pub(super) fn head(&self, channel: &ChannelId) -> Seq {
        self.channels.get(channel).map_or(Seq(0), |row| row.head)
    }

    fn record(&self, channel: &ChannelId, seq: Seq) -> Bytes {
        self.records[channel][usize::try_from(seq.0).unwrap() - 1]
            .0
            .clone()
    }

    pub(super) fn envelope(&self, channel: &ChannelId, seq: Seq) -> Envelope {
        decode(&self.record(channel, seq), usize::MAX).unwrap()
    }
}

/// What goes out over a SLIM stream.
#[derive(Debug, Clone)]
pub(super) enum SlimSaid {
    Onward(Arc<Onward>),
    Ack(Bytes),
}

/// A hub, its store, and what everybody has received.
pub(super) struct House {
    pub(super) hub: Hub,
    pub(super) now: Time,
    pub(super) store: Store,
    pub(super) writes: VecDeque<(Ticket, Write)>,
    /// Durable, but the hub has not been told.
    applied: VecDeque<(Ticket, Written)>,
    pub(super) reads: VecDeque<(Conn, Query)>,
    /// By connection, with the lane.
    pub(super) received: BTreeMap<Conn, Vec<ToAgent>>,
    pub(super) closed: BTreeMap<Conn, (Refusal, bool)>,
    /// What has gone out over each SLIM stream.
    pub(super) slim: BTreeMap<Conn, Vec<SlimSaid>>,
    /// With which cursor a subscription was asked for.
    pub(super) asked: BTreeMap<MessageId, Seq>,
    /// In which epoch a message or commit was made.
    pub(super) made: BTreeMap<MessageId, Epoch>,
    /// What the API server is to be told.
    pub(super) reports: VecDeque<Report>,
    last_conn: u64,
    last_id: u64,
}

impl House {
    pub(super) fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        Self::configured(config(limits))
    }

    pub(super) fn with_slim(slim: SlimRules) -> Self {
        Self::configured(HubConfig {
            slim,
            ..config(limits())
        })
    }

    pub(super) fn without_archive() -> Self {
        Self::with_slim(SlimRules {
            archive: false,
            ..SlimRules::default()
        })
    }

    pub(super) fn metering() -> Self {
        Self::configured(HubConfig {
            meters: true,
            ..config(limits())
        })
    }

    pub(super) fn metering_slim(slim: SlimRules) -> Self {
        Self::configured(HubConfig {
            meters: true,
            slim,
            ..config(limits())
        })
    }

    fn configured(config: HubConfig) -> Self {
        Self {
            hub: Hub::new(config, Vec::new()).unwrap(),
            now: START,
            store: Store::default(),
            writes: VecDeque::new(),
            applied: VecDeque::new(),
            reads: VecDeque::new(),
            received: BTreeMap::new(),
            closed: BTreeMap::new(),
            slim: BTreeMap::new(),
            asked: BTreeMap::new(),
            made: BTreeMap::new(),
            reports: VecDeque::new(),
            last_conn: 0,
            last_id: 0,
        }
    }

    /// A channel of the first of `who`, who has added the others without rights.
    pub(super) fn with_channel(who: &[&Person]) -> (Self, Vec<Conn>) {
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

    pub(super) fn handle(&mut self, input: Input) {
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
                Output::Report(report) => self.reports.push_back(report),
                Output::Read { conn, query } => self.reads.push_back((conn, query)),
                Output::SlimDeliver { conns, onward } => {
                    for conn in conns {
                        let said = SlimSaid::Onward(Arc::clone(&onward));
                        self.slim.entry(conn).or_default().push(said);
                    }
                }
                Output::SlimAck { conn, bytes } => {
                    let said = SlimSaid::Ack(bytes);
                    self.slim.entry(conn).or_default().push(said);
                }
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

    pub(super) fn opening(&mut self, person: &Person, right: Right) -> Conn {
        let conn = self.next_conn();
        let presented = Presented {
            agent: person.id,
            transport: TransportKey([9; 32]),
            right,
        };
        self.handle(Input::Opened { conn, presented });
        conn
    }

    pub(super) fn open(&mut self, person: &Person) -> Conn {
        let conn = self.opening(person, account(self.now.plus(HOUR)));
        self.answer_all();
        conn
    }

    pub(super) fn say(&mut self, conn: Conn, frame: ToRelay) {
        let agent = self.hub.conns.get(&conn).map(|connection| connection.agent);
        if let ToRelay::SlimPublish(publish) = &frame {
            let message = slim_message_in(publish).ok();
            let earlier = message.and_then(|message| self.slim_earlier(&message));
            return self.handle(Input::Frame {
                conn,
                frame,
                earlier,
            });
        }
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

    /// Where the store has a SLIM message already.
    pub(super) fn slim_earlier(&self, message: &Routed) -> Option<Seq> {
        let keys = self.hub.slim_keys(message);
        keys.into_iter()
            .find_map(|(agent, log, id)| self.store.ids.get(&(log, agent, id)).copied())
    }

    pub(super) fn next_conn(&mut self) -> Conn {
        self.last_conn += 1;
        Conn(self.last_conn)
    }

    pub(super) fn apply_one(&mut self) {
        if let Some((ticket, write)) = self.writes.pop_front() {
            let written = self.store.write(write);
            self.applied.push_back((ticket, written));
        }
    }

    pub(super) fn store_one(&mut self) -> bool {
        if self.applied.is_empty() {
            self.apply_one();
        }
        let Some((ticket, written)) = self.applied.pop_front() else {
            return false;
        };
        self.handle(Input::Stored { ticket, written });
        true
    }

    pub(super) fn answer_one(&mut self) -> bool {
        let Some((conn, query)) = self.reads.pop_front() else {
            return false;
        };
        let answer = self.store.answer(&query);
        self.handle(Input::Answered { conn, answer });
        true
    }

    pub(super) fn answer_all(&mut self) {
        while self.answer_one() {}
    }

    /// Lets everything that is on its way arrive.
    pub(super) fn settle(&mut self) {
        while self.store_one() || self.answer_one() {}
    }

    /// The disk fails: everything on its way is lost, and the driver loads the heads again.
    pub(super) fn fail_disk(&mut self) {
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
    pub(super) fn restart(&mut self) {
        let config = self.hub.config.clone();
        let channels = self.store.channels.values().cloned().collect();
        self.writes.clear();
        self.applied.clear();
        self.reads.clear();
        self.hub = Hub::new(config, channels).unwrap();
    }

    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now.plus(ms);
        while let Some(at) = self.hub.next_wake()
            && at <= until
        {
            self.now = self.now.max(at);
            self.handle(Input::Tick);
        }
        self.now = until;
    }

    pub(super) fn id(&mut self) -> MessageId {
        self.last_id += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.last_id.to_be_bytes());
        MessageId(id)
    }

    pub(super) fn message(&mut self, epoch: Epoch) -> Publish {
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

    pub(super) fn committing(&mut self, epoch: Epoch, change: &RosterChange) -> Commit {
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

    pub(super) fn adding(&mut self, epoch: Epoch, agents: &[AgentId]) -> Commit {
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

    pub(super) fn removing(&mut self, epoch: Epoch, agent: AgentId) -> Commit {
        let change = RosterChange {
            removed: vec![agent],
            ..RosterChange::default()
        };
        self.committing(epoch, &change)
    }

    /// Opens an invite as `conn`, and gives its seed.
    pub(super) fn invite(&mut self, conn: Conn, epoch: Epoch, seed: u8, uses: u32) -> InviteSeed {
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

    pub(super) fn joining(&mut self, person: &Person, seed: &InviteSeed, epoch: Epoch) -> Commit {
        self.joining_in(Generation(0), person, seed, epoch)
    }

    pub(super) fn joining_in(
        &mut self,
        generation: Generation,
        person: &Person,
        seed: &InviteSeed,
        epoch: Epoch,
    ) -> Commit {
        let group = CHANNEL.group_id(generation);
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

    pub(super) fn leaving(&mut self, person: &Person) -> Leave {
        self.leaving_from(Generation(0), person)
    }

    pub(super) fn leaving_from(&mut self, generation: Generation, person: &Person) -> Leave {
        let leaf_key = vec![7; 32];
        let said = statement::leave(&CHANNEL.group_id(generation), &leaf_key);
        Leave {
            channel: CHANNEL,
            id: self.id(),
            statement: statement::Leave {
                generation,
                leaf_key: leaf_key.into(),
                signature: Signed(person.key.sign(&said).to_bytes()),
            },
            // Far ahead of every join: the stay that is meant is the present one.
            cursor: Seq(u64::MAX),
        }
    }

    pub(super) fn subscribe(&mut self, conn: Conn, after: Seq) {
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
    pub(super) fn news(&mut self, conn: Conn) -> Vec<ToAgent> {
        self.received
            .get_mut(&conn)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    pub(super) fn refusals(&mut self, conn: Conn) -> Vec<Refusal> {
        let news = self.news(conn);
        nacks(&news).map(|nack| nack.refusal).collect()
    }

    pub(super) fn places(&mut self, conn: Conn) -> Vec<u64> {
        delivered(&self.news(conn))
    }

    /// Says it, lets it be stored, and gives the refusals that came back.
    pub(super) fn try_frame(&mut self, conn: Conn, frame: ToRelay) -> Vec<Refusal> {
        self.news(conn);
        self.say(conn, frame);
        self.settle();
        self.refusals(conn)
    }
}

pub(super) fn limits() -> Limits {
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
        slim: SlimRules::default(),
        meters: false,
    }
}

pub(super) fn account(expires: Time) -> Right {
    Right::Account {
        payer: Payer::account("acc"),
        expires,
    }
}

pub(super) fn plain(agent: AgentId) -> Grant {
    Grant {
        agent,
        admin: false,
        may_invite: false,
    }
}

pub(super) fn sealed_to(invites: &[InviteId]) -> Sealed {
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

pub(super) fn guest_proof(person: &Person, seed: &InviteSeed) -> GuestProof {
    let said = statement::guest(&RELAY, &TransportKey([9; 32]), &person.id, &CHANNEL);
    GuestProof {
        channel: CHANNEL,
        invite: seed.id(),
        signature: seed.sign(&said),
    }
}

pub(super) fn delivered(frames: &[ToAgent]) -> Vec<u64> {
    let mut places = Vec::new();
    for frame in frames {
        if let ToAgent::Deliver(deliver) = frame {
            places.push(deliver.seq.0);
        }
    }
    places
}

pub(super) fn nacks(frames: &[ToAgent]) -> impl Iterator<Item = &Nack> {
    frames.iter().filter_map(|frame| {
        if let ToAgent::Nack(nack) = frame {
            Some(nack)
        } else {
            None
        }
    })
}
