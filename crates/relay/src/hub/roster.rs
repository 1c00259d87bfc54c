//! Who is in a channel, as the relay routes, and what a commit may change about it.
//!
//! The relay cannot look into a commit, so it holds the committer to what it declares: members
//! check by themselves that the declaration is true. Knows nothing of connections.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use skytale_wire::{
    envelope::{Grant, OpenInvite, RosterChange},
    frame::Sealed,
    id::{AgentId, Epoch, InviteId, Seq, Time},
    refusal::Refusal,
};

use crate::limits::{Bucket, Limits};

/// Members, former members and invites of one channel.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Roster {
    #[n(0)]
    members: BTreeMap<AgentId, Member>,
    #[n(1)]
    former: BTreeMap<AgentId, Former>,
    /// Uses count down to what is left.
    #[n(2)]
    invites: Vec<OpenInvite>,
    /// The last invites that ended, so that a latecomer learns why his line does not work.
    #[n(3)]
    ended: Vec<OpenInvite>,
}

/// Somebody who is in.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct Member {
    #[n(0)]
    pub(super) admin: bool,
    #[n(1)]
    pub(super) may_invite: bool,
    /// The record that let it in: nothing before it is shown.
    #[n(2)]
    pub(super) joined: Seq,
    /// The last record that it says it has processed.
    #[n(3)]
    pub(super) seen: Seq,
    /// Commits of late. Not worth storing.
    #[cbor(skip)]
    pub(super) commits: Bucket,
}

/// Somebody who was in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Former {
    #[n(0)]
    joined: Seq,
    /// The record that removed it: the last one that is shown.
    #[n(1)]
    removed: Seq,
    /// The epoch after that record: later ones are none of its business.
    #[n(2)]
    epoch: Epoch,
    /// It left by itself, and no commit has removed its leaf from the group yet.
    #[n(3)]
    leaf_stays: bool,
}

/// What an agent may read of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Records after this place.
    pub(super) after: Seq,
    /// For former members: up to this place, in which epoch it ended.
    pub(super) until: Option<(Seq, Epoch)>,
}

impl Roster {
    /// The roster of a new channel.
    pub(super) fn founded_by(agent: AgentId) -> Self {
        let founder = Member {
            admin: true,
            may_invite: true,
            joined: Seq(0),
            seen: Seq(0),
            commits: Bucket::default(),
        };
        Self {
            members: BTreeMap::from([(agent, founder)]),
            ..Self::default()
        }
    }

    pub(super) fn member(&self, agent: &AgentId) -> Option<&Member> {
        self.members.get(agent)
    }

