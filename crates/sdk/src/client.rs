//! An agent as an application holds it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use skytale_agent::{
    Answer, Command, Event, history,
    view::{self, ChannelState, ChannelView},
};
use skytale_slim::{Instance, Name};
use skytale_slim_session::{Invitations, SharedSecret};
use skytale_wire::{
    http::Secret,
    id::{AgentId, ChannelId, MessageId, RelayKey},
    invite::{BadInvite, Invite},
    name::ChannelName,
    refusal::Refusal,
};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, broadcast, mpsc, oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use crate::{
    account::Account,
    channel::Channel,
    config::{Config, Flags, RelayAddr, Timeouts},
    error::Error,
    events::Events,
    hand::held_by,
    link::{self, Carrier, LinkState},
    shelf::{Holder, Shelf},
    slim::{Slim, SlimParty},
    standing::Standing,
    threads::Threads,
    traffic::{LineCounters, LineShapes, LineTally, Traffic},
    vault::{Vault, VaultKey},
    worker::{self, Ask, Start, WorkerView},
};

/// One agent: an identity, its vault, and its lines to relays.
///
/// Several processes may open the same agent at once; one of them holds the lines, and another
/// takes over when it ends. When the last handle is dropped, channels and messages included, the
/// agent lets everything go at once; [`Agent::close`] first waits for what can still leave. An
/// agent does not outlive the runtime that it was opened in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

impl Agent {
    /// Opens the agent of this name on this machine, making it on first use. Where it lives and
    /// whom it talks to comes from the environment and the current context.
    pub async fn open(name: &str) -> Result<Self, Error> {
        Self::builder(name).open().await
    }

    /// The same, with something set by the program.
    pub fn builder(name: &str) -> AgentBuilder {
        AgentBuilder {
            name: name.to_owned(),
            flags: Flags::default(),
        }
    }

    /// Who this is, for everybody else.
    pub fn id(&self) -> AgentId {
        self.inner.id
    }

    /// What it is called on this machine. Others see it as its label.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where its vault is.
    pub fn data_dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Creates a channel, or opens the one of this name that the agent is in.
    pub async fn channel(&self, name: &str) -> Result<Channel, Error> {
        let name: ChannelName = parse_name(name)?;
        if let Some(view) = self.inner.view_by_name(&name).await? {
            match view.state {
                ChannelState::Active | ChannelState::Stuck => {
                    return Ok(Channel::new(&self.inner, &view));
                }
                ChannelState::Offered(_) => {
                    return Err(Error::misuse(
                        "this channel was offered to the agent: accept or decline it first",
                    ));
                }
                ChannelState::Creating
                | ChannelState::Joining
                | ChannelState::Leaving
                | ChannelState::Closed(_) => {}
            }
        }
        let home = self.inner.home().await?;
        let command = Command::Open {
            name,
            relay: home.key,
            addresses: vec![home.address],
        };
        self.enter(command, "creating the channel").await
    }

    /// The channel of this name, if the agent is in it. Nothing is created.
    pub async fn find(&self, name: &str) -> Result<Option<Channel>, Error> {
        let view = self.inner.view_by_name(&parse_name(name)?).await?;
        Ok(view
            .filter(|view| !matches!(view.state, ChannelState::Closed(_)))
            .map(|view| Channel::new(&self.inner, &view)))
    }

    /// Joins by an invite line. The one who made it need not be online.
    pub async fn join(&self, line: &str) -> Result<Channel, Error> {
        let line = line.trim();
        line.parse::<Invite>().map_err(|error| {
            if error == BadInvite::Altered {
                Error::Denied(Refusal::InviteAltered)
            } else {
                Error::misuse(error.to_string())
            }
        })?;
        let command = Command::Join {
            line: line.to_owned(),
        };
        self.enter(command, "joining the channel").await
    }

    /// All channels, also those that are offered or closed.
    pub async fn channels(&self) -> Result<Vec<ChannelView>, Error> {
        self.inner.check_process()?;
        self.inner
            .shelf()?
            .with(|reading| Ok(view::channels(reading.conn())?))
            .await
    }

