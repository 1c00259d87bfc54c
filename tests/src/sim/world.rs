//! One clock, one queue, one generator.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rusqlite::Connection;
use skytale_agent::Input as Thought;
use skytale_relay::{
    archive::usage::Report,
    hub::{Answer as Found, Conn, Input, Lane},
};
use skytale_wire::{
    frame::{ToAgent, ToRelay, encode},
    id::{Digest, Time},
};

use super::{Counters, agent::SimAgent, checks, relay::SimRelay, script::Script, usage::Taker};

/// What is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    ToRelay(Conn, Box<ToRelay>),
    ToAgent(Conn, Box<ToAgent>),
    Answered(Conn, Found),
    Flush,
    /// A report of usage, sent in this life of the relay.
    Report(Box<Report>, u64),
    RelayWake,
    RelayUp,
    /// The store works again after a failure.
    Reload,
    /// The relay notices that a connection has long been dead.
    Gone(Conn),
    /// A connection's queue has room again.
    Drained(Conn),
    Step(usize),
    /// The worker has fetched a new token for a living connection.
    Token(usize, Conn),
    Connect(usize),
    AgentUp(usize),
    Act,
    Chaos,
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Outcome {
    /// Hash over every event's time, kind and length.
    pub trace: Digest,
    /// What happened.
    pub counters: Counters,
    /// What did not hold; empty when all is well.
    pub broken: Vec<String>,
}

/// A schedule.
pub struct World {
    pub(super) seed: u64,
    pub(super) now: Time,
    pub(super) rng: ChaCha8Rng,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    counter: u64,
    pub(super) relay: SimRelay,
    pub(super) taker: Taker,
    pub(super) agents: Vec<SimAgent>,
    pub(super) script: Script,
    pub(super) counters: Counters,
    pub(super) faults: Faults,
    trace: Digest,
    lanes: BTreeMap<(Conn, u8), Time>,
    next_conn: u64,
    next_transport: u64,
}

/// How rough this schedule is: a swarm, so that no kind of fault hides another.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each switch is drawn by itself: their combinations are the point"
)]
pub(super) struct Faults {
    pub(super) on: bool,
    pub(super) delay_ms_max: u64,
    pub(super) double: bool,
    pub(super) cuts: bool,
    pub(super) crashes: bool,
    pub(super) relay_crashes: bool,
    pub(super) store_fails: bool,
    pub(super) skew: bool,
    pub(super) half_open: bool,
    pub(super) slow_readers: bool,
    pub(super) short_tokens: bool,
}

impl Faults {
    fn drawn(rng: &mut ChaCha8Rng) -> Self {
        Self {
            on: true,
            delay_ms_max: [2, 20, 200, 1500][rng.random_range(0..4)],
            double: rng.random_bool(0.5),
            cuts: rng.random_bool(0.7),
            crashes: rng.random_bool(0.6),
            relay_crashes: rng.random_bool(0.5),
            store_fails: rng.random_bool(0.3),
            skew: rng.random_bool(0.4),
            half_open: rng.random_bool(0.4),
            slow_readers: rng.random_bool(0.3),
            short_tokens: rng.random_bool(0.3),
        }
    }