    pub(super) fn member_mut(&mut self, agent: &AgentId) -> Option<&mut Member> {
        self.members.get_mut(agent)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &AgentId> {
        self.members.keys()
    }

    /// Members and former members.
    pub(super) fn everybody(&self) -> impl Iterator<Item = &AgentId> {
        self.members.keys().chain(self.former.keys())
    }

    pub(super) fn mentions(&self, agent: &AgentId) -> bool {
        self.members.contains_key(agent) || self.former.contains_key(agent)
    }

    /// What `agent` may read, nothing for strangers.
    pub(super) fn window(&self, agent: &AgentId) -> Option<Window> {
        if let Some(member) = self.members.get(agent) {
            return Some(Window {
                after: member.joined.previous(),
                until: None,
            });
        }
        self.former.get(agent).map(|former| Window {
            after: former.joined.previous(),
            until: Some((former.removed, former.epoch)),
        })
    }

    /// Whether member `by` may make this change now, and whether it is complete.
    pub(super) fn check(
        &self,
        by: &AgentId,
        change: &RosterChange,
        limits: &Limits,
        now: Time,
    ) -> Result<(), Refusal> {
        let me = self.members.get(by).ok_or(Refusal::ChannelUnknown)?;
        let removed = set(change.removed.iter().copied())?;
        let added = set(change.added.iter().map(|grant| grant.agent))?;
        let granted = set(change.granted.iter().map(|grant| grant.agent))?;
        let opened = set(change.opened.iter().map(OpenInvite::id))?;
        let closed = set(change.closed.iter().copied())?;

        if removed.contains(by) {
            return Err(Refusal::Malformed); // Who goes by itself sends Leave.
        }
        for agent in &removed {
            if self.members.contains_key(agent) {
                require(me.admin, Refusal::NotAdmin)?;
            } else {
                // What a leaver has left behind, anybody may clear away.
                require(self.leaf_stays(agent), Refusal::MemberUnknown)?;
            }
        }

        require(added.is_empty() || me.may_invite, Refusal::MayNotInvite)?;
        for grant in &change.added {
            // Passing on the right to invite is part of inviting; making admins is not.
            require(me.admin || !grant.admin, Refusal::NotAdmin)?;
            let in_group = self.members.contains_key(&grant.agent) || self.leaf_stays(&grant.agent);
            require(
                !in_group || removed.contains(&grant.agent),
                Refusal::MemberAlready,
            )?;
        }
        if self.members.len() + added.len() > limits.members_max + removed.len() {
            return Err(Refusal::LimitReached);
        }

        require(granted.is_empty() || me.admin, Refusal::NotAdmin)?;
        for agent in &granted {
            let stays = self.members.contains_key(agent) && !removed.contains(agent);
            require(stays, Refusal::MemberUnknown)?;
        }

        require(opened.is_empty() || me.may_invite, Refusal::MayNotInvite)?;
        for invite in &change.opened {
            require(invite.uses > 0, Refusal::Malformed)?;
            require(invite.expires > now, Refusal::InviteExpired)?;
            require(self.open_invite(&invite.id()).is_none(), Refusal::Malformed)?;
        }
        for id in &closed {
            let invite = self.open_invite(id).ok_or(Refusal::InviteUnknown)?;
            let over = !is_usable(invite, now);
            // A removal closes every invite, whoever commits it.
            require(
                over || me.may_invite || !removed.is_empty(),
                Refusal::MayNotInvite,
            )?;
        }
        for invite in &self.invites {
            // The group's own list must follow: members check that a used-up invite goes, and
            // that none outlives a removal.
            let must_go = invite.uses == 0 || !removed.is_empty();
            require(
                !must_go || closed.contains(&invite.id()),
                Refusal::Malformed,
            )?;
        }
        if self.invites.len() - closed.len() + opened.len() > limits.invites_max {
            return Err(Refusal::InviteLimit);
        }
        Ok(())
    }

    /// Makes a checked change, by the record at `seq` that ends `epoch`.
    ///
    /// Returns former members who are forgotten to make room.
    pub(super) fn apply(&mut self, change: &RosterChange, seq: Seq, epoch: Epoch) -> Vec<AgentId> {
        for agent in &change.removed {
            if let Some(former) = self.former.get_mut(agent) {
                former.leaf_stays = false;
            } else {
                self.retire(agent, seq, epoch.next(), false);
            }
        }
        for grant in &change.added {
            self.admit(grant, seq);
        }
        for grant in &change.granted {
            if let Some(member) = self.members.get_mut(&grant.agent) {
                member.admin = grant.admin;
                member.may_invite = grant.may_invite;
            }
        }
        let closed: BTreeSet<_> = change.closed.iter().collect();
        let (ended, open): (Vec<_>, Vec<_>) = self
            .invites
            .drain(..)
            .partition(|invite| closed.contains(&invite.id()));
        self.invites = open;
        self.invites.extend(&change.opened);
        self.ended.extend(ended);
        let surplus = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..surplus);
        self.forget_surplus()
    }

    /// Lets a joiner in by an invite that was checked.
    pub(super) fn join(&mut self, agent: AgentId, invite: &InviteId, seq: Seq) {
        if let Some(used) = self.invites.iter_mut().find(|open| open.id() == *invite) {
            used.uses = used.uses.saturating_sub(1);
        }
        let grant = Grant {
            agent,
            admin: false,
            may_invite: false,
        };
        self.admit(&grant, seq);
    }

    /// A member goes by its own word, by the record at `seq`; its leaf stays until a commit.
    pub(super) fn leave(&mut self, agent: &AgentId, seq: Seq, epoch: Epoch) -> Vec<AgentId> {
        self.retire(agent, seq, epoch, true);
        self.forget_surplus()
    }

    /// Whether the group still has a leaf of somebody who has left.
    pub(super) fn leaf_stays(&self, agent: &AgentId) -> bool {
        self.former
            .get(agent)
            .is_some_and(|former| former.leaf_stays)
    }

    /// An invite that is listed or has ended lately.
    pub(super) fn any_invite(&self, id: &InviteId) -> Option<&OpenInvite> {
        self.open_invite(id)
            .or_else(|| self.ended.iter().rev().find(|invite| invite.id() == *id))
    }

