//! `agents`: those for which the account has bought tokens, and which of them it has shut out.

use skytale_sdk::Account;
use skytale_wire::{http::Agent, id::AgentId};

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::{Output, table},
};

/// `agents list|disable|enable`.
pub(crate) async fn run(
    command: args::Agents,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (_, account) = context::signed_in(everywhere)?;
    match command {
        args::Agents::List => list(&account, output).await,
        args::Agents::Disable { id } => set(&account, id, true, output).await,
        args::Agents::Enable { id } => set(&account, id, false, output).await,
    }
}

async fn list(account: &Account, output: Output) -> Result<(), Failure> {
    let mut after = None;
    let mut agents: Vec<Agent> = Vec::new();
    loop {
        let page = account.agents(after).await?;
        agents.extend(page.agents);
        if page.next.is_none() || page.next <= after {
            break;
        }
        after = page.next;
    }
    if output.is_json() {
        return agents.iter().try_for_each(|agent| output.json_line(agent));
    }
    let mut shown = table(["ID", "FIRST SEEN", "LAST SEEN", "SHUT OUT"]);
    for agent in agents {
        shown.add_row([
            agent.id.to_string(),
            agent.first_seen_at,
            agent.last_seen_at,
            agent.disabled_at.unwrap_or_else(|| "no".to_owned()),
        ]);
    }
    output.line(&shown.to_string())
}

async fn set(
    account: &Account,
    id: AgentId,
    disabled: bool,
    output: Output,
) -> Result<(), Failure> {
    account.set_agent_disabled(id, disabled).await?;
    let shown = serde_json::json!({"id": id, "disabled": disabled});
    output.result(&shown, || {
        if disabled {
            format!("{id} is shut out")
        } else {
            format!("{id} may come in again")
        }
    })
}
