//! Channels and who is in them: `open`, `channels`, `invite`, `join`, `members`, `add`, `remove`,
//! `leave`, `rotate`, `words`, `accept`, `decline`.

use serde::Serialize;
use skytale_sdk::{Agent, Channel, ChannelState, ChannelView, InviteOptions, MemberView};
use skytale_wire::{
    id::{AgentId, ChannelId},
    invite::{INVITE_CHARS_MAX, Invite},
    name::ChannelName,
};
use zeroize::Zeroizing;

use crate::{
    args::{self, Everywhere, Which, WhichOrAgent},
    context,
    exit::Failure,
    output::{Output, harmless, table},
    secret,
};

/// A channel as `open`, `join`, `accept`, `rotate` and `words` show it.
#[derive(Debug, Serialize)]
struct Entered {
    channel: ChannelId,
    name: Option<String>,
    members: u32,
    epoch: u64,
    words: String,
}

impl Entered {
    async fn of(channel: &Channel) -> Result<Self, Failure> {
        let view = channel.view().await?;
        Ok(Self {
            channel: view.id,
            name: view.name.map(|name| name.to_string()),
            members: view.members,
            epoch: view.epoch.0,
            words: channel.words().await?.join(" "),
        })
    }

    fn described(&self, verb: &str) -> String {
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| self.channel.to_string());
        let plural = if self.members == 1 { "" } else { "s" };
        format!(
            "{verb} {name} · {} member{plural} · words: {}",
            self.members, self.words
        )
    }
}

/// `open`.
pub(crate) async fn open(
    name: &ChannelName,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let entered = context::as_agent_or_new(everywhere, async |agent| {
        Entered::of(&agent.channel(name.as_str()).await?).await
    });
    let entered = entered.await?;
    output.result(&entered, || entered.described("opened"))
}

/// `join`. On success prints what the joiner should compare with the others.
pub(crate) async fn join(
    line: &str,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let line = if line == "-" {
        secret::from_stdin()?
    } else {
        Zeroizing::new(line.to_owned())
    };
    if line.len() > INVITE_CHARS_MAX {
        return Err(Failure::usage("this is too long for an invite line"));
    }
    let entered = context::as_agent_or_new(everywhere, async |agent| {
        Entered::of(&agent.join(line.trim()).await?).await
    });
    let entered = entered.await?;
    output.result(&entered, || entered.described("joined"))
}

/// An invite as JSON. Not `Debug`: the line is a secret.
#[derive(Serialize)]
struct Made<'a> {
    invite: &'a str,
    channel: ChannelId,
    uses: u32,
    expires: String,
}

/// `invite`: the line alone on stdout.
pub(crate) async fn invite(
    wish: args::Invite,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let options = InviteOptions {
        uses: wish.uses,
        ttl: wish.ttl,
        addresses: wish
            .addresses
            .iter()
            .map(|address| address.with_port(RELAY_PORT))
            .collect(),
    };
    let line = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        Ok(Zeroizing::new(channel.invite_with(options).await?))
    });
    let line = line.await?;

    let parsed: Invite = line
        .parse()
        .map_err(|_| Failure::failed("the invite that was made cannot be read: this is a bug"))?;
    if parsed
        .addresses
        .iter()
        .all(|address| is_this_machine(address))
    {
        output.say("this machine only: the relay has no address that others could reach");
    }
    let made = Made {
        invite: &line,
        channel: parsed.channel,
        uses: wish.uses,
        expires: crate::messages::rfc3339(parsed.expires),
    };
    output.result(&made, || line.to_string())
}

