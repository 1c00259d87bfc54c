//! What relays hold of the account's channels: all that a relay can see of them.

use axum::{
    extract::{Path, State},
    response::Html,
};
use maud::{Markup, html};
use skytale_wire::{
    http::{HeldChannel, HeldRecord, RecordKind},
    id::{ChannelId, RelayKey},
};

use super::{
    frame::{Place, Which, page, table},
    session::Owner,
    words::{bytes, count, instant, moment_or},
};
use crate::{
    api_keys::Page,
    held::{channels_of, records_of},
    problem::Refusal,
    query::Query,
    router::App,
};

pub(crate) async fn list(
    State(app): State<App>,
    owner: Owner,
    Query(which): Query<Which>,
) -> Result<Html<String>, Refusal> {
    let (after, limit) =
        Page::behind(which.after).read::<ChannelId>("after must be a channel's id")?;
    let found = channels_of(&app, owner.account, after, limit).await?;
    let content = html! {
        p {
            "The channels that agents of this account have opened, as relays hold them. "
            "Their names are sealed: a relay knows a channel by a random id, and so does this page."
        }
        @for relay in &found.silent { (silent(*relay)) }
        @if found.channels.is_empty() {
            p { "There is none." }
        } @else {
            (table("The channels", &channels(&found.channels)))
        }
        @if let Some(next) = found.next {
            p { a href={ "/ui/channels?after=" (next.to_string()) } { "More channels" } }
        }
    };
    Ok(page(&owner, Place::Channels, "Channels", &content))
}

pub(crate) async fn records(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Html<String>, Refusal> {
    let id: ChannelId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let (after, limit) =
        Page::behind(which.after).read::<u64>("after must be a place in the channel")?;
    let after = after.unwrap_or_default();
    let held = records_of(&app, owner.account, id, after, limit).await?;
    let content = html! {
        dl.facts {
            dt { "Channel" } dd { code { (held.channel_id.to_string()) } }
            dt { "Relay" } dd { code { (held.relay.to_string()) } }
        }
        p {
            "This is all that the relay knows of each record, but for the sealed bytes themselves. "
            "What was said was padded before it was sealed, so that its length tells little."
        }
        @if held.records.is_empty() {
            p { "Nothing stands behind place " (count(after)) "." }
        } @else {
            (table("The records", &rows(&held.records)))
        }
        p {
            @if after > 0 { a href={ "/ui/channels/" (id.to_string()) } { "From the first" } " · " }
            @if let Some(next) = held.next {
                a href={ "/ui/channels/" (id.to_string()) "?after=" (next) } { "More records" } " · "
            }
            a href=(Place::Channels.path()) { "All channels" }
        }
    };
    Ok(page(
        &owner,
        Place::Channels,
        "What the relay sees",
        &content,
    ))
}

fn channels(channels: &[HeldChannel]) -> Markup {
    html! {
        table.numbers {
            thead {
                tr {
                    th scope="col" { "Channel" }
                    th scope="col" { "Members" }
                    th scope="col" { "Records" }
                    th scope="col" { "Sealed bytes" }
                    th scope="col" { "First" }
                    th scope="col" { "Last" }
                }
            }
            tbody {
                @for channel in channels {
                    @let id = channel.id.to_string();
                    tr {
                        th scope="row" { a href={ "/ui/channels/" (id) } { code.long { (id) } } }
                        td { (count(channel.members.into())) }
                        td { (count(channel.records)) }
                        td { (channel.bytes.map_or_else(|| "too many to count".to_owned(), bytes)) }
                        td { (moment_or(channel.first_at.as_deref(), "–")) }
                        td { (moment_or(channel.last_at.as_deref(), "–")) }
                    }
                }
            }
        }
    }
}

fn rows(records: &[HeldRecord]) -> Markup {
    html! {
        table.numbers {
            thead {
                tr {
                    th scope="col" { "Place" }
                    th scope="col" { "What" }
                    th scope="col" { "Bytes" }
                    th scope="col" { "Stored" }
                    th scope="col" { "Epoch" }
                    th scope="col" { "Record" }
                    th scope="col" { "Agent" }
                }
            }
            tbody {
                @for record in records {
                    tr {
                        th scope="row" { (count(record.seq)) }
                        td { (kind(record.kind)) }
                        td { (record.bytes.map_or_else(|| "gone".to_owned(), count)) }
                        td { (instant(&record.stored_at)) }
                        td { (count(record.epoch)) }
                        td { code { (record.id.to_string()) } }
                        td { code { (record.agent_id.to_string()) } }
                    }
                }
            }
        }
    }
}

fn kind(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Application => "message",
        RecordKind::Commit => "change of the group",
        RecordKind::Join => "joined by invite",
        RecordKind::Leave => "left",
    }
}

fn silent(relay: RelayKey) -> Markup {
    html! {
        p.notice.bad {
            "The relay " code { (relay.to_string()) } " does not answer: what it holds is missing here. "
            a href=(Place::Relays.path()) { "How the relays are" }
        }
    }
}
