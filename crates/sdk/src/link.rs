//! The line to one relay: connects, connects again, carries frames as padded cells.
//!
//! A link knows nothing of what frames mean, besides Hello (which carries the wish for how the line
//! is shaped), Ready (which answers it; the second lane may be opened) and Closing (whether to come
//! back). It reports to the worker through one bounded channel, and takes
//! frames from it through another that belongs to one connection, so that nothing of an old
//! connection ever leaks into a new one.
//!
//! ```text
//! Connecting ── QUIC up ──► Greeting ── Ready ──► Ready
//!     ▲                        │                    │
//!     └──── pause ◄── lost, or closed and may resume┘──► Refused (closed for good)
//! ```
//!
//! A relay that was killed and is back cannot tell us that it has forgotten us. So a connection on
//! which we are owed an answer is not trusted for long: another one is dialled beside it, and takes
//! its place only when it is up while the old one stays silent. A line that is merely slow or loses
//! a lot is kept. Where the relay's cells come by a schedule, they and QUIC's own answers to ours are
//! the sign of life: asking for more would show on the line that somebody waits.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, PublicKey, SecretKey,
    endpoint::{
        Connection, ConnectionError, FrameStats, PathId, PortmapperConfig, QuicTransportConfig,
        ReadError, RecvStream, SendStream, VarInt, presets,
    },
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use skytale_agent::Event;
use skytale_shape::{Bulk, Incoming, Micros, Mode, Shape, Shaper, bucket::MAX_CELL};
use skytale_wire::{
    frame::{self, ALPN, Ping, ToAgent, ToRelay},
    http::Secret,
    id::{AgentId, MessageId, RelayKey, Time, TransportKey},
    refusal::{Refusal, Remedy},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use crate::{
    account::Account,
    clock,
    config::Timeouts,
    error::Error,
    traffic::{
        DirectionCounters, LineCounters, LineShapes, LineTally, Tallies, Traffic, silence_max,
    },
};

mod paced;

use paced::Paced;

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
    /// QUIC is up. Dropping `frames` ends the connection once everything in it is written.
    Up {
        transport: TransportKey,
        token: Option<Secret>,
        frames: mpsc::Sender<Parcel>,
    },
    Frame(ToAgent),
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
    pub(crate) runtime: Handle,
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
            dialer: Dialer {
                relay,
                secret,
                addresses,
                view: Arc::clone(&view),
                connect_max: setup.timeouts.connect,
                bound: None,
                rng: ChaCha8Rng::from_rng(&mut rng),
            },
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

/// A link's own side.
struct Runner {
    relay: RelayKey,
    transport: TransportKey,
    traffic: Traffic,
    tallies: Tallies,
    notices: broadcast::Sender<Event>,
    events: mpsc::Sender<LineEvent>,
    addresses: watch::Receiver<Vec<String>>,
    view: Arc<Mutex<LinkView>>,
    purse: Purse,
    dialer: Dialer,
    /// How long we wait for an answer before we look whether the relay still knows us.
    patience: Duration,
    rng: ChaCha8Rng,
}

/// Has the token that lets us in, and buys the next one.
struct Purse {
    me: AgentId,
    relay: RelayKey,
    transport: TransportKey,
    account: Option<Arc<Account>>,
    held: Option<HeldToken>,
    rng: ChaCha8Rng,
}

/// Makes QUIC connections to the relay whose key is pinned.
struct Dialer {
    relay: RelayKey,
    /// The transport key: fresh for each link, so two relays cannot tell by it that we are one.
    secret: SecretKey,
    addresses: watch::Receiver<Vec<String>>,
    view: Arc<Mutex<LinkView>>,
    connect_max: Duration,
    bound: Option<Bound>,
    rng: ChaCha8Rng,
}

/// A socket, and which addresses it can reach.
struct Bound {
    endpoint: Endpoint,
    reach: Reach,
}

/// A client shows its interface's addresses to the relay, so it is bound no wider than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    loopback_only: bool,
    four: bool,
    six: bool,
}

struct HeldToken {
    token: Secret,
    /// From here on a new one is used for a new connection.
    renew_at: Time,
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
    Superseded(Connection),
}

