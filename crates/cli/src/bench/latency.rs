//! One message at a time through an unloaded relay, beside the time of the flushes to disk that
//! each contains.

use std::time::Duration;

use super::{
    Effort, Figure,
    house::House,
    machine::{Flushed, percentile},
    pair::{CELL_BYTES, PAYLOAD_BYTES},
    parts::{Moment, Order},
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let mut house = House::open().await?;
    let mut stored = Vec::new();
    let mut received = Vec::new();
    let mut appended = Vec::new();
    let mut overwritten = Vec::new();
    let mut file = Flushed::new(&house.dir())?;
    for round in 0..effort.round_trips + WARM_UP {
        house.receiver.tell(&Order::Await).await?;
        let sent: Moment = house
            .sender
            .ask(&Order::One {
                bytes: PAYLOAD_BYTES,
            })
            .await?;
        let came: Moment = house.receiver.hear().await?;
        if round >= WARM_UP {
            stored.push(Duration::from_nanos(sent.took));
            received.push(Duration::from_nanos(came.at.saturating_sub(sent.at)));
            // Between the messages: a disk is not equally quick at all times.
            appended.push(file.append(CELL_BYTES)?);
            overwritten.push(file.overwrite(CELL_BYTES)?);
        }
    }
    drop(file);
    house.close().await?;

    let one = percentile(&appended, 50);
    let rounds = format!("{} messages of {PAYLOAD_BYTES} B", effort.round_trips);
    let (p50_stored, p50_received) = (percentile(&stored, 50), percentile(&received, 50));
    let figure = |name: &str, value, unit| Figure::new("latency", name, value, unit);
    Ok(vec![
        figure("send to stored, p50", p50_stored, "µs").note(rounds.clone()),
        figure("send to stored, p99", percentile(&stored, 99), "µs"),
        figure("send to received, p50", p50_received, "µs").note(rounds),
        figure("send to received, p99", percentile(&received, 99), "µs"),
        figure("one flush, p50", one, "µs").note(format!(
            "{CELL_BYTES} B appended, fdatasync, same directory"
        )),
        figure("one flush, p99", percentile(&appended, 99), "µs"),
        figure(
            "one flush in place, p50",
            percentile(&overwritten, 50),
            "µs",
        )
        .note("the same, written over: how a log is written that was emptied before"),
        figure(
            "stored to its flushes",
            p50_stored / (one * STORED),
            "ratio",
        )
        .note(format!(
            "{STORED} flushes: sender's outbox, relay's record, sender's answer"
        )),
        figure(
            "received to its flushes",
            p50_received / (one * RECEIVED),
            "ratio",
        )
        .note(format!(
            "{RECEIVED} flushes: sender's outbox, relay's record, receiver's inbox"
        )),
    ])
}

/// Flushes between a send and its answer: the sender stores what it wants to send before it leaves,
/// and that it is stored before it says so.
const STORED: f64 = 3.0;
/// Flushes between a send and the message in the application's hands. Leasing it to the reader
/// waits for no disk.
const RECEIVED: f64 = 3.0;
const WARM_UP: usize = 10;