fn is_this_machine(address: &str) -> bool {
    // What may follow says where its port for gRPC is.
    let quic = address.split_once('?').map_or(address, |(quic, _)| quic);
    let host = quic.rsplit_once(':').map_or(quic, |(host, _)| host);
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[derive(Debug, Serialize)]
struct Listed {
    channel: ChannelId,
    name: Option<String>,
    state: &'static str,
    by: Option<AgentId>,
    relay: String,
    epoch: u64,
    seq: u64,
    members: u32,
    unread: u32,
    outbox: u32,
    verified: bool,
    admin: bool,
    may_invite: bool,
}

impl From<ChannelView> for Listed {
    fn from(view: ChannelView) -> Self {
        let (state, by) = match view.state {
            ChannelState::Creating => ("creating", None),
            ChannelState::Joining => ("joining", None),
            ChannelState::Offered(by) => ("offered", Some(by)),
            ChannelState::Active => ("active", None),
            ChannelState::Leaving => ("leaving", None),
            ChannelState::Stuck => ("stuck", None),
            ChannelState::Closed(_) => ("closed", None),
        };
        Self {
            channel: view.id,
            name: view.name.map(|name| name.to_string()),
            state,
            by,
            relay: view.relay.to_string(),
            epoch: view.epoch.0,
            seq: view.cursor.0,
            members: view.members,
            unread: view.unread,
            outbox: view.outbox,
            verified: view.confirmed,
            admin: view.admin,
            may_invite: view.may_invite,
        }
    }
}

/// `channels`.
pub(crate) async fn list(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let listed = context::as_agent(everywhere, async |agent| {
        newest(agent, output).await;
        Ok(agent.channels().await?)
    });
    let listed: Vec<Listed> = listed.await?.into_iter().map(Listed::from).collect();
    if output.is_json() {
        return listed.iter().try_for_each(|row| output.json_line(row));
    }
    if listed.is_empty() {
        output.say("no channel yet: `skytale open` makes one, `skytale join` enters one");
        return Ok(());
    }
    let mut shown = table(["NAME", "STATE", "MEMBERS", "UNREAD", "QUEUED", "EPOCH"]);
    for row in listed {
        shown.add_row([
            row.name.unwrap_or_else(|| row.channel.to_string()),
            row.state.to_owned(),
            row.members.to_string(),
            row.unread.to_string(),
            row.outbox.to_string(),
            row.epoch.to_string(),
        ]);
    }
    output.line(&shown.to_string())
}

#[derive(Debug, Serialize)]
struct Member {
    agent: AgentId,
    label: Option<String>,
    admin: bool,
    may_invite: bool,
    me: bool,
}

impl From<MemberView> for Member {
    fn from(view: MemberView) -> Self {
        Self {
            agent: view.agent,
            label: view.label,
            admin: view.admin,
            may_invite: view.may_invite,
            me: view.me,
        }
    }
}

/// Waits for what the relay has for us; when it is away, what the vault knows must do.
async fn newest(agent: &Agent, output: Output) {
    if let Err(error) = agent.caught_up().await {
        output.say(&format!("as last seen: {error}"));
    }
}

/// `members`.
pub(crate) async fn members(
    wish: args::InChannel,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let members = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        newest(agent, output).await;
        Ok(channel.members().await?)
    });
    let members: Vec<Member> = members.await?.into_iter().map(Member::from).collect();
    if output.is_json() {
        return members.iter().try_for_each(|row| output.json_line(row));
    }
    let mut shown = table(["AGENT", "LABEL", "MAY"]);
    for member in members {
        let mut may = Vec::new();
        if member.admin {
            may.push("remove");
        }
        if member.may_invite {
            may.push("invite");
        }
        if member.me {
            may.push("(this agent)");
        }
        shown.add_row([
            member.agent.to_string(),
            harmless(&member.label.unwrap_or_default()),
            may.join(" "),
        ]);
    }
    output.line(&shown.to_string())
}

/// What is done to other agents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Add,
    Remove,
}

/// `add` and `remove`.
pub(crate) async fn change(
    change: Change,
    wish: args::Others,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (which, others) = sorted(wish.names)?;
    let count = others.len();
    let shown = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, which.as_ref()).await?;
        Ok(match change {
            Change::Add => {
                channel.add_all(others.clone()).await?;
                serde_json::json!({"channel": channel.id(), "added": others})
            }
            Change::Remove => {
                for other in &others {
                    channel.remove(*other).await?;
                }
                serde_json::json!({"channel": channel.id(), "removed": others})
            }
        })
    });
    let shown = shown.await?;
    let plural = if count == 1 { "" } else { "s" };
    output.result(&shown, || match change {
        Change::Add => format!("added {count} agent{plural}"),
        Change::Remove => format!("removed {count} agent{plural}"),
    })
}

