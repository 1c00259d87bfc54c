//! The API keys: the list, a new one, and the end of one.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{Html, IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use skytale_wire::{
    http::{Key, MakeKey},
    token::{KeyId, Scope, Scopes},
};

use super::{
    form::{Asked, proof},
    frame::{Place, Which, page, table},
    session::Owner,
    sign_in::Nothing,
    words::{moment, moment_or},
};
use crate::{
    api_keys::{self, Page},
    clock::rfc3339,
    problem::Refusal,
    query::Query,
    router::App,
    visitor::Visitor,
};

/// The form for a new key. A box that is not ticked is not sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    name: String,
    relay: Option<Ticked>,
    slim: Option<Ticked>,
    account: Option<Ticked>,
    keys: Option<Ticked>,
    /// 0 is for ever.
    days: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ticked {
    On,
}

pub(crate) async fn list(
    State(app): State<App>,
    owner: Owner,
    Query(which): Query<Which>,
) -> Result<Html<String>, Refusal> {
    let keys = api_keys::page_of(&app, owner.account, Page::behind(which.after)).await?;
    let now = rfc3339(app.clock.now());
    let content = html! {
        (listed(&keys.keys, &now))
        @if let Some(next) = &keys.next {
            p { a href={ "/ui/keys?after=" (next) } { "More keys" } }
        }
        h2 #new { "Make a key" }
        (asking(&owner))
    };
    Ok(page(&owner, Place::Keys, "API keys", &content))
}

/// The answer shows the key, so it is no redirect; and nothing keeps a copy of it.
pub(crate) async fn make(
    State(app): State<App>,
    visitor: Visitor,
    Asked(owner, wish): Asked<Wish>,
) -> Result<Response, Refusal> {
    let ticked = [
        (wish.relay, Scope::Relay),
        (wish.slim, Scope::Slim),
        (wish.account, Scope::Account),
        (wish.keys, Scope::Keys),
    ];
    let scopes = ticked.into_iter().filter(|(ticked, _)| ticked.is_some());
    let wish = MakeKey {
        name: wish.name,
        scopes: Some(scopes.map(|(_, scope)| scope).collect()),
        expires_in_s: (wish.days > 0).then_some(wish.days.saturating_mul(DAY_S)),
    };
    let maker = owner.caller.key_maker()?;
    let made = api_keys::make(&app, &visitor, maker, wish).await?;
    let content = html! {
        p.notice role="status" {
            "This is the only time that this key is shown. Put it where the agent reads it, such as "
            code { "SKYTALE_API_KEY" } ", before you leave this page."
        }
        p { code.secret #key tabindex="0" { (made.key.expose()) } }
        dl.facts {
            dt { "Name" } dd { (made.name) }
            dt { "Id" } dd { code { (made.id) } }
            dt { "May" } dd { (words(&made.scopes)) }
            dt { "Ends" } dd { (moment_or(made.expires_at.as_deref(), "never")) }
        }
        p { a href=(Place::Keys.path()) { "To all keys" } }
    };
    let page = page(&owner, Place::Keys, "A new key", &content);
    Ok((StatusCode::CREATED, page).into_response())
}

/// Asks once more. Looking at this page ends nothing.
pub(crate) async fn ask(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Html<String>, Refusal> {
    let id: KeyId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let found = app.store.key(id).await?;
    let found = found.filter(|found| found.account == owner.account);
    let key = api_keys::shown(found.ok_or(Refusal::NOT_FOUND)?.row);
    let content = html! {
        dl.facts {
            dt { "Name" } dd { (key.name) }
            dt { "Id" } dd { code { (key.id) } }
            dt { "Made" } dd { (moment(&key.created_at)) }
            dt { "Last used" } dd { (moment_or(key.last_used_at.as_deref(), "never")) }
        }
        @if let Some(revoked) = &key.revoked_at {
            p { "It was revoked at " (moment(revoked)) ": there is nothing left to do." }
        } @else {
            p { "It buys nothing more from then on, and relays close the connections that it has let in, within seconds. There is no way back: make a new key instead." }
            form.row method="post" action={ "/ui/keys/" (key.id) "/revoke" } {
                (proof(&owner.proof))
                button.danger type="submit" { "Revoke this key" }
            }
        }
        p { a href=(Place::Keys.path()) { "To all keys" } }
    };
    Ok(page(&owner, Place::Keys, "Revoke a key", &content))
}

pub(crate) async fn revoke(
    State(app): State<App>,
    Path(id): Path<String>,
    Asked(owner, Nothing {}): Asked<Nothing>,
) -> Result<Redirect, Refusal> {
    api_keys::end(&app, owner.account, &id).await?;
    Ok(Redirect::to(Place::Keys.path()))
}

fn listed(keys: &[Key], now: &str) -> Markup {
    if keys.is_empty() {
        return html! { p { "There is no key yet. Agents need one to buy tokens for relays: make one below." } };
    }
    let rows = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Name" }
                    th scope="col" { "Id" }
                    th scope="col" { "May" }
                    th scope="col" { "Made" }
                    th scope="col" { "Last used" }
                    th scope="col" { "Ends" }
                    th scope="col" { "State" }
                }
            }
            tbody {
                @for key in keys {
                    tr.over[has_ended(key, now)] {
                        th scope="row" { (key.name) }
                        td { code { (key.id) } }
                        td { (words(&key.scopes)) }
                        td { (moment(&key.created_at)) }
                        td { (moment_or(key.last_used_at.as_deref(), "never")) }
                        td { (moment_or(key.expires_at.as_deref(), "never")) }
                        td {
                            @if let Some(revoked) = &key.revoked_at {
                                "revoked " (moment(revoked))
                            } @else if has_ended(key, now) {
                                "ended"
                            } @else {
                                a.danger href={ "/ui/keys/" (key.id) "/revoke" } aria-label={ "Revoke " (key.name) } { "Revoke" }
                            }
                        }
                    }
                }
            }
        }
    };
    table("The keys", &rows)
}

