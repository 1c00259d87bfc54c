//! Minds on a clock of their own, and a relay that believes everything: for the tests of this
//! crate.
//!
//! The relay orders, keeps and hands out, and checks nothing but the epoch, so that whatever is
//! refused here was refused by a mind. The real hub, and everything that can go wrong on the way,
//! are played in `tests/`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rusqlite::{Connection, Transaction};
use skytale_wire::{
    Blob,
    envelope::{Envelope, Kind},
    frame::{self, FRAME_BYTES_MAX, ToAgent, ToRelay},
    id::{AgentId, ChannelId, Digest, Epoch, MessageId, RelayKey, Seq, Time, TransportKey},
    refusal::Refusal,
};

use crate::{
    Accept, Agent, AgentConfig, Answer, Command, CommandId, Event, Input, Outputs,
    view::{self, ChannelView},
};

/// Agents by number, and what is between them.
pub(crate) struct Stage {
    pub(crate) now: Time,
    pub(crate) minds: Vec<Mind>,
    pub(crate) relay: Gullible,
    commands: u64,
}

/// One agent: its vault, and its process while that runs.
pub(crate) struct Mind {
    pub(crate) id: AgentId,
    pub(crate) vault: Connection,
    agent: Option<Agent>,
    is_linked: bool,
    /// What its chance is seeded with; another one each time its process begins.
    seed: u64,
    answers: BTreeMap<CommandId, Answer>,
    pub(crate) events: Vec<Event>,
}

/// What the relay has.
#[derive(Default)]
pub(crate) struct Gullible {
    pub(crate) logs: BTreeMap<ChannelId, Log>,
    pub(crate) packages: BTreeMap<AgentId, VecDeque<Blob>>,
    pub(crate) last_resorts: BTreeMap<AgentId, Blob>,
    pub(crate) mailboxes: BTreeMap<AgentId, Vec<frame::Welcome>>,
    /// Messages that came, and whether each need not have waited for slots. They are not stored.
    pub(crate) published: Vec<(MessageId, bool)>,
    /// How often somebody wanted the group's state sealed afresh. Nobody is asked.
    pub(crate) wants: usize,
    /// Who has said Hello.
    seats: BTreeMap<AgentId, usize>,
    mail: VecDeque<(usize, ToAgent)>,
}

/// A channel's records.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Blob>,
    hashes: Vec<Digest>,
    epoch: u64,
    pub(crate) sealed: Option<(Epoch, frame::Sealed)>,
    readers: BTreeSet<usize>,
}

impl Stage {
    /// So many agents, who have all been at the relay once.
    pub(crate) fn new(agents: usize) -> Self {
        let mut stage = Self {
            now: Time(1_800_000_000_000),
            minds: (0..agents).map(Mind::new).collect(),
            relay: Gullible::default(),
            commands: 0,
        };
        for number in 0..agents {
            stage.starts(number);
        }
        stage
    }

    /// An agent's process begins, and finds the relay.
    pub(crate) fn starts(&mut self, who: usize) {
        self.minds[who].open();
        self.links(who);
    }

    pub(crate) fn links(&mut self, who: usize) {
        self.minds[who].is_linked = true;
        self.think(who, vec![link_up()]);
        self.settle();
    }

    /// It ends, and its line with it.
    pub(crate) fn stops(&mut self, who: usize) {
        self.minds[who].agent = None;
        self.minds[who].is_linked = false;
        for log in self.relay.logs.values_mut() {
            log.readers.remove(&who);
        }
    }

    /// Time passes, and everybody who runs does what is due when it is due.
    pub(crate) fn passes(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        loop {
            let due = (self.minds.iter().enumerate())
                .filter_map(|(who, mind)| Some((mind.agent.as_ref()?.wake()?, who)))
                .filter(|(at, _)| *at <= end)
                .min();
            let Some((at, who)) = due else { break };
            self.now = self.now.max(at);
            self.think(who, vec![Input::Tick]);
            self.settle();
        }
        self.now = end;
    }

    /// Runs a command until nothing more comes of it at this moment.
    pub(crate) fn does(&mut self, who: usize, command: Command) -> Answer {
        let id = self.begins(who, command);
        let answer = self.answer(who, id);
        answer.expect("an answer by the time that all is quiet")
    }

