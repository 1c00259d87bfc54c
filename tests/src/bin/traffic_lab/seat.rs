//! One agent's life in a run: it opens, takes its seat in a channel, works, and says what it saw.
//!
//! Lengths and pauses are those of programs around language models as far as we know them: answers
//! of some hundred bytes after some seconds of thinking, tools that answer quickly with results of
//! very different lengths. They are drawn from the run's seed; nothing here is measured on users.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use skytale_sdk::{Agent, Channel, InviteOptions, RelayAddr, Shape, Timeouts};
use skytale_wire::http::Secret;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    Clock,
    deal::{Seat, Workload},
    line::Line,
};

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Entering,
    Working,
    Leaving,
}

/// Everything that an agent needs.
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) seat: Seat,
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    pub(crate) dir: PathBuf,
    pub(crate) api_url: String,
    pub(crate) api_key: Secret,
    pub(crate) relay: RelayAddr,
    pub(crate) invites: Invites,
    /// So many enter at once.
    pub(crate) doors: Arc<Semaphore>,
    pub(crate) entry: Entry,
    pub(crate) phases: watch::Receiver<Phase>,
}

/// Tells the run once whether the agent came to its seat; also when it panicked on the way.
pub(crate) struct Entry(Option<mpsc::UnboundedSender<bool>>);

impl Entry {
    pub(crate) fn new(tell: mpsc::UnboundedSender<bool>) -> Self {
        Self(Some(tell))
    }

