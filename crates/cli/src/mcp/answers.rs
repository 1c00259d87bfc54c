//! What each tool does: a few calls of the SDK, and an answer that a model can read.
//!
//! No answer holds a key or a token. The line that `invite` makes is the only secret that leaves.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, RequestId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skytale_sdk::{
    Agent, AgentId, Channel, ChannelState, ChannelView, Draft, Error, InviteOptions, LinkState,
    MessageId, Status,
};
use skytale_wire::invite::{INVITE_CHARS_MAX, Invite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    NamedBy,
    desk::{CALL_MAX, Call, Desk, STORED_MAX},
    inbox::Portion,
    tools::{self, Which},
};
use crate::{
    exit::{Exit, Failure},
    messages::rfc3339,
    output::harmless,
    quote::quoted,
};

impl Desk {
    /// Does what a call asks for. Whatever goes wrong becomes an answer that a model can read and
    /// act upon.
    pub(super) async fn call(&self, call: Call) -> CallToolResult {
        let (which, tool) = (call.tool, call.tool.name());
        let answer = self.work().track_future(self.answer(call));
        // It has a limit of its own, which the caller sets.
        let done = if which == Which::Receive {
            answer.await
        } else {
            timeout(CALL_MAX, answer).await.unwrap_or_else(|_| {
                Err(Failure::failed(
                    "this takes longer than a call may: it may still be done, so look with channels and members before you call again",
                ))
            })
        };
        done.unwrap_or_else(|failure| {
            tracing::debug!(tool, code = failure.code(), "refused");
            CallToolResult::error(vec![ContentBlock::text(sentence(&failure))])
        })
    }

    async fn answer(&self, call: Call) -> Result<CallToolResult, Failure> {
        let Call {
            tool,
            arguments,
            id,
            given_up,
        } = call;
        let shown = match tool {
            // Some clients cannot call a tool with nothing and put something in its place.
            Which::Whoami => self.whoami().await?,
            Which::Channels => self.channels().await?,
            Which::Open => self.open(parsed(tool, arguments)?).await?,
            Which::Invite => self.invite(parsed(tool, arguments)?).await?,
            Which::Join => self.join(parsed(tool, arguments)?).await?,
            Which::Send => self.send(parsed(tool, arguments)?).await?,
            Which::Members => self.members(parsed(tool, arguments)?).await?,
            Which::Remove => self.remove(parsed(tool, arguments)?).await?,
            Which::Receive => {
                let wish = parsed(tool, arguments)?;
                let blocks = self.receive(wish, &id, &given_up).await?;
                return Ok(CallToolResult::success(blocks));
            }
        };
        Ok(CallToolResult::structured(shown))
    }

    async fn whoami(&self) -> Result<Value, Failure> {
        let agent = self.agent().await?;
        let wakers: Vec<String> = self.wakers.iter().map(ToString::to_string).collect();
        Ok(json!({
            "agent": self.name,
            "id": agent.id(),
            "named_by": match self.named_by {
                NamedBy::Flag => "--as",
                NamedBy::Directory => "the working directory",
            },
            "line": line(&agent.status().await?),
            "may_wake_me": wakers,
        }))
    }

    async fn channels(&self) -> Result<Value, Failure> {
        let agent = self.agent().await?;
        let up_to_date = is_up_to_date(&agent).await;
        let listed: Vec<Value> = agent.channels().await?.iter().map(listed).collect();
        Ok(json!({"channels": listed, "up_to_date": up_to_date}))
    }

    async fn open(&self, wish: tools::Open) -> Result<Value, Failure> {
        let agent = self.agent().await?;
        if agent.find(&wish.channel).await?.is_none() {
            can_reach(&agent).await?;
        }
        entered(&agent.channel(&wish.channel).await?).await
    }

    async fn invite(&self, wish: tools::Invite) -> Result<Value, Failure> {
        if wish.uses == 0 || wish.ttl_seconds == 0 {
            return Err(Failure::usage(
                "an invite needs at least one use and one second",
            ));
        }
        let agent = self.agent().await?;
        let channel = self.channel(&agent, &wish.channel).await?;
        can_reach(&agent).await?;
        let options = InviteOptions {
            uses: wish.uses,
            ttl: Duration::from_secs(wish.ttl_seconds.into()),
            ..InviteOptions::default()
        };
        let line = Zeroizing::new(channel.invite_with(options).await?);
        let made: Invite = line.parse().map_err(|_| {
            Failure::failed("the invite that was made cannot be read: this is a bug")
        })?;
        Ok(json!({
            "invite": *line,
            "channel": wish.channel,
            "uses": wish.uses,
            "expires": rfc3339(made.expires),
        }))
    }

    async fn join(&self, wish: tools::Join) -> Result<Value, Failure> {
        let line = Zeroizing::new(wish.invite);
        if line.len() > INVITE_CHARS_MAX {
            return Err(Failure::usage("this is too long for an invite line"));
        }
        let agent = self.agent().await?;
        entered(&agent.join(line.trim()).await?).await
    }