/// Tells the channel, if one is named, from the agents.
fn sorted(names: Vec<WhichOrAgent>) -> Result<(Option<Which>, Vec<AgentId>), Failure> {
    let mut which = None;
    let mut agents = Vec::new();
    for name in names {
        match name {
            WhichOrAgent::Agent(agent) => agents.push(agent),
            WhichOrAgent::Which(_) if which.is_some() => {
                return Err(Failure::usage(
                    "name one channel, and agents by their agt_… ids",
                ));
            }
            WhichOrAgent::Which(name) => which = Some(name),
        }
    }
    if agents.is_empty() {
        return Err(Failure::usage(
            "which agent? `skytale whoami` and `skytale members` show ids like agt_…",
        ));
    }
    Ok((which, agents))
}

/// `leave`.
pub(crate) async fn leave(
    wish: args::InChannel,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let left = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        channel.leave().await?;
        Ok(channel.id())
    });
    let shown = serde_json::json!({"channel": left.await?, "left": true});
    output.result(&shown, || "left".to_owned())
}

/// `rotate`.
pub(crate) async fn rotate(
    wish: args::InChannel,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let entered = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        channel.rotate().await?;
        Entered::of(&channel).await
    });
    let entered = entered.await?;
    output.result(&entered, || entered.described("new keys in"))
}

/// `words`.
pub(crate) async fn words(
    wish: args::InChannel,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let entered = context::as_agent(everywhere, async |agent| {
        let channel = context::channel(agent, wish.channel.as_ref()).await?;
        // Words of an old epoch differ from the others' without anything being wrong.
        newest(agent, output).await;
        Entered::of(&channel).await
    });
    let entered = entered.await?;
    output.result(&entered, || entered.words.clone())
}

/// `accept` and `decline`.
pub(crate) async fn answer_offer(
    accept: bool,
    wish: args::InChannel,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let entered = context::as_agent(everywhere, async |agent| {
        agent.caught_up().await?;
        let offer = offer(agent.channels().await?, wish.channel.as_ref())?.id;
        if accept {
            let channel = agent.accept(&offer.to_string()).await?;
            return Ok((offer, Some(Entered::of(&channel).await?)));
        }
        agent.decline(&offer.to_string()).await?;
        Ok((offer, None))
    });
    let (offer, entered) = entered.await?;
    if let Some(entered) = entered {
        return output.result(&entered, || entered.described("joined"));
    }
    let shown = serde_json::json!({"channel": offer, "declined": true});
    output.result(&shown, || "declined".to_owned())
}

/// The offer that is meant: the named one, or the only one.
fn offer(all: Vec<ChannelView>, which: Option<&Which>) -> Result<ChannelView, Failure> {
    let mut offers: Vec<ChannelView> = all
        .into_iter()
        .filter(|channel| matches!(channel.state, ChannelState::Offered(_)))
        .filter(|channel| match which {
            None => true,
            Some(Which::Id(id)) => channel.id == *id,
            Some(Which::Name(name)) => channel.name.as_ref() == Some(name),
        })
        .collect();
    match offers.len() {
        0 => Err(Failure::not_found(
            "nobody has added this agent to such a channel: `skytale channels` lists what there is",
        )),
        1 => Ok(offers.remove(0)),
        _ => Err(Failure::usage(
            "there are several offers: name one (`skytale channels` lists them)",
        )),
    }
}

/// The relay's usual port, for addresses without one.
const RELAY_PORT: u16 = 4433;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_and_any_number_of_agents_may_be_named() {
        let agent = || WhichOrAgent::Agent(AgentId([1; 32]));
        let channel = || WhichOrAgent::Which(Which::Id(ChannelId([2; 32])));

        assert_eq!(
            sorted(vec![agent(), channel(), agent()]).unwrap().1.len(),
            2
        );
        assert!(sorted(vec![agent()]).unwrap().0.is_none());
        assert!(sorted(vec![channel()]).is_err());
        assert!(sorted(vec![channel(), channel(), agent()]).is_err());
    }

    #[test]
    fn an_invite_for_this_machine_only_is_noticed() {
        assert!(is_this_machine("127.0.0.1:4433"));
        assert!(is_this_machine("[::1]:4433"));
        assert!(is_this_machine("localhost:4433"));
        assert!(!is_this_machine("relay.example.org:4433"));
    }
}