impl Runner {
    async fn run(mut self, cancel: CancellationToken) {
        let mut tries = 0;
        let mut refusals = 0;
        let mut dialled = None;
        loop {
            let end = tokio::select! {
                () = cancel.cancelled() => break,
                connected = self.connect(tries, dialled.take()) => match connected {
                    Ok((connection, token)) => {
                        // As large as all that happens on a connection.
                        Box::pin(self.converse(connection, token, &cancel)).await
                    }
                    Err(error) => Err(error),
                },
            };
            let was_ready = lock(&self.view).state == LinkState::Ready;
            // A line that we end ourselves may be ended again for the same reason, so it does not
            // shorten the pause.
            if was_ready && !matches!(end, Ok(End::Done)) {
                (tries, refusals) = (0, 0);
            }
            let trouble = match end {
                Ok(End::Done) => None,
                Ok(End::Lost(why)) => Some(why),
                Ok(End::Superseded(connection)) => {
                    tracing::debug!(relay = %self.relay.short(), "the relay knows the line no more");
                    dialled = Some(connection);
                    continue;
                }
                Ok(End::Closed { refusal, resume }) => {
                    refusals += 1;
                    if !self.may_return(refusal, resume, refusals) {
                        tracing::warn!(relay = %self.relay.short(), code = refusal.code(), "the relay does not want this agent back");
                        self.show(LinkState::Refused(refusal), Some(refusal.to_string()));
                        cancel.cancelled().await;
                        break;
                    }
                    Some(refusal.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            tracing::debug!(relay = %self.relay.short(), tries, trouble, "line ended");
            self.show(LinkState::Connecting, trouble);
            let pause = pause(tries, &mut self.rng);
            tries += 1;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(pause) => {}
                changed = self.addresses.changed() => if changed.is_err() { break },
            }
        }
        self.dialer.hang_up().await;
    }

    /// Whether to knock again after this word. The relay refuses a Hello always with "do not
    /// resume", so what the refusal means decides too.
    fn may_return(&mut self, refusal: Refusal, resume: bool, refusals: u32) -> bool {
        if matches!(
            refusal,
            Refusal::TokenInvalid | Refusal::TokenExpired | Refusal::TokenForAnotherKey
        ) {
            self.purse.held = None;
            return self.purse.account.is_some() && refusals < REFUSALS_MAX;
        }
        // Whoever replaced us would be replaced by us, and so on.
        resume || (refusal.remedy() == Remedy::Retry && refusal != Refusal::Replaced)
    }

    /// A connection, or the one that is there already, and the token to show on it.
    async fn connect(
        &mut self,
        tries: u32,
        dialled: Option<Connection>,
    ) -> Result<(Connection, Option<Secret>), Error> {
        let token = self.purse.token().await?;
        // Not only seen by the dialer: what is new after this ends the pause.
        self.addresses.mark_unchanged();
        let connection = match dialled {
            Some(connection) => connection,
            None => self.dialer.dial(tries).await?,
        };
        Ok((connection, token))
    }

    /// The whole life of a connection.
    async fn converse(
        &mut self,
        connection: Connection,
        token: Option<Secret>,
        cancel: &CancellationToken,
    ) -> Result<End, Error> {
        let Ok((send, recv)) = connection.open_bi().await else {
            return Ok(End::Lost("the connection broke at once".into()));
        };
        let line = LineId::fresh();
        let (frames, from_worker) = mpsc::channel(FRAMES_MAX);
        let up = LineNews::Up {
            transport: self.transport,
            token,
            frames,
        };
        self.show(LinkState::Greeting, None);
        let pulse = Arc::new(Pulse::default());
        let (agree, agreed) = watch::channel(None);
        let ping = MessageId(self.rng.random());
        let reporter = Reporter {
            relay: self.relay,
            line,
            events: self.events.clone(),
            view: Arc::clone(&self.view),
            ping,
            pulse: &pulse,
            traffic: self.traffic,
            agree,
            tallies: &self.tallies,
            notices: &self.notices,
        };
        if reporter.tell(up).await.is_err() {
            return Ok(End::Done);
        }
        let writer = Writer {
            relay: self.relay,
            frames: from_worker,
            ping,
            pulse: Arc::clone(&pulse),
            traffic: self.traffic,
            tallies: self.tallies.clone(),
            notices: self.notices.clone(),
            agreed: agreed.clone(),
        };
        let rng = ChaCha8Rng::from_rng(&mut self.rng);
        let lane_rng = ChaCha8Rng::from_rng(&mut self.rng);
        // A task of its own, so that nothing that is read can hold up a slot. The set ends it.
        let mut writing = JoinSet::new();
        writing.spawn(writer.run(connection.clone(), send, rng));
        let watch = Watch {
            connection: &connection,
            pulse: &pulse,
            view: &self.view,
            agreed: agreed.clone(),
        };
        let end = tokio::select! {
            Some(end) = writing.join_next() => {
                end.unwrap_or_else(|_| End::Lost("the line's writer has ended".into()))
            }
            end = reporter.read(recv, Lane::First) => end,
            end = second_lane(&connection, agreed, &reporter, lane_rng) => end,
            end = self.purse.renew(&reporter) => end,
            fresh = watch.until_forgotten(&mut self.dialer, &mut self.patience) => {
                End::Superseded(fresh)
            }
            () = after(cancel) => End::Done,
        };
        drop(writing);
        connection.close(VarInt::from_u32(0), b"");
        // The worker must hear of the end before it hears of the next beginning.
        let _ = reporter.tell(LineNews::Down).await;
        Ok(end)
    }

    fn show(&self, state: LinkState, trouble: Option<String>) {
        let mut view = lock(&self.view);
        view.state = state;
        view.shapes = None;
        if state != LinkState::Greeting {
            view.trouble = trouble;
        }
    }
}

impl Purse {
    /// The token to show: the one that we have, if it lives long enough, else a new one. `None`
    /// for a guest.
    async fn token(&mut self) -> Result<Option<Secret>, Error> {
        let now = clock::now();
        if let Some(held) = &self.held
            && now < held.renew_at
        {
            return Ok(Some(copy(&held.token)));
        }
        self.held = self.buy().await?;
        Ok(self.held.as_ref().map(|held| copy(&held.token)))
    }

    async fn buy(&mut self) -> Result<Option<HeldToken>, Error> {
        let Some(account) = self.account.clone() else {
            return Ok(None);
        };
        let bought = account
            .token_if_ours(self.me, self.transport, self.relay)
            .await?;
        Ok(bought.map(|answer| HeldToken {
            renew_at: clock::now().plus(renew_after_ms(answer.expires_in_s, &mut self.rng)),
            token: answer.token,
        }))
    }

    /// Buys tokens before the present one ends, for as long as the connection lasts.
    async fn renew(&mut self, reporter: &Reporter<'_>) -> End {
        let mut tries = 0;
        loop {
            let Some(held) = &self.held else {
                return std::future::pending().await;
            };
            sleep(Duration::from_millis(held.renew_at.since(clock::now()))).await;
            match self.buy().await {
                Ok(Some(held)) => {
                    tries = 0;
                    let news = LineNews::Token(copy(&held.token));
                    self.held = Some(held);
                    if reporter.tell(news).await.is_err() {
                        return End::Done;
                    }
                }
                Ok(None) => self.held = None,
                // The relay closes the connection when the old one has ended; until then there
                // is a fifth of its life for trying.
                Err(error) => {
                    tracing::warn!(%error, "the token could not be renewed yet");
                    sleep(pause(tries, &mut self.rng)).await;
                    tries += 1;
                }
            }
        }
    }
}

impl Dialer {
    /// Looks for the relay until it answers.
    async fn find(&mut self) -> Connection {
        let mut tries = 0;
        loop {
            match self.dial(tries).await {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!(relay = %self.relay.short(), tries, %error, "silent"),
            }
            sleep(pause(tries, &mut self.rng)).await;
            tries += 1;
        }
    }

    /// One try.
    async fn dial(&mut self, tries: u32) -> Result<Connection, Error> {
        let written = self.addresses.borrow_and_update().clone();
        let resolved = timeout(self.connect_max, resolve(&written))
            .await
            .unwrap_or_default();
        if resolved.is_empty() {
            return Err(Error::unreachable(
                "the relay's address cannot be found: check the host name and the network",
            ));
        }
        let id = PublicKey::from_bytes(self.relay.as_bytes())
            .map_err(|_| Error::misuse("the relay's key is not a valid key"))?;
        let endpoint = self.bind(&resolved).await?;
        let target = resolved
            .iter()
            .fold(EndpointAddr::new(id), |target, address| {
                target.with_ip_addr(*address)
            });
        lock(&self.view).address = written.first().cloned();
        let max = dial_max(tries, self.connect_max);
        match timeout(max, endpoint.connect(target, ALPN)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Error::unreachable(format!(
                "the relay does not accept the connection ({error}): check its address and key"
            ))),
            Err(_) => Err(Error::unreachable(
                "the relay does not answer: check its address, and that UDP gets through",
            )),
        }
    }

    /// The socket, bound again only when another kind of address has to be reached.
    async fn bind(&mut self, targets: &[SocketAddr]) -> Result<Endpoint, Error> {
        let reach = Reach::of(targets);
        if let Some(bound) = &self.bound
            && bound.reach == reach
        {
            return Ok(bound.endpoint.clone());
        }
        self.hang_up().await;
        let no_socket = |_| Error::unreachable("no UDP socket can be opened on this machine");
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(self.secret.clone())
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport())
            .clear_ip_transports();
        for address in reach.bind_addresses() {
            builder = builder
                .bind_addr(address)
                .map_err(|_| Error::unreachable("no UDP socket can be opened on this machine"))?;
        }
        let endpoint = builder.bind().await.map_err(no_socket)?;
        self.bound = Some(Bound {
            endpoint: endpoint.clone(),
            reach,
        });
        Ok(endpoint)
    }

