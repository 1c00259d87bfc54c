//! What every handle of an agent shares: the way to its thread, and what is known on this side of it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use skytale_agent::{
    Answer, Command, Event,
    view::{self, ChannelView},
};
use skytale_slim::Instance;
use skytale_wire::{
    id::{AgentId, ChannelId, MessageId, RelayKey},
    name::ChannelName,
};
use tokio::{
    sync::{OnceCell, broadcast, mpsc, oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::status::{RelayStatus, Status};
use crate::{
    account::Account,
    channel::Channel,
    config::{RelayAddr, Timeouts},
    error::Error,
    hand::held_by,
    link::LinkState,
    shelf::{Holder, Shelf},
    standing::Standing,
    threads::Threads,
    traffic::{LineTally, Traffic},
    worker::{Ask, WorkerView},
};

/// What every handle of an agent shares.
pub(crate) struct Inner {
    pub(super) pid: u32,
    pub(super) id: AgentId,
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(crate) timeouts: Timeouts,
    /// Where invites say that the relay is, when nothing else is wished.
    pub(crate) advertised: Vec<String>,
    pub(super) traffic: Traffic,
    pub(super) tally: Arc<LineTally>,
    /// Bytes of messages that somebody here waits for.
    pub(super) sending: AtomicU64,
    pub(super) notices: broadcast::Sender<Event>,
    pub(super) account: Option<Arc<Account>>,
    pub(super) home: OnceCell<RelayAddr>,
    pub(super) home_search: Mutex<Option<AbortHandle>>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) news: watch::Receiver<u64>,
    pub(super) shelf: Mutex<Option<Shelf>>,
    /// Of loops that may outlive the agent.
    pub(super) holders: Mutex<Vec<Weak<Holder>>>,
    pub(super) first_event: i64,
    pub(super) closed: AtomicBool,
    pub(super) threads: Threads,
}

impl Inner {
    /// A fork copies keys and ratchets: two processes that both go on would use one of them twice.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if std::process::id() == self.pid {
            Ok(())
        } else {
            Err(Error::misuse(
                "this agent was opened before a fork: open it again in the new process",
            ))
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    pub(crate) fn notices(&self) -> broadcast::Receiver<Event> {
        self.notices.subscribe()
    }

    pub(crate) fn asks(&self) -> &mpsc::Sender<Ask> {
        &self.asks
    }

    /// The instance of SLIM's names by which this agent says what belongs to no session.
    pub(crate) fn slim_instance(&self) -> Instance {
        let mut id = [0; 16];
        id.copy_from_slice(&self.id.0[..16]);
        Instance::Only(u128::from_be_bytes(id))
    }

    /// How long an answer of the relay about SLIM may take.
    pub(crate) fn slim_limit(&self) -> Duration {
        self.timeouts.change + self.slots_for_changes()
    }

    /// Counts a message of so many bytes among those that are waited for, until the guard is
    /// dropped.
    pub(crate) fn sending(&self, bytes: usize) -> Sending<'_> {
        let bytes = bytes as u64 + MESSAGE_OVERHEAD;
        self.sending.fetch_add(bytes, Ordering::Relaxed);
        Sending { inner: self, bytes }
    }

    /// The slots that all which is being sent here needs.
    pub(crate) fn slots_for_sending(&self) -> Duration {
        let bytes = self.sending.load(Ordering::Relaxed);
        self.tally.time_for(bytes, &self.traffic)
    }

    /// The slots that a change of a group needs, with what a fresh connection says first.
    pub(crate) fn slots_for_changes(&self) -> Duration {
        self.tally.time_for(CHANGE_BYTES, &self.traffic)
    }

    pub(crate) fn first_event(&self) -> i64 {
        self.first_event
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn shelf(&self) -> Result<Shelf, Error> {
        lock(&self.shelf).clone().ok_or_else(Error::closed)
    }

    /// Hands a command to the worker and waits for its answer. It goes on when the wait is over.
    pub(crate) async fn command(
        &self,
        command: Command,
        what: &'static str,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.check_process()?;
        let id = fresh_id();
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let ask = Ask::Do {
                id,
                command,
                answer,
            };
            // Without a wait where there is room, so that calls that are begun in an order are
            // handed over in it.
            match self.asks.try_send(ask) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(ask)) => {
                    self.asks.send(ask).await.map_err(|_| Error::closed())?;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Error::closed()),
            }
            answered.await.map_err(|_| Error::closed())?
        };
        let known = async {
            tokio::select! {
                biased;
                answer = asked => answer,
                locked_out = self.locked_out() => Err(locked_out),
            }
        };
        match timeout(limit, known).await {
            Ok(answer) => answer,
            Err(_) => Err(self.why_late(id, what).await),
        }
    }

    /// A command that is answered by [`Answer::Done`].
    pub(crate) async fn change(&self, command: Command, what: &'static str) -> Result<(), Error> {
        let limit = self.timeouts.change + self.slots_for_changes();
        match self.command(command, what, limit).await? {
            Answer::Done => Ok(()),
            Answer::Channel(_) | Answer::Invite(_) | Answer::Stored(_) | Answer::Failed(_) => {
                Err(wrong_answer())
            }
        }
    }

    /// Ends when no relay lets this agent in because of its key: then waiting does not help. What was
    /// asked for is kept all the same.
    async fn locked_out(&self) -> Error {
        loop {
            sleep(LOOK_AT_KEY).await;
            let worker = self.worker_view().await.ok();
            if let Some(error) = worker.and_then(|worker| worker.locked_out()) {
                return error;
            }
        }
    }

    /// Says more than "too late" when more is known.
    async fn why_late(&self, id: MessageId, what: &'static str) -> Error {
        let late = Error::Timeout { what, queued: true };
        let Ok(worker) = self.worker_view().await else {
            return late;
        };
        if let Some(pid) = worker.held_by {
            let untouched = async {
                self.shelf()?
                    .with(move |reading| Ok(skytale_agent::hands::waiting(reading.conn())?))
                    .await
            };
            let ignored = untouched
                .await
                .is_ok_and(|waiting| waiting.iter().any(|(waiting, _)| *waiting == id));
            if ignored {
                return Error::Unreachable(held_by(Some(pid)));
            }
            return late;
        }
        let mut refusals = worker.links.iter().map(|(_, link)| match link.state {
            LinkState::Refused(refusal) => Some(refusal),
            LinkState::Connecting | LinkState::Greeting | LinkState::Ready => None,
        });
        // With several relays it is not known here which of them the command was for.
        match (refusals.next(), refusals.next()) {
            (Some(Some(refusal)), None) => Error::Denied(refusal),
            _ => late,
        }
    }

    async fn worker_view(&self) -> Result<WorkerView, Error> {
        let (reply, view) = oneshot::channel();
        let asked = async {
            self.asks
                .send(Ask::Status(reply))
                .await
                .map_err(|_| Error::closed())?;
            view.await.map_err(|_| Error::closed())
        };
        timeout(STATUS_MAX, asked)
            .await
            .map_err(|_| Error::Timeout {
                what: "asking the agent's thread",
                queued: false,
            })?
    }

    /// How the mind stands; what changes from then on is news. When it is another process, only that.
    pub(super) async fn look(&self, news: &mut watch::Receiver<u64>) -> Result<WorkerView, Error> {
        self.check_process()?;
        news.borrow_and_update();
        let worker = self.worker_view().await?;
        for (_, link) in &worker.links {
            if let LinkState::Refused(refusal) = link.state {
                return Err(Error::Denied(refusal));
            }
        }
        Ok(worker)
    }

    /// Waits until this channel, or everything, has been read as far as the relay had it.
    pub(crate) async fn caught_up(&self, only: Option<ChannelId>) -> Result<(), Error> {
        let level = async {
            let mut news = self.news();
            loop {
                let worker = self.look(&mut news).await?;
                if worker.held_by.is_some() || self.has_read(only, &worker.standings).await? {
                    return Ok(());
                }
                look_again(&mut news).await?;
            }
        };
        // How much it is nobody knows beforehand. Where slots limit the rate, the wait is over when
        // nothing but cover has come for as long as everything may take where they do not.
        let patience = self.timeouts.change + self.slots_for_changes();
        let come = || self.tally.look().received.real;
        while_it_goes_on(level, come, patience)
            .await
            .ok_or(Error::Timeout {
                what: "reading what the relay has",
                queued: false,
            })?
    }

    /// Whether this channel, or everything, has been read as far as the relay had it.
    async fn has_read(
        &self,
        only: Option<ChannelId>,
        standings: &BTreeMap<RelayKey, Standing>,
    ) -> Result<bool, Error> {
        if only.is_none() && !standings.values().all(Standing::has_emptied_mailbox) {
            return Ok(false);
        }
        let mut channels = self
            .shelf()?
            .with(|reading| Ok(view::channels(reading.conn())?))
            .await?;
        channels.retain(|channel| only.is_none_or(|only| only == channel.id));
        Ok(channels.iter().all(|channel| {
            let standing = standings.get(&channel.relay);
            standing.map_or(!Standing::may_grow(channel), |standing| {
                standing.has_read(channel)
            })
        }))
    }

    pub(super) async fn status(&self) -> Result<Status, Error> {
        self.check_process()?;
        let worker = self.worker_view().await?;
        let mut relays: BTreeMap<RelayKey, RelayStatus> = BTreeMap::new();
        for (key, link) in worker.links {
            let mut status = RelayStatus::unknown(key);
            status.address = link.address;
            status.state = Some(link.state);
            status.trouble = link.trouble;
            status.carrier = link.carrier;
            status.shapes = link.shapes;
            status.counters = link.counters;
            relays.insert(key, status);
        }
        let elsewhere = worker.held_by.is_some();
        let (relays, outbox, commits_wanted) = self
            .shelf()?
            .with(move |reading| {
                if elsewhere {
                    for channel in view::channels(reading.conn())? {
                        relays
                            .entry(channel.relay)
                            .or_insert_with(|| RelayStatus::unknown(channel.relay));
                    }
                }
                for (key, status) in &mut relays {
                    status.key_packages = view::key_packages_left(reading.conn(), *key)?;
                    status.clock_ahead_ms = view::clock_ahead(reading.conn(), *key)?;
                }
                Ok((
                    relays,
                    view::outbox_len(reading.conn(), None)?,
                    view::commits_wanted(reading.conn())?,
                ))
            })
            .await?;
        Ok(Status {
            held_by: worker.held_by,
            relays: relays.into_values().collect(),
            outbox,
            commits_wanted,
        })
    }

    /// Where new channels are made: what the configuration says, else what the API server says.
    pub(super) async fn home(&self) -> Result<RelayAddr, Error> {
        let ask = || async {
            let account = self
                .account
                .as_ref()
                .filter(|account| account.has_key())
                .ok_or_else(|| {
                    Error::misuse(
                        "no relay is known: set SKYTALE_RELAY, or SKYTALE_API_URL and SKYTALE_API_KEY, or run `skytale up`",
                    )
                })?;
            let home = account
                .relays()
                .await?
                .into_iter()
                .find_map(|relay| {
                    let address = relay.addresses.into_iter().next()?;
                    let key = relay.key;
                    Some(RelayAddr { key, address })
                })
                .ok_or_else(|| {
                    Error::NotFound("the API server names no relay: set SKYTALE_RELAY".into())
                })?;
            self.asks
                .send(Ask::Home(home.clone()))
                .await
                .map_err(|_| Error::closed())?;
            Ok(home)
        };
        self.home.get_or_try_init(ask).await.cloned()
    }

    /// An account's agent keeps a line to its home relay even when it is in no channel yet, so
    /// that it can be added.
    pub(super) fn look_for_home(self: &Arc<Self>) {
        let has_account = self
            .account
            .as_ref()
            .is_some_and(|account| account.has_key());
        if !has_account || self.home.initialized() {
            return;
        }
        let inner = Arc::downgrade(self);
        let search = tokio::spawn(async move {
            let mut pause = HOME_PAUSE_MIN;
            while let Some(inner) = inner.upgrade() {
                if inner.home().await.is_ok() {
                    return;
                }
                drop(inner);
                sleep(pause).await;
                pause = (pause * 2).min(HOME_PAUSE_MAX);
            }
        });
        *lock(&self.home_search) = Some(search.abort_handle());
    }

    pub(super) async fn view_by_name(
        &self,
        name: &ChannelName,
    ) -> Result<Option<ChannelView>, Error> {
        self.check_process()?;
        let name = name.clone();
        self.shelf()?
            .with(move |reading| Ok(view::channel_by_name(reading.conn(), &name)?))
            .await
    }

    pub(super) async fn channel(self: &Arc<Self>, id: ChannelId) -> Result<Channel, Error> {
        let views = self
            .shelf()?
            .with(|reading| Ok(view::channels(reading.conn())?))
            .await?;
        let view = views.iter().find(|view| view.id == id);
        view.map(|view| Channel::new(self, view))
            .ok_or_else(|| Error::damaged("a channel was entered that is not in the vault"))
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        if let Some(search) = lock(&self.home_search).take() {
            search.abort();
        }
        lock(&self.shelf).take();
        let (done, closed) = oneshot::channel();
        if self.asks.send(Ask::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
        self.threads.end().await;
        // Nothing is leased any more, now that the shelf's thread has ended.
        for holder in lock(&self.holders).drain(..) {
            if let Some(holder) = holder.upgrade() {
                holder.let_go();
            }
        }
        Ok(())
    }

    /// Remembers a loop's holder, for when the agent is closed.
    pub(crate) fn note_holder(&self, holder: &Arc<Holder>) {
        let mut holders = lock(&self.holders);
        holders.retain(|known| known.strong_count() > 0);
        holders.push(Arc::downgrade(holder));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(search) = lock(&self.home_search).take() {
            search.abort();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A message that somebody waits for.
pub(crate) struct Sending<'a> {
    inner: &'a Inner,
    bytes: u64,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.inner.sending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Waits for news, and not for ever, because what another process does is none.
pub(super) async fn look_again(news: &mut watch::Receiver<u64>) -> Result<(), Error> {
    tokio::select! {
        changed = news.changed() => changed.map_err(|_| Error::closed()),
        () = sleep(LOOK_AGAIN) => Ok(()),
    }
}

/// Waits for something as long as `come` grows within each `patience`, and an hour at most: a relay
/// that sends for ever must not keep anybody for ever.
pub(super) async fn while_it_goes_on<T>(
    what: impl Future<Output = T>,
    come: impl Fn() -> u64,
    patience: Duration,
) -> Option<T> {
    let watched = async {
        let mut before = come();
        loop {
            sleep(patience).await;
            let now = come();
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        done = timeout(GOES_ON_MAX, what) => done.ok(),
        () = watched => None,
    }
}

/// An id that nobody has used.
pub(crate) fn fresh_id() -> MessageId {
    let mut id = [0; MessageId::LEN];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    MessageId(id)
}

/// A mind that answers another question than was asked would be a bug of ours.
pub(crate) fn wrong_answer() -> Error {
    Error::damaged("the agent's thread gave an answer to another question: please report this")
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the worker may take to say how it stands: a step takes milliseconds.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// However much there is to read, nobody waits for it longer.
const GOES_ON_MAX: Duration = Duration::from_hours(1);
/// A link's state can change without news from the vault.
/// Most answers have come by then.
const LOOK_AT_KEY: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What MLS and envelope add to a message, and its answer.
const MESSAGE_OVERHEAD: u64 = 1_024;
/// About as much as an agent's first connection says: KeyPackages, a commit with its Welcome, and a
/// GroupInfo for invites.
const CHANGE_BYTES: u64 = 64 * 1_024;
const HOME_PAUSE_MIN: Duration = Duration::from_secs(1);
const HOME_PAUSE_MAX: Duration = Duration::from_mins(1);
