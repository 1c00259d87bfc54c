//! Which commit of a SLIM group comes first, told by the epoch that MLS leaves readable.
//!
//! A group is found by the name that its commits are sent to and MLS's own id of it. The first
//! commit that is seen says where the count begins: the one that ended epoch 0 never crossed a
//! relay, because nobody else was in. Later ones may leave epochs out for the same reason, and
//! never go back.

use std::collections::HashMap;

use minicbor::{Decode, Encode, bytes::ByteVec};
use skytale_slim::{Address, MlsContent, MlsMessage};
use skytale_wire::id::AgentId;

use super::Ticket;

/// The groups that are known.
#[derive(Debug, Default)]
pub(super) struct Orders(HashMap<Address, Vec<Ordered>>);

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
    /// There is no room to remember one more group.
    Unordered,
}

impl Orders {
    pub(super) fn judge(&self, at: Address, mls: &MlsMessage, said: Said) -> Judgement {
        let groups = self.0.get(&at);
        let known = groups.and_then(|groups| {
            let id = mls.group.as_bytes();
            groups.iter().find(|known| **known.group.id == *id)
        });
        let Some(known) = known else {
            let full = groups.map_or(self.0.len() >= NAMES_MAX, |groups| {
                groups.len() >= GROUPS_PER_NAME_MAX
            });
            return if full {
                Judgement::Unordered
            } else {
                Judgement::Accepted
            };
        };
        let epoch = mls.epoch;
        if known.group.accepted.contains(&Accepted { epoch, said }) {
            Judgement::Repeated
        } else if epoch < known.group.next {
            Judgement::Stale(known.last)
        } else {
            Judgement::Accepted
        }
    }

    /// Notes one that was judged as accepted.
    pub(super) fn accept(&mut self, at: Address, mls: &MlsMessage, said: Said) {
        let groups = self.0.entry(at).or_default();
        let id = mls.group.as_bytes();
        let index = groups.iter().position(|known| **known.group.id == *id);
        let index = index.unwrap_or_else(|| {
            groups.push(Ordered {
                group: Group {
                    id: id.to_vec().into(),
                    next: mls.epoch,
                    accepted: Vec::new(),
                },
                last: None,
            });
            groups.len() - 1
        });
        let group = &mut groups[index].group;
        group.next = match mls.content {
            MlsContent::Commit => mls.epoch.saturating_add(1),
            // It changes nothing until a commit takes it up; but what is older is over.
            MlsContent::Proposal => mls.epoch,
        };
        group.accepted.push(Accepted {
            epoch: mls.epoch,
            said,
        });
        let surplus = group.accepted.len().saturating_sub(ACCEPTED_MAX);
        group.accepted.drain(..surplus);
    }

    /// The write that makes the last acceptance true.
    pub(super) fn written(&mut self, at: Address, mls: &MlsMessage, ticket: Ticket) {
        let groups = self.0.get_mut(&at).into_iter().flatten();
        for known in groups {
            if **known.group.id == *mls.group.as_bytes() {
                known.last = Some(ticket);
            }
        }
    }

    /// The groups of a name as they are stored with its log.
    pub(super) fn kept(&self, at: Address) -> Vec<Group> {
        let groups = self.0.get(&at).into_iter().flatten();
        groups.map(|known| known.group.clone()).collect()
    }

    /// Takes what is stored for what is true.
    pub(super) fn load(&mut self, at: Address, groups: &[Group]) {
        self.forget(at);
        if !groups.is_empty() {
            let groups = groups.iter().cloned();
            let groups = groups.map(|group| Ordered { group, last: None }).collect();
            self.0.insert(at, groups);
        }
    }

    pub(super) fn forget(&mut self, at: Address) {
        self.0.remove(&at);
    }
}

/// Names to which groups' commits are sent. Commits of further ones are relayed and not ordered.
const NAMES_MAX: usize = 65_536;
/// Groups whose commits are sent to one name: a session that was made anew has a new one.
const GROUPS_PER_NAME_MAX: usize = 64;
/// Commits of a group that are known again when they are repeated.
const ACCEPTED_MAX: usize = 16;
