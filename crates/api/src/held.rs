//! What relays hold of an account's channels, as they say it when they are asked, and how they are.
//!
//! Nothing of it is stored here. Which channels an account may know of is the relay's to decide; this
//! server says only which account asks.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use skytale_wire::{
    http::{
        Ask, HeldChannel, HeldChannels, HeldRecord, HeldRecords, RelayState, Relays, Told,
        ToldChannel, ToldRecord,
    },
    id::{ChannelId, RelayKey, Time},
    token::AccountId,
};
use tokio::task::JoinSet;

use crate::{
    api_keys::Page, caller::Caller, clock::rfc3339, problem::Refusal, query::Query,
    questions::NoAnswer, router::App,
};

#[utoipa::path(
    get,
    path = "/v1/relays",
    operation_id = "list_relays",
    tag = "Relays",
    summary = "List the relays of this server, and how they are",
    description = "By what each said of itself when it was last heard, some seconds ago as a rule.",
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "All of them", body = Relays)),
)]
pub(crate) async fn relays(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Relays>, Refusal> {
    caller.reader()?;
    Ok(Json(relays_now(&app)))
}

/// `GET /v1/channels`: of all relays together, in the order of the channels' ids.
#[utoipa::path(
    get,
    path = "/v1/channels",
    operation_id = "list_channels",
    tag = "Channels",
    summary = "List the channels that the account pays for, as relays hold them",
    description = "The relays are asked now. Of a channel they know a random id, its records and how many agents are in; its name is sealed. Channels that others opened are not listed, whoever is in them, nor are the logs of SLIM names. Refused with `relay_silent` when no relay answers.",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "50 when left out"), ("after" = Option<ChannelId>, Query, description = "The `next` of the page before")),
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "One page of them", body = HeldChannels)),
)]
pub(crate) async fn channels(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<HeldChannels>, Refusal> {
    let account = caller.reader()?;
    let (after, limit) = page.read::<ChannelId>("after must be a channel's id")?;
    channels_of(&app, account, after, limit).await.map(Json)
}

/// `GET /v1/channels/{id}/records`. Somebody else's channel is not found rather than forbidden.
#[utoipa::path(
    get,
    path = "/v1/channels/{id}/records",
    operation_id = "list_records",
    tag = "Channels",
    summary = "List what a relay holds of a channel, by places",
    description = "The relays are asked now. Of a record they know what it is, who sent it, when it came, and the length of its sealed body, which was padded before. Refused with `relay_silent` when a relay that may hold the channel does not answer.",
    params(("id" = ChannelId, Path), ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "50 when left out"), ("after" = Option<u64>, Query, description = "The `next` of the page before")),
    security(("key" = ["account"]), ("token" = ["account"]), ("session" = [])),
    responses((status = 200, description = "One page of them", body = HeldRecords)),
)]
pub(crate) async fn records(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<HeldRecords>, Refusal> {
    let account = caller.reader()?;
    let (after, limit) = page.read::<u64>("after must be a place in the channel")?;
    let id: ChannelId = id.parse().map_err(|_| Refusal::NOT_FOUND)?;
    let records = records_of(&app, account, id, after.unwrap_or_default(), limit);
    records.await.map(Json)
}

/// The relays of this server, and how they are.
pub(crate) fn relays_now(app: &App) -> Relays {
    let now = app.clock.now();
    let states = app.config.relays.iter().map(|relay| {
        let heard = app.questions.heard(&relay.key);
        RelayState {
            key: relay.key,
            addresses: relay.addresses.clone(),
            healthy: heard
                .as_ref()
                .is_some_and(|heard| heard.counts(now) && heard.health.ready),
            heard_at: heard.as_ref().map(|heard| rfc3339(heard.at)),
            health: heard.map(|heard| heard.health),
        }
    });
    Relays {
        relays: states.collect(),
    }
}

/// Channels that an account pays for, those behind `after`, at most `limit`.
pub(crate) async fn channels_of(
    app: &App,
    account: AccountId,
    after: Option<ChannelId>,
    limit: u32,
) -> Result<HeldChannels, Refusal> {
    let mut asked = ask_all(app, account, Ask::Channels { after, limit });
    // By their ids. One that stands at two relays is two.
    let mut found = BTreeMap::new();
    let mut silent = Vec::new();
    let mut is_full = false;
    while let Some((relay, told)) = asked.join_next().await.and_then(Result::ok) {
        match told {
            Ok(Told::Channels { channels }) => {
                is_full |= channels.len() >= limit as usize;
                let shown = channels.into_iter().map(|it| ((it.id, relay), it));
                found.extend(shown);
            }
            Ok(Told::Records { .. } | Told::Unknown | Told::Unreadable) => silent.push(relay),
            Err(no_answer) => silent.push(excused(relay, no_answer)?),
        }
    }
    if silent.len() == app.config.relays.len() && !silent.is_empty() {
        return Err(Refusal::RELAY_SILENT);
    }
    silent.sort_unstable();
    is_full |= found.len() > limit as usize;
    let channels = found.into_iter().take(limit as usize);
    let channels: Vec<_> = channels
        .map(|((_, relay), channel)| shown_channel(relay, &channel))
        .collect();
    let next = channels.last().filter(|_| is_full).map(|last| last.id);
    Ok(HeldChannels {
        channels,
        silent,
        next,
    })
}

/// What the relay that has this channel holds of it, behind a place, at most `limit` records.
pub(crate) async fn records_of(
    app: &App,
    account: AccountId,
    channel: ChannelId,
    after: u64,
    limit: u32,
) -> Result<HeldRecords, Refusal> {
    let ask = Ask::Records {
        channel,
        after,
        limit,
    };
    let mut asked = ask_all(app, account, ask);
    let mut is_silent = false;
    while let Some((relay, told)) = asked.join_next().await.and_then(Result::ok) {
        match told {
            Ok(Told::Records { records, more }) => {
                let next = records.last().filter(|_| more).map(|last| last.seq);
                return Ok(HeldRecords {
                    channel_id: channel,
                    relay,
                    records: records.iter().map(shown_record).collect(),
                    next,
                });
            }
            Ok(Told::Unknown) => {}
            Ok(Told::Channels { .. } | Told::Unreadable) => is_silent = true,
            Err(no_answer) => {
                excused(relay, no_answer)?;
                is_silent = true;
            }
        }
    }
    Err(if is_silent {
        Refusal::RELAY_SILENT
    } else {
        Refusal::NOT_FOUND
    })
}

/// Asks every relay at once. What is dropped is asked no more.
fn ask_all(app: &App, account: AccountId, ask: Ask) -> JoinSet<(RelayKey, Result<Told, NoAnswer>)> {
    let wait = Duration::from_millis(app.config.request_ms_max / 2).min(WAIT_MAX);
    let now = app.clock.now();
    let mut asked = JoinSet::new();
    for relay in app.config.relays.iter().map(|relay| relay.key) {
        let app = app.clone();
        asked.spawn(async move {
            let told = app.questions.ask(relay, account, ask, now, wait).await;
            (relay, told)
        });
    }
    asked
}

/// A silent relay is one answer less; what is refused here is the caller's matter.
fn excused(relay: RelayKey, no_answer: NoAnswer) -> Result<RelayKey, Refusal> {
    match no_answer {
        NoAnswer::Silent => Ok(relay),
        NoAnswer::TooMany => Err(TOO_MANY),
        NoAnswer::Full => Err(Refusal::BUSY),
    }
}

fn shown_channel(relay: RelayKey, channel: &ToldChannel) -> HeldChannel {
    let ToldChannel {
        id,
        records,
        pruned_to,
        members,
        bytes,
        first_ms,
        last_ms,
    } = *channel;
    HeldChannel {
        id,
        relay,
        records,
        pruned_to,
        members,
        bytes,
        first_at: first_ms.map(|ms| rfc3339(Time(ms))),
        last_at: last_ms.map(|ms| rfc3339(Time(ms))),
    }
}

fn shown_record(record: &ToldRecord) -> HeldRecord {
    let ToldRecord {
        seq,
        kind,
        id,
        agent_id,
        epoch,
        bytes,
        stored_ms,
    } = *record;
    HeldRecord {
        seq,
        kind,
        id,
        agent_id,
        epoch,
        bytes,
        stored_at: rfc3339(Time(stored_ms)),
    }
}

const TOO_MANY: Refusal = Refusal::too_often(
    "this account waits for as many answers of a relay as it may: ask one thing after the other",
    1,
);
/// Less than half of what a request may take. A relay that is there answers within milliseconds.
const WAIT_MAX: Duration = Duration::from_secs(4);
