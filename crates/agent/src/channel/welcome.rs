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
        if let Some(channel) = channels.get_mut(&welcome.channel) {
            match &channel.record.state {
                State::Active { .. } | State::Leaving { .. } | State::Stuck { .. }
                    if welcome.seq > channel.record.cursor =>
                {
                    // While we were away we were removed and added again, or the channel went on
                    // without us: what lies between stays unread.
                    channel.abandon(step, welcome.seq)?;
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
        let addresses = channels
            .values()
            .find(|channel| channel.relay() == relay)
            .map_or_else(Vec::new, |channel| channel.addresses().to_vec());
        let state = State::Offered { by: welcome.by };
        let earlier = channels.get(&id).map(|channel| &channel.record);
        let mut channel =
            Self::over(Record::new(id, String::new(), relay, addresses, state).after(earlier));
        store::forget_channel_rows(step.tx, &id)?;
        if follow {
            channel.join_by(step, welcome)?;
        } else {
            store::save_welcome(step.tx, welcome)?;
            step.out.events.push(Event::AcceptanceWanted {
                channel: id,
                by: welcome.by,
            });
        }
        channels.insert(id, channel);
        uplink.send(step, done);
        Ok(())
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
        let State::Offered { by } = &self.record.state else {
            self.must_be_open()?;
            return Ok(Some(Answer::Channel(self.record.id)));
        };
        store::remember(step.tx, by)?;
        let Some(welcome) = store::take_welcome(step.tx, &self.record.id)? else {
            return Err(Error::Damaged(
                "the Welcome of this channel is missing".into(),
            ));
        };
        self.join_by(step, &welcome)?;
        match &self.record.state {
            State::Active { .. } => Ok(Some(Answer::Channel(self.record.id))),
            State::Creating { .. }
            | State::Joining { .. }
            | State::Offered { .. }
            | State::Leaving { .. }
            | State::Stuck { .. }
            | State::Closed { .. } => Err(Error::PeerMisbehaved(
                "this Welcome could not be opened: ask to be added again".into(),
            )),
        }
    }

    /// The application does not.
    pub(crate) fn decline(&mut self, step: &mut Step<'_, '_>) -> Result<Option<Answer>, Error> {
        if self.record.state.offered_by().is_none() {
            return Err(Error::Misuse(
                "nobody waits for an answer about this channel".into(),
            ));
        }
        self.close(step, Closed::Declined)?;
        Ok(Some(Answer::Done))
    }

    /// Opens the Welcome, checks where it leads, and becomes a member.
    fn join_by(&mut self, step: &mut Step<'_, '_>, welcome: &frame::Welcome) -> Result<(), Error> {
        match self.open_and_join(step, welcome) {
            Ok(came) => {
                self.enter(step, welcome.seq, Some(welcome.hash))?;
                self.draw_lot(step, came.together);
                if came.by_last_resort {
                    // Others may have been given the same package: replace the leaf key at once.
                    store::add_wish(step.tx, &self.record.id, &NOBODY, &Wish::Rotate)?;
                }
                Ok(())
            }
            Err(MlsError::Storage(text)) => Err(Error::Damaged(text)),
            Err(MlsError::NoKeyPackage) => {
                step.out.events.push(Event::OrphanWelcome {
                    channel: welcome.channel,
                });
                self.close(step, Closed::Refused)
            }
            Err(MlsError::Refused(why)) => {
                tracing::debug!(channel = %welcome.channel.short(), why, "welcome refused");
                step.out.events.push(Event::Unreadable {
                    channel: welcome.channel,
                    agent: welcome.by,
                    seq: welcome.seq,
                });
                self.close(step, Closed::Refused)
            }
        }
    }

    fn open_and_join(
        &mut self,
        step: &mut Step<'_, '_>,
        welcome: &frame::Welcome,
    ) -> Result<Came, MlsError> {
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
        self.record.generation = policy.generation;
        let came = Came {
            by_last_resort: opened.by_last_resort,
            together: opened.together,
        };
        let _: Group = opened.join(step.provider)?;
        Ok(came)
    }
}

/// How we came in.
struct Came {
    /// By a KeyPackage that others may have been given as well.
    by_last_resort: bool,
    /// How many came by the same commit, ourselves among them.
    together: usize,
}
