//! The talk with one relay: who we are, what we have asked and not heard yet, KeyPackages.
//!
//! It lasts as long as the connection and is never stored: whatever was open when a connection
//! broke is asked again on the next one, and the relay answers the same.

use std::collections::BTreeMap;

use rand::Rng as _;
use skytale_wire::{
    Blob,
    frame::{self, Credential, GuestProof, Hello, Nack, PROTOCOL, ToAgent, ToRelay},
    id::{AgentId, ChannelId, MessageId, RelayKey, Time, TransportKey},
    refusal::Refusal,
    statement,
};

use crate::{Error, Event, agent::Step, channel::Channel, mls::KeyPackage, store};

/// One connection to a relay.
#[derive(Debug)]
pub(crate) struct Session {
    relay: RelayKey,
    transport: TransportKey,
    shown: Shown,
    uplink: Uplink,
    /// KeyPackages that the relay holds, by its own word, and whether a last-resort one.
    key_packages: u32,
    last_resort: bool,
    /// The same by our count, those left out that the relay will soon drop.
    young: (u32, bool),
    /// When our KeyPackages are looked through next.
    tend_at: Time,
    /// Welcomes that the mailbox still holds, as far as we know: they come a few at a time.
    welcomes: u32,
    /// KeyPackages that are still to be made and uploaded, a few at a time.
    missing: u32,
    /// An upload of KeyPackages is on its way.
    uploading: Option<MessageId>,
    /// So is something new that we show the relay.
    renewing: Option<MessageId>,
}

/// What we showed the relay to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Token,
    Invite(ChannelId),
    Member,
}

/// Where a channel puts what it has to say. Frames are only taken while the relay listens.
#[derive(Debug)]
pub(crate) enum Uplink {
    /// No connection, or no Ready yet.
    Down,
    /// The relay listens.
    Ready {
        /// Which.
        relay: RelayKey,
        /// Questions whose answers name no channel.
        asked: BTreeMap<MessageId, Asked>,
        /// A guest that shows an invite is let into that channel only.
        only: Option<ChannelId>,
    },
}

/// A question whose answer is for this channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// For a KeyPackage of an agent that a channel wants to add.
    KeyPackage(ChannelId, AgentId),
    /// For the group's state behind an invite.
    GroupInfo(ChannelId),
}

