//! Who has asked how often. Kept by agent and not by connection, so that reconnecting wins
//! nothing, and forgotten once every bucket is full again.

use std::collections::HashMap;

use skytale_wire::id::{AgentId, Time};

use crate::limits::{Bucket, Limits};

/// Buckets of all agents.
#[derive(Debug, Default)]
pub(super) struct Rates {
    agents: HashMap<AgentId, AgentRates>,
    /// By adder and recipient.
    welcomes: HashMap<(AgentId, AgentId), Bucket>,
}

/// Buckets of one agent.
#[derive(Debug, Default)]
pub(super) struct AgentRates {
    pub(super) frames: Bucket,
    pub(super) publishes: Bucket,
    pub(super) joins: Bucket,
    pub(super) creates: Bucket,
    pub(super) uploads: Bucket,
    pub(super) claims: Bucket,
    /// What others take of this agent's `KeyPackages`.
    pub(super) claimed: Bucket,
    pub(super) group_infos: Bucket,
}

impl Rates {
    pub(super) fn of(&mut self, agent: AgentId) -> &mut AgentRates {
        self.agents.entry(agent).or_default()
    }

    /// One Welcome from `by` to each recipient, or none when one of them would be too much.
    pub(super) fn take_welcomes(
        &mut self,
        by: AgentId,
        to: &[AgentId],
        limits: &Limits,
        now: Time,
    ) -> bool {
        let rate = limits.welcomes;
        let pairs = to.iter().map(|agent| (by, *agent));
        let granted = self.welcomes.len() + to.len() <= WELCOME_PAIRS_MAX
            && pairs.clone().all(|pair| {
                self.welcomes
                    .get(&pair)
                    .is_none_or(|bucket| bucket.holds(rate, 1, now))
            });
        if granted {
            for pair in pairs {
                let taken = self.welcomes.entry(pair).or_default().take(rate, 1, now);
                debug_assert!(taken, "all buckets were asked before");
            }
        }
        granted
    }

    pub(super) fn sweep(&mut self, limits: &Limits, now: Time) {
        self.welcomes
            .retain(|_, bucket| !bucket.is_full(limits.welcomes, now));
        self.agents.retain(|_, rates| !rates.are_full(limits, now));
    }
}

impl AgentRates {
    fn are_full(&self, limits: &Limits, now: Time) -> bool {
        self.frames.is_full(limits.frames, now)
            && self.publishes.is_full(limits.publishes, now)
            && self.joins.is_full(limits.commits, now)
            && self.creates.is_full(limits.creates, now)
            && self.uploads.is_full(limits.uploads, now)
            && self.claims.is_full(limits.claims, now)
            && self.claimed.is_full(limits.claims_of_target, now)
            && self.group_infos.is_full(limits.group_infos, now)
    }
}

/// Pairs of adder and recipient remembered at once; beyond them adding is refused until the
/// next sweep.
const WELCOME_PAIRS_MAX: usize = 200_000;
