//! The agents of an account: those for which it has bought tokens, and which of them it has shut out.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use skytale_wire::{
    http::{Agent, Agents, SetAgent},
    id::AgentId,
    token::AccountId,
};

use crate::{
    api_keys::Page, body::Body, caller::Caller, clock::rfc3339, problem::Refusal, query::Query,
    router::App, store::AgentRow,
};

#[utoipa::path(
    get,
    path = "/v1/agents",
    operation_id = "list_agents",
    tag = "Agents",
    summary = "List the agents, by their ids",
    description = "",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "50 when left out"), ("after" = Option<AgentId>, Query, description = "The `next` of the page before")),
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "One page of them", body = Agents)),
)]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Agents>, Refusal> {
    let account = caller.reader()?;
    page_of(&app, account, page).await.map(Json)
}

/// One page of an account's agents.
pub(crate) async fn page_of(app: &App, account: AccountId, page: Page) -> Result<Agents, Refusal> {
    let (after, limit) = page.read::<AgentId>("after must be an agent's id")?;
    let rows = app.store.agents(account, after, limit).await?;
    let full = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| row.id);
    let agents = rows.iter().map(shown).collect();
    Ok(Agents { agents, next })
}

/// `PUT /v1/agents/{id}`. Somebody else's agent is not found rather than forbidden.
#[utoipa::path(
    put,
    path = "/v1/agents/{id}",
    operation_id = "set_agent",
    tag = "Agents",
    summary = "Shut out an agent, or let it in again",
    description = "",
    params(("id" = AgentId, Path)),
    request_body = SetAgent,
    security(("key" = ["keys"]), ("session" = [])),
    responses((status = 204, description = "Done: relays close the connections of one that is shut out within seconds")),
)]
pub(crate) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(wish): Body<SetAgent>,
) -> Result<StatusCode, Refusal> {
    let account = caller.warden()?;
    set_to(&app, account, &id, wish).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shuts an agent of an account out, or lets it in again; relays hear of it at once.
pub(crate) async fn set_to(
    app: &App,
    account: AccountId,
    id: &str,
    wish: SetAgent,
) -> Result<(), Refusal> {
    let id: AgentId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let found = if wish.disabled {
        let now = app.clock.now();
        app.store.disable_agent(account, id, now).await?
    } else {
        app.store.enable_agent(account, id).await?
    };
    if !found {
        return Err(Refusal::NOT_FOUND);
    }
    app.revoked.notify_waiters();
    Ok(())
}

fn shown(row: &AgentRow) -> Agent {
    Agent {
        id: row.id,
        first_seen_at: rfc3339(row.first),
        last_seen_at: rfc3339(row.last),
        disabled_at: row.disabled.map(rfc3339),
    }
}
