//! The first page: whose account it is, and how it stands this month.

use axum::{extract::State, response::Html};
use maud::{Markup, html};
use skytale_wire::{
    http::{Plan, Used},
    month::Month,
};

use super::{
    frame::{Place, page},
    session::Owner,
    words::{bytes, count, moment, span},
};
use crate::{clock::rfc3339, problem::Refusal, router::App};

pub(crate) async fn show(State(app): State<App>, owner: Owner) -> Result<Html<String>, Refusal> {
    let now = app.clock.now();
    let month = Month::of(now);
    let totals = app.store.usage(owner.account).await?;
    let used = totals.into_iter().find(|(other, _)| *other == month);
    let used = used.map_or_else(Used::default, |(_, used)| used);
    let plan = app.config.plan_shown(&owner.account, now);
    let numbers = [
        ("Messages sent", count(used.messages)),
        ("Bytes sent, sealed", bytes(used.bytes)),
        ("Copies delivered", count(used.delivered)),
        ("Tokens bought", count(used.token_exchanges)),
        ("Connected", span(used.connected_s)),
    ];
    let content = html! {
        h2 { "This month, " (month.to_string()) }
        dl.tiles {
            @for (name, number) in &numbers {
                div { dt { (name) } dd { (number) } }
            }
        }
        p.quiet { "What relays count is here some seconds after it happened. " a href=(Place::Usage.path()) { "All months" } }
        h2 { "Plan" }
        (left_of(&plan, &used))
        h2 { "Account" }
        dl.facts {
            @if !owner.row.name.is_empty() { dt { "Name" } dd { (owner.row.name) } }
            dt { "E-mail" } dd { (owner.row.email) }
            dt { "Id" } dd { code { (owner.account.to_string()) } }
            dt { "Opened" } dd { (moment(&rfc3339(owner.row.created))) }
        }
    };
    Ok(page(&owner, Place::Overview, "Overview", &content))
}

/// What the plan allows in the month, and what is left of that.
pub(crate) fn left_of(plan: &Plan, used: &Used) -> Markup {
    let bounds = [
        (
            "messages",
            "Messages",
            plan.messages_max,
            used.messages,
            count as fn(u64) -> String,
        ),
        (
            "bytes",
            "Bytes",
            plan.bytes_max,
            used.bytes,
            bytes as fn(u64) -> String,
        ),
    ];
    html! {
        p {
            "The plan is " strong { (plan.name) } ". Counting begins anew at " (moment(&plan.renews_at)) "."
        }
        @for (id, name, most, used, shown) in bounds {
            @if let Some(most) = most {
                p.left {
                    label for={ "left-" (id) } { (name) }
                    progress id={ "left-" (id) } value=(used.min(most)) max=(most.max(1)) {}
                    span { (shown(used)) " of " (shown(most)) " used, " (shown(most.saturating_sub(used))) " left" }
                }
            } @else {
                p.left { span.name { (name) } span { (shown(used)) " used; the plan sets no limit" } }
            }
        }
    }
}
