//! One record of a channel's log: a clear header that the relay orders by, and a sealed body.

use minicbor::{Decode, Encode};

use crate::{
    Blob,
    id::{AgentId, Digest, Epoch, InviteId, MessageId, Seq, Time},
};

/// What a record is. The relay needs to know, to order commits and to prune messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A sealed application message.
    #[n(0)]
    Application,
    /// A member's MLS commit.
    #[n(1)]
    Commit,
    /// An external commit: somebody joined by an invite.
    #[n(2)]
    Join,
    /// A signed statement that a member has left.
    #[n(3)]
    Leave,
    /// A message in the log of a SLIM name, in SLIM's first generation.
    #[n(4)]
    SlimMessageOne,
    /// The same in its second.
    #[n(5)]
    SlimMessageTwo,
    /// A commit or proposal of a SLIM group, in the first generation.
    #[n(6)]
    SlimCommitOne,
    /// The same in the second.
    #[n(7)]
    SlimCommitTwo,
}

/// A record as it is stored, and delivered with the same bytes to every member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Envelope {
    /// What it is.
    #[n(0)]
    pub kind: Kind,
    /// The epoch it was made in: a commit ends this epoch. In the log of a SLIM name only commits
    /// and proposals have one, and it is that of their group.
    #[n(1)]
    pub epoch: Epoch,
    /// Who published it, by the relay's word; members compare it with the MLS sender. In the log of
    /// a SLIM name a hash of the address that it came from.
    #[n(2)]
    pub agent: AgentId,
    /// The sender's name for it. In the log of a SLIM name a hash of what makes a message of SLIM
    /// the same one again.
    #[n(3)]
    pub id: MessageId,
    /// The MLS message, or a [`crate::statement::Leave`], or a whole message of SLIM as it came.
    /// Empty once pruned.
    #[n(4)]
    pub body: Blob,
    /// For commits: the encoded [`RosterChange`] that the relay acted on.
    #[n(5)]
    pub change: Option<Blob>,
    /// After retention has dropped the body: what [`Self::content_hash`] was.
    #[n(6)]
    pub pruned: Option<Digest>,
    /// When the relay took it, by the relay's clock. Not covered by the log hash.
    #[n(7)]
    pub received: Time,
}

impl Envelope {
    /// Hash of body and change, which survives pruning.
    pub fn content_hash(&self) -> Digest {
        self.pruned
            .unwrap_or_else(|| content_hash(&self.body, self.change.as_ref()))
    }

    /// The hash of the log up to and including this record, at place `seq`.
    ///
    /// Each member computes it by itself. Two members whose hashes differ at the same place have
    /// been shown different logs.
    pub fn log_hash(&self, previous: &Digest, seq: Seq) -> Digest {
        let kind = [self.kind as u8];
        Digest::of(&[
            b"skytale/1 log",
            &previous.0,
            &seq.0.to_be_bytes(),
            &kind,
            &self.epoch.0.to_be_bytes(),
            &self.agent.0,
            &self.id.0,
            &self.content_hash().0,
        ])
    }

    /// The same record without its body: what retention leaves behind, so that the log hash can
    /// still be computed.
    #[must_use]
    pub fn stub(&self) -> Self {
        Self {
            pruned: Some(self.content_hash()),
            body: Blob::default(),
            change: None,
            ..self.clone()
        }
    }
}

/// Hash of a record's body and roster change. A commit's author recognises its own commit in the
/// log by it, since MLS does not say who sent an encrypted handshake message of one's own.
pub fn content_hash(body: &[u8], change: Option<&Blob>) -> Digest {
    let change: &[u8] = change.map_or(&[], |change| change);
    Digest::of(&[b"skytale/1 content", body, change])
}

/// What a commit does to the roster, in the clear, because the relay must route by it.
///
/// Its hash stands in the commit's authenticated data, and every member compares it with what the
/// commit really does: a declaration that lies is refused by all alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct RosterChange {
    /// Agents that enter.
    #[n(0)]
    pub added: Vec<Grant>,
    /// Agents that go.
    #[n(1)]
    pub removed: Vec<AgentId>,
    /// New rights of agents that stay.
    #[n(2)]
    pub granted: Vec<Grant>,
    /// Invites that become usable.
    #[n(3)]
    pub opened: Vec<OpenInvite>,
    /// Invites that end.
    #[n(4)]
    pub closed: Vec<InviteId>,
}

/// An agent's rights in a channel, as far as the relay enforces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// Whose.
    #[n(0)]
    pub agent: AgentId,
    /// May remove others and change rights.
    #[n(1)]
    pub admin: bool,
    /// May add and invite.
    #[n(2)]
    pub may_invite: bool,
}

/// What the relay may know of an invite: never the half that opens the group's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct OpenInvite {
    /// The Ed25519 half, by which the joiner proves that it holds the line.
    #[n(0)]
    pub signing: Digest,
    /// How many agents may join by it.
    #[n(1)]
    pub uses: u32,
    /// When it ends.
    #[n(2)]
    pub expires: Time,
}

impl OpenInvite {
    /// The invite's id.
    pub fn id(&self) -> InviteId {
        InviteId::of(&self.signing.0)
    }
}

/// A place and the log hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Place {
    /// The place.
    #[n(0)]
    pub seq: Seq,
    /// [`Envelope::content_hash`] of the record that stands there.
    #[n(1)]
    pub content: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_keeps_the_log_hash() {
        let record = Envelope {
            kind: Kind::Application,
            epoch: Epoch(3),
            agent: AgentId([1; 32]),
            id: MessageId([2; 16]),
            body: b"sealed".to_vec().into(),
            change: None,
            pruned: None,
            received: Time(5),
        };
        let before = Digest::of(&[b"before"]);

        assert_eq!(
            record.log_hash(&before, Seq(9)),
            record.stub().log_hash(&before, Seq(9))
        );
        assert_ne!(
            record.log_hash(&before, Seq(9)),
            record.log_hash(&before, Seq(10))
        );
        assert!(record.stub().body.is_empty());
    }
}
