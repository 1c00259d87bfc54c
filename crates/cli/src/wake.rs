//! Whose messages may wake an agent that is idle, or run a command: members that the user has
//! named, and nobody else. How often, stands in `wake/budget.rs`.
//!
//! To be woken means to work without being asked by one's user. So nobody may wake an agent until
//! the user says who, and a message counts only when its channel is verified and its sender is still
//! a member. An id is the safe way to name somebody; a label is worth as much as the one member
//! that bears it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use skytale_sdk::{AgentId, ChannelId, MemberView, Message};

pub(crate) use self::budget::{Budget, Way};
use crate::exit::Failure;

mod budget;

/// Somebody who may wake an agent, as `--wake-from` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waker {
    /// Whoever has this key.
    Agent(AgentId),
    /// The only member of a channel that calls itself so.
    Label(String),
}

impl FromStr for Waker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("agt_") {
            return text.parse().map(Self::Agent).map_err(|bad| bad.to_string());
        }
        if text.trim().is_empty() {
            return Err("expected an agent's id or label".to_owned());
        }
        Ok(Self::Label(text.to_owned()))
    }
}

impl fmt::Display for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => write!(f, "{agent}"),
            Self::Label(label) => f.write_str(label),
        }
    }
}

/// Decides about messages.
#[derive(Debug)]
pub(crate) struct Gate {
    allowed: Vec<Waker>,
    /// Who bore an allowed label when it was first seen in a channel. Whoever takes it up later is
    /// somebody else.
    known: BTreeMap<(ChannelId, String), AgentId>,
}

impl Gate {
    /// Lets these through.
    pub(crate) fn new(allowed: Vec<Waker>) -> Self {
        Self {
            allowed,
            known: BTreeMap::new(),
        }
    }

    /// Whether it lets nobody through.
    pub(crate) fn is_shut(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Whether this message may wake the agent.
    pub(crate) async fn lets_through(&mut self, message: &Message) -> Result<bool, Failure> {
        if self.is_shut() || !message.verified() {
            return Ok(false);
        }
        let channel = message.channel();
        let members = channel.members().await?;
        Ok(self.knows(channel.id(), message.sender(), message.label(), &members))
    }

    /// Whether the sender is a member that was named.
    fn knows(
        &mut self,
        channel: ChannelId,
        sender: AgentId,
        label: &str,
        members: &[MemberView],
    ) -> bool {
        if !members.iter().any(|member| member.agent == sender) {
            return false;
        }
        if self.allowed.contains(&Waker::Agent(sender)) {
            return true;
        }
        let named = |waker: &Waker| matches!(waker, Waker::Label(allowed) if allowed == label);
        let shared = members
            .iter()
            .any(|member| member.agent != sender && member.label.as_deref() == Some(label));
        if shared || !self.allowed.iter().any(named) {
            return false;
        }
        let known = self.known.entry((channel, label.to_owned()));
        *known.or_insert(sender) == sender
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of what wakes agents: it counts what happened within an hour"
)]
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ChannelId = ChannelId([9; 32]);
    const ALICE: AgentId = AgentId([1; 32]);
    const BOB: AgentId = AgentId([2; 32]);

    fn member(agent: AgentId, label: &str) -> MemberView {
        MemberView {
            agent,
            label: Some(label.to_owned()),
            admin: false,
            may_invite: false,
            me: false,
        }
    }

    #[test]
    fn nobody_wakes_an_agent_until_somebody_is_named() {
        let members = [member(ALICE, "alice")];

        assert!(!Gate::new(Vec::new()).knows(PLAN, ALICE, "alice", &members));
        let by_id = vec![Waker::Agent(ALICE)];
        assert!(Gate::new(by_id.clone()).knows(PLAN, ALICE, "whatever", &members));
        assert!(!Gate::new(by_id).knows(PLAN, BOB, "alice", &members));
    }

    #[test]
    fn somebody_who_was_removed_wakes_nobody() {
        let mut gate = Gate::new(vec![Waker::Agent(ALICE), Waker::Label("alice".to_owned())]);

        assert!(!gate.knows(PLAN, ALICE, "alice", &[member(BOB, "bob")]));
    }

    #[test]
    fn a_label_wakes_while_one_member_bears_it_and_stays_with_the_first() {
        let mut gate = Gate::new(vec!["alice".parse().unwrap()]);
        let apart = [member(ALICE, "alice"), member(BOB, "bob")];
        let both = [member(ALICE, "alice"), member(BOB, "alice")];
        let changed = [member(ALICE, "else"), member(BOB, "alice")];

        assert!(gate.knows(PLAN, ALICE, "alice", &apart));
        assert!(!gate.knows(PLAN, BOB, "alice", &both));
        assert!(!gate.knows(PLAN, ALICE, "alice", &both));
        assert!(
            !gate.knows(PLAN, BOB, "alice", &changed),
            "Bob is not Alice"
        );
        assert!(gate.knows(ChannelId([8; 32]), BOB, "alice", &changed));
    }

    #[test]
    fn a_waker_is_an_id_or_a_label() {
        assert_eq!(
            "alice".parse(),
            Ok::<_, String>(Waker::Label("alice".to_owned()))
        );
        assert!("agt_short".parse::<Waker>().is_err());
        assert!(" ".parse::<Waker>().is_err());
    }
}
