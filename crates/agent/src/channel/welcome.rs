//! Coming in by being added: a Welcome from the relay's mailbox.
//!
//! Whose Welcomes are followed at once is the application's choice ([`crate::Accept`]); others
//! wait for a decision. The relay keeps a Welcome until it has been dealt with here, durably.

use std::collections::BTreeMap;

use skytale_wire::{
    frame::{self, ToRelay},
    id::{ChannelId, RelayKey},
};

use super::{
    Channel,
    record::{Closed, Record, State, Wish},
    send::NOBODY,
};
use crate::{
    Accept, Answer, Error, Event,
    agent::Step,
    mls::{Group, MlsError, OpenedWelcome},
    session::Uplink,
    store,
};

impl Channel {
    /// A Welcome has come from the mailbox.
    ///
    /// What the relay says beside it is nobody's word: as long as the Welcome has not been opened and
    /// leads where it should, a membership that we have stays as it is.
    pub(crate) fn welcome(
        step: &mut Step<'_, '_>,
        channels: &mut BTreeMap<ChannelId, Self>,
        relay: RelayKey,
        welcome: &frame::Welcome,
        uplink: &Uplink,
    ) -> Result<(), Error> {
        let done = ToRelay::Welcomed(frame::Welcomed {
            channel: welcome.channel,
            id: welcome.id,
        });
        let mut is_in = false;
        if let Some(channel) = channels.get(&welcome.channel) {
            match &channel.record.state {
                // While we were away we were removed and added again, or the channel went on without
                // us: what lies between stays unread.
                State::Active { .. } | State::Leaving { .. } | State::Stuck { .. }
                    if welcome.seq > channel.record.cursor && relay == channel.relay() =>
                {
                    is_in = true;
                }
                // A repeat.
                State::Active { .. }
                | State::Leaving { .. }
                | State::Stuck { .. }
                | State::Creating { .. } => {
                    uplink.send(step, done);
                    return Ok(());
                }
                // The invite that we hold will do; if not, the Welcome is still in the mailbox.
                State::Joining { .. } => return Ok(()),
                State::Offered { .. } | State::Closed { .. } => {}
            }
        }
        let follow = match step.config.accept {
            Accept::Anyone => true,
            Accept::Known => store::is_known(step.tx, &welcome.by)?,
            Accept::Ask => false,
        };
        let id = welcome.channel;
        let opened = if follow {
            Opened::of(step, welcome)?
        } else {
            None
        };
        let mut anew = |step: &mut Step<'_, '_>| {
            let addresses = channels
                .values()
                .find(|channel| channel.relay() == relay)
                .map_or_else(Vec::new, |channel| channel.addresses().to_vec());
            let earlier = channels.get_mut(&id);
            if is_in && let Some(earlier) = earlier {
                earlier.abandon(step, welcome.seq)?;
            }
            let earlier = channels.get(&id).map(|channel| &channel.record);
            let channel = Self::begun(relay, addresses, welcome, earlier);
            store::forget_channel_rows(step.tx, &id)?;
            Ok::<_, Error>(channel)
        };
        let channel = match (opened, follow, is_in) {
            (Some(opened), ..) => {
                let mut channel = anew(step)?;
                channel.join_by(step, welcome, opened)?;
                Some(channel)
            }
            (None, true, false) => {
                let mut channel = anew(step)?;
                channel.close(step, Closed::Refused)?;
                Some(channel)
            }
            (None, false, false) => Some(anew(step)?),
            (None, _, true) => None,
        };
        if let Some(channel) = channel {
            channels.insert(id, channel);
        }
        if !follow {
            store::save_welcome(step.tx, welcome)?;
            step.out.events.push(Event::AcceptanceWanted {
                channel: id,
                by: welcome.by,
            });
        }
        uplink.send(step, done);
        Ok(())
    }

    /// A channel to which somebody has added us, and of which we know nothing yet. Of an earlier
    /// membership only what goes on through all of them is kept.
    fn begun(
        relay: RelayKey,
        addresses: Vec<String>,
        welcome: &frame::Welcome,
        earlier: Option<&Record>,
    ) -> Self {
        let state = State::Offered { by: welcome.by };
        let record = Record::new(welcome.channel, String::new(), relay, addresses, state);
        Self::over(record.after(earlier))
    }

    /// The same where it was.
    fn begin_anew(
        &mut self,
        step: &mut Step<'_, '_>,
        welcome: &frame::Welcome,
    ) -> Result<(), Error> {
        let earlier = &self.record;
        *self = Self::begun(
            earlier.relay,
            earlier.addresses.clone(),
            welcome,
            Some(earlier),
        );
        store::forget_channel_rows(step.tx, &self.record.id)
    }

    /// Gives up a membership that has been replaced by a newer one.
    fn abandon(
        &mut self,
        step: &mut Step<'_, '_>,
        seq: skytale_wire::id::Seq,
    ) -> Result<(), Error> {
        if let State::Leaving { command, .. } = &self.record.state {
            step.out.answers.push((*command, Answer::Done));
        }
        step.out.events.push(Event::Pruned {
            channel: self.record.id,
            up_to: seq,
        });
        self.close(step, Closed::Removed)
    }

