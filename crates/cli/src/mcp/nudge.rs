//! Wakes a client that is idle: tells it that messages wait, and from whom, as the experimental
//! capability `claude/channel` has it.
//!
//! No more than so many in an hour: what comes when they are used up is told with the next one.
//!
//! What a message says is not in the notice. It is handed out by `receive` alone, once, and between
//! marks; and a member that may not wake the agent cannot even be heard of here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rmcp::{
    RoleServer,
    model::{CustomNotification, ServerNotification},
    service::Peer,
};
use serde_json::{Value, json};
use skytale_sdk::{Agent, ChannelId, Message, Seq};
use tokio::time::{MissedTickBehavior, interval};

use super::desk::Desk;
use crate::{
    exit::Failure,
    output::harmless,
    wake::{self, Budget, Gate, Way},
};

/// What a server declares that sends such notices.
pub(super) const CAPABILITY: &str = "claude/channel";

/// Looks for messages until the server ends.
pub(super) async fn run(
    desk: Arc<Desk>,
    gate: Gate,
    notices_per_hour: u32,
    client: Peer<RoleServer>,
) {
    let ending = desk.ending();
    let mut lookout = Lookout {
        gate,
        notices_per_hour,
        paused_until: 0,
        places: BTreeMap::new(),
    };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let notices = tokio::select! {
            () = ending.cancelled() => return,
            notices = lookout.look(&desk) => notices,
        };
        match notices {
            Ok(notices) => {
                for notice in notices {
                    if client.send_notification(notice).await.is_err() {
                        return;
                    }
                }
            }
            Err(failure) => tracing::debug!(code = failure.code(), "cannot look for messages"),
        }
    }
}

/// What has been looked at.
struct Lookout {
    gate: Gate,
    notices_per_hour: u32,
    /// Nothing is looked at before: the hour allows no notice, or none can be counted.
    paused_until: u64,
    /// Of each channel: how far its log was read, and the last message that was looked at.
    places: BTreeMap<ChannelId, (Seq, i64)>,
}

impl Lookout {
    /// A notice for each channel with new messages that may wake the agent.
    async fn look(&mut self, desk: &Desk) -> Result<Vec<ServerNotification>, Failure> {
        let pause_s = self.paused_until.saturating_sub(wake::now());
        if (1..=PAUSE_MAX_S).contains(&pause_s) {
            return Ok(Vec::new());
        }
        let agent = desk.agent().await?;
        let mut notices = Vec::new();
        for view in agent.channels().await? {
            let (seq, row) = self.places.get(&view.id).copied().unwrap_or_default();
            let Some(name) = view.name.as_ref().filter(|_| view.cursor != seq) else {
                continue;
            };
            let Some(channel) = agent.find(name.as_str()).await? else {
                continue;
            };
            let new = channel.look(row).await?;
            // There may be more than one look shows; then the next one goes on from here.
            let last = new.last().map_or(row, Message::row);
            let seen = if new.is_empty() { view.cursor } else { seq };
            let mut waking = Vec::new();
            for message in new {
                if message.row() > desk.given(view.id) && self.gate.lets_through(&message).await? {
                    waking.push(message);
                }
            }
            if let Some(newest) = waking.last() {
                if !self.may_tell(&agent) {
                    // Its place stays, so that it is told when it may be.
                    return Ok(notices);
                }
                notices.push(notice(name.as_str(), waking.len(), newest));
            }
            self.places.insert(view.id, (seen, last));
        }
        Ok(notices)
    }

    /// Counts once more, if the hour allows it.
    fn may_tell(&mut self, agent: &Agent) -> bool {
        let now = wake::now();
        let budget = Budget::new(agent.data_dir(), Way::Notice, self.notices_per_hour);
        match budget.spend(now) {
            Ok(0) => return true,
            Ok(wait_s) => {
                tracing::warn!(
                    wait_s,
                    "the client was told as often as an hour allows (--per-hour)"
                );
                self.paused_until = now + wait_s.min(PAUSE_MAX_S);
            }
            Err(failure) => {
                tracing::warn!(%failure, "the client is not told of messages");
                self.paused_until = now + PAUSE_MAX_S;
            }
        }
        false
    }
}

fn notice(channel: &str, count: usize, newest: &Message) -> ServerNotification {
    let label = harmless(newest.label());
    let said = said(channel, count, &newest.sender().to_string(), &label);
    // Values are texts, and names are words without hyphens: others are dropped.
    let params = json!({
        "content": said,
        "meta": {
            "channel": channel,
            "count": count.to_string(),
            "sender": newest.sender(),
            "label": label,
            "verified": newest.verified().to_string(),
            "seq": newest.seq().0.to_string(),
            "message_id": newest.id(),
        },
    });
    named(params)
}

fn said(channel: &str, count: usize, sender: &str, label: &str) -> String {
    let (waits, who) = if count == 1 {
        ("1 new message waits".to_owned(), "from")
    } else {
        (format!("{count} new messages wait"), "the newest from")
    };
    format!(
        "{waits} in {channel}, {who} {sender}, which calls itself {label:?}. Read with the tool receive."
    )
}

fn named(params: Value) -> ServerNotification {
    ServerNotification::CustomNotification(CustomNotification::new(METHOD, Some(params)))
}

const METHOD: &str = "notifications/claude/channel";
/// It is looked again after a minute, and at once where the clock was set back: hours are counted by it.
const PAUSE_MAX_S: u64 = 60;
/// How often is looked for new messages. Whoever is idle can wait a moment.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_counts_and_names_the_sender() {
        let one = said("a/b/c", 1, "agt_x", "coder");
        let two = said("a/b/c", 2, "agt_x", "co\"der");

        assert!(
            one.starts_with("1 new message waits in a/b/c, from agt_x"),
            "{one}"
        );
        assert!(two.contains("the newest from agt_x"), "{two}");
        assert!(two.contains("\"co\\\"der\""), "{two}");
    }
}
