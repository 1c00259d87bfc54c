//! Which commit of a SLIM group comes first, told by the epoch that MLS leaves readable.
//!
//! A group is found by the name that its commits are sent to and MLS's own id of it. The first
//! commit that is seen says where the count begins: the one that ended epoch 0 never crossed a
//! relay, because nobody else was in. Later ones may leave epochs out for the same reason, and
//! never go back.
//!
//! Nothing here can tell who is a group's moderator: whoever may send to the name may take the
//! next epoch. What is bounded is how far one message moves a group, so that none ends its order
//! for good.

use std::collections::HashMap;

use minicbor::{Decode, Encode, bytes::ByteVec};
use skytale_slim::{Address, MlsContent, MlsMessage};
use skytale_wire::id::AgentId;

use super::{SlimRules, Ticket, shares::Shares};

/// The groups that are known.
///
/// With an archive only names that have a log are here, so that they are bounded as logs are.
/// Without one the same bounds hold, and the name that has been quiet longest makes room.
#[derive(Debug, Default)]
pub(super) struct Orders {
    names: HashMap<Address, Named>,
    /// Their names, by when a group of theirs has moved last.
    shares: Shares<Address>,
    /// Moves so far: tells what has been quiet longest.
    moves: u64,
}

/// The groups whose commits go to one name.
#[derive(Debug)]
struct Named {
    /// Whose share it counts to.
    account: Option<String>,
    moved: u64,
    /// The one that has moved last stands last.
    groups: Vec<Ordered>,
}

/// A group with what only this run knows of it.
#[derive(Debug)]
struct Ordered {
    group: Group,
    /// The last write that has moved it: a refusal is only true once that is stored.
    last: Option<Ticket>,
}

/// How far a group is.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(in crate::hub) struct Group {
    #[n(0)]
    id: ByteVec,
    /// The lowest epoch that a commit may still end.
    #[n(1)]
    next: u64,
    /// The last commits that were let in, to know them again.
    #[n(2)]
    accepted: Vec<Accepted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Accepted {
    #[n(0)]
    epoch: u64,
    #[n(1)]
    said: Said,
}

/// What makes a commit the same one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Said {
    #[n(0)]
    pub(super) source: AgentId,
    #[n(1)]
    pub(super) message: u32,
}

/// What is to become of a commit or proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is the next one.
    Accepted,
    /// It was let in before.
    Repeated,
    /// Another one has ended its epoch; true once this write is stored.
    Stale(Option<Ticket>),
    /// It stands outside: it leaps too far, or there is no room to remember its group. It is
    /// passed on, moves nothing and is not answered.
    Unordered,
}

impl Orders {
    pub(super) fn judge(&self, at: Address, mls: &MlsMessage, said: Said) -> Judgement {
        let groups = self.names.get(&at).map(|named| &named.groups);
        let id = mls.group.as_bytes();
        let known = groups
            .into_iter()
            .flatten()
            .find(|known| **known.group.id == *id);
        let Some(known) = known else {
            return Judgement::Accepted;
        };
        let epoch = mls.epoch;
        if known.group.accepted.contains(&Accepted { epoch, said }) {
            Judgement::Repeated
        } else if epoch < known.group.next {
            Judgement::Stale(known.last)
        } else if epoch - known.group.next > LEAP_MAX {
            Judgement::Unordered
        } else {
            Judgement::Accepted
        }
    }