impl Uplink {
    /// Sends, or drops when nobody listens: what matters is said again on the next connection.
    pub(crate) fn send(&self, step: &mut Step<'_, '_>, frame: ToRelay) {
        if let Self::Ready { relay, .. } = self {
            step.out.frames.push((*relay, frame));
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Whether the relay listens to us about this channel.
    pub(crate) fn serves(&self, channel: &ChannelId) -> bool {
        match self {
            Self::Down => false,
            Self::Ready { only, .. } => only.is_none_or(|only| only == *channel),
        }
    }

    /// Notes a question, so that its answer finds the channel.
    pub(crate) fn ask(&mut self, id: MessageId, about: Asked) {
        if let Self::Ready { asked, .. } = self {
            asked.insert(id, about);
        }
    }

    fn answered(&mut self, id: &MessageId) -> Option<Asked> {
        match self {
            Self::Down => None,
            Self::Ready { asked, .. } => asked.remove(id),
        }
    }
}

impl Session {
    /// The connection is up: Hello.
    pub(crate) fn greet(
        step: &mut Step<'_, '_>,
        channels: &BTreeMap<ChannelId, Channel>,
        relay: RelayKey,
        transport: TransportKey,
        token: Option<String>,
    ) -> Self {
        let guest = channels
            .values()
            .filter(|channel| channel.relay() == relay)
            .find_map(|channel| Some((channel.id(), channel.unused_invite()?)));
        let (shown, credential) = match (token, guest) {
            (Some(token), _) => (Shown::Token, Credential::Token(token)),
            (None, Some((channel, seed))) => {
                let said = statement::guest(&relay, &transport, &step.identity.id(), &channel);
                let proof = GuestProof {
                    channel,
                    invite: seed.id(),
                    signature: seed.sign(&said),
                };
                (Shown::Invite(channel), Credential::Invite(proof))
            }
            (None, None) => (Shown::Member, Credential::Member),
        };
        let session = Self {
            relay,
            transport,
            shown,
            uplink: Uplink::Down,
            key_packages: 0,
            last_resort: false,
            young: (0, false),
            tend_at: step.now,
            welcomes: 0,
            missing: 0,
            uploading: None,
            renewing: None,
        };
        let hello = Hello {
            version: PROTOCOL,
            agent: step.identity.id(),
            proof: session.prove(step, &credential),
            credential,
            // The body's wish, added where the line begins.
            traffic: None,
        };
        step.out.frames.push((relay, ToRelay::Hello(hello)));
        session
    }

    fn prove(&self, step: &Step<'_, '_>, credential: &Credential) -> skytale_wire::id::Signed {
        step.identity.sign(&statement::identity(
            &self.relay,
            &self.transport,
            &credential.hash(),
        ))
    }

    /// Shows a new token, or the mere identity once a guest has become a member.
    pub(crate) fn renew(&mut self, step: &mut Step<'_, '_>, token: Option<String>) {
        let (shown, credential) = match token {
            Some(token) => (Shown::Token, Credential::Token(token)),
            None => (Shown::Member, Credential::Member),
        };
        self.shown = shown;
        let id = fresh_id(step);
        self.renewing = Some(id);
        let renew = frame::Renew {
            id,
            proof: self.prove(step, &credential),
            credential,
        };
        let frame = ToRelay::Renew(renew);
        self.uplink.send(step, frame);
    }

    pub(crate) fn uplink(&mut self) -> &mut Uplink {
        &mut self.uplink
    }

    /// Gives a frame to whom it concerns.
    pub(crate) fn receive(
        &mut self,
        step: &mut Step<'_, '_>,
        channels: &mut BTreeMap<ChannelId, Channel>,
        frame: ToAgent,
    ) -> Result<(), Error> {
        match frame {
            ToAgent::Ready(ready) => self.ready(step, &ready),
            ToAgent::Created(created) => with(channels, &created.channel, |channel| {
                channel.created(step);
                Ok(())
            }),
            ToAgent::Published(published) => with(channels, &published.channel, |channel| {
                channel.published(step, &published.id, published.seq)
            }),
            ToAgent::Ack(ack) => with(channels, &ack.channel, |channel| {
                channel.acknowledged(step, &ack.id, ack.seq)
            }),
            ToAgent::Nack(nack) => self.refused(step, channels, &nack),
            ToAgent::Subscribed(subscribed) => with(channels, &subscribed.channel, |channel| {
                channel.subscribed(step, &subscribed)
            }),
            ToAgent::Deliver(deliver) => with(channels, &deliver.channel, |channel| {
                channel.receive(step, deliver.seq, deliver.record)
            }),
            ToAgent::Pruned(pruned) => with(channels, &pruned.channel, |channel| {
                channel.pruned(step, pruned.up_to);
                Ok(())
            }),
            ToAgent::KeyPackagesKept(kept) => {
                if self.uploading == Some(kept.id) {
                    self.uploading = None;
                    self.key_packages = kept.key_packages;
                    self.last_resort = true;
                    store::note_key_packages(step.tx, &self.relay, kept.key_packages)?;
                }
                Ok(())
            }
            ToAgent::KeyPackage(package) => match self.uplink.answered(&package.id) {
                Some(Asked::KeyPackage(channel, agent)) => with(channels, &channel, |channel| {
                    channel.key_package(step, agent, &package.package)
                }),
                Some(Asked::GroupInfo(_)) | None => Ok(()),
            },
            ToAgent::Welcome(welcome) => {
                Channel::welcome(step, channels, self.relay, &welcome, &self.uplink)?;
                self.welcomes = self.welcomes.saturating_sub(1);
                self.take_welcomes(step);
                // One KeyPackage less: the relay tells its own count only at the beginning.
                self.count_key_packages(step)
            }
            ToAgent::GroupInfo(info) => {
                self.uplink.answered(&info.id);
                with(channels, &info.channel, |channel| {
                    channel.group_info(step, &info, &mut self.uplink)
                })
            }
            ToAgent::GroupInfoWanted(wanted) => with(channels, &wanted.channel, |channel| {
                channel.want_sealing();
                Ok(())
            }),
            ToAgent::Renewed(_) => {
                if let (Shown::Token | Shown::Member, Uplink::Ready { only, .. }) =
                    (self.shown, &mut self.uplink)
                {
                    *only = None;
                }
                Ok(())
            }
            // SLIM's names are the body's business, not the mind's.
            ToAgent::Pong(_)
            | ToAgent::SlimSubscribed(_)
            | ToAgent::SlimPublished(_)
            | ToAgent::SlimDeliver(_)
            | ToAgent::SlimLogs(_) => Ok(()),
            ToAgent::Closing(closing) => self.closing(step, channels, closing.refusal),
        }
    }

    fn ready(&mut self, step: &mut Step<'_, '_>, ready: &frame::Ready) -> Result<(), Error> {
        self.key_packages = ready.key_packages;
        self.last_resort = ready.last_resort;
        self.uplink = Uplink::Ready {
            relay: self.relay,
            asked: BTreeMap::new(),
            only: match self.shown {
                Shown::Invite(channel) => Some(channel),
                Shown::Token | Shown::Member => None,
            },
        };
        step.out.events.push(Event::Connected { relay: self.relay });
        let clock_ahead = store::signed(ready.now.0) - store::signed(step.now.0);
        store::note_relay(step.tx, &self.relay, ready.key_packages, clock_ahead)?;
        self.welcomes = ready.welcomes;
        self.take_welcomes(step);
        self.count_key_packages(step)
    }

    fn take_welcomes(&self, step: &mut Step<'_, '_>) {
        if self.welcomes > 0 {
            self.uplink
                .send(step, ToRelay::TakeWelcome(frame::TakeWelcome {}));
        }
    }

    fn refused(
        &mut self,
        step: &mut Step<'_, '_>,
        channels: &mut BTreeMap<ChannelId, Channel>,
        nack: &Nack,
    ) -> Result<(), Error> {
        if self.uploading == Some(nack.id) {
            // Tried again on the next connection.
            return Ok(());
        }
        if self.renewing == Some(nack.id) {
            // What we show now does not let us in: a new connection may show something else.
            step.out.close.push(self.relay);
            return Ok(());
        }
        let about = self.uplink.answered(&nack.id);
        let channel = match about {
            Some(Asked::KeyPackage(channel, _) | Asked::GroupInfo(channel)) => Some(channel),
            None => nack.channel,
        };
        let Some(channel) = channel else {
            return Ok(());
        };
        with(channels, &channel, |channel| {
            channel.refused(step, nack, about, &mut self.uplink)
        })
    }

    /// The relay ends the connection. What that means for a join that waits is told here; the
    /// rest is the SDK's, which connects again or not.
    fn closing(
        &mut self,
        step: &mut Step<'_, '_>,
        channels: &mut BTreeMap<ChannelId, Channel>,
        refusal: Refusal,
    ) -> Result<(), Error> {
        if let (Shown::Invite(channel), Uplink::Down) = (self.shown, &self.uplink) {
            with(channels, &channel, |channel| {
                channel.guest_refused(step, refusal)
            })?;
        }
        Ok(())
    }

    /// Keeps the relay's stock of our KeyPackages full, and widens a guest's permit once its
    /// join is done.
    pub(crate) fn work(
        &mut self,
        step: &mut Step<'_, '_>,
        channels: &BTreeMap<ChannelId, Channel>,
    ) -> Result<(), Error> {
        if !self.uplink.is_ready() {
            return Ok(());
        }
        if let Shown::Invite(channel) = self.shown {
            if channels
                .get(&channel)
                .is_none_or(|channel| channel.unused_invite().is_none())
            {
                self.renew(step, None);
            } else {
                return Ok(());
            }
        }
        if step.now >= self.tend_at && self.welcomes == 0 {
            self.tend_key_packages(step)?;
        }
        let (young, young_last_resort) = self.young;
        let held = self.key_packages.min(young);
        let last_resort_held = self.last_resort && young_last_resort;
        let low = step.config.key_packages / 3;
        if self.uploading.is_some() || step.config.key_packages == 0 {
            return Ok(());
        }
        if self.missing == 0 {
            if held > low && last_resort_held {
                return Ok(());
            }
            // From here on it counts what is made, and not what the relay says it has taken.
            self.missing = step.config.key_packages.saturating_sub(held);
        }
        let together = self.missing.min(TOGETHER_MAX);
        self.missing -= together;
        let packages = (0..together)
            .map(|_| self.make_key_package(step, false))
            .collect::<Result<Vec<_>, _>>()?;
        let last_resort = if last_resort_held {
            None
        } else {
            Some(self.make_key_package(step, true)?)
        };
        let id = fresh_id(step);
        self.uploading = Some(id);
        let upload = frame::PutKeyPackages {
            id,
            packages,
            last_resort,
        };
        self.uplink.send(step, ToRelay::PutKeyPackages(upload));
        self.count_key_packages(step)
    }

    /// When it wants to be woken.
    pub(crate) fn wake(&self, now: Time) -> Option<Time> {
        Some(self.tend_at).filter(|at| self.uplink.is_ready() && *at > now)
    }

    fn make_key_package(&self, step: &Step<'_, '_>, last_resort: bool) -> Result<Blob, Error> {
        let package = KeyPackage::make(step.provider, step.identity, last_resort)?;
        store::note_key_package(step.tx, &package.name, &self.relay, step.now, last_resort)?;
        Ok(package.bytes.into())
    }

    fn count_key_packages(&mut self, step: &Step<'_, '_>) -> Result<(), Error> {
        let since = Time(step.now.0.saturating_sub(KEY_PACKAGE_YOUNG_MS));
        self.young = store::young_key_packages(step.tx, &self.relay, since)?;
        Ok(())
    }

    /// Private halves whose public half nobody can use any more are deleted: whoever steals the
    /// vault later must not open a Welcome of long ago. Only done while no Welcome waits, which
    /// may be for a KeyPackage that was handed out long ago.
    fn tend_key_packages(&mut self, step: &Step<'_, '_>) -> Result<(), Error> {
        self.tend_at = step.now.plus(TEND_MS);
        store::date_key_packages(step.tx, step.now)?;
        let ago = |ms| Time(step.now.0.saturating_sub(ms));
        let (here, anywhere) = (ago(KEY_PACKAGE_KEPT_MS), ago(KEY_PACKAGE_KEPT_ANYWHERE_MS));
        for name in store::old_key_packages(step.tx, &self.relay, here, anywhere)? {
            KeyPackage::forget(step.provider, &name);
            store::drop_key_package(step.tx, &name)?;
        }
        self.count_key_packages(step)
    }
}

/// KeyPackages of one upload. The next one waits for the answer to it, so that on a line with few
/// slots a request of the application does not stand behind all of them.
const TOGETHER_MAX: u32 = 5;
/// A relay hands a KeyPackage out for 30 days; two days before they are over it gets new ones.
const KEY_PACKAGE_YOUNG_MS: u64 = 28 * DAY_MS;
/// The private half stays for another week: who was given the public half on the last day may have
/// lost its line with the commit already made.
const KEY_PACKAGE_KEPT_MS: u64 = 37 * DAY_MS;
/// Where we may not come any more, it goes when the relay need not have kept the commit either.
const KEY_PACKAGE_KEPT_ANYWHERE_MS: u64 = 90 * DAY_MS;
/// How often KeyPackages are looked through.
const TEND_MS: u64 = DAY_MS;
const DAY_MS: u64 = 24 * 3_600_000;

/// Does something with a channel that we have; what concerns another one is ignored.
fn with(
    channels: &mut BTreeMap<ChannelId, Channel>,
    id: &ChannelId,
    then: impl FnOnce(&mut Channel) -> Result<(), Error>,
) -> Result<(), Error> {
    channels.get_mut(id).map_or(Ok(()), then)
}

/// An id that nobody has used.
pub(crate) fn fresh_id(step: &mut Step<'_, '_>) -> MessageId {
    let mut id = [0; 16];
    step.rng.fill_bytes(&mut id);
    MessageId(id)
}

#[cfg(test)]
mod tests;
