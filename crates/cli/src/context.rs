//! Which servers, which agent: what a run takes from flags, environment and the saved context.
//!
//! Contexts themselves are the SDK's ([`Context`]).

use serde::Serialize;
use skytale_sdk::{
    Account, Agent, Channel, ChannelState, ChannelView, Config, Context, Flags, Mode, Timeouts,
    Traffic,
};
use skytale_wire::http::Secret;

use crate::{
    args::{self, Everywhere, Which},
    exit::Failure,
    output::{Output, table},
};

/// The name of the context that `skytale up` makes.
pub(crate) const LOCAL: &str = "local";

/// The flags as the SDK lays them over environment and context.
pub(crate) fn flags(everywhere: &Everywhere) -> Flags {
    Flags {
        data_dir: everywhere.data_dir.clone(),
        context: everywhere.context.clone(),
        api_url: everywhere.api_url.clone(),
        relay: everywhere.relay.clone(),
        ca_file: everywhere.ca_file.clone(),
        traffic: everywhere.traffic,
        traffic_otherwise: if everywhere.stays {
            Traffic::default()
        } else {
            Mode::Padded.into()
        },
        timeouts: timeouts(everywhere),
        ..Flags::default()
    }
}

/// The flags without the context: for a command that is about to make it.
pub(crate) fn flags_without_context(everywhere: &Everywhere) -> Flags {
    Flags {
        context: None,
        ..flags(everywhere)
    }
}

/// `--timeout` is how long the command's own wait may be; reaching servers never takes longer
/// than that, and not longer than usual either.
fn timeouts(everywhere: &Everywhere) -> Timeouts {
    let usual = Timeouts::default();
    let Some(limit) = everywhere.timeout else {
        return usual;
    };
    Timeouts {
        connect: usual.connect.min(limit),
        token: usual.token.min(limit),
        stored: limit,
        change: limit,
        ask: limit,
    }
}

/// Does something as the agent that `--as` names, or the only one there is. A new one is made
/// only by [`as_agent_or_new`]: elsewhere a name that is not there is a typing mistake.
pub(crate) async fn as_agent<T>(
    everywhere: &Everywhere,
    work: impl AsyncFnOnce(&Agent) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let name = agent_name(everywhere)?;
    if !Config::load(flags(everywhere))?.agents()?.contains(&name) {
        return Err(Failure::not_found(format!(
            "there is no agent \"{name}\" on this machine: `skytale open`, `join` and `whoami` make a new one"
        )));
    }
    with(&name, everywhere, work).await
}

/// The same, making the agent when it is new.
pub(crate) async fn as_agent_or_new<T>(
    everywhere: &Everywhere,
    work: impl AsyncFnOnce(&Agent) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with(&agent_name(everywhere)?, everywhere, work).await
}

/// However the work ends, the agent is closed before the program does, so that what can still
/// leave does.
async fn with<T>(
    name: &str,
    everywhere: &Everywhere,
    work: impl AsyncFnOnce(&Agent) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let agent = Agent::builder(name).flags(flags(everywhere)).open().await?;
    let done = work(&agent).await;
    let closed = agent.close().await;
    let done = done?;
    closed?;
    Ok(done)
}

fn agent_name(everywhere: &Everywhere) -> Result<String, Failure> {
    if let Some(name) = &everywhere.agent {
        return Ok(name.clone());
    }
    let mut names = Config::load(flags(everywhere))?.agents()?;
    match names.len() {
        0 => Err(Failure::usage(
            "there is no agent on this machine yet: name a new one with --as NAME",
        )),
        1 => Ok(names.remove(0)),
        _ => Err(Failure::usage(format!(
            "there are several agents on this machine ({}): choose one with --as NAME",
            names.join(", ")
        ))),
    }
}

/// The channel that is meant: the named one, or the only one that is open.
pub(crate) async fn channel(agent: &Agent, which: Option<&Which>) -> Result<Channel, Failure> {
    let name = match which {
        Some(Which::Name(name)) => Some(name.clone()),
        Some(Which::Id(id)) => {
            let mut all = agent.channels().await?.into_iter();
            all.find(|channel| channel.id == *id)
                .and_then(|channel| channel.name)
        }
        None => {
            let mut open = agent.channels().await?;
            open.retain(is_open);
            match open.as_slice() {
                [only] => only.name.clone(),
                [] => {
                    return Err(Failure::not_found(
                        "this agent is in no channel yet: `skytale open` makes one, `skytale join` enters one",
                    ));
                }
                _ => {
                    return Err(Failure::usage(
                        "this agent is in several channels: name one (`skytale channels` lists them)",
                    ));
                }
            }
        }
    };
    let found = match name {
        Some(name) => agent.find(name.as_str()).await?,
        None => None,
    };
    found.ok_or_else(|| {
        Failure::not_found("this agent has no such channel: `skytale channels` lists those it has")
    })
}

