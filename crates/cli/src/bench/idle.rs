//! What a connection costs a relay that says nothing on it.

use skytale_sdk::RelayAddr;
use skytale_wire::{
    frame::{Ping, ToAgent, ToRelay},
    id::MessageId,
};
use tokio::task::JoinSet;

use super::{
    Effort, Figure,
    client::{Client, Issuer},
    number,
    parts::{Part, RelayIs, Role},
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let dir = tempfile::tempdir()?;
    let issuer = Issuer::new()?;
    let (relay, is): (_, RelayIs) = Part::start(&Role::Relay {
        dir: dir.path().join("relay"),
        keys: issuer.keys(),
    })
    .await?;
    let addr: RelayAddr = is.relay.parse()?;
    // What the first connections bring about is not theirs: threads, tables, caches.
    let mut clients = Vec::new();
    for _ in 0..WARM_UP {
        clients.push(connected(&addr, &issuer).await?);
    }
    let before = relay.resident();
    for _ in 0..effort.idle_connections {
        clients.push(connected(&addr, &issuer).await?);
    }
    let after = relay.resident();
    let closing: JoinSet<()> = clients.into_iter().map(Client::close).collect();
    closing.join_all().await;
    relay.end().await?;
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(Vec::new());
    };
    let each = number(after.saturating_sub(before)) / f64::from(effort.idle_connections) / 1024.0;
    Ok(vec![
        Figure::new("relay", "memory per idle connection", each, "KiB").note(format!(
            "{} connections with both streams; {:.1} MiB before",
            effort.idle_connections,
            number(before) / (1024.0 * 1024.0)
        )),
    ])
}

/// A connection with both of its streams open, and an answer on the first.
pub(super) async fn connected(addr: &RelayAddr, issuer: &Issuer) -> Result<Client, Failure> {
    let mut client = Client::connect(addr, issuer).await?;
    let ping = ToRelay::Ping(Ping {
        id: MessageId([1; 16]),
    });
    client.open_second().await?.say([&ping]).await?;
    client
        .ask(&ping, |frame| matches!(frame, ToAgent::Pong(_)))
        .await?;
    Ok(client)
}

const WARM_UP: usize = 16;
