//! An agent's mind: one struct, one method. Commands, frames and ticks come in; frames, answers
//! and events go out, after the caller has committed the transaction that they were made in.
//!
//! It asks nothing of the world: the time is an argument, chance a generator handed in (keys come
//! from the operating system, through the MLS provider), the database a transaction that somebody
//! else opened. What it decides stands in `channel/`; what it says to a relay in `session.rs`.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rusqlite::{Connection, Transaction};
use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{AgentId, ChannelId, MessageId, RelayKey, Time, TransportKey},
};

use crate::{
    Answer, Command, Error, Event,
    channel::Channel,
    command::CommandId,
    history,
    identity::Identity,
    mls::provider::Provider,
    session::{Session, Uplink},
    store,
};

/// Whose Welcomes are followed without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// Agents that share a channel with us or that the application has named.
    #[default]
    Known,
    /// Anyone's.
    Anyone,
    /// Nobody's: each waits for [`Command::Accept`].
    Ask,
}

/// What an application may set about its mind.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Whose Welcomes are followed.
    pub accept: Accept,
    /// KeyPackages that the relay shall hold; refilled when fewer than a third are left.
    pub key_packages: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            accept: Accept::default(),
            key_packages: 30,
        }
    }
}

/// What happens to a mind.
#[derive(Debug)]
pub enum Input {
    /// The application asks for something.
    Command {
        /// Names it.
        id: CommandId,
        /// What.
        command: Command,
    },
    /// A relay says something.
    Frame {
        /// Which.
        relay: RelayKey,
        /// What.
        frame: ToAgent,
    },
    /// A connection to a relay is up.
    LinkUp {
        /// To which.
        relay: RelayKey,
        /// The connection's own key.
        transport: TransportKey,
        /// The account's token for this relay; without one we are a guest.
        token: Option<String>,
    },
    /// A connection is gone.
    LinkDown {
        /// To which relay.
        relay: RelayKey,
    },
    /// A new token for a living connection.
    Token {
        /// For which relay.
        relay: RelayKey,
        /// The token.
        token: String,
    },
    /// Time has passed.
    Tick,
}

/// What a step wants done, once its transaction is committed.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Frames for relays, in order.
    pub frames: Vec<(RelayKey, ToRelay)>,
    /// The messages among them that need not wait for slots of the line ([`crate::Draft::now`]).
    pub at_once: BTreeSet<MessageId>,
    /// Answers to commands.
    pub answers: Vec<(CommandId, Answer)>,
    /// What the application may want to know. They are in the vault as well.
    pub events: Vec<Event>,
    /// Connections to end.
    pub close: Vec<RelayKey>,
    /// Whether an epoch has ended, whose deleted secrets should leave the write-ahead log.
    pub epoch_ended: bool,
}

/// A connection that the mind wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayWish {
    /// To which relay.
    pub key: RelayKey,
    /// Where it is reached.
    pub addresses: Vec<String>,
}

/// The mind: what it remembers between steps is never ahead of the vault. After an error the
/// value is thrown away and opened again.
#[derive(Debug)]
pub struct Agent {
    identity: Identity,
    label: String,
    config: AgentConfig,
    rng: ChaCha8Rng,
    channels: BTreeMap<ChannelId, Channel>,
    sessions: BTreeMap<RelayKey, Session>,
    wake: Option<Time>,
}

/// Everything a step works with. Handed down, so that what is below knows no more than it needs.
pub(crate) struct Step<'a, 'tx> {
    pub(crate) now: Time,
    pub(crate) tx: &'a Connection,
    pub(crate) provider: &'a Provider<'tx>,
    pub(crate) identity: &'a Identity,
    pub(crate) label: &'a str,
    pub(crate) config: &'a AgentConfig,
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) out: &'a mut Outputs,
}

impl Agent {
    /// Brings a vault's tables up to date, before the first [`Agent::open`].
    pub fn migrate(connection: &mut Connection) -> Result<(), Error> {
        store::migrate(connection)
    }

