//! Accounts, and what belongs to them: keys, agents, tokens, usage.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use skytale_wire::{
    id::{AgentId, ChannelId},
    month::Month,
    token::{Scope, Scopes, SlimPattern},
};

use crate::history::span;

#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// The account's e-mail address; asked for on a terminal when left out
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// Read the password's line from stdin. Else SKYTALE_PASSWORD, SKYTALE_PASSWORD_FILE, or a
    /// question on the terminal
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Signup {
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// What to call whoever signs up
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Change the password. The new one is asked for on a terminal, or taken from
    /// SKYTALE_NEW_PASSWORD or SKYTALE_NEW_PASSWORD_FILE
    Password(Credentials),
    /// Delete the account with its keys; its agents are shut out at once
    Delete {
        #[command(flatten)]
        credentials: Credentials,
        /// Do not ask whether it is meant
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// List the agents for which the account has bought tokens
    List,
    /// Shut an agent out: relays close its connections within seconds. It stays a member of its
    /// channels until they remove it
    Disable {
        /// Its id, as `agents list` shows it
        id: AgentId,
    },
    /// Let an agent in again
    Enable {
        /// Its id, as `agents list` shows it
        id: AgentId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List the account's keys, oldest first
    List,
    /// Make a key and print it; it is shown this once
    Create {
        /// What people call it
        name: String,
        /// What it may do: relay, slim, account, keys; may be given more than once. As much as the
        /// key that makes it when left out
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// When it ends by itself, like 12h or 90d; never when left out
        #[arg(long, value_name = "SPAN", value_parser = span)]
        expires: Option<Duration>,
    },
    /// Make a key that may do the same and print it, and end the old one
    Rotate {
        /// Its public id, as `keys list` shows it. The context's own key when left out: then the new
        /// one takes its place in the context and is not printed
        id: Option<String>,
        /// How long the old one goes on, like 1h or 7d; not at all when left out
        #[arg(long, value_name = "SPAN", value_parser = span)]
        overlap: Option<Duration>,
    },
    /// Make a key worthless
    Revoke {
        /// Its public id, as `keys list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The SLIM names that it is for: ORG/*, ORG/NAMESPACE/*, or one name; may be given more than
    /// once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) slim: Vec<SlimPattern>,
    /// Stay, and keep a good token in this file, as SLIM's clients take it (static_jwt)
    #[arg(long, value_name = "FILE", requires = "slim")]
    pub(crate) watch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// One month only, as in 2026-11, and each API key by itself
    #[arg(long, value_name = "YYYY-MM")]
    pub(crate) month: Option<Month>,
}

#[derive(Debug, Args)]
pub(crate) struct Seen {
    /// A channel's id, as `seen` lists it: its records. Without it, the channels and the relays
    pub(crate) channel: Option<ChannelId>,
}

fn scope(text: &str) -> Result<Scope, String> {
    let named: Option<Scopes> = text.parse().ok();
    let only = named.as_ref().and_then(|scopes| scopes.iter().next());
    only.filter(|scope| scope.to_string() == text)
        .ok_or_else(|| format!("expected one of: {}", Scopes::all()))
}
