//! Which channels an account pays for, for whoever asks in its name.
//!
//! Reading only: nothing here changes what the hub knows. What stands in a channel is the archive's
//! matter; here it is decided who may see it.

use std::ops::Bound;

use skytale_wire::id::{ChannelId, Seq};

use super::{Hub, channel::Channel};

/// A channel that an account pays for, as far as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Which.
    pub channel: ChannelId,
    /// The place of the last record that is stored.
    pub stored: Seq,
    /// Bodies up to here are gone.
    pub pruned: Seq,
    /// How many agents are in.
    pub members: usize,
}

impl Hub {
    /// Channels that this account pays for, by their ids: those behind `after`, at most `count_max`.
    pub fn channels_of(
        &self,
        account: &str,
        after: Option<ChannelId>,
        count_max: usize,
    ) -> Vec<Owned> {
        let Some(ids) = self.owned.get(account) else {
            return Vec::new();
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = ids.range((from, Bound::Unbounded));
        let owned = ids.filter_map(|id| self.channel_of(account, id));
        owned.take(count_max).collect()
    }

    /// This channel, if this account pays for it. Being in it is no reason to see it here: whoever
    /// is reads it over a line.
    pub fn channel_of(&self, account: &str, id: &ChannelId) -> Option<Owned> {
        let channel = self.channels.get(id)?;
        let is_theirs = channel.kept.owner == account && is_stored(channel);
        is_theirs.then(|| Owned {
            channel: *id,
            stored: channel.durable,
            pruned: channel.pruned,
            members: channel.kept.roster.members().count(),
        })
    }
}

/// One that is being created may yet fail. For the moment in which its first commit is on its way, it
/// is as if it were.
fn is_stored(channel: &Channel) -> bool {
    channel.durable > Seq(0) || channel.unsettled.is_none()
}
