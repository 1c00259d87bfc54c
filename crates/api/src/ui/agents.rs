//! The agents: when each was last seen, and whether it is shut out.

use axum::{
    extract::{Path, State},
    response::{Html, Redirect},
};
use maud::html;
use skytale_wire::http::SetAgent;

use super::{
    form::{Asked, proof},
    frame::{Place, Which, page, table},
    session::Owner,
    words::{moment, moment_or},
};
use crate::{
    agents::{page_of, set_to},
    api_keys::Page,
    problem::Refusal,
    query::Query,
    router::App,
};

pub(crate) async fn list(
    State(app): State<App>,
    owner: Owner,
    Query(which): Query<Which>,
) -> Result<Html<String>, Refusal> {
    let found = page_of(&app, owner.account, Page::behind(which.after)).await?;
    let rows = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Agent" }
                    th scope="col" { "First token" }
                    th scope="col" { "Last token" }
                    th scope="col" { "Shut out" }
                    th scope="col" { "Change" }
                }
            }
            tbody {
                @for agent in &found.agents {
                    @let id = agent.id.to_string();
                    @let is_out = agent.disabled_at.is_some();
                    @let change = if is_out { "Let in" } else { "Shut out" };
                    tr.over[is_out] {
                        th scope="row" { code.long { (id) } }
                        td { (moment(&agent.first_seen_at)) }
                        td { (moment(&agent.last_seen_at)) }
                        td { (moment_or(agent.disabled_at.as_deref(), "no")) }
                        td {
                            form.row method="post" action={ "/ui/agents/" (id) } {
                                (proof(&owner.proof))
                                input type="hidden" name="disabled" value=(if is_out { "false" } else { "true" });
                                button.danger[!is_out] type="submit" aria-label={ (change) " " (id) } { (change) }
                            }
                        }
                    }
                }
            }
        }
    };
    let content = html! {
        p {
            "An agent is here once a token was bought for it, and each connection begins with one. "
            "Relays close the connections of one that is shut out within seconds; it stays a member of its channels until members remove it."
        }
        @if found.agents.is_empty() {
            p { "There is none yet: an agent that connects with one of the " a href=(Place::Keys.path()) { "keys" } " appears here." }
        } @else {
            (table("The agents", &rows))
        }
        @if let Some(next) = found.next {
            p { a href={ "/ui/agents?after=" (next.to_string()) } { "More agents" } }
        }
    };
    Ok(page(&owner, Place::Agents, "Agents", &content))
}

pub(crate) async fn set(
    State(app): State<App>,
    Path(id): Path<String>,
    Asked(owner, wish): Asked<SetAgent>,
) -> Result<Redirect, Refusal> {
    set_to(&app, owner.account, &id, wish).await?;
    Ok(Redirect::to(Place::Agents.path()))
}
