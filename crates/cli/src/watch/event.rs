//! Events as `watch` prints them. The fields are part of the command line's contract.

use serde::Serialize;
use skytale_sdk::Event;
use skytale_wire::id::{AgentId, ChannelId};

/// An event as `watch --json` prints it.
#[derive(Debug, Default, Serialize)]
pub(super) struct ShownEvent {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<AgentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cells: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
}

impl ShownEvent {
    pub(super) fn of(event: &Event) -> Self {
        let named = |name| Self {
            event: name,
            channel: event.channel(),
            ..Self::default()
        };
        match event {
            Event::Entered { .. } => named("entered"),
            Event::AcceptanceWanted { by, .. } => Self {
                by: Some(*by),
                ..named("acceptance_wanted")
            },
            Event::Joined { agent, .. } => Self {
                agent: Some(*agent),
                ..named("joined")
            },
            Event::Left { agent, .. } => Self {
                agent: Some(*agent),
                ..named("left")
            },
            Event::Removed { agent, by, .. } => Self {
                agent: Some(*agent),
                by: Some(*by),
                ..named("removed")
            },
            Event::EpochChanged { epoch, .. } => Self {
                epoch: Some(epoch.0),
                ..named("epoch_changed")
            },
            Event::LabelChanged { agent, .. } => Self {
                agent: Some(*agent),
                ..named("label_changed")
            },
            Event::Gap { agent, missing, .. } => Self {
                agent: Some(*agent),
                missing: Some(*missing),
                ..named("gap")
            },
            Event::Pruned { up_to, .. } => Self {
                seq: Some(up_to.0),
                ..named("pruned")
            },
            Event::ForkSuspected { agent, seq, .. } => Self {
                agent: Some(*agent),
                seq: Some(seq.0),
                ..named("fork_suspected")
            },
            Event::LogRollback { seq, .. } => Self {
                seq: Some(seq.0),
                ..named("log_rollback")
            },
            Event::Unreadable { agent, seq, .. } => Self {
                agent: Some(*agent),
                seq: Some(seq.0),
                ..named("unreadable")
            },
            Event::ChannelStuck { by, seq, .. } => Self {
                by: Some(*by),
                seq: Some(seq.0),
                ..named("channel_stuck")
            },
            Event::OrphanWelcome { .. } => named("orphan_welcome"),
            Event::Confirmed { .. } => named("confirmed"),
            Event::Connected { relay } => Self {
                relay: Some(relay.to_string()),
                ..named("connected")
            },
            Event::Disconnected { relay } => Self {
                relay: Some(relay.to_string()),
                ..named("disconnected")
            },
            Event::CoverMissing { relay, missing } => Self {
                relay: Some(relay.to_string()),
                missing: Some(*missing),
                ..named("cover_missing")
            },
            Event::OverSchedule { relay, cells } => Self {
                relay: Some(relay.to_string()),
                cells: Some(*cells),
                ..named("over_schedule")
            },
        }
    }

    pub(super) fn plain(&self) -> String {
        let parts = [
            ("channel", self.channel.map(|id| id.short())),
            ("agent", self.agent.map(|id| id.to_string())),
            ("by", self.by.map(|id| id.to_string())),
            ("seq", self.seq.map(|seq| seq.to_string())),
            ("epoch", self.epoch.map(|epoch| epoch.to_string())),
            ("missing", self.missing.map(|count| count.to_string())),
            ("cells", self.cells.map(|count| count.to_string())),
        ];
        let mut words = vec!["*".to_owned(), self.event.replace('_', " ")];
        for (name, value) in parts {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_only_the_fields_that_it_needs() {
        let event = Event::EpochChanged {
            channel: ChannelId([1; 32]),
            epoch: skytale_wire::id::Epoch(4),
        };

        let json = serde_json::to_value(ShownEvent::of(&event)).unwrap();

        assert_eq!(json["event"], "epoch_changed");
        assert_eq!(json["epoch"], 4);
        assert_eq!(json.as_object().unwrap().len(), 3);
    }
}
