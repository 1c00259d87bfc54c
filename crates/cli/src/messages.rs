//! Messages: `send`, `read`, `ask`.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _},
    time::Duration,
};

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Serialize;
use skytale_sdk::{Agent, Channel, Draft, Error, Message};
use skytale_wire::{
    frame::PAYLOAD_BYTES_MAX,
    id::{AgentId, ChannelId, MessageId, Time},
};
use tokio::{signal, time::timeout};

use crate::{
    args::{self, Everywhere},
    context,
    exit::{Exit, Failure},
    output::{Output, harmless},
};

/// A message as `--json` prints it. The fields are part of the command line's contract.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    id: MessageId,
    seq: u64,
    sender: AgentId,
    label: &'a str,
    verified: bool,
    epoch: u64,
    sent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    channel: ChannelId,
    content_type: &'a str,
    in_reply_to: Option<MessageId>,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(message: &'a Message) -> Self {
        let text = message.text().ok();
        Self {
            id: message.id(),
            seq: message.seq().0,
            sender: message.sender(),
            label: message.label(),
            verified: message.verified(),
            epoch: message.epoch().0,
            sent: rfc3339(message.sent()),
            payload_base64: text.is_none().then(|| BASE64.encode(message.payload())),
            text,
            channel: message.channel().id(),
            content_type: message.content_type(),
            in_reply_to: message.in_reply_to(),
        }
    }

    pub(crate) fn plain(&self) -> String {
        // The id goes with the label: anybody may call itself anything.
        let sender: String = self.sender.to_string().chars().take(SENDER_CHARS).collect();
        let label = harmless(self.label);
        let said = match self.text {
            Some(text) => harmless(text),
            None => format!("({}, not text: see --json)", harmless(self.content_type)),
        };
        format!("{} {label} ({sender}…): {said}", self.sent)
    }
}

/// `send`.
pub(crate) async fn send(
    wish: args::Send,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let draft = Draft {
        now: wish.now,
        ..draft(&wish.said, output)?
    };
    let sent = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.said.channel.as_ref()).await?;
        match channel.send(draft).await {
            Ok(sent) => Ok((channel.id(), sent)),
            Err(Error::Timeout { queued: true, .. } | Error::Unreachable(_)) => {
                Err(Failure::new(Exit::Unreachable, queued(agent).await))
            }
            Err(error) => Err(error.into()),
        }
    });
    let (channel, sent) = sent.await?;
    let shown = serde_json::json!({"id": sent.id, "seq": sent.seq, "channel": channel});
    if output.is_json() {
        output.json_line(&shown)
    } else {
        output.say(&format!("sent · seq {}", sent.seq));
        Ok(())
    }
}

/// Says what keeps a message, as far as the line knows it.
async fn queued(agent: &Agent) -> String {
    let status = agent.status().await.ok();
    let mut troubles = status.into_iter().flat_map(|status| status.relays);
    let trouble = troubles.find_map(|relay| relay.trouble);
    let trouble = trouble.unwrap_or_else(|| "the relay cannot be reached now".to_owned());
    format!("queued, leaves with the next command: {trouble} (`skytale doctor` says more)")
}

/// `ask`.
pub(crate) async fn ask(
    wish: args::Ask,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let draft = draft(&wish.said, output)?;
    let asking = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.said.channel.as_ref()).await?;
        let reply = channel.ask(draft).await?;
        let shown = Shown::of(&reply);
        output.result(&shown, || shown.plain())
    });
    asking.await
}

fn draft(said: &args::Said, output: Output) -> Result<Draft, Failure> {
    let mut payload = if let Some(path) = &said.file {
        let file = File::open(path)
            .map_err(|error| Failure::usage(format!("the message's file: {}", error.kind())))?;
        bounded(file)?
    } else {
        if io::stdin().is_terminal() {
            output.say("type the message; Ctrl-D on a line of its own sends it");
        }
        bounded(io::stdin().lock())?
    };
    if said.file.is_none() && !said.raw && std::str::from_utf8(&payload).is_ok() {
        // `echo` ends with a line break that nobody meant to say.
        if payload.ends_with(b"\n") {
            payload.pop();
            if payload.ends_with(b"\r") {
                payload.pop();
            }
        }
    }
    let content_type = match &said.content_type {
        Some(given) => given.clone(),
        None if std::str::from_utf8(&payload).is_ok() => "text/plain".to_owned(),
        None => "application/octet-stream".to_owned(),
    };
    Ok(Draft {
        content_type,
        in_reply_to: said.reply_to,
        headers: Vec::new(),
        payload: payload.into(),
        now: false,
    })
}