    /// Tells the relay. One that does not answer is not waited for, but the endpoint still ends
    /// by itself: it holds the socket until it has.
    async fn hang_up(&mut self) {
        if let Some(bound) = self.bound.take() {
            let closing = tokio::spawn(async move { bound.endpoint.close().await });
            // Whether it has ended by then or not, nobody depends on it.
            let _ = timeout(GOODBYE_MAX, closing).await;
        }
    }
}

/// What those who carry one connection's frames tell the one who watches over it, and the other
/// way round.
#[derive(Debug, Default)]
struct Pulse {
    /// We have written something, which QUIC at the relay confirms.
    wrote: AtomicBool,
    /// Frames go to and fro.
    used: AtomicBool,
    /// An answer is wanted, whatever it is.
    ask: Notify,
}

impl Pulse {
    fn used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    fn wrote(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }

    async fn asked(&self) {
        self.ask.notified().await;
    }
}

/// Finds out that a relay has forgotten a connection.
struct Watch<'a> {
    connection: &'a Connection,
    pulse: &'a Pulse,
    view: &'a Mutex<LinkView>,
    agreed: watch::Receiver<Option<LineShapes>>,
}

impl Watch<'_> {
    /// Ends with another connection to the relay, when this one has not been answered for too
    /// long, another is up, and this one is still silent. When it speaks, however late, it is kept,
    /// and is given more time from then on.
    async fn until_forgotten(&self, dialer: &mut Dialer, patience: &mut Duration) -> Connection {
        loop {
            self.until_owed(patience).await;
            let before = self.heard();
            lock(self.view).trouble = Some("the relay has fallen silent".into());
            let fresh = tokio::select! {
                () = self.until_heard_since(&before) => None,
                fresh = dialer.find() => Some(fresh),
            };
            if let Some(fresh) = fresh {
                // The same way has carried an answer to and fro: ours has some such times to come.
                let silence = self.silence();
                if silence.is_none() {
                    self.pulse.ask.notify_one();
                }
                let chance = fresh.rtt(PathId::ZERO).unwrap_or(LAST_CHANCE_MAX);
                let chance = (chance * LAST_CHANCES).clamp(LAST_CHANCE_MIN, LAST_CHANCE_MAX);
                let chance = chance + silence.unwrap_or_default();
                if timeout(chance, self.until_heard_since(&before))
                    .await
                    .is_err()
                {
                    return fresh;
                }
                fresh.close(VarInt::from_u32(0), b"");
            }
            lock(self.view).trouble = None;
            *patience = (*patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Until the relay has owed us a sign of life for as long as our patience lasts. Who uses the
    /// line asks for one soon; who does not is content with QUIC's own.
    async fn until_owed(&self, patience: &mut Duration) {
        let mut heard = self.heard();
        let (mut quiet, mut unused, mut calm) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut owed = None;
        loop {
            let in_use = unused < IN_USE;
            let look = if in_use { LOOK } else { LOOK_UNUSED };
            sleep(look).await;
            unused = if self.pulse.used.swap(false, Ordering::Relaxed) {
                Duration::ZERO
            } else {
                unused.saturating_add(look)
            };
            calm += look;
            if calm >= FORGIVEN {
                calm = Duration::ZERO;
                *patience = (*patience / 2).max(PATIENCE_MIN);
            }
            let wrote = self.pulse.wrote.swap(false, Ordering::Relaxed);
            let now = self.heard();
            if now != heard {
                heard = now;
                quiet = Duration::ZERO;
                owed = None;
                continue;
            }
            quiet += look;
            if let Some(silence) = self.silence() {
                if quiet >= silence + *patience {
                    return;
                }
                continue;
            }
            match &mut owed {
                Some(since) => {
                    *since += look;
                    if *since >= *patience {
                        return;
                    }
                }
                None if wrote || quiet > KEEP_ALIVE => owed = Some(Duration::ZERO),
                None if in_use && quiet >= ASK_AFTER => {
                    self.pulse.ask.notify_one();
                    owed = Some(Duration::ZERO);
                }
                None => {}
            }
        }
    }

    /// How long the relay may be silent on a line on which its cells come by a schedule. QUIC asks by
    /// itself when nothing comes, so that is never much longer than its own pause.
    fn silence(&self) -> Option<Duration> {
        let shapes = *self.agreed.borrow();
        let silence = silence_max(&shapes?.to_agent)?;
        Some(silence.min(2 * KEEP_ALIVE))
    }

    async fn until_heard_since(&self, before: &FrameStats) {
        while self.heard() == *before {
            sleep(LOOK_CLOSELY).await;
        }
    }

    /// What has come on the connection, as far as it could be decrypted: nobody else can make
    /// these numbers grow.
    fn heard(&self) -> FrameStats {
        self.connection.stats().frame_rx
    }
}

/// Passes what one connection says to the worker.
struct Reporter<'a> {
    relay: RelayKey,
    line: LineId,
    events: mpsc::Sender<LineEvent>,
    view: Arc<Mutex<LinkView>>,
    /// Names the Pings of the link itself; their Pongs are nobody else's business.
    ping: MessageId,
    pulse: &'a Pulse,
    traffic: Traffic,
    /// Told of the first Ready.
    agree: watch::Sender<Option<LineShapes>>,
    tallies: &'a Tallies,
    notices: &'a broadcast::Sender<Event>,
}

/// Which stream of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    First,
    Second,
}