    /// Enters a channel that an unknown agent has added us to. It is named by name or id.
    pub async fn accept(&self, channel: &str) -> Result<Channel, Error> {
        let channel = self.offered(channel).await?;
        self.enter(Command::Accept { channel }, "entering the channel")
            .await
    }

    /// Refuses such a channel for good.
    pub async fn decline(&self, channel: &str) -> Result<(), Error> {
        let channel = self.offered(channel).await?;
        self.inner
            .change(Command::Decline { channel }, "declining the channel")
            .await
    }

    /// From now on keeps messages this long, those it receives and its own, for
    /// [`Channel::history`]; with zero it keeps none, as at first, and wipes those it has. It holds
    /// for the agent, whatever process opens it.
    ///
    /// Whoever gets the vault and its key in that time can read them, which MLS by itself prevents.
    /// Wiping needs a process that has the agent open.
    pub async fn keep_history(&self, keep: Duration) -> Result<(), Error> {
        self.inner.check_process()?;
        self.inner
            .shelf()?
            .with(move |reading| reading.durably(|tx| Ok(history::keep(tx, keep)?)))
            .await
    }

    /// How long it keeps messages. `None` when it keeps none.
    pub async fn history_kept(&self) -> Result<Option<Duration>, Error> {
        self.inner.check_process()?;
        self.inner
            .shelf()?
            .with(|reading| Ok(history::kept_for(reading.conn())?))
            .await
    }

    /// What happens besides messages, from the moment the agent was opened.
    pub fn events(&self) -> Events {
        Events::new(Arc::clone(&self.inner))
    }

    /// How things stand, for people: what `skytale doctor` prints.
    pub async fn status(&self) -> Result<Status, Error> {
        self.inner.status().await
    }

    /// Waits until every relay that this agent uses has let it in and can hand out its
    /// KeyPackages, so that others can add it, also while it is away. Does not wait when another
    /// process holds the lines.
    pub async fn online(&self) -> Result<(), Error> {
        let inner = &self.inner;
        if inner
            .account
            .as_ref()
            .is_some_and(|account| account.has_key())
        {
            inner.home().await?;
        }
        let stocked = async {
            let mut news = inner.news();
            loop {
                let worker = inner.look(&mut news).await?;
                let is_stocked = worker.links.iter().all(|(relay, link)| {
                    let standing = worker.standings.get(relay);
                    link.state == LinkState::Ready && standing.is_some_and(Standing::is_stocked)
                });
                if is_stocked || worker.held_by.is_some() {
                    return Ok(());
                }
                look_again(&mut news).await?;
            }
        };
        timeout(inner.timeouts.connect + inner.slots_for_changes(), stocked)
            .await
            .map_err(|_| {
                Error::unreachable("the relay cannot be reached: `skytale doctor` says more")
            })?
    }

    /// Waits until everything that the relays held for this agent when it came online is in the
    /// vault: messages, changes of channels, and channels that others have added it to. Does not
    /// wait when another process holds the lines.
    pub async fn caught_up(&self) -> Result<(), Error> {
        self.online().await?;
        self.inner.caught_up(None).await
    }

    /// What this agent's lines have carried since it was opened, all together: cheap enough to be
    /// asked many times a second. [`Agent::status`] has it for each relay.
    pub fn line_counters(&self) -> LineCounters {
        self.inner.tally.look()
    }

    /// A name of SLIM at the home relay: what is said to it, and saying something to it. Stock SLIM
    /// agents are met in sessions, by [`Agent::slim_session`].
    pub async fn slim(&self, name: &str) -> Result<Slim, Error> {
        let name = slim_name(name)?;
        let home = self.inner.home().await?;
        Ok(Slim::new(Arc::clone(&self.inner), home.key, name))
    }

    /// Becomes an agent that stock SLIM agents find at this name: it is invited to their sessions
    /// and invites to its own. All of one circle share the secret.
    pub async fn slim_session(
        &self,
        name: &str,
        secret: SharedSecret,
        invitations: Invitations,
    ) -> Result<SlimParty, Error> {
        let name = slim_name(name)?;
        let home = self.inner.home().await?;
        SlimParty::start(
            Arc::clone(&self.inner),
            home.key,
            &name,
            secret,
            invitations,
        )
        .await
    }

