//! What agents say, hear and do in their channels.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use skytale_wire::{
    id::{AgentId, ChannelId, MessageId},
    name::ChannelName,
};

use super::{agent_name, seconds, servers::PublicAddr};
use crate::{history::span, wake::Waker};

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Name or id; may be left out when the agent has just one channel
    pub(crate) channel: Option<Which>,
    /// How many agents may join by the line
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// How long it holds, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub(crate) ttl: Duration,
    /// How the relay is reached by whoever joins; may be given more than once
    #[arg(long = "address", value_name = "HOST:PORT")]
    pub(crate) addresses: Vec<PublicAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct InChannel {
    /// Name or id; may be left out when only one is meant
    pub(crate) channel: Option<Which>,
}

#[derive(Debug, Args)]
pub(crate) struct Others {
    /// The channel, which may be left out when the agent has just one, and agents' ids
    #[arg(value_name = "CHANNEL|AGENT", required = true)]
    pub(crate) names: Vec<WhichOrAgent>,
}

#[derive(Debug, Args)]
pub(crate) struct Said {
    /// Name or id; may be left out when the agent has just one channel
    pub(crate) channel: Option<Which>,
    /// Read the message from a file instead of stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A media type; text/plain when the message is text
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// The id of the message that this one answers
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<MessageId>,
    /// Keep the line break at the end
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) said: Said,
    /// Do not wait for slots: whoever watches the line sees that something was sent
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// Name or id; may be left out when the agent has just one channel
    pub(crate) channel: Option<Which>,
    /// Go on printing as messages come
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) follow: bool,
    /// When nothing waits, wait this long for a message
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait: Option<Duration>,
    /// Stop after so many messages
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// A name for this reader's own position; readers with one name share the messages
    #[arg(long, value_name = "NAME", value_parser = agent_name)]
    pub(crate) reader: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Name or id; may be left out when the agent has just one channel
    pub(crate) channel: Option<Which>,
    /// Only what comes after this place in the channel's log
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) after: u64,
    /// From now on keep messages this long: 90s, 45m, 12h, 7d; or none, which wipes what was kept
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with_all = ["channel", "after"])]
    pub(crate) keep: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Name or id; all channels when left out
    pub(crate) channel: Option<Which>,
    /// Print lines also on a terminal, instead of drawing what the line carries
    #[arg(long)]
    pub(crate) plain: bool,
    /// Among the lines, one each second with what the line has carried: real cells and cover
    #[arg(long)]
    pub(crate) cells: bool,
    /// Run this for each message of those that --wake-from names, by sh, one after another; the
    /// message comes as JSON on stdin
    #[arg(long, value_name = "COMMAND", requires = "wake_from")]
    pub(crate) exec: Option<String>,
    /// Whose messages run the command; may be given more than once. An id is safer than a label
    #[arg(long, value_name = "ID|LABEL", requires = "exec")]
    pub(crate) wake_from: Vec<Waker>,
    /// How often within an hour the command is run; then it waits
    #[arg(long, value_name = "COUNT", default_value_t = 120, requires = "exec", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_hour: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// Whose messages are told to a client that is idle, where it listens; may be given more than
    /// once, and nobody's when left out. An id is safer than a label
    #[arg(long, value_name = "ID|LABEL")]
    pub(crate) wake_from: Vec<Waker>,
    /// How often within an hour an idle client is told
    #[arg(long, value_name = "COUNT", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_hour: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Hook {
    /// Whose messages are handed over; may be given more than once. An id is safer than a label
    #[arg(long, value_name = "ID|LABEL", required = true)]
    pub(crate) wake_from: Vec<Waker>,
    /// How often within an hour messages may keep the agent from stopping
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    pub(crate) per_hour: u32,
}

/// A channel, by name or by id. A name has slashes and an id has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    Name(ChannelName),
    Id(ChannelId),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 2 * ChannelId::LEN && !text.contains('/') {
            return text.parse().map(Self::Id).map_err(|bad| bad.to_string());
        }
        text.parse().map(Self::Name).map_err(|bad| bad.to_string())
    }
}

/// What stands in a list where the channel may be left out.
#[derive(Debug, Clone)]
pub(crate) enum WhichOrAgent {
    Which(Which),
    Agent(AgentId),
}

impl FromStr for WhichOrAgent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("agt_") {
            return text.parse().map(Self::Agent).map_err(|bad| bad.to_string());
        }
        text.parse().map(Self::Which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_told_from_an_agent_and_a_name_from_an_id() {
        let id = "00".repeat(32);

        assert!(matches!(id.parse(), Ok(Which::Id(_))));
        assert!(matches!("acme/ops/plan".parse(), Ok(Which::Name(_))));
        assert!("acme/../plan".parse::<Which>().is_err());
        assert!("plan".parse::<Which>().is_err());
        assert!("agt_abc".parse::<WhichOrAgent>().is_err());
        assert!(matches!(
            "acme/ops/plan".parse(),
            Ok(WhichOrAgent::Which(_))
        ));
    }
}