    async fn send(&self, wish: tools::Send) -> Result<Value, Failure> {
        let in_reply_to = match wish.reply_to.as_deref() {
            None | Some("") => None,
            Some(id) => Some(id.parse::<MessageId>().map_err(|_| {
                Failure::usage("reply_to is the id of a message, as receive shows it")
            })?),
        };
        let agent = self.agent().await?;
        let channel = self.channel(&agent, &wish.channel).await?;
        let draft = Draft {
            in_reply_to,
            ..Draft::text(&wish.text)
        };
        match channel.send_timeout(draft, STORED_MAX).await {
            Ok(sent) => Ok(json!({"stored": true, "id": sent.id, "seq": sent.seq})),
            Err(Error::Timeout { queued: true, .. } | Error::Unreachable(_)) => Ok(json!({
                "stored": false,
                "queued": true,
                "note": "The relay cannot be reached now, or takes its time. The message is kept and leaves by itself; do not send it again.",
            })),
            Err(error) => Err(error.into()),
        }
    }

    async fn receive(
        &self,
        wish: tools::Receive,
        call: &RequestId,
        given_up: &CancellationToken,
    ) -> Result<Vec<ContentBlock>, Failure> {
        let agent = self.agent().await?;
        let channel = self.channel(&agent, &wish.channel).await?;
        let wait = Duration::from_secs(wish.wait_seconds.min(WAIT_SECONDS_MAX).into());
        let ending = self.ending();
        let mut up_to_date = true;
        let waiting = async {
            up_to_date = is_up_to_date(&agent).await;
            let inbox = self.inbox(&channel);
            let Ok(mut inbox) = timeout(TURN_MAX, inbox.lock()).await else {
                return Err(Failure::usage(
                    "another call of receive is waiting for this channel: its answer brings the messages",
                ));
            };
            let most = wish.most.min(MESSAGES_MAX);
            let unseen = |call: &RequestId| self.has_given_up(call);
            inbox.next(call, most, wait.max(LOOK_MIN), unseen).await
        };
        let portion = tokio::select! {
            portion = waiting => portion?,
            () = given_up.cancelled() => Portion::Nothing,
            () = ending.cancelled() => Portion::Nothing,
        };
        let behind = if up_to_date { "" } else { BEHIND };
        Ok(match portion {
            Portion::Nothing => vec![ContentBlock::text(format!(
                "No new message in {} yet. Call receive again to go on waiting.{behind}",
                wish.channel
            ))],
            Portion::Over => {
                return Err(Failure::not_found(
                    "this agent is no longer in the channel, and everything was read: only a new invite leads back",
                ));
            }
            Portion::Messages(messages) => {
                self.were_given(channel.id(), &messages);
                let unread = channel.view().await.map_or(0, |view| view.unread);
                let left = usize::try_from(unread)
                    .unwrap_or(usize::MAX)
                    .saturating_sub(messages.len());
                let said = portion_heading(&wish.channel, messages.len(), left) + behind;
                let blocks = messages
                    .iter()
                    .map(|message| ContentBlock::text(quoted(message)));
                std::iter::once(ContentBlock::text(said))
                    .chain(blocks)
                    .collect()
            }
        })
    }

    async fn members(&self, wish: tools::InChannel) -> Result<Value, Failure> {
        let agent = self.agent().await?;
        let channel = self.channel(&agent, &wish.channel).await?;
        let up_to_date = is_up_to_date(&agent).await;
        let members: Vec<Value> = channel
            .members()
            .await?
            .iter()
            .map(|member| {
                json!({
                    "agent": member.agent,
                    "label": member.label.as_deref().map(harmless),
                    "may_remove": member.admin,
                    "may_invite": member.may_invite,
                    "me": member.me,
                })
            })
            .collect();
        Ok(json!({"members": members, "up_to_date": up_to_date}))
    }

    async fn remove(&self, wish: tools::Remove) -> Result<Value, Failure> {
        let other = wish
            .agent
            .parse::<AgentId>()
            .map_err(|_| Failure::usage("agent is a member's id, agt_…, as members shows it"))?;
        let agent = self.agent().await?;
        let channel = self.channel(&agent, &wish.channel).await?;
        can_reach(&agent).await?;
        channel.remove(other).await?;
        Ok(json!({"removed": other}))
    }
}

/// Waits, but not long, until everything is here that the relay has for the agent.
async fn is_up_to_date(agent: &Agent) -> bool {
    matches!(timeout(UP_TO_DATE_MAX, agent.caught_up()).await, Ok(Ok(())))
}

/// Fails soon where nothing can be reached, instead of late when the change was not made. Where one
/// relay answers or another process has the line, the change itself shows whether it works.
async fn can_reach(agent: &Agent) -> Result<(), Failure> {
    let status = agent.status().await?;
    let ready = |state: Option<LinkState>| matches!(state, Some(LinkState::Ready));
    if status.held_by.is_none() && !status.relays.iter().any(|relay| ready(relay.state)) {
        agent.online().await?;
    }
    Ok(())
}