    /// The API server, for calls about the account.
    pub fn account(&self) -> Option<&Account> {
        self.inner.account.as_deref()
    }

    /// Lets leave what can leave within two seconds, closes the vault and frees its lock. What
    /// is still queued leaves when the agent is opened again.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.check_process()?;
        self.inner.close().await
    }

    async fn enter(&self, command: Command, what: &'static str) -> Result<Channel, Error> {
        let limit = self.inner.timeouts.change + self.inner.slots_for_changes();
        match self.inner.command(command, what, limit).await? {
            Answer::Channel(id) => self.inner.channel(id).await,
            Answer::Done | Answer::Invite(_) | Answer::Stored(_) | Answer::Failed(_) => {
                Err(wrong_answer())
            }
        }
    }

    async fn offered(&self, channel: &str) -> Result<ChannelId, Error> {
        let views = self.channels().await?;
        let wanted = |view: &&ChannelView| {
            matches!(view.state, ChannelState::Offered(_))
                && (view.id.to_string() == channel
                    || view
                        .name
                        .as_ref()
                        .is_some_and(|name| name.as_str() == channel))
        };
        let mut found = views.iter().filter(wanted);
        match (found.next(), found.next()) {
            (Some(view), None) => Ok(view.id),
            (Some(_), Some(_)) => Err(Error::misuse(
                "several channels of this name are offered: name one by its id",
            )),
            (None, _) => Err(Error::NotFound(
                "no such channel is offered to this agent: see `skytale channels`".into(),
            )),
        }
    }
}

/// What a program sets before an agent is opened. Everything else comes from the environment, the
/// context or the defaults.
#[derive(Debug)]
pub struct AgentBuilder {
    name: String,
    flags: Flags,
}

impl AgentBuilder {
    /// Agents live in `agents/NAME` below it.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.flags.data_dir = Some(dir.into());
        self
    }

    /// Where contexts and the key file are.
    #[must_use]
    pub fn config_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.flags.config_dir = Some(dir.into());
        self
    }

    /// The context to use instead of the current one.
    #[must_use]
    pub fn context(mut self, name: &str) -> Self {
        self.flags.context = Some(name.to_owned());
        self
    }

    /// The API server.
    #[must_use]
    pub fn api_url(mut self, url: &str) -> Self {
        self.flags.api_url = Some(url.to_owned());
        self
    }

    /// The account's key.
    #[must_use]
    pub fn api_key(mut self, key: Secret) -> Self {
        self.flags.api_key = Some(key);
        self
    }

    /// Where new channels are made.
    #[must_use]
    pub fn relay(mut self, relay: RelayAddr) -> Self {
        self.flags.relay = Some(relay);
        self
    }

    /// Opens the vault, before any key of the environment or the key file.
    #[must_use]
    pub fn vault_key(mut self, key: VaultKey) -> Self {
        self.flags.vault_key = Some(key);
        self
    }

    /// Opens the vault when the environment holds no key.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Zeroizing<String>) -> Self {
        self.flags.passphrase = Some(passphrase);
        self
    }

    /// A certificate authority for the API server, beside the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.flags.ca_file = Some(path.into());
        self
    }

    /// How its lines are to look to whoever watches them: a mode, a preset or a shape of one's own.
    #[must_use]
    pub fn traffic(mut self, traffic: impl Into<Traffic>) -> Self {
        self.flags.traffic = Some(traffic.into());
        self
    }

    /// How long calls wait.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.flags.timeouts = timeouts;
        self
    }

    /// Everything at once, for programs with flags of their own.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// Opens the agent. No network is needed: it connects by itself when there is one.
    pub async fn open(self) -> Result<Agent, Error> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::misuse("an agent is opened inside a tokio runtime"))?;
        let mut config = Config::load(self.flags)?;
        let vault = Arc::new(Vault::prepare(&mut config, &self.name)?);
        let account = config
            .api_url
            .as_deref()
            .map(|url| {
                Account::new(
                    url,
                    config.api_key.take(),
                    config.ca_file.as_deref(),
                    config.timeouts.token,
                )
            })
            .transpose()?
            .map(Arc::new);
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        let tally: Arc<LineTally> = Arc::default();
        let threads = Threads::new(&runtime);
        let start = Start {
            vault: Arc::clone(&vault),
            label: self.name.clone(),
            home: config.relay.clone(),
            account: account.clone().filter(|account| account.has_key()),
            timeouts: config.timeouts,
            traffic: config.traffic,
            notices: notices.clone(),
            tally: Arc::clone(&tally),
            runtime: link::Runtime::start(&threads)?,
        };
        let (id, started) = worker::start(start, &threads).await?;
        let shelf = Shelf::open(&vault, &threads)?;
        let first_event = shelf
            .with(|reading| Ok(view::newest_event(reading.conn())?))
            .await?;
        let inner = Arc::new(Inner {
            pid: std::process::id(),
            id,
            name: self.name,
            dir: vault.dir().to_owned(),
            timeouts: config.timeouts,
            traffic: config.traffic,
            tally,
            sending: AtomicU64::new(0),
            notices,
            account,
            home: OnceCell::new_with(config.relay),
            home_search: Mutex::new(None),
            asks: started.asks,
            news: started.news,
            shelf: Mutex::new(Some(shelf)),
            holders: Mutex::default(),
            first_event,
            closed: AtomicBool::new(false),
            threads,
        });
        inner.look_for_home();
        Ok(Agent { inner })
    }
}

