//! Everything that can be typed: commands, flags, examples. What they do stands in one file for
//! each group of commands. No flag takes a secret: those come by file, environment or stdin.

#![expect(
    clippy::doc_markdown,
    reason = "these lines are printed as help, where backticks would only be in the way"
)]

mod accounts;
mod examples;
mod servers;
mod talk;

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use skytale_sdk::{RelayAddr, Traffic, check_agent_name};
use skytale_wire::name::ChannelName;

pub(crate) use self::{
    accounts::{Account, Agents, Credentials, Keys, Seen, Signup, Token, Usage},
    servers::{
        Api, ApiCommand, Backup, Database, DatabasePlace, Grpc, Health, MaybeAddr, Migrate, Relay,
        Restore, SettingsFile, Up,
    },
    talk::{
        Ask, History, Hook, InChannel, Invite, Mcp, Others, Read, Said, Send, Watch, Which,
        WhichOrAgent,
    },
};

/// End-to-end-encrypted group channels for AI agents.
#[derive(Debug, Parser)]
#[command(
    name = "skytale",
    version,
    before_help = examples::ALL,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) everywhere: Everywhere,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Everywhere {
    /// Which agent of this machine acts; may be left out when there is just one
    #[arg(long = "as", value_name = "NAME", global = true, value_parser = agent_name)]
    pub(crate) agent: Option<String>,

    /// Which saved set of servers to use
    #[arg(long, value_name = "NAME", global = true, value_parser = agent_name)]
    pub(crate) context: Option<String>,

    /// Where agents and servers keep their data [env: SKYTALE_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,

    /// The API server [env: SKYTALE_API_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) api_url: Option<String>,

    /// The relay of new channels, as `skytale up` prints it [env: SKYTALE_RELAY]
    #[arg(long, value_name = "KEY@HOST:PORT", global = true, value_parser = RelayAddr::from_str)]
    pub(crate) relay: Option<RelayAddr>,

    /// PEM file of a private certificate authority [env: SKYTALE_CA_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ca_file: Option<PathBuf>,

    /// What a watcher of the line to the relay may see: padded, immediate, adaptive, constant, or
    /// quiet, standard, swift, maximum [env: SKYTALE_TRAFFIC]
    ///
    /// Settings may follow, as in adaptive,rate=8,bulk=now (slots a second; large transfers at
    /// once). Commands that stay, like `watch` and `read --follow`, use adaptive by themselves, the
    /// others padded: a connection that lives for one command shows by itself that the agent does
    /// something. Where another process of the agent holds the line, its own setting holds.
    #[arg(long, value_name = "MODE", global = true, value_parser = Traffic::from_str)]
    pub(crate) traffic: Option<Traffic>,

    /// Whether the command stays, and so does its line
    #[arg(skip)]
    pub(crate) stays: bool,

    /// How long this command may wait, in seconds
    #[arg(long, value_name = "SECONDS", global = true, value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// Print JSON for programs, one line for each result
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log more to stderr: -v what happens, -vv details [env: SKYTALE_LOG]
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Write to stderr as JSON, one line for each event [env: SKYTALE_LOG_JSON]
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start API server and relay in one process, on this machine
    #[command(before_help = examples::UP)]
    Up(Up),
    /// Start an API server alone
    #[command(before_help = examples::API)]
    Api(Api),
    /// Start a relay alone
    #[command(before_help = examples::RELAY)]
    Relay(Relay),
    /// Prepare a Postgres database for an API server, or move one's file into it
    #[command(before_help = examples::MIGRATE)]
    Migrate {
        #[command(subcommand)]
        command: Migrate,
    },
    /// Copy what the servers of this data directory keep into one file, also while they run
    #[command(before_help = examples::BACKUP)]
    Backup(Backup),
    /// Put such a copy where no server has run
    #[command(before_help = examples::RESTORE)]
    Restore(Restore),

    /// Open a channel, or make it
    #[command(before_help = examples::OPEN)]
    Open {
        /// Three parts, like acme/ops/plan
        channel: ChannelName,
    },
    /// List this agent's channels
    #[command(before_help = examples::CHANNELS)]
    Channels,
    /// Make a line by which another agent can join
    #[command(before_help = examples::INVITE)]
    Invite(Invite),
    /// Join a channel by an invite line
    #[command(before_help = examples::JOIN)]
    Join {
        /// The line skt_inv_…, or - to read it from stdin
        invite: String,
    },
    /// Send what stands on stdin
    #[command(before_help = examples::SEND)]
    Send(Send),
    /// Print the messages that wait, and take them
    #[command(before_help = examples::READ)]
    Read(Read),
    /// Print the messages that are kept, or say how long to keep them
    #[command(before_help = examples::HISTORY)]
    History(History),
    /// Send what stands on stdin and wait for the reply
    #[command(before_help = examples::ASK)]
    Ask(Ask),
    /// Show messages and events as they come, without taking them
    #[command(before_help = examples::WATCH)]
    Watch(Watch),
    /// Give a coding agent its channels as tools: speaks MCP on stdin and stdout
    #[command(before_help = examples::MCP)]
    Mcp(Mcp),
    /// Hand waiting messages to a coding agent that is about to stop
    #[command(before_help = examples::HOOK)]
    Hook(Hook),
    /// List who is in a channel
    #[command(before_help = examples::MEMBERS)]
    Members(InChannel),
    /// Add agents by id; they need not be online
    #[command(before_help = examples::ADD)]
    Add(Others),
    /// Remove agents; they can read nothing that is sent afterwards
    #[command(before_help = examples::REMOVE)]
    Remove(Others),
    /// Leave a channel
    #[command(before_help = examples::LEAVE)]
    Leave(InChannel),
    /// Replace this agent's keys in a channel
    #[command(before_help = examples::ROTATE)]
    Rotate(InChannel),
    /// Show five words that all members see alike
    #[command(before_help = examples::WORDS)]
    Words(InChannel),
    /// Join a channel to which an unknown agent has added this one
    #[command(before_help = examples::ACCEPT)]
    Accept(InChannel),
    /// Refuse such a channel
    #[command(before_help = examples::DECLINE)]
    Decline(InChannel),

    /// Talk with agents that know SLIM: names, the relay's logs of them, sessions
    #[command(before_help = examples::SLIM)]
    Slim {
        #[command(subcommand)]
        command: crate::slim::Wish,
    },

    /// Open an account and sign in
    #[command(before_help = examples::SIGNUP)]
    Signup(Signup),
    /// Sign in: make an API key and save it in a context
    #[command(before_help = examples::LOGIN)]
    Login(Credentials),
    /// Revoke the context's API key and forget it
    #[command(before_help = examples::LOGOUT)]
    Logout,
    /// Show the account and the agent; makes the agent when it is new
    #[command(before_help = examples::WHOAMI)]
    Whoami,
    /// Change the account's password, or delete the account
    #[command(before_help = examples::ACCOUNT)]
    Account {
        #[command(subcommand)]
        command: Account,
    },
    /// Make, list, rotate and revoke API keys
    #[command(before_help = examples::KEYS)]
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// List the account's agents, and shut one out
    #[command(before_help = examples::AGENTS)]
    Agents {
        #[command(subcommand)]
        command: Agents,
    },
    /// Print a token, for calls about the account or for SLIM agents
    #[command(before_help = examples::TOKEN)]
    Token(Token),
    /// Show what the account has used
    #[command(before_help = examples::USAGE)]
    Usage(Usage),
    /// Show what relays hold of the account's channels
    #[command(before_help = examples::SEEN)]
    Seen(Seen),

    /// Ask a server of this machine whether it is ready
    #[command(before_help = examples::HEALTH)]
    Health(Health),

    /// Find out what does not work, and what repairs it
    #[command(before_help = examples::DOCTOR)]
    Doctor,
    /// Run three agents against a relay of their own and check what it promises
    #[command(before_help = examples::DEMO)]
    Demo(Demo),
    /// Measure this program on this machine
    #[command(before_help = examples::BENCH)]
    Bench(crate::bench::Wish),
    /// Show the configuration
    #[command(before_help = examples::CONFIG)]
    Config {
        #[command(subcommand)]
        command: Config,
    },
    /// Choose between saved sets of servers
    #[command(before_help = examples::CONTEXT)]
    Context {
        #[command(subcommand)]
        command: Context,
    },
    /// Print a completion script for a shell
    #[command(before_help = examples::COMPLETION)]
    Completion {
        /// For which
        shell: Shell,
    },
    /// Print the records of a stopped relay's archive
    #[command(hide = true, before_help = examples::RELAY_DUMP)]
    RelayDump,
    /// One of the processes that `bench` measures; it is told on stdin what to be
    #[command(hide = true)]
    BenchPart,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the demo's directory in place and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show each setting and where it comes from
    Show {
        #[command(flatten)]
        settings: SettingsFile,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// Save the servers given by flags; an API key is read from SKYTALE_API_KEY[_FILE]
    Add {
        /// Its name
        #[arg(value_parser = agent_name)]
        name: String,
    },
    /// Use this one when none is named
    Use {
        /// Its name
        #[arg(value_parser = agent_name)]
        name: String,
    },
    /// List them
    Ls,
}

fn agent_name(text: &str) -> Result<String, String> {
    check_agent_name(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds".to_owned())
}

/// About three years: more is a typing mistake, and sums of it must not overflow.
const SECONDS_MAX: f64 = 1e8;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_begins_with_examples() {
        let mut root = Arguments::command();
        root.build();
        let mut all = vec![root];
        while let Some(mut command) = all.pop() {
            // `keys list` and its like are explained by their parent's examples; what is hidden is
            // for our own processes.
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            let exempt = name.split(' ').count() > 2 || command.is_hide_set();
            let help = command.render_long_help().to_string();
            assert!(exempt || help.starts_with("Examples:"), "{name}: {help}");
            all.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn no_flag_takes_a_secret() {
        let mut all = vec![Arguments::command()];
        while let Some(command) = all.pop() {
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                let harmless = matches!(
                    flag,
                    "password-stdin" | "secret-file" | "wrong-passwords-per-hour-max"
                );
                let secret = [
                    "password",
                    "secret",
                    "api-key",
                    "vault-key",
                    "token",
                    "passphrase",
                ];
                assert!(
                    harmless || !secret.iter().any(|word| flag.contains(word)),
                    "--{flag}"
                );
            }
            all.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn seconds_may_be_fractions_but_not_negative_or_endless() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "inf", "NaN", "1e9", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
