//! `seen`: what relays hold of the account's channels, as they say it themselves.

use skytale_sdk::Account;
use skytale_wire::{
    http::{HeldChannel, HeldRecord, RecordKind},
    id::ChannelId,
};

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::{Output, harmless, table},
};

/// `seen [CHANNEL]`.
pub(crate) async fn run(
    wish: &args::Seen,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (_, account) = context::signed_in(everywhere)?;
    match wish.channel {
        Some(channel) => records(&account, channel, output).await,
        None => channels(&account, output).await,
    }
}

async fn channels(account: &Account, output: Output) -> Result<(), Failure> {
    if !output.is_json() {
        relays(account, output).await?;
    }
    let mut after = None;
    let mut shown = table(["CHANNEL", "RECORDS", "BYTES", "MEMBERS", "FIRST", "LAST"]);
    loop {
        let page = account.held_channels(after).await?;
        for relay in &page.silent {
            output.complain(&format!(
                "relay {} does not answer: what it holds is missing here",
                relay.short()
            ));
        }
        for channel in &page.channels {
            if output.is_json() {
                output.json_line(channel)?;
            } else {
                shown.add_row(channel_row(channel));
            }
        }
        if page.next.is_none() || page.next <= after {
            break;
        }
        after = page.next;
    }
    if output.is_json() {
        return Ok(());
    }
    output.line(&shown.to_string())
}

async fn relays(account: &Account, output: Output) -> Result<(), Failure> {
    let mut shown = table(["RELAY", "STATE", "HEARD", "VERSION", "UP"]);
    for relay in account.relay_states().await?.relays {
        let state = match (&relay.health, relay.healthy) {
            (_, true) => "ready",
            (Some(_), false) => "not ready, or not heard of late",
            (None, false) => "not heard",
        };
        let (version, up) = relay.health.map_or_else(
            || (String::new(), String::new()),
            |health| (harmless(&health.version), format!("{} s", health.uptime_s)),
        );
        shown.add_row([
            relay.key.short(),
            state.to_owned(),
            relay.heard_at.unwrap_or_default(),
            version,
            up,
        ]);
    }
    output.line(&shown.to_string())
}

async fn records(account: &Account, channel: ChannelId, output: Output) -> Result<(), Failure> {
    let mut after = 0;
    let mut shown = table(["PLACE", "KIND", "EPOCH", "BYTES", "STORED", "SENDER", "ID"]);
    loop {
        let page = account.held_records(channel, after).await?;
        for record in &page.records {
            if output.is_json() {
                output.json_line(record)?;
            } else {
                shown.add_row(record_row(record));
            }
        }
        match page.next {
            Some(next) if next > after => after = next,
            Some(_) | None => break,
        }
    }
    if output.is_json() {
        return Ok(());
    }
    output.line(&shown.to_string())
}

fn channel_row(channel: &HeldChannel) -> [String; 6] {
    [
        channel.id.to_string(),
        channel.records.to_string(),
        channel
            .bytes
            .map_or_else(|| "many".to_owned(), |bytes| bytes.to_string()),
        channel.members.to_string(),
        channel.first_at.clone().unwrap_or_default(),
        channel.last_at.clone().unwrap_or_default(),
    ]
}

fn record_row(record: &HeldRecord) -> [String; 7] {
    let kind = match record.kind {
        RecordKind::Application => "application",
        RecordKind::Commit => "commit",
        RecordKind::Join => "join",
        RecordKind::Leave => "leave",
    };
    [
        record.seq.to_string(),
        kind.to_owned(),
        record.epoch.to_string(),
        record
            .bytes
            .map_or_else(|| "gone".to_owned(), |bytes| bytes.to_string()),
        record.stored_at.clone(),
        record.agent_id.to_string(),
        record.id.to_string(),
    ]
}