    /// For a play that a test directs: nothing goes wrong but what the test does.
    fn none() -> Self {
        Self {
            on: false,
            delay_ms_max: 0,
            double: false,
            cuts: false,
            crashes: false,
            relay_crashes: false,
            store_fails: false,
            skew: false,
            half_open: false,
            slow_readers: false,
            short_tokens: false,
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Runs the schedule of a seed to its end and judges it.
    pub fn run(seed: u64) -> Outcome {
        let mut world = Self::new(seed);
        world.act_out();
        let mut broken = Vec::new();
        if let Err(what) = world.heal() {
            broken.push(what);
        }
        checks::judge(&mut world, &mut broken);
        Outcome {
            trace: world.trace,
            counters: world.counters,
            broken,
        }
    }

    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let faults = Faults::drawn(&mut rng);
        let count = rng.random_range(2..=5);
        let agents: Vec<SimAgent> = (0..count)
            .map(|index| SimAgent::new(index, &faults, &mut rng))
            .collect();
        let script = Script::new(&mut rng, count);
        let mut world = Self::over(seed, rng, faults, agents, script);
        world.at(START, Happening::Act);
        world.at(START.plus(50), Happening::Chaos);
        for agent in &world.agents {
            if agent.skew_ms != 0 {
                world.counters.count("fault: clock skew");
            }
        }
        world
    }

    /// A world in which nothing goes wrong and nobody acts by itself, over these vaults.
    pub(super) fn directed(vaults: Vec<Connection>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let agents: Vec<SimAgent> = vaults
            .into_iter()
            .enumerate()
            .map(|(index, vault)| SimAgent::directed(index, vault, &mut rng))
            .collect();
        Self::over(0, rng, Faults::none(), agents, Script::directed())
    }

    fn over(
        seed: u64,
        mut rng: ChaCha8Rng,
        faults: Faults,
        agents: Vec<SimAgent>,
        script: Script,
    ) -> Self {
        let relay = SimRelay::new(&mut rng);
        let mut world = Self {
            seed,
            now: START,
            rng,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            counter: 0,
            relay,
            taker: Taker::default(),
            agents,
            script,
            counters: Counters::default(),
            faults,
            trace: Digest([0; 32]),
            lanes: BTreeMap::new(),
            next_conn: 1,
            next_transport: 1,
        };
        for index in 0..world.agents.len() {
            world.at(START, Happening::Connect(index));
        }
        world
    }

    fn act_out(&mut self) {
        let end = self.script.end();
        while self.now < end {
            if !self.turn(end) {
                break;
            }
        }
    }

    /// No more faults: everything that was wanted must come to an end.
    fn heal(&mut self) -> Result<(), String> {
        self.faults.on = false;
        self.relay.store_fails = false;
        if !self.relay.is_up() {
            self.at(self.now, Happening::RelayUp);
        }
        for index in 0..self.agents.len() {
            self.agents[index].parted_until = Time(0);
            let next = if self.agents[index].is_up() {
                Happening::Connect(index)
            } else {
                Happening::AgentUp(index)
            };
            self.at(self.now, next);
        }
        let limit = self.now.plus(HEAL_MS);
        let mut quiet_since = self.now;
        while self.now < limit {
            if !self.turn(limit) {
                break;
            }
            if !self.is_settled() {
                quiet_since = self.now;
            }
            if self.now.since(quiet_since) > QUIET_MS {
                return Ok(());
            }
        }
        if self.is_settled() {
            return Ok(());
        }
        Err(format!("not settled after healing: {}", self.unsettled()))
    }

    fn is_settled(&self) -> bool {
        self.relay.is_up() && self.agents.iter().all(SimAgent::is_settled)
    }

    fn unsettled(&self) -> String {
        let agents: Vec<String> = self
            .agents
            .iter()
            .filter(|agent| !agent.is_settled())
            .map(SimAgent::describe)
            .collect();
        format!("{}; {}", self.script.describe(), agents.join("; "))
    }

    /// In a directed play: until everybody who has a line has had nothing to do for a while.
    pub(super) fn rest(&mut self) {
        let limit = self.now.plus(HEAL_MS);
        let mut quiet_since = self.now;
        while self.now < limit && self.now.since(quiet_since) <= REST_MS {
            if !self.turn(limit) {
                break;
            }
            let settled = |agent: &SimAgent| agent.parted_until > self.now || agent.is_settled();
            if !self.agents.iter().all(settled) {
                quiet_since = self.now;
            }
        }
    }

    /// The next thing happens. `false` when nothing is left before `end`.
    pub(super) fn turn(&mut self, end: Time) -> bool {
        let Some(Reverse((at, number))) = self.queue.pop() else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        let happening = self.happenings.remove(&number).expect("queued together");
        self.note(&happening);
        match happening {
            Happening::ToRelay(conn, frame) => self.relay_hears(conn, *frame),
            Happening::ToAgent(conn, frame) => self.agent_hears(conn, *frame),
            Happening::Answered(conn, answer) => {
                self.relay_thinks(Input::Answered { conn, answer });
            }
            Happening::Flush => self.flush(),
            Happening::Report(report, run) => self.report_arrives(&report, run),
            Happening::RelayWake => self.relay_thinks(Input::Tick),
            Happening::RelayUp => self.relay_up(),
            Happening::Reload => self.reload(),
            Happening::Gone(conn) => self.relay_misses(conn),
            Happening::Drained(conn) => self.relay_thinks(Input::Drained { conn }),
            Happening::Step(index) => self.agent_steps(index),
            Happening::Token(index, conn) => self.renew_token(index, conn),
            Happening::Connect(index) => self.connect(index),
            Happening::AgentUp(index) => self.agent_up(index),
            Happening::Act => self.act(),
            Happening::Chaos => self.chaos(),
        }
        true
    }

    pub(super) fn at(&mut self, at: Time, happening: Happening) {
        self.counter += 1;
        self.queue.push(Reverse((at.max(self.now), self.counter)));
        self.happenings.insert(self.counter, happening);
    }

    pub(super) fn after(&mut self, ms: u64, happening: Happening) {
        self.at(self.now.plus(ms), happening);
    }

    fn note(&mut self, happening: &Happening) {
        let (kind, length) = match happening {
            Happening::ToRelay(conn, frame) => {
                let kind = kind_of(frame.as_ref());
                self.counters.count(format!("to relay: {kind}"));
                (format!("{} → {kind}", conn.0), encode(frame.as_ref()).len())
            }
            Happening::ToAgent(conn, frame) => {
                let kind = kind_of(frame.as_ref());
                self.counters.count(format!("to agent: {kind}"));
                (format!("{} ← {kind}", conn.0), encode(frame.as_ref()).len())
            }
            Happening::Answered(conn, _) => (format!("answered {}", conn.0), 0),
            Happening::Flush => ("flush".into(), 0),
            Happening::Report(report, run) => (format!("report of {run}"), report.body.len()),
            Happening::RelayWake => ("relay wake".into(), 0),
            Happening::RelayUp => ("relay up".into(), 0),
            Happening::Reload => ("reload".into(), 0),
            Happening::Gone(conn) => (format!("gone {}", conn.0), 0),
            Happening::Drained(conn) => (format!("drained {}", conn.0), 0),
            Happening::Token(index, _) => (format!("token {index}"), 0),
            Happening::Step(index) => (format!("step {index}"), 0),
            Happening::Connect(index) => (format!("connect {index}"), 0),
            Happening::AgentUp(index) => (format!("up {index}"), 0),
            Happening::Act => ("act".into(), 0),
            Happening::Chaos => ("chaos".into(), 0),
        };
        self.say_aloud(|| format!("{kind} {length}"));
        self.trace = Digest::of(&[
            &self.trace.0,
            &self.now.0.to_be_bytes(),
            kind.as_bytes(),
            &length.to_be_bytes(),
        ]);
    }

    /// When one seed is replayed, everything is printed.
    #[expect(
        clippy::print_stdout,
        reason = "a replayed schedule is read by a person"
    )]
    pub(super) fn say_aloud(&self, what: impl FnOnce() -> String) {
        if TRACE.get() {
            println!("{:>9} {}", self.now.since(START), what());
        }
    }

    // ----- the network ------------------------------------------------------------------------

    pub(super) fn fresh_conn(&mut self) -> (Conn, u64) {
        self.next_conn += 1;
        self.next_transport += 1;
        (Conn(self.next_conn), self.next_transport)
    }

    /// Frames of one stream keep their order; streams overtake each other.
    fn arrival(&mut self, conn: Conn, stream: u8) -> Time {
        let slow = self.faults.on && self.rng.random_bool(0.1);
        let ms = if slow {
            self.counters.count("fault: delayed");
            self.rng.random_range(0..=self.faults.delay_ms_max)
        } else {
            self.rng.random_range(0..=2)
        };
        let at = self
            .now
            .plus(ms)
            .max(self.lanes.get(&(conn, stream)).copied().unwrap_or_default());
        let other = self.lanes.get(&(conn, 3 - stream.min(2))).copied();
        if stream > 0 && other.is_some_and(|other| other > at) {
            self.counters.count("fault: streams overtake");
        }
        self.lanes.insert((conn, stream), at);
        at
    }

    pub(super) fn send_to_relay(&mut self, conn: Conn, frame: ToRelay) {
        let doubled = self.faults.on
            && self.faults.double
            && is_request(&frame)
            && self.rng.random_bool(0.03);
        if doubled {
            self.counters.count("fault: requested twice");
            let at = self.arrival(conn, 0);
            self.at(at, Happening::ToRelay(conn, Box::new(frame.clone())));
        }
        let at = self.arrival(conn, 0);
        self.at(at, Happening::ToRelay(conn, Box::new(frame)));
    }

    pub(super) fn send_to_agent(&mut self, conn: Conn, lane: Lane, frame: ToAgent) {
        let stream = match lane {
            Lane::Live => 1,
            Lane::CatchUp => 2,
        };
        let doubled = self.faults.on
            && self.faults.double
            && matches!(frame, ToAgent::Deliver(_))
            && self.rng.random_bool(0.03);
        if doubled {
            self.counters.count("fault: delivered twice");
            let at = self.arrival(conn, stream);
            self.at(at, Happening::ToAgent(conn, Box::new(frame.clone())));
        }
        let at = self.arrival(conn, stream);
        self.at(at, Happening::ToAgent(conn, Box::new(frame)));
    }

    /// A connection ends for both sides; what was on its way is lost.
    pub(super) fn cut(&mut self, conn: Conn) {
        self.relay.forget(conn);
        if self.relay.is_up() {
            self.relay_thinks(Input::Gone { conn });
        }
        if let Some(index) = self.agent_of(conn) {
            self.agents[index].conn = None;
            let relay = self.relay.key;
            self.think(index, Thought::LinkDown { relay });
            let pause = self.rng.random_range(1..=400);
            self.after(pause, Happening::Connect(index));
        }
    }

    /// Only the agent notices that a connection is dead: what it had said may still arrive, and
    /// the relay talks to nobody until a newer connection replaces this one or it notices too.
    fn half_open(&mut self, index: usize) {
        let Some(conn) = self.agents[index].conn.take() else {
            return;
        };
        self.counters.count("fault: half-open connection");
        let relay = self.relay.key;
        self.think(index, Thought::LinkDown { relay });
        let pause = self.rng.random_range(1..=400);
        self.after(pause, Happening::Connect(index));
        let notices = self.rng.random_range(1..=6_000);
        self.after(notices, Happening::Gone(conn));
    }

    pub(super) fn agent_of(&self, conn: Conn) -> Option<usize> {
        self.agents
            .iter()
            .position(|agent| agent.conn == Some(conn))
    }

    // ----- chance -----------------------------------------------------------------------------

    fn chaos(&mut self) {
        if !self.faults.on {
            return;
        }
        match self.rng.random_range(0..11) {
            0..=2 if self.faults.cuts => {
                let conns: Vec<Conn> = self.agents.iter().filter_map(|agent| agent.conn).collect();
                if !conns.is_empty() {
                    let conn = conns[self.rng.random_range(0..conns.len())];
                    self.counters.count("fault: cut");
                    self.cut(conn);
                }
            }
            3 if self.faults.cuts => {
                let index = self.rng.random_range(0..self.agents.len());
                let until = self.now.plus(self.rng.random_range(100..4000));
                self.agents[index].parted_until = until;
                self.counters.count("fault: partition");
                if let Some(conn) = self.agents[index].conn {
                    self.cut(conn);
                }
            }
            4 | 5 if self.faults.crashes => {
                let index = self.rng.random_range(0..self.agents.len());
                self.crash_agent(index);
            }
            6 if self.faults.relay_crashes => self.crash_relay(),
            7 if self.faults.store_fails => {
                self.counters.count("fault: store fails");
                self.relay.store_fails = true;
            }
            8 if self.faults.half_open => {
                let index = self.rng.random_range(0..self.agents.len());
                self.half_open(index);
            }
            9 if self.faults.slow_readers => {
                let index = self.rng.random_range(0..self.agents.len());
                let pause = self.rng.random_range(10..5_000);
                if let Some(conn) = self.agents[index].conn {
                    self.counters.count("fault: slow reader");
                    self.relay_thinks(Input::Full { conn });
                    self.after(pause, Happening::Drained(conn));
                }
            }
            _ => {}
        }
        let pause = self.rng.random_range(20..1200);
        self.after(pause, Happening::Chaos);
    }
}

