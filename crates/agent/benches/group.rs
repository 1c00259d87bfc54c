//! A group of a hundred: what the mind's steps cost beside bare OpenMLS doing the same, in one run.
//!
//! `cargo bench -p skytale-agent --bench group`. Both sides are alternated, so that a machine that
//! is slow for a while is slow for both; the medians are compared. The mind's side is everything
//! of [`Agent::handle`] with its transaction on SQLite in memory, so without a flush to disk; the
//! bare side is the library with its own storage in memory and none of our checks, records or
//! events. Minds talk to the real hub; its time and the archive's are not counted.
//!
//! Two shapes: *bare*, a group just made by one commit that added everybody, whose tree has no
//! keys inside; and *filled*, after every member has rotated once.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints, and has nobody to report an error to"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageBundle,
    LeafNodeIndex, Lifetime, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, OpenMlsProvider as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, StagedWelcome, tls_codec::Deserialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rusqlite::{Connection, TransactionBehavior};
use rustix::time::{ClockId, clock_gettime};
use skytale_agent::{Accept, Agent, AgentConfig, Answer, Command, CommandId, Input, Outputs, view};
use skytale_relay::{
    archive::{Archive as _, ArchiveReader as _, sqlite::SqliteArchive},
    hub::{self, Conn, Hub, HubConfig, Payer, Presented, Query, Right},
    limits::{Limits, Rate},
};
use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{ChannelId, MessageId, RelayKey, Time, TransportKey},
    refusal::Refusal,
};

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let long = std::env::args().any(|argument| argument == "--bench");
    let size = if long { MEMBERS } else { 5 };
    let rounds = if long { ROUNDS } else { 2 };
    if cfg!(debug_assertions) {
        println!("warning: a debug build; these numbers are no figures");
    }
    for filled in [false, true] {
        let shape = if filled { "filled" } else { "bare" };
        println!("\n{size} members, {shape} tree, median of {rounds}");
        println!("                 mind ms   bare ms   ratio   commit B  welcome B");
        compare(size, rounds, filled);
    }
}

fn compare(size: usize, rounds: usize, filled: bool) {
    let mut house = House::new(size, filled);
    let mut bare = Bare::new(size, filled);
    let mut table: BTreeMap<Step, Row> = BTreeMap::new();
    for _ in 0..rounds {
        house.round(&mut table);
        bare.round(&mut table);
    }
    for (step, row) in &mut table {
        let (mind, bare) = (median(&mut row.mind), median(&mut row.bare));
        println!(
            "{:<14} {:>9.2} {:>9.2} {:>7.2} {:>10} {:>10}",
            format!("{step:?}").to_lowercase(),
            mind * 1e3,
            bare * 1e3,
            mind / bare,
            row.commit,
            row.welcome,
        );
    }
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The committer's side of adding one, until it is merged.
    Add,
    /// The newcomer's side, by Welcome.
    Join,
    /// The committer's side of a self-update.
    Rotate,
    /// Another member's side of that.
    Process,
    /// The committer's side of removing one.
    Remove,
}

#[derive(Default)]
struct Row {
    mind: Vec<Duration>,
    bare: Vec<Duration>,
    commit: usize,
    welcome: usize,
}

// ----- minds, and the hub between them ------------------------------------------------------

/// One mind with its vault.
struct Mind {
    agent: Agent,
    vault: Connection,
    /// Time in `handle` and its commit since it was last asked.
    spent: Duration,
    answers: BTreeMap<CommandId, Answer>,
    /// Where frames for it go; those who are away get nothing.
    here: bool,
}

impl Mind {
    fn new(number: usize) -> Self {
        let mut vault = Connection::open_in_memory().unwrap();
        Agent::migrate(&mut vault).unwrap();
        let tx = vault.transaction().unwrap();
        let config = AgentConfig {
            accept: Accept::Anyone,
            key_packages: KEY_PACKAGES,
        };
        let rng = ChaCha8Rng::seed_from_u64(number as u64);
        let agent = Agent::open_with(&tx, &format!("agent-{number}"), config, rng).unwrap();
        tx.commit().unwrap();
        Self {
            agent,
            vault,
            spent: Duration::ZERO,
            answers: BTreeMap::new(),
            here: true,
        }
    }

    fn step(&mut self, inputs: Vec<Input>, now: Time) -> Outputs {
        let begun = cpu_time();
        let tx = self
            .vault
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let out = self.agent.handle(inputs, now, &tx).unwrap();
        tx.commit().unwrap();
        self.spent += cpu_time().saturating_sub(begun);
        out
    }
}

