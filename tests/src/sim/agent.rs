//! A mind on its vault, run as the worker runs it: a batch, a transaction, then the outputs.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rusqlite::{Connection, TransactionBehavior};
use skytale_agent::{Accept, Agent, AgentConfig, Answer, CommandId, Event, Input, view};
use skytale_relay::hub::Conn;
use skytale_wire::{
    frame::ToAgent,
    id::{AgentId, Time, TransportKey},
};

use super::{
    relay::RENEW_MS,
    world::{Faults, Happening, World},
};

/// An agent's process and its disk.
pub(super) struct SimAgent {
    pub(super) name: String,
    /// What it calls itself at the moment.
    label: String,
    pub(super) id: AgentId,
    pub(super) vault: Connection,
    mind: Option<Agent>,
    pub(super) conn: Option<Conn>,
    pub(super) parted_until: Time,
    waiting: Vec<Input>,
    stepping: bool,
    wake: Option<Time>,
    pub(super) skew_ms: i64,
    pub(super) guest: bool,
    config: AgentConfig,
    /// Commands whose answers are still owed.
    pub(super) owed: BTreeMap<CommandId, skytale_agent::Command>,
}

impl SimAgent {
    pub(super) fn new(index: usize, faults: &Faults, rng: &mut ChaCha8Rng) -> Self {
        let skew_ms = if faults.skew && rng.random_bool(0.5) {
            rng.random_range(-7_200_000..7_200_000)
        } else {
            0
        };
        let guest = index > 0 && rng.random_bool(0.3);
        let vault = Connection::open_in_memory().unwrap();
        let mut agent = Self::over(index, vault, rng);
        agent.skew_ms = skew_ms;
        agent.guest = guest;
        agent.config = AgentConfig {
            accept: [Accept::Known, Accept::Anyone, Accept::Ask][rng.random_range(0..3)],
            key_packages: [1, 3][rng.random_range(0..2)],
        };
        agent.open(rng.random());
        agent
    }

    /// With an account, a right clock and no mistrust, over a vault that a test has opened.
    pub(super) fn directed(index: usize, vault: Connection, rng: &mut ChaCha8Rng) -> Self {
        Self::over(index, vault, rng)
    }

    fn over(index: usize, mut vault: Connection, rng: &mut ChaCha8Rng) -> Self {
        Agent::migrate(&mut vault).unwrap();
        let mut seed = [0_u8; 32];
        rng.fill(&mut seed);
        // Ids come from the seed, so that what is sorted by id comes in the same order each time.
        vault
            .execute(
                "INSERT INTO identity (one, seed, label) VALUES (1, ?1, '')",
                [seed],
            )
            .unwrap();
        let mut agent = Self {
            name: NAMES[index].to_owned(),
            label: NAMES[index].to_owned(),
            id: AgentId([0; 32]),
            vault,
            mind: None,
            conn: None,
            parted_until: Time(0),
            waiting: Vec::new(),
            stepping: false,
            wake: None,
            skew_ms: 0,
            guest: false,
            config: AgentConfig {
                accept: Accept::Anyone,
                key_packages: 3,
            },
            owed: BTreeMap::new(),
        };
        agent.open(rng.random());
        agent.id = agent.mind.as_ref().unwrap().id();
        agent
    }

    fn open(&mut self, seed: u64) {
        let config = self.config.clone();
        let tx = self.vault.transaction().unwrap();
        let mind =
            Agent::open_with(&tx, &self.label, config, ChaCha8Rng::seed_from_u64(seed)).unwrap();
        tx.commit().unwrap();
        self.mind = Some(mind);
    }