/// The worker has ended.
struct Gone;

impl Reporter<'_> {
    /// Waits while the worker is busy: QUIC's flow control then holds the relay back.
    async fn tell(&self, what: LineNews) -> Result<(), Gone> {
        let event = LineEvent {
            relay: self.relay,
            line: self.line,
            what,
        };
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// Reads one stream until it ends.
    async fn read(&self, mut stream: RecvStream, lane: Lane) -> End {
        let mut incoming = Incoming::new(MAX_CELL);
        let mut heard = Heard::default();
        loop {
            let piece = match stream.read_chunk(READ_BYTES).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return End::Lost("the relay ended the line".into()),
                Err(error) => return why_lost(&error),
            };
            if incoming.receive(&piece).is_err() {
                return misbehaved();
            }
            heard.bytes += piece.len() as u64;
            loop {
                let frame = match incoming.next_frame() {
                    Ok(Some(bytes)) => frame::decode::<ToAgent>(bytes, frame::FRAME_BYTES_MAX),
                    Ok(None) => break,
                    Err(_) => return misbehaved(),
                };
                let Ok(frame) = frame else {
                    return misbehaved();
                };
                let mut last = None;
                match &frame {
                    ToAgent::Pong(pong) if pong.id == self.ping => continue,
                    ToAgent::Closing(closing) => last = Some((closing.refusal, closing.resume)),
                    ToAgent::Ready(ready) => {
                        if lane == Lane::First && self.agree.borrow().is_none() {
                            let shapes = match self.traffic.agree(ready.traffic) {
                                Ok(shapes) => shapes,
                                Err(why) => return End::Lost(why.into()),
                            };
                            incoming.expect_shape(&shapes.to_agent);
                            heard = Heard::new(&shapes.to_agent);
                            self.tallies.agreed(&shapes);
                            lock(&self.view).shapes = Some(shapes);
                            self.agree.send_replace(Some(shapes));
                        }
                        let mut view = lock(&self.view);
                        view.state = LinkState::Ready;
                        view.trouble = None;
                    }
                    ToAgent::Created(_)
                    | ToAgent::Published(_)
                    | ToAgent::Ack(_)
                    | ToAgent::Nack(_)
                    | ToAgent::Subscribed(_)
                    | ToAgent::Deliver(_)
                    | ToAgent::Pruned(_)
                    | ToAgent::KeyPackagesKept(_)
                    | ToAgent::KeyPackage(_)
                    | ToAgent::Welcome(_)
                    | ToAgent::GroupInfo(_)
                    | ToAgent::GroupInfoWanted(_)
                    | ToAgent::Renewed(_)
                    | ToAgent::Pong(_) => {}
                }
                self.pulse.used.store(true, Ordering::Relaxed);
                if self.tell(LineNews::Frame(frame)).await.is_err() {
                    return End::Done;
                }
                if let Some((refusal, resume)) = last {
                    return End::Closed { refusal, resume };
                }
            }
            let missing = heard.count(&incoming, self.tallies);
            if missing > 0 {
                tracing::warn!(relay = %self.relay.short(), missing, "somebody takes cover out of the line");
                // Nobody may listen.
                let _ = self.notices.send(Event::CoverMissing {
                    relay: self.relay,
                    missing,
                });
            }
        }
    }
}

