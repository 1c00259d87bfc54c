//! What has happened since the start, for operators: numbers only, no agent and no channel.

use std::collections::BTreeMap;

use skytale_wire::{frame::ToAgent, refusal::Refusal};

use super::{Lane, Output, SlimDrop};
use crate::archive::Write;

/// Counted from what the hub puts out, so that no path can be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that reached Ready.
    pub opened: u64,
    /// Publish requests acknowledged, repeats included.
    pub published: u64,
    /// Commits and leaves acknowledged, repeats included.
    pub acknowledged: u64,
    /// Channels created, repeats included.
    pub created: u64,
    /// Records handed to connections live, counted once for each receiver.
    pub delivered: u64,
    /// Records handed to connections from the archive.
    pub caught_up: u64,
    /// Records handed to the store.
    pub appended: u64,
    /// Welcomes handed to connections, repeats included.
    pub welcomes: u64,
    /// `KeyPackages` handed out.
    pub key_packages: u64,
    /// Reads asked of the archive.
    pub reads: u64,
    /// Requests refused, by reason.
    pub nacks: BTreeMap<Refusal, u64>,
    /// Connections closed by the hub, by reason.
    pub closed: BTreeMap<Refusal, u64>,
    /// What became of SLIM's messages.
    pub slim: SlimCounters,
}

/// What became of SLIM's messages, whichever door they came through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlimCounters {
    /// Publications passed on to somebody.
    pub relayed: u64,
    /// Publications handed to connections, counted once for each receiver.
    pub delivered: u64,
    /// Publications handed to native lines from the archive.
    pub caught_up: u64,
    /// Publications handed to the store.
    pub archived: u64,
    /// Publications passed on without being stored, because no further name may have a log.
    pub unarchived: u64,
    /// Messages that were stored before and went on once more.
    pub repeated: u64,
    /// Commits and proposals that were let in.
    pub commits_accepted: u64,
    /// Commits and proposals that another commit came before.
    pub commits_stale: u64,
    /// Commits and proposals that were said again.
    pub commits_repeated: u64,
    /// Commits and proposals passed on without an order: they leap too far, or their name can have
    /// no log.
    pub commits_unordered: u64,
    /// Requests for a repeat that were answered from the archive.
    pub rtx_answered: u64,
    /// Pings and heartbeats to the relay itself.
    pub pings: u64,
    /// Subscriptions that were refused.
    pub refused: u64,
    /// Publications dropped, by reason.
    pub dropped: BTreeMap<SlimDrop, u64>,
}

impl Counters {
    pub(super) fn count(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Send { lane, frame, .. } => self.count_frame(*lane, frame),
                Output::Deliver { conns, .. } => self.delivered += conns.len() as u64,
                Output::Store { write, .. } => {
                    self.appended += u64::from(matches!(write, Write::Append(_)));
                }
                Output::Read { .. } => self.reads += 1,
                // Counted where it is decided, because what goes out does not say why.
                Output::SlimDeliver { .. } | Output::SlimAck { .. } | Output::Report(_) => {}
                Output::Close { refusal, .. } => *self.closed.entry(*refusal).or_default() += 1,
            }
        }
    }

    fn count_frame(&mut self, lane: Lane, frame: &ToAgent) {
        match frame {
            ToAgent::Ready(_) => self.opened += 1,
            ToAgent::Created(_) => self.created += 1,
            ToAgent::Published(_) => self.published += 1,
            ToAgent::Ack(_) => self.acknowledged += 1,
            ToAgent::Nack(nack) => *self.nacks.entry(nack.refusal).or_default() += 1,
            ToAgent::Deliver(_) => self.caught_up += u64::from(lane == Lane::CatchUp),
            ToAgent::KeyPackage(_) => self.key_packages += 1,
            ToAgent::Welcome(_) => self.welcomes += 1,
            ToAgent::Subscribed(_)
            | ToAgent::Pruned(_)
            | ToAgent::KeyPackagesKept(_)
            | ToAgent::GroupInfo(_)
            | ToAgent::GroupInfoWanted(_)
            | ToAgent::Renewed(_)
            | ToAgent::Pong(_)
            | ToAgent::Closing(_)
            | ToAgent::SlimSubscribed(_)
            | ToAgent::SlimPublished(_)
            | ToAgent::SlimDeliver(_)
            | ToAgent::SlimLogs(_) => {}
        }
    }
}
