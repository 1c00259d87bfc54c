//! The line to one relay: connects, connects again, carries frames as padded cells.
//!
//! A link knows nothing of what frames mean, besides Hello (which carries the wish for how the line
//! is shaped), Ready (which answers it; the second lane may be opened) and Closing (whether to come
//! back). It reports to the worker through one bounded channel, and takes frames from it through
//! another that belongs to one connection, so that nothing of an old connection ever leaks into a new
//! one. What carries it, QUIC or gRPC, is `connected.rs`'s business, and which one the dialer's.
//!
//! ```text
//! Connecting ──── up ─────► Greeting ── Ready ──► Ready
//!     ▲                        │                    │
//!     └──── pause ◄── lost, or closed and may resume┘──► Refused (closed for good)
//! ```
//!
//! A relay that was killed and is back cannot tell us that it has forgotten us. So a connection on
//! which we are owed an answer is not trusted for long: another one is dialled beside it, and takes
//! its place only when it is up while the old one stays silent. A line that is merely slow or loses
//! a lot is kept. A line that gRPC carries is left in the same way when QUIC is up again: the new one
//! first, then the old one's end. Where the relay's cells come by a schedule, they and QUIC's own
//! answers to ours are the sign of life: asking for more would show on the line that somebody waits.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::SecretKey;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_shape::Bulk;
use skytale_wire::{
    frame::{ToAgent, ToRelay},
    http::Secret,
    id::{AgentId, RelayKey, TransportKey},
    refusal::Refusal,
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use zeroize::Zeroizing;

use crate::{
    account::Account,
    config::Timeouts,
    error::Error,
    threads::Threads,
    traffic::{LineCounters, LineShapes, LineTally, Tallies, Traffic},
};

pub(crate) mod address;
mod beat;
mod connected;
mod dialer;
mod paced;
mod purse;
mod reporter;
mod runner;
mod vigil;
mod writer;

pub use address::GRPC_PORT;
pub use beat::{Beats, Held};
pub use connected::Carrier;
pub use dialer::grpc_reaches;

use connected::Connected;
use dialer::Dialer;
use purse::Purse;
use runner::Runner;
use vigil::PATIENCE_MIN;

/// A frame, and whether it may leave beside the schedule.
pub(crate) type Parcel = (ToRelay, Bulk);

/// Names one connection among all that this process has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineId(u64);

impl LineId {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a link tells the worker.
#[derive(Debug)]
pub(crate) struct LineEvent {
    pub(crate) relay: RelayKey,
    pub(crate) line: LineId,
    pub(crate) what: LineNews,
}

#[derive(Debug)]
pub(crate) enum LineNews {
    /// A connection is up. Dropping `frames` ends the connection once everything in it is written.
    Up {
        transport: TransportKey,
        token: Option<Secret>,
        frames: mpsc::Sender<Parcel>,
    },
    /// What came together, in its order: one or more. The mind handles it in one step, so that a
    /// message's echo costs no flush of its own beside the answer to it.
    Frames(Vec<ToAgent>),
    /// A token to go on with.
    Token(Secret),
    Down,
}

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Looking for the relay, or pausing before the next try.
    Connecting,
    /// The connection is up, the relay has not let us in yet.
    Greeting,
    /// In use.
    Ready,
    /// The relay does not want us back; the refusal says what to do.
    Refused(Refusal),
}

/// What `doctor` shows of a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkView {
    pub(crate) state: LinkState,
    /// Where we are connected or tried last.
    pub(crate) address: Option<String>,
    /// Why the last try or connection ended, or that the present one is silent.
    pub(crate) trouble: Option<String>,
    /// What the API server says instead of a token, when it does not take the key.
    pub(crate) unauthorized: Option<String>,
    /// What carries the present connection.
    pub(crate) carrier: Option<Carrier>,
    /// What was agreed for the present connection.
    pub(crate) shapes: Option<LineShapes>,
    pub(crate) counters: LineCounters,
}

/// What every link of an agent needs.
#[derive(Debug, Clone)]
pub(crate) struct LinkSetup {
    pub(crate) me: AgentId,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) traffic: Traffic,
    pub(crate) events: mpsc::Sender<LineEvent>,
    /// What the application is told of lines.
    pub(crate) notices: broadcast::Sender<Event>,
    pub(crate) tally: Arc<LineTally>,
    pub(crate) runtime: Runtime,
}

/// Where the links of an agent run: on a thread that nothing else holds up, because a slot that comes
/// late shows that its program was busy.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    handle: Handle,
    links: TaskTracker,
    beats: Beats,
}

impl Runtime {
    /// Starts the thread. When the agent's threads are to end, links that were let go have a moment to
    /// say goodbye.
    pub(crate) fn start(threads: &Threads) -> Result<Self, Error> {
        let beats = Beats::new(seeded());
        let runtime = beats
            .runtime()
            .map_err(|_| Error::unreachable("this machine has no room for another thread"))?;
        let started = Self {
            handle: runtime.handle().clone(),
            links: TaskTracker::new(),
            beats,
        };
        let (stop, links) = (threads.stop_token(), started.links.clone());
        threads.spawn("skytale-lines", move || {
            runtime.block_on(async {
                stop.cancelled().await;
                links.close();
                let _ = timeout(LAST_GOODBYE_MAX, links.wait()).await;
            });
        })?;
        Ok(started)
    }

    fn spawn(&self, link: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.links.spawn_on(link, &self.handle)
    }
}