/// What of one stream has been counted.
#[derive(Debug, Default)]
struct Heard {
    /// Of all cells, where they have one.
    cell: Option<u64>,
    bytes: u64,
    counted: DirectionCounters,
    missing: u64,
}

impl Heard {
    fn new(shape: &Shape) -> Self {
        let cell = shape.mode().is_slotted().then(|| shape.cell() as u64);
        Self {
            cell,
            ..Self::default()
        }
    }

    /// Gives how many cells of cover are found missing.
    fn count(&mut self, incoming: &Incoming, tallies: &Tallies) -> u64 {
        let cover = incoming.cover();
        let cells = self.cell.map_or(0, |cell| self.bytes / cell);
        let cover_bytes = cover.received() * self.cell.unwrap_or(0);
        let now = DirectionCounters {
            real: cells.saturating_sub(cover.received()),
            cover: cover.received(),
            real_bytes: self.bytes.saturating_sub(cover_bytes),
            cover_bytes,
        };
        // A cell of which a part has come counts as real until the rest tells: it is taken back
        // from what is counted next.
        let before = self.counted;
        let more = DirectionCounters {
            real: now.real.saturating_sub(before.real),
            cover: now.cover - before.cover,
            real_bytes: now.real_bytes.saturating_sub(before.real_bytes),
            cover_bytes: now.cover_bytes - before.cover_bytes,
        };
        let missing = cover.missing() - self.missing;
        tallies.received(&more, missing);
        self.counted = DirectionCounters {
            real: now.real.max(before.real),
            real_bytes: now.real_bytes.max(before.real_bytes),
            ..now
        };
        self.missing = cover.missing();
        missing
    }
}

