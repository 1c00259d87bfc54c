//! Who may do what in a channel: a record in the group's encrypted context, and the one judge of
//! every commit.
//!
//! [`Policy::judge`] is a pure function of group state and bytes, never of a clock, so that all
//! members come to the same verdict. What it compares with, the relay's declared roster change,
//! is computed here too: a commit that declares something else than it does is refused by all.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use skytale_wire::{
    envelope::{Grant, OpenInvite, RosterChange},
    frame::{ADDS_MAX, INVITES_MAX},
    id::{AgentId, ChannelId, Digest, Generation, InviteId, Signed, Time, verify},
    name::ChannelName,
    statement,
};

/// A channel's rules, as they stand in the group context.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Policy {
    /// The channel that this group belongs to.
    #[n(0)]
    pub(crate) channel: ChannelId,
    /// How often it was restarted.
    #[n(1)]
    pub(crate) generation: Generation,
    /// Its readable name, which no server sees.
    #[n(2)]
    pub(crate) name: ChannelName,
    /// Members that may remove others and change this record, sorted.
    #[n(3)]
    pub(crate) admins: Vec<AgentId>,
    /// Members that may add and invite, sorted.
    #[n(4)]
    pub(crate) inviters: Vec<AgentId>,
    /// Invites that are open, in the order they were made.
    #[n(5)]
    pub(crate) invites: Vec<PolicyInvite>,
}

/// An invite as members know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct PolicyInvite {
    /// The half that the joiner signs with.
    #[n(0)]
    pub(crate) signing: Digest,
    /// The half that the group's state is sealed to. The relay must not know it.
    #[n(1)]
    pub(crate) hpke: Digest,
    /// How many agents may join by it.
    #[n(2)]
    pub(crate) uses: u32,
    /// When it ends.
    #[n(3)]
    pub(crate) expires: Time,
    /// Who made it.
    #[n(4)]
    pub(crate) inviter: AgentId,
    /// By the inviter, over [`statement::invite`].
    #[n(5)]
    pub(crate) signature: Signed,
}

impl PolicyInvite {
    pub(crate) fn id(&self) -> InviteId {
        InviteId::of(&self.signing.0)
    }

    pub(crate) fn is_signed_for(&self, group: &Digest) -> bool {
        let said = statement::invite(group, &self.signing, &self.hpke, self.uses, self.expires);
        self.inviter.signed(&said, &self.signature)
    }

    fn open(&self) -> OpenInvite {
        OpenInvite {
            signing: self.signing,
            uses: self.uses,
            expires: self.expires,
        }
    }
}

/// One leaf of the tree, as far as rules care.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_field_names,
    reason = "a leaf key is what RFC 9420 calls it"
)]
pub(crate) struct Leaf {
    /// The member, whose credential has been found equal to its key.
    pub(crate) agent: AgentId,
    /// Its leaf encryption key.
    pub(crate) leaf_key: Vec<u8>,
    /// The invite by which it came, when it came by one.
    pub(crate) invite: Option<InviteId>,
}

/// What a commit does, as read from the MLS library after it has verified signatures and tree.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    /// Who commits.
    pub(crate) by: Committer,
    /// Leaves that enter by Add.
    pub(crate) added: Vec<Leaf>,
    /// Members that go.
    pub(crate) removed: Vec<AgentId>,
    /// The record afterwards.
    pub(crate) after: Policy,
    /// The committer's new leaf.
    pub(crate) path: Option<Leaf>,
    /// Whether a proposal is in it that no member of a channel may commit.
    pub(crate) forbidden: bool,
    /// What the commit carries in its authenticated data.
    pub(crate) bound: Bound,
}

/// Who made a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committer {
    /// A member.
    Member(AgentId),
    /// Somebody who comes in by this very commit.
    Joiner(AgentId),
}

/// MLS authenticated data of every message: the clear header again, so that a relay that alters
/// it is noticed, and what members must know to judge a commit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Bound {
    /// Where.
    #[n(0)]
    pub(crate) channel: ChannelId,
    /// The message's id.
    #[n(1)]
    pub(crate) id: skytale_wire::id::MessageId,
    /// [`skytale_wire::envelope::Kind`] as a number.
    #[n(2)]
    pub(crate) kind: u8,
    /// For commits: hash of the declared roster change.
    #[n(3)]
    pub(crate) change: Option<Digest>,
    /// For joins: the invite key's signature over [`statement::join`].
    #[n(4)]
    pub(crate) join: Option<Signed>,
    /// Signed statements of the members that this commit removes because they left.
    #[n(5)]
    pub(crate) left: Vec<statement::Leave>,
}

/// Why a commit is refused, by everybody alike.
pub(crate) type Verdict = Result<RosterChange, &'static str>;

impl Policy {
    pub(crate) fn is_admin(&self, agent: &AgentId) -> bool {
        self.admins.binary_search(agent).is_ok()
    }

    pub(crate) fn may_invite(&self, agent: &AgentId) -> bool {
        self.inviters.binary_search(agent).is_ok()
    }

