//! The relays of this server, and how they are by their own word.

use axum::{extract::State, response::Html};
use maud::{Markup, html};
use skytale_wire::http::{RelayHealth, RelayState};

use super::{
    frame::{Place, page},
    session::Owner,
    words::{moment_or, span},
};
use crate::{held::relays_now, router::App};

pub(crate) async fn list(State(app): State<App>, owner: Owner) -> Html<String> {
    let found = relays_now(&app);
    let content = html! {
        p { "What each relay said of itself when it was last heard, some seconds ago as a rule." }
        @if found.relays.is_empty() {
            p { "This server names no relay: whoever runs it starts it with " code { "--relay" } "." }
        }
        @for relay in &found.relays { (one(relay)) }
    };
    page(&owner, Place::Relays, "Relays", &content)
}

fn one(relay: &RelayState) -> Markup {
    let state = match (&relay.health, relay.healthy) {
        (_, true) => "well",
        (Some(_), false) => "not well, or not heard of late",
        (None, false) => "not heard since this server was started",
    };
    html! {
        h2 { (relay.addresses.first().map_or("A relay without an address", String::as_str)) }
        dl.facts {
            dt { "State" } dd { strong { (state) } }
            dt { "Key" } dd { code { (relay.key.to_string()) } }
            @if relay.addresses.len() > 1 {
                dt { "Also at" } dd { (relay.addresses[1..].join(", ")) }
            }
            dt { "Last heard" } dd { (moment_or(relay.heard_at.as_deref(), "never")) }
            @if let Some(health) = &relay.health {
                dt { "Version" } dd { (health.version) }
                dt { "Up for" } dd { (span(health.uptime_s)) }
                dt { "Troubles" } dd { (troubles(health)) }
            }
        }
    }
}

/// What is not well, in words.
fn troubles(health: &RelayHealth) -> String {
    let RelayHealth {
        version: _,
        uptime_s: _,
        ready,
        hub,
        archive,
        issuers,
        draining,
    } = health;
    let parts = [
        (!hub, "it does not answer within itself"),
        (!archive, "its archive takes no writes"),
        (!issuers, "it lacks its issuers' keys or what they revoked"),
        (*draining, "it was told to stop"),
    ];
    let said: Vec<_> = parts
        .into_iter()
        .filter_map(|(is, what)| is.then_some(what))
        .collect();
    match (said.is_empty(), ready) {
        (false, _) => said.join("; "),
        (true, true) => "none".to_owned(),
        (true, false) => "it is not ready and does not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_said_in_words() {
        let well = RelayHealth {
            version: "1.0".to_owned(),
            uptime_s: 1,
            ready: true,
            hub: true,
            archive: true,
            issuers: true,
            draining: false,
        };
        assert_eq!(troubles(&well), "none");
        let ill = RelayHealth {
            ready: false,
            archive: false,
            draining: true,
            ..well.clone()
        };
        let said = "its archive takes no writes; it was told to stop";
        assert_eq!(troubles(&ill), said);
        let silent = RelayHealth {
            ready: false,
            ..well
        };
        assert!(troubles(&silent).contains("does not say why"));
    }
}
