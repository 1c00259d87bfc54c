//! One channel as the hub holds it: what is stored of it, and what only this run knows.

use minicbor::{Decode, Encode};
use skytale_wire::{
    envelope::Place,
    frame::{decode, encode},
    id::{AgentId, ChannelId, Digest, Epoch, Generation, InviteId, MessageId, Seq, Time},
};

use super::{Conn, Ticket, retention, roster::Roster, subscriptions::Subscriber};
use crate::{
    archive::{ArchiveError, StoredChannel},
    limits::Bucket,
};

/// A channel in memory. `head` and `kept` run ahead of the disk; what is durable stands beside.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) kept: Kept,
    /// The last place given away.
    pub(super) head: Seq,
    /// The log hash there.
    pub(super) hash: Digest,
    /// The last place that is stored.
    pub(super) durable: Seq,
    /// The epoch after the record there.
    pub(super) durable_epoch: Epoch,
    /// The last write on its way that changes more than the head: what depends on it waits.
    pub(super) unsettled: Option<Ticket>,
    /// Bodies up to here are gone.
    pub(super) pruned: Seq,
    /// A prune is on its way.
    pub(super) pruning: bool,
    /// Who reads live or is catching up, in the order of their connections.
    pub(super) subscribers: Vec<Subscriber>,
    /// Joiners that wait for a `GroupInfo` sealed afresh.
    pub(super) wanting: Vec<Wanting>,
    /// How often members have been asked to seal.
    pub(super) calls: Bucket,
    /// Which member is asked next, so that one that cannot seal does not block the others.
    pub(super) next_called: usize,
}

/// What is stored of a channel, besides head and hash, which stand with each record.
///
/// Unknown keys are skipped and new ones will be optional, so that an older state stays readable.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Kept {
    #[n(0)]
    pub(super) epoch: Epoch,
    #[n(1)]
    pub(super) generation: Generation,
    /// The account that answers for it.
    #[n(2)]
    pub(super) owner: String,
    #[n(3)]
    pub(super) creator: AgentId,
    /// The id of the request that created it.
    #[n(4)]
    pub(super) created: MessageId,
    #[n(5)]
    pub(super) roster: Roster,
    /// The commits that ended the last epochs, to name them to losers.
    #[n(6)]
    pub(super) winners: Vec<Winner>,
    /// When records came, roughly, for retention.
    #[n(7)]
    pub(super) marks: Vec<Mark>,
}

/// The commit that ended an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Winner {
    #[n(0)]
    pub(super) epoch: Epoch,
    #[n(1)]
    pub(super) place: Place,
}

/// Every record up to `seq` had come at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Mark {
    #[n(0)]
    pub(super) seq: Seq,
    #[n(1)]
    pub(super) at: Time,
}

/// A joiner that waits for a `GroupInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanting {
    pub(super) conn: Conn,
    pub(super) id: MessageId,
    pub(super) invite: InviteId,
}

impl Channel {
    /// A channel that nobody but its creator knows.
    pub(super) fn founded(creator: AgentId, created: MessageId, owner: String) -> Self {
        let kept = Kept {
            epoch: Epoch(0),
            generation: Generation(0),
            owner,
            creator,
            created,
            roster: Roster::founded_by(creator),
            winners: Vec::new(),
            marks: Vec::new(),
        };
        Self::at(kept, Seq(0), Digest([0; 32]), Seq(0))
    }

    /// A channel as the archive holds it.
    pub(super) fn from_stored(stored: &StoredChannel) -> Result<Self, ArchiveError> {
        let kept: Kept = decode(&stored.state, usize::MAX).map_err(|error| {
            ArchiveError::Damaged(format!(
                "the state of channel {} cannot be read: {error}",
                stored.channel.short()
            ))
        })?;
        Ok(Self::at(kept, stored.head, stored.hash, stored.pruned))
    }

    fn at(kept: Kept, head: Seq, hash: Digest, pruned: Seq) -> Self {
        Self {
            durable_epoch: kept.epoch,
            kept,
            head,
            hash,
            durable: head,
            unsettled: None,
            pruned,
            pruning: false,
            subscribers: Vec::new(),
            wanting: Vec::new(),
            calls: Bucket::default(),
            next_called: 0,
        }
    }