    /// Runs a command whose answer may come later.
    pub(crate) fn begins(&mut self, who: usize, command: Command) -> CommandId {
        self.commands += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.commands.to_be_bytes());
        let id = MessageId(id);
        self.think(who, vec![Input::Command { id, command }]);
        self.settle();
        id
    }

    /// The answer to a command, once.
    pub(crate) fn answer(&mut self, who: usize, id: CommandId) -> Option<Answer> {
        self.minds[who].answers.remove(&id)
    }

    pub(crate) fn open(&mut self, who: usize) -> ChannelId {
        let opened = self.does(
            who,
            Command::Open {
                name: "acme/ops/plan".parse().expect("a name"),
                relay: RELAY,
                addresses: vec!["relay:1".into()],
            },
        );
        let Answer::Channel(channel) = opened else {
            panic!("{opened:?}")
        };
        channel
    }

    pub(crate) fn adds(&mut self, who: usize, channel: ChannelId, others: &[usize]) {
        let agents = others.iter().map(|other| self.minds[*other].id).collect();
        assert_eq!(
            self.does(who, Command::Add { channel, agents }),
            Answer::Done
        );
    }

    /// The invite line.
    pub(crate) fn invites(&mut self, who: usize, channel: ChannelId, uses: u32) -> String {
        let invited = self.does(
            who,
            Command::Invite {
                channel,
                uses,
                ttl_ms: 3_600_000,
                addresses: Vec::new(),
            },
        );
        let Answer::Invite(line) = invited else {
            panic!("{invited:?}")
        };
        line
    }

    pub(crate) fn view(&self, who: usize, channel: ChannelId) -> ChannelView {
        self.minds[who].view(channel)
    }

    /// Bytes of the newest record's body.
    pub(crate) fn newest_body(&self, channel: ChannelId) -> usize {
        let newest = self.relay.logs[&channel].records.last();
        envelope(newest.expect("a record")).body.len()
    }

    /// How many records somebody has put into a log.
    pub(crate) fn records_by(&self, channel: ChannelId, who: usize) -> usize {
        let by = self.minds[who].id;
        let records = &self.relay.logs[&channel].records;
        (records.iter())
            .filter(|record| envelope(record).agent == by)
            .count()
    }

    fn think(&mut self, who: usize, inputs: Vec<Input>) {
        let now = self.now;
        let mind = &mut self.minds[who];
        let Some(agent) = &mut mind.agent else { return };
        let tx = mind.vault.transaction().expect("a vault");
        let Outputs {
            frames,
            answers,
            events,
            at_once,
            ..
        } = agent.handle(inputs, now, &tx).expect("a sound vault");
        tx.commit().expect("a vault");
        mind.answers.extend(answers);
        mind.events.extend(events);
        for (_, frame) in frames {
            if !self.minds[who].is_linked {
                continue;
            }
            if let ToRelay::Publish(publish) = &frame {
                let now = at_once.contains(&publish.id);
                self.relay.published.push((publish.id, now));
            }
            self.relay_hears(who, frame);
        }
    }

    fn settle(&mut self) {
        while let Some((who, frame)) = self.relay.mail.pop_front() {
            if self.minds[who].is_linked {
                let relay = RELAY;
                self.think(who, vec![Input::Frame { relay, frame }]);
            }
        }
    }

    fn relay_hears(&mut self, who: usize, frame: ToRelay) {
        let (agent, now) = (self.minds[who].id, self.now);
        let relay = &mut self.relay;
        match frame {
            ToRelay::Hello(_) => {
                relay.seats.insert(agent, who);
                let ready = ready(
                    now,
                    relay.packages.get(&agent).map_or(0, VecDeque::len),
                    relay.mailboxes.get(&agent).map_or(0, Vec::len),
                    relay.last_resorts.contains_key(&agent),
                );
                relay.mail.push_back((who, ready));
            }
            ToRelay::Create(create) => {
                let (channel, id) = (create.channel, create.id);
                relay.logs.insert(channel, Log::default());
                relay
                    .mail
                    .push_back((who, ToAgent::Created(frame::Created { channel, id })));
            }
            ToRelay::Subscribe(subscribe) => relay.subscribe(who, &subscribe),
            ToRelay::Commit(commit) => relay.commit(who, agent, commit, now),
            ToRelay::PutKeyPackages(put) => {
                let packages = relay.packages.entry(agent).or_default();
                packages.extend(put.packages);
                let kept = ToAgent::KeyPackagesKept(frame::KeyPackagesKept {
                    id: put.id,
                    key_packages: u32::try_from(packages.len()).expect("a few"),
                });
                relay
                    .last_resorts
                    .extend(put.last_resort.map(|one| (agent, one)));
                relay.mail.push_back((who, kept));
            }
            ToRelay::TakeKeyPackage(take) => {
                let single = relay.packages.get_mut(&take.agent);
                let package = single
                    .and_then(VecDeque::pop_front)
                    .or_else(|| relay.last_resorts.get(&take.agent).cloned());
                let (id, agent) = (take.id, take.agent);
                let answer = match package {
                    Some(package) => ToAgent::KeyPackage(frame::KeyPackage { id, agent, package }),
                    None => nack(id, None, Refusal::KeyPackagesExhausted),
                };
                relay.mail.push_back((who, answer));
            }
            ToRelay::TakeWelcome(_) => {
                for welcome in relay.mailboxes.get(&agent).cloned().unwrap_or_default() {
                    relay.mail.push_back((who, ToAgent::Welcome(welcome)));
                }
            }
            ToRelay::Welcomed(done) => {
                let mailbox = relay.mailboxes.entry(agent).or_default();
                mailbox.retain(|welcome| welcome.id != done.id);
            }
            ToRelay::TakeGroupInfo(take) => {
                let answer = relay.group_info(&take);
                relay.mail.push_back((who, answer));
            }
            ToRelay::WantGroupInfo(_) => relay.wants += 1,
            ToRelay::Seen(_) | ToRelay::Publish(_) => {}
            ToRelay::Leave(_)
            | ToRelay::SealGroupInfo(_)
            | ToRelay::Renew(_)
            | ToRelay::Ping(_)
            | ToRelay::SlimSubscribe(_)
            | ToRelay::SlimUnsubscribe(_)
            | ToRelay::SlimPublish(_)
            | ToRelay::TakeSlimLogs(_) => panic!("nobody here says {frame:?}"),
        }
    }
}

