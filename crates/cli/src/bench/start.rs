//! How quickly things are ready: a relay with a large archive, and the program itself.

use std::{path::Path, process::Stdio, time::Duration};

use skytale_relay::{
    archive::{Archive as _, KeyPackagesLeft, Write, fjall::FjallArchive},
    driver::Clock,
    hub::{Answer, Conn, Hub, HubConfig, Input, Output, Payer, Presented, Right, Ticket},
};
use skytale_wire::{
    frame::{Create, Publish, ToRelay},
    id::{AgentId, ChannelId, Epoch, MessageId, RelayKey, Time, TransportKey},
};
use tokio::{process::Command, time::Instant};

use super::{
    Effort, Figure,
    client::{Issuer, failed},
    machine::percentile,
    number,
    parts::{Part, RelayIs, Role},
    raised_limits,
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("relay");
    let (to_fill, count) = (place.clone(), effort.archived);
    tokio::task::spawn_blocking(move || fill(&to_fill, count))
        .await
        .map_err(|_| Failure::failed("the archive was not filled"))??;

    let issuer = Issuer::new()?;
    let role = Role::Relay {
        dir: place,
        keys: issuer.keys(),
    };
    let mut ready = Vec::new();
    let mut memory = None;
    for _ in 0..RELAY_STARTS {
        let begun = Instant::now();
        let (part, _): (_, RelayIs) = Part::start(&role).await?;
        ready.push(begun.elapsed());
        memory = part.resident();
        part.kill().await?;
    }
    let mut version = Vec::new();
    for _ in 0..effort.starts {
        version.push(version_time().await?);
    }
    let size = std::fs::metadata(std::env::current_exe()?)?.len();

    let figure = |name: &str, value, unit| Figure::new("start", name, value, unit);
    let mut figures = vec![
        figure(
            "relay ready",
            percentile(&ready, 50) / 1e3,
            "ms",
        )
        .note(format!(
            "from process start, {} messages of {BODY_BYTES} B in {CHANNELS} channels, killed before, median of {RELAY_STARTS}; wanted: 2000",
            effort.archived
        )),
        figure("relay ready, slowest", percentile(&ready, 99) / 1e3, "ms"),
    ];
    if let Some(memory) = memory {
        let mib = number(memory) / (1024.0 * 1024.0);
        figures.push(figure("relay's memory when ready", mib, "MiB"));
    }
    figures.push(
        figure("skytale --version", percentile(&version, 50) / 1e3, "ms")
            .note(format!("median of {}", effort.starts)),
    );
    figures.push(figure(
        "size of the program",
        number(size) / (1024.0 * 1024.0),
        "MiB",
    ));
    Ok(figures)
}

async fn version_time() -> Result<Duration, Failure> {
    let begun = Instant::now();
    let status = Command::new(std::env::current_exe()?)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .await?;
    if !status.success() {
        return Err(Failure::failed("`skytale --version` failed"));
    }
    Ok(begun.elapsed())
}

/// Fills an archive with what a hub would have written: the hub says what, and everything goes
/// straight to the store, many records to a batch.
fn fill(dir: &Path, count: u64) -> Result<(), Failure> {
    let mut archive = FjallArchive::open(dir).map_err(failed)?;
    let config = HubConfig {
        relay: RelayKey([1; 32]),
        limits: raised_limits(),
        guests: false,
        retention_ms: YEAR_MS,
        slim: skytale_relay::hub::SlimRules::default(),
        meters: false,
    };
    let mut hub = Hub::new(config, Vec::new()).map_err(failed)?;
    let mut now = Clock::system().now();
    let mut pending = Vec::new();
    let opened = Input::Opened {
        conn: CONN,
        presented: Presented {
            agent: AgentId([2; 32]),
            transport: TransportKey([3; 32]),
            right: Right::Account {
                payer: Payer::account("bench"),
                expires: now.plus(YEAR_MS),
            },
        },
    };
    step(&mut hub, opened, now, &mut pending);
    for number in 0..CHANNELS {
        let create = ToRelay::Create(Create {
            channel: channel(number),
            id: message(u64::MAX - number),
        });
        step(&mut hub, framed(create), now, &mut pending);
    }
    store(&mut hub, &mut archive, now, &mut pending)?;
    for number in 0..count {
        let publish = ToRelay::Publish(Publish {
            channel: channel(number % CHANNELS),
            id: message(number),
            epoch: Epoch(0),
            body: vec![0x5a; BODY_BYTES].into(),
            resumes: false,
        });
        step(&mut hub, framed(publish), now, &mut pending);
        if pending.len() >= BATCH {
            // Also a raised rate is one: its buckets fill up as time passes.
            now = now.plus(BATCH_MS);
            store(&mut hub, &mut archive, now, &mut pending)?;
        }
    }
    store(&mut hub, &mut archive, now, &mut pending)?;
    let stored: u64 = skytale_relay::archive::ArchiveReader::channels(&archive.reader())
        .map_err(failed)?
        .iter()
        .map(|channel| channel.head.0)
        .sum();
    if stored == count {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "{stored} of {count} messages are in the archive"
        )))
    }
}

/// One input for the hub; what it wants written is noted, what it asks is answered.
fn step(hub: &mut Hub, input: Input, now: Time, pending: &mut Vec<(Ticket, Write)>) {
    let mut out = Vec::new();
    hub.handle(input, now, &mut out);
    for output in out {
        match output {
            Output::Store { ticket, write } => pending.push((ticket, write)),
            Output::Read { conn, .. } => {
                let answer = Answer::Greeting {
                    key_packages: KeyPackagesLeft::default(),
                    welcomes: 0,
                };
                step(hub, Input::Answered { conn, answer }, now, pending);
            }
            Output::Send { .. }
            | Output::Deliver { .. }
            | Output::SlimDeliver { .. }
            | Output::SlimAck { .. }
            | Output::Report(_)
            | Output::Close { .. } => {}
        }
    }
}

fn store(
    hub: &mut Hub,
    archive: &mut FjallArchive,
    now: Time,
    pending: &mut Vec<(Ticket, Write)>,
) -> Result<(), Failure> {
    let (tickets, writes): (Vec<_>, Vec<_>) = std::mem::take(pending).into_iter().unzip();
    let written = archive.write(&writes).map_err(failed)?;
    for (ticket, written) in tickets.into_iter().zip(written) {
        step(hub, Input::Stored { ticket, written }, now, pending);
    }
    Ok(())
}

fn framed(frame: ToRelay) -> Input {
    Input::Frame {
        conn: CONN,
        frame,
        earlier: None,
    }
}

fn channel(number: u64) -> ChannelId {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    ChannelId(id)
}

fn message(number: u64) -> MessageId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    MessageId(id)
}

const CONN: Conn = Conn(1);
const CHANNELS: u64 = 1_000;
const BODY_BYTES: usize = 512;
/// Records that are flushed together.
const BATCH: usize = 2_000;
const BATCH_MS: u64 = 100;
const RELAY_STARTS: usize = 5;
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_filled_with_as_many_messages_as_were_wanted() {
        let dir = tempfile::tempdir().unwrap();

        fill(dir.path(), 2_500).unwrap();
    }
}