    pub(super) fn is_up(&self) -> bool {
        self.mind.is_some()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_up()
            && self.owed.is_empty()
            && self.waiting.is_empty()
            && view::outbox_len(&self.vault, None).unwrap() == 0
            && view::commits_wanted(&self.vault).unwrap() == 0
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} ({:?}): owed {:?}, outbox {}, wishes {}, channels {:?}",
            self.name,
            self.conn,
            self.owed.values().map(command_kind).collect::<Vec<_>>(),
            view::outbox_len(&self.vault, None).unwrap(),
            view::commits_wanted(&self.vault).unwrap(),
            view::channels(&self.vault)
                .unwrap()
                .iter()
                .map(|channel| (channel.state, channel.epoch.0, channel.cursor.0))
                .collect::<Vec<_>>()
        )
    }

    fn clock(&self, now: Time) -> Time {
        Time(now.0.saturating_add_signed(self.skew_ms))
    }
}

pub(super) fn command_kind(command: &skytale_agent::Command) -> String {
    format!("{command:?}")
        .split([' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

impl World {
    /// Something for a mind to think about; it does so in a moment, with whatever else has come.
    pub(super) fn think(&mut self, index: usize, input: Input) {
        let agent = &mut self.agents[index];
        if !agent.is_up() {
            return;
        }
        agent.waiting.push(input);
        if !agent.stepping {
            agent.stepping = true;
            let pause = self.rng.random_range(0..=2);
            self.after(pause, Happening::Step(index));
        }
    }

    pub(super) fn agent_hears(&mut self, conn: Conn, frame: ToAgent) {
        if let Some(index) = self.agent_of(conn) {
            let relay = self.relay.key;
            self.think(index, Input::Frame { relay, frame });
        } else {
            self.counters.count("fault: lost with its connection");
        }
    }

    /// One batch in one transaction. Chance may end the process before the commit or after it.
    pub(super) fn agent_steps(&mut self, index: usize) {
        let crash = self.faults.on && self.faults.crashes && self.rng.random_bool(0.01);
        let before_commit = self.rng.random_bool(0.5);
        let agent = &mut self.agents[index];
        agent.stepping = false;
        let Some(mind) = &mut agent.mind else { return };
        let mut inputs: Vec<Input> = agent.waiting.drain(..).collect();
        inputs.push(Input::Tick);
        let now = Time(self.now.0.saturating_add_signed(agent.skew_ms));
        let tx = agent
            .vault
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let out = mind.handle(inputs, now, &tx).unwrap();
        if crash && before_commit {
            drop(tx);
            self.counters.count("fault: crash before commit");
            return self.crash_agent(index);
        }
        tx.commit().unwrap();
        let wake = mind.wake();
        for (id, _) in &out.answers {
            // Whoever asked sees the answer even if the process ends right after the commit: it
            // was in the vault for a hand, and a local caller died with the process.
            agent.owed.remove(id);
        }
        let conn = agent.conn;
        for event in &out.events {
            self.counters.count(format!("event: {}", event_kind(event)));
            if matches!(
                event,
                Event::ForkSuspected { .. }
                    | Event::LogRollback { .. }
                    | Event::ChannelStuck { .. }
                    | Event::Unreadable { .. }
            ) {
                self.say_aloud(|| format!("{} sees {event:?}", self.agents[index].name));
            }
        }
        for (id, answer) in out.answers {
            self.answered(index, id, answer);
        }
        for event in out.events {
            self.heard_event(index, &event);
        }
        if crash {
            self.counters.count("fault: crash after commit");
            return self.crash_agent(index);
        }
        if let Some(conn) = conn {
            for (_, frame) in out.frames {
                self.send_to_relay(conn, frame);
            }
        }
        if let Some(conn) = conn.filter(|_| !out.close.is_empty()) {
            self.counters.count("the agent ends its connection");
            self.cut(conn);
        }
        let agent = &mut self.agents[index];
        if wake.is_some() && wake != agent.wake {
            agent.wake = wake;
            let ms = wake.unwrap_or_default().since(agent.clock(self.now));
            self.after(ms.max(1), Happening::Step(index));
        }
        if self.agents[index].conn.is_none() {
            self.after(5, Happening::Connect(index));
        }
    }

    /// The process dies, and whoever waited in it for an answer. What was committed stays, and
    /// unfinished commands go on by themselves.
    pub(super) fn crash_agent(&mut self, index: usize) {
        if !self.agents[index].is_up() {
            return;
        }
        self.counters.count("fault: agent crash");
        if let Some(conn) = self.agents[index].conn.take() {
            self.relay.forget(conn);
            if self.relay.is_up() {
                self.relay_thinks(skytale_relay::hub::Input::Gone { conn });
            }
        }
        let agent = &mut self.agents[index];
        agent.mind = None;
        agent.waiting.clear();
        agent.owed.clear();
        agent.wake = None;
        let pause = self.rng.random_range(5..1500);
        self.after(pause, Happening::AgentUp(index));
    }

    pub(super) fn agent_up(&mut self, index: usize) {
        if self.agents[index].is_up() {
            return;
        }
        let seed = self.rng.random();
        let other = self.rng.random_range(0..self.agents.len());
        if self.faults.on && self.rng.random_bool(0.1) {
            // Anybody may call itself anything, also what somebody else calls itself.
            self.agents[index].label = self.agents[other].name.clone();
        }
        self.agents[index].open(seed);
        self.after(1, Happening::Connect(index));
    }

    pub(super) fn connect(&mut self, index: usize) {
        let parted = self.agents[index].parted_until;
        let agent = &self.agents[index];
        let Some(mind) = &agent.mind else { return };
        if agent.conn.is_some() {
            return;
        }
        // An agent with an account keeps a line even before it has a channel: others may add it.
        if agent.guest && mind.relays().is_empty() {
            return;
        }
        if parted > self.now || !self.relay.is_up() {
            let ms = parted.since(self.now).max(50);
            self.after(ms, Happening::Connect(index));
            return;
        }
        let (conn, number) = self.fresh_conn();
        let mut transport = [0; 32];
        transport[..8].copy_from_slice(&number.to_be_bytes());
        let transport = TransportKey(transport);
        self.relay.accept(conn, transport);
        self.agents[index].conn = Some(conn);
        let token = (!self.agents[index].guest).then(|| "account".to_owned());
        if token.is_some() && self.faults.on && self.faults.short_tokens {
            self.after(RENEW_MS, Happening::Token(index, conn));
        }
        let relay = self.relay.key;
        self.think(
            index,
            Input::LinkUp {
                relay,
                transport,
                token,
            },
        );
    }

    /// A new token in time, or not: then the relay ends the connection, and the next one shows it.
    pub(super) fn renew_token(&mut self, index: usize, conn: Conn) {
        if self.agents[index].conn != Some(conn) || !self.faults.on {
            return;
        }
        if self.rng.random_bool(0.3) {
            self.counters.count("fault: token not renewed");
            return;
        }
        let relay = self.relay.key;
        let token = "account".to_owned();
        self.think(index, Input::Token { relay, token });
        self.after(RENEW_MS, Happening::Token(index, conn));
    }

    fn answered(&mut self, index: usize, id: CommandId, answer: Answer) {
        let kind = match &answer {
            Answer::Done => "done".to_owned(),
            Answer::Channel(_) => "channel".to_owned(),
            Answer::Invite(_) => "invite".to_owned(),
            Answer::Stored(_) => "stored".to_owned(),
            Answer::Failed(failure) => {
                let text = format!("{failure:?}");
                let text: String = text.chars().take_while(|c| *c != '"').collect();
                format!("failed {text}")
            }
        };
        self.say_aloud(|| format!("{} is answered {id:?} {answer:?}", self.agents[index].name));
        if let Some(command) = self.script.asked.get(&id)
            && !matches!(answer, Answer::Failed(_))
        {
            let command = command_kind(command);
            self.counters.count(format!("{command}: {kind}"));
        }
        self.counters.count(format!("answer: {kind}"));
        self.heard_answer(index, id, answer);
    }
}

fn event_kind(event: &Event) -> String {
    format!("{event:?}")
        .split([' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

const NAMES: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