impl Mind {
    fn new(number: usize) -> Self {
        let mut vault = Connection::open_in_memory().expect("a database");
        Agent::migrate(&mut vault).expect("a new vault");
        // Members are added in the order of their ids: the same one each time.
        let seed = Digest::of(&[b"stage", &number.to_be_bytes()]).0;
        let row = "INSERT INTO identity (one, seed, label) VALUES (1, ?1, '')";
        vault.execute(row, [seed]).expect("a new vault");
        let mut mind = Self::over(vault);
        mind.seed = (number as u64) << 32;
        mind
    }

    /// Over a vault that a test has made.
    pub(crate) fn over(vault: Connection) -> Self {
        let mut mind = Self {
            id: AgentId([0; 32]),
            vault,
            agent: None,
            is_linked: false,
            seed: u64::MAX >> 1,
            answers: BTreeMap::new(),
            events: Vec::new(),
        };
        mind.open();
        mind.id = mind.agent.as_ref().expect("just opened").id();
        mind
    }

    fn open(&mut self) {
        self.seed += 1;
        let tx = self.vault.transaction().expect("a vault");
        self.agent = Some(open_in(&tx, self.seed));
        tx.commit().expect("a vault");
    }

    pub(crate) fn view(&self, channel: ChannelId) -> ChannelView {
        view_in(&self.vault, channel)
    }

    pub(crate) fn words(&self, channel: ChannelId) -> [String; 5] {
        let words = view::words(&self.vault, channel).expect("a vault");
        words.expect("a channel with a group")
    }

    /// How many private halves of KeyPackages the vault holds.
    pub(crate) fn key_packages(&self) -> u32 {
        let count = "SELECT count(*) FROM mls_entities WHERE space = 0 AND kind = 34";
        let row = self.vault.query_row(count, [], |row| row.get(0));
        row.expect("a vault")
    }
}

impl Gullible {
    fn subscribe(&mut self, who: usize, subscribe: &frame::Subscribe) {
        let channel = subscribe.channel;
        let log = self.logs.get_mut(&channel).expect("a channel");
        log.readers.insert(who);
        let after = subscribe.after;
        let subscribed = frame::Subscribed {
            channel,
            id: subscribe.id,
            epoch: Epoch(log.epoch),
            head: log.head(),
            hash: log.hash(after),
            after,
        };
        self.mail.push_back((who, ToAgent::Subscribed(subscribed)));
        for (seq, record) in log.after(after) {
            let record = record.clone();
            self.mail.push_back((who, deliver(channel, seq, record)));
        }
    }