fn asking(owner: &Owner) -> Markup {
    let scopes = [
        (
            Scope::Relay,
            "use channels over relays: what an agent needs",
        ),
        (Scope::Slim, "buy tokens for SLIM agents"),
        (Scope::Account, "read account, keys, agents and usage"),
        (Scope::Keys, "make and revoke keys, shut out agents"),
    ];
    let ends = [
        ("0", "never"),
        ("1", "in a day"),
        ("30", "in 30 days"),
        ("90", "in 90 days"),
        ("365", "in a year"),
    ];
    html! {
        form.card method="post" action="/ui/keys" {
            (proof(&owner.proof))
            label for="name" { "Name" }
            input #name type="text" name="name" required maxlength="100" autocomplete="off";
            fieldset {
                legend { "What it may do" }
                @for (scope, what) in scopes {
                    @let name = scope.to_string();
                    div.tick {
                        input id={ "scope-" (name) } type="checkbox" name=(name) checked[scope == Scope::Relay];
                        label for={ "scope-" (name) } { strong { (name) } " – " (what) }
                    }
                }
            }
            label for="days" { "When it ends by itself" }
            select #days name="days" {
                @for (days, when) in ends { option value=(days) selected[days == "90"] { (when) } }
            }
            button.main type="submit" { "Make the key" }
        }
    }
}

/// Times in this form sort as they follow each other.
fn has_ended(key: &Key, now: &str) -> bool {
    let end = key.expires_at.as_deref();
    key.revoked_at.is_some() || end.is_some_and(|end| end <= now)
}

fn words(scopes: &[Scope]) -> String {
    scopes.iter().copied().collect::<Scopes>().to_string()
}

const DAY_S: u64 = 24 * 3_600;