    pub(crate) fn group(&self) -> Digest {
        self.channel.group_id(self.generation)
    }

    pub(crate) fn invite(&self, id: &InviteId) -> Option<&PolicyInvite> {
        self.invites.iter().find(|invite| invite.id() == *id)
    }

    /// This record with one member's rights set.
    #[must_use]
    pub(crate) fn granting(mut self, agent: AgentId, admin: bool, may_invite: bool) -> Self {
        set(&mut self.admins, agent, admin);
        set(&mut self.inviters, agent, may_invite);
        self
    }

    /// This record after members have gone: they lose their rights, and every invite ends, since
    /// somebody who knew the group's state could have handed its lines on.
    #[must_use]
    pub(crate) fn without(mut self, removed: &[AgentId]) -> Self {
        for agent in removed {
            set(&mut self.admins, *agent, false);
            set(&mut self.inviters, *agent, false);
        }
        if !removed.is_empty() {
            self.invites.clear();
        }
        self
    }

    /// This record without the invites that have been used up by `leaves`, which the next commit
    /// of a member must drop, and, when `by` may, without those that have ended at `now`.
    #[must_use]
    pub(crate) fn tidied(mut self, leaves: &[Leaf], by: &AgentId, now: Time) -> Self {
        let may_drop = self.may_invite(by);
        self.invites
            .retain(|invite| !is_used_up(invite, leaves) && (!may_drop || invite.expires > now));
        self
    }

    /// The invites by which somebody can still come in: to these the group's state is sealed.
    pub(crate) fn usable(&self, leaves: &[Leaf]) -> Vec<PolicyInvite> {
        self.invites
            .iter()
            .filter(|invite| !is_used_up(invite, leaves))
            .cloned()
            .collect()
    }

    /// What a commit from this record to `deed.after` does to the roster, or why every member
    /// refuses it. `leaves` are the members before, `context` the hash of the GroupContext
    /// before.
    pub(crate) fn judge(&self, leaves: &[Leaf], context: &Digest, deed: &Deed) -> Verdict {
        if deed.forbidden {
            return Err("it carries a proposal that channels do not allow");
        }
        let change = match deed.by {
            Committer::Member(agent) => self.judge_member(leaves, &agent, deed)?,
            Committer::Joiner(agent) => self.judge_joiner(leaves, context, &agent, deed)?,
        };
        let path = deed.path.as_ref().ok_or("it has no path")?;
        let (Committer::Member(by) | Committer::Joiner(by)) = deed.by;
        if path.agent != by {
            return Err("its path installs somebody else's key");
        }
        Ok(change)
    }

    fn judge_member(&self, leaves: &[Leaf], by: &AgentId, deed: &Deed) -> Verdict {
        let Deed {
            added,
            removed,
            after,
            ..
        } = deed;
        let before: BTreeMap<AgentId, &Leaf> =
            leaves.iter().map(|leaf| (leaf.agent, leaf)).collect();
        let Some(own) = before.get(by) else {
            return Err("its author is not a member");
        };
        if deed
            .path
            .as_ref()
            .is_some_and(|path| path.invite != own.invite)
        {
            return Err("its author changed the invite that it came by");
        }

        if !added.is_empty() && !self.may_invite(by) {
            return Err("its author may not add");
        }
        if added.len() > ADDS_MAX {
            return Err("it adds too many at once");
        }
        let gone: BTreeSet<&AgentId> = removed.iter().collect();
        let mut entered = BTreeSet::new();
        for leaf in added {
            if before.contains_key(&leaf.agent) && !gone.contains(&leaf.agent) {
                return Err("it adds a member again");
            }
            if leaf.invite.is_some() || !entered.insert(leaf.agent) {
                return Err("it adds a leaf that no Add may carry");
            }
        }

        for agent in removed {
            let leaf = before.get(agent).ok_or("it removes a stranger")?;
            if agent == by {
                return Err("its author removes itself");
            }
            let left = deed.bound.left.iter().any(|statement| {
                *statement.leaf_key == leaf.leaf_key[..] && statement.holds(&self.channel, agent)
            });
            if !left && !self.is_admin(by) {
                return Err("its author may not remove");
            }
        }

        self.judge_record(leaves, by, deed, &entered)?;
        Ok(self.change(after, added, removed))
    }