struct House {
    minds: Vec<Mind>,
    hub: Hub,
    archive: SqliteArchive,
    now: Time,
    channel: ChannelId,
    commands: u64,
    /// Frames for minds, in order.
    mail: VecDeque<(usize, ToAgent)>,
    commit_bytes: usize,
    welcome_bytes: usize,
}

impl House {
    /// A group of `size` with the first mind as its admin, and one mind more that comes and goes.
    fn new(size: usize, filled: bool) -> Self {
        let archive = SqliteArchive::in_memory().unwrap();
        let mut house = Self {
            minds: (0..=size).map(Mind::new).collect(),
            hub: Hub::new(hub_config(), Vec::new()).unwrap(),
            archive,
            now: Time(1_800_000_000_000),
            channel: ChannelId([0; 32]),
            commands: 0,
            mail: VecDeque::new(),
            commit_bytes: 0,
            welcome_bytes: 0,
        };
        for number in 0..=size {
            house.link_up(number);
        }
        let opened = house.command(
            FOUNDER,
            Command::Open {
                name: "bench/group/size".parse().unwrap(),
                relay: RELAY,
                addresses: vec!["127.0.0.1:1".to_owned()],
            },
        );
        let Answer::Channel(channel) = opened else {
            panic!("{opened:?}")
        };
        house.channel = channel;
        let agents = house.minds[1..size]
            .iter()
            .map(|mind| mind.agent.id())
            .collect();
        house.done(FOUNDER, Command::Add { channel, agents });
        if filled {
            for number in 0..size {
                house.done(number, Command::Rotate { channel });
            }
        }
        let members = view::members(&house.minds[FOUNDER].vault, channel).unwrap();
        assert_eq!(members.len(), size);
        // Who need not be measured need not follow.
        for number in 2..size {
            house.minds[number].here = false;
        }
        house
    }

    fn round(&mut self, table: &mut BTreeMap<Step, Row>) {
        let channel = self.channel;
        let guest = self.minds.len() - 1;
        let agents = vec![self.minds[guest].agent.id()];

        self.reset();
        let add = Command::Add {
            channel,
            agents: agents.clone(),
        };
        self.done(FOUNDER, add);
        let (added, joined) = (self.minds[FOUNDER].spent, self.minds[guest].spent);
        let row = table.entry(Step::Add).or_default();
        row.mind.push(added);
        row.commit = self.commit_bytes;
        row.welcome = self.welcome_bytes;
        table.entry(Step::Join).or_default().mind.push(joined);

        self.reset();
        self.done(FOUNDER, Command::Rotate { channel });
        let row = table.entry(Step::Rotate).or_default();
        row.mind.push(self.minds[FOUNDER].spent);
        row.commit = self.commit_bytes;
        let processed = self.minds[OTHER].spent;
        table.entry(Step::Process).or_default().mind.push(processed);

        self.reset();
        self.done(FOUNDER, Command::Remove { channel, agents });
        let row = table.entry(Step::Remove).or_default();
        row.mind.push(self.minds[FOUNDER].spent);
        row.commit = self.commit_bytes;
    }

    fn reset(&mut self) {
        for mind in &mut self.minds {
            mind.spent = Duration::ZERO;
        }
    }

    fn done(&mut self, who: usize, command: Command) {
        let answer = self.command(who, command);
        assert_eq!(answer, Answer::Done);
    }