    /// Keeps what only memory knew, after the stored part was loaded again.
    pub(super) fn take_over(&mut self, before: Self) {
        self.subscribers = before.subscribers;
        self.wanting = before.wanting;
        self.calls = before.calls;
        self.next_called = before.next_called;
        let agents: Vec<AgentId> = self.kept.roster.members().copied().collect();
        for agent in agents {
            if let (Some(now), Some(then)) = (
                self.kept.roster.member_mut(&agent),
                before.kept.roster.member(&agent),
            ) {
                // A cursor may be ahead of the stored one, never ahead of the log.
                now.seen = now.seen.max(then.seen.min(self.head));
                now.commits = then.commits;
            }
        }
    }

    /// The stored form of the part that changes rarely.
    pub(super) fn state(&self) -> bytes::Bytes {
        encode(&self.kept).into()
    }

    /// The MLS group that the channel is at present.
    pub(super) fn group(&self, id: &ChannelId) -> Digest {
        id.group_id(self.kept.generation)
    }

    /// The commit that ended `epoch`, when that is not long ago.
    pub(super) fn winner(&self, epoch: Epoch) -> Option<Place> {
        let winners = self.kept.winners.iter().rev();
        winners
            .clone()
            .find(|winner| winner.epoch == epoch)
            .map(|winner| winner.place)
    }

    /// Remembers which commit ended the current epoch, and goes to the next.
    pub(super) fn end_epoch(&mut self, place: Place) {
        let epoch = self.kept.epoch;
        self.kept.winners.push(Winner { epoch, place });
        let surplus = self.kept.winners.len().saturating_sub(WINNERS_MAX);
        self.kept.winners.drain(..surplus);
        self.kept.epoch = epoch.next();
    }

    /// Notes that the record at `seq` came now, when the last note is older than `spacing_ms`.
    /// Whether there is something new to store.
    pub(super) fn mark(&mut self, seq: Seq, now: Time, spacing_ms: u64) -> bool {
        retention::mark(&mut self.kept.marks, seq, now, spacing_ms)
    }
}

/// Commits that are remembered by the epoch they ended.
const WINNERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Channel {
        let mut channel = Channel::founded(AgentId([1; 32]), MessageId([2; 16]), "acc".to_owned());
        let place = |n: u8| Place {
            seq: Seq(u64::from(n)),
            content: Digest([n; 32]),
        };
        for n in 1..=10 {
            channel.end_epoch(place(n));
        }
        channel.mark(Seq(10), Time(5), 0);
        channel
    }

    fn stored(state: Vec<u8>) -> StoredChannel {
        StoredChannel {
            channel: ChannelId([7; 32]),
            state: state.into(),
            head: Seq(10),
            hash: Digest([9; 32]),
            pruned: Seq(3),
        }
    }

    #[test]
    fn a_state_reads_back_what_was_stored() {
        let before = channel();

        let after = Channel::from_stored(&stored(before.state().to_vec())).unwrap();

        assert_eq!(after.kept, before.kept);
        assert_eq!((after.head, after.durable), (Seq(10), Seq(10)));
        assert_eq!(after.durable_epoch, Epoch(10));
        assert_eq!(after.pruned, Seq(3));
        assert_eq!(after.winner(Epoch(9)).map(|place| place.seq), Some(Seq(10)));
        assert_eq!(after.winner(Epoch(0)), None);
    }

    #[test]
    fn a_state_from_a_newer_version_is_read_and_a_damaged_one_refused() {
        let state = channel().state().to_vec();

        // A map of eight entries becomes one of nine, whose last key is unknown.
        let mut newer = state.clone();
        assert_eq!(newer[0], 0xa8);
        newer[0] = 0xa9;
        newer.extend_from_slice(&[0x18, 99, 0x61, b'x']);
        assert_eq!(
            Channel::from_stored(&stored(newer)).unwrap().kept,
            channel().kept
        );

        for end in 0..state.len() {
            let cut = Channel::from_stored(&stored(state[..end].to_vec()));
            assert!(matches!(cut, Err(ArchiveError::Damaged(_))), "at {end}");
        }
    }
}