/// The worker's end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    addresses: watch::Sender<Vec<String>>,
    view: Arc<Mutex<LinkView>>,
    tally: Arc<LineTally>,
    cancel: CancellationToken,
    /// A link that is let go without a word ends too.
    _on_drop: DropGuard,
    task: JoinHandle<()>,
}

impl Link {
    pub(crate) fn start(setup: &LinkSetup, relay: RelayKey, addresses: Vec<String>) -> Self {
        let (wanted, addresses) = watch::channel(addresses);
        let view = Arc::new(Mutex::new(LinkView {
            state: LinkState::Connecting,
            address: None,
            trouble: None,
            unauthorized: None,
            carrier: None,
            shapes: None,
            counters: LineCounters::default(),
        }));
        let tallies = Tallies {
            line: Arc::default(),
            agent: Arc::clone(&setup.tally),
        };
        let cancel = CancellationToken::new();
        let secret = SecretKey::generate();
        let transport = TransportKey(*secret.public().as_bytes());
        let mut rng = seeded();
        let tally = Arc::clone(&tallies.line);
        let runner = Runner {
            relay,
            transport,
            traffic: setup.traffic,
            tallies,
            notices: setup.notices.clone(),
            beats: setup.runtime.beats.clone(),
            events: setup.events.clone(),
            addresses: addresses.clone(),
            view: Arc::clone(&view),
            purse: Purse {
                me: setup.me,
                relay,
                transport,
                account: setup.account.clone(),
                held: None,
                rng: ChaCha8Rng::from_rng(&mut rng),
            },
            dialer: Dialer::new(
                relay,
                secret,
                setup.traffic.shape().mode().is_slotted(),
                addresses,
                Arc::clone(&view),
                setup.timeouts.connect,
                ChaCha8Rng::from_rng(&mut rng),
            ),
            patience: PATIENCE_MIN,
            rng,
        };
        let task = setup.runtime.spawn(runner.run(cancel.clone()));
        Self {
            addresses: wanted,
            view,
            tally,
            _on_drop: cancel.clone().drop_guard(),
            cancel,
            task,
        }
    }

    /// Where to look from the next try on.
    pub(crate) fn look_at(&self, addresses: Vec<String>) {
        self.addresses.send_if_modified(|current| {
            let changed = *current != addresses;
            *current = addresses;
            changed
        });
    }

    pub(crate) fn view(&self) -> LinkView {
        LinkView {
            counters: self.tally.look(),
            ..lock(&self.view).clone()
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        lock(&self.view).state == LinkState::Ready
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// No further connection is made; the present one ends when its frames are written.
    pub(crate) fn retire(&self) {
        self.cancel.cancel();
    }

    /// Waits for the end after [`Self::retire`], but not for ever.
    pub(crate) async fn ended(self) {
        self.cancel.cancel();
        let mut task = self.task;
        if timeout(END_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// How a connection or a try to get one has ended.
#[derive(Debug)]
enum End {
    /// We ended it.
    Done,
    /// It broke, or never came to be.
    Lost(String),
    /// The relay said why.
    Closed { refusal: Refusal, resume: bool },
    /// It stayed silent, and this one is up.
    Superseded(Box<Connected>),
}

/// Exponential, with full jitter: after a relay's restart its agents do not come back in step. For
/// about the first half minute the pauses stay short, so that a relay that is back is found soon.
fn pause(tries: u32, rng: &mut ChaCha8Rng) -> Duration {
    let max = if tries < QUICK_TRIES {
        PAUSE_MS_QUICK
    } else {
        PAUSE_MS_MAX
    };
    let ceiling = PAUSE_MS_MIN.saturating_mul(1 << tries.min(16)).min(max);
    Duration::from_millis(rng.random_range(0..=ceiling))
}

fn seeded() -> ChaCha8Rng {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).expect("the operating system gives random bytes");
    ChaCha8Rng::from_seed(*seed)
}

/// Nothing panics while it holds this lock, so it is never poisoned for a reason.
fn lock(view: &Mutex<LinkView>) -> std::sync::MutexGuard<'_, LinkView> {
    view.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Frames between worker and writer. When they do not fit, the worker stops taking commands.
pub(crate) const FRAMES_MAX: usize = 1024;
/// How long a relay may be silent before the connection is taken for lost, though no other one
/// could be made. The relay's own limit is the same.
const IDLE_MS_MAX: u32 = 15_000;
/// How often QUIC asks a silent one whether it is there.
const KEEP_ALIVE: Duration = Duration::from_millis(2_500);
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_QUICK: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 10_000;
/// So many tries, of at most so long, come with short pauses.
const QUICK_TRIES: u32 = 12;
/// How long a relay may take to confirm the last bytes of a line that we end.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// The same when nobody waits any more, and the thread that it runs on ends.
const LAST_GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How long the end of a link may take in all.
const END_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_never_in_step() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tried = [
            (0, 100),
            (1, 200),
            (7, 1_000),
            (40, 10_000),
            (u32::MAX, 10_000),
        ];
        for (tries, ceiling_ms) in tried {
            let ceiling = Duration::from_millis(ceiling_ms);
            let drawn: Vec<Duration> = (0..200).map(|_| pause(tries, &mut rng)).collect();
            assert!(drawn.iter().all(|pause| *pause <= ceiling), "{tries}");
            assert!(drawn.iter().any(|pause| *pause > ceiling / 2), "{tries}");
            assert!(drawn.iter().any(|pause| *pause < ceiling / 2), "{tries}");
        }
    }
}
