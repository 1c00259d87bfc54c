//! A relay alone: bodies made beforehand, published durably and fanned out to eight members. The
//! clients know no MLS; the relay cannot tell, which is the point of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use skytale_sdk::RelayAddr;
use skytale_wire::{
    Blob,
    envelope::{self, RosterChange},
    frame::{
        Commit, Create, FRAME_BYTES_MAX, Publish, Subscribe, ToAgent, ToRelay, WelcomeFor, decode,
        encode,
    },
    id::{ChannelId, Epoch, MessageId, Seq},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Effort, Figure,
    client::{Client, Issuer, Reader, TOGETHER, Writer, random, take},
    machine::micros,
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
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Client::connect(&addr, &issuer).await?);
    }
    let channels = open_channels(&mut members).await?;

    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    let mut kept = Vec::new();
    for (number, member) in members.into_iter().enumerate() {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let own: Vec<ChannelId> = channels
            .iter()
            .skip(number)
            .step_by(MEMBERS)
            .copied()
            .collect();
        let (reader, writer, open) = member.split();
        kept.push(open);
        tasks.spawn(read(reader, Arc::clone(&counts), Arc::clone(&room)));
        tasks.spawn(publish(writer, own, number, room));
    }

    let measured = async {
        sleep(WARM_UP).await;
        let (before, cpu_before, begun) = (counts.now(), relay.cpu_time(), Instant::now());
        sleep(Duration::from_secs(effort.seconds)).await;
        let took = begun.elapsed().as_secs_f64();
        (before, counts.now(), cpu_before, relay.cpu_time(), took)
    };
    let (before, after, cpu_before, cpu_after, took) = tokio::select! {
        measured = measured => measured,
        Some(ended) = tasks.join_next() => {
            return Err(match ended {
                Ok(Err(failure)) => failure,
                Ok(Ok(())) | Err(_) => Failure::failed("a client has ended early"),
            });
        }
    };
    tasks.shutdown().await;
    for open in kept {
        open.close().await;
    }
    relay.end().await?;

    let [published, delivered] = [after[0] - before[0], after[1] - before[1]];
    let figure = |name: &str, value, unit| Figure::new("relay", name, value, unit);
    let mut figures = vec![
        figure("published", number(published) / took, "messages/s").note(format!(
            "{BODY_BYTES} B, durable, {MEMBERS} clients with {AT_ONCE} at once each, {CHANNELS} channels; wanted: 15000"
        )),
        figure("delivered", number(delivered) / took, "messages/s")
            .note(format!("to {MEMBERS} members each; wanted: 120000")),
    ];
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let used = micros(&after.saturating_sub(before));
        figures.push(
            figure("CPU per delivery", used / number(delivered), "µs")
                .note("the relay's process only"),
        );
        figures.push(figure(
            "CPU per published message",
            used / number(published),
            "µs",
        ));
        figures.push(
            figure("cores used by the relay", used / 1e6 / took, "cores")
                .note("the clients share the machine with it"),
        );
    }
    Ok(figures)
}

/// Every channel with all members in it, and everybody subscribed.
async fn open_channels(members: &mut [Client]) -> Result<Vec<ChannelId>, Failure> {
    let agents: Vec<_> = members.iter().map(|member| member.agent).collect();
    let mut channels = Vec::new();
    for number in 0..CHANNELS {
        let channel = ChannelId(random()?);
        let owner = number % MEMBERS;
        let others: Vec<_> = agents
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != owner)
            .map(|(_, agent)| *agent)
            .collect();
        let create = ToRelay::Create(Create {
            channel,
            id: MessageId([1; 16]),
        });
        let change = RosterChange {
            added: others
                .iter()
                .map(|agent| envelope::Grant {
                    agent: *agent,
                    admin: false,
                    may_invite: false,
                })
                .collect(),
            removed: Vec::new(),
            granted: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
        };
        let commit = ToRelay::Commit(Commit {
            channel,
            id: MessageId([2; 16]),
            epoch: Epoch(0),
            body: vec![0xc0; BODY_BYTES].into(),
            change: encode(&change).into(),
            welcomes: vec![WelcomeFor {
                agents: others,
                body: vec![0xe1; BODY_BYTES].into(),
            }],
            sealed: None,
            join: None,
        });
        if let Some(owner) = members.get_mut(owner) {
            owner
                .ask(&create, |frame| matches!(frame, ToAgent::Created(_)))
                .await?;
            owner
                .ask(&commit, |frame| matches!(frame, ToAgent::Ack(_)))
                .await?;
        }
        let subscribe = ToRelay::Subscribe(Subscribe {
            channel,
            id: MessageId([3; 16]),
            after: Seq(0),
        });
        for member in members.iter_mut() {
            member
                .ask(&subscribe, |frame| matches!(frame, ToAgent::Subscribed(_)))
                .await?;
        }
        channels.push(channel);
    }
    Ok(channels)
}

