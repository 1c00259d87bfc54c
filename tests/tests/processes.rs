//! Real processes, sockets and vaults, killed at random: what was acknowledged is read once and in
//! order, whoever died. `SKYTALE_LONG=1` kills fifty times a side; `SKYTALE_SEED=n` chooses when.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
#![allow(clippy::print_stdout, reason = "the seed and the figures of a run")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use skytale_sdk::{Account, Context, RelayAddr};
use skytale_shape::pad::{Kind, seal_cell};
use skytale_tests::processes::{
    Machine, PATIENCE, Said, Servers, Speaker, program, stranger::Stranger,
};
use skytale_wire::{
    frame::{Create, FRAME_BYTES_MAX, Ping, Publish, Subscribe, ToAgent, ToRelay},
    id::{ChannelId, Epoch, MessageId, Seq},
    refusal::Refusal,
};

const CHANNEL: &str = "acme/ops/plan";

/// Messages that an actor has begun and that are not acknowledged.
const WINDOW: &str = "8";

/// Alice has an account; Bob sits at a second machine and is a guest there.
const NAMES: [&str; 2] = ["alice", "bob"];

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_relay_and_agents_are_killed() {
    let kills = if is_set("SKYTALE_LONG") { 50 } else { 3 };
    let mut rng = seeded();
    let mut play = Play::begin();
    let mut victims: Vec<Victim> = (0..kills)
        .flat_map(|kill| [Victim::Relay, Victim::Agent(kill % 2)])
        .collect();
    victims.shuffle(&mut rng);
    let mut recoveries = Vec::new();

    for victim in victims {
        play.listen_to(rng.random_range(1..60));
        let began = now();
        match victim {
            Victim::Relay => play.restart_relay(),
            Victim::Agent(who) => play.restart_agent(who),
        }
        play.wait_for_life_of(victim);
        let took = now().duration_since(began);
        println!("{victim:?}: {took:?}");
        recoveries.push(took);
    }
    play.stop_relay_in_the_middle();
    play.finish();

    recoveries.sort();
    println!(
        "{} kills a side; until both go on: median {:?}, longest {:?}; {} messages",
        kills,
        recoveries[recoveries.len() / 2],
        recoveries.last().unwrap(),
        play.histories[0].came.len() + play.histories[1].came.len(),
    );
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Relay,
    Agent(usize),
}

/// Which life of which agent says something.
type Who = (usize, u32);

/// Two agents that talk at full speed, each on a machine of its own.
struct Play {
    // Killed before their directories are removed.
    servers: Option<Servers>,
    agents: [Option<Speaker>; 2],
    lives: [u32; 2],
    machines: [Machine; 2],
    ears: Receiver<Said<Who>>,
    mouth: Sender<Said<Who>>,
    histories: [History; 2],
}

/// What one agent has said it did.
#[derive(Debug, Default)]
struct History {
    /// Acknowledged to it, by text.
    stored: BTreeMap<String, u64>,
    /// Given to it, by place; and in which order the places came first.
    came: BTreeMap<u64, String>,
    order: Vec<u64>,
    /// Taken by it.
    taken: BTreeSet<u64>,
    stopped: bool,
    closed: bool,
}

impl History {
    /// What must hold at each moment.
    fn note(&mut self, what: &Value) {
        let seq = what["seq"].as_u64().unwrap_or_default();
        if let Some(text) = what["stored"].as_str() {
            let before = self.stored.insert(text.to_owned(), seq);
            assert_eq!(before, None, "{text} was acknowledged twice");
        } else if let Some(text) = what["got"].as_str() {
            assert!(!self.taken.contains(&seq), "{seq} came after it was taken");
            let before = self.came.insert(seq, text.to_owned());
            match before {
                // It had been shown and not taken when its reader was killed.
                Some(before) => assert_eq!(before, text, "{seq} came as something else"),
                None => self.order.push(seq),
            }
        } else if what.get("took").is_some() {
            self.taken.insert(what["took"].as_u64().unwrap());
        } else if what.get("stopped").is_some() {
            self.stopped = true;
        } else if what.get("closed").is_some() {
            self.closed = true;
        } else {
            assert!(what.get("ready").is_some(), "{what}");
        }
    }