    /// Notes one that was judged as accepted. `account` is whose the name is.
    pub(super) fn accept(
        &mut self,
        at: Address,
        mls: &MlsMessage,
        said: Said,
        account: Option<String>,
        rules: &SlimRules,
    ) {
        self.moves += 1;
        let moved = self.moves;
        if let Some(named) = self.names.get_mut(&at) {
            let account = named.account.as_deref();
            self.shares.remove(account, named.moved, at);
            self.shares.insert(account, moved, at);
            named.moved = moved;
        } else {
            self.make_room(account.as_deref(), rules);
            self.insert(at, account, Vec::new(), moved);
        }
        let groups = self.names.get_mut(&at).map(|named| &mut named.groups);
        let groups = groups.expect("it was there or has been put in");
        let id = mls.group.as_bytes();
        let index = groups.iter().position(|known| **known.group.id == *id);
        let mut known = match index {
            Some(index) => groups.remove(index),
            None => Ordered::new(id),
        };
        known.group.move_to(mls, said);
        if groups.len() >= GROUPS_PER_NAME_MAX {
            groups.remove(0);
        }
        groups.push(known);
    }

    /// The write that makes the last acceptance true.
    pub(super) fn written(&mut self, at: Address, mls: &MlsMessage, ticket: Ticket) {
        let named = self.names.get_mut(&at).into_iter();
        for known in named.flat_map(|named| &mut named.groups) {
            if **known.group.id == *mls.group.as_bytes() {
                known.last = Some(ticket);
            }
        }
    }

    /// The groups of a name as they are stored with its log.
    pub(super) fn kept(&self, at: Address) -> Vec<Group> {
        let named = self.names.get(&at).into_iter();
        let groups = named.flat_map(|named| &named.groups);
        groups.map(|known| known.group.clone()).collect()
    }

    /// Takes what is stored for what is true.
    pub(super) fn load(&mut self, at: Address, account: Option<String>, groups: &[Group]) {
        self.forget(at);
        if !groups.is_empty() {
            let groups = groups.iter().cloned();
            let groups = groups.map(|group| Ordered { group, last: None }).collect();
            self.moves += 1;
            self.insert(at, account, groups, self.moves);
        }
    }

    pub(super) fn forget(&mut self, at: Address) {
        if let Some(named) = self.names.remove(&at) {
            let account = named.account.as_deref();
            self.shares.remove(account, named.moved, at);
        }
    }

    /// Names that are remembered.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    fn insert(&mut self, at: Address, account: Option<String>, groups: Vec<Ordered>, moved: u64) {
        self.shares.insert(account.as_deref(), moved, at);
        let named = Named {
            account,
            moved,
            groups,
        };
        self.names.insert(at, named);
    }

    /// Lets the quietest name go where one more would be too many.
    fn make_room(&mut self, account: Option<&str>, rules: &SlimRules) {
        let share = rules.logs_of_max(account);
        let oldest = if self.shares.len_of(account) >= share {
            self.shares.oldest_of(account, |_| true)
        } else if self.names.len() >= rules.logs_max {
            self.shares.oldest(|_| true)
        } else {
            None
        };
        if let Some(oldest) = oldest {
            self.forget(oldest);
        }
    }
}

impl Ordered {
    fn new(id: &[u8]) -> Self {
        Self {
            group: Group {
                id: id.to_vec().into(),
                next: 0,
                accepted: Vec::new(),
            },
            last: None,
        }
    }
}

impl Group {
    fn move_to(&mut self, mls: &MlsMessage, said: Said) {
        let epoch = mls.epoch;
        self.next = match mls.content {
            MlsContent::Commit => epoch.saturating_add(1),
            // It changes nothing until a commit takes it up; but what is older is over.
            MlsContent::Proposal => epoch,
        };
        self.accepted.push(Accepted { epoch, said });
        let surplus = self.accepted.len().saturating_sub(ACCEPTED_MAX);
        self.accepted.drain(..surplus);
    }
}

/// Epochs that may be left out between two commits: those of a moderator who was alone meanwhile.
/// One that leaves out more goes on unordered, since everything honest would be stale behind it.
const LEAP_MAX: u64 = 64;
/// Groups whose commits are sent to one name: a session that was made anew has a new one. The one
/// that has been quiet longest is forgotten, and its next commit begins its count again.
const GROUPS_PER_NAME_MAX: usize = 64;
/// Commits of a group that are known again when they are repeated.
const ACCEPTED_MAX: usize = 16;