/// Publishes for ever, so many at once.
async fn publish(
    mut writer: Writer,
    channels: Vec<ChannelId>,
    number: usize,
    room: Arc<Semaphore>,
) -> Result<(), Failure> {
    let body: Blob = vec![0x5a; BODY_BYTES].into();
    let mut ids = 0_u64;
    let mut frames = Vec::new();
    let mut turn = channels.iter().cycle();
    loop {
        let count = take(&room, TOGETHER).await;
        frames.clear();
        for channel in turn.by_ref().take(count) {
            ids += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&ids.to_be_bytes());
            id[15] = u8::try_from(number).unwrap_or_default();
            frames.push(ToRelay::Publish(Publish {
                channel: *channel,
                id: MessageId(id),
                epoch: Epoch(1),
                body: body.clone(),
                resumes: false,
            }));
        }
        writer.say(&frames).await?;
    }
}

/// Counts what comes, for ever.
async fn read(
    mut reader: Reader,
    counts: Arc<Counts>,
    room: Arc<Semaphore>,
) -> Result<(), Failure> {
    loop {
        let mut published = 0;
        let mut delivered = 0;
        let more = reader.next_encoded(|bytes| {
            match bytes.get(1) {
                Some(&PUBLISHED) => published += 1,
                Some(&DELIVER) => delivered += 1,
                Some(_) | None => match decode(bytes, FRAME_BYTES_MAX) {
                    Ok(bad @ (ToAgent::Nack(_) | ToAgent::Closing(_))) => {
                        return Err(Failure::failed(format!("the relay says {bad:?}")));
                    }
                    Ok(_) => {}
                    Err(malformed) => return Err(Failure::failed(malformed.to_string())),
                },
            }
            Ok(())
        });
        timeout(SILENCE_MAX, more)
            .await
            .map_err(|_| Failure::timeout("the relay delivers nothing any more"))??;
        counts.published.fetch_add(published, Ordering::Relaxed);
        counts.delivered.fetch_add(delivered, Ordering::Relaxed);
        room.add_permits(usize::try_from(published).unwrap_or_default());
    }
}

#[derive(Default)]
struct Counts {
    published: AtomicU64,
    delivered: AtomicU64,
}

impl Counts {
    fn now(&self) -> [u64; 2] {
        [&self.published, &self.delivered].map(|count| count.load(Ordering::Relaxed))
    }
}

const MEMBERS: usize = 8;
const CHANNELS: usize = 32;
/// Publishes of one client that wait for their answer.
const AT_ONCE: usize = 256;
const BODY_BYTES: usize = 512;
const WARM_UP: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The second byte of an encoded frame is its kind; the first says that it is an array of two.
const PUBLISHED: u8 = 2;
const DELIVER: u8 = 6;

#[cfg(test)]
mod tests {
    use skytale_wire::frame::{Deliver, Published};

    use super::*;

    #[test]
    fn the_kinds_that_are_counted_are_where_they_are_looked_for() {
        let channel = ChannelId([1; 32]);
        let published = ToAgent::Published(Published {
            channel,
            id: MessageId([1; 16]),
            seq: Seq(1),
        });
        let deliver = ToAgent::Deliver(Deliver {
            channel,
            seq: Seq(1),
            record: vec![1].into(),
        });

        assert_eq!(encode(&published)[..2], [0x82, PUBLISHED]);
        assert_eq!(encode(&deliver)[..2], [0x82, DELIVER]);
    }
}