/// Opens the lane for catching up once the relay has let us in, and reads it, unless the line has
/// slots. Its end is not the connection's: then everything comes on the first lane.
async fn second_lane(
    connection: &Connection,
    mut agreed: watch::Receiver<Option<LineShapes>>,
    reporter: &Reporter<'_>,
    rng: ChaCha8Rng,
) -> End {
    if agreed_shapes(&mut agreed).await.is_slotted() {
        return std::future::pending().await;
    }
    let Ok((mut send, recv)) = connection.open_bi().await else {
        return std::future::pending().await;
    };
    let mut shaper = padded(rng);
    let mut buffer = Vec::new();
    let hello = frame::encode(&ToRelay::Ping(Ping { id: reporter.ping }));
    if shaper.push(&hello, Bulk::Wait).is_ok() {
        reporter
            .tallies
            .sent(&shaper.advance(Micros::new(0), &mut buffer));
    }
    if send.write_all(&buffer).await.is_err() {
        return std::future::pending().await;
    }
    match reporter.read(recv, Lane::Second).await {
        End::Lost(_) => std::future::pending().await,
        end @ (End::Done | End::Closed { .. } | End::Superseded(_)) => end,
    }
}

/// Writes what the worker hands over, and asks for an answer when one is wanted.
struct Writer {
    relay: RelayKey,
    frames: mpsc::Receiver<Parcel>,
    ping: MessageId,
    pulse: Arc<Pulse>,
    traffic: Traffic,
    tallies: Tallies,
    notices: broadcast::Sender<Event>,
    agreed: watch::Receiver<Option<LineShapes>>,
}

impl Writer {
    /// Greets, waits for what holds for the line, and goes on in that shape.
    async fn run(
        mut self,
        connection: Connection,
        mut stream: SendStream,
        mut rng: ChaCha8Rng,
    ) -> End {
        let mut shaper = padded(ChaCha8Rng::from_rng(&mut rng));
        let greeted = match self.frames.recv().await {
            Some((mut frame, _)) => {
                if let ToRelay::Hello(hello) = &mut frame {
                    hello.traffic = Some(self.traffic.wish());
                }
                self.write_padded(&mut stream, &mut shaper, vec![(frame, Bulk::Wait)])
                    .await
            }
            None => return finish(&mut stream).await,
        };
        if let Err(end) = greeted {
            return end;
        }
        let mut early = Vec::new();
        let shapes = loop {
            tokio::select! {
                shapes = agreed_shapes(&mut self.agreed) => break shapes,
                // Nothing is said before Ready; but the worker may end the line.
                parcel = self.frames.recv(), if early.len() < FRAMES_AT_ONCE => match parcel {
                    Some(parcel) => early.push(parcel),
                    None => return finish(&mut stream).await,
                },
            }
        };
        if shapes.to_relay.mode() == Mode::Padded {
            self.run_padded(stream, shaper, early).await
        } else {
            Paced::new(self, connection, stream, &shapes, rng)
                .run(early)
                .await
        }
    }