    /// The part of the judgement that compares the two records.
    fn judge_record(
        &self,
        leaves: &[Leaf],
        by: &AgentId,
        deed: &Deed,
        entered: &BTreeSet<AgentId>,
    ) -> Result<(), &'static str> {
        let after = &deed.after;
        if (after.channel, after.generation, &after.name)
            != (self.channel, self.generation, &self.name)
        {
            return Err("it changes the channel's name or place");
        }
        let expected = self.clone().without(&deed.removed);
        let rights_changed =
            (&after.admins, &after.inviters) != (&expected.admins, &expected.inviters);
        if rights_changed && !self.is_admin(by) {
            return Err("its author may not change rights");
        }
        let stays = |agent: &AgentId| {
            entered.contains(agent)
                || (leaves.iter().any(|leaf| leaf.agent == *agent) && !deed.removed.contains(agent))
        };
        if !is_sorted_set(&after.admins) || !is_sorted_set(&after.inviters) {
            return Err("its lists of rights are not sorted");
        }
        if !after.admins.iter().chain(&after.inviters).all(stays) {
            return Err("it gives rights to a stranger");
        }
        if after.invites.len() > INVITES_MAX {
            return Err("it opens too many invites");
        }
        if !deed.removed.is_empty() && !after.invites.is_empty() {
            return Err("it removes somebody and keeps invites open");
        }
        let mut seen = BTreeSet::new();
        for invite in &after.invites {
            if !seen.insert(invite.id()) {
                return Err("it lists an invite twice");
            }
            if self.invites.contains(invite) {
                if is_used_up(invite, leaves) {
                    return Err("it keeps an invite that is used up");
                }
                continue;
            }
            if self.invite(&invite.id()).is_some() {
                return Err("it alters an invite");
            }
            let fresh = invite.inviter == *by && self.may_invite(by) && invite.uses > 0;
            if !fresh || !invite.is_signed_for(&self.group()) {
                return Err("it opens an invite that its author may not make");
            }
        }
        Ok(())
    }

    fn judge_joiner(
        &self,
        leaves: &[Leaf],
        context: &Digest,
        by: &AgentId,
        deed: &Deed,
    ) -> Verdict {
        if !deed.added.is_empty() || !deed.removed.is_empty() || deed.after != *self {
            return Err("a join does nothing but join");
        }
        if leaves.iter().any(|leaf| leaf.agent == *by) {
            return Err("the joiner is a member already");
        }
        let invite = deed
            .path
            .as_ref()
            .and_then(|path| path.invite)
            .and_then(|id| self.invite(&id))
            .ok_or("the joiner names no open invite")?;
        if is_used_up(invite, leaves) {
            return Err("the invite is used up");
        }
        let said = statement::join(&self.group(), context, &invite.id(), by);
        let signature = deed
            .bound
            .join
            .as_ref()
            .ok_or("the joiner shows no proof")?;
        if !verify(&invite.signing.0, &said, signature) {
            return Err("the joiner's proof is wrong");
        }
        Ok(join_change(*by))
    }

    /// The roster change that leads from this record to `after`, in canonical order.
    pub(crate) fn change(&self, after: &Self, added: &[Leaf], removed: &[AgentId]) -> RosterChange {
        let grant = |agent: AgentId| Grant {
            agent,
            admin: after.is_admin(&agent),
            may_invite: after.may_invite(&agent),
        };
        let entered: BTreeSet<AgentId> = added.iter().map(|leaf| leaf.agent).collect();
        let touched: BTreeSet<AgentId> =
            [&self.admins, &self.inviters, &after.admins, &after.inviters]
                .into_iter()
                .flatten()
                .copied()
                .collect();
        let changed = |agent: &AgentId| {
            (self.is_admin(agent), self.may_invite(agent))
                != (after.is_admin(agent), after.may_invite(agent))
        };
        let removed: BTreeSet<AgentId> = removed.iter().copied().collect();
        RosterChange {
            added: entered.iter().map(|agent| grant(*agent)).collect(),
            granted: touched
                .into_iter()
                .filter(|agent| {
                    changed(agent) && !entered.contains(agent) && !removed.contains(agent)
                })
                .map(grant)
                .collect(),
            removed: removed.into_iter().collect(),
            opened: after
                .invites
                .iter()
                .filter(|invite| self.invite(&invite.id()).is_none())
                .map(PolicyInvite::open)
                .collect(),
            closed: self
                .invites
                .iter()
                .map(PolicyInvite::id)
                .filter(|id| after.invite(id).is_none())
                .collect(),
        }
    }
}

/// What a join by invite does to the roster.
pub(crate) fn join_change(agent: AgentId) -> RosterChange {
    RosterChange {
        added: vec![Grant {
            agent,
            admin: false,
            may_invite: false,
        }],
        ..RosterChange::default()
    }
}

/// Counted in the tree, which all members share: an invite is used by the leaves that name it.
fn is_used_up(invite: &PolicyInvite, leaves: &[Leaf]) -> bool {
    let used = leaves
        .iter()
        .filter(|leaf| leaf.invite == Some(invite.id()))
        .count();
    used >= usize::try_from(invite.uses).unwrap_or(usize::MAX)
}

fn set(list: &mut Vec<AgentId>, agent: AgentId, member: bool) {
    match (list.binary_search(&agent), member) {
        (Err(place), true) => list.insert(place, agent),
        (Ok(place), false) => {
            list.remove(place);
        }
        (Ok(_), true) | (Err(_), false) => {}
    }
}

fn is_sorted_set(list: &[AgentId]) -> bool {
    list.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests;