/// Which frames an honest agent may say twice.
fn is_request(frame: &ToRelay) -> bool {
    matches!(
        frame,
        ToRelay::Publish(_) | ToRelay::Commit(_) | ToRelay::Leave(_) | ToRelay::Create(_)
    )
}

/// The name of a frame: what its `Debug` says before the first parenthesis. Writing stops there,
/// so that bodies are never printed.
fn kind_of(frame: &impl std::fmt::Debug) -> String {
    struct Name(String);
    impl std::fmt::Write for Name {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            if let Some((name, _)) = text.split_once('(') {
                self.0.push_str(name);
                return Err(std::fmt::Error);
            }
            self.0.push_str(text);
            Ok(())
        }
    }
    let mut name = Name(String::new());
    let _stopped = std::fmt::Write::write_fmt(&mut name, format_args!("{frame:?}"));
    name.0
}

thread_local! {
    /// Whether each event is printed, for replaying one seed.
    pub static TRACE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// When every simulation begins: some day in 2026.
pub(super) const START: Time = Time(1_790_000_000_000);
/// Virtual time that healing may take.
const HEAL_MS: u64 = 180_000;
/// How long nothing may be wanted before a schedule counts as settled.
const QUIET_MS: u64 = 12_000;
/// The same for a directed play: longer than members wait before they remove one that has left.
const REST_MS: u64 = 6_000;