    /// Everything that waits goes into shared cells and one write. Ends well when the worker has
    /// dropped its side and the relay has everything.
    async fn run_padded(
        mut self,
        mut stream: SendStream,
        mut shaper: Shaper,
        early: Vec<Parcel>,
    ) -> End {
        let mut batch = early;
        loop {
            if batch.is_empty() {
                tokio::select! {
                    count = self.frames.recv_many(&mut batch, FRAMES_AT_ONCE) => {
                        if count == 0 {
                            return finish(&mut stream).await;
                        }
                        self.pulse.used();
                    }
                    () = self.pulse.asked() => {
                        batch.push((ToRelay::Ping(Ping { id: self.ping }), Bulk::Wait));
                    }
                }
            }
            let batch = std::mem::take(&mut batch);
            if let Err(end) = self.write_padded(&mut stream, &mut shaper, batch).await {
                return end;
            }
        }
    }

    async fn write_padded(
        &self,
        stream: &mut SendStream,
        shaper: &mut Shaper,
        batch: Vec<Parcel>,
    ) -> Result<(), End> {
        let mut buffer = Vec::new();
        // A padded line has no use for the time.
        let drain = |shaper: &mut Shaper, buffer: &mut Vec<u8>| {
            let passed = shaper.advance(Micros::new(0), buffer);
            self.tallies.sent(&passed);
        };
        let broke = |error| End::Lost(format!("the line broke: {error}"));
        for (frame, _) in batch {
            // May hold a token.
            let bytes = Zeroizing::new(frame::encode(&frame));
            if shaper.push(&bytes, Bulk::Wait).is_err() {
                drain(shaper, &mut buffer);
                if shaper.push(&bytes, Bulk::Wait).is_err() {
                    tracing::error!(len = bytes.len(), "a frame that fits no cell was made");
                    return Err(End::Lost("a frame was too large for the line".into()));
                }
            }
            if shaper.waiting() >= WRITE_BYTES {
                drain(shaper, &mut buffer);
            }
            if buffer.len() >= WRITE_BYTES {
                stream.write_all(&buffer).await.map_err(broke)?;
                buffer.clear();
            }
        }
        drain(shaper, &mut buffer);
        stream.write_all(&buffer).await.map_err(broke)?;
        self.pulse.wrote();
        Ok(())
    }
}

/// Until Ready has said what holds for the line.
async fn agreed_shapes(agreed: &mut watch::Receiver<Option<LineShapes>>) -> LineShapes {
    let shapes = agreed.wait_for(Option::is_some).await;
    let shapes = shapes.ok().and_then(|shapes| *shapes);
    match shapes {
        Some(shapes) => shapes,
        // The connection is at its end, and with it whoever waits here.
        None => std::future::pending().await,
    }
}

/// Tells the relay that nothing more comes, and waits a moment for it to have everything.
async fn finish(stream: &mut SendStream) -> End {
    if stream.finish().is_ok() {
        let _ = timeout(FLUSH_MAX, stream.stopped()).await;
    }
    End::Done
}

/// How every line begins, and some go on.
fn padded(mut rng: ChaCha8Rng) -> Shaper {
    let schedule = ChaCha8Rng::from_rng(&mut rng);
    Shaper::new(Shape::new(Mode::Padded), schedule, rng, Micros::new(0))
}

/// Gives the writer time to finish after the link was retired.
async fn after(cancel: &CancellationToken) {
    cancel.cancelled().await;
    sleep(FLUSH_MAX).await;
}

impl Reach {
    fn of(targets: &[SocketAddr]) -> Self {
        Self {
            loopback_only: targets.iter().all(|target| target.ip().is_loopback()),
            four: targets.iter().any(SocketAddr::is_ipv4),
            six: targets.iter().any(SocketAddr::is_ipv6),
        }
    }

    fn bind_addresses(self) -> Vec<SocketAddr> {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let (four, six) = if self.loopback_only {
            (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
        } else {
            (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
        };
        let four = self.four.then(|| SocketAddr::from((four, 0)));
        let six = self.six.then(|| SocketAddr::from((six, 0)));
        four.into_iter().chain(six).collect()
    }
}

/// QUIC as the traffic design wants it: one datagram size, no round-trip bit for watchers, and
/// buffers that bound what a hostile relay can make us hold.
fn transport() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .initial_mtu(1200)
        .mtu_discovery_config(None)
        .allow_spin(false)
        // Long, because a line that is merely bad must live; `Watch` is for those that are dead.
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS_MAX).into()))
        .keep_alive_interval(KEEP_ALIVE)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        // The relay opens no streams and sends no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .build()
}