    fn tell(&mut self, is_in: bool) {
        if let Some(tell) = self.0.take() {
            // A run that has ended asks no more.
            let _ = tell.send(is_in);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// How an agent comes to its seat.
pub(crate) enum Invites {
    /// It makes the channel and hands out a line to each of the others, who reach the relay there.
    Make(Vec<(String, oneshot::Sender<String>)>),
    Wait(oneshot::Receiver<String>),
}

/// What an agent has to say at the end.
pub(crate) struct Lived {
    /// Each message: who sent it, when, when it was here, its bytes, and for a piece of a file the
    /// number of the file and how many pieces are still to come.
    pub(crate) received: Vec<[u64; 6]>,
    /// Once a second when it is, and bytes of cells: sent real, sent cover, received real, received
    /// cover.
    pub(crate) bands: Vec<[u64; 5]>,
    /// How the agent describes its line.
    pub(crate) line_says: Value,
    pub(crate) troubles: Vec<String>,
}

/// Who invites whom.
pub(crate) fn invites(seats: &[Seat], lines: &[Line]) -> BTreeMap<usize, Invites> {
    let mut invites = BTreeMap::new();
    for (number, seat) in seats.iter().enumerate().filter(|(_, seat)| seat.chair == 0) {
        let mut lent = Vec::new();
        for peer in &seat.peers {
            let (give, take) = oneshot::channel();
            lent.push((lines[*peer].addr.to_string(), give));
            invites.insert(*peer, Invites::Wait(take));
        }
        invites.insert(number, Invites::Make(lent));
    }
    invites
}

pub(crate) async fn live(mut place: Place) -> Lived {
    let invites = std::mem::replace(&mut place.invites, Invites::Make(Vec::new()));
    let (agent, channel) = match invites {
        Invites::Make(for_others) => found(&place, for_others).await,
        Invites::Wait(line) => {
            let line = line.await.expect("who invites us is there");
            let _door = place.doors.acquire().await.unwrap();
            let agent = open(&place).await;
            let channel = agent.join(&line).await.unwrap();
            (agent, channel)
        }
    };
    place.entry.tell(true);

    place.reach(Phase::Working).await;
    let (mut received, mut bands) = (Vec::new(), Vec::new());
    let mut worker = Worker::new(&place, &channel);
    let mut leaving = place.phases.clone();
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::select! {
        () = worker.work(&place.seat, hears) => {}
        () = listen(&channel, place.clock, &mut received, heard) => {}
        () = watch_bands(&agent, place.clock, &mut bands) => {}
        _ = leaving.wait_for(|phase| *phase == Phase::Leaving) => {}
    }
    let line_says = line_says(&agent).await;
    let troubles = std::mem::take(&mut worker.troubles);
    drop((worker, channel));
    agent.close().await.unwrap();
    Lived {
        received,
        bands,
        line_says,
        troubles,
    }
}

/// Makes the channel, and invites.
async fn found(
    place: &Place,
    for_others: Vec<(String, oneshot::Sender<String>)>,
) -> (Agent, Channel) {
    let _door = place.doors.acquire().await.unwrap();
    let agent = open(place).await;
    let name = format!("lab/run/table{}", place.seat.table);
    let channel = agent.channel(&name).await.unwrap();
    for (address, give) in for_others {
        let options = InviteOptions {
            // Otherwise they would come through our proxy.
            addresses: vec![address],
            ..InviteOptions::default()
        };
        let line = channel.invite_with(options).await.unwrap();
        give.send(line).expect("whom we invite is there");
    }
    (agent, channel)
}

async fn open(place: &Place) -> Agent {
    let name = format!("agent{}", place.number);
    let agent = Agent::builder(&name)
        .traffic(place.shape)
        .data_dir(place.dir.join(&name))
        .config_dir(place.dir.join(&name).join("config"))
        .api_url(&place.api_url)
        .api_key(Secret::new(place.api_key.expose().to_owned()))
        .relay(place.relay.clone())
        .timeouts(Timeouts {
            connect: ENTER_MAX,
            token: ENTER_MAX,
            stored: STORED_MAX,
            change: ENTER_MAX,
            ask: STORED_MAX,
        })
        .open();
    agent.await.unwrap()
}

/// Counts what the agent says of its own line, each second of the run: nothing that a watcher has.
async fn watch_bands(agent: &Agent, clock: Clock, bands: &mut Vec<[u64; 5]>) {
    loop {
        let counters = agent.line_counters();
        bands.push([
            clock.micros(),
            counters.sent.real_bytes,
            counters.sent.cover_bytes,
            counters.received.real_bytes,
            counters.received.cover_bytes,
        ]);
        sleep(Duration::from_secs(1)).await;
    }
}

/// What was agreed with the relay, and what the line has counted.
async fn line_says(agent: &Agent) -> Value {
    let counters = agent.line_counters();
    let shapes = match agent.status().await {
        Ok(status) => format!("{:?}", status.relays.first().map(|relay| relay.shapes)),
        Err(error) => error.to_string(),
    };
    json!({
        "shapes": shapes,
        "over": counters.over,
        "missed": counters.missed,
        "missing": counters.missing,
    })
}

impl Place {
    async fn reach(&self, wanted: Phase) {
        let mut phases = self.phases.clone();
        let reached = phases.wait_for(|phase| *phase == wanted).await;
        reached.expect("the run goes on");
    }
}

/// Notes each message, and lets the worker hear of it.
async fn listen(
    channel: &Channel,
    clock: Clock,
    received: &mut Vec<[u64; 6]>,
    heard: mpsc::UnboundedSender<Note>,
) {
    let mut inbox = channel.messages();
    while let Some(message) = inbox.next().await.unwrap() {
        let Some(note) = Note::read(message.payload()) else {
            continue;
        };
        let bytes = message.payload().len() as u64;
        received.push([
            note.from.into(),
            note.sent_us,
            clock.micros(),
            bytes,
            note.file.into(),
            note.left.into(),
        ]);
        // The worker may have nothing left to hear.
        let _ = heard.send(note);
    }
}

/// The head of every message of a run.
#[derive(Debug, Clone, Copy)]
struct Note {
    sent_us: u64,
    from: u32,
    /// 0 when it is no piece of a file.
    file: u32,
    /// Messages of the same burst or file that are still to come.
    left: u32,
}

impl Note {
    const BYTES: usize = 20;

    fn read(payload: &[u8]) -> Option<Self> {
        let (sent_us, rest) = payload.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let (left, _) = rest.split_first_chunk()?;
        Some(Self {
            sent_us: u64::from_le_bytes(*sent_us),
            from: u32::from_le_bytes(*from),
            file: u32::from_le_bytes(*file),
            left: u32::from_le_bytes(*left),
        })
    }

    /// A message of this length, which is at least that of the head.
    fn write(self, len: usize) -> Vec<u8> {
        let mut payload = self.sent_us.to_le_bytes().to_vec();
        for number in [self.from, self.file, self.left] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.resize(len.max(Self::BYTES), b'.');
        payload
    }
}

/// Who does the work of a seat.
struct Worker {
    number: u32,
    channel: Channel,
    clock: Clock,
    rng: ChaCha8Rng,
    files: u32,
    troubles: Vec<String>,
}

impl Worker {
    fn new(place: &Place, channel: &Channel) -> Self {
        let number = u32::try_from(place.number).unwrap();
        Self {
            number,
            channel: channel.clone(),
            clock: place.clock,
            rng: ChaCha8Rng::seed_from_u64(place.seed << 32 | u64::from(number)),
            files: 0,
            troubles: Vec::new(),
        }
    }

    async fn work(&mut self, seat: &Seat, mut hears: mpsc::UnboundedReceiver<Note>) {
        match (seat.workload, seat.chair) {
            (Workload::Idle, _) | (Workload::File, 1..) => std::future::pending().await,
            (Workload::Chat, chair) => self.chat(chair == 0, &mut hears).await,
            (Workload::Tools, 0) => self.call_tools(&mut hears).await,
            (Workload::Tools, 1..) => self.be_a_tool(&mut hears).await,
            (Workload::Group, _) => loop {
                self.pause(12.0, 0.8, 60.0).await;
                let len = self.length(250.0, 0.9, 4_000.0);
                self.say(&[len], 0).await;
            },
            (Workload::File, 0) => loop {
                self.files += 1;
                let bytes = self.rng.random_range(24_000..=96_000_usize);
                let mut pieces = vec![PIECE; bytes / PIECE];
                pieces.push(bytes % PIECE);
                self.say(&pieces, self.files).await;
                self.pause(25.0, 0.4, 60.0).await;
            },
        }
    }

    async fn chat(&mut self, mut mine: bool, hears: &mut mpsc::UnboundedReceiver<Note>) {
        loop {
            if mine {
                self.pause(5.0, 0.8, 40.0).await;
                let len = self.length(300.0, 0.9, 4_000.0);
                self.say(&[len], 0).await;
                if self.rng.random_ratio(1, 4) {
                    self.pause(2.0, 0.5, 10.0).await;
                    let len = self.length(80.0, 0.7, 1_000.0);
                    self.say(&[len], 0).await;
                }
            }
            mine = self.hear_out(hears).await.is_some() || self.number.is_multiple_of(2);
        }
    }

    async fn call_tools(&mut self, hears: &mut mpsc::UnboundedReceiver<Note>) {
        loop {
            self.pause(6.0, 0.7, 30.0).await;
            let len = self.length(350.0, 0.5, 2_000.0);
            self.say(&[len], 0).await;
            self.hear_out(hears).await;
        }
    }

    async fn be_a_tool(&mut self, hears: &mut mpsc::UnboundedReceiver<Note>) {
        loop {
            if self.hear_out(hears).await.is_none() {
                continue;
            }
            self.pause(0.6, 0.7, 5.0).await;
            let results = self.rng.random_range(1..=5);
            let lens: Vec<usize> = (0..results)
                .map(|_| self.length(1_200.0, 1.1, 16_000.0))
                .collect();
            self.say(&lens, 0).await;
        }
    }

    /// The last message of what the other side says, if it says anything.
    async fn hear_out(&self, hears: &mut mpsc::UnboundedReceiver<Note>) -> Option<Note> {
        let hearing = async {
            loop {
                match hears.recv().await {
                    Some(note) if note.left == 0 => return note,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        timeout(HEAR_MAX, hearing).await.ok()
    }

    /// Messages that are given to the agent at once, done when all are stored.
    async fn say(&mut self, lens: &[usize], file: u32) {
        let note = |left| Note {
            sent_us: self.clock.micros(),
            from: self.number,
            file,
            left: u32::try_from(left).unwrap(),
        };
        let all = lens.iter().zip((0..lens.len()).rev());
        let sends = all.map(|(len, left)| self.channel.send(note(left).write(*len)));
        for sent in join_all(sends).await {
            if let Err(error) = sent {
                self.troubles.push(error.to_string());
            }
        }
    }

    async fn pause(&mut self, median_s: f64, spread: f64, max_s: f64) {
        let pause = self.drawn(median_s, spread).min(max_s);
        sleep(Duration::from_secs_f64(pause)).await;
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length between 0 and `max`"
    )]
    fn length(&mut self, median: f64, spread: f64, max: f64) -> usize {
        self.drawn(median, spread).min(max) as usize
    }

    /// Log-normal: e to the power of a normal variate, which is what twelve even ones add up to.
    fn drawn(&mut self, median: f64, spread: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
        median * (spread * normal).exp()
    }
}

/// Coming in takes its time in a mode with slots, and on a machine with many agents.
const ENTER_MAX: Duration = Duration::from_mins(5);
/// A message may have to wait behind a file.
const STORED_MAX: Duration = Duration::from_mins(20);
/// How long the other side may be silent before we speak ourselves.
const HEAR_MAX: Duration = Duration::from_secs(45);
/// What a file is cut into.
const PIECE: usize = 15_000;
