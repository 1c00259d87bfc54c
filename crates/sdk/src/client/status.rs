//! How an agent and its lines stand.

use skytale_wire::id::RelayKey;

use crate::{
    link::{Carrier, LinkState},
    traffic::{LineCounters, LineShapes},
};

/// How an agent stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The process that holds the lines, when it is not this one. Zero when it is unknown.
    pub held_by: Option<u32>,
    /// The relays of this agent's channels, and its own.
    pub relays: Vec<RelayStatus>,
    /// Messages that no relay has stored yet.
    pub outbox: u32,
    /// Changes of groups that are wanted and not yet made.
    pub commits_wanted: u32,
}

/// How the line to one relay stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Which.
    pub key: RelayKey,
    /// Where it was tried last.
    pub address: Option<String>,
    /// `None` when another process holds the line.
    pub state: Option<LinkState>,
    /// Why the last try or connection ended.
    pub trouble: Option<String>,
    /// KeyPackages that it held when we last connected.
    pub key_packages: Option<u32>,
    /// How far its clock was ahead of ours.
    pub clock_ahead_ms: Option<i64>,
    /// What carries the present line, or is about to.
    pub carrier: Option<Carrier>,
    /// What holds for the present line; `None` before the relay has said so.
    pub shapes: Option<LineShapes>,
    /// What lines to it have carried since the agent was opened.
    pub counters: LineCounters,
}

impl RelayStatus {
    pub(super) fn unknown(key: RelayKey) -> Self {
        Self {
            key,
            address: None,
            state: None,
            trouble: None,
            key_packages: None,
            clock_ahead_ms: None,
            carrier: None,
            shapes: None,
            counters: LineCounters::default(),
        }
    }
}