    /// The application wants in.
    pub(crate) fn accept(&mut self, step: &mut Step<'_, '_>) -> Result<Option<Answer>, Error> {
        let is_in = self.is_in();
        if !is_in && self.record.state.offered_by().is_none() {
            self.must_be_open()?;
            return Ok(Some(Answer::Channel(self.record.id)));
        }
        let Some(welcome) = store::take_welcome(step.tx, &self.record.id)? else {
            if is_in {
                self.must_be_open()?;
                return Ok(Some(Answer::Channel(self.record.id)));
            }
            return Err(Error::Damaged(
                "the Welcome of this channel is missing".into(),
            ));
        };
        store::remember(step.tx, &welcome.by)?;
        if let Some(opened) = Opened::of(step, &welcome)? {
            if is_in {
                self.abandon(step, welcome.seq)?;
                self.begin_anew(step, &welcome)?;
            }
            self.join_by(step, &welcome, opened)?;
            return Ok(Some(Answer::Channel(self.record.id)));
        }
        if !is_in {
            self.close(step, Closed::Refused)?;
        }
        Err(Error::PeerMisbehaved(
            "this Welcome could not be opened: ask to be added again".into(),
        ))
    }

    /// The application does not.
    pub(crate) fn decline(&mut self, step: &mut Step<'_, '_>) -> Result<Option<Answer>, Error> {
        if self.is_in() && store::take_welcome(step.tx, &self.record.id)?.is_some() {
            return Ok(Some(Answer::Done));
        }
        if self.record.state.offered_by().is_none() {
            return Err(Error::Misuse(
                "nobody waits for an answer about this channel".into(),
            ));
        }
        self.close(step, Closed::Declined)?;
        Ok(Some(Answer::Done))
    }

    /// We were removed. Where somebody has added us again since, and the application has not said
    /// whether it wants that, it still may.
    pub(super) fn removed(&mut self, step: &mut Step<'_, '_>) -> Result<(), Error> {
        let again = store::take_welcome(step.tx, &self.record.id)?;
        self.close(step, Closed::Removed)?;
        if let Some(welcome) = again {
            self.begin_anew(step, &welcome)?;
            store::save_welcome(step.tx, &welcome)?;
        }
        Ok(())
    }

    fn is_in(&self) -> bool {
        match &self.record.state {
            State::Active { .. } | State::Leaving { .. } | State::Stuck { .. } => true,
            State::Creating { .. }
            | State::Joining { .. }
            | State::Offered { .. }
            | State::Closed { .. } => false,
        }
    }

    /// Becomes a member by a Welcome that was opened.
    fn join_by(
        &mut self,
        step: &mut Step<'_, '_>,
        welcome: &frame::Welcome,
        opened: Opened,
    ) -> Result<(), Error> {
        let Opened(opened) = opened;
        self.record.generation = opened.policy.generation;
        let (by_last_resort, together) = (opened.by_last_resort, opened.together);
        // What it leads to was checked; what is left can only fail with the vault.
        let _: Group = opened
            .join(step.provider)
            .map_err(|error| Error::Damaged(error.to_string()))?;
        self.enter(step, welcome.seq, Some(welcome.hash))?;
        self.draw_lot(step, together);
        if by_last_resort {
            // Others may have been given the same package: replace the leaf key at once.
            store::add_wish(step.tx, &self.record.id, &NOBODY, &Wish::Rotate)?;
        }
        Ok(())
    }
}

/// A Welcome that leads where it should.
struct Opened(OpenedWelcome);

impl Opened {
    /// Opens it and checks where it leads. `None`, with an event, when it is not good; nothing but the
    /// KeyPackage it was made for has been touched then.
    fn of(step: &mut Step<'_, '_>, welcome: &frame::Welcome) -> Result<Option<Self>, Error> {
        match Self::try_of(step, welcome) {
            Ok(opened) => Ok(Some(opened)),
            Err(MlsError::Storage(text)) => Err(Error::Damaged(text)),
            Err(MlsError::NoKeyPackage) => {
                step.out.events.push(Event::OrphanWelcome {
                    channel: welcome.channel,
                });
                Ok(None)
            }
            Err(MlsError::Refused(why)) => {
                tracing::debug!(channel = %welcome.channel.short(), why, "welcome refused");
                step.out.events.push(Event::Unreadable {
                    channel: welcome.channel,
                    agent: welcome.by,
                    seq: welcome.seq,
                });
                Ok(None)
            }
        }
    }

    fn try_of(step: &mut Step<'_, '_>, welcome: &frame::Welcome) -> Result<Self, MlsError> {
        let me = step.identity.id();
        let opened = OpenedWelcome::open(step.provider, &welcome.body)?;
        if !opened.by_last_resort {
            store::drop_key_package(step.tx, &opened.key_package)
                .map_err(|error| MlsError::Storage(error.to_string()))?;
        }
        let refuse = |why: &str| Err(MlsError::Refused(why.into()));
        let policy = &opened.policy;
        if policy.channel != welcome.channel || opened.group_id() != policy.group().0 {
            return refuse("it leads to another group");
        }
        if opened.sender != welcome.by {
            return refuse("somebody else has added us");
        }
        let mut agents: Vec<_> = opened.leaves.iter().map(|leaf| leaf.agent).collect();
        agents.sort_unstable();
        if !agents.is_sorted_by(|a, b| a < b) || agents.binary_search(&me).is_err() {
            return refuse("its members are not what they should be");
        }
        Ok(Self(opened))
    }
}