/// Everything that these host names stand for. Those that cannot be resolved are left out.
async fn resolve(addresses: &[String]) -> Vec<SocketAddr> {
    let mut resolved = Vec::new();
    for address in addresses {
        if let Ok(found) = tokio::net::lookup_host(address.as_str()).await {
            for socket in found {
                if !resolved.contains(&socket) {
                    resolved.push(socket);
                }
            }
        }
    }
    resolved.truncate(ADDRESSES_MAX);
    resolved
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

/// How long a try may take. QUIC asks at once, after one second, after three: what is begun while
/// the relay is away must not go on for long, or its return would be noticed late.
fn dial_max(tries: u32, connect_max: Duration) -> Duration {
    if tries < QUICK_TRIES {
        connect_max.min(DIAL_QUICK)
    } else {
        connect_max
    }
}

/// Between 75 and 85 of a hundred parts of a token's life, so that agents that began together do
/// not renew together.
fn renew_after_ms(life_s: u64, rng: &mut ChaCha8Rng) -> u64 {
    life_s
        .saturating_mul(10)
        .saturating_mul(rng.random_range(75..=85))
        .max(RENEW_MS_MIN)
}

fn why_lost(error: &ReadError) -> End {
    if let ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)) = error
        && let Ok(number) = u16::try_from(close.error_code.into_inner())
        && number != 0
    {
        // A relay that could not say its last word on the stream says it with the close code.
        let refusal = Refusal::from(number);
        return End::Closed {
            refusal,
            resume: refusal.remedy() == Remedy::Retry,
        };
    }
    End::Lost(format!("the line broke: {error}"))
}

fn misbehaved() -> End {
    End::Lost("the relay sent something that cannot be read".into())
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
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
/// Frames that are gathered for one write.
const FRAMES_AT_ONCE: usize = 64;
/// About as much as is written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// How long a relay may be silent before the connection is taken for lost, though no other one
/// could be made. The relay's own limit is the same.
const IDLE_MS_MAX: u32 = 15_000;
/// How often QUIC asks a silent one whether it is there.
const KEEP_ALIVE: Duration = Duration::from_millis(2_500);
/// How long a line that is in use may be quiet before we ask.
const ASK_AFTER: Duration = Duration::from_millis(600);
/// A line has been in use when frames have gone to or fro within this time. Others are asked no
/// more often than QUIC does anyway: each question costs the relay as much as a message.
const IN_USE: Duration = Duration::from_secs(30);
/// How long an answer may take before another connection is tried beside this one; each false
/// alarm doubles it, and a while without any halves it.
const PATIENCE_MIN: Duration = Duration::from_millis(700);
const PATIENCE_MAX: Duration = Duration::from_secs(15);
const FORGIVEN: Duration = Duration::from_mins(2);
/// How often we look whether anything has come: in general, for a line that is not in use, and when
/// it counts.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_UNUSED: Duration = Duration::from_millis(500);
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// What a silent connection has left to answer in when another one is up, in round trips of that.
const LAST_CHANCES: u32 = 4;
const LAST_CHANCE_MIN: Duration = Duration::from_millis(100);
const LAST_CHANCE_MAX: Duration = Duration::from_secs(3);
/// About as much as is read at once.
const READ_BYTES: usize = 64 * 1024;
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Addresses that are tried at once.
const ADDRESSES_MAX: usize = 16;
/// A server whose tokens live for no time at all is not asked faster than this.
const RENEW_MS_MIN: u64 = 1_000;
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_QUICK: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 10_000;
/// So many tries, of at most so long, come with short pauses.
const QUICK_TRIES: u32 = 12;
const DIAL_QUICK: Duration = Duration::from_secs(2);
/// Tokens in a row that a relay may refuse before we stop buying new ones.
const REFUSALS_MAX: u32 = 3;
/// How long a relay may take to confirm the last bytes of a line that we end.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// How long an endpoint may take to see its connections go.
const GOODBYE_MAX: Duration = Duration::from_millis(300);
/// How long the end of a link may take in all.
const END_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_relay_on_this_machine_is_reached_from_loopback_only() {
        let local = Reach::of(&addresses(&["127.0.0.1:4433"]));
        let both = Reach::of(&addresses(&["127.0.0.1:4433", "[2001:db8::1]:4433"]));

        assert_eq!(local.bind_addresses(), addresses(&["127.0.0.1:0"]));
        assert_eq!(both.bind_addresses(), addresses(&["0.0.0.0:0", "[::]:0"]));
    }

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

    #[test]
    fn a_token_is_renewed_well_before_it_ends() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..100 {
            let ms = renew_after_ms(3600, &mut rng);
            assert!((2_700_000..=3_060_000).contains(&ms), "{ms}");
        }
        assert_eq!(renew_after_ms(0, &mut rng), RENEW_MS_MIN);
    }

    #[tokio::test]
    async fn names_that_cannot_be_resolved_are_left_out() {
        let found = resolve(&["127.0.0.1:1".into(), "not an address".into()]).await;

        assert_eq!(found, addresses(&["127.0.0.1:1"]));
    }
}