    /// Whether all of it has come. That it was taken, a killed one could not always say any more.
    fn has(&self, all: &BTreeMap<String, u64>) -> bool {
        all.values().all(|seq| self.came.contains_key(seq))
    }

    /// What must hold in the end, of what this agent read and the other sent.
    fn check(&self, sent: &BTreeMap<String, u64>) {
        for (text, seq) in sent {
            assert_eq!(self.came.get(seq), Some(text), "acknowledged and lost");
        }
        let texts: BTreeSet<&String> = self.came.values().collect();
        assert_eq!(texts.len(), self.came.len(), "something came twice");
        assert!(self.order.is_sorted(), "out of order: {:?}", self.order);
        let mut lives: BTreeMap<&str, u64> = BTreeMap::new();
        for text in self.came.values() {
            // Within one life of a sender, its own order is kept.
            let (life, number) = text.rsplit_once('.').unwrap();
            let number: u64 = number.parse().unwrap();
            let before = lives.insert(life, number);
            assert!(before < Some(number), "{text} after {before:?}");
        }
    }
}

impl Play {
    fn begin() -> Self {
        let machines = [Machine::new(), Machine::new()];
        let servers = machines[0].up(None);
        machines[0].run("open acme/ops/plan --as alice").ok();
        let invite = machines[0].run("invite --as alice").ok();
        machines[1].say(invite.line(), "join - --as bob").ok();
        let (mouth, ears) = mpsc::channel();
        let mut play = Self {
            servers: Some(servers),
            agents: [None, None],
            lives: [0, 0],
            machines,
            ears,
            mouth,
            histories: Default::default(),
        };
        play.restart_agent(0);
        play.restart_agent(1);
        play
    }

    fn restart_agent(&mut self, who: usize) {
        if let Some(agent) = self.agents[who].take() {
            agent.kill();
        }
        self.lives[who] += 1;
        let life = self.lives[who];
        let tag = format!("{}{life}", NAMES[who]);
        let command = actor(&self.machines[who], NAMES[who], &tag, WINDOW, u64::MAX);
        self.agents[who] = Some(Speaker::start(command, (who, life), &self.mouth));
    }

    fn restart_relay(&mut self) {
        let servers = self.servers.take().unwrap();
        let addresses = servers.addresses();
        servers.kill();
        self.servers = Some(self.machines[0].up(Some(&addresses)));
        self.catch_up();
    }

    /// Notes what had been said before, so that what is heard next was said by the living.
    fn catch_up(&mut self) {
        while let Ok(said) = self.ears.try_recv() {
            self.note(said);
        }
    }

    /// The next thing that anybody says. What a killed one had still said is noted like the rest.
    #[track_caller]
    fn listen(&mut self) -> (Who, Option<Value>) {
        let said = self.ears.recv_timeout(PATIENCE);
        let Ok(said) = said else {
            panic!("nobody says anything any more: {:#?}", self.histories);
        };
        self.note(said)
    }

    #[track_caller]
    fn note(&mut self, Said { who, what }: Said<Who>) -> (Who, Option<Value>) {
        match &what {
            Some(what) => self.histories[who.0].note(what),
            None => assert!(
                self.histories[who.0].closed || who.1 < self.lives[who.0],
                "{} ended by itself: {:?}",
                NAMES[who.0],
                self.agents[who.0].take().map(Speaker::ended)
            ),
        }
        (who, what)
    }

    fn listen_to(&mut self, count: u32) {
        for _ in 0..count {
            self.listen();
        }
    }

    /// Until new messages of both have been acknowledged: a restarted relay serves both, a
    /// restarted agent sends again and the other one still does.
    fn wait_for_life_of(&mut self, victim: Victim) {
        let mut missing = match victim {
            Victim::Relay => BTreeSet::from([0, 1]),
            Victim::Agent(who) => BTreeSet::from([who]),
        };
        while !missing.is_empty() {
            let ((who, life), what) = self.listen();
            if life == self.lives[who] && what.is_some_and(|what| what.get("stored").is_some()) {
                missing.remove(&who);
            }
        }
    }

