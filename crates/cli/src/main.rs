//! The command line: one binary, `skytale`, for agents, operators and scripts.
//!
//! Here a command finds its function; what it does stands in the file of its group, what can be
//! typed in `args.rs`. Results go to stdout, talk to stderr, and the exit code says what to do.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Arguments, Command, Everywhere},
    channels::Change,
    exit::Failure,
    output::Output,
};

mod accounts;
mod agents;
mod args;
mod backup;
mod bench;
mod channels;
mod completion;
mod config_cmd;
mod context;
mod demo;
mod directory;
mod doctor;
mod dump;
mod exit;
mod health;
mod history;
mod hook;
mod keys;
mod limits;
mod mcp;
mod messages;
mod migrate;
mod output;
mod quote;
mod secret;
mod seen;
mod servers;
mod settings;
mod slim;
mod token;
mod up;
mod wake;
mod watch;

/// Memory is wiped when it is given back, whoever used it: also what libraries held.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return refuse(&refusal),
    };
    let output = Output::new(&arguments.everywhere);
    listen_to_logs(
        arguments.everywhere.verbose,
        output::logs_json(&arguments.everywhere),
    );
    // Only fails when a provider is there already, and then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            let result = runtime.block_on(run(arguments, output));
            // A blocked read of stdin must not keep a finished command from ending.
            runtime.shutdown_background();
            result
        });
    output.end(result)
}

async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let everywhere = &Everywhere {
        stays: matches!(
            &arguments.command,
            Command::Watch(_)
                | Command::Mcp(_)
                | Command::Read(args::Read { follow: true, .. })
                | Command::Slim { .. }
        ),
        ..arguments.everywhere
    };
    match arguments.command {
        Command::Up(wish) => Box::pin(up::run(wish, everywhere, output)).await,
        Command::Api(wish) => servers::api(wish, everywhere, output).await,
        Command::Relay(wish) => servers::relay(wish, everywhere, output).await,
        Command::Migrate { command } => migrate::run(command, output).await,
        Command::Backup(wish) => backup::backup(&wish, everywhere, output),
        Command::Restore(wish) => backup::restore(&wish, everywhere, output),

        Command::Open { channel } => channels::open(&channel, everywhere, output).await,
        Command::Channels => channels::list(everywhere, output).await,
        Command::Invite(wish) => channels::invite(wish, everywhere, output).await,
        Command::Join { invite } => channels::join(&invite, everywhere, output).await,
        Command::Members(wish) => channels::members(wish, everywhere, output).await,
        Command::Add(wish) => channels::change(Change::Add, wish, everywhere, output).await,
        Command::Remove(wish) => channels::change(Change::Remove, wish, everywhere, output).await,
        Command::Leave(wish) => channels::leave(wish, everywhere, output).await,
        Command::Rotate(wish) => channels::rotate(wish, everywhere, output).await,
        Command::Words(wish) => channels::words(wish, everywhere, output).await,
        Command::Accept(wish) => channels::answer_offer(true, wish, everywhere, output).await,
        Command::Decline(wish) => channels::answer_offer(false, wish, everywhere, output).await,

        Command::Send(wish) => messages::send(wish, everywhere, output).await,
        Command::Read(wish) => messages::read(wish, everywhere, output).await,
        Command::History(wish) => history::run(wish, everywhere, output).await,
        Command::Ask(wish) => messages::ask(wish, everywhere, output).await,
        Command::Watch(wish) => watch::run(wish, everywhere, output).await,
        Command::Mcp(wish) => mcp::run(wish, everywhere, output).await,
        Command::Hook(wish) => hook::run(wish, everywhere, output).await,

        Command::Slim { command } => slim::run(command, everywhere, output).await,

        Command::Signup(wish) => accounts::signup(wish, everywhere, output).await,
        Command::Login(wish) => accounts::login(wish, everywhere, output).await,
        Command::Logout => accounts::logout(everywhere, output).await,
        Command::Whoami => accounts::whoami(everywhere, output).await,
        Command::Account { command } => accounts::change(command, everywhere, output).await,
        Command::Keys { command } => keys::run(command, everywhere, output).await,
        Command::Agents { command } => agents::run(command, everywhere, output).await,
        Command::Token(wish) => token::run(wish, everywhere, output).await,
        Command::Usage(wish) => accounts::usage(&wish, everywhere, output).await,
        Command::Seen(wish) => seen::run(&wish, everywhere, output).await,

        Command::Health(wish) => health::run(&wish, output).await,
        Command::Doctor => doctor::run(everywhere, output).await,
        Command::Demo(wish) => demo::run(&wish, output).await,
        Command::Bench(wish) => bench::run(&wish, output).await,
        Command::BenchPart => bench::parts::run(output).await,
        Command::Config { command } => config_cmd::run(&command, everywhere, output),
        Command::Context { command } => context::run(command, everywhere, output),
        Command::Completion { shell } => completion::run(shell, output),
        Command::RelayDump => dump::run(everywhere, output),
    }
}

/// Says what is wrong with the command line, or the help or version that was asked for. A hook that
/// is set up wrongly must not end with 2, by which it would keep a coding agent from stopping.
fn refuse(refusal: &clap::Error) -> ExitCode {
    // When there is nobody to tell, the exit code still says it.
    let _ = refusal.print();
    let is_hook = Arguments::command()
        .ignore_errors(true)
        .try_get_matches()
        .is_ok_and(|matches| matches.subcommand_name() == Some("hook"));
    match refusal.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_hook => exit::Exit::Failed.into(),
        _ => exit::Exit::Usage.into(),
    }
}

/// Logs go to stderr: what `SKYTALE_LOG` says, else as much as `-v` asks for.
fn listen_to_logs(verbose: u8, json: bool) {
    let (others, ours) = match verbose {
        // Of an endpoint that was still closing when the program ended iroh speaks as of an error.
        0 => ("warn,iroh::socket=off", "warn"),
        1 => ("warn,iroh::socket=off", "info"),
        2 => ("info", "debug"),
        _ => ("info", "trace"),
    };
    // It would log calls of tools and their answers whole: messages, and invite lines.
    let discreet = "rmcp=warn".parse().expect("this is a directive");
    let ours = OURS.map(|name| format!(",{name}={ours}")).concat();
    let wanted = std::env::var_os("SKYTALE_LOG").and_then(|value| value.into_string().ok());
    let filter = wanted
        .filter(|_| verbose == 0)
        .and_then(|wanted| EnvFilter::try_new(wanted).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("{others}{ours}")))
        .add_directive(discreet);
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if json {
        // Spans are left out: those of libraries hold more than anybody has looked at.
        let logging = logging.json().flatten_event(true);
        logging
            .with_current_span(false)
            .with_span_list(false)
            .init();
        // Its usual text would not be a line of JSON.
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(%panic, "a thread panicked: this is a bug");
        }));
    } else {
        logging.init();
    }
}

/// Built together with the wheel's `silent`, servers would have no logs (decision 27).
const _: () = assert!(
    tracing::level_filters::STATIC_MAX_LEVEL
        .into_level()
        .is_some()
);

/// The crates whose logs are meant for whoever runs this program.
const OURS: [&str; 8] = [
    "skytale",
    "skytale_agent",
    "skytale_api",
    "skytale_relay",
    "skytale_sdk",
    "skytale_slim",
    "skytale_slim_session",
    "skytale_tunnel",
];