    fn commit(&mut self, who: usize, agent: AgentId, commit: frame::Commit, now: Time) {
        let (channel, id) = (commit.channel, commit.id);
        let log = self.logs.get_mut(&channel).expect("a channel");
        if commit.epoch.0 != log.epoch {
            let nack = nack(id, Some(channel), Refusal::StaleEpoch);
            return self.mail.push_back((who, nack));
        }
        let kind = if commit.join.is_some() {
            Kind::Join
        } else {
            Kind::Commit
        };
        let seq = log.append(&Envelope {
            kind,
            epoch: commit.epoch,
            agent,
            id,
            body: commit.body,
            change: Some(commit.change.clone()),
            pruned: None,
            received: now,
        });
        log.epoch += 1;
        log.sealed = commit.sealed.map(|sealed| (Epoch(log.epoch), sealed));
        let ack = ToAgent::Ack(frame::Ack { channel, id, seq });
        self.mail.push_back((who, ack));
        for reader in &log.readers {
            let record = log.records[log.records.len() - 1].clone();
            self.mail
                .push_back((*reader, deliver(channel, seq, record)));
        }
        let hash = log.hash(seq).expect("just appended");
        for welcome in commit.welcomes {
            for added in welcome.agents {
                let welcome = frame::Welcome {
                    id,
                    channel,
                    seq,
                    body: welcome.body.clone(),
                    by: agent,
                    hash,
                };
                let mailbox = self.mailboxes.entry(added).or_default();
                mailbox.push(welcome.clone());
                if let Some(seat) = self.seats.get(&added) {
                    self.mail.push_back((*seat, ToAgent::Welcome(welcome)));
                }
            }
        }
    }

    fn group_info(&self, take: &frame::TakeGroupInfo) -> ToAgent {
        let sealed = self.logs[&take.channel].sealed.as_ref();
        let found = sealed.and_then(|(epoch, sealed)| {
            let key = sealed.keys.iter().find(|key| key.invite == take.invite)?;
            Some((*epoch, sealed.ciphertext.clone(), key.sealed.clone()))
        });
        match found {
            Some((epoch, ciphertext, key)) => ToAgent::GroupInfo(frame::GroupInfo {
                id: take.id,
                channel: take.channel,
                epoch,
                ciphertext,
                key,
            }),
            None => nack(take.id, Some(take.channel), Refusal::GroupInfoMissing),
        }
    }
}

impl Log {
    fn append(&mut self, envelope: &Envelope) -> Seq {
        let seq = self.head().next();
        let previous = self.hashes.last().copied().unwrap_or(Digest([0; 32]));
        self.hashes.push(envelope.log_hash(&previous, seq));
        self.records.push(frame::encode(envelope).into());
        seq
    }

    pub(crate) fn head(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    fn hash(&self, at: Seq) -> Option<Digest> {
        let place = usize::try_from(at.0).expect("a short log").checked_sub(1);
        place.map_or(Some(Digest([0; 32])), |place| {
            self.hashes.get(place).copied()
        })
    }

    fn after(&self, after: Seq) -> impl Iterator<Item = (Seq, &Blob)> {
        let places = (1..).map(Seq).zip(&self.records);
        places.filter(move |(seq, _)| *seq > after)
    }
}

/// A mind over this transaction, from what the vault holds.
pub(crate) fn open_in(tx: &Transaction<'_>, seed: u64) -> Agent {
    let config = AgentConfig {
        accept: Accept::Anyone,
        key_packages: 3,
    };
    let rng = ChaCha8Rng::seed_from_u64(seed);
    Agent::open_with(tx, "agent", config, rng).expect("a sound vault")
}

pub(crate) fn view_in(vault: &Connection, channel: ChannelId) -> ChannelView {
    let views = view::channels(vault).expect("a vault");
    let view = views.into_iter().find(|view| view.id == channel);
    view.expect("a channel of this agent")
}

pub(crate) fn envelope(record: &[u8]) -> Envelope {
    frame::decode(record, FRAME_BYTES_MAX).expect("a record")
}

pub(crate) fn link_up() -> Input {
    Input::LinkUp {
        relay: RELAY,
        transport: TransportKey([0; 32]),
        token: Some("account".into()),
    }
}

pub(crate) fn ready(now: Time, packages: usize, welcomes: usize, last_resort: bool) -> ToAgent {
    ToAgent::Ready(frame::Ready {
        version: frame::PROTOCOL,
        now,
        expires: now.plus(3_600_000),
        body_bytes_max: u32::MAX,
        key_packages: u32::try_from(packages).expect("a few"),
        welcomes: u32::try_from(welcomes).expect("a few"),
        last_resort,
        traffic: None,
        slim_bytes_max: None,
    })
}

pub(crate) fn deliver(channel: ChannelId, seq: Seq, record: Blob) -> ToAgent {
    ToAgent::Deliver(frame::Deliver {
        channel,
        seq,
        record,
    })
}

fn nack(id: MessageId, channel: Option<ChannelId>, refusal: Refusal) -> ToAgent {
    ToAgent::Nack(frame::Nack {
        id,
        channel,
        refusal,
        epoch: None,
        winner: None,
    })
}

pub(crate) const RELAY: RelayKey = RelayKey([7; 32]);