    /// An operator stops the servers while both agents talk; they end well and in time.
    fn stop_relay_in_the_middle(&mut self) {
        let servers = self.servers.take().unwrap();
        let addresses = servers.addresses();
        servers.terminate();
        self.servers = Some(self.machines[0].up(Some(&addresses)));
        self.catch_up();
        self.wait_for_life_of(Victim::Relay);
    }

    /// Lets both say the last word and hear it; then compares all histories, and the relay's.
    fn finish(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            agent.tell("stop");
        }
        let done = |[alice, bob]: &[History; 2]| {
            alice.stopped && bob.stopped && alice.has(&bob.stored) && bob.has(&alice.stored)
        };
        while !done(&self.histories) {
            self.listen();
        }
        for agent in self.agents.iter_mut().flatten() {
            agent.tell("close");
        }
        while !self.histories.iter().all(|history| history.closed) {
            self.listen();
        }
        for (who, agent) in self.agents.iter_mut().enumerate() {
            let (code, talk) = agent.take().unwrap().ended();
            assert_eq!(code, 0, "{}: {talk}", NAMES[who]);
        }
        // What was shown and not taken when its reader died comes now, and nothing else does.
        for (who, name) in NAMES.into_iter().enumerate() {
            let read = self.machines[who].run(&format!("read --json --as {name}"));
            for message in read.ok().json_lines() {
                let got = serde_json::json!({"got": message["text"], "seq": message["seq"]});
                self.histories[who].note(&got);
            }
        }
        let [alice, bob] = &self.histories;
        assert!(!alice.stored.is_empty() && !bob.stored.is_empty());
        bob.check(&alice.stored);
        alice.check(&bob.stored);

        self.servers.take().unwrap().terminate();
        let records = self.machines[0].run("relay-dump --json").ok().json_lines();
        let mut places: Vec<u64> = records
            .iter()
            .filter(|record| record["kind"] == "application")
            .map(|record| record["seq"].as_u64().unwrap())
            .collect();
        places.sort_unstable();
        let mut read: Vec<u64> = self
            .histories
            .iter()
            .flat_map(|history| history.came.keys().copied())
            .collect();
        read.sort_unstable();
        assert_eq!(places, read, "the relay's log is what was read");
    }
}

/// Two to eight processes may share an agent (F-068).
#[test]
fn four_processes_share_an_agent_and_the_one_with_the_line_dies() {
    const EACH: u64 = 40;
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.run("open acme/ops/plan --as same").ok();
    let invite = machine.run("invite --as same").ok();
    machine
        .run(&format!("join {} --as other", invite.line()))
        .ok();
    let (mouth, ears) = mpsc::channel();
    let start = |name: &str, tag: &str| {
        let command = actor(&machine, name, tag, "2", EACH);
        Speaker::start(command, tag.to_owned(), &mouth)
    };
    let mut hands: BTreeMap<String, Speaker> = ["one", "two", "three", "four"]
        .map(|tag| (tag.to_owned(), start("same", tag)))
        .into();
    let mut other = start("other", "other");
    // The four are one reader: what one has taken no other is shown.
    let (mut same, mut elsewhere) = (History::default(), History::default());
    let mut stopped = BTreeSet::new();
    let mut dead = None;

    let all_done = |same: &History, elsewhere: &History, stopped: &BTreeSet<String>| {
        stopped.len() == 5 && same.has(&elsewhere.stored) && elsewhere.has(&same.stored)
    };
    while dead.is_none() || !all_done(&same, &elsewhere, &stopped) {
        let Said { who, what } = ears.recv_timeout(PATIENCE).expect("it goes on");
        let Some(what) = what else {
            assert_eq!(Some(&who), dead.as_ref(), "{who} ended by itself");
            continue;
        };
        if what.get("stopped").is_some() {
            // The dead one's last words may come late.
            if dead.as_ref() != Some(&who) {
                stopped.insert(who);
            }
        } else if who == "other" {
            elsewhere.note(&what);
        } else {
            same.note(&what);
        }
        if dead.is_none() && same.stored.len() >= 20 && elsewhere.stored.len() >= 5 {
            let holder = machine.holder("same");
            let found = hands.iter().find(|(_, hand)| hand.pid() == holder);
            let tag = found.expect("one of the four holds the line").0.clone();
            hands.remove(&tag).unwrap().kill();
            // Its messages need not be complete any more; a fifth process steps in.
            hands.insert("five".to_owned(), start("same", "five"));
            stopped.remove(&tag);
            dead = Some(tag);
        }
    }

    let dead = dead.unwrap();
    for (tag, count) in same
        .stored
        .keys()
        .filter_map(|text| text.rsplit_once('.'))
        .fold(BTreeMap::new(), |mut counts, (tag, _)| {
            *counts.entry(tag.to_owned()).or_insert(0) += 1;
            counts
        })
    {
        assert!(count == EACH || tag == dead, "{tag} sent only {count}");
    }
    let everybody = hands.values_mut().chain([&mut other]);
    everybody.for_each(|one| one.tell("close"));
    for (tag, one) in hands.into_iter().chain([("other".to_owned(), other)]) {
        let (code, talk) = one.ended();
        assert_eq!(code, 0, "{tag}: {talk}");
    }
    for (name, history) in [("same", &mut same), ("other", &mut elsewhere)] {
        let read = machine.run(&format!("read --json --as {name}")).ok();
        for message in read.json_lines() {
            history.note(&serde_json::json!({"got": message["text"], "seq": message["seq"]}));
        }
    }
    // The order in which four readers say what they got is not the order in which they got it.
    same.order.sort_unstable();
    elsewhere.check(&same.stored);
    same.check(&elsewhere.stored);
    servers.terminate();
}