    /// Opens the mind of this vault; makes its identity on first use. `label` is what it calls
    /// itself in channels.
    pub fn open(tx: &Transaction<'_>, label: &str) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Error::Damaged(error.to_string()))?;
        Self::open_with(
            tx,
            label,
            AgentConfig::default(),
            ChaCha8Rng::from_seed(seed),
        )
    }

    /// The same with settings, and with the chance that ids and pauses are drawn from: a
    /// simulation hands in a seeded generator. Keys never come from it.
    pub fn open_with(
        tx: &Transaction<'_>,
        label: &str,
        config: AgentConfig,
        rng: ChaCha8Rng,
    ) -> Result<Self, Error> {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err(Error::Misuse(format!(
                "an agent's name has 1 to {LABEL_BYTES_MAX} bytes"
            )));
        }
        let identity = store::identity(tx)?.unwrap_or_else(Identity::generate);
        store::save_identity(tx, &identity, label)?;
        let provider = Provider::new(tx);
        let mut channels = BTreeMap::new();
        for record in store::records(tx)? {
            channels.insert(record.id, Channel::load(&provider, record)?);
        }
        Ok(Self {
            identity,
            label: label.to_owned(),
            config,
            rng,
            channels,
            sessions: BTreeMap::new(),
            wake: None,
        })
    }

    /// Who this is.
    pub fn id(&self) -> AgentId {
        self.identity.id()
    }

    /// When a [`Input::Tick`] is due, if nothing else happens.
    pub fn wake(&self) -> Option<Time> {
        self.wake
    }

    /// The connections that its channels need.
    pub fn relays(&self) -> Vec<RelayWish> {
        let mut wishes: BTreeMap<RelayKey, Vec<String>> = BTreeMap::new();
        for channel in self
            .channels
            .values()
            .filter(|channel| channel.needs_link())
        {
            let addresses = wishes.entry(channel.relay()).or_default();
            for address in channel.addresses() {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        wishes
            .into_iter()
            .map(|(key, addresses)| RelayWish { key, addresses })
            .collect()
    }

    /// One step: all of `inputs` in the caller's transaction. Commands that fail are answered;
    /// an error means that the vault failed, and that nothing of the step may be kept.
    pub fn handle(
        &mut self,
        inputs: Vec<Input>,
        now: Time,
        tx: &Transaction<'_>,
    ) -> Result<Outputs, Error> {
        let provider = Provider::new(tx);
        let mut out = Outputs::default();
        for input in inputs {
            let mut step = Step {
                now,
                tx,
                provider: &provider,
                identity: &self.identity,
                label: &self.label,
                config: &self.config,
                rng: &mut self.rng,
                out: &mut out,
            };
            dispatch(&mut self.channels, &mut self.sessions, &mut step, input)?;
        }
        let mut step = Step {
            now,
            tx,
            provider: &provider,
            identity: &self.identity,
            label: &self.label,
            config: &self.config,
            rng: &mut self.rng,
            out: &mut out,
        };
        self.wake = finish(&mut self.channels, &mut self.sessions, &mut step)?;
        for event in &out.events {
            store::save_event(tx, now, event)?;
        }
        provider.flush()?;
        Ok(out)
    }
}

fn dispatch(
    channels: &mut BTreeMap<ChannelId, Channel>,
    sessions: &mut BTreeMap<RelayKey, Session>,
    step: &mut Step<'_, '_>,
    input: Input,
) -> Result<(), Error> {
    match input {
        Input::Command { id, command } => match run(channels, step, id, command) {
            Ok(None) => {}
            Ok(Some(answer)) => step.out.answers.push((id, answer)),
            Err(error @ Error::Damaged(_)) => return Err(error),
            Err(error) => step.out.answers.push((id, Answer::Failed(error.into()))),
        },
        Input::LinkUp {
            relay,
            transport,
            token,
        } => {
            let session = Session::greet(step, channels, relay, transport, token);
            sessions.insert(relay, session);
        }
        Input::LinkDown { relay } => {
            if sessions.remove(&relay).is_some() {
                step.out.events.push(Event::Disconnected { relay });
            }
            for channel in channels
                .values_mut()
                .filter(|channel| channel.relay() == relay)
            {
                channel.link_down();
            }
        }
        Input::Token { relay, token } => {
            if let Some(session) = sessions.get_mut(&relay) {
                session.renew(step, Some(token));
            }
        }
        Input::Frame { relay, frame } => {
            if let Some(session) = sessions.get_mut(&relay) {
                session.receive(step, channels, frame)?;
            }
        }
        Input::Tick => {}
    }
    Ok(())
}

/// Starts a command. `None` means that its answer comes later.
fn run(
    channels: &mut BTreeMap<ChannelId, Channel>,
    step: &mut Step<'_, '_>,
    id: CommandId,
    command: Command,
) -> Result<Option<Answer>, Error> {
    match command {
        Command::Open {
            name,
            relay,
            addresses,
        } => {
            let open = channels
                .values_mut()
                .find(|channel| channel.is_open_as(&name));
            if let Some(channel) = open {
                return Ok(channel.reopen(id));
            }
            let channel = Channel::create(step, id, &name, relay, addresses)?;
            channels.insert(channel.id(), channel);
            Ok(None)
        }
        Command::Join { line } => {
            let (channel, answer) = Channel::accept_line(step, channels, id, &line)?;
            if let Some(channel) = channel {
                channels.insert(channel.id(), channel);
            }
            Ok(answer)
        }
        Command::Send {
            channel,
            id: message,
            draft,
        } => named(channels, &channel)?.queue(step, id, message, &draft),
        Command::Invite {
            channel,
            uses,
            ttl_ms,
            addresses,
        } => named(channels, &channel)?.wish_invite(step, id, uses, ttl_ms, addresses),
        Command::Add { channel, agents } => named(channels, &channel)?.wish_add(step, id, agents),
        Command::Remove { channel, agents } => {
            named(channels, &channel)?.wish_remove(step, id, agents)
        }
        Command::Rotate { channel } => named(channels, &channel)?.wish_rotate(step, id),
        Command::Grant {
            channel,
            agent,
            admin,
            may_invite,
        } => named(channels, &channel)?.wish_grant(step, id, agent, admin, may_invite),
        Command::CloseInvites { channel } => {
            named(channels, &channel)?.wish_close_invites(step, id)
        }
        Command::Leave { channel } => named(channels, &channel)?.wish_leave(step, id),
        Command::Accept { channel } => named(channels, &channel)?.accept(step),
        Command::Decline { channel } => named(channels, &channel)?.decline(step),
    }
}

fn named<'c>(
    channels: &'c mut BTreeMap<ChannelId, Channel>,
    id: &ChannelId,
) -> Result<&'c mut Channel, Error> {
    channels.get_mut(id).ok_or_else(|| {
        Error::NotFound("this agent has no such channel: see `skytale channels`".into())
    })
}

/// After all inputs: what channels want to say leaves in one go, and what they have become is
/// stored.
fn finish(
    channels: &mut BTreeMap<ChannelId, Channel>,
    sessions: &mut BTreeMap<RelayKey, Session>,
    step: &mut Step<'_, '_>,
) -> Result<Option<Time>, Error> {
    let mut wake: Option<Time> = None;
    for channel in channels.values_mut() {
        let mut offline = Uplink::Down;
        let uplink = sessions
            .get_mut(&channel.relay())
            .map_or(&mut offline, Session::uplink);
        channel.work(step, uplink)?;
        channel.save(step)?;
        wake = [wake, channel.wake(step.now)].into_iter().flatten().min();
    }
    for session in sessions.values_mut() {
        session.work(step, channels)?;
        wake = [wake, session.wake(step.now)].into_iter().flatten().min();
    }
    let sweep = history::sweep(step.tx, step.now)?;
    Ok([wake, sweep].into_iter().flatten().min())
}

/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 64;