    /// Runs a command until everything that it brings about is over.
    fn command(&mut self, who: usize, command: Command) -> Answer {
        self.commands += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.commands.to_be_bytes());
        let id = MessageId(id);
        self.think(who, vec![Input::Command { id, command }]);
        self.settle();
        // Of many who come in together some replace their keys soon, and may be quicker: then the
        // command waits for its pause to end.
        for _ in 0..RACES_MAX {
            if let Some(answer) = self.minds[who].answers.remove(&id) {
                return answer;
            }
            self.think(who, vec![Input::Tick]);
            self.settle();
        }
        panic!("{who} waits for ever")
    }

    fn link_up(&mut self, who: usize) {
        let input = Input::LinkUp {
            relay: RELAY,
            transport: TransportKey([0; 32]),
            token: Some("account".to_owned()),
        };
        self.think(who, vec![input]);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((who, frame)) = self.mail.pop_front() {
            let relay = RELAY;
            self.think(who, vec![Input::Frame { relay, frame }]);
        }
        // Buckets fill up again, and pauses end.
        self.now = self.now.plus(60_000);
    }

    fn think(&mut self, who: usize, inputs: Vec<Input>) {
        let out = self.minds[who].step(inputs, self.now);
        self.minds[who].answers.extend(out.answers);
        for (_, frame) in out.frames {
            self.relay_hears(who, frame);
        }
    }

    fn relay_hears(&mut self, who: usize, frame: ToRelay) {
        let conn = Conn(who as u64);
        if let ToRelay::Commit(commit) = &frame {
            self.commit_bytes = commit.body.len();
            self.welcome_bytes = commit.welcomes.iter().map(|one| one.body.len()).sum();
        }
        let input = if let ToRelay::Hello(hello) = frame {
            hub::Input::Opened {
                conn,
                presented: Presented {
                    agent: hello.agent,
                    transport: TransportKey([0; 32]),
                    right: Right::Account {
                        payer: Payer::account("account"),
                        expires: self.now.plus(YEAR_MS),
                    },
                },
            }
        } else {
            hub::Input::Frame {
                conn,
                frame,
                earlier: None,
            }
        };
        self.hub_thinks(input);
    }

    fn hub_thinks(&mut self, input: hub::Input) {
        let mut out = Vec::new();
        self.hub.handle(input, self.now, &mut out);
        for output in out {
            match output {
                hub::Output::Send { conn, frame, .. } => self.post(conn, frame),
                hub::Output::Deliver { conns, frame } => {
                    for conn in conns {
                        self.post(conn, ToAgent::Deliver(frame.clone()));
                    }
                }
                hub::Output::Store { ticket, write } => {
                    let written = self.archive.write(&[write]).unwrap().remove(0);
                    self.hub_thinks(hub::Input::Stored { ticket, written });
                }
                hub::Output::Read { conn, query } => {
                    let answer = self.look_up(&query);
                    self.hub_thinks(hub::Input::Answered { conn, answer });
                }
                hub::Output::SlimDeliver { .. }
                | hub::Output::SlimAck { .. }
                | hub::Output::Report(_) => {}
                hub::Output::Close { refusal, .. } => panic!("closed: {}", refusal.code()),
            }
        }
    }

    fn post(&mut self, conn: Conn, frame: ToAgent) {
        let who = usize::try_from(conn.0).unwrap();
        if let ToAgent::Nack(nack) = &frame {
            assert_eq!(nack.refusal, Refusal::StaleEpoch, "{frame:?}");
        }
        if self.minds[who].here {
            self.mail.push_back((who, frame));
        }
    }

    fn look_up(&self, query: &Query) -> hub::Answer {
        let reader = self.archive.reader();
        match *query {
            Query::Greeting { agent } => hub::Answer::Greeting {
                key_packages: reader.key_packages(&agent).unwrap(),
                welcomes: reader.welcomes_waiting(&agent, 100).unwrap(),
            },
            Query::Records {
                channel,
                after,
                count_max,
                bytes_max,
            } => hub::Answer::Records {
                channel,
                after,
                records: reader
                    .records(&channel, after, count_max, bytes_max)
                    .unwrap(),
            },
            Query::HashAt { channel, seq } => hub::Answer::HashAt {
                channel,
                seq,
                hash: reader.hash_at(&channel, seq).unwrap(),
            },
            Query::Welcomes { agent } => {
                hub::Answer::Welcomes(reader.welcomes(&agent, 100).unwrap())
            }
            Query::GroupInfo { channel } => hub::Answer::GroupInfo {
                channel,
                sealed: reader.group_info(&channel).unwrap(),
            },
            Query::SlimRecords { .. } | Query::SlimRecord { .. } => {
                unreachable!("nobody here asks for SLIM's names")
            }
        }
    }
}

/// Nobody waits for a bucket here.
fn hub_config() -> HubConfig {
    let free = Rate::per_second(1_000_000, 1_000_000);
    HubConfig {
        relay: RELAY,
        limits: Limits {
            frames: free,
            commits: free,
            welcomes: free,
            uploads: free,
            claims: free,
            claims_of_target: free,
            ..Limits::default()
        },
        guests: false,
        retention_ms: YEAR_MS,
        slim: hub::SlimRules::default(),
        meters: false,
    }
}

// ----- the library alone --------------------------------------------------------------------

/// A member of a bare group.
struct Member {
    provider: OpenMlsRustCrypto,
    keys: SignatureKeyPair,
    group: Option<MlsGroup>,
}

struct Bare {
    members: Vec<Member>,
}

impl Member {
    fn new() -> Self {
        let provider = OpenMlsRustCrypto::default();
        let keys = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        keys.store(provider.storage()).unwrap();
        Self {
            provider,
            keys,
            group: None,
        }
    }

    fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.keys.public().to_vec()).into(),
            signature_key: self.keys.public().into(),
        }
    }

    fn package(&self) -> KeyPackageBundle {
        KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(0, u64::MAX))
            .leaf_node_capabilities(capabilities())
            .build(SUITE, &self.provider, &self.keys, self.credential())
            .unwrap()
    }

    fn found(&mut self) {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .capabilities(capabilities())
            .lifetime(Lifetime::init(0, u64::MAX))
            .build();
        let group = MlsGroup::new(&self.provider, &self.keys, &config, self.credential());
        self.group = Some(group.unwrap());
    }

    /// Commits and merges, always with a path, as the mind does.
    fn commit(
        &mut self,
        added: Vec<KeyPackage>,
        removed: Vec<LeafNodeIndex>,
    ) -> (Vec<u8>, Option<Vec<u8>>) {
        let group = self.group.as_mut().unwrap();
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(added)
            .propose_removals(removed)
            .load_psks(self.provider.storage())
            .unwrap()
            .use_ratchet_tree_extension(true)
            .build(
                self.provider.rand(),
                self.provider.crypto(),
                &self.keys,
                |_| true,
            )
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        let (commit, welcome, _) = bundle.into_messages();
        group.merge_pending_commit(&self.provider).unwrap();
        let bytes = |message: &MlsMessageOut| message.to_bytes().unwrap();
        (bytes(&commit), welcome.as_ref().map(bytes))
    }

    fn process(&mut self, commit: &[u8]) {
        let message = MlsMessageIn::tls_deserialize_exact(commit).unwrap();
        let message = message.try_into_protocol_message().unwrap();
        let group = self.group.as_mut().unwrap();
        let processed = group.process_message(&self.provider, message).unwrap();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            panic!("a commit")
        };
        group.merge_staged_commit(&self.provider, *staged).unwrap();
    }

    fn join(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) = MlsMessageIn::tls_deserialize_exact(welcome)
            .unwrap()
            .extract()
        else {
            panic!("a Welcome")
        };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .build();
        let staged = StagedWelcome::build_from_welcome(&self.provider, &config, welcome)
            .unwrap()
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .unwrap();
        self.group = Some(staged.into_group(&self.provider).unwrap());
    }
}

impl Bare {
    fn new(size: usize, filled: bool) -> Self {
        let mut members: Vec<Member> = (0..=size).map(|_| Member::new()).collect();
        members[FOUNDER].found();
        let packages = members[1..size]
            .iter()
            .map(|member| member.package().key_package().clone())
            .collect();
        let (_, welcome) = members[FOUNDER].commit(packages, Vec::new());
        let welcome = welcome.unwrap();
        let following = if filled { size } else { 2 };
        for member in &mut members[1..following] {
            member.join(&welcome);
        }
        if filled {
            for number in 0..size {
                let (commit, _) = members[number].commit(Vec::new(), Vec::new());
                for other in (0..size).filter(|other| *other != number) {
                    members[other].process(&commit);
                }
            }
        }
        Self { members }
    }

    fn round(&mut self, table: &mut BTreeMap<Step, Row>) {
        let last = self.members.len() - 1;
        // Made in advance, as the mind's are.
        let package = self.members[last].package().key_package().clone();
        let mut note = |step, time| table.entry(step).or_default().bare.push(time);

        let ((commit, welcome), time) =
            timed(|| self.members[FOUNDER].commit(vec![package], Vec::new()));
        note(Step::Add, time);
        self.members[OTHER].process(&commit);
        let ((), time) = timed(|| self.members[last].join(&welcome.unwrap()));
        note(Step::Join, time);

        let ((commit, _), time) = timed(|| self.members[FOUNDER].commit(Vec::new(), Vec::new()));
        note(Step::Rotate, time);
        let ((), time) = timed(|| self.members[OTHER].process(&commit));
        note(Step::Process, time);

        let leaf = self.members[last].group.as_ref().unwrap().own_leaf_index();
        let ((commit, _), time) = timed(|| self.members[FOUNDER].commit(Vec::new(), vec![leaf]));
        note(Step::Remove, time);
        self.members[OTHER].process(&commit);
    }
}

fn capabilities() -> Capabilities {
    Capabilities::new(None, Some(&[SUITE]), None, None, None)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = cpu_time();
    let done = work();
    (done, cpu_time().saturating_sub(begun))
}

/// What this process has used so far: what others do on the machine meanwhile does not count, and
/// the threads to which the library hands encryption do.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process has not run for less than nothing")
}

/// In seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const RELAY: RelayKey = RelayKey([7; 32]);
const FOUNDER: usize = 0;
/// Somebody who follows what the founder does.
const OTHER: usize = 1;
const MEMBERS: usize = 100;
const ROUNDS: usize = 40;
/// How often in a row a command may lose to another commit.
const RACES_MAX: usize = 20;
/// So many that none is made during a round's measured steps, but for the newcomer's refill.
const KEY_PACKAGES: u32 = 30;
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
