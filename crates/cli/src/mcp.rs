//! `mcp`: an agent's channels as tools of a coding agent, by the Model Context Protocol over stdin
//! and stdout.
//!
//! Nothing but the protocol goes to stdout; whatever else there is to say goes to stderr. What the
//! tools are stands in `mcp/tools.rs`, what they do in `mcp/answers.rs`, how a message is handed out in
//! `mcp/inbox.rs`, how the protocol finds them in `mcp/server.rs`, and how an idle client is woken
//! in `mcp/nudge.rs`.

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
};

use rmcp::{ServiceExt as _, service::ServerInitializeError};
use tokio::signal;

use self::{desk::Desk, ears::Ears, server::Server};
use crate::{
    args::{self, Everywhere},
    directory,
    exit::Failure,
    output::Output,
    wake::Gate,
};

mod answers;
mod desk;
mod ears;
mod inbox;
mod nudge;
mod server;
mod tools;

/// How the agent of this server got its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    Flag,
    Directory,
}

/// `mcp`: serves until stdin ends or somebody ends it.
pub(crate) async fn run(
    wish: args::Mcp,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (name, named_by) = match &everywhere.agent {
        Some(name) => (name.clone(), NamedBy::Flag),
        None => (directory::agent_of(&directory::here()?), NamedBy::Directory),
    };
    if io::stdin().is_terminal() {
        output.say(&format!(
            "this is for programs: a client starts it and speaks MCP with it. The agent is \"{name}\"; Ctrl-D ends"
        ));
    }
    let gate = Gate::new(wish.wake_from.clone());
    let desk = Arc::new(Desk::new(
        name,
        named_by,
        wish.wake_from,
        everywhere.clone(),
    ));
    let served = tokio::select! {
        served = serve(&desk, gate, wish.per_hour) => served,
        told = told_to_end() => told,
    };
    desk.close().await;
    served
}

async fn serve(desk: &Arc<Desk>, gate: Gate, notices_per_hour: u32) -> Result<(), Failure> {
    let ears = Ears::new(tokio::io::stdin(), desk.ending());
    let server = Server::new(Arc::clone(desk), gate, notices_per_hour);
    let running = match server.serve((ears, tokio::io::stdout())).await {
        Ok(running) => running,
        // Whoever opens us and goes away has changed its mind, or only looked whether we start.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(_) => {
            return Err(Failure::usage(
                "whoever started this did not begin with MCP: a client is given the command `skytale mcp`, and nothing is typed into it",
            ));
        }
    };
    running
        .waiting()
        .await
        .map_err(|_| Failure::failed("the server broke off: this is a bug"))?;
    Ok(())
}

/// Ctrl-C, or what a client sends that has waited long enough.
async fn told_to_end() -> Result<(), Failure> {
    let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