/// A message over the limit is refused before anything of it leaves.
fn bounded(from: impl io::Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(PAYLOAD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(
            Exit::Policy,
            format!("the message is over the limit of {PAYLOAD_BYTES_MAX} bytes: nothing was sent"),
        ));
    }
    Ok(bytes)
}

/// `read`: prints what waits and ends, or follows.
pub(crate) async fn read(
    wish: args::Read,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let reading = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        if !wish.follow {
            return waiting(agent, &channel, &wish, output).await;
        }
        tokio::select! {
            result = follow(&channel, &wish, output) => result,
            _ = signal::ctrl_c() => Ok(()),
        }
    });
    reading.await
}

async fn follow(channel: &Channel, wish: &args::Read, output: Output) -> Result<(), Failure> {
    let mut inbox = inbox(channel, wish);
    let mut left = wish.count;
    while left != Some(0) {
        let Some(message) = inbox.next().await? else {
            break;
        };
        show(&message, output).await?;
        left = left.map(|count| count - 1);
    }
    Ok(())
}

async fn waiting(
    agent: &Agent,
    channel: &Channel,
    wish: &args::Read,
    output: Output,
) -> Result<(), Failure> {
    if let Err(error) = agent.caught_up().await {
        // What has come before is in the vault and can be read all the same.
        output.complain(&format!("skytale: only what is here already: {error}"));
    }
    let mut inbox = inbox(channel, wish);
    let mut left = wish.count;
    let mut patience = wish.wait.unwrap_or_default();
    while left != Some(0) {
        let known_empty = wish.reader.is_none() && channel.view().await?.unread == 0;
        let limit = if known_empty {
            patience
        } else {
            patience.max(LOOK_MIN)
        };
        if limit.is_zero() {
            break;
        }
        // What has been fetched in vain is fetched again: nothing is lost when the time is up.
        let Ok(next) = timeout(limit, inbox.next()).await else {
            break;
        };
        let Some(message) = next? else { break };
        show(&message, output).await?;
        left = left.map(|count| count - 1);
        patience = Duration::ZERO;
    }
    Ok(())
}

fn inbox(channel: &Channel, wish: &args::Read) -> skytale_sdk::Messages {
    match &wish.reader {
        Some(reader) => channel.messages_as(reader),
        None => channel.messages(),
    }
}

/// A message is taken only after it has been written out: whoever breaks the pipe finds it again.
async fn show(message: &Message, output: Output) -> Result<(), Failure> {
    let shown = Shown::of(message);
    output.result(&shown, || shown.plain())?;
    message.ack().await?;
    Ok(())
}

/// A moment as JSON and people have it. What lies beyond the year 9999 is a sender's nonsense.
pub(crate) fn rfc3339(time: Time) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// How long the vault may take to hand out what it has; all of it may be leased to others.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Of `agt_…`: enough to tell agents apart at a glance, not enough to trust.
const SENDER_CHARS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_limit_is_refused_and_the_limit_named() {
        assert_eq!(bounded([7; 10].as_slice()).unwrap().len(), 10);
        assert!(bounded(vec![0; PAYLOAD_BYTES_MAX].as_slice()).is_ok());

        let failure = bounded(vec![0; PAYLOAD_BYTES_MAX + 1].as_slice()).unwrap_err();

        assert_eq!(failure.exit(), Exit::Policy);
        assert!(failure.to_string().contains("262144"), "{failure}");
    }

    #[test]
    fn times_are_rfc_3339_whatever_a_sender_claims() {
        assert_eq!(rfc3339(Time(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Time(1_796_000_000_123)), "2026-11-30T00:53:20.123Z");
        assert!(rfc3339(Time(u64::MAX)).starts_with("9999-"));
    }
}
