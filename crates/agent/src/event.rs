//! What happens in channels besides messages. Misbehaviour of others is always among it: nothing
//! that goes wrong stays silent.

use minicbor::{Decode, Encode};
use skytale_wire::id::{AgentId, ChannelId, Epoch, RelayKey, Seq};

/// Something that an application may want to know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(
    missing_docs,
    reason = "`channel`, `agent`, `seq` and `epoch` mean what their types say"
)]
pub enum Event {
    /// We are in a channel: created, joined by invite, or added and accepted.
    #[n(0)]
    Entered {
        #[n(0)]
        channel: ChannelId,
    },
    /// An unknown agent has added us; waits for `accept`.
    #[n(1)]
    AcceptanceWanted {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        by: AgentId,
    },
    /// Somebody came in.
    #[n(2)]
    Joined {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
    },
    /// Somebody left by itself.
    #[n(3)]
    Left {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
    },
    /// Somebody was removed; when it is us, the channel is closed.
    #[n(4)]
    Removed {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
        #[n(2)]
        by: AgentId,
    },
    /// The group has new keys.
    #[n(5)]
    EpochChanged {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        epoch: Epoch,
    },
    /// An agent shows another label than before, or a label that another agent shows too. A label
    /// is nobody's identity.
    #[n(6)]
    LabelChanged {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
    },
    /// A sender's counter says that messages of it never reached us.
    #[n(7)]
    Gap {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
        #[n(2)]
        missing: u64,
    },
    /// The relay has dropped bodies that we had not read.
    #[n(8)]
    Pruned {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        up_to: Seq,
    },
    /// Another member was shown another log than we were.
    #[n(9)]
    ForkSuspected {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
        #[n(2)]
        seq: Seq,
    },
    /// The relay's log is shorter than what it had delivered, or has another content.
    #[n(10)]
    LogRollback {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        seq: Seq,
    },
    /// A record could not be opened or did not hold what it claims; it was skipped.
    #[n(11)]
    Unreadable {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        agent: AgentId,
        #[n(2)]
        seq: Seq,
    },
    /// A commit took its place in the log that no honest member can apply. The channel stands
    /// still.
    #[n(12)]
    ChannelStuck {
        #[n(0)]
        channel: ChannelId,
        #[n(1)]
        by: AgentId,
        #[n(2)]
        seq: Seq,
    },
    /// A Welcome came for a KeyPackage that we no longer have: whoever added us must add again.
    #[n(13)]
    OrphanWelcome {
        #[n(0)]
        channel: ChannelId,
    },
    /// An inviter or admin has been read since we joined by invite: nobody played an old state
    /// to us.
    #[n(14)]
    Confirmed {
        #[n(0)]
        channel: ChannelId,
    },
    /// The line to a relay is open.
    #[n(15)]
    Connected {
        #[n(0)]
        relay: RelayKey,
    },
    /// The line to a relay is closed; the SDK connects again.
    #[n(16)]
    Disconnected {
        #[n(0)]
        relay: RelayKey,
    },
    /// Cells of cover that the relay sent did not arrive: somebody on the line takes them out, to
    /// find the real ones. Not kept in the vault.
    #[n(17)]
    CoverMissing {
        #[n(0)]
        relay: RelayKey,
        #[n(1)]
        missing: u64,
    },
    /// Cells have left beside the schedule, because the application or its settings asked for it:
    /// a watcher of the line saw that something was sent. Not kept in the vault.
    #[n(18)]
    OverSchedule {
        #[n(0)]
        relay: RelayKey,
        #[n(1)]
        cells: u64,
    },
}

impl Event {
    /// The channel that it is about.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Entered { channel }
            | Self::AcceptanceWanted { channel, .. }
            | Self::Joined { channel, .. }
            | Self::Left { channel, .. }
            | Self::Removed { channel, .. }
            | Self::EpochChanged { channel, .. }
            | Self::LabelChanged { channel, .. }
            | Self::Gap { channel, .. }
            | Self::Pruned { channel, .. }
            | Self::ForkSuspected { channel, .. }
            | Self::LogRollback { channel, .. }
            | Self::Unreadable { channel, .. }
            | Self::ChannelStuck { channel, .. }
            | Self::OrphanWelcome { channel }
            | Self::Confirmed { channel } => Some(*channel),
            Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::CoverMissing { .. }
            | Self::OverSchedule { .. } => None,
        }
    }
}