/// A channel that was opened or joined.
async fn entered(channel: &Channel) -> Result<Value, Failure> {
    let view = channel.view().await?;
    Ok(json!({
        "channel": view.name.map(|name| name.to_string()),
        "id": view.id,
        "members": view.members,
        "verified": view.confirmed,
        "words": channel.words().await?.join(" "),
    }))
}

fn listed(view: &ChannelView) -> Value {
    let (state, note) = match view.state {
        ChannelState::Creating => ("creating", None),
        ChannelState::Joining => ("joining", None),
        ChannelState::Offered(_) => (
            "offered",
            Some("another agent has added this one: the user says `skytale accept` or `decline`"),
        ),
        ChannelState::Active => ("active", None),
        ChannelState::Leaving => ("leaving", None),
        ChannelState::Stuck => (
            "stuck",
            Some("its log cannot be followed: `skytale doctor` says more"),
        ),
        ChannelState::Closed(_) => ("closed", None),
    };
    let mut shown = json!({
        "channel": view.name.as_ref().map(ToString::to_string),
        "id": view.id,
        "state": state,
        "members": view.members,
        "unread": view.unread,
        "queued": view.outbox,
        "verified": view.confirmed,
        "may_remove": view.admin,
        "may_invite": view.may_invite,
    });
    if let Some(note) = note {
        shown["note"] = note.into();
    }
    shown
}

/// How the agent's line stands, in a word or two.
fn line(status: &Status) -> &'static str {
    if status.held_by.is_some() {
        return "held by another process of this agent";
    }
    let mut best = "none yet: no relay is known";
    for relay in &status.relays {
        best = match relay.state {
            Some(LinkState::Ready) => return "ready",
            Some(LinkState::Refused(_)) => "refused by the relay: `skytale doctor` says why",
            Some(LinkState::Connecting | LinkState::Greeting) | None => "connecting",
        };
    }
    best
}

fn portion_heading(channel: &str, count: usize, left: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    let more = match left {
        0 => String::new(),
        left => format!(" {left} more wait."),
    };
    format!(
        "{count} message{plural} from {channel}.{more} Counted as read when receive is called again."
    )
}

/// Parses what a tool takes.
fn parsed<T: DeserializeOwned>(tool: Which, arguments: JsonObject) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|bad| Failure::usage(format!("what {} was given: {bad}", tool.name())))
}

/// What a model reads when something went wrong: a word for programs, and the next step.
fn sentence(failure: &Failure) -> String {
    let hint = match failure.exit() {
        Exit::Unreachable | Exit::Timeout => NO_SERVER,
        Exit::Failed | Exit::Usage | Exit::NotFound | Exit::Denied | Exit::Policy => "",
    };
    format!("{}: {failure}{hint}", failure.code())
}

const NO_SERVER: &str = ". If the servers run on this machine, `skytale up` starts them.";
const BEHIND: &str = " The relay cannot be reached now: there may be more than is here.";
/// The longest wait for a message. Clients give up a call after a minute.
const WAIT_SECONDS_MAX: u32 = 50;
/// How long the vault may take to hand out what it has, also for those who do not want to wait.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// How long one call of `receive` waits for another of the same channel to end.
const TURN_MAX: Duration = Duration::from_secs(2);
/// Messages of one portion; the others come with the next.
const MESSAGES_MAX: usize = 50;
/// How long a call waits for what the relay has, before it shows what is here.
const UP_TO_DATE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_do_not_fit_are_told_by_name() {
        let given = |value: Value| value.as_object().cloned().unwrap();

        let missing = parsed::<tools::Open>(Which::Open, JsonObject::new());
        let unknown =
            parsed::<tools::Open>(Which::Open, given(json!({"channel": "a/b/c", "wait": 1})));
        let odd = parsed::<tools::Receive>(
            Which::Receive,
            given(json!({"channel": "a/b/c", "wait_seconds": -1})),
        );

        let said = missing.err().unwrap().to_string();
        assert!(
            said.contains("open") && said.contains("`channel`"),
            "{said}"
        );
        assert_eq!(unknown.err().unwrap().exit(), Exit::Usage);
        assert_eq!(odd.err().unwrap().exit(), Exit::Usage);
    }

    #[test]
    fn what_cannot_be_reached_names_the_command_that_starts_it() {
        let away = sentence(&Failure::new(
            Exit::Unreachable,
            "the relay cannot be reached",
        ));
        let denied = sentence(&Failure::new(Exit::Denied, "the invite is used up"));

        assert!(
            away.starts_with("unreachable: ") && away.contains("`skytale up`"),
            "{away}"
        );
        assert_eq!(denied, "denied: the invite is used up");
    }

    #[test]
    fn a_portion_says_how_many_more_there_are() {
        assert_eq!(
            portion_heading("a/b/c", 1, 0),
            "1 message from a/b/c. Counted as read when receive is called again."
        );
        assert!(portion_heading("a/b/c", 2, 3).contains(" 3 more wait."));
    }
}