#[test]
fn commands_succeed_while_the_process_that_holds_the_line_dies() {
    let machine = Machine::new();
    let _servers = machine.up(None);
    machine.two_agents();
    let (mouth, ears) = mpsc::channel();
    let follow = machine.command(
        program(),
        &["read", "--follow", "--json", "--as", "planner"],
    );
    let following = Speaker::start(follow, "follower", &mouth);
    machine.say("hello", "send --as coder").ok();
    let hello = ears.recv_timeout(PATIENCE).unwrap().what.unwrap();
    assert_eq!(hello["text"], "hello");
    assert_eq!(machine.holder("planner"), following.pid());
    let doctor = machine.run("doctor --json --as planner").ok();
    let held = format!("by process {}", following.pid());
    assert!(doctor.stdout.contains(&held), "{doctor:?}");

    std::thread::scope(|scope| {
        let sends: Vec<_> = (0..3)
            .map(|number| {
                let machine = &machine;
                scope.spawn(move || machine.say(&format!("{number}"), "send --json --as planner"))
            })
            .collect();
        following.kill();
        for send in sends {
            send.join().unwrap().ok();
        }
    });

    let read = machine.run("read --json --as coder").ok().json_lines();
    let texts: BTreeSet<&str> = read.iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert_eq!((read.len(), texts), (3, BTreeSet::from(["0", "1", "2"])));
}