    /// An invite that lets somebody in at this moment, or why it does not.
    pub(super) fn usable_invite(&self, id: &InviteId, now: Time) -> Result<&OpenInvite, Refusal> {
        let invite = self.any_invite(id).ok_or(Refusal::InviteUnknown)?;
        if invite.uses == 0 {
            return Err(Refusal::InviteUsed);
        }
        if invite.expires <= now {
            return Err(Refusal::InviteExpired);
        }
        self.open_invite(id).ok_or(Refusal::InviteUnknown)
    }

    /// The invites as they will be after a checked commit.
    pub(super) fn invites_after(&self, change: &RosterChange) -> Vec<OpenInvite> {
        let kept = self
            .invites
            .iter()
            .filter(|invite| !change.closed.contains(&invite.id()));
        kept.chain(&change.opened).copied().collect()
    }

    /// The invites as they will be after a join by `invite`.
    pub(super) fn invites_after_join(&self, invite: &InviteId) -> Vec<OpenInvite> {
        let mut invites = self.invites.clone();
        for open in &mut invites {
            if open.id() == *invite {
                open.uses = open.uses.saturating_sub(1);
            }
        }
        invites
    }

    /// The invites as they are.
    pub(super) fn invites(&self) -> &[OpenInvite] {
        &self.invites
    }

    fn open_invite(&self, id: &InviteId) -> Option<&OpenInvite> {
        self.invites.iter().find(|invite| invite.id() == *id)
    }

    fn admit(&mut self, grant: &Grant, seq: Seq) {
        self.former.remove(&grant.agent);
        let member = Member {
            admin: grant.admin,
            may_invite: grant.may_invite,
            joined: seq,
            seen: seq,
            commits: Bucket::default(),
        };
        self.members.insert(grant.agent, member);
    }

    fn retire(&mut self, agent: &AgentId, removed: Seq, epoch: Epoch, leaf_stays: bool) {
        if let Some(member) = self.members.remove(agent) {
            let former = Former {
                joined: member.joined,
                removed,
                epoch,
                leaf_stays,
            };
            self.former.insert(*agent, former);
        }
    }

    fn forget_surplus(&mut self) -> Vec<AgentId> {
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        if surplus == 0 {
            return Vec::new();
        }
        let mut oldest: Vec<_> = self
            .former
            .iter()
            .filter(|(_, former)| !former.leaf_stays)
            .map(|(agent, former)| (former.removed, *agent))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(surplus);
        for (_, agent) in &oldest {
            self.former.remove(agent);
        }
        oldest.into_iter().map(|(_, agent)| agent).collect()
    }
}

impl PartialEq for Member {
    /// Compares what is stored.
    fn eq(&self, other: &Self) -> bool {
        (self.admin, self.may_invite, self.joined, self.seen)
            == (other.admin, other.may_invite, other.joined, other.seen)
    }
}

/// Whether a sealed `GroupInfo` serves these invites: each that can still be used has its key, and
/// no key is for anything else. Expired ones may be absent. `Ok(false)`: nobody needs it.
pub(super) fn sealed_serves(
    invites: &[OpenInvite],
    sealed: Option<&Sealed>,
    now: Time,
) -> Result<bool, Refusal> {
    let listed: BTreeSet<_> = invites.iter().map(OpenInvite::id).collect();
    let needed: BTreeSet<_> = invites
        .iter()
        .filter(|invite| is_usable(invite, now))
        .map(OpenInvite::id)
        .collect();
    let given = match sealed {
        Some(sealed) => set(sealed.keys.iter().map(|key| key.invite))?,
        None => BTreeSet::new(),
    };
    let complete = needed.is_subset(&given) && given.is_subset(&listed);
    require(complete, Refusal::SealedSetIncomplete)?;
    Ok(!needed.is_empty())
}

fn is_usable(invite: &OpenInvite, now: Time) -> bool {
    invite.uses > 0 && invite.expires > now
}

/// A list in which nothing stands twice.
fn set<T: Ord>(items: impl ExactSizeIterator<Item = T>) -> Result<BTreeSet<T>, Refusal> {
    let count = items.len();
    let set: BTreeSet<T> = items.collect();
    require(set.len() == count, Refusal::Malformed)?;
    Ok(set)
}

fn require(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Former members remembered; the longest gone are forgotten and become strangers.
const FORMER_MAX: usize = 1024;
/// Ended invites remembered.
const ENDED_MAX: usize = 32;
