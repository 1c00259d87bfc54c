//! An agent as an application holds it.

mod builder;
mod inner;
mod status;

use std::{path::Path, sync::Arc, time::Duration};

use skytale_agent::{
    Answer, Command, history,
    view::{self, ChannelState, ChannelView},
};
use skytale_slim::Name;
use skytale_slim_session::{Invitations, SharedSecret};
use skytale_wire::{
    id::{AgentId, ChannelId},
    invite::{BadInvite, Invite},
    name::ChannelName,
    refusal::Refusal,
};
use tokio::time::timeout;

pub use builder::AgentBuilder;
use inner::look_again;
pub(crate) use inner::{Inner, fresh_id, wrong_answer};
pub use status::{RelayStatus, Status};

use crate::{
    account::Account,
    channel::Channel,
    config::Flags,
    error::Error,
    events::Events,
    link::LinkState,
    slim::{Slim, SlimParty},
    standing::Standing,
    traffic::LineCounters,
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
                if let Some(locked_out) = worker.locked_out() {
                    return Err(locked_out);
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

fn slim_name(name: &str) -> Result<Name, Error> {
    Name::parse(name).map_err(|error| Error::misuse(error.to_string()))
}

fn parse_name(name: &str) -> Result<ChannelName, Error> {
    name.parse()
        .map_err(|error: skytale_wire::name::BadName| Error::misuse(error.to_string()))
}

#[cfg(test)]
mod tests;