#[tokio::test]
async fn bad_input_is_answered_by_name_and_the_relay_lives() {
    let machine = Machine::new();
    let mut servers = machine.up(None);
    let (relay, account) = (relay_of(&servers), account_of(&machine));
    let mut rng = seeded();
    let mut cell = |kind, payload: &[u8]| {
        let mut cell = Vec::new();
        seal_cell(kind, payload, &mut rng, &mut cell).unwrap();
        cell
    };
    let frame = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&len[..], bytes].concat()
    };
    let good = skytale_wire::frame::encode(&ToRelay::Ping(Ping { id: id(1) }));
    let announced = |len: u32| [&[0; 4], &len.to_be_bytes()[..], &[1]].concat();
    let trailing = [&good[..], &[0]].concat();
    let cut = &good[..good.len() - 1];
    let throws: Vec<(Vec<u8>, &[Refusal])> = vec![
        (cell(Kind::Frame, &frame(cut)), &[Refusal::Malformed]),
        (cell(Kind::Frame, &frame(&trailing)), &[Refusal::Malformed]),
        (cell(Kind::Frame, &frame(&[])), &[Refusal::Malformed]),
        (cell(Kind::Frame, &[0, 0, 1, 0, 7]), &[Refusal::Malformed]),
        (cell(Kind::Frame, &[0xFF; 64]), &[Refusal::Malformed]),
        (cell(Kind::Cover, &[0xFF; 64]), &[Refusal::Malformed]),
        // An array of 2^32 things, of which none comes.
        (
            cell(Kind::Frame, &frame(&[0x9A, 0xFF, 0xFF, 0xFF, 0xFF])),
            &[Refusal::Malformed],
        ),
        // Arrays in arrays in arrays.
        (
            cell(Kind::Frame, &frame(&[0x81; 4_000])),
            &[Refusal::Malformed],
        ),
        (vec![0; 256], &[Refusal::Malformed]),
        (announced(u32::MAX), &[Refusal::TooLarge]),
    ];
    for (bytes, refusals) in &throws {
        for ready in [false, true] {
            let mut stranger = Stranger::connect(&relay).await;
            if ready {
                stranger.get_ready(&account).await;
            }
            stranger.throw(bytes).await;
            let closed = stranger.closed().await.expect("typed");
            assert!(refusals.contains(&closed), "{closed:?} {ready} {bytes:?}");
        }
    }
    // A frame over the limit, which only a member may even begin.
    let mut stranger = Stranger::connect(&relay).await;
    stranger.get_ready(&account).await;
    let large = cell(Kind::Frame, &frame(&vec![0; FRAME_BYTES_MAX + 1]));
    stranger.throw(&large).await;
    assert_eq!(stranger.closed().await, Some(Refusal::TooLarge));
    // Random bytes, many of which announce a cell that never comes whole; then the sender hangs up.
    for round in 0..40 {
        let mut bytes = vec![0; rng.random_range(1..2_000)];
        rng.fill(&mut bytes[..]);
        let mut stranger = Stranger::connect(&relay).await;
        if round % 2 == 0 {
            stranger.get_ready(&account).await;
        }
        stranger.throw(&bytes).await;
        stranger.hang_up();
        let closed = stranger.closed().await;
        assert!(
            matches!(closed, None | Some(Refusal::Malformed | Refusal::TooLarge)),
            "{closed:?}"
        );
    }

    assert!(servers.runs());
    machine.two_agents();
    machine.say("still here", "send --as planner").ok();
    let read = machine.run("read --json --as coder").ok().json();
    assert_eq!(read["text"], "still here");
    let talk = servers.terminate();
    assert!(!talk.contains("panicked"), "{talk}");
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
    let machine = Machine::new();
    let dir = machine.data().join("server").join("relay");
    let Some(disk) = SmallDisk::mount(&dir) else {
        println!("skipped: this system does not let us mount a small disk");
        return;
    };
    let servers = machine.up(None);
    let (relay, account) = (relay_of(&servers), account_of(&machine));
    let mut alice = Stranger::connect(&relay).await;
    alice.get_ready(&account).await;
    let create = ToRelay::Create(Create {
        channel: ROOM,
        id: id(0),
    });
    alice.say(&create).await;
    let created = alice.hear().await;
    assert!(matches!(created, ToAgent::Created(_)), "{created:?}");
    let mut stored = BTreeMap::new();
    let mut number = 0;
    while stored.len() < 20 {
        number += 1;
        stored.insert(number, publish(&mut alice, number).await.unwrap());
    }

    let ballast = disk.fill();
    let refused = loop {
        number += 1;
        // What the journal has room for already may still be stored.
        match publish(&mut alice, number).await {
            Ok(seq) => stored.insert(number, seq),
            Err(refusal) => break refusal,
        };
    };
    assert_eq!(refused, Refusal::Unavailable);
    let mut reader = Stranger::connect(&relay).await;
    reader.get_ready(&account).await;
    read_all(&mut reader, &stored).await;

    fs::remove_file(ballast).unwrap();
    // The first tries after that may still meet what failed before.
    let mut writer = Stranger::connect(&relay).await;
    writer.get_ready(&account).await;
    let recovered = async {
        loop {
            number += 1;
            match publish(&mut writer, number).await {
                Ok(seq) => return stored.insert(number, seq),
                Err(refusal) => assert_eq!(refusal, Refusal::Unavailable),
            }
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.unwrap();

    // And what lies on the disk is all of it.
    let addresses = servers.addresses();
    servers.kill();
    let servers = machine.up(Some(&addresses));
    let mut reader = Stranger::connect(&relay).await;
    reader.get_ready(&account).await;
    read_all(&mut reader, &stored).await;
    servers.terminate();
}

const ROOM: ChannelId = ChannelId([5; 32]);

/// Publishes and waits for the answer.
async fn publish(writer: &mut Stranger, number: u32) -> Result<Seq, Refusal> {
    let message = ToRelay::Publish(Publish {
        channel: ROOM,
        id: id(number),
        epoch: Epoch(0),
        body: body(number).into(),
        resumes: true,
    });
    writer.say(&message).await;
    loop {
        let answer = writer.hear().await;
        if let ToAgent::Published(published) = &answer
            && published.id == id(number)
        {
            return Ok(published.seq);
        }
        if let ToAgent::Nack(nack) = &answer
            && nack.id == id(number)
        {
            return Err(nack.refusal);
        }
        assert!(!matches!(answer, ToAgent::Closing(_)), "{answer:?}");
    }
}

/// Everything that was acknowledged is there, in its place.
async fn read_all(reader: &mut Stranger, stored: &BTreeMap<u32, Seq>) {
    let subscribe = ToRelay::Subscribe(Subscribe {
        channel: ROOM,
        id: id(u32::MAX),
        after: Seq(0),
    });
    reader.say(&subscribe).await;
    let mut missing: BTreeMap<Seq, u32> = stored.iter().map(|(id, seq)| (*seq, *id)).collect();
    while !missing.is_empty() {
        if let ToAgent::Deliver(deliver) = reader.hear().await
            && let Some(number) = missing.remove(&deliver.seq)
        {
            let body = body(number);
            let there = deliver.record.windows(body.len()).any(|it| it == body);
            assert!(there, "{} holds something else", deliver.seq.0);
        }
    }
}

fn body(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(1_000)
}

fn id(number: u32) -> MessageId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    MessageId(bytes)
}

