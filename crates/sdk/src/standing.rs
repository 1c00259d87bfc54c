//! How far an agent is with one relay: told by what has passed over the present connection.
//!
//! The mind knows too, but keeps it to itself; the frames that it has answered say the same. Only
//! those of committed steps are looked at, so what is seen here is in the vault as well.

use std::collections::BTreeMap;

use skytale_agent::view::{ChannelState, ChannelView};
use skytale_wire::{
    frame::{ToAgent, ToRelay},
    id::{ChannelId, MessageId, Seq},
    refusal::Remedy,
};

/// One connection, from its beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    let_in: bool,
    /// Welcomes that the mailbox still holds.
    welcomes: u32,
    /// KeyPackages that are on their way.
    uploading: Option<MessageId>,
    subscribing: BTreeMap<MessageId, ChannelId>,
    /// The newest place of each channel's log when it was subscribed to.
    heads: BTreeMap<ChannelId, Seq>,
}

impl Standing {
    /// The relay has said this, and the mind has dealt with it.
    pub(crate) fn heard(&mut self, frame: &ToAgent) {
        if let ToAgent::Ready(ready) = frame {
            self.let_in = true;
            self.welcomes = ready.welcomes;
        } else if let ToAgent::Welcome(_) = frame {
            self.welcomes = self.welcomes.saturating_sub(1);
        } else if let ToAgent::KeyPackagesKept(kept) = frame {
            self.answered(&kept.id);
        } else if let ToAgent::Subscribed(subscribed) = frame {
            self.subscribing.remove(&subscribed.id);
            self.heads.insert(subscribed.channel, subscribed.head);
        } else if let ToAgent::Nack(nack) = frame {
            self.answered(&nack.id);
            if let Some(channel) = self.subscribing.remove(&nack.id)
                && nack.refusal.remedy() != Remedy::Retry
            {
                // There is nothing to read where we are not let in.
                self.heads.insert(channel, Seq(0));
            }
        }
    }

    /// The mind says this.
    pub(crate) fn said(&mut self, frame: &ToRelay) {
        if let ToRelay::PutKeyPackages(upload) = frame {
            self.uploading = Some(upload.id);
        } else if let ToRelay::Subscribe(subscribe) = frame {
            self.heads.remove(&subscribe.channel);
            self.subscribing.insert(subscribe.id, subscribe.channel);
        }
    }

    /// Whether we are let in, and no KeyPackages are missing that the relay has not confirmed.
    pub(crate) fn is_stocked(&self) -> bool {
        self.let_in && self.uploading.is_none()
    }

    /// Whether every Welcome has been taken out of the mailbox.
    pub(crate) fn has_emptied_mailbox(&self) -> bool {
        self.let_in && self.welcomes == 0
    }

    /// Whether everything has been read that this channel of the relay's held when we came.
    pub(crate) fn has_read(&self, channel: &ChannelView) -> bool {
        let head = self.heads.get(&channel.id);
        !Self::may_grow(channel) || head.is_some_and(|head| channel.cursor >= *head)
    }

    /// Whether there can be anything to read in a channel.
    pub(crate) fn may_grow(channel: &ChannelView) -> bool {
        match channel.state {
            ChannelState::Active => true,
            ChannelState::Creating
            | ChannelState::Joining
            | ChannelState::Offered(_)
            | ChannelState::Leaving
            | ChannelState::Stuck
            | ChannelState::Closed(_) => false,
        }
    }

    fn answered(&mut self, id: &MessageId) {
        if self.uploading == Some(*id) {
            self.uploading = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use skytale_wire::{
        frame::{
            KeyPackagesKept, Nack, PROTOCOL, PutKeyPackages, Ready, Subscribe, Subscribed, Welcome,
        },
        id::{AgentId, Digest, Epoch, RelayKey, Time},
        refusal::Refusal,
    };

    use super::*;

    const PLAN: ChannelId = ChannelId([1; 32]);

    fn ready(welcomes: u32) -> ToAgent {
        ToAgent::Ready(Ready {
            version: PROTOCOL,
            now: Time(0),
            expires: Time(0),
            body_bytes_max: 0,
            key_packages: 0,
            welcomes,
            last_resort: false,
            traffic: None,
            slim_bytes_max: None,
        })
    }

    fn subscribe(id: u8) -> ToRelay {
        ToRelay::Subscribe(Subscribe {
            channel: PLAN,
            id: MessageId([id; 16]),
            after: Seq(0),
        })
    }

    fn at(cursor: u64) -> ChannelView {
        ChannelView {
            id: PLAN,
            name: None,
            state: ChannelState::Active,
            relay: RelayKey([2; 32]),
            epoch: Epoch(0),
            cursor: Seq(cursor),
            members: 1,
            confirmed: true,
            admin: true,
            may_invite: true,
            unread: 0,
            outbox: 0,
        }
    }

    #[test]
    fn an_upload_counts_until_it_is_kept_or_refused() {
        let mut standing = Standing::default();
        assert!(!standing.is_stocked(), "not let in yet");
        let upload = |id| {
            ToRelay::PutKeyPackages(PutKeyPackages {
                id: MessageId([id; 16]),
                packages: Vec::new(),
                last_resort: None,
            })
        };
        let kept = |id| {
            ToAgent::KeyPackagesKept(KeyPackagesKept {
                id: MessageId([id; 16]),
                key_packages: 30,
            })
        };

        standing.heard(&ready(0));
        standing.said(&upload(1));
        standing.heard(&kept(9));
        assert!(!standing.is_stocked());
        standing.heard(&kept(1));
        assert!(standing.is_stocked());

        standing.said(&upload(2));
        standing.heard(&ToAgent::Nack(Nack {
            id: MessageId([2; 16]),
            channel: None,
            refusal: Refusal::Unavailable,
            epoch: None,
            winner: None,
        }));
        assert!(standing.is_stocked());
    }

    #[test]
    fn a_channel_is_read_when_the_cursor_has_reached_where_the_log_ended() {
        let mut standing = Standing::default();
        standing.heard(&ready(0));
        assert!(!standing.has_read(&at(7)), "not subscribed to yet");

        standing.said(&subscribe(1));
        standing.heard(&ToAgent::Subscribed(Subscribed {
            channel: PLAN,
            id: MessageId([1; 16]),
            epoch: Epoch(0),
            head: Seq(7),
            hash: None,
            after: Seq(0),
        }));
        assert!(!standing.has_read(&at(6)));
        assert!(standing.has_read(&at(7)));

        standing.said(&subscribe(2));
        assert!(!standing.has_read(&at(7)), "asked again, so not known");
    }

    #[test]
    fn the_mailbox_is_empty_when_all_welcomes_have_come() {
        let mut standing = Standing::default();
        assert!(!standing.has_emptied_mailbox());
        standing.heard(&ready(1));
        assert!(!standing.has_emptied_mailbox());
        standing.heard(&ToAgent::Welcome(Welcome {
            id: MessageId([3; 16]),
            channel: PLAN,
            seq: Seq(1),
            body: Vec::new().into(),
            by: AgentId([4; 32]),
            hash: Digest([0; 32]),
        }));
        assert!(standing.has_emptied_mailbox());
    }
}