/// How an agent stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The process that holds the lines, when it is not this one. Zero when it is unknown.
    pub held_by: Option<u32>,
    /// The relays of this agent's channels, and its own.
    pub relays: Vec<RelayStatus>,
    /// Messages that no relay has stored yet.
    pub outbox: u32,
    /// Changes of groups that are wanted and not yet made.
    pub commits_wanted: u32,
}

/// How the line to one relay stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Which.
    pub key: RelayKey,
    /// Where it was tried last.
    pub address: Option<String>,
    /// `None` when another process holds the line.
    pub state: Option<LinkState>,
    /// Why the last try or connection ended.
    pub trouble: Option<String>,
    /// KeyPackages that it held when we last connected.
    pub key_packages: Option<u32>,
    /// How far its clock was ahead of ours.
    pub clock_ahead_ms: Option<i64>,
    /// What carries the present line, or is about to.
    pub carrier: Option<Carrier>,
    /// What holds for the present line; `None` before the relay has said so.
    pub shapes: Option<LineShapes>,
    /// What lines to it have carried since the agent was opened.
    pub counters: LineCounters,
}

/// What every handle of an agent shares.
pub(crate) struct Inner {
    pid: u32,
    id: AgentId,
    name: String,
    dir: PathBuf,
    pub(crate) timeouts: Timeouts,
    traffic: Traffic,
    tally: Arc<LineTally>,
    /// Bytes of messages that somebody here waits for.
    sending: AtomicU64,
    notices: broadcast::Sender<Event>,
    account: Option<Arc<Account>>,
    home: OnceCell<RelayAddr>,
    home_search: Mutex<Option<AbortHandle>>,
    asks: mpsc::Sender<Ask>,
    news: watch::Receiver<u64>,
    shelf: Mutex<Option<Shelf>>,
    /// Of loops that may outlive the agent.
    holders: Mutex<Vec<Weak<Holder>>>,
    first_event: i64,
    closed: AtomicBool,
    threads: Threads,
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
        match timeout(limit, asked).await {
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
    async fn look(&self, news: &mut watch::Receiver<u64>) -> Result<WorkerView, Error> {
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

    async fn status(&self) -> Result<Status, Error> {
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
    async fn home(&self) -> Result<RelayAddr, Error> {
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
    fn look_for_home(self: &Arc<Self>) {
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

    async fn view_by_name(&self, name: &ChannelName) -> Result<Option<ChannelView>, Error> {
        self.check_process()?;
        let name = name.clone();
        self.shelf()?
            .with(move |reading| Ok(view::channel_by_name(reading.conn(), &name)?))
            .await
    }

    async fn channel(self: &Arc<Self>, id: ChannelId) -> Result<Channel, Error> {
        let views = self
            .shelf()?
            .with(|reading| Ok(view::channels(reading.conn())?))
            .await?;
        let view = views.iter().find(|view| view.id == id);
        view.map(|view| Channel::new(self, view))
            .ok_or_else(|| Error::damaged("a channel was entered that is not in the vault"))
    }

    async fn close(&self) -> Result<(), Error> {
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

impl RelayStatus {
    fn unknown(key: RelayKey) -> Self {
        Self {
            key,
            address: None,
            state: None,
            trouble: None,
            key_packages: None,
            clock_ahead_ms: None,
            carrier: None,
            shapes: None,
            counters: LineCounters::default(),
        }
    }
}

/// Waits for news, and not for ever, because what another process does is none.
async fn look_again(news: &mut watch::Receiver<u64>) -> Result<(), Error> {
    tokio::select! {
        changed = news.changed() => changed.map_err(|_| Error::closed()),
        () = sleep(LOOK_AGAIN) => Ok(()),
    }
}

/// Waits for something as long as `come` grows within each `patience`, and an hour at most: a relay
/// that sends for ever must not keep anybody for ever.
async fn while_it_goes_on<T>(
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

fn slim_name(name: &str) -> Result<Name, Error> {
    Name::parse(name).map_err(|error| Error::misuse(error.to_string()))
}

/// A mind that answers another question than was asked would be a bug of ours.
pub(crate) fn wrong_answer() -> Error {
    Error::damaged("the agent's thread gave an answer to another question: please report this")
}

fn parse_name(name: &str) -> Result<ChannelName, Error> {
    name.parse()
        .map_err(|error: skytale_wire::name::BadName| Error::misuse(error.to_string()))
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the worker may take to say how it stands: a step takes milliseconds.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// However much there is to read, nobody waits for it longer.
const GOES_ON_MAX: Duration = Duration::from_hours(1);
/// A link's state can change without news from the vault.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Events of lines that wait for a slow reader; older ones are dropped.
const NOTICES_MAX: usize = 64;
/// What MLS and envelope add to a message, and its answer.
const MESSAGE_OVERHEAD: u64 = 1_024;
/// About as much as an agent's first connection says: KeyPackages, a commit with its Welcome, and a
/// GroupInfo for invites.
const CHANGE_BYTES: u64 = 64 * 1_024;
const HOME_PAUSE_MIN: Duration = Duration::from_secs(1);
const HOME_PAUSE_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that is not there, and calls that do not wait for it.
    fn offline(dir: &Path, name: &str) -> AgentBuilder {
        let relay = format!("{}@127.0.0.1:9", "01".repeat(32));
        Agent::builder(name)
            .data_dir(dir.join("data"))
            .config_dir(dir.join("config"))
            .vault_key(VaultKey::from_bytes([1; 32]))
            .relay(relay.parse().unwrap())
            .traffic(skytale_shape::Mode::Padded)
            .timeouts(Timeouts {
                change: Duration::from_millis(50),
                ..Timeouts::default()
            })
    }

    #[tokio::test]
    async fn an_agent_is_the_same_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = offline(dir.path(), "alice").open().await.unwrap();
        let (id, vault) = (first.id(), first.data_dir().to_owned());
        first.close().await.unwrap();

        let again = offline(dir.path(), "alice").open().await.unwrap();
        let other = offline(dir.path(), "bob").open().await.unwrap();

        assert_eq!(again.id(), id);
        assert_ne!(other.id(), id);
        assert_eq!(vault, dir.path().join("data/agents/alice"));
        again.close().await.unwrap();
        other.close().await.unwrap();
    }

    /// What a line of 4 KB/s brought for longer than a fixed limit once ran into it.
    #[tokio::test]
    async fn a_wait_lasts_as_long_as_something_comes() {
        let patience = Duration::from_millis(2);
        // More whenever somebody looks.
        let come = AtomicU64::new(0);
        let look = || come.fetch_add(1, Ordering::Relaxed);
        let slow = async {
            while come.load(Ordering::Relaxed) < 10 {
                sleep(patience).await;
            }
        };

        assert_eq!(while_it_goes_on(slow, look, patience).await, Some(()));
        let nothing = std::future::pending::<()>();
        assert_eq!(while_it_goes_on(nothing, || 7, patience).await, None);
    }

    #[tokio::test]
    async fn a_wrong_key_opens_nothing_and_makes_nothing_new() {
        let dir = tempfile::tempdir().unwrap();
        let alice = offline(dir.path(), "alice").open().await.unwrap();
        let id = alice.id();
        let wrong = || offline(dir.path(), "alice").vault_key(VaultKey::from_bytes([2; 32]));

        let beside = wrong().open().await.unwrap_err();
        alice.close().await.unwrap();
        let alone = wrong().open().await.unwrap_err();

        for error in [beside, alone] {
            assert_eq!(error.code(), "damaged");
            assert!(error.to_string().contains("wrong vault key"), "{error}");
        }
        let alice = offline(dir.path(), "alice").open().await.unwrap();
        assert_eq!(alice.id(), id);
        alice.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_timeout_leaves_behind_is_queued_in_the_vault() {
        let dir = tempfile::tempdir().unwrap();
        let alice = offline(dir.path(), "alice").open().await.unwrap();

        let error = alice.channel("acme/ops/plan").await.unwrap_err();

        assert!(
            matches!(error, Error::Timeout { queued: true, .. }),
            "{error:?}"
        );
        alice.close().await.unwrap();
        let alice = offline(dir.path(), "alice").open().await.unwrap();
        let views = alice.channels().await.unwrap();
        assert_eq!(views.len(), 1);
        assert_eq!(views[0].state, ChannelState::Creating);
        alice.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_second_handle_is_a_hand_until_the_first_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mind = offline(dir.path(), "alice").open().await.unwrap();
        let hand = offline(dir.path(), "alice").open().await.unwrap();
        assert_eq!(hand.id(), mind.id());
        assert_eq!(mind.status().await.unwrap().held_by, None);
        assert_eq!(
            hand.status().await.unwrap().held_by,
            Some(std::process::id())
        );

        // The hand's wish is the mind's now, and outlives it.
        hand.channel("acme/ops/plan").await.unwrap_err();
        mind.close().await.unwrap();

        let mut news = hand.inner.news();
        while hand.status().await.unwrap().held_by.is_some() {
            // Each look at the lock is another chance; the news only shorten the wait.
            let _ = timeout(Duration::from_millis(5), news.changed()).await;
        }
        // The mind may have ended before it took the wish up: then the next one finds it.
        let wished = async {
            while hand.channels().await.unwrap().is_empty() {
                let _ = timeout(Duration::from_millis(5), news.changed()).await;
            }
        };
        timeout(Duration::from_mins(1), wished).await.unwrap();
        hand.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_meant_is_refused_before_anything_happens() {
        let dir = tempfile::tempdir().unwrap();
        let alice = offline(dir.path(), "alice").open().await.unwrap();

        for (line, code) in [("hello", "misuse"), ("skt_inv_AAAA", "invite_altered")] {
            assert_eq!(alice.join(line).await.unwrap_err().code(), code, "{line}");
        }
        for name in ["acme/ops", "acme/../plan", "a b/c/d"] {
            assert_eq!(alice.channel(name).await.unwrap_err().code(), "misuse");
        }
        assert!(alice.find("acme/ops/plan").await.unwrap().is_none());
        assert_eq!(
            alice.accept("acme/ops/plan").await.unwrap_err().code(),
            "not_found"
        );
        assert!(alice.channels().await.unwrap().is_empty());
        alice.close().await.unwrap();
        assert!(Agent::open("../alice").await.is_err());
    }

    #[tokio::test]
    async fn a_handle_from_before_a_fork_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut alice = offline(dir.path(), "alice").open().await.unwrap();
        Arc::get_mut(&mut alice.inner).unwrap().pid += 1;

        let error = alice.channels().await.unwrap_err();

        assert!(error.to_string().contains("fork"), "{error}");
        assert!(alice.channel("acme/ops/plan").await.is_err());
        assert!(alice.events().next().await.is_err());
        assert!(alice.status().await.is_err());
    }

    #[tokio::test]
    async fn a_loop_over_events_ends_when_the_agent_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let alice = offline(dir.path(), "alice").open().await.unwrap();
        let mut events = alice.events();

        alice.close().await.unwrap();

        assert_eq!(events.next().await.unwrap(), None);
    }
}