/// A disk in memory, of a few megabytes.
struct SmallDisk<'a> {
    dir: &'a Path,
}

impl<'a> SmallDisk<'a> {
    /// `None` where this is not permitted.
    fn mount(dir: &'a Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs"])
            .arg(dir)
            .output()
            .is_ok_and(|mounted| mounted.status.success());
        mounted.then_some(Self { dir })
    }

    /// Takes all the room that is left; gives what takes it.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write as _;
        let path = self.dir.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the servers of a failed test may still be dying.
        let _ = Command::new("umount").arg("-l").arg(self.dir).status();
    }
}

fn actor(machine: &Machine, name: &str, tag: &str, window: &str, count: u64) -> Command {
    let count = count.to_string();
    let program = Path::new(env!("CARGO_BIN_EXE_actor"));
    machine.command(program, &[name, CHANNEL, tag, window, &count])
}

fn relay_of(servers: &Servers) -> RelayAddr {
    servers.text("relay").parse().unwrap()
}

/// The account that `up` has made, with the key that it has saved.
fn account_of(machine: &Machine) -> Account {
    let context = Context::read(&machine.config(), "local").unwrap().unwrap();
    let url = context.api_url.unwrap();
    Account::new(&url, context.api_key, None, PATIENCE).unwrap()
}

fn seeded() -> ChaCha8Rng {
    let seed = variable("SKYTALE_SEED").map_or(1, |text| text.parse().unwrap());
    println!("SKYTALE_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|value| value != "0")
}

#[expect(clippy::disallowed_methods, reason = "a test's own switches")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Only for the figures that are printed.
#[expect(clippy::disallowed_methods, reason = "measures, decides nothing")]
fn now() -> Instant {
    Instant::now()
}