fn is_open(channel: &ChannelView) -> bool {
    match channel.state {
        ChannelState::Creating
        | ChannelState::Joining
        | ChannelState::Active
        | ChannelState::Stuck => true,
        ChannelState::Offered(_) | ChannelState::Leaving | ChannelState::Closed(_) => false,
    }
}

/// The settings, and the account that they name.
pub(crate) fn signed_in(everywhere: &Everywhere) -> Result<(Config, Account), Failure> {
    let mut config = Config::load(flags(everywhere))?;
    let account = account(&mut config)?;
    Ok((config, account))
}

/// The account of the context or environment, for calls to the API server.
pub(crate) fn account(config: &mut Config) -> Result<Account, Failure> {
    let url = config.api_url.as_deref().ok_or_else(no_api)?;
    let key = config.api_key.take();
    let timeout = config.timeouts.token;
    Ok(Account::new(url, key, config.ca_file.as_deref(), timeout)?)
}

fn no_api() -> Failure {
    Failure::usage(
        "no API server is known: start one with `skytale up`, or give --api-url or SKYTALE_API_URL",
    )
}

/// `context add`, `use` and `ls`.
pub(crate) fn run(
    command: args::Context,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    match command {
        args::Context::Add { name } => add(&name, everywhere, output),
        args::Context::Use { name } => {
            let config = Config::load(flags_without_context(everywhere))?;
            Context::choose(&config.config_dir, &name)?;
            output.say(&format!("using context \"{name}\""));
            Ok(())
        }
        args::Context::Ls => list(everywhere, output),
    }
}

fn add(name: &str, everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let given = flags_without_context(everywhere);
    let config = Config::load(Flags {
        timeouts: given.timeouts,
        ..Flags::default()
    })?;
    let mut context = Context::default();
    context.api_url = given.api_url;
    context.relay = given.relay;
    context.ca_file = given.ca_file;
    context.data_dir = given.data_dir;
    context.traffic = given.traffic;
    context.api_key =
        crate::secret::from_environment("SKYTALE_API_KEY")?.map(|key| Secret::new(key.to_string()));
    if context.api_url.is_none() && context.relay.is_none() {
        return Err(Failure::usage("a context needs --api-url, --relay or both"));
    }
    if Context::read(&config.config_dir, name)?.is_some() {
        return Err(Failure::usage(format!(
            "there is a context \"{name}\" already: choose another name"
        )));
    }
    context.write(&config.config_dir, name)?;
    output.say(&format!(
        "saved context \"{name}\": `skytale context use {name}` makes it the one that is used"
    ));
    Ok(())
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    current: bool,
    api_url: Option<String>,
    api_key: bool,
    relay: Option<String>,
}

fn list(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let dir = Config::load(flags_without_context(everywhere))?.config_dir;
    let current = Context::current(&dir)?;
    let mut rows = Vec::new();
    for name in Context::names(&dir)? {
        let context = Context::read(&dir, &name)?.unwrap_or_default();
        rows.push(Row {
            current: current.as_ref() == Some(&name),
            name,
            api_url: context.api_url.clone(),
            api_key: context.api_key.is_some(),
            relay: context.relay.as_ref().map(ToString::to_string),
        });
    }
    if output.is_json() {
        return rows.iter().try_for_each(|row| output.json_line(row));
    }
    if rows.is_empty() {
        output.say("there is no context yet: `skytale up` makes one, `skytale login` another");
        return Ok(());
    }
    let mut shown = table(["", "NAME", "API SERVER", "API KEY", "RELAY"]);
    for row in rows {
        shown.add_row([
            if row.current { "*" } else { "" }.to_owned(),
            row.name,
            row.api_url.unwrap_or_default(),
            if row.api_key { "saved" } else { "none" }.to_owned(),
            row.relay.unwrap_or_default(),
        ]);
    }
    output.line(&shown.to_string())
}
